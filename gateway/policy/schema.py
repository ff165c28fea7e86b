"""What a policy file may say. Only its shape: what the words mean is compiled in `compile`.

Nothing here has a default that lets anybody in: `access` must be written, a list must name something, a key that is
not known is an error.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from gateway.core.user_names import folded
from gateway.policy.units import Duration, Percent, RateField

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Name = Annotated[str, Field(pattern=_NAME)]
"""A name that is safe in a log line and a metric label."""


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    seen: list[Any] = []
    for value in values:
        if value in seen:
            raise ValueError(f"`{value}` is given twice")
        seen.append(value)
    return values


def _method(name: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9-]{0,31}", name):
        raise ValueError(f"`{name}` is not a method; methods are written in capitals, as in GET")
    if name in ("CONNECT", "TRACE", "TRACK"):
        raise ValueError(f"{name} is never carried, whatever a rule says")
    return name


Text = Annotated[str, Field(min_length=1, max_length=1024)]
User = Annotated[Text, AfterValidator(folded)]
Scalar = str | int | bool
Texts = Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(_distinct)]
Users = Annotated[tuple[User, ...], Field(min_length=1), AfterValidator(_distinct)]
Methods = Annotated[tuple[Annotated[str, AfterValidator(_method)], ...], Field(min_length=1), AfterValidator(_distinct)]
Origin = Annotated[Text, Field(pattern=r"^https?://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?$")]
"""As browsers spell it: lower case, and no port where it is the scheme's own."""
Origins = Annotated[tuple[Origin, ...], Field(min_length=1), AfterValidator(_distinct)]
LevelName = Literal["aal1", "aal2", "aal3"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
TimeOfDay = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]


def _one_or_many(value: object) -> str:
    return "many" if isinstance(value, list | tuple) else "one"


TextOrTexts = Annotated[Annotated[Text, Tag("one")] | Annotated[Texts, Tag("many")], Discriminator(_one_or_many)]
ScalarOrScalars = Annotated[
    Annotated[Scalar, Tag("one")] | Annotated[tuple[Scalar, ...], Field(min_length=1), Tag("many")],
    Discriminator(_one_or_many),
]


def _written(default: str, description: str) -> Any:
    """A duration or a share above zero, with a default as people write it."""
    return Field(default, gt=0, description=description)


