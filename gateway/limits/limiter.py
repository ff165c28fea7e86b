"""Counts requests against limits, in memory, in one step that cannot be interleaved.

**All or nothing.** A request is counted by every limit of its list, or, when one refuses, by none: who is stopped by
the limit of their network does not lose what their account may still do, and a refused request costs nothing that a
later one would need.

**Whose limit.** A limit belongs to its rule: two rules with a limit of the same name count apart. A limit that was
edited starts anew, an unchanged one goes on counting over a reload of the policies.

**Bounded.** At most `capacity` counters exist. A hand goes round them as in a clock, a few with each new counter and
the rest by `sweep`, and takes away those that time has made whole. When all places are taken, a limit with more
than its fair share gives one up, so a flood of addresses cannot push out what was counted for accounts. Of the next
few that the hand finds it gives up the one nearest to being whole: the one idle longest, and the one by which
least is forgiven. Counters that refuse are kept apart and are not given up for it: somebody with many addresses
cannot wash his own block away.

At the extreme, when every place of that limit is held by a block, the oldest block goes. To get there somebody has
to be refused from as many different keys as there are places, and frees the one that would have been free soonest.

**In shadow.** A limit in shadow counts by itself, whoever else refuses, and refuses nobody.

**Again and again.** Of whoever runs into a limit with a backoff it is remembered how often and when, beside the
counter, which may be whole long before that is forgotten. A counter that is waited for lies with the blocked ones,
so the warm walk never meets one. At most `capacity` are remembered so; beyond, the limit that remembers most gives up
the one that behaved for longest.

Time is monotonic: setting the machine's clock changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final

from gateway.core.clock import Clock
from gateway.core.contracts import Step
from gateway.core.decision import Quota
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.rule import LimitSpec
from gateway.limits.adapt import scaled
from gateway.limits.backoff import check, offend
from gateway.limits.counted_by import CountedBy, counted_by
from gateway.limits.spelling import EVERYBODY, Who
from gateway.limits.standing import Standing

State = tuple[float, ...]
Share = Callable[[LimitSpec], float]
"""What is left of a limit that adapts, for the request that is being counted; 0.0 to 1.0."""

CAPACITY: Final = 65_536
"""Counters kept at once."""

PLANS: Final = 65_536
"""Lists of limits whose preparation is remembered: two for each rule."""

SHOWN: Final = 100
"""Counters told of at once."""

CANDIDATES: Final = 8
"""How many counters are compared to find the one to give up."""

_new = tuple.__new__  # what `Quota(…)` comes to, without its detour through Python


class Counters:
    """Every counter of one limit."""

    __slots__ = ("_hand", "blocked", "burst", "counted_by", "free", "limit", "offences", "rate", "step", "window")

    def __init__(self, limit: LimitSpec, step: Step, counted_by: CountedBy) -> None:
        self.limit = limit
        self.step = step
        self.counted_by = counted_by
        self.rate = limit.rate
        self.window = limit.window
        self.burst = limit.burst
        self.free: dict[str, State] = {}
        """Counters that let the last request through."""
        self.blocked: OrderedDict[str, State] = OrderedDict()
        """Counters that refused the last request, and those that are waited for; refusing the longest first."""
        self.offences: OrderedDict[str, State] = OrderedDict()
        """Of keys that ran into it, where it has a backoff; whose last time is longest ago first."""
        self._hand: Iterator[str] = iter(())

    def __len__(self) -> int:
        return len(self.free) + len(self.blocked)

    def sweep(self, now: float, most: int) -> int:
        """Let the hand pass over `most` counters and forget those that are whole; returns how many."""
        for _ in range(min(most, len(self.blocked))):
            key, state = next(iter(self.blocked.items()))
            if not self._after(state, now)[1]:
                break
            if self.wait(key, now) > 0.0:
                self.blocked.move_to_end(key)
                continue
            del self.blocked[key]
            self.free[key] = state
        whole = self._after(None, now)[:2]
        # Where the next request would leave what it leaves of a new counter, nothing is left to know.
        gone = [key for key in self._next(most) if self._after(self.free[key], now)[:2] == whole]
        for key in gone:
            del self.free[key]
        return len(gone)

    def wait(self, key: str, now: float) -> float:
        """Seconds that `key` has still to wait for having run into it again and again."""
        return check(self.offences.get(key), now) if self.offences else 0.0

    def offend(self, key: str, now: float) -> float:
        """Note that `key` ran into it, where it has a backoff; seconds to wait for that."""
        backoff = self.limit.backoff
        if backoff is None:
            return 0.0
        state = offend(self.offences.get(key), now, backoff.after, backoff.wait, backoff.longest, backoff.forget)
        self.offences[key] = state
        self.offences.move_to_end(key)
        return check(state, now)

    def forgive(self, now: float) -> int:
        """Forget what lies back long enough; returns how many."""
        backoff = self.limit.backoff
        gone = 0
        while backoff is not None and self.offences:
            key, state = next(iter(self.offences.items()))
            if now * 1e6 - state[1] < backoff.forget * 1e6:
                break
            del self.offences[key]
            gone += 1
        return gone

    def forget(self, key: str) -> bool:
        """Have `key` begin anew; whether a counter of it was there."""
        self.offences.pop(key, None)
        return self.free.pop(key, None) is not None or self.blocked.pop(key, None) is not None

    def of(self, who: Who) -> list[str]:
        """The keys of `who`; those that are refused first."""
        if who.alone and len(self.limit.key) == 1:
            return [key for key in who.alone if key in self.free or key in self.blocked or key in self.offences]
        return [key for key in dict.fromkeys((*self.blocked, *self.offences, *self.free)) if who(key)]

    def whole(self, key: str, now: float, reset: float, allowed: bool) -> float:
        """Seconds until the counter is whole again, if nothing more is counted. A step tells it as of one more.

        What is refused changes nothing; a bucket owes one request less; a window of which one request is the limit
        refuses while anything is in it.
        """
        if not allowed:
            return reset
        if self.limit.algorithm in ("token_bucket", "gcra"):
            return max(reset - self.window / self.rate, 0.0)
        state = self.free.get(key) or self.blocked.get(key)
        _, empty, _, last, _ = self.step(state, now, 1, self.window, self.burst)
        return 0.0 if empty else last

    def standing(self, rule: str, key: str, now: float) -> Standing:
        """How `key` stands."""
        _, allowed, remaining, reset, retry_after = self._after(self.free.get(key) or self.blocked.get(key), now)
        reset = self.whole(key, now, reset, allowed)
        offence, wait = self.offences.get(key), self.wait(key, now)
        if wait > 0.0:
            retry_after = wait if allowed else max(retry_after, wait)
            allowed, reset = False, max(reset, wait)
        return Standing(
            rule,
            self.limit.name,
            key,
            allowed,
            remaining + 1 if allowed else 0,
            reset,
            0.0 if allowed else retry_after,
            int(offence[0]) if offence is not None else 0,
            wait,
        )

    def give_up_one(self, now: float) -> None:
        """Make one place."""
        candidates = self._next(CANDIDATES)
        if candidates:
            del self.free[min(candidates, key=lambda key: self._after(self.free[key], now)[3])]
        else:
            self.blocked.popitem(last=False)

    def _after(self, state: State | None, now: float) -> tuple[State, bool, int, float, float]:
        return self.step(state, now, self.rate, self.window, self.burst)

    def _next(self, most: int) -> list[str]:
        """Up to `most` keys from where the hand stands, none twice."""
        keys = list(islice(self._hand, most))
        if not keys and self.free:
            self._hand = filter(self.free.__contains__, list(self.free))
            keys = list(islice(self._hand, most))
        return keys


class Plan:
    """A rule's list of limits, prepared."""

    __slots__ = ("adapts", "counters", "limits", "plain", "rule", "shadows", "warm")

    def __init__(self, limits: tuple[LimitSpec, ...], rule: str, counters: tuple[Counters, ...]) -> None:
        self.limits = limits  # held, so that its id is not given to another while it is a key
        self.rule = rule
        self.counters = counters
        self.warm = tuple([(c.limit, c.free, c.counted_by, c.step, c.rate, c.window, c.burst) for c in counters])
        self.shadows = any(limit.shadow for limit in limits)
        self.adapts = any(limit.adapt is not None for limit in limits)
        self.plain = not self.shadows and not self.adapts


