"""One path of the API, and how a request becomes a call of its handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway.core.errors import UserError
from gateway.core.strict_json import loads
from gateway.core.words import say
from gateway.web.answers import json, problem

Handler = Callable[[web.Request, Any], Awaitable[BaseModel | web.Response | None]]


class Empty(BaseModel):
    """No member."""

    model_config = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method on one path."""

    method: str
    path: str
    """Below `api/v1/`, with `{parameters}`."""
    handler: Handler
    """Called with the request and the checked body; answers a model, or None for 204."""
    summary: str
    query: tuple[tuple[str, str], ...] = ()
    """What may stand after the `?`: name and description."""
    takes: type[BaseModel] = Empty
    answers: type[BaseModel] | None = None
    status: int = 200
    fresh: bool = False
    """Whether it changes something that needs a fresh proof (401 with RFC 9470 otherwise)."""
    codes: tuple[tuple[int, str], ...] = ()
    """Errors of its own: status and code."""

    async def __call__(self, request: web.Request) -> web.Response:
        """Check the body, call the handler, write its answer."""
        body = self.takes() if self.method in ("GET", "DELETE") else await self._body(request)
        if isinstance(body, web.Response):
            return body
        answer = await self.handler(request, body)
        if isinstance(answer, web.Response):
            return answer
        if answer is None:
            return web.Response(status=204)
        return json(answer.model_dump(mode="json"), status=self.status)

    async def _body(self, request: web.Request) -> BaseModel | web.Response:
        if request.content_type != "application/json":
            raise UserError("ERR-CONTENT-TYPE", say("The body has to be application/json."), 415)
        raw = await request.read()
        try:
            value = loads(raw) if raw else {}
        except ValueError as error:
            raise UserError("ERR-JSON", say("The body is not JSON."), 400) from error
        try:
            return self.takes.model_validate(value)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False, include_context=False)
            errors = [
                {"pointer": "/" + "/".join(map(str, one["loc"])) if one["loc"] else "", "detail": one["msg"]}
                for one in found
            ]
            return problem(request, 400, "ERR-BODY", say("The body is not as it should be."), more={"errors": errors})