class Strict(BaseModel):
    """A frozen mapping without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)


class Times(Strict):
    """Part of the week."""

    days: Annotated[tuple[Day, ...], Field(min_length=1), AfterValidator(_distinct)] = Field(
        ("mon", "tue", "wed", "thu", "fri", "sat", "sun"), description="Days on which it begins."
    )
    from_: TimeOfDay = Field("00:00", alias="from", description="First minute, `HH:MM`.")
    to: TimeOfDay = Field("24:00", description="The minute it ends; earlier than `from`: it lasts past midnight.")
    timezone: str = Field("UTC", description="IANA name, as in `Europe/Istanbul`.")

    @model_validator(mode="after")
    def _some_time(self) -> Times:
        if self.from_ == self.to:
            raise ValueError("`from` and `to` are the same minute; leave both out for the whole day")
        return self


class Match(Strict):
    """Which requests a rule is about. Every criterion named has to be met; within a list one entry is enough."""

    hosts: Texts | None = Field(
        None, description="Host names; `*.example.com` stands for every host below example.com, at any depth."
    )
    paths: Texts | None = Field(
        None,
        description="Path patterns over the whole decoded path: `*` within a segment, `**` for any number of segments. "
        "A slash at the end changes nothing.",
    )
    methods: Methods | None = Field(None, description="HTTP methods; GET includes HEAD.")
    headers: dict[Text, TextOrTexts] | None = Field(
        None,
        min_length=1,
        description="Header name → the value, or values, it may have; `*` for any. It has to be sent, and every value "
        "sent has to fit; a request in which only some do finds no rule.",
    )
    query: dict[Text, TextOrTexts] | None = Field(
        None, min_length=1, description="Query parameter → the value, or values, it may have; as for `headers`."
    )
    networks: Texts | None = Field(None, description="Client addresses, as CIDR; an unknown address is in none.")
    time: Times | None = Field(None, description="When, by the gateway's clock.")
    users: Users | None = Field(None, description="The caller is one of these users.")
    groups: Texts | None = Field(None, description="The caller is in one of these groups.")
    claims: dict[Text, ScalarOrScalars] | None = Field(
        None, min_length=1, description="Claim → the value, or values, it may have; a list claim needs one of them."
    )
    levels: Annotated[tuple[LevelName, ...], Field(min_length=1), AfterValidator(_distinct)] | None = Field(
        None, description="The caller's session stands at one of these levels."
    )

    @model_validator(mode="after")
    def _something(self) -> Match:
        if not self.model_fields_set:
            raise ValueError("an empty `match` says nothing; leave it out for a rule about every request")
        return self


class Who(Strict):
    """Which known callers may enter. Every key named has to hold; within a list one entry is enough."""

    users: Users | None = Field(None, description="User names.")
    groups: Texts | None = Field(None, description="Groups; being in one is enough.")
    claims: dict[Text, ScalarOrScalars] | None = Field(
        None, min_length=1, description="Claim → the value, or values, it may have; all claims named have to fit."
    )
    any_: tuple[Who, ...] | None = Field(None, alias="any", min_length=1, description="At least one of these holds.")
    all_: tuple[Who, ...] | None = Field(None, alias="all", min_length=1, description="All of these hold.")
    not_: Who | None = Field(None, alias="not", description="This does not hold; the caller is known all the same.")

    @model_validator(mode="after")
    def _somebody(self) -> Who:
        if not self.model_fields_set:
            raise ValueError("an empty mapping names nobody; name users, groups or claims, or write `authenticated`")
        return self


Access = Annotated[
    Annotated[Literal["public", "authenticated", "nobody"], Tag("word")] | Annotated[Who, Tag("who")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "who"),
]


class StepUp(Strict):
    """What has to be proven before the rule lets somebody through."""

    level: LevelName = Field(
        "aal2", description="Assurance level: `aal1` one factor, `aal2` two, `aal3` two with a hardware key."
    )
    factors: Texts | None = Field(
        None,
        description="Factors that count: `webauthn`, `totp`, `sms`, `email`, `backup_code`; left out: any that reaches "
        "`level`.",
    )
    max_age: Duration | None = Field(None, description="Oldest proof that still counts; left out: any age.")
    trusted_devices: Literal["allow", "forbid"] | None = Field(
        None,
        description="Whether a browser that its user trusts (`mfa.trusted_devices`) stands in for the second factor; "
        "left out: for `aal2` without `factors` and `max_age`. Never for administrators' rules, nor against risk.",
    )
    user_verification: Literal["required"] | None = Field(
        None,
        description="`required`: only a key counts (`webauthn`) whose device made sure who its user is, by a PIN or a "
        "finger; left out: where `level` is `aal3`.",
    )

    @model_validator(mode="after")
    def _something(self) -> StepUp:
        if not self.model_fields_set:
            raise ValueError("an empty `step_up` asks for nothing; name `level`, `factors` or `max_age`")
        return self


def _limit_key(part: str) -> str:
    kind, colon, name = part.partition(":")
    if part in ("address", "user", "session", "route"):
        return part
    if kind == "header" and colon and re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        return part.lower()
    if kind == "claim" and name:
        return part
    raise ValueError(f"`{part}` is nothing to count by; use address, user, session, route, header:<name>, claim:<name>")


LimitKey = Annotated[str, AfterValidator(_limit_key)]
LimitKeys = Annotated[tuple[LimitKey, ...], Field(min_length=1), AfterValidator(_distinct)]

EXACT = 2**52 / 1e6
"""Seconds times requests whose microseconds are counted without rounding."""

LimitKeyOrKeys = Annotated[
    Annotated[LimitKey, Tag("one")] | Annotated[LimitKeys, Tag("many")], Discriminator(_one_or_many)
]


class Adapt(Strict):
    """How a limit shrinks with who asks and how things are; of the shares that apply the smallest counts."""

    risk: float | None = Field(
        None, ge=0, lt=1, description="From this risk score on it shrinks evenly, down to `least` at 1.0."
    )
    unknown_device: Percent | None = Field(
        None, description="What is left for a browser that nobody has signed in with as this user before."
    )
    latency: Duration | None = Field(
        None, gt=0, description="Where the service takes longer than this on average, it shrinks as much as it is slow."
    )
    least: Percent = _written("10%", "What is always left.")

    @model_validator(mode="after")
    def _something(self) -> Adapt:
        if self.risk is None and self.unknown_device is None and self.latency is None:
            raise ValueError("`adapt` changes nothing; name `risk`, `unknown_device` or `latency`")
        if self.unknown_device is not None and self.unknown_device < self.least:
            raise ValueError(f"`unknown_device` is below `least`, {self.least:.0%}, which is always left")
        return self


class Backoff(Strict):
    """What it costs to run into the limit again and again: a wait that doubles each time."""

    after: int = Field(3, ge=0, le=1000, description="Refusals that cost nothing more.")
    wait: Duration = _written("30s", "How long the first one after those is waited for.")
    longest: Duration = _written("1h", "The wait grows no longer than this.")
    forget: Duration = _written("1d", "After so long without one, all are forgotten.")

    @model_validator(mode="after")
    def _in_order(self) -> Backoff:
        if self.wait > self.longest:
            raise ValueError("`wait` is longer than `longest`")
        if self.longest > self.forget:
            raise ValueError("`longest` is longer than `forget`: a wait would be forgotten before it is over")
        return self


class Limit(Strict):
    """How often."""

    name: Name = Field(description="Its name in headers, logs and metrics; one of its kind within the rule.")
    key: LimitKeyOrKeys = Field(
        description="`address` (IPv6 by /64), `user`, `session`, `route`, `header:<name>` or `claim:<name>`; a list "
        "counts by all of them together."
    )
    algorithm: Literal["fixed_window", "sliding_window", "token_bucket", "gcra"] = Field(
        "sliding_window",
        description="`sliding_window` never lets more through in any window, `token_bucket` and `gcra` let `burst` "
        "through at once and refill evenly, `fixed_window` counts anew with each window.",
    )
    rate: RateField = Field(description="How many in what time: `5/s`, `100/m`, `1000/h`, `10/30s`.")
    burst: int | None = Field(
        None, ge=1, description="How many at once (token_bucket, gcra); left out: as many as in `rate`."
    )

    spike: RateField | None = Field(
        None,
        description="A second limit within the first, over a shorter time, so that nobody uses all of it at once: "
        "`20/s`. It is a sliding window called `<name>.spike`.",
    )
    mode: Literal["shared", "leased", "local"] = Field(
        "shared",
        description="Where it is counted: `shared` by all replicas together, exactly; `leased` by each in shares it "
        "borrows, without asking for each request; `local` by each for itself.",
    )
    when_away: Literal["refuse", "local", "allow"] = Field(
        "local",
        description="While the store that counts for all is away: `refuse`, `local` (each replica its share), `allow`.",
    )
    shadow: bool = Field(False, description="Counted and told in metrics, but never refused for.")
    adapt: Adapt | None = Field(None, description="How it shrinks with who asks and how things are.")
    backoff: Backoff | None = Field(None, description="What it costs to run into it again and again.")

    @model_validator(mode="after")
    def _burst_has_a_bucket(self) -> Limit:
        bucket = self.algorithm in ("token_bucket", "gcra")
        if self.burst is not None and not bucket:
            raise ValueError(f"`burst` belongs to `token_bucket` and `gcra`, not to `{self.algorithm}`")
        many = (self.burst or self.rate.many) if bucket else 1
        if (many + 1) * self.rate.window > EXACT:
            raise ValueError(
                f"{many} in {self.rate.window:g} seconds is more than can be counted exactly; name a smaller `burst`, "
                "or a shorter time"
                if bucket
                else "its window is longer than can be counted exactly; name a shorter time"
            )
        return self

    @model_validator(mode="after")
    def _what_is_lent_is_plain(self) -> Limit:
        if self.mode == "leased" and (self.adapt is not None or self.backoff is not None):
            raise ValueError("`leased` limits are lent in shares, all alike; they have no `adapt` and no `backoff`")
        return self

    @model_validator(mode="after")
    def _a_spike_is_shorter(self) -> Limit:
        if self.spike is None:
            return self
        if self.spike.window >= self.rate.window:
            raise ValueError("`spike` has to be about a shorter time than `rate`")
        if self.spike.many >= max(self.rate.many, self.burst or 0):
            raise ValueError("`spike` lets as many through at once as the limit itself, so it would never be reached")
        return self


class RiskSteps(Strict):
    """From which risk score on the rule asks for more, or refuses. 0.0 nothing unusual … 1.0 certainly not them."""

    step_up_at: float | None = Field(None, gt=0, le=1, description="Ask for a second factor from this score on.")
    refuse_at: float | None = Field(None, gt=0, le=1, description="Refuse from this score on.")

    @model_validator(mode="after")
    def _in_order(self) -> RiskSteps:
        if not self.model_fields_set:
            raise ValueError("an empty `risk` says nothing; name `step_up_at` or `refuse_at`")
        if self.step_up_at is not None and self.refuse_at is not None and self.step_up_at > self.refuse_at:
            raise ValueError("`step_up_at` is above `refuse_at`: everybody it asks would be refused already")
        return self


class RouteTimeouts(Strict):
    """How long to wait for the service on this route; what is left out is as for the upstream."""

    connect: Duration | None = Field(None, gt=0, description="For a connection.")
    response: Duration | None = Field(None, gt=0, description="For the head of its answer.")
    idle: Duration | None = Field(None, gt=0, description="For each further piece of its answer.")

    @model_validator(mode="after")
    def _something(self) -> RouteTimeouts:
        if not self.model_fields_set:
            raise ValueError("an empty `timeouts` says nothing; name `connect`, `response` or `idle`")
        return self


class SessionAge(Strict):
    """How old a session may be for this rule. Whoever's is older signs in again."""

    idle: Duration | None = Field(
        None, gt=0, description="Longest pause between two requests since the last proof; left out: as in config.yaml."
    )
    absolute: Duration | None = Field(None, gt=0, description="Time since signing in; left out: as in config.yaml.")

    @model_validator(mode="after")
    def _in_order(self) -> SessionAge:
        if self.idle is None and self.absolute is None:
            raise ValueError("an empty `session` says nothing; name `idle` or `absolute`")
        if self.idle is not None and self.absolute is not None and self.idle > self.absolute:
            raise ValueError("`idle` is longer than `absolute`, so it would never be reached")
        return self


