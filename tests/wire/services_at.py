"""A gateway before a service that is at several places."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.wire.endpoint import Endpoint
from gateway.wire.upstream import Upstream
from tests.rig.client import PATIENCE
from tests.rig.gateway import POLICY, Gateway, request, running
from tests.rig.messages import Request
from tests.rig.upstream import Line, RecordingUpstream, Script

GET = request(b"GET", b"/public/x")


class Several:
    """A gateway, and the places its upstream `app` is at."""

    def __init__(self, gateway: Gateway, places: list[RecordingUpstream]) -> None:
        self.gateway = gateway
        self.places = places

    @property
    def upstream(self) -> Upstream:
        """The service as the gateway sees it."""
        return self.gateway.app.wire.upstreams["app"]

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Its places as the gateway sees them."""
        return self.upstream.endpoints

    @property
    def counts(self) -> list[int]:
        """Requests that came to each place since the last `forget`; health checks are none."""
        return [sum(not each.target.startswith(b"/healthz") for each in place.requests) for place in self.places]

    def forget(self) -> None:
        """Count from here."""
        for place in self.places:
            place.clear()

    async def ask(self, many: int = 1, raw: bytes = GET, method: str = "GET") -> list[int]:
        """Status of `many` answers, one after the other."""
        return [(await self.gateway.ask(raw, method)).status for _ in range(many)]

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` pass, and what they begin end."""
        self.gateway.pass_time(seconds)
        await settled(self.gateway)


async def settled(gateway: Gateway) -> None:
    """Wait until nothing is being looked up or checked any more."""
    async with asyncio.timeout(PATIENCE):
        while gateway.app.wire._tasks:
            await asyncio.sleep(0.002)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition()` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.002)


def status(code: bytes) -> Script:
    """A script that answers with `code` and nothing more."""

    async def script(_: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % code)

    return script


async def hang_up(_: Request, line: Line) -> None:
    """A script that closes without a word."""
    line.close()


@asynccontextmanager
async def several(folder: Path, many: int = 2, *, policy: str = POLICY, **said: Any) -> AsyncIterator[Several]:
    """Run a gateway before `many` places; `said` is what the config says of the upstream beside them."""
    async with AsyncExitStack() as ending:
        places = [RecordingUpstream() for _ in range(many)]
        for place in places:
            await place.start()
            ending.push_async_callback(place.stop)
        urls = [f"http://127.0.0.1:{place.port}" for place in places]
        config = {"upstreams": {"app": {"endpoints": urls, **said}, "other": {"url": urls[0]}}}
        gateway = await ending.enter_async_context(running(folder, policy=policy, config=config))
        yield Several(gateway, places)
        for place in places:
            assert place.violations == []
