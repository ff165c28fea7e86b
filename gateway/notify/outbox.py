"""Messages leave from here, off everybody's way.

What is to be sent is a row, written in the transaction that keeps the event it is about (`audit.notices`), or the
challenge it answers (`mfa.posted`). This looks for rows that are due, once a second, and hands each to the route of its
channel.

    waiting ── claimed ──▶ sending ── taken over ──▶ sent
       ▲                      │
       │  not now: backoff    ├── refused by all, or too old ──▶ failed, and an event
       └──────────────────────┘
       ▲                      │
       └── nobody settled it within `LEASE`: whoever sent it has died ──┘

A row is claimed in one step, by one process of all. It is sent again after a crash between taking over and settling,
and where a sender may have taken it over without saying so: then it carries the id it had. Nothing else is sent twice.
What was taken over while the database is away is remembered here and settled first.

Limits count what was sent to one address, and to one person, of one kind within an hour. What is too much waits, so
that a flood of one kind neither reaches anybody nor keeps another kind from them.

Each channel has two lanes, one for codes and one for notices, which do not wait for each other: somebody sits before a
page for a code, and a mail server that hangs over a notice must not keep it. A code is unsealed when it is sent, never
after its time, and what was sealed goes when its row is settled.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger
from gateway.core.errors import StoreAway, Undelivered
from gateway.core.events import Event, Kind, Severity
from gateway.core.message import Message
from gateway.notify.letter import Letter, write
from gateway.notify.route import Route, Taken
from gateway.notify.short import short, told

EVERY: Final = 1.0
"""Seconds between two looks."""
AT_ONCE: Final = 8
"""Messages of one turn, sent side by side."""
LEASE: Final = 180.0
"""Seconds after which whoever claimed a message is taken for dead."""
LONGEST: Final = 120.0
"""Seconds that all senders together may take for one message."""
FIRST_WAIT: Final = 5.0
"""Seconds before the second try; each later wait is four times as long, give or take a fifth."""
LONGEST_WAIT: Final = 3600.0
REFERENCE: Final = 256
"""Characters of what a sender calls a message; what is longer is no name, and nothing can be told of it."""
FAREWELL: Final = 5.0
"""Seconds that messages on their way have when the gateway stops."""

_log = logging.getLogger("sallyport.notify")


@dataclass(frozen=True, slots=True)
class Parcel:
    """A row that is ours to send."""

    id: int
    token: str
    tenant: str
    subject: str
    channel: str
    target: str
    kind: str
    content: Mapping[str, Any]
    sealed: bytes | None
    """Not None for what has a code or a link in it."""
    tries: int
    """This one included."""
    created_at: float
    expires_at: float

    def __repr__(self) -> str:
        return f"Parcel({self.id}, {self.kind})"


@dataclass(frozen=True, slots=True)
class Limits:
    """Messages of one kind within an hour."""

    per_target: int = 20
    per_user: int = 40


class Shelf(Protocol):
    """Where rows are kept: `store.outbox_table`. Every method raises `StoreAway`."""

    async def due(self, now: float, most: int, channel: str, codes: bool) -> Sequence[int]:
        """Ids of rows to look at, the longest due first."""
        ...

    async def claim(
        self, row: int, now: float, lease: float, per_target: int, per_user: int
    ) -> Mapping[str, Any] | None:
        """The row, ours for `lease` seconds; None where it is somebody else's, or has to wait for a limit."""
        ...

    async def settle(
        self, row: int, tries: int, state: str, *, now: float, due_at: float, via: str, reference: str
    ) -> None:
        """What became of try number `tries`."""
        ...

    async def sweep(self, now: float) -> int:
        """Remove what was settled long ago, and give up what nobody looks at; how many were given up."""
        ...

    async def waiting(self) -> int:
        """How many are not settled."""
        ...


Opened = Callable[[Parcel], str]
"""What was sealed in a row: a link, or a code and after a space the link that comes with it.

Raises `Undelivered` where it does not open."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What waits for each other."""

    channel: str
    codes: bool
    turning: asyncio.Lock


