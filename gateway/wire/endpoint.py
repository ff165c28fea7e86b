"""One place a service is at: how to get there, the connections that are open, and how it has been doing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from gateway.wire.addresses import Addresses, Resolve, resolve
from gateway.wire.retries import UNWELL
from gateway.wire.upstream_connection import UpstreamConnection
from gateway.wire.upstream_tls import UpstreamTls

if TYPE_CHECKING:
    from gateway.wire.exchange import Exchange
    from gateway.wire.upstream import Upstream

_log = logging.getLogger(__name__)
_P = TypeVar("_P", bound=asyncio.Protocol)

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""
FAREWELL = 0.5
"""Seconds for a TLS connection to end as it should; one that does not has been cut (RFC 9112, section 9.8)."""
NEWCOMER = 0.1
"""Weight with which an endpoint that was out begins again."""


class Endpoint:
    """Where a service is, or one of several places. Its `Upstream` decides when it is out, and when it is back."""

    __slots__ = (
        "_said",
        "_tls",
        "address",
        "addresses",
        "authority",
        "checked_at",
        "checks",
        "ejected_until",
        "failures",
        "healthy",
        "keep",
        "name",
        "open",
        "returned_at",
        "times",
        "unused",
        "upstream",
        "waiting",
        "watched",
        "weight",
    )

    def __init__(
        self,
        upstream: Upstream,
        name: str,
        address: Address,
        *,
        tls: UpstreamTls | None,
        every: float,
        ask: Resolve = resolve,
    ) -> None:
        """`name`: as the operator wrote it. `every`: seconds after which a host name is resolved again."""
        self.upstream = upstream
        self.name = name
        self.address = address
        self.addresses = None if isinstance(address, str) else Addresses(*address, every=every, ask=ask)
        self.authority = "localhost" if isinstance(address, str) else _authority(*address)
        """`Host` of a request that is ours."""
        self.times = upstream.times
        self.keep = upstream.times.keep
        self.waiting = upstream.waiting
        self.open: set[UpstreamConnection] = set()
        self.unused: list[UpstreamConnection] = []
        self.watched = False
        """Whether anybody wants to know how requests end here."""
        self.failures = 0
        """In a row."""
        self.healthy = True
        """As its checks say."""
        self.checks = 0
        """Checks in a row that say otherwise."""
        self.checked_at = float("-inf")
        """When the next check is due."""
        self.ejected_until = 0.0
        """Until when it is left out for its failures; 0.0: it is not."""
        self.returned_at = float("-inf")
        self.weight = 1.0
        self._tls = tls
        self._said = ""

    @property
    def up(self) -> bool:
        """Whether it takes part."""
        return self.healthy and not self.ejected_until

    @property
    def outstanding(self) -> int:
        """Requests it has to answer."""
        return len(self.open) - len(self.unused)

    # -- connections -----------------------------------------------------------------------------------------------

    def take(self, _: Exchange | None = None) -> UpstreamConnection | None:
        """The connection used last that is free, or None."""
        unused = self.unused
        while unused:
            connection = unused.pop()
            if connection.usable:
                return connection
        return None

    def give_back(self, connection: UpstreamConnection, now: float) -> None:
        """Keep a connection for the next exchange."""
        if self.waiting and self.upstream.hand_on(connection):
            return
        connection.deadline = now + self.keep
        self.unused.append(connection)

    async def connect(self, seconds: float) -> UpstreamConnection:
        """A new connection. Raises OSError."""
        born: list[UpstreamConnection] = []

        def bear() -> UpstreamConnection:
            born.append(UpstreamConnection(self))
            return born[-1]

        try:
            made = await self.dial(bear, seconds)
        except BaseException:
            for connection in born:  # one made just as nobody waits for it any more is closed, but never told so
                if connection.usable:
                    connection.abort()
                    connection.connection_lost(None)
            raise
        if not made.usable:  # it has ended before we could look at it
            raise ConnectionResetError("closed at once")
        self.open.add(made)  # from here on, and not while it counts as one that is being made
        return made

    async def dial(self, protocol: Callable[[], _P], seconds: float) -> _P:
        """Connect, within `seconds`, to the first address that takes us. Raises OSError."""
        try:
            async with asyncio.timeout(seconds):
                made = await self._dial(protocol, seconds)
        except OSError as error:  # TimeoutError is one
            if (said := str(error) or "it took too long") != self._said:
                self._said = said
                _log.warning("upstream %s: no connection to %s: %s", self.upstream.name, self.name, said)
            raise
        if self._said:
            self._said = ""
            _log.info("upstream %s: %s can be reached again", self.upstream.name, self.name)
        return made

    async def _dial(self, protocol: Callable[[], _P], seconds: float) -> _P:
        loop = asyncio.get_running_loop()
        if isinstance(self.address, str) or self.addresses is None:
            return (await loop.create_unix_connection(protocol, str(self.address)))[1]
        tls = self._tls
        addresses = await self.addresses.in_turn()
        for host, port in addresses[:-1]:
            try:
                async with asyncio.timeout(seconds / len(addresses)):
                    return await self._dial_one(loop, protocol, host, port, tls)
            except OSError:
                continue
        return await self._dial_one(loop, protocol, *addresses[-1], tls)

    async def _dial_one(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: Callable[[], _P],
        host: str,
        port: int,
        tls: UpstreamTls | None,
    ) -> _P:
        if tls is None:
            return (await loop.create_connection(protocol, host, port))[1]
        name = tls.server_name or self.address[0]
        connecting = loop.create_connection(
            protocol, host, port, ssl=tls.context, server_hostname=name, ssl_shutdown_timeout=FAREWELL
        )
        return (await connecting)[1]

    def dropped(self, connection: UpstreamConnection) -> None:
        """A connection is of no more use: it takes nobody's room, and nobody takes it."""
        self.open.discard(connection)
        if connection in self.unused:
            self.unused.remove(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """A connection has ended."""
        self.dropped(connection)
        if self.waiting:
            self.upstream.wake()

    def sweep(self, now: float) -> None:
        """Let go of what took too long, and of what leads to where the name no longer does."""
        for connection in [connection for connection in self.open if connection.deadline < now]:
            connection.expire()
        if self.addresses is not None and self.addresses.gone:
            for connection in [connection for connection in self.unused if connection.peer in self.addresses.gone]:
                connection.abort()

    def close(self) -> None:
        """Drop every connection."""
        for connection in list(self.open):
            connection.abort()

    # -- how it is doing -------------------------------------------------------------------------------------------

    def answered(self, status: int) -> None:
        """A whole answer has come; told only where `watched`."""
        if status in UNWELL:
            self.failed()
        else:
            self.failures = 0
            self.upstream.succeeded()

    def failed(self) -> None:
        """It could not be reached, broke off, answered nonsense or not in time."""
        self.failures += 1
        self.upstream.failed(self)


def _authority(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port in (80, 443) else f"{shown}:{port}"
