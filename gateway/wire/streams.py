"""What is open for long is judged again: a socket, an answer that goes on and on.

Being let in is not for ever. Every round, each open stream is shown to the gate as if it came now; whoever would no
longer be let through (the session ended, the user was disabled, the risk has risen, the policy says otherwise) is cut,
with one event. So an open stream ends within five seconds of the reason for it: a round begins every two, and changes
made by other processes are seen within one.

A round is walked in slices of a few milliseconds, so that ten thousand sockets never hold up a request.
"""

from __future__ import annotations

import logging
from time import perf_counter
from typing import TYPE_CHECKING

from gateway.audit.refusals import about
from gateway.core.decision import Allow, Decision
from gateway.core.eager import run_eagerly
from gateway.core.events import Kind, Severity

if TYPE_CHECKING:
    from gateway.wire.exchange import Exchange
    from gateway.wire.tunnel import Tunnel
    from gateway.wire.wire import Wire

_log = logging.getLogger(__name__)

EVERY = 2.0
"""Seconds between two rounds, and how long an answer runs before it is looked at."""
SLICE = 0.004
"""Seconds of one slice of a round."""
PAUSE = 0.02
"""Seconds between two slices."""
AT_ONCE = 64
"""Reviews that may wait for a store at the same time."""


class Streams:
    """Every open socket, and a look at all that is open."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.tunnels: set[Tunnel] = set()
        self._due: list[Exchange] = []
        """What this round has still to look at."""
        self._next = 0.0
        self._asking = 0
        self._waits = False
        """Whether the next slice is to come by itself."""

    def sweep(self, now: float) -> None:
        """Every second: see which sockets are still there, and begin a round where it is time. `now`: monotonic."""
        for tunnel in list(self.tunnels):
            tunnel.sweep(now)
        if now < self._next or self._due:
            return
        self._next = now + EVERY
        self._due = [tunnel.exchange for tunnel in self.tunnels]
        for client in self._wire.clients:
            exchange = client.answering
            if exchange is not None and now - exchange.started >= EVERY:
                self._due.append(exchange)
        self._walk()

    def going_away(self) -> None:
        """Tell every socket that we are about to stop, and end event streams: their clients come back elsewhere."""
        for tunnel in list(self.tunnels):
            tunnel.going_away()
        for client in list(self._wire.clients):
            exchange = client.answering
            if exchange is not None and exchange.events:
                exchange.end_events()

    def _walk(self) -> None:
        """One slice of the round."""
        self._waits = False
        until = perf_counter() + SLICE
        while self._due and self._asking < AT_ONCE:
            self._asking += 1
            run_eagerly(self._review(self._due.pop()), self._wire.spawn)
            if perf_counter() > until:
                break
        if self._asking < AT_ONCE:  # else the first of them to end goes on
            self._go_on()

    def _go_on(self) -> None:
        if self._due and not self._waits:
            self._waits = True
            self._wire.loop.call_later(PAUSE, self._walk)

    async def _review(self, exchange: Exchange) -> None:
        try:
            facts, verdict = exchange.facts, exchange.verdict
            if facts is None or verdict is None or type(verdict.decision) is not Allow or exchange.over:
                return
            decision = await self._wire.gate.review(facts, verdict)
            if type(decision) is not Allow and not exchange.over:
                self._note(exchange, decision)
                exchange.cut(decision)
        except Exception:
            _log.exception("request %s: not reviewed", exchange.request_id)
            exchange.client.abort()  # what cannot be judged does not stay open
        finally:
            self._asking -= 1
            if self._asking == AT_ONCE - 1:
                self._go_on()

    def _note(self, exchange: Exchange, decision: Decision) -> None:
        facts, verdict = exchange.facts, exchange.verdict
        if facts is None or verdict is None:
            return
        reason = decision.reasons[0].value
        self._wire.ledger.note(about(facts, verdict, Kind.STREAM_CUT, Severity.NOTICE, reason=reason))
