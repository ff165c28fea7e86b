"""The request that a sign-in or a challenge cut short: kept sealed, and carried on once.

- *Sealed.* A form may hold anything, so it is encrypted at rest. The seal is bound to the owner and to the ticket: with
  the wrong one of either the record cannot be opened, and looks exactly like one that is not there.
- *Once.* Carrying on takes the record out of the store in one atomic step. Of several simultaneous tries one gets it.
- *In parts.* A large body (files) is kept and read a part at a time, so it is never in memory whole. The record that
  names the parts is written last and taken first: who has it has all of them, and nobody else any. A part that is
  missing or was replaced is found by its seal, and what has gone to the service by then ends without its end.
- *Bounded.* An owner has `max_each` places, and `LARGE` for bodies in parts, taken in turn: a further request falls
  into the place of the oldest, so the cap holds by construction, without counting. Strangers are owners too (anybody
  may invent a browser cookie), so all that strangers keep at a time is bounded for the whole process, a quarter of it
  for one network; what they fill cannot crowd out people who are signed in, who have sessions to be counted by.
- *For whom.* Where it is known who was sending it, nobody else carries it on, in the same browser either.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import orjson

from gateway.core.clock import Clock
from gateway.core.contracts import KeyValue, key
from gateway.core.errors import UserError
from gateway.core.identity import DEFAULT_TENANT
from gateway.core.words import say
from gateway.crypto.sealing import Sealer, Unsealable
from gateway.crypto.tokens import digest, new_token

STRANGERS = 32 * 1024 * 1024
"""Bytes that owners without a session may keep at a time, all together, in one process; more where eight of the largest
bodies are more."""
OVERHEAD = 1024
"""What a kept request is counted as beyond its body."""
PART = 131_072
"""Bytes of a body that are kept, and read, at a time; what is no larger stands in the record itself."""
LARGE = 2
"""Requests in parts that an owner has at a time."""
LONGER = 3.0
"""Parts are kept so many times as long as their record: as long again while the last of them is still on its way, and
as long again for a service that reads slowly."""

_PLACE = re.compile(r"l?[0-9]{1,3}")


class Lost(UserError):  # noqa: N818 - the state is the name
    """A part of a body is not there any more: ERR-RESUME."""

    def __init__(self) -> None:
        super().__init__("ERR-RESUME", say("A part of what was kept is gone. Please send it again."), 404)


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
    """All of it; empty where it is kept in parts."""
    whose: str = ""
    """Who was sending it: `user:<name>`, `device:<device cookie>`, or empty where nobody knows."""
    large: int = 0
    """Bytes of a body that is kept in parts."""
    until: float = field(default=0.0, compare=False)
    """When it is thrown away, seconds since the epoch."""

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return self.large or len(self.body)

    def __repr__(self) -> str:
        return f"<Interrupted {self.method} {self.host} {self.size} bytes>"


class InterruptedRequests:
    """Where interrupted requests wait. `owner` is `session:<session id>` or `browser:<browser cookie>`."""

    def __init__(
        self,
        kv: KeyValue,
        sealer: Sealer,
        clock: Clock,
        *,
        max_body: int = 1_048_576,
        max_each: int = 5,
        ttl: float = 600,
        strangers: int = 0,
        known: Callable[[str, str], bool] = lambda device, user: False,
    ) -> None:
        """`max_body` in bytes, `max_each` requests an owner, `ttl` seconds that a request waits.

        `strangers`: bytes that all strangers may keep; 0: `STRANGERS`. `known(device cookie, user name)`: whether that
        browser's last sign-in was theirs.
        """
        self._kv = kv
        self._sealer = sealer
        self._clock = clock
        self._max_body = max_body
        self._max_each = max_each
        self._ttl = ttl
        self._known = known
        self._strangers = strangers or max(STRANGERS, 8 * max_body)
        self._spent: list[tuple[float, int, str]] = []
        """A heap of what strangers keep: until when (monotonic), bytes, whose network."""
        self._by_network: defaultdict[str, int] = defaultdict(int)
        self._by_strangers = 0
        self._being_written: set[str] = set()
        """Places whose parts are coming in."""

    async def keep(
        self, owner: str, request: Interrupted, pieces: AsyncIterator[bytes] | None = None, *, network: str = ""
    ) -> str:
        """Keep `request` and return its ticket (256 bit and a place). `pieces`: its body, where that is not whole yet;
        `network`: where a stranger comes from.

        Raises `UserError`: `ERR-INTERRUPTED-TOO-LARGE` (413) above the limit, or where it takes too long to come;
        `ERR-INTERRUPTED-BUSY` (503) while strangers have filled what they may fill, or an owner sends too many large
        ones at once.
        """
        if len(request.body) > self._max_body:
            raise _too_large()
        self._spend(owner, OVERHEAD + len(request.body), network, self._ttl)
        if pieces is not None:
            async with aclosing(_Parts(self, owner, network)) as parts:
                async for piece in pieces:
                    await parts.add(piece)
                request = await parts.whole(request)
                if parts.ticket:
                    return await self._write(owner, parts.ticket, request)
        # The turn outlives the records, so that places are taken in order for as long as there is anything in them.
        turn = await self._kv.add(key(DEFAULT_TENANT, "interrupted-turn", digest(owner).hex()), 1, 6 * self._ttl)
        return await self._write(owner, f"{turn % self._max_each}-{new_token()}", request)

    async def move(self, ticket: str, owner: str, to: str, *, whose: str = "", network: str = "") -> str:
        """Keep for `to` what `owner` has under `ticket`: its new ticket, or empty where there is nothing.

        Raises `UserError` as `keep` does.
        """
        request = await self.claim(ticket, owner)
        if request is None:
            return ""
        return await self.keep_again(replace(request, whose=whose or request.whose), ticket, owner, to, network)

    async def keep_again(self, request: Interrupted, ticket: str, owner: str, to: str, network: str = "") -> str:
        """Keep for `to` what was claimed with `ticket` from `owner`, and could not go on yet; its new ticket.

        Raises `UserError` as `keep` does, and `Lost`.
        """
        if not request.large:
            return await self.keep(to, request, network=network)
        async with aclosing(self.read(request, ticket, owner)) as pieces:
            return await self.keep(to, replace(request, large=0), pieces, network=network)

    async def peek(self, ticket: str, owner: str) -> Interrupted | None:
        """The request, which keeps waiting. None when it is unknown, over, used or somebody else's."""
        return self._open(await self._kv.get(_place(owner, ticket)), ticket, owner)

    async def claim(self, ticket: str, owner: str) -> Interrupted | None:
        """The request, for exactly one caller. None when it is unknown, over, used or somebody else's."""
        if await self.peek(ticket, owner) is None:
            return None  # not worth taking: the place may hold a younger request by now
        return self._open(await self._kv.take(_place(owner, ticket)), ticket, owner)

    def is_for(self, request: Interrupted, user: str) -> bool:
        """Whether `user` (a name; empty: nobody) may carry it on."""
        kind, _, name = request.whose.partition(":")
        return not kind or (name == user if kind == "user" else self._known(name, user))

    async def read(self, request: Interrupted, ticket: str, owner: str) -> AsyncGenerator[bytes]:
        """The body of what was claimed, piece by piece; each is taken out of the store. Raises `Lost`."""
        if request.body:
            yield request.body
        left, number = request.large, 0
        while left > 0:
            piece = self._unseal(await self._kv.take(_part(owner, ticket, number)), f"{_row(owner, ticket)}/{number}")
            if piece is None:
                raise Lost
            left -= len(piece)
            number += 1
            yield piece

    async def give_back(self, request: Interrupted, ticket: str, owner: str) -> bool:
        """What was claimed has not gone anywhere, and waits again for as long as it would have waited."""
        left = request.until - self._clock.now()
        if left <= 0 or await self._kv.get(_place(owner, ticket)) is not None:
            return False  # over; or its place is taken by a younger one
        await self._write(owner, ticket, request, left)
        return True

    async def _write(self, owner: str, ticket: str, request: Interrupted, ttl: float = 0.0) -> str:
        ttl = ttl or self._ttl
        packed = _pack(replace(request, until=self._clock.now() + ttl))
        sealed = self._sealer.seal(packed, table="kept", column="value", row=_row(owner, ticket))
        await self._kv.put(_place(owner, ticket), sealed, ttl)
        return ticket

    def _open(self, sealed: bytes | None, ticket: str, owner: str) -> Interrupted | None:
        packed = self._unseal(sealed, _row(owner, ticket))
        return None if packed is None else _unpack(packed)

    def _unseal(self, sealed: bytes | None, row: str) -> bytes | None:
        try:
            return None if sealed is None else self._sealer.unseal(sealed, table="kept", column="value", row=row)
        except Unsealable:
            return None

    def _spend(self, owner: str, size: int, network: str, ttl: float) -> None:
        """Count what a stranger keeps. Raises `UserError`."""
        if owner.startswith("session:"):
            return
        now = self._clock.monotonic()
        while self._spent and self._spent[0][0] <= now:
            _, over, whose = heapq.heappop(self._spent)
            self._by_strangers -= over
            self._by_network[whose] -= over
            if not self._by_network[whose]:
                del self._by_network[whose]
        full = self._by_strangers + size > self._strangers
        if full or (network and self._by_network[network] + size > self._strangers // 4):
            raise _busy(self._ttl)
        heapq.heappush(self._spent, (now + ttl, size, network))
        self._by_strangers += size
        self._by_network[network] += size


class _Parts:
    """A body on its way into the store."""

    def __init__(self, shelf: InterruptedRequests, owner: str, network: str) -> None:
        self.ticket = ""
        """Of a body that turned out to be large."""
        self._shelf = shelf
        self._owner = owner
        self._network = network
        self._begun = shelf._clock.monotonic()
        self._waiting = bytearray()
        self._size = 0
        self._number = 0

    async def add(self, piece: bytes) -> None:
        """More of it. Raises `UserError`."""
        self._size += len(piece)
        late = self._shelf._clock.monotonic() - self._begun > self._shelf._ttl
        if self._size > self._shelf._max_body or late:
            raise _too_large()
        self._waiting += piece
        while len(self._waiting) > PART:
            part = bytes(self._waiting[:PART])
            del self._waiting[:PART]
            await self._write(part)

    async def whole(self, request: Interrupted) -> Interrupted:
        """It is all here: the request, with its body or told how large that is."""
        rest = bytes(self._waiting)
        if not self.ticket:
            self._shelf._spend(self._owner, len(rest), self._network, self._shelf._ttl)
            return replace(request, body=rest)
        await self._write(rest)
        return replace(request, large=self._size)

    async def aclose(self) -> None:
        """No more of it comes."""
        if self.ticket:
            self._shelf._being_written.discard(_place(self._owner, self.ticket))

    async def _write(self, part: bytes) -> None:
        shelf = self._shelf
        if not self.ticket:
            await self._begin()
        shelf._spend(self._owner, len(part), self._network, LONGER * shelf._ttl)
        row = f"{_row(self._owner, self.ticket)}/{self._number}"
        sealed = shelf._sealer.seal(part, table="kept", column="value", row=row)
        await shelf._kv.put(_part(self._owner, self.ticket, self._number), sealed, LONGER * shelf._ttl)
        self._number += 1

    async def _begin(self) -> None:
        shelf = self._shelf
        turns = key(DEFAULT_TENANT, "interrupted-large-turn", digest(self._owner).hex())
        turn = await shelf._kv.add(turns, 1, 6 * shelf._ttl)
        ticket = f"l{turn % LARGE}-{new_token()}"
        place = _place(self._owner, ticket)
        if place in shelf._being_written:
            raise _busy(1.0)
        shelf._being_written.add(place)
        self.ticket = ticket


def _too_large() -> UserError:
    return UserError(
        "ERR-INTERRUPTED-TOO-LARGE",
        say("What you sent is too large to be kept while you prove who you are. Do that first, then send it again."),
        status=413,
    )


def _busy(retry_after: float) -> UserError:
    return UserError(
        "ERR-INTERRUPTED-BUSY",
        say("What you sent could not be kept. Sign in first, then send it again."),
        status=503,
        retry_after=retry_after,
    )


def _place(owner: str, ticket: str) -> str:
    place = ticket.partition("-")[0]
    known = place.isascii() and _PLACE.fullmatch(place)
    return key(DEFAULT_TENANT, "interrupted", digest(owner).hex(), place if known else "none")


def _part(owner: str, ticket: str, number: int) -> str:
    """In the place of its record, so that those of a further request replace it."""
    return f"{_place(owner, ticket)}/{number}"


def _row(owner: str, ticket: str) -> str:
    return f"{digest(owner).hex()}/{digest(ticket).hex()}"


def _pack(request: Interrupted) -> bytes:
    """A line of JSON, then the body. Bytes are spelled in latin-1, which keeps every one of them."""
    head = (
        request.method,
        request.host,
        request.target.decode("latin-1"),
        [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers],
        request.whose,
        request.large,
        request.until,
    )
    return orjson.dumps(head) + b"\n" + request.body


def _unpack(packed: bytes) -> Interrupted:
    line, _, body = packed.partition(b"\n")
    method, host, target, headers, *more = orjson.loads(line)  # `more`: nothing, where an older version kept it
    pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
    return Interrupted(method, host, target.encode("latin-1"), pairs, body, *more)
