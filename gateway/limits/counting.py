"""Where each limit of a request is counted, when replicas count together.

    local     in this process, at once
    leased    from what this process has borrowed; seldom a question
    shared    by all replicas together, once a turn of the loop

A rule's limits may differ in it. The nearest are asked first, and a request that they refuse is not asked further. A
request that a farther one refuses has then been counted by `local` ones; what it took of a lease is given back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.core.decision import Quota
from gateway.core.eager import Answer
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.rule import LimitSpec
from gateway.limits.leased import Leased, terms
from gateway.limits.limiter import Limiter
from gateway.limits.shared import Shared

Quotas = tuple[Quota, ...]
Share = Callable[[LimitSpec], float]


class Split:
    """A rule's list of limits, by where they are counted."""

    __slots__ = ("held", "leased", "local", "rule", "shared")

    def __init__(self, limits: tuple[LimitSpec, ...], rule: str, leased: Leased) -> None:
        self.held = limits  # so that its id is not given to another while it is a key
        self.rule = rule
        self.local = tuple([limit for limit in limits if limit.mode == "local"])
        lent = [limit for limit in limits if limit.mode == "leased" and terms(limit) is not None]
        self.leased = tuple([leased.lent(limit, rule) for limit in lent])
        self.shared = tuple([limit for limit in limits if limit.mode != "local" and limit not in lent])


class Counting:
    """The limits of one of several replicas."""

    def __init__(self, local: Limiter, leased: Leased, shared: Shared) -> None:
        self.local = local
        self.leased = leased
        self.shared = shared
        self._splits: dict[int, Split] = {}

    def spend(
        self,
        limits: tuple[LimitSpec, ...],
        facts: Facts,
        identity: Identity | None,
        rule: str,
        share: Share | None = None,
    ) -> Quotas | Answer[Quotas] | Awaitable[Quotas]:
        """Count one request against all `limits` of `rule`; a quota for each, in order, now or when answered."""
        if not limits:
            return ()
        split = self._splits.get(id(limits))
        if split is None or split.rule != rule:
            split = self._split(limits, rule)
        if len(split.shared) == len(limits):
            return self.shared.spend(limits, facts, identity, rule, share)
        if len(split.local) == len(limits):
            return self.local.spend(limits, facts, identity, rule, share)
        if len(split.leased) == len(limits):
            borrowed = self.leased.at_hand(split.leased, facts, identity)
            if borrowed is not None:
                return tuple(borrowed)
        return self._one_after_the_other(split, facts, identity, rule, share)

    def forget(self) -> None:
        """Believe nothing that was remembered of counters elsewhere: some were reset."""
        self.shared.forget()
        self.leased.forget()

    def _split(self, limits: tuple[LimitSpec, ...], rule: str) -> Split:
        if len(self._splits) >= 4096:
            self._splits.clear()
        split = self._splits[id(limits)] = Split(limits, rule, self.leased)
        return split

    async def _one_after_the_other(
        self, split: Split, facts: Facts, identity: Identity | None, rule: str, share: Share | None
    ) -> Quotas:
        quotas = list(self.local.spend(split.local, facts, identity, rule, share))
        if not _within(quotas):
            return tuple(quotas)
        taken = []
        for lent in split.leased:
            quota = await self.leased.spend(lent, facts, identity, rule)
            quotas.append(quota)
            if quota.allowed and quota.how != "away":
                taken.append(lent)
            if not _within([quota]):
                break
        if _within(quotas):
            spent = self.shared.spend(split.shared, facts, identity, rule, share) if split.shared else ()
            quotas += spent if isinstance(spent, tuple) else await spent
        if not _within(quotas):
            for lent in taken:
                self.leased.give_back(lent, facts, identity)
        found = {id(quota.limit): quota for quota in quotas}
        return tuple([found[id(limit)] for limit in split.held if id(limit) in found])


def _within(quotas: list[Quota]) -> bool:
    return all([quota.allowed or quota.how == "shadow" for quota in quotas])  # noqa: C419
