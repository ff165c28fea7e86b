"""One compiled paragraph of the operator's policy: what `policy` makes and every other room reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.core.facts import Facts
from gateway.core.identity import SECURITY_KEY, Identity, Level


@dataclass(frozen=True, slots=True)
class StepUpDemand:
    """What has to be proven before the rule lets somebody through."""

    level: Level = Level.AAL1
    factors: frozenset[str] = frozenset()
    """Factors that count; empty: any that reaches `level`."""
    max_age: float | None = None
    """Oldest proof that still counts, in seconds; None: any age."""
    trusted: float = 0.0
    """For so many seconds after a second factor was shown in a browser that its user trusts, signing in there is enough
    for aal2; 0.0: never."""
    verified: bool = False
    """Whether only a key counts whose device made sure who its user is (`Proof.verified`), whatever the level."""

    def counts(self, factor: str) -> bool:
        """Whether an answer with `factor` can meet it, its level aside."""
        if self.verified and factor != SECURITY_KEY:
            return False
        return not self.factors or factor in self.factors


@dataclass(frozen=True, slots=True)
class Adaptation:
    """How a limit shrinks. Each of the three that applies leaves a share of the limit; the smallest share counts."""

    risk: float | None = None
    """From this score on the limit shrinks evenly, down to `least` at 1.0."""
    unknown_device: float | None = None
    """Share for a caller whose browser has not signed in as them before."""
    latency: float | None = None
    """Seconds; where the service takes longer on average, the limit shrinks as much as the service is slower."""
    least: float = 0.1
    """Share that is always left."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long somebody waits who runs into a limit again and again: twice as long each time."""

    after: int = 3
    """Offences that cost nothing extra."""
    wait: float = 30.0
    """Seconds for the first offence after those."""
    longest: float = 3600.0
    forget: float = 86400.0
    """Seconds without an offence after which all is forgotten."""


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """One limit: `rate` per `window`, counted by `key`."""

    name: str
    key: tuple[str, ...]
    """Parts of the key, in order: `address`, `user`, `session`, `route`, `header:x-name`, `claim:name` …"""
    algorithm: str
    """`fixed_window`, `sliding_window`, `token_bucket` or `gcra`."""
    rate: int
    """How many in each window."""
    window: float
    """Length of the window in seconds."""
    burst: int
    """Token bucket and GCRA: how many at once; equal to `rate` unless said otherwise."""
    mode: str = "shared"
    """Where it is counted: `shared` by all replicas together, `leased` in shares that replicas borrow, `local`."""
    when_away: str = "local"
    """While the shared store is away: `refuse`, `local` (this replica's share), `allow`."""
    shadow: bool = False
    """Counted and told, but never refused."""
    adapt: Adaptation | None = None
    backoff: Backoff | None = None

    @property
    def needs_identity(self) -> bool:
        """Whether the key can only be made once the caller is known."""
        if self.adapt is not None and (self.adapt.risk is not None or self.adapt.unknown_device is not None):
            return True
        return any(part in ("user", "session") or part.startswith("claim:") for part in self.key)


@dataclass(frozen=True, slots=True)
class RiskThresholds:
    """From which score on the rule asks for more, or refuses. None: never."""

    step_up_at: float | None = None
    refuse_at: float | None = None


@dataclass(frozen=True, slots=True)
class SessionDemand:
    """How old a session may be for a rule. None: as old as sessions get."""

    idle: float | None = None
    """Longest pause between two requests since the last proof, in seconds."""
    absolute: float | None = None
    """Seconds since signing in."""


@dataclass(frozen=True, slots=True)
class RouteTimeouts:
    """How long to wait for the service on this route, in seconds. None: as long as for any other."""

    connect: float | None = None
    response: float | None = None
    idle: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A rule, compiled. Compared and hashed by identity: two loads never mix."""

    name: str
    where: str
    """`file:line` of its source."""
    public: bool
    """Whether nobody in particular may pass."""
    admits: Callable[[Identity], bool]
    """Who may enter, once known."""
    step_up: StepUpDemand | None
    risk: RiskThresholds
    request_limits: tuple[LimitSpec, ...] = ()
    """Limits whose keys need only the request; spent before anybody is identified."""
    subject_limits: tuple[LimitSpec, ...] = ()
    """Limits whose keys need to know the caller."""
    upstream: str = ""
    timeouts: RouteTimeouts | None = None
    audience: str = ""
    """`aud` of the assertion; the rule's upstream unless said otherwise."""
    applies: Callable[[Facts, Identity | None], bool] | None = None
    """Criteria about the caller; None when the rule is chosen by the request alone."""
    shadow: bool = False
    """Judged and logged, but never decisive."""
    headers: tuple[tuple[str, str], ...] = field(default=())
    """Fixed headers added to the request on its way to the upstream."""
    origins: frozenset[bytes] = frozenset()
    """Other sites, as in `Origin`, whose pages may open a WebSocket with a session."""
    nobody: bool = False
    """Closed to everybody, known or not."""
    session: SessionDemand | None = None
    fresh: bool = False
    """Whether the session is looked up in its store for every request, and nothing near is believed."""
    limits: tuple[LimitSpec, ...] = field(init=False, default=())
    """All of them, for a caller who is known at once."""
    adaptive: bool = field(init=False, default=False)
    """Whether any of them shrinks with who asks and how things are."""

    def __post_init__(self) -> None:
        limits = self.request_limits + self.subject_limits
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "adaptive", any(limit.adapt is not None for limit in limits))
