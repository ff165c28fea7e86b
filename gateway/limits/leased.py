"""Counts in shares that this replica borrows: nearly as exact as counting together, and seldom a question.

What is borrowed counts as used from the moment it is lent, and is let through within the lease's life L or not at
all; nothing is ever given back. So what this and every other replica lets through in W seconds was lent in W + L, and
the store counts by that much less, so that the limit is never passed:

    sliding window              rate in any window + L
    token bucket, GCRA          a burst smaller by rate * L / window: lent in W + L is then burst + rate * W
    fixed window                a lease ends with its window

What it costs is L in W of the limit, a fortieth at most, and what is borrowed and not used. So a share is half of what
goes in a lease's life at the pace of the last one, at most twice the last one, and all shares that are out together are
no more than a fiftieth of the rate: that much is lost when a flood ends at once. The store lends less the less is left.

L is a second at most. The lease begins when it is asked for, not when the answer comes: the store counted in between.
A limit that is too small for a life of `WORTH` is counted together instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.core.clock import Clock
from gateway.core.decision import Quota
from gateway.core.eager import Answer
from gateway.core.errors import StoreAway
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.rule import LimitSpec
from gateway.limits.away import Away
from gateway.limits.counted_by import counted_by
from gateway.limits.places import name_of
from gateway.store.near import Near

_log = logging.getLogger(__name__)

Run = Callable[[Sequence[bytes], Sequence[bytes | str | int]], Coroutine[Any, Any, list[int]]]
"""Runs `lease.lua`."""
Spawn = Callable[[Coroutine[Any, Any, None]], object]

LIFE = 1.0
"""Seconds a lease lasts at most."""
WORTH = 0.01
"""Seconds a lease has to last to be worth asking for."""
PART = 40
"""A lease lasts no longer than this part of the limit's window."""
LARGEST = 50
"""The shares of all replicas together are no larger than this part of the rate."""
LEASES = 65_536


@dataclass(frozen=True, slots=True)
class Terms:
    """How a limit is lent."""

    life: float
    """Seconds that a share may be used."""
    window: float
    """As the store counts it."""
    burst: int
    """As the store counts it."""


class Lent:
    """A limit of one rule, prepared to be lent. Raises ValueError for one without terms."""

    __slots__ = ("agreed", "alone", "counted_by", "limit", "name")

    def __init__(self, limit: LimitSpec, rule: str, prefix: bytes) -> None:
        agreed = terms(limit)
        if agreed is None:
            raise ValueError(f"limit {limit.name} cannot be lent")
        self.limit = limit
        self.agreed = agreed
        self.alone = (limit,)
        """In a list by itself."""
        self.name = name_of(replace(limit, window=agreed.window, burst=agreed.burst), rule, prefix)
        """How the names of its counters begin."""
        self.counted_by = counted_by(limit.key, rule)

    def key(self, facts: Facts, identity: Identity | None) -> bytes:
        """The counter of one request."""
        return self.name + self.counted_by(facts, identity).encode("utf-8", "surrogatepass")


