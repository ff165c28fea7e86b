"""What is left of a limit that adapts: a share of it, by who asks and how the service is. Pure.

Three things can shrink a limit, each to a share of its own; the smallest of them counts, and never less than `least`:

    risk              even from 1 at the score the policy names down to `least` at 1.0
    unknown device    the share the policy names
    latency           the time the policy names, divided by what the service takes on average: a service that is twice
                      as slow as it should be is asked half as often

A service of which nothing was measured yet shrinks nothing. A share is of the rate and of the burst
alike, and at least one request is always left of each.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.decision import Score
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.rule import Adaptation, LimitSpec, Rule


def share(adaptation: Adaptation, risk: float, known_device: bool, latency: float) -> float:
    """The share that is left, `least` … 1.0. `risk`: 0.0 … 1.0; `latency`: seconds on average, 0.0 for unknown."""
    left = 1.0
    if adaptation.risk is not None and risk > adaptation.risk:
        beyond = min(1.0, (risk - adaptation.risk) / (1.0 - adaptation.risk))
        left = 1.0 - beyond * (1.0 - adaptation.least)
    if adaptation.unknown_device is not None and not known_device:
        left = min(left, adaptation.unknown_device)
    if adaptation.latency is not None and latency > adaptation.latency:
        left = min(left, adaptation.latency / latency)
    return max(left, adaptation.least)


def scaled(limit: LimitSpec, share: float) -> tuple[int, int]:
    """Rate and burst of `limit` when `share` of it is left: whole numbers, one at least."""
    return max(1, int(limit.rate * share)), max(1, int(limit.burst * share))


class Shares:
    """What is left of a rule's limits for one request; asked only where one of them adapts."""

    def __init__(self, known: Callable[[Facts, Identity | None], bool], latency: Callable[[str], float]) -> None:
        """`known`: whether its user's browser is; `latency` of an upstream: seconds on average, 0.0 for unknown."""
        self._known = known
        self._latency = latency

    def __call__(
        self, rule: Rule, facts: Facts, identity: Identity | None, risk: Score
    ) -> Callable[[LimitSpec], float]:
        """The share of each of its limits."""

        def left(limit: LimitSpec) -> float:
            if limit.adapt is None:
                return 1.0
            known = limit.adapt.unknown_device is None or self._known(facts, identity)
            return share(limit.adapt, risk.value, known, self._latency(rule.upstream))

        return left
