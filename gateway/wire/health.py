"""Asking an endpoint how it is, before a client's request has to find out.

Each check is a request on a connection of its own, over the same TLS as all others: what is tried is the way a request
takes. Checks of several endpoints, and of several gateways, are spread by chance, so that no service gets them all at
once.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from gateway.wire.endpoint import Endpoint

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
_LINE = 1024
"""Bytes of an answer that are looked at."""


@dataclass(frozen=True, slots=True)
class Health:
    """What to ask, how often, and what to make of the answers. Times in seconds."""

    path: str = "/healthz"
    host: str = ""
    """`Host` of the request; empty: the endpoint's own."""
    interval: float = 5.0
    timeout: float = 2.0
    healthy: int = 2
    """Good answers in a row that bring an endpoint back."""
    unhealthy: int = 3
    """Failures in a row that take it out."""
    expect: tuple[int, int] = (200, 399)
    """Lowest and highest good status."""


async def check(endpoint: Endpoint, health: Health) -> bool:
    """Whether `endpoint` gives a good answer in time."""
    request = (
        f"GET {health.path} HTTP/1.1\r\nHost: {health.host or endpoint.authority}\r\n"
        "User-Agent: sallyport-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    asked = _Check(request.encode("ascii"))
    try:
        async with asyncio.timeout(health.timeout):
            await endpoint.dial(lambda: asked, health.timeout)
            status = await asked.status
    except OSError:  # TimeoutError is one
        return False
    finally:
        asked.abort()
    return health.expect[0] <= status <= health.expect[1]


class _Check(asyncio.Protocol):
    """One question; `status` is the answer's, or 0 where there is none."""

    def __init__(self, request: bytes) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._request = request
        self._answer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = made = cast(asyncio.Transport, transport)
        made.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data[:_LINE]
        if b"\n" in self._answer or len(self._answer) >= _LINE:
            found = _STATUS.match(self._answer)
            self._tell(int(found[1]) if found is not None else 0)
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._tell(0)

    def abort(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def _tell(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)