def terms(limit: LimitSpec) -> Terms | None:
    """The terms for `limit`; None where its shares would last too short."""
    life = min(LIFE, limit.window / PART)
    window, burst = limit.window, limit.burst
    if limit.algorithm == "sliding_window":
        window += life
    elif limit.algorithm in ("token_bucket", "gcra"):
        life = min(life, burst / 2 * limit.window / limit.rate)
        burst -= -int(-limit.rate * life // limit.window)
    return Terms(life, window, burst) if life >= WORTH and burst >= 1 else None


class Lease:
    """What is borrowed of one counter. Times are monotonic."""

    __slots__ = ("asking", "began", "lent", "refused_until", "remaining", "reset", "size", "units", "until")

    def __init__(self) -> None:
        self.units = 0
        self.began = 0.0
        self.until = 0.0
        self.lent = 0
        """How many units it began with."""
        self.size = 1
        """How many are wanted next."""
        self.refused_until = 0.0
        self.remaining = 0
        self.reset = 0.0
        self.asking: list[Answer[bool]] | None = None
        """Those who wait for the one question that is on its way: True when more was borrowed or refused, False when
        nobody could be asked. Each has an answer of their own: who goes away takes it along."""


class Leased:
    """Limits counted in shares."""

    def __init__(self, run: Run, clock: Clock, spawn: Spawn, away: Away, *, prefix: str) -> None:
        self._run = run
        self._now = clock.monotonic
        self._spawn = spawn
        self._away = away
        self._prefix = prefix.encode()
        self._leases: Near[bytes, Lease] = Near(LEASES)

    def lent(self, limit: LimitSpec, rule: str) -> Lent:
        """`limit` of `rule`, prepared."""
        return Lent(limit, rule, self._prefix)

    def at_hand(self, several: tuple[Lent, ...], facts: Facts, identity: Identity | None) -> list[Quota] | None:
        """One request against several limits, where what is borrowed lets it through; None where it has to be asked."""
        now = self._now()
        leases = []
        for each in several:
            lease = self._leases.get(each.key(facts, identity))
            if lease is None or lease.units <= 0 or now >= lease.until:
                return None
            leases.append(lease)
        quotas = []
        for each, lease in zip(several, leases, strict=True):
            lease.units -= 1
            how = "shadow" if each.limit.shadow else ""
            quotas.append(Quota(each.limit, True, lease.units + lease.remaining, lease.reset, 0.0, how))
        return quotas

    async def spend(self, lent: Lent, facts: Facts, identity: Identity | None, rule: str) -> Quota:
        """One request against one limit."""
        limit, key = lent.limit, lent.key(facts, identity)
        lease = self._leases.get(key)
        if lease is None:
            lease = Lease()
            self._leases.keep(key, lease)
        how = "shadow" if limit.shadow else ""
        while True:
            now = self._now()
            if lease.units > 0 and now < lease.until:
                lease.units -= 1
                return Quota(limit, True, lease.units + lease.remaining, lease.reset, 0.0, how)
            if now < lease.refused_until:
                left = lease.refused_until - now
                return Quota(limit, False, 0, max(lease.reset, left), left, how)
            mine: Answer[bool] = Answer()
            if lease.asking is None:
                lease.asking = [mine]
                self._spawn(self._borrow(key, lease, limit, lent.agreed))
            else:
                lease.asking.append(mine)
            if not await mine:
                return self._away.spend(lent.alone, facts, identity, rule)[0]

    def give_back(self, lent: Lent, facts: Facts, identity: Identity | None) -> None:
        """The request was refused by another limit: what it took here may be used by the next."""
        lease = self._leases.get(lent.key(facts, identity))
        if lease is not None:
            lease.units += 1

    def forget(self) -> None:
        """Begin anew: counters may have been reset."""
        self._leases.clear()

    async def _borrow(self, key: bytes, lease: Lease, limit: LimitSpec, agreed: Terms) -> None:
        asked = self._now()
        if lease.lent:
            pace = (lease.lent - lease.units) / max(asked - lease.began, 1e-6)
            most = min(lease.lent * 2, limit.rate // (LARGEST * self._away.replicas))
            lease.size = max(1, min(int(pace * agreed.life / 2), most))
        reached = False
        try:
            window = round(agreed.window * 1e6)
            lent, remaining, reset, retry = await self._run(
                (key,), (limit.algorithm, limit.rate, window, agreed.burst, lease.size)
            )
            reached = True
            lease.units = lease.lent = lent
            lease.began = asked
            lease.remaining, lease.reset = remaining, reset / 1e6
            lease.until = asked + agreed.life
            if limit.algorithm == "fixed_window":
                lease.until = min(lease.until, asked + lease.reset)
            if lent == 0:
                lease.refused_until = self._now() + retry / 1e6
        except StoreAway:
            pass
        except Exception:
            _log.exception("borrowing failed")
        finally:
            asking, lease.asking = lease.asking, None
            for each in asking or ():
                if not each.done():
                    each.set_result(reached)
