"""What the gate answers. A refusal is a value; a fault is an exception, and the gate turns it into `Refuse`.

`UMA` will add a sixth, `NeedGrant`, when owners can decide for others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.core.identity import Identity
from gateway.core.reasons import Reason
from gateway.core.rule import LimitSpec, Rule, StepUpDemand


@dataclass(frozen=True, slots=True)
class Allow:
    """Carry it on."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class SignIn:
    """Nobody is known; somebody is needed."""

    reasons: tuple[Reason, ...]
    demand: StepUpDemand | None = None
    """What the rule will ask beyond signing in, so that a client can be told at once."""


@dataclass(frozen=True, slots=True)
class StepUp:
    """Somebody is known, but has to prove it again."""

    reasons: tuple[Reason, ...]
    demand: StepUpDemand


class Quota(NamedTuple):
    """One limit after this request was counted. A tuple, since two are made for every request."""

    limit: LimitSpec
    allowed: bool
    remaining: int
    """How many more would be let through now."""
    reset: float
    """Seconds until the limit is whole again."""
    retry_after: float
    """Seconds until one more would be let through; 0.0 when it would be now."""
    how: str = ""
    """Empty: as the rule says. `shadow`: counted, and never refused for. `away`: the shared store is away, and this is
    what the rule says for that."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """Too often; come back later."""

    reasons: tuple[Reason, ...]
    quota: Quota


@dataclass(frozen=True, slots=True)
class Refuse:
    """No."""

    reasons: tuple[Reason, ...]
    status: int = 403


Decision = Allow | SignIn | StepUp | Throttle | Refuse

ANSWERS: dict[type[Decision], str] = {
    Allow: "allow",
    SignIn: "sign_in",
    StepUp: "step_up",
    Throttle: "throttle",
    Refuse: "refuse",
}
"""The name of each answer in YAML examples, metrics and logs."""

STRICTNESS: tuple[type[Decision], ...] = (Allow, StepUp, SignIn, Throttle, Refuse)
"""From the mildest answer to the strictest; of several readings of one request the strictest answer holds."""


@dataclass(frozen=True, slots=True)
class Score:
    """How strange a request is, and why."""

    value: float
    """0.0 nothing unusual … 1.0 certainly not them."""
    because: tuple[tuple[str, float, float], ...] = ()
    """`(signal, its own value 0.0–1.0, its weight)` of every signal that spoke."""
    answered_at: float | None = field(default=None, compare=False)
    """When this session last gave a second factor at this very place, in seconds since the epoch; 0.0: never. None:
    nothing is known of places (a question asked of the policy alone), and any proof is taken to be from here."""


CALM = Score(0.0)


class Verdict:
    """The gate's whole answer for one request: the decision, and what led to it."""

    __slots__ = ("decision", "identity", "quotas", "risk", "rule", "shadow")

    def __init__(
        self,
        decision: Decision,
        rule: Rule | None = None,
        identity: Identity | None = None,
        risk: Score = CALM,
        quotas: tuple[Quota, ...] = (),
    ) -> None:
        self.decision = decision
        self.rule = rule
        self.identity = identity
        self.risk = risk
        self.quotas = quotas
        self.shadow: tuple[str, str] | None = None
        """The shadow rule that would have been chosen, and what it would have answered."""
