"""Where a host name leads to, asked again from time to time.

getaddrinfo does not tell how long its answer holds (RFC 1035, section 3.2.1), so names are asked for at an interval of
the operator's. While nobody answers, what was known before is good enough: a name server that is away must not take
services with it that are not.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence

_log = logging.getLogger(__name__)

SocketAddress = tuple[str, int]
Resolve = Callable[[str, int], Awaitable[Sequence[SocketAddress]]]
"""Host and port → every address they stand for. Raises OSError."""


async def resolve(host: str, port: int) -> Sequence[SocketAddress]:
    """Ask the machine's own resolver, in a thread of the loop's. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys((str(address[0]), int(address[1])) for *_, address in found))


class Addresses:
    """The addresses of one host."""

    def __init__(self, host: str, port: int, *, every: float, ask: Resolve = resolve) -> None:
        """`every`: seconds after which a name is asked for again."""
        self.host = host
        self.port = port
        self.known: tuple[SocketAddress, ...] = ()
        self.gone: frozenset[SocketAddress] = frozenset()
        """Addresses the name no longer leads to."""
        self.failures = 0
        """How often nobody could say where the name leads."""
        self._every = every
        self._ask = ask
        self._failing = False
        self._turn = 0
        self._due = float("-inf")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return
        self.known = ((host, port),)
        self._due = float("inf")

    def due(self, now: float) -> bool:
        """Whether to ask again at `now` (monotonic seconds); says so once."""
        if now < self._due:
            return False
        self._due = now + self._every
        return True

    async def refresh(self) -> None:
        """Ask. Raises OSError where nothing is known at all; else what was known stays."""
        try:
            found = tuple(await self._ask(self.host, self.port))
            if not found:
                raise OSError(f"{self.host} has no address")
        except OSError as error:
            self.failures += 1
            if not self._failing:
                self._failing = True
                _log.warning("%s cannot be resolved: %s", self.host, error.strerror or error)
            if not self.known:
                raise
            return
        if self._failing:
            self._failing = False
            _log.info("%s can be resolved again", self.host)
        self.gone = (self.gone | frozenset(self.known)) - frozenset(found)
        self.known = found

    async def in_turn(self) -> Sequence[SocketAddress]:
        """Every address, beginning with another one each time. Raises OSError."""
        if not self.known:
            await self.refresh()
        first = self._turn = (self._turn + 1) % len(self.known)
        return self.known[first:] + self.known[:first]
