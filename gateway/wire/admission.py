"""How much may be going on at once, and what happens above.

Three things can run out, and each has its own answer:

    connections   idle ones are closed, the oldest first; then new ones get a canned 503; then nobody is accepted
    time          the loop turns late, so requests wait for their turn: new ones get 503 before any work
    room          too many requests wait for an answer to begin: the same

A 503 costs a tenth of a request, which is still too much for ten times what we can do. So while the loop is very late,
and when too many come in one second, the doors are shut as well (`door`): the kernel lets them try again later.
And who was told to come back in a second is not listened to before (`ClientConnection.rest`).

How late the loop turns is measured by a timer: it is late by as long as a request waits that came meanwhile.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from gateway.core.events import Event, Kind, Severity
from gateway.core.reasons import Reason
from gateway.wire import answers, door
from gateway.wire.drain import let_go
from gateway.wire.forwarded import network_of

if TYPE_CHECKING:
    import asyncio

    from gateway.wire.client import ClientConnection
    from gateway.wire.wire import Wire

_log = logging.getLogger(__name__)

LOOK = 0.1
"""Seconds between two looks at the time."""
BLOCKED = 0.1
"""A loop that turns so late is an incident."""
TELL = 60.0
"""Seconds between two events of one kind."""
SHARE = 10
"""One in so many connections may be closed for others, or turned away, in one second."""
YOUNG = 1.0
"""Seconds a connection may be idle before it is closed for others."""


class Admission:
    """Who may come in, and whose request is begun."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._most = wire.bounds.clients
        self._per_address = wire.bounds.per_address
        self._by_address: Counter[str] = Counter()
        self.turned_away = 0
        """Connections that got a 503 or were closed unheard."""
        self.shed = 0
        """Requests that got one."""
        self._turned_before = 0
        self._room = 0
        """Connections that may come in above the bound: as many as were closed for them."""
        self._scanned_at = -1.0
        self._shut = False
        self._share = self._turn = 1.0
        """Of requests, how many are refused while there are too many; and what has come together towards the next."""
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._told: dict[Kind, float] = {}
        self._longest = 0.0
        _, lines, body = answers.refusal(Reason.OVERLOADED, "", None)
        self._canned = answers.encode(503, lines, body, close=True)

    # -- connections -----------------------------------------------------------------------------------------------

    def enter(self, client: ClientConnection) -> None:
        """A client has connected; called where there is a bound by address, or where the house is full."""
        wire = self._wire
        if self._per_address and not client.trusted:
            network = network_of(client.peer)
            self._by_address[network] += 1
            if self._by_address[network] > self._per_address:
                self._turn_away(client)
                return
        if len(wire.clients) <= self._most:
            return
        if self._room <= 0:
            self._make_room()
        if self._room > 0:
            self._room -= 1
        else:
            self._turn_away(client)

    def leave(self, client: ClientConnection) -> None:
        """A client is gone; called where there is a bound by address."""
        if not client.trusted:
            network = network_of(client.peer)
            self._by_address[network] -= 1
            if self._by_address[network] <= 0:
                del self._by_address[network]

    def _make_room(self) -> None:
        """Close what nobody has used for longest, once a second at most: looking at all is not for each of a flood."""
        now = self._wire.now()
        if now - self._scanned_at < 1.0:
            return
        self._scanned_at = now
        waiting = [client for client in self._wire.clients if client.waiting and client.waiting_since <= now - YOUNG]
        oldest = heapq.nsmallest(max(1, self._most // SHARE), waiting, key=lambda client: client.waiting_since)
        self._room = let_go(oldest)

    def _turn_away(self, client: ClientConnection) -> None:
        self.turned_away += 1
        client.turn_away(self._canned)
        if self.turned_away - self._turned_before >= max(1, self._most // SHARE):
            self._shut_doors()

    def _shut_doors(self) -> None:
        if not self._shut and not self._wire.draining:
            self._shut = True
            door.shut(self._wire.servers)

    def sweep(self) -> None:
        """Each second: a new share may be turned away, and the doors open."""
        self._turned_before = self.turned_away
        self._room = 0
        if self._shut and not self._wire.draining and not self._wire.overloaded:
            self._shut = False
            door.open_again(self._wire.servers)

    # -- requests --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look at the time, a second from now: a start is nobody's wait."""
        self._timer = self._wire.loop.call_later(1.0, self._begin)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def in_flight(self) -> int:
        """Requests that wait for an answer to begin."""
        return sum(client.awaits_answer for client in self._wire.clients)

    def refuses(self) -> bool:
        """Whether the next request is one of those that are too many; asked while there are."""
        self._turn += self._share
        if self._turn < 1.0:
            return False
        self._turn -= 1.0
        self.shed += 1
        return True

    def _begin(self) -> None:
        self._due = time.monotonic() + LOOK
        self._timer = self._wire.loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        late = max(0.0, time.monotonic() - self._due)
        self._begin()
        self.judge(late)

    def judge(self, late: float) -> None:
        """Shed or not, the loop being `late` by so many seconds."""
        wire, bounds = self._wire, self._wire.bounds
        wire.metrics.lag(late)
        if late > BLOCKED:
            self._longest = max(self._longest, late)
            self._tell(Kind.LOOP_LATE, Severity.WARNING, seconds=round(self._longest, 3))
        # Fewer connections than that have no more requests: there is nothing to count.
        waiting = self.in_flight if len(wire.clients) > bounds.in_flight else 0
        if late > bounds.wait or waiting > bounds.in_flight:
            wire.overloaded = True
            if late > 2 * bounds.wait:
                self._shut_doors()
            self._tell(Kind.OVERLOADED, Severity.ALARM, late=round(late, 3), in_flight=waiting, shed=self.shed)
            # Of those that made us late enough are refused to be in time again; all would come back together.
            self._share = 1.0 if waiting > bounds.in_flight else max(0.1, 1.0 - bounds.wait / (2 * late))
            self._turn = 1.0
        elif wire.overloaded and late <= bounds.wait / 2 and waiting <= bounds.in_flight * 0.9:
            wire.overloaded = False

    def _tell(self, kind: Kind, severity: Severity, **detail: float) -> None:
        now = self._wire.now()
        if now - self._told.get(kind, -TELL) < TELL:
            return
        self._told[kind] = now
        self._longest = 0.0
        _log.warning("%s: %s", kind.value, ", ".join(f"{name} {value}" for name, value in detail.items()))
        self._wire.ledger.note(Event(kind, severity, detail=detail))
