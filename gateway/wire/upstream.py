"""A service behind the gate: its endpoints, who gets which, and what happens when one of them fails.

With one endpoint and nothing else asked for, a request that finds a kept connection does no more than take it: `take`
and `give_back` are the endpoint's own. Whatever costs more is looked at where something has gone wrong already, or
once a second in `sweep`. No timer belongs to a request.

Where all endpoints are out, all are tried: a health check may be wrong, and a service that is down answers no worse
for being asked.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.core.contracts import Ledger
from gateway.core.eager import aside
from gateway.core.events import Event, Kind, Severity
from gateway.core.reasons import Reason
from gateway.core.rule import RouteTimeouts
from gateway.wire import health
from gateway.wire.addresses import Resolve, resolve
from gateway.wire.balance import Balance, ConsistentHash, LeastOutstanding, RoundRobin
from gateway.wire.breaker import Breaker, State, Tripping
from gateway.wire.endpoint import NEWCOMER, Address, Endpoint
from gateway.wire.health import Health
from gateway.wire.request import Declined
from gateway.wire.retries import CONNECT, Budget, Retries
from gateway.wire.upstream_connection import UpstreamConnection
from gateway.wire.upstream_tls import UpstreamTls

if TYPE_CHECKING:
    from gateway.wire.exchange import Exchange

_log = logging.getLogger(__name__)
_JITTER = 0.1
"""Part of their interval by which health checks come early or late."""

Spawn = Callable[[Coroutine[Any, Any, None]], object]


@dataclass(frozen=True, slots=True)
class Times:
    """How long to wait for a service, in seconds."""

    connect: float = 5.0
    """For a connection, TLS included."""
    response: float = 60.0
    """For the head of an answer."""
    idle: float = 60.0
    """For each further piece of it."""
    keep: float = 30.0
    """How long an unused connection stays; below the service's own keep-alive."""


@dataclass(frozen=True, slots=True)
class Ejection:
    """When an endpoint that fails is left out."""

    failures: int = 5
    """In a row."""
    for_: float = 10.0
    """Seconds."""
    at_most: float = 0.5
    """Share of the endpoints that may be out; rounded down."""
    return_over: float = 10.0
    """Seconds in which it gets its whole share again."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Who may wait when every connection is taken."""

    length: int = 512
    wait: float = 1.0
    """Seconds; looked at once a second."""


LATELY = 5.0
"""Seconds after which an average is what came since."""
WEIGHT = 0.05
"""Least weight of one answer in it."""


class Place(NamedTuple):
    """An endpoint as it is configured."""

    name: str
    address: Address
    tls: bool = False


