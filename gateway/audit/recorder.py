"""Security events, kept: in the database, or in the log where there is none.

`note` puts an event into a queue that is written once a second, in one transaction: it never waits and never fails.
`record` has written its event, and all noted before it, when it returns; those who come while others write share the
next transaction. What belongs to a change is entered in the transaction that makes it. An event is what somebody may
want to look up later; a request that was simply allowed is a count, not an event.

**Told at once.** Whoever subscribed hears of a noted event before `note` returns, stored or not: failed sign-ins
must raise a risk score also while the database is away. Recorded events are told once they are stored.

**Floods.** Requests that are rejected, refused or throttled come in numbers their sender chooses. Those alike in
kind, network, account, rule and reason become one row a second with a `count`; when they differ too much for that,
the rest of the second becomes one row for each kind and reason. So an attack costs the store a few hundred rows a
second whatever its size, and no event of another kind ever loses its place to it.

**The store away.** Events wait for it, up to `CAPACITY`; then new ones are dropped and counted (`dropped`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, Protocol

import orjson

from gateway.audit.visible import visible, visible_json
from gateway.core.clock import Clock
from gateway.core.errors import StoreAway
from gateway.core.events import Event, Kind

CAPACITY: Final = 10_000
"""Rows that wait to be written."""
INTERVAL: Final = 1.0
"""Seconds between two writes."""
LARGEST: Final = 4096
"""Bytes of one event; what its fields leave of them is for its detail."""
FLOOD_ROWS: Final = 256
"""Rows of one second that floods may take."""

FLOODS: Final = frozenset(
    {
        Kind.REQUEST_REJECTED,
        Kind.REFUSED,
        Kind.THROTTLED,
        Kind.SIGN_IN_THROTTLED,
        Kind.STEP_UP_THROTTLED,
        Kind.RECOVERY_FAILED,
        Kind.CALLBACK_REFUSED,
        Kind.RESUME_REFUSED,
        Kind.FAULT,
    }
)
"""Kinds of which one sender can make any number, without a right answer or a slow computation."""

Subscriber = Callable[[Event], None]

Row = dict[str, Any]

log = logging.getLogger("sallyport.audit")


class Shelf(Protocol):
    """Where they are kept: `store.event_table`, or `audit.event_log`."""

    async def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep `rows`, all of them or none. Raises `StoreAway`."""
        ...

    async def enter(self, connection: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep `rows` with whatever else the transaction of `connection` keeps."""
        ...

    async def newest(self, tenant: str, limit: int, kind: Kind | None, user: str | None) -> list[Event]:
        """What can be looked up again. Raises `StoreAway`."""
        ...


class Recorder:
    """The `Ledger`. Made at once, writes between `start` and `close`."""

    def __init__(self, shelf: Shelf, clock: Clock) -> None:
        self._shelf = shelf
        self._clock = clock
        self._subscribers: list[Subscriber] = []
        self._waiting: list[Row] = []
        self._floods: dict[Hashable, Row] = {}
        self._writing = asyncio.Lock()
        self._next: tuple[list[Row], asyncio.Task[None]] | None = None
        """What is recorded next, and the task that writes it once nobody else writes."""
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        """Events that could not be kept."""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Have every event told to `subscriber`, which must be quick; what it raises is logged and forgotten."""
        self._subscribers.append(subscriber)

    def note(self, event: Event) -> None:
        """Keep the event soon; never waits, never raises."""
        try:
            row = self._row(event)
            if event.kind in FLOODS:
                self._flood(event, row)
            elif len(self._waiting) < CAPACITY:
                self._waiting.append(row)
            else:
                self.dropped += 1
        except Exception:
            self.dropped += 1
            log.exception("an event could not be kept")
        self.tell(event)

    async def record(self, event: Event) -> None:
        """Keep the event durably before returning. Raises `StoreAway` where that is impossible.

        When cancelled half way the event may be kept or not, and what was noted before it is kept once or twice.
        """
        if self._next is None:
            rows: list[Row] = []
            self._next = rows, asyncio.create_task(self._write(rows), name="recorder: a batch")
        rows, written = self._next
        rows.append(self._row(event))
        await asyncio.shield(written)
        self.tell(event)

    async def enter(self, connection: Any, event: Event) -> None:
        """Keep the event with whatever else the transaction of `connection` keeps; `tell` once that is committed."""
        await self._shelf.enter(connection, [self._row(event)])

    async def events(
        self, tenant: str, *, limit: int = 100, kind: Kind | None = None, user: str | None = None
    ) -> list[Event]:
        """The newest events of `tenant`, newest first, of one kind and one user if asked. Raises `StoreAway`."""
        return await self._shelf.newest(tenant, limit, kind, user)

    def start(self) -> None:
        """Begin to write every second."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="recorder")

    async def flush(self) -> None:
        """Write everything noted so far. Raises `StoreAway`; what could not be written goes on waiting."""
        await self._write(None)

    async def close(self) -> None:
        """Write what waits and stop; what cannot be written any more is logged as lost."""
        if self._task is not None:
            async with self._writing:  # not half way through a transaction
                self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        try:
            await self.flush()
        except StoreAway as error:
            lost = len(self._waiting) + len(self._floods)
            self.dropped += lost
            log.error("%d events are lost: %s", lost, error)

    async def _run(self) -> None:
        away = False
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.flush()
                away = False
            except StoreAway as error:
                if not away:
                    log.error("events wait for the store: %s", error)
                away = True
            except Exception:
                # Whatever it is, it must not end this task, or nothing would ever be written again.
                log.exception("events could not be written")

    async def _write(self, rows: list[Row] | None) -> None:
        """Write all that waits and `rows`, in one transaction; until it begins, there may become more of them."""
        async with self._writing:
            if rows is not None:
                self._next = None
            waiting = [*self._waiting, *self._floods.values()]
            self._waiting, self._floods = [], {}
            if not waiting and not rows:
                return
            try:
                await self._shelf.write([*waiting, *(rows or ())])
            except BaseException:
                # Also when cancelled. Back in front of what came meanwhile, as far as there is room.
                room = max(0, CAPACITY - len(self._waiting))
                self.dropped += max(0, len(waiting) - room)
                self._waiting[:0] = waiting[:room]
                raise

    def _flood(self, event: Event, row: Row) -> None:
        reason = str(event.detail.get("reason", ""))
        alike: Hashable = (event.kind, event.tenant, _network(event.address), row["user"], row["rule"], reason)
        if alike not in self._floods and len(self._floods) >= FLOOD_ROWS:
            alike = (event.kind, event.tenant, reason)
            row |= {"address": "", "user": "", "session": "", "agent": "", "rule": "", "request_id": ""}
            row["detail"] = visible_json({"reason": reason, "addresses": "many"}, LARGEST)
        first = self._floods.get(alike)
        if first is None and len(self._floods) >= 2 * FLOOD_ROWS:
            self.dropped += 1
        elif first is None:
            self._floods[alike] = row
        else:
            first["detail"]["count"] = first["detail"].get("count", 1) + 1

    def _row(self, event: Event) -> Row:
        row: Row = {
            "tenant": visible(event.tenant, 128),
            "at": event.at or self._clock.now(),
            "kind": str(event.kind),
            "severity": int(event.severity),
            "user": visible(event.user, 256),
            "session": visible(event.session, 128),
            "address": visible(event.address, 64),
            "agent": visible(event.agent),
            "request_id": visible(event.request_id, 128),
            "rule": visible(event.rule, 128),
        }
        row["detail"] = visible_json(event.detail, LARGEST - len(orjson.dumps(row))) if event.detail else {}
        return row

    def tell(self, event: Event) -> None:
        """Have every subscriber hear of `event`; what they raise is logged."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                log.exception("somebody who was told of an event failed")


def _network(address: str) -> str:
    """IPv6 by its /64: one sender has 2**64 of those addresses."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address, 64), strict=False))
    except ValueError:
        return address
