"""What becomes of limits while the store that counts for all replicas is away: what the policy says, limit by limit.

- `refuse`: nobody is let through whom nobody can count. For what guards a secret.
- `local`: this replica counts its share, `rate` divided by how many replicas there were. Together they let through no
  more than the limit, beside what was counted before the store went away.
- `allow`: counted by nobody.

Shadow limits refuse nobody, as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.core.decision import Quota
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.rule import LimitSpec
from gateway.limits.limiter import Limiter

Quotas = tuple[Quota, ...]
Share = Callable[[LimitSpec], float]
Count = Callable[[str, str], None]
"""Told of each limit that could not be counted for all, and what was done: `refuse`, `local`, `allow`."""

AWAY = " (away)"
"""What follows the name of a rule whose limits are counted here only while the store is away."""
SOON = 1.0
"""Seconds after which it is worth coming back while nobody can count."""


class Away:
    """Counts as well as one replica can."""

    def __init__(self, local: Limiter, count: Count) -> None:
        self._local = local
        self._count = count
        self._mine: dict[int, tuple[tuple[LimitSpec, ...], int, tuple[LimitSpec, ...]]] = {}
        self.replicas = 1
        """How many there were when the store could last be asked."""

    def spend(
        self,
        limits: tuple[LimitSpec, ...],
        facts: Facts,
        identity: Identity | None,
        rule: str,
        share: Share | None = None,
    ) -> Quotas:
        """One quota for each of `limits`, those that count here last."""
        quotas: list[Quota] = []
        for limit in limits:
            if limit.shadow or limit.when_away == "allow":
                quotas.append(Quota(limit, True, 0, 0.0, 0.0, "shadow" if limit.shadow else "away"))
            elif limit.when_away == "refuse":
                quotas.append(Quota(limit, False, 0, SOON, SOON, "away"))
            self._count(limit.name, "allow" if limit.shadow else limit.when_away)
        if all(quota.allowed for quota in quotas):
            quotas += self._local.spend(self._shares(limits), facts, identity, rule + AWAY, share)
        return tuple(quotas)

    def _shares(self, limits: tuple[LimitSpec, ...]) -> tuple[LimitSpec, ...]:
        kept = self._mine.get(id(limits))
        if kept is not None and kept[1] == self.replicas:
            return kept[2]
        if len(self._mine) >= 4096:
            self._mine.clear()
        mine = tuple(
            replace(limit, rate=max(1, limit.rate // self.replicas), burst=max(1, limit.burst // self.replicas))
            for limit in limits
            if limit.when_away == "local" and not limit.shadow
        )
        self._mine[id(limits)] = limits, self.replicas, mine  # `limits` is held: its id is not given to another
        return mine
