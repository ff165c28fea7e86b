"""From what a policy file says to rules that can be judged; what makes no sense is told, all at once."""

from __future__ import annotations

import ipaddress
import re
import zoneinfo
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeVar

from gateway.core.errors import Problem
from gateway.core.facts import Facts
from gateway.core.header_names import folded, is_ours, is_reserved
from gateway.core.identity import FIRST_FACTORS, SECURITY_KEY, Identity, Level
from gateway.core.rule import (
    Adaptation,
    Backoff,
    LimitSpec,
    RiskThresholds,
    RouteTimeouts,
    Rule,
    SessionDemand,
    StepUpDemand,
)
from gateway.policy import access, criteria
from gateway.policy.book import Entry
from gateway.policy.criteria import CallerCondition, Condition
from gateway.policy.document import Document
from gateway.policy.glob import Glob
from gateway.policy.problems import meant
from gateway.policy.schema import Limit, Match, RuleText, StepUp

_T = TypeVar("_T")

REACHES = {
    "totp": Level.AAL2,
    "backup_code": Level.AAL2,
    "sms": Level.AAL2,
    "email": Level.AAL2,
    "push": Level.AAL2,
    "webauthn": Level.AAL3,
}
"""Every factor a policy may name, and the level it reaches beside a password."""

_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