class RuleText(Strict):
    """One rule. The first rule that matches a request decides; what no rule matches is refused."""

    name: Name = Field(description="Its name in logs, metrics and `sallyport explain`; unique.")
    match: Match | None = Field(None, description="Which requests it is about; left out: every request.")
    access: Access = Field(
        description="Who may enter: `public` anybody, `authenticated` anybody who is signed in, `nobody`, or a mapping."
    )
    step_up: StepUp | None = Field(None, description="What has to be proven before it lets somebody through.")
    session: SessionAge | None = Field(
        None, description="How old a session may be; left out: as long as `sessions` in config.yaml lets it live."
    )
    fresh: bool = Field(
        False,
        description="Look the session up in its store for each request, so that one that was ended anywhere is over at "
        "once, and nobody enters while the store is away.",
    )
    limits: tuple[Limit, ...] | None = Field(None, min_length=1, description="How often.")
    risk: RiskSteps | None = Field(None, description="From which risk score on it asks for more, or refuses.")
    upstream: str | None = Field(None, description="The service behind, as named in config.yaml.")
    timeouts: RouteTimeouts | None = Field(
        None, description="How long to wait for it on this route; left out: as the upstream says."
    )
    audience: Text | None = Field(None, description="`aud` of the signed assertion; left out: the upstream's name.")
    headers: dict[Text, str] | None = Field(
        None, min_length=1, description="Fixed headers added to the request on its way to the service."
    )
    origins: Origins | None = Field(
        None, description="Other sites whose pages may open a WebSocket with a session; left out: the site itself only."
    )
    shadow: bool = Field(
        False, description="Judge and log what this rule would have answered, but never let it decide."
    )


