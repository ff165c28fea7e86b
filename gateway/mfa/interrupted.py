"""The request that a sign-in or a challenge cut short: kept sealed, and carried on once.

- *Sealed.* A form may hold anything, so it is encrypted at rest. The seal is bound to the owner and to the ticket: with
  the wrong one of either the record cannot be opened, and looks exactly like one that is not there.
- *Once.* Carrying on takes the record out of the store in one atomic step. Of several simultaneous tries one gets it.
- *Bounded.* An owner has `max_each` places, taken in turn: a further request falls into the place of the oldest, so the
  cap holds by construction, without counting. Strangers are owners too (anybody may invent a browser cookie), so all
  that strangers keep at a time is bounded for the whole process; what they fill cannot crowd out people who are
  signed in, who have sessions to be counted by.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import orjson

from gateway.core.clock import Clock
from gateway.core.contracts import KeyValue, key
from gateway.core.errors import UserError
from gateway.core.identity import DEFAULT_TENANT
from gateway.crypto.sealing import Sealer, Unsealable
from gateway.crypto.tokens import digest, new_token

STRANGERS = 32 * 1024 * 1024
"""Bytes that owners without a session may keep at a time, all together, in one process."""
OVERHEAD = 1024
"""What a kept request is counted as beyond its body."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A request as it came, to be carried to the service byte for byte."""

    method: str
    host: str
    """Host, with port where one was given: the resumed request has to be for the same."""
    target: bytes
    """Origin form, as normalised."""
    headers: tuple[tuple[bytes, bytes], ...]
    """The end-to-end headers, in order. The keeper decides which; credentials of ours do not belong here."""
    body: bytes

    def __repr__(self) -> str:
        return f"<Interrupted {self.method} {self.host} {len(self.body)} bytes>"


class InterruptedRequests:
    """Where interrupted requests wait. `owner` is `session:<session id>` or `browser:<browser cookie>`."""

    def __init__(
        self,
        kv: KeyValue,
        sealer: Sealer,
        clock: Clock,
        *,
        max_body: int = 65_536,
        max_each: int = 5,
        ttl: float = 600,
        strangers: int = STRANGERS,
    ) -> None:
        """`max_body` in bytes, `max_each` requests an owner, `ttl` seconds that a request waits."""
        self._kv = kv
        self._sealer = sealer
        self._clock = clock
        self._max_body = max_body
        self._max_each = max_each
        self._ttl = ttl
        self._strangers = strangers
        self._kept_by_strangers: deque[tuple[float, int]] = deque()
        self._bytes_of_strangers = 0

    async def keep(self, owner: str, request: Interrupted) -> str:
        """Keep `request` and return its ticket (256 bit and a place).

        Raises `UserError`: `ERR-INTERRUPTED-TOO-LARGE` (413) above the limit, `ERR-INTERRUPTED-BUSY` (503) while
        strangers have filled what they may fill.
        """
        if len(request.body) > self._max_body:
            raise UserError(
                "ERR-INTERRUPTED-TOO-LARGE",
                "What you sent is too large to be kept while you prove who you are. Do that first, then send it again.",
                status=413,
            )
        if not owner.startswith("session:"):
            self._spend(OVERHEAD + len(request.body))
        # The turn outlives the records, so that places are taken in order for as long as there is anything in them.
        turn = await self._kv.add(key(DEFAULT_TENANT, "interrupted-turn", digest(owner).hex()), 1, 6 * self._ttl)
        ticket = f"{turn % self._max_each}-{new_token()}"
        place = _place(owner, ticket)
        sealed = self._sealer.seal(_pack(request), table="kept", column="value", row=_row(owner, ticket))
        await self._kv.put(place, sealed, self._ttl)
        return ticket

    async def peek(self, ticket: str, owner: str) -> Interrupted | None:
        """The request, which keeps waiting. None when it is unknown, over, used or somebody else's."""
        return self._open(await self._kv.get(_place(owner, ticket)), ticket, owner)

    async def claim(self, ticket: str, owner: str) -> Interrupted | None:
        """The request, for exactly one caller. None when it is unknown, over, used or somebody else's."""
        if await self.peek(ticket, owner) is None:
            return None  # not worth taking: the place may hold a younger request by now
        return self._open(await self._kv.take(_place(owner, ticket)), ticket, owner)

    def _open(self, sealed: bytes | None, ticket: str, owner: str) -> Interrupted | None:
        if sealed is None:
            return None
        try:
            return _unpack(self._sealer.unseal(sealed, table="kept", column="value", row=_row(owner, ticket)))
        except Unsealable:
            return None

    def _spend(self, size: int) -> None:
        now = self._clock.monotonic()
        while self._kept_by_strangers and self._kept_by_strangers[0][0] <= now:
            self._bytes_of_strangers -= self._kept_by_strangers.popleft()[1]
        if self._bytes_of_strangers + size > self._strangers:
            raise UserError(
                "ERR-INTERRUPTED-BUSY",
                "What you sent could not be kept. Sign in first, then send it again.",
                status=503,
                retry_after=self._ttl,
            )
        self._kept_by_strangers.append((now + self._ttl, size))
        self._bytes_of_strangers += size


def _place(owner: str, ticket: str) -> str:
    place = ticket.partition("-")[0]
    known = place.isascii() and place.isdigit() and len(place) < 4
    return key(DEFAULT_TENANT, "interrupted", digest(owner).hex(), place if known else "none")


def _row(owner: str, ticket: str) -> str:
    return f"{digest(owner).hex()}/{digest(ticket).hex()}"


def _pack(request: Interrupted) -> bytes:
    """A line of JSON, then the body. Bytes are spelled in latin-1, which keeps every one of them."""
    head = (
        request.method,
        request.host,
        request.target.decode("latin-1"),
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers],
    )
    return orjson.dumps(head) + b"\n" + request.body


def _unpack(packed: bytes) -> Interrupted:
    line, _, body = packed.partition(b"\n")
    method, host, target, headers = orjson.loads(line)
    pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
    return Interrupted(method, host, target.encode("latin-1"), pairs, body)