class Outbox:
    """Sends what is due, between `start` and `close`."""

    def __init__(
        self,
        shelf: Shelf,
        routes: Mapping[str, Route],
        clock: Clock,
        ledger: Ledger,
        *,
        limits: Limits,
        count: Callable[[str, str], None],
        opened: Opened | None = None,
    ) -> None:
        """`routes` by channel. `count` is told `(channel, outcome)`: sent, retried, failed.

        `opened` unseals codes; without it none is sent.
        """
        self._shelf = shelf
        self._routes = routes
        self._clock = clock
        self._ledger = ledger
        self._limits = limits
        self._count = count
        self._opened = opened
        self._unsettled: dict[int, dict[str, Any]] = {}
        self._lanes = [Lane(channel, codes, asyncio.Lock()) for channel in routes for codes in (True, False)]
        self._tasks: list[asyncio.Task[None]] = []
        self._swept_at = 0.0
        self.waiting = 0
        """Rows that were not settled when it was last looked."""

    def start(self) -> None:
        """Begin to look every second."""
        if not self._tasks:
            looks: list[Callable[[], Awaitable[int]]] = [partial(self._turn, lane) for lane in self._lanes]
            self._tasks = [asyncio.create_task(_every(look), name="outbox") for look in [*looks, self._keep]]

    async def close(self) -> None:
        """Let what is on its way arrive, shortly; what does not is sent by whoever looks next."""
        if self._tasks:
            try:
                async with asyncio.timeout(FAREWELL), AsyncExitStack() as stack:
                    for lane in self._lanes:
                        await stack.enter_async_context(lane.turning)
                    self._end()
            except TimeoutError:
                self._end()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks = []
        with suppress(StoreAway):  # else it is sent once more
            await self._settle_late()
        for route in self._routes.values():
            await route.close()

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def turn(self) -> int:
        """Look once; how many messages were tried. Raises `StoreAway`."""
        found = await asyncio.gather(*map(self._turn, self._lanes), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        await self._keep()
        return sum(each for each in found if isinstance(each, int))

    async def _turn(self, lane: Lane) -> int:
        async with lane.turning:
            await self._settle_late()
            due = await self._shelf.due(self._clock.now(), AT_ONCE, lane.channel, lane.codes)
            claimed: list[Parcel] = []
            try:
                for row in due:
                    found = None if row in self._unsettled else await self._claim(row)
                    if found is not None:
                        claimed.append(found)
            except StoreAway:  # nobody else would look at those before `LEASE` is over
                await asyncio.gather(*map(self._deliver, claimed))
                raise
            await asyncio.gather(*map(self._deliver, claimed))
            return len(claimed)

    async def _keep(self) -> int:
        """Count what waits, and remove what is old."""
        now = self._clock.now()
        self.waiting = await self._shelf.waiting()
        if now - self._swept_at >= LONGEST_WAIT:
            self._swept_at = now
            if given_up := await self._shelf.sweep(now):
                _log.error("%d messages are given up: nobody has looked at them in time", given_up)
        return 0

    async def _claim(self, row: int) -> Parcel | None:
        limits = self._limits
        found = await self._shelf.claim(row, self._clock.now(), LEASE, limits.per_target, limits.per_user)
        return None if found is None else Parcel(**found)

    async def _deliver(self, parcel: Parcel) -> None:
        try:
            message = self._written(parcel)
            async with asyncio.timeout(min(LONGEST, message.useful or LONGEST)):
                taken = await self._routes[parcel.channel].send(message)
        except Undelivered as failed:
            await self._failed(parcel, failed)
        except TimeoutError:
            await self._failed(parcel, Undelivered("nobody took it over in time", unsure=True))
        except Exception as error:
            _log.exception("message %d could not be sent", parcel.id)
            await self._failed(parcel, Undelivered(type(error).__name__))
        else:
            self._count(parcel.channel, "sent")
            await self._settle(parcel, "sent", taken=taken)

    def _written(self, parcel: Parcel) -> Message:
        """What is sent. Raises `Undelivered` for a code whose time is over, or that does not open."""
        letter, useful = Letter("", "", ""), 0.0
        if parcel.sealed is None:
            sms = parcel.channel == "sms"
            letter = Letter("", told(parcel.content), "") if sms else write(parcel.content)
        else:
            useful = parcel.expires_at - self._clock.now()
            if useful <= 0 or self._opened is None:
                raise Undelivered("its time is over" if useful <= 0 else "nobody can open it", final=True)
            secret = self._opened(parcel)
            code, _, link = secret.partition(" ")
            if parcel.channel == "sms":
                letter = Letter("", short(parcel.content, code), "")
            elif parcel.content.get("sealed") == "link":
                letter = write({**parcel.content, "link": secret})
            else:
                letter = write({**parcel.content, "code": code, "link": link}, "code")
        return Message(parcel.token, parcel.kind, parcel.target, *letter, at=parcel.created_at, useful=useful)

    async def _failed(self, parcel: Parcel, failed: Undelivered) -> None:
        now = self._clock.now()
        wait = max(backoff(parcel.tries), failed.retry_after)
        if not failed.final and now + wait < parcel.expires_at:
            self._count(parcel.channel, "retried")
            await self._settle(parcel, "waiting", due_at=now + wait)
            return
        self._count(parcel.channel, "failed")
        _log.error("message %d (%s) is given up after %d tries: %s", parcel.id, parcel.kind, parcel.tries, failed.why)
        detail = {"channel": parcel.channel, "kind": parcel.kind, "tries": parcel.tries, "why": failed.why}
        user = str(parcel.content.get("user", ""))
        self._ledger.note(Event(Kind.NOTIFICATION_FAILED, Severity.WARNING, parcel.tenant, user, detail=detail))
        await self._settle(parcel, "failed")

    async def _settle(
        self,
        parcel: Parcel,
        state: str,
        *,
        due_at: float = 0.0,
        taken: Taken = Taken("", ""),  # noqa: B008 - a value
    ) -> None:
        word: dict[str, Any] = {
            "tries": parcel.tries,
            "state": state,
            "now": self._clock.now(),
            "due_at": due_at,
            "via": taken.via,
            "reference": taken.reference[:REFERENCE],
        }
        self._unsettled[parcel.id] = word
        try:
            await self._shelf.settle(parcel.id, **word)
        except StoreAway:
            return  # remembered
        self._unsettled.pop(parcel.id, None)

    async def _settle_late(self) -> None:
        for row, word in list(self._unsettled.items()):
            await self._shelf.settle(row, **word)
            if self._unsettled.get(row) is word:
                del self._unsettled[row]


async def _every(look: Callable[[], Awaitable[int]]) -> None:
    """Look once a second; at once again where there was more than fits."""
    while True:
        await asyncio.sleep(EVERY)
        try:
            while await look() == AT_ONCE:
                pass
        except StoreAway:
            pass  # the store's line has told
        except Exception:
            # Whatever it is, it must not end this task, or nothing would ever be sent again.
            _log.exception("the outbox could not be looked at")


def backoff(tries: int) -> float:
    """Seconds after try number `tries`."""
    return float(min(FIRST_WAIT * 4 ** min(tries - 1, 10), LONGEST_WAIT) * random.uniform(0.8, 1.2))  # noqa: S311
