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
from gateway.limits.counted_by import CountedBy, counted_by
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


Lent = tuple[bytes, CountedBy, Terms, tuple[LimitSpec, ...]]
"""How a limit's counters are named, its terms, and the limit alone in a list."""


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
        self.asking: Answer[bool] | None = None
        """Done when more was borrowed or refused: True; False when nobody could be asked."""


class Leased:
    """Limits counted in shares."""

    def __init__(self, run: Run, clock: Clock, spawn: Spawn, away: Away, *, prefix: str) -> None:
        self._run = run
        self._now = clock.monotonic
        self._spawn = spawn
        self._away = away
        self._prefix = prefix.encode()
        self._leases: Near[bytes, Lease] = Near(LEASES)
        self._named: dict[tuple[str, LimitSpec], Lent] = {}

    async def spend(self, limit: LimitSpec, facts: Facts, identity: Identity | None, rule: str) -> Quota:
        """One request against one limit, which has `terms`."""
        prefix, counted, agreed, alone = self._name(limit, rule)
        key = prefix + counted(facts, identity).encode("utf-8", "surrogatepass")
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
            if lease.asking is None:
                lease.asking = Answer()
                self._spawn(self._borrow(key, lease, limit, agreed))
            if not await lease.asking:
                return self._away.spend(alone, facts, identity, rule)[0]

    def give_back(self, quota: Quota, facts: Facts, identity: Identity | None, rule: str) -> None:
        """The request was refused by another limit: what it took here may be used by the next."""
        prefix, counted, _, _ = self._name(quota.limit, rule)
        lease = self._leases.get(prefix + counted(facts, identity).encode("utf-8", "surrogatepass"))
        if lease is not None and quota.allowed and quota.how != "away":
            lease.units += 1

    def forget(self) -> None:
        """Begin anew: counters may have been reset."""
        self._leases.clear()

    def _name(self, limit: LimitSpec, rule: str) -> Lent:
        named = self._named.get((rule, limit))
        if named is None:
            agreed = terms(limit)
            if agreed is None:
                raise ValueError(f"limit {limit.name} cannot be lent")
            if len(self._named) >= 4096:
                self._named.clear()
            prefix = name_of(replace(limit, window=agreed.window, burst=agreed.burst), rule, self._prefix)
            named = self._named[rule, limit] = prefix, counted_by(limit.key, rule), agreed, (limit,)
        return named

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
            if asking is not None and not asking.done():
                asking.set_result(reached)
