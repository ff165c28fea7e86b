"""The OpenAPI document held against a gateway that runs: schemathesis asks what it allows, and what it does not.

Whatever comes of it has to be in the document: status, content type, members. What the document does not allow is
refused, and nothing is ever a fault of ours. Asked as an administrator and as somebody else, freshly proven each time.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.web.api.openapi import ENDPOINTS, describe
from tests.rig.gateway import Gateway, running

EXAMPLES = int(os.environ.get("API_EXAMPLES", "0"))
"""Of each operation, in each of the two ways, half of them by each of the two; 0: four that are always the same."""
P = "/.sallyport/"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
T = TypeVar("T")


class Threaded:
    """A gateway in a loop of its own: schemathesis asks from outside, and waits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), daemon=True)
        self.gateway: Gateway
        self.asked = 0

    def __enter__(self) -> Threaded:
        self._thread.start()
        if not self._up.wait(30):
            raise RuntimeError("the gateway did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(30)
        self._loop.close()

    async def _run(self) -> None:
        offered = {
            "webauthn": {}, "totp": {}, "backup_codes": {}, "trusted_devices": {}, "sms": {}, "recovery": {},
            "email": {"counts_as_second_factor": True},
        }  # fmt: skip
        console: list[dict[str, object]] = [{"console": {}}]
        patient = {"wait": "60s"}  # a machine that is busy with other tests is not overload
        config = {
            "public_url": "http://localhost", "mfa": offered, "connections": patient,
            "notify": {"sms": console, "email": console},
        }  # fmt: skip
        async with running(self._folder, config=config) as self.gateway:
            self._up.set()
            await self._done.wait()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def headers(self) -> dict[str, str]:
        """Of a browser of ours: now ann's, who is an administrator, now bob's; with a new session each time."""
        self.asked += 1
        self.gateway.clock.advance(10.0)  # so that no limit of ours is in the way
        cookie = self.do(self.gateway.sign_in("ann" if self.asked % 2 else "bob", "totp"))
        return {"Host": "localhost", "Origin": "http://localhost", "Cookie": cookie.decode(), "User-Agent": "rig"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Threaded]:
    with Threaded(tmp_path_factory.mktemp("openapi")) as house:
        yield house


SCHEMA = schemathesis.openapi.from_dict({**describe(P), "security": []})
"""Without the session's cookie, which is ours to give here."""


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("one", ENDPOINTS, ids=lambda one: f"{one.method} {one.path}")
def test_it_does_what_the_document_says(house: Threaded, one: Any, mode: GenerationMode) -> None:
    operation = SCHEMA[f"/{one.path}"][one.method]
    checks = [*CHECKS, negative_data_rejection] if mode is GenerationMode.NEGATIVE else CHECKS

    @settings(
        max_examples=EXAMPLES or 4,
        phases=[Phase.generate],
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(
            base_url=f"http://127.0.0.1:{house.gateway.port}{P}api/v1", headers=house.headers(), allow_redirects=False
        )
        case.validate_response(answer, checks=checks)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        assert one.method in ("GET", "DELETE"), "nothing can be wrong where nothing is said"
