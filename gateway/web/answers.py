"""What we answer with: pages, redirects and problem details (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from gateway.core.languages import spoken
from gateway.core.page_headers import HEADERS
from gateway.web import pages
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.return_to import is_safe

if TYPE_CHECKING:
    from gateway.core.rule import StepUpDemand

REALM = "sallyport"


def page(
    request: web.Request,
    template: str,
    *,
    status: int = 200,
    leads_on: bool = False,
    script: bool = False,
    language: str = "",
    again: str = "",
    **values: Any,
) -> web.Response:
    """The page `template`. `leads_on`: whether its form ends at a service, wherever that sends people.

    `script`: whether it asks for a security key. `language`: of a page that is there in one only; empty: the caller's.
    `again`: where it can be seen once more, to be read in another language; empty: where a GET has found it.
    """
    prefix = request.app[DESK].prefix
    here = "" if language else again or _here(request)
    language = language or language_of(request)
    body = pages.render(template, prefix, language, here=here, **values)
    policy = (pages.LEADS_ON if leads_on else HEADERS)["Content-Security-Policy"]
    if script:
        policy = pages.with_script(policy, request[CALLER].origin, prefix)
    headers = {"Content-Security-Policy": policy, "Content-Language": language}
    return web.Response(body=body, status=status, headers=headers, content_type="text/html", charset="utf-8")


def language_of(request: web.Request) -> str:
    """What whoever asks is spoken to in."""
    caller = request.get(CALLER)
    return caller.language if caller is not None else request.app[DESK].language


def told(request: web.Request, said: str) -> str:
    """`said` in the caller's language, for what is no page."""
    return str(spoken(said, language_of(request)))


def _here(request: web.Request) -> str:
    """The address of this page, where it can be asked for once more. One that holds a secret is not repeated in it,
    nor a way on that is not taken.
    """
    if request.method != "GET" or "token" in request.query:
        return ""
    return request.raw_path if is_safe(request.query.get("next") or "/") else request.raw_path.partition("?")[0]


def redirect(location: str, status: int = 303) -> web.Response:
    """Go to `location`, byte for byte: aiohttp's own redirects would parse and rewrite it."""
    return web.Response(status=status, headers={"Location": location})


def json(value: Any, *, status: int = 200, content_type: str = "application/json") -> web.Response:
    """`value` as JSON."""
    return web.Response(body=orjson.dumps(value), status=status, content_type=content_type)


def wants_page(request: web.Request) -> bool:
    """Whether a person is looking: the REST API and whoever does not ask for HTML get problem details."""
    if request.path.startswith(request.app[DESK].prefix + "api/v1/"):
        return False
    return "text/html" in request.headers.get("Accept", "")


def problem(
    request: web.Request, status: int, code: str, detail: str, *, title: str = "", more: Mapping[str, Any] | None = None
) -> web.Response:
    """Problem details; `more` are extension members. `detail` is for people, and in their language."""
    answer = json(
        {
            "type": "about:blank",
            "title": title or HTTPStatus(status).phrase,
            "status": status,
            "detail": told(request, detail),
            "code": code,
            "request_id": request.headers.get("Sallyport-Request-Id", ""),
            **(more or {}),
        },
        status=status,
        content_type="application/problem+json",
    )
    answer.headers["Content-Language"] = language_of(request)
    return answer


def refusal(
    request: web.Request,
    status: int,
    code: str,
    detail: str,
    *,
    retry_after: float = 0.0,
    action: tuple[str, str] | None = None,
) -> web.Response:
    """No, told to a person or to a program, whichever asks."""
    if wants_page(request):
        request_id = request.headers.get("Sallyport-Request-Id", "")
        language = language_of(request)
        body = pages.error_page(
            status,
            code,
            "",
            detail,
            request_id,
            prefix=request.app[DESK].prefix,
            action=action,
            language=language,
            here=_here(request),
        )
        headers = {"Content-Language": language}
        answer = web.Response(body=body, status=status, headers=headers, content_type="text/html", charset="utf-8")
    else:
        answer = problem(request, status, code, detail)
    if retry_after > 0:
        answer.headers["Retry-After"] = str(math.ceil(retry_after))
    return answer


def challenge(demand: StepUpDemand | None = None) -> str:
    """`WWW-Authenticate`: RFC 6750 section 3 for nobody, RFC 9470 section 3 for somebody who has to prove more."""
    if demand is None:
        return f'Bearer realm="{REALM}"'
    parts = [
        f'Bearer realm="{REALM}"',
        'error="insufficient_user_authentication"',
        'error_description="A fresh or stronger proof is required"',
        f'acr_values="{demand.level.acr}"',
    ]
    if demand.max_age is not None:
        parts.append(f'max_age="{int(demand.max_age)}"')
    return ", ".join(parts)
