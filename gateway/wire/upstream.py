"""A service behind the gate: where it is, and the connections to it that are open."""

from __future__ import annotations

import asyncio

from gateway.core.reasons import Reason
from gateway.wire.request import Declined
from gateway.wire.upstream_connection import UpstreamConnection

Endpoint = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


class Upstream:
    """One service: where it is, and the connections to it that are open."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        connect_time: float = 5.0,
        response_time: float = 60.0,
        idle_time: float = 60.0,
        keep: float = 30.0,
        connections: int = 512,
    ) -> None:
        """Times in seconds. `keep`: how long an unused connection stays; below the service's own keep-alive."""
        self.name = name
        self.endpoint = endpoint
        self.connect_time = connect_time
        self.response_time = response_time
        self.idle_time = idle_time
        self.keep = keep
        self.connections = connections
        self.open: set[UpstreamConnection] = set()
        self._unused: list[UpstreamConnection] = []
        self._connecting = 0

    def take(self) -> UpstreamConnection | None:
        """The connection used last that is free, or None."""
        unused = self._unused
        while unused:
            connection = unused.pop()
            if connection.usable:
                return connection
        return None

    def give_back(self, connection: UpstreamConnection, now: float) -> None:
        """Keep a connection for the next exchange."""
        connection.deadline = now + self.keep
        self._unused.append(connection)

    async def connect(self) -> UpstreamConnection:
        """A new connection. Raises `Declined`."""
        if len(self.open) + self._connecting >= self.connections:
            raise Declined(Reason.UPSTREAM_BUSY)
        loop = asyncio.get_running_loop()
        self._connecting += 1
        try:
            async with asyncio.timeout(self.connect_time):
                if isinstance(self.endpoint, str):
                    _, made = await loop.create_unix_connection(lambda: UpstreamConnection(self), self.endpoint)
                else:
                    host, port = self.endpoint
                    _, made = await loop.create_connection(lambda: UpstreamConnection(self), host, port)
        except OSError:  # TimeoutError is one
            raise Declined(Reason.UPSTREAM_UNREACHABLE) from None
        finally:
            self._connecting -= 1
        return made

    def sweep(self, now: float) -> None:
        """Let go of what took too long. `now`: monotonic seconds."""
        late = [connection for connection in self.open if connection.deadline < now]
        for connection in late:
            connection.expire()

    def close(self) -> None:
        """Drop every connection."""
        for connection in list(self.open):
            connection.abort()
