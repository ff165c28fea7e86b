"""Which of several endpoints gets a request.

A balance is arranged anew whenever an endpoint comes, goes or gains weight, and picked from for every request. An
endpoint's weight is 1.0, and less while it returns.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gateway.wire.endpoint import Endpoint
    from gateway.wire.exchange import Exchange


class Balance(Protocol):
    """A way to choose."""

    sticky: bool
    """Whether it matters to a request which endpoint it gets."""

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """From now on choose among these; never none."""
        ...

    def pick(self, exchange: Exchange, avoid: Collection[Endpoint] = ()) -> Endpoint:
        """One of them, if possible not one to `avoid`."""
        ...


class RoundRobin:
    """One after the other, as often as its weight says, evenly spread."""

    sticky = False

    def __init__(self) -> None:
        self._order: Sequence[Endpoint] = ()
        self._next = -1
        self._spare = -1
        """Where requests that failed elsewhere were sent last: they take nobody's turn."""

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """See `Balance`."""
        tenths = [max(1, round(endpoint.weight * 10)) for endpoint in endpoints]
        if len(set(tenths)) == 1:
            self._order = endpoints
            return
        turns = sorted(((turn + 0.5) / many, at) for at, many in enumerate(tenths) for turn in range(many))
        self._order = [endpoints[at] for _, at in turns]

    def pick(self, exchange: Exchange, avoid: Collection[Endpoint] = ()) -> Endpoint:
        """See `Balance`."""
        order = self._order
        if not avoid:
            self._next = (self._next + 1) % len(order)
            return order[self._next]
        for _ in order:
            self._spare = (self._spare + 1) % len(order)
            if order[self._spare] not in avoid:
                break
        return order[self._spare]


class LeastOutstanding:
    """The one that has the fewest requests to answer; of equals, one after the other."""

    sticky = False

    def __init__(self) -> None:
        self._endpoints: Sequence[Endpoint] = ()
        self._first = -1

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """See `Balance`."""
        self._endpoints = endpoints

    def pick(self, exchange: Exchange, avoid: Collection[Endpoint] = ()) -> Endpoint:
        """See `Balance`."""
        endpoints = self._endpoints
        first = self._first = (self._first + 1) % len(endpoints)
        best = endpoints[first]
        least = float("inf")
        for at in range(first - len(endpoints), first):
            endpoint = endpoints[at]
            load = (endpoint.outstanding + 1) / endpoint.weight
            if load < least and endpoint not in avoid:
                best, least = endpoint, load
        return best


class ConsistentHash:
    """The same for the same client: a ring (Karger et al., STOC 1997), so that one endpoint less moves only its own.

    An endpoint that returns gets its keys back by and by, each of them once.
    """

    sticky = True
    POINTS = 160
    """On the ring, for each endpoint."""

    def __init__(self, by: str, endpoints: Sequence[Endpoint]) -> None:
        """`by`: `address`, `user`, `session`, `header:<name>` or `cookie:<name>`."""
        kind, _, name = by.partition(":")
        self._kind = kind
        self._header = name.encode("ascii")
        self._cookie = re.compile(rb"(?:^|;\s*)" + re.escape(self._header) + rb"=([^;]*)")
        ring = sorted(
            (_point(f"{endpoint.name}#{turn}".encode()), at)
            for at, endpoint in enumerate(endpoints)
            for turn in range(self.POINTS)
        )
        self._points = [point for point, _ in ring]
        self._owners = [endpoints[at] for _, at in ring]
        self._here: Sequence[Endpoint] = endpoints

    def arrange(self, endpoints: Sequence[Endpoint]) -> None:
        """See `Balance`."""
        self._here = endpoints

    def pick(self, exchange: Exchange, avoid: Collection[Endpoint] = ()) -> Endpoint:
        """See `Balance`."""
        point = _point(self._key(exchange))
        here, owners = self._here, self._owners
        share = (point & 0xFFFF_FFFF) / 0x1_0000_0000
        first = bisect(self._points, point)
        for at in range(first - len(owners), first):
            owner = owners[at]
            if owner in here and owner not in avoid and share < owner.weight:
                return owner
        return next((endpoint for endpoint in here if endpoint not in avoid), here[0])

    def _key(self, exchange: Exchange) -> bytes:
        """What the request is known by; its address where it has nothing of the kind."""
        facts, verdict = exchange.facts, exchange.verdict
        if facts is None:
            return b""
        found: bytes | str = b""
        identity = verdict.identity if verdict is not None else None
        match self._kind:
            case "user" if identity is not None:
                found = identity.user
            case "session" if identity is not None and identity.session is not None:
                found = identity.session.id
            case "header":
                found = b"\0".join(facts.header(self._header))
            case "cookie":
                found = b"\0".join(self._cookie.findall(facts.cookie))
        found = found or facts.network
        return found if isinstance(found, bytes) else found.encode()


def _point(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