class As(Strict):
    """Who asks in an example."""

    user: User = Field(description="User name.")
    groups: tuple[Text, ...] = Field((), description="Groups of the user.")
    claims: dict[Text, Any] = Field(default_factory=dict, description="Claims of the user.")
    email: str = Field("", description="E-mail address.")
    level: LevelName | None = Field(None, description="Level of the session; left out: what `factors` reach, or aal1.")
    factors: tuple[Text, ...] | None = Field(
        None,
        description="Factors shown beside the password; left out: the first configured one where `level` needs it, "
        "`webauthn` where it is `verified`.",
    )
    verified: bool | None = Field(
        None,
        description="Whether the device of the key (`webauthn`) made sure who its user is, by a PIN or a finger; left "
        "out: where `level` is `aal3`.",
    )
    proven: str = Field(
        "0s ago",
        pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+( ago)?$",
        description="How long ago they were shown, as in `2m ago`; left out: just now.",
    )


class Example(Strict):
    """A question and the answer it must get. One wrong answer refuses the whole edit."""

    request: Text = Field(
        description='`"GET /path?query"`, or with a whole URL; without one the host is the first that any rule names.'
    )
    as_: As | None = Field(None, alias="as", description="Who asks; left out: nobody is signed in.")
    expect: Literal["allow", "sign_in", "step_up", "throttle", "refuse"] = Field(description="The answer.")
    rule: Name | None = Field(None, description="The rule that has to give it; left out: any.")
    address: Text = Field("192.0.2.1", description="Client address.")
    headers: dict[Text, TextOrTexts] = Field(default_factory=dict, description="Header name → value or values.")
    risk: float = Field(0.0, ge=0, le=1, description="Risk score of the request.")
    at: str | None = Field(
        None, pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d$", description="When, `YYYY-MM-DD HH:MM` in UTC; left out: now."
    )
    over: Name | None = Field(None, description="Name of a limit that is used up; for `expect: throttle`.")

    @model_validator(mode="after")
    def _throttled_by_something(self) -> Example:
        if (self.expect == "throttle") != (self.over is not None):
            raise ValueError("`expect: throttle` and `over: <limit>` go together")
        return self


class PolicyText(Strict):
    """A policy file. Files are read in name order, rules in order."""

    rules: tuple[RuleText, ...] = Field((), description="First match wins; no match is refused.")
    examples: tuple[Example, ...] = Field((), description="Judged at every load.")


class TestText(Strict):
    """A policy test file, `*.test.yaml`."""

    __test__ = False  # not a test class, whatever its name

    policy: Text | None = Field(None, description="Policy file or folder to judge by; left out: that of the config.")
    examples: tuple[Example, ...] = Field(min_length=1, description="Questions and the answers they must get.")