class Upstream:
    """One service."""

    def __init__(
        self,
        name: str,
        places: Sequence[Place],
        *,
        now: Callable[[], float],
        times: Times | None = None,
        connections: int = 512,
        queue: Queue | None = None,
        balance: str = "round_robin",
        hash_by: str = "address",
        health: Health | None = None,
        ejection: Ejection | None = None,
        retries: Retries | None = None,
        breaker: Tripping | None = None,
        tls: UpstreamTls | None = None,
        resolve_every: float = 30.0,
        ask: Resolve = resolve,
        ledger: Ledger | None = None,
    ) -> None:
        """`now`: monotonic seconds. `tls` is for the places that want it. `ask` finds the addresses of a name."""
        self.name = name
        self.times = times or Times()
        self.connections = connections
        self.queue = queue or Queue()
        self.waiting: deque[tuple[Exchange, float]] = deque()
        """Who waits in line for a connection, and until when (monotonic)."""
        self.breaker = Breaker(name, breaker) if breaker is not None else None
        self.retried: Counter[str] = Counter()
        """Outcome → how often: `tried`, `over_budget`."""
        self.now = now
        self.latency = 0.0
        """Seconds until its answers begin, on average of late; 0.0 while nothing was measured."""
        self._measured_at = 0.0
        self._tls = tls
        self._retries = retries
        self._budget = Budget(retries.budget if retries is not None else 0.0)
        self._health = health
        self._ledger = ledger
        self._connecting = 0
        self._of_rules: dict[RouteTimeouts, Times] = {}
        self.endpoints = tuple(
            Endpoint(self, one.name, one.address, tls=tls if one.tls else None, every=resolve_every, ask=ask)
            for one in places
        )
        self._ejection = ejection if len(self.endpoints) > 1 else None
        self._balance: Balance = (
            ConsistentHash(hash_by, self.endpoints)
            if balance == "consistent_hash"
            else LeastOutstanding()
            if balance == "least_outstanding"
            else RoundRobin()
        )
        self._balance.arrange(self.endpoints)
        for endpoint in self.endpoints:
            endpoint.watched = self._ejection is not None or self.breaker is not None
        alone = len(self.endpoints) == 1 and retries is None and breaker is None
        self.take: Callable[[Exchange], UpstreamConnection | None] = self.endpoints[0].take if alone else self._take
        """A connection of the endpoint whose turn it is that is free, or None. Raises `Declined`."""

    # -- connections -----------------------------------------------------------------------------------------------

    def _take(self, exchange: Exchange) -> UpstreamConnection | None:
        if self.breaker is not None:
            self.breaker.admit(exchange.upstream_started)
        self._budget.earn()
        endpoint = exchange.endpoint = self._balance.pick(exchange)
        return endpoint.take()

    def admit(self, exchange: Exchange) -> bool:
        """Whether an exchange for which `take` had no connection may `connect`, which it then has to.

        False: every connection is taken, and it waits in line; `turn` of it says that it is served. Raises `Declined`.
        """
        if self._size < self.connections or self._make_room():
            self._connecting += 1
            return True
        if len(self.waiting) >= self.queue.length:
            raise Declined(Reason.UPSTREAM_BUSY)
        self.waiting.append((exchange, self.now() + self.queue.wait))
        return False

    async def connect(self, exchange: Exchange) -> UpstreamConnection:
        """A new connection for an exchange that was admitted.

        One that cannot be made is tried at the next endpoint, if retries allow. Raises `Declined`.
        """
        seconds = (exchange.times or self.times).connect
        try:
            await aside()
            while True:
                endpoint = exchange.endpoint or self.endpoints[0]
                try:
                    return await endpoint.connect(seconds)
                except OSError:
                    endpoint.failed()
                    if not self.grants(exchange, CONNECT):
                        raise Declined(Reason.UPSTREAM_UNREACHABLE) from None
        finally:
            self._connecting -= 1
            self.wake()

    @property
    def _size(self) -> int:
        return self._connecting + sum([len(endpoint.open) for endpoint in self.endpoints])

    def _make_room(self) -> bool:
        """Give up the connection that has been unused for longest."""
        unused = [endpoint.unused for endpoint in self.endpoints if endpoint.unused]
        if not unused:
            return False
        min(unused, key=lambda each: each[0].deadline).pop(0).abort()
        return True

    def leave(self, exchange: Exchange) -> None:
        """An exchange waits no longer."""
        for place in self.waiting:
            if place[0] is exchange:
                self.waiting.remove(place)
                return

    def hand_on(self, connection: UpstreamConnection) -> bool:
        """Give a connection that has become free to who waits for longest; False where nobody does."""
        while self.waiting:
            exchange, _ = self.waiting.popleft()
            if exchange.finished:
                continue
            wanted = exchange.endpoint
            if connection.endpoint is wanted or not (self._balance.sticky or connection.endpoint in exchange.tried):
                connection.deadline = float("inf")
                exchange.turn(connection)
            else:  # it goes elsewhere: this connection makes room for another
                connection.abort()
                self._connecting += 1
                exchange.turn(None)
            return True
        return False

    def wake(self) -> None:
        """There may be room: let those who wait longest make connections."""
        while self.waiting and self._size < self.connections:
            exchange, _ = self.waiting.popleft()
            if not exchange.finished:
                self._connecting += 1
                exchange.turn(None)

    # -- once more -------------------------------------------------------------------------------------------------

    def grants(self, exchange: Exchange, why: str) -> bool:
        """Whether an exchange may be tried again after `why`; it is paid for, and the next endpoint is chosen."""
        retries = self._retries
        if retries is None or exchange.tries >= retries.attempts or why not in retries.on:
            return False
        if self.breaker is not None and self.breaker.state is not State.CLOSED:
            return False
        if not self._budget.spend():
            self.retried["over_budget"] += 1
            return False
        self.retried["tried"] += 1
        exchange.tries += 1
        if exchange.endpoint is not None:
            exchange.tried = (*exchange.tried, exchange.endpoint)
        exchange.endpoint = self._balance.pick(exchange, exchange.tried)
        return True

    def times_for(self, rule: RouteTimeouts) -> Times:
        """The times of this service, as a rule has them."""
        known = self._of_rules.get(rule)
        if known is None:
            said = {"connect": rule.connect, "response": rule.response, "idle": rule.idle}
            known = replace(self.times, **{name: time for name, time in said.items() if time is not None})
            self._of_rules[rule] = known
        return known

    # -- who is well, and who is not -------------------------------------------------------------------------------

    def took(self, seconds: float) -> None:
        """An answer has begun so long after it was asked for."""
        now = self.now()
        weight = min(1.0, (now - self._measured_at) / LATELY)
        if weight < WEIGHT:
            weight = WEIGHT
        self.latency += (seconds - self.latency) * weight
        self._measured_at = now

    def succeeded(self) -> None:
        """A request was answered."""
        if self.breaker is not None:
            self.breaker.note(True, self.now())

    def failed(self, endpoint: Endpoint) -> None:
        """A request was not, by `endpoint`; too often in a row, and it is left out for a while."""
        now = self.now()
        if self.breaker is not None:
            self.breaker.note(False, now)
        ejection = self._ejection
        if ejection is None or endpoint.failures < ejection.failures or not endpoint.up:
            return
        out = sum(not each.up for each in self.endpoints)
        if out + 1 <= ejection.at_most * len(self.endpoints):
            endpoint.ejected_until = now + ejection.for_
            self._changed(endpoint, f"{endpoint.failures} failures in a row")

    def _checked(self, endpoint: Endpoint, good: bool) -> None:
        """A health check says how an endpoint is."""
        if self._health is None or good is endpoint.healthy:
            endpoint.checks = 0
            return
        endpoint.checks += 1
        if endpoint.checks >= (self._health.healthy if good else self._health.unhealthy):
            endpoint.checks = 0
            was = endpoint.up
            endpoint.healthy = good
            if was is not endpoint.up:
                self._changed(endpoint, f"health checks {'pass' if good else 'fail'}")

    def _changed(self, endpoint: Endpoint, why: str) -> None:
        """An endpoint is out, or back: told once, and the others share its requests, or share with it."""
        if endpoint.up:
            endpoint.failures = 0
            if self._ejection is not None and self._ejection.return_over:
                endpoint.returned_at = self.now()
                endpoint.weight = NEWCOMER
        _log.warning("upstream %s: %s is %s: %s", self.name, endpoint.name, "up" if endpoint.up else "down", why)
        if self._ledger is not None:
            self._ledger.note(
                Event(
                    Kind.UPSTREAM_UP if endpoint.up else Kind.UPSTREAM_DOWN,
                    Severity.INFO if endpoint.up else Severity.WARNING,
                    detail={"upstream": self.name, "endpoint": endpoint.name, "why": why},
                )
            )
        self._arrange()

    def _arrange(self) -> None:
        self._balance.arrange([endpoint for endpoint in self.endpoints if endpoint.up] or self.endpoints)

    # -- once a second ---------------------------------------------------------------------------------------------

    def sweep(self, now: float, spawn: Spawn) -> None:
        """End what took too long, and do what is due. `now`: monotonic seconds."""
        for endpoint in self.endpoints:
            endpoint.sweep(now)
            addresses = endpoint.addresses
            if addresses is not None and addresses.due(now):
                spawn(self._resolve(endpoint))
            if self._health is not None and endpoint.checked_at <= now:
                endpoint.checked_at = float("inf")
                spawn(self._check(endpoint, self._health))
            if endpoint.ejected_until and endpoint.ejected_until <= now:
                endpoint.ejected_until = 0.0
                if endpoint.up:
                    self._changed(endpoint, "tried again")
            if endpoint.weight < 1.0:
                self._strengthen(endpoint, now)
        while self.waiting and self.waiting[0][1] < now:
            self.waiting.popleft()[0].refuse(Reason.UPSTREAM_BUSY)
        if self._tls is not None:
            self._tls.refresh()

    def _strengthen(self, endpoint: Endpoint, now: float) -> None:
        """Give an endpoint that has returned a little more of its share."""
        over = self._ejection.return_over if self._ejection is not None else 0.0
        share = (now - endpoint.returned_at) / over if over else 1.0
        endpoint.weight = min(1.0, max(NEWCOMER, share))
        self._arrange()

    async def _resolve(self, endpoint: Endpoint) -> None:
        if endpoint.addresses is not None:
            try:
                await endpoint.addresses.refresh()
            except OSError:
                return  # counted and logged there

    async def _check(self, endpoint: Endpoint, what: Health) -> None:
        self._checked(endpoint, await health.check(endpoint, what))
        endpoint.checked_at = self.now() + what.interval * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311

    def close(self) -> None:
        """Drop every connection, and let nobody wait any longer."""
        for endpoint in self.endpoints:
            endpoint.close()
        while self.waiting:
            self.waiting.popleft()[0].refuse(Reason.UPSTREAM_BUSY)