class Limiter:
    """Rate limits of one process. `steps` maps the names of algorithms in YAML to their steps."""

    def __init__(self, clock: Clock, steps: Mapping[str, Step], capacity: int = CAPACITY) -> None:
        self._now = clock.monotonic
        self._steps = steps
        self._capacity = capacity
        self._count = 0
        self._offences = 0
        self._limits: dict[tuple[str, LimitSpec], Counters] = {}
        self._plans: dict[int, Plan] = {}
        self._sweeping: Iterator[tuple[str, LimitSpec]] = iter(())

    def __len__(self) -> int:
        return self._count

    def spend(
        self,
        limits: tuple[LimitSpec, ...],
        facts: Facts,
        identity: Identity | None,
        rule: str,
        share: Share | None = None,
    ) -> tuple[Quota, ...]:
        """Count one request against all `limits` of `rule`, or none; one quota for each, in order.

        `share` is asked for each of them that adapts; without it they are whole.
        Raises KeyError or ValueError for a limit that the policy should never have let through.
        """
        if not limits:
            return ()
        plan = self._plans.get(id(limits))
        if plan is None or plan.rule != rule:
            plan = self._prepare(limits, rule)
        now = self._now()
        if not plan.plain and (plan.shadows or share is not None):
            return self._spend(plan, facts, identity, now, share)
        quotas = []
        counted = []
        # The warm walk: every counter known, every limit with room. Steps are pure, so leaving it changes nothing.
        for limit, free, name, step, rate, window, burst in plan.warm:
            key = name(facts, identity)
            state = free.get(key)
            if state is None:
                return self._spend(plan, facts, identity, now, None)
            after, allowed, remaining, reset, retry_after = step(state, now, rate, window, burst)
            if not allowed:
                return self._spend(plan, facts, identity, now, None)
            quotas.append(_new(Quota, (limit, True, remaining, reset, retry_after, "")))
            counted.append((free, key, after))
        for free, key, after in counted:
            free[key] = after
        return tuple(quotas)

    def status(self, rule: str = "", limit: str = "", who: Who = EVERYBODY, most: int = SHOWN) -> list[Standing]:
        """How counters stand, `most` at the most: of this rule and limit, where they are named, and of `who`."""
        now = self._now()
        found: list[Standing] = []
        for of_rule, each in self._named(rule, limit):
            for one in each.of(who):
                if len(found) >= most:
                    return found
                found.append(each.standing(of_rule, one, now))
        return found

    def reset(self, rule: str = "", limit: str = "", who: Who = EVERYBODY) -> int:
        """Have counters begin anew, and forget offences: of this rule and limit, where they are named, and of `who`.

        Returns how many were there.
        """
        gone = 0
        for _, each in self._named(rule, limit):
            for one in each.of(who):
                offended = one in each.offences
                counted = each.forget(one)
                self._count -= counted
                self._offences -= offended
                gone += counted or offended
        return gone

    def _named(self, rule: str, limit: str) -> list[tuple[str, Counters]]:
        return [
            (of_rule, each)
            for (of_rule, spec), each in self._limits.items()
            if (not rule or of_rule == rule) and (not limit or spec.name == limit)
        ]

    def _spend(
        self, plan: Plan, facts: Facts, identity: Identity | None, now: float, share: Share | None
    ) -> tuple[Quota, ...]:
        """The same walk with new counters, blocked ones, limits that refuse, wait, shrink, or are in shadow."""
        steps = []
        granted = True
        for each in plan.counters:
            limit = each.limit
            key = each.counted_by(facts, identity)
            state = each.free.get(key) or each.blocked.get(key)
            rate, burst = each.rate, each.burst
            if share is not None and limit.adapt is not None:
                rate, burst = scaled(limit, share(limit))
            after, allowed, remaining, reset, retry_after = each.step(state, now, rate, each.window, burst)
            wait = each.wait(key, now)
            if wait > 0.0:
                retry_after = wait if allowed else max(retry_after, wait)
                allowed, remaining, reset = False, 0, max(reset, wait)
            elif not allowed and rate == each.rate and burst == each.burst:
                state = after  # to a limit that has shrunk, what was used of the whole looks like a clock set back
            if not allowed and not limit.shadow:
                granted = False
            steps.append((each, key, state, after, allowed, remaining, reset, retry_after, wait))
        quotas = []
        for each, key, state, after, allowed, remaining, reset, retry_after, wait in steps:
            shadow = each.limit.shadow
            if allowed and (granted or shadow):
                if state is None:
                    self._make_room(each, now)
                each.blocked.pop(key, None)
                each.free[key] = after
            elif allowed:  # given back
                remaining, retry_after = remaining + 1, 0.0
            else:
                if wait == 0.0:
                    wait = self._offend(each, key, now)
                    reset, retry_after = max(reset, wait), max(retry_after, wait)
                if state is not None:
                    each.free.pop(key, None)
                    each.blocked[key] = state
            quotas.append(Quota(each.limit, allowed, remaining, reset, retry_after, "shadow" if shadow else ""))
        return tuple(quotas)

    def _offend(self, each: Counters, key: str, now: float) -> float:
        """Note an offence, and see that there is room for it; seconds to wait."""
        if each.limit.backoff is None:
            return 0.0
        if key not in each.offences:
            self._offences += 1 - each.forgive(now)
            if self._offences > self._capacity:
                max(self._limits.values(), key=lambda counters: len(counters.offences)).offences.popitem(last=False)
                self._offences -= 1
        return each.offend(key, now)

    def _make_room(self, each: Counters, now: float) -> None:
        """See that one more counter fits, and count it."""
        self._count += 1 - each.sweep(now, 2)
        if self._count > self._capacity:
            fair = self._capacity // len(self._limits)
            (each if len(each) > fair else max(self._limits.values(), key=len)).give_up_one(now)
            self._count -= 1

    def sweep(self, most: int = 4096) -> None:
        """Forget what time has made whole, looking at some `most` counters; to be called every second or so."""
        now = self._now()
        idle = False
        for where in islice(self._sweeping, most):
            each = self._limits[where]
            most -= len(each)
            self._count -= each.sweep(now, 1024)
            self._offences -= each.forgive(now)
            if not each and not each.offences:
                del self._limits[where]
                idle = True
            if most <= 0:
                break
        else:
            self._sweeping = iter(list(self._limits))
        if idle:
            self._plans.clear()  # they hold what was just forgotten; making one anew takes microseconds

    def _prepare(self, limits: tuple[LimitSpec, ...], rule: str) -> Plan:
        prepared = []
        for limit in limits:
            counters = self._limits.get((rule, limit))
            if counters is None:
                counters = Counters(limit, self._steps[limit.algorithm], counted_by(limit.key, rule))
                self._limits[rule, limit] = counters
            prepared.append(counters)
        if len(self._plans) >= PLANS:
            self._plans.clear()
        plan = self._plans[id(limits)] = Plan(limits, rule, tuple(prepared))
        return plan