_EVERYTHING = Glob("/**")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the config says that a policy refers to."""

    upstreams: Collection[str]
    factors: Collection[str]
    """Configured second factors, in the order of the config."""
    admin_groups: Collection[str]
    """Groups whose members never act at aal1."""
    people: bool = True
    """Whether anybody can be known: records are kept."""
    counters: bool = True
    """Whether anything can be counted."""
    together: bool = True
    """Whether it is counted where other replicas count too; else in this process."""
    lifetimes: tuple[float, float] | None = None
    """How long sessions live: seconds of rest, seconds in all."""
    trusted: float = 0.0
    """How long a browser can be trusted, in seconds; 0.0: none can."""


@dataclass(slots=True)
class Compiler:
    """Compiles the rules of one policy, file after file; collects problems and warnings."""

    around: Surroundings
    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    _where: dict[str, str] = field(default_factory=dict)
    _wide: dict[tuple[str, tuple[str, ...] | str], list[Entry]] = field(default_factory=dict)
    """Decisive rules by host and path: what a whole subtree begins with, or the very pattern."""

    def add(self, rules: Sequence[RuleText | None], document: Document) -> None:
        """Compile the rules of one file; None stands for one that could not be read."""
        for position, text in enumerate(rules):
            if text is None:
                continue
            one = _One(self.around, document, ("rules", position), self.problems, self.warnings)
            entry = one.compile(text, len(self.entries))
            if text.name in self._where:
                one.tell(f"a second rule called `{text.name}`", ("name",), f"the first is at {self._where[text.name]}")
            self._where.setdefault(text.name, entry.rule.where)
            self._note_unreachable(entry, document, position)
            self.entries.append(entry)

    def _note_unreachable(self, entry: Entry, document: Document, position: int) -> None:
        host = entry.hosts[0] if entry.hosts else ""
        first = entry.globs[0] if entry.globs else _EVERYTHING
        above = [host, *(host[at:] for at in range(1, len(host)) if host[at] == "."), ""]
        paths: list[tuple[str, ...] | str] = [*(first.head[:depth] for depth in range(len(first.head) + 1)), first.text]
        wider = (self._wide.get((one, path), ()) for one in above for path in paths)
        for earlier in chain.from_iterable(wider):
            if _covers(earlier, entry):
                message = f"rule `{entry.rule.name}` is never reached: `{earlier.rule.name}` takes all its requests"
                self.warnings.append(document.problem(message, ("rules", position), f"see {earlier.rule.where}"))
                break
        if entry.decisive and not entry.conditions:
            for one in entry.hosts or ("",):
                for glob in entry.globs or (_EVERYTHING,):
                    self._wide.setdefault((one, glob.head if glob.subtree else glob.text), []).append(entry)


class _One:
    """Compiles one rule."""

    def __init__(
        self,
        around: Surroundings,
        document: Document,
        path: tuple[str | int, ...],
        problems: list[Problem],
        warnings: list[Problem],
    ) -> None:
        self._around = around
        self._document = document
        self._path = path
        self._problems = problems
        self._warnings = warnings

    def tell(self, message: str, path: tuple[str | int, ...] = (), suggestion: str = "") -> None:
        """A problem at `path` within the rule."""
        self._problems.append(self._document.problem(message, self._path + path, suggestion))

    def warn(self, message: str, path: tuple[str | int, ...], suggestion: str = "") -> None:
        """The same for what is allowed, and still worth a second thought."""
        self._warnings.append(self._document.problem(message, self._path + path, suggestion))

    def compile(self, text: RuleText, order: int) -> Entry:
        match = text.match or Match.model_construct()
        caller = self._caller(match)
        request_limits, subject_limits = self._limits(text)
        who = text.access
        raised = not isinstance(who, str) and access.only_through(who, self._around.admin_groups)
        rule = Rule(
            name=text.name,
            where=f"{self._document.file}:{self._document.line_of(self._path)}",
            public=who == "public",
            nobody=who == "nobody",
            admits=access.admits(who)
            if not isinstance(who, str)
            else access.everybody
            if who == "authenticated"
            else access.no_one,
            step_up=self._demand(text, raised),
            risk=RiskThresholds(text.risk.step_up_at, text.risk.refuse_at) if text.risk else RiskThresholds(),
            request_limits=request_limits,
            subject_limits=subject_limits,
            upstream=self._upstream(text),
            timeouts=RouteTimeouts(text.timeouts.connect, text.timeouts.response, text.timeouts.idle)
            if text.timeouts is not None
            else None,
            audience=text.audience or text.upstream or "",
            applies=_all_of([condition.test for condition in caller]) if caller else None,
            shadow=text.shadow,
            headers=self._headers(text),
            origins=frozenset(origin.encode() for origin in text.origins or ()),
            session=SessionDemand(text.session.idle, text.session.absolute) if text.session is not None else None,
            fresh=text.fresh,
        )
        self._check_open(text)
        self._check_session(text)
        self._check_stores(text)
        return Entry(
            rule=rule,
            order=order,
            hosts=self._each(match.hosts, "hosts", _host),
            globs=self._each(match.paths, "paths", Glob),
            methods=_methods(match.methods),
            conditions=self._conditions(match),
            caller=caller,
            access=access.spoken(who),
            administrators=raised,
        )

    def _each(self, values: tuple[str, ...] | None, key: str, read: Callable[[str], _T]) -> tuple[_T, ...]:
        found = []
        for position, value in enumerate(values or ()):
            try:
                found.append(read(value))
            except ValueError as error:
                self.tell(str(error), ("match", key, position))
        return tuple(found)

    def _conditions(self, match: Match) -> tuple[Condition, ...]:
        found: list[Condition] = []
        for name, values in (match.headers or {}).items():
            if name.lower() in ("cookie", "authorization") or not _TOKEN.fullmatch(name):
                self.tell(f"`{name}` is not a header a rule can ask for", ("match", "headers", name))
                continue
            if is_ours(folded(name.encode("ascii"))):
                told = f"`{name}` is the gateway's own to write: what a client sends under it is dropped, not believed"
                self.tell(told, ("match", "headers", name))
                continue
            try:
                found.append(criteria.header(name, _many(values)))
            except UnicodeEncodeError:
                self.tell("a header value is latin-1 text", ("match", "headers", name))
        for name, values in (match.query or {}).items():
            found.append(criteria.query(name, _many(values)))
        if match.networks is not None:
            found.append(criteria.networks(self._each(match.networks, "networks", _network)))
        if (time := match.time) is not None:
            try:
                found.append(criteria.times(time.days, time.from_, time.to, time.timezone))
            except ValueError as error:
                suggestion = meant(time.timezone, sorted(zoneinfo.available_timezones()), "")
                at = ("match", "time", "timezone")
                self.tell(str(error), at, suggestion if "did" in suggestion else "an IANA name, as in Europe/Istanbul")
        return tuple(found)

    def _caller(self, match: Match) -> tuple[CallerCondition, ...]:
        found = []
        if match.users is not None:
            found.append(criteria.users(match.users))
        if match.groups is not None:
            found.append(criteria.groups(match.groups))
        if match.claims is not None:
            found.append(criteria.claims(access.listed(match.claims)))
        if match.levels is not None:
            found.append(criteria.levels(match.levels))
        return tuple(found)

    def _demand(self, text: RuleText, raised: bool) -> StepUpDemand | None:
        """What the rule asks to be proven, and whether it can be."""
        asks_for_risk = text.risk is not None and text.risk.step_up_at is not None
        if text.step_up is None:
            if (raised or asks_for_risk) and not self._around.factors:
                why = "lets only administrators in, who never act at aal1" if raised else "can step up"
                key = ("risk", "step_up_at") if asks_for_risk else ("access",)
                self.tell(
                    f"rule `{text.name}` {why}, but no factor is configured", key, "add one under `mfa` in config.yaml"
                )
            return StepUpDemand(level=Level.AAL2) if raised else None
        level = _level(text.step_up.level)
        if raised or asks_for_risk:
            self._check_factors(text.step_up, max(level, Level.AAL2))
        else:
            self._check_factors(text.step_up, level)
        verified = text.step_up.user_verification is not None
        return StepUpDemand(
            level=max(level, Level.AAL2) if raised else level,
            factors=frozenset((SECURITY_KEY,) if verified else text.step_up.factors or ()),
            max_age=text.step_up.max_age,
            trusted=self._trusted(text.step_up, level, raised),
            verified=verified,
        )

    def _trusted(self, text: StepUp, level: Level, raised: bool) -> float:
        """Seconds for which a browser that is trusted stands in for the second factor.

        A rule that wants a certain factor, or a recent one, wants to see it, unless it says otherwise.
        """
        at = ("step_up", "trusted_devices")
        if text.trusted_devices == "allow":
            if raised:
                self.tell("only administrators come in here, and they show their second factor", at, "remove it")
            elif level is not Level.AAL2:
                self.tell(
                    f"a trusted device stands in for aal2 only, and the rule asks for {level.acr}", at, "remove it"
                )
            elif text.factors is not None:
                self.tell("the rule names its factors, and a trusted device is none", at, "remove it, or `factors`")
            elif text.user_verification is not None:
                told = "a trusted device does not know who uses it, and the rule wants a key that does"
                self.tell(told, at, "remove it, or `user_verification`")
            elif not self._around.trusted:
                self.warn("no device can be trusted", at, "add `trusted_devices` under `mfa` in config.yaml")
            else:
                return min(self._around.trusted, text.max_age or self._around.trusted)
            return 0.0
        if text.trusted_devices == "forbid" or raised or level is not Level.AAL2 or text.user_verification is not None:
            return 0.0
        return self._around.trusted if text.factors is None and text.max_age is None else 0.0

    def _check_factors(self, text: StepUp, level: Level) -> None:
        configured = self._around.factors
        mistaken = text.user_verification is not None and not self._takes_keys(text)
        if text.factors is None:
            if not mistaken and not any(REACHES.get(name, Level.NONE) >= level for name in configured):
                known = ", ".join(configured) or "none"
                self.tell(
                    f"no configured factor reaches {level.acr}",
                    ("step_up", "level") if "level" in text.model_fields_set else ("step_up",),
                    f"configured under `mfa`: {known}",
                )
            return
        usable = []
        for position, name in enumerate(text.factors):
            at = ("step_up", "factors", position)
            if name in configured:
                usable.append(name)
            elif name in FIRST_FACTORS:
                mistaken = True
                self.tell(f"`{name}` opens a session; it is not a second factor", at)
            elif name not in REACHES:
                mistaken = True
                self.tell(f"`{name}` is not a factor", at, meant(name, REACHES, "factors"))
            else:
                told = f"the factor `{name}` is not configured, so nobody can answer with it"
                self.warn(told, at, "add it under `mfa` in config.yaml")
        if not mistaken and not any(REACHES.get(name, Level.NONE) >= level for name in usable):
            known = ", ".join(name for name in configured if REACHES.get(name, Level.NONE) >= level)
            what = "exists" if not usable else f"reaches {level.acr}"
            self.tell(
                f"the rule can step up, but no factor it names {what}",
                ("step_up", "factors"),
                f"configured, and reaching {level.acr}: {known or 'none'}",
            )

    def _takes_keys(self, text: StepUp) -> bool:
        """Whether anybody can answer with a key, which alone knows its user."""
        at = ("step_up", "user_verification")
        if text.level == "aal1":
            told = "a key that knew its user makes aal2 with the password, and the rule asks for aal1"
            self.tell(told, ("step_up", "level"), "write aal2, or leave `level` out")
        if text.factors is not None and SECURITY_KEY not in text.factors:
            told = f"only a key knows its user, and the rule's factors leave `{SECURITY_KEY}` out"
            self.tell(told, at, f"add `{SECURITY_KEY}` to `factors`, or remove one of the two")
            return False
        if SECURITY_KEY not in self._around.factors:
            told = f"only a key knows its user, and `{SECURITY_KEY}` is not configured"
            self.tell(told, at, "add it under `mfa` in config.yaml")
            return False
        for position, name in enumerate(text.factors or ()):
            if name != SECURITY_KEY and name in REACHES:
                told = f"`{name}` does not know its user, so it does not count here"
                self.warn(told, ("step_up", "factors", position), "remove it")
        return True

    def _limits(self, text: RuleText) -> tuple[tuple[LimitSpec, ...], tuple[LimitSpec, ...]]:
        specs: list[LimitSpec] = []
        for position, limit in enumerate(text.limits or ()):
            at = ("limits", position)
            if text.access == "public":
                self._check_public(limit, at)
            self._check_where(limit, at)
            for spec in _limit(limit):
                if any(spec.name == other.name for other in specs):
                    self.tell(f"a second limit called `{spec.name}` in this rule", (*at, "name"))
                specs.append(spec)
        return (
            tuple(spec for spec in specs if not spec.needs_identity),
            tuple(spec for spec in specs if spec.needs_identity),
        )

    def _check_public(self, limit: Limit, at: tuple[str | int, ...]) -> None:
        """Where nobody is asked who they are, nothing can depend on it."""
        nobody = "but a public rule asks nobody who they are"
        keys = (limit.key,) if isinstance(limit.key, str) else limit.key
        if any(part in ("user", "session") or part.startswith("claim:") for part in keys):
            told = f"the limit `{limit.name}` counts by who asks, {nobody}"
            self.tell(told, (*at, "key"), "count by address")
        for key in ("risk", "unknown_device"):
            if limit.adapt is not None and getattr(limit.adapt, key) is not None:
                told = f"the limit `{limit.name}` shrinks with who asks, {nobody}"
                self.tell(told, (*at, "adapt", key), "remove it; `latency` is about the service alone")

    def _check_where(self, limit: Limit, at: tuple[str | int, ...]) -> None:
        """Where nothing is shared, how it is shared and what happens without it are idle words."""
        if limit.mode == "local":
            if limit.when_away != "local":
                told = f"the limit `{limit.name}` is counted in this process, so `when_away` changes nothing"
                self.warn(told, (*at, "when_away"), "remove it, or write `mode: shared`")
        elif not self._around.together:
            for key, usual in (("mode", "shared"), ("when_away", "local")):
                if getattr(limit, key) != usual:
                    told = f"the limit `{limit.name}` is counted in this process anyway, so `{key}` changes nothing"
                    self.warn(told, (*at, key), "name a Redis in `store.shared` of config.yaml")

    def _check_session(self, text: RuleText) -> None:
        """What no session lives to see."""
        if text.session is None or self._around.lifetimes is None:
            return
        for key, lives in zip(("idle", "absolute"), self._around.lifetimes, strict=True):
            asked = getattr(text.session, key)
            if asked is not None and asked > lives:
                told = f"`session.{key}` is longer than any session lives, {lives:g} seconds (`sessions.{key}`)"
                self.warn(told, ("session", key), "remove it, or make it shorter")

    def _upstream(self, text: RuleText) -> str:
        if text.upstream is None:
            if text.access != "nobody":
                self.tell(f"rule `{text.name}` names no `upstream`", (), _known_upstreams(self._around.upstreams))
            return ""
        if text.upstream not in self._around.upstreams:
            known = meant(text.upstream, self._around.upstreams, "upstreams of config.yaml")
            self.tell(f"there is no upstream `{text.upstream}`", ("upstream",), known)
        return text.upstream

    def _headers(self, text: RuleText) -> tuple[tuple[str, str], ...]:
        for name, value in (text.headers or {}).items():
            at = ("headers", name)
            if not _TOKEN.fullmatch(name):
                self.tell(f"`{name}` is not a header name", at)
            elif is_reserved(folded(name.encode("ascii"))):
                self.tell(f"the header `{name}` is the gateway's own to write", at)
            if not value.isprintable() or not value.isascii():
                self.tell(f"the value of `{name}` must be printable ASCII", at)
        return tuple((text.headers or {}).items())

    def _check_open(self, text: RuleText) -> None:
        """A demand on nobody in particular, or on nobody at all, is a mistake."""
        if text.access not in ("public", "nobody"):
            return
        for key in ("step_up", "risk", "session", "fresh"):
            if getattr(text, key):
                whom = "lets anybody in" if text.access == "public" else "lets nobody in"
                self.tell(
                    f"`{key}` has no effect: the rule {whom}", (key,), "remove it, or write `access: authenticated`"
                )

    def _check_stores(self, text: RuleText) -> None:
        """A rule about callers where nobody is known would let nobody in; limits where nothing counts, everybody."""
        if not self._around.people:
            if text.access not in ("public", "nobody"):
                told = f"rule `{text.name}` asks who somebody is, but `store.records` is none: nobody is known"
                self.tell(told, ("access",), "write `access: public`, or keep records")
            for key in ("users", "groups", "claims", "levels"):
                if text.match is not None and getattr(text.match, key) is not None:
                    told = f"`match.{key}` is about callers, but `store.records` is none: nobody is known"
                    self.tell(told, ("match", key), "remove it, or keep records")
        if text.limits is not None and not self._around.counters:
            told = f"rule `{text.name}` has limits, but `store.shared` is none: nothing is counted"
            self.tell(told, ("limits",), "remove them, or write `shared: memory` in config.yaml")


def _covers(earlier: Entry, later: Entry) -> bool:
    """Whether every request of `later` surely meets `earlier`."""
    return (
        (not earlier.hosts or (bool(later.hosts) and all(_within(host, earlier.hosts) for host in later.hosts)))
        and (earlier.methods is None or (later.methods is not None and later.methods <= earlier.methods))
        and (
            not earlier.globs
            or any(glob.everything for glob in earlier.globs)
            or (bool(later.globs) and all(any(one.covers(glob) for one in earlier.globs) for glob in later.globs))
        )
    )


def _within(host: str, hosts: tuple[str, ...]) -> bool:
    return any(host == other or (other.startswith(".") and host.endswith(other)) for other in hosts)


def _all_of(tests: list[Callable[[Facts, Identity | None], bool]]) -> Callable[[Facts, Identity | None], bool]:
    if len(tests) == 1:
        return tests[0]
    return lambda facts, identity: all(test(facts, identity) for test in tests)


def _host(text: str) -> str:
    """The canonical spelling; `.example.com` for `*.example.com`. Raises ValueError."""
    host = text.lower().removesuffix(".")
    below = host.startswith("*.")
    name = host[2:] if below else host
    literal = name.removeprefix("[").removesuffix("]")
    if ":" in literal and not below:
        try:
            return ipaddress.IPv6Address(literal).compressed
        except ValueError:
            raise ValueError(f"`{text}` is not a host name; leave the port and the scheme out") from None
    if not name.isascii():
        raise ValueError(f"`{text}` is not written in ASCII; use its xn-- form")
    if not _HOST.fullmatch(name) or len(name) > 253:
        raise ValueError(f"`{text}` is not a host name; a star stands only in front, as in *.example.com")
    return f".{name}" if below else name


def _network(text: str) -> criteria.Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"`{text}` is not a network: {error}") from None


def _methods(methods: tuple[str, ...] | None) -> frozenset[str] | None:
    if methods is None:
        return None
    return frozenset(methods) | ({"HEAD"} if "GET" in methods else frozenset())


def _limit(limit: Limit) -> tuple[LimitSpec, ...]:
    """The limit, and the one against spikes within it."""
    adapt, backoff = limit.adapt, limit.backoff
    spec = LimitSpec(
        name=limit.name,
        key=(limit.key,) if isinstance(limit.key, str) else limit.key,
        algorithm=limit.algorithm,
        rate=limit.rate.many,
        window=limit.rate.window,
        burst=limit.burst if limit.burst is not None else limit.rate.many,
        mode=limit.mode,
        when_away=limit.when_away,
        shadow=limit.shadow,
        adapt=Adaptation(adapt.risk, adapt.unknown_device, adapt.latency, adapt.least) if adapt is not None else None,
        backoff=Backoff(backoff.after, backoff.wait, backoff.longest, backoff.forget) if backoff is not None else None,
    )
    if limit.spike is None:
        return (spec,)
    many, window = limit.spike
    spike = replace(
        spec,
        name=f"{limit.name}.spike",
        algorithm="sliding_window",
        rate=many,
        window=window,
        burst=many,
        adapt=None,
        backoff=None,
    )
    return spec, spike


def _level(name: str) -> Level:
    return Level[name.upper()]


def _many(values: str | tuple[str, ...]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else values


def _known_upstreams(upstreams: Collection[str]) -> str:
    return f"one of: {', '.join(upstreams)}" if upstreams else "add one to config.yaml"
