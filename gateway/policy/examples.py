"""The questions a policy file asks of itself, judged by the same code that judges requests."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from gateway.core.decision import ANSWERS, Decision, Quota, Score, Throttle
from gateway.core.errors import Problem
from gateway.core.facts import Facts
from gateway.core.identity import DEFAULT_TENANT, SECURITY_KEY, Identity, Level, Proof, Session, amr_of, level_of
from gateway.core.reasons import Reason
from gateway.core.rule import LimitSpec, Rule
from gateway.policy.book import Book
from gateway.policy.compile import REACHES
from gateway.policy.decide import choose, decide, stricter
from gateway.policy.schema import As, Example
from gateway.policy.units import duration

_REQUEST = re.compile(r"([A-Z][A-Z0-9-]*) +(\S+)")
_NOT_PLAIN = re.compile(r"[\x00-\x20\x7f\\#%]|//|/\.{1,2}(?:/|$)")


Readings = Callable[[str], Sequence[str]]
"""The other paths a service might take a path for."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How one example came out."""

    example: Example
    where: str
    """`file:line`."""
    answer: str
    rule: str
    """Name of the rule that answered; empty where none did."""
    reasons: tuple[Reason, ...]
    problem: Problem | None
    """What is wrong, if the answer is not the expected one."""


def facts_of(
    request: str,
    *,
    host: str,
    address: str = "192.0.2.1",
    headers: Mapping[str, object] | None = None,
    readings: Readings | None = None,
) -> Facts:
    """`GET /path?query` or `GET https://host/path` as facts. Raises ValueError unless the path is in its final form."""
    found = _REQUEST.fullmatch(request.strip())
    if found is None:
        raise ValueError(f"`{request}` is not a request; write GET /path")
    method, target = found.groups()
    scheme, port = "http", 0
    if "://" in target:
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(f"`{target}` is not a URL of http or https")
        scheme, host, port = parts.scheme, parts.hostname.rstrip("."), parts.port or 0
        path, query = parts.path or "/", parts.query
    else:
        path, _, query = target.partition("?")
    if not path.startswith("/") or _NOT_PLAIN.search(path):
        raise ValueError(f"the path `{path}` is not in the form rules are matched against: decoded, dots resolved")
    sent = [
        (name.lower().encode("ascii"), str(value).encode("latin-1"))
        for name, values in (headers or {}).items()
        for value in (values if isinstance(values, tuple | list) else (values,))
    ]
    return Facts(
        method=method,
        scheme=scheme,
        host=host.lower(),
        port=port,
        path=path,
        query=query,
        target=target.encode(),
        readings=tuple((method, other) for other in readings(path)) if readings is not None else (),
        address=address,
        network=address,
        headers=sent,
        request_id="example",
    )


def first_host(book: Book) -> str:
    """The host of an example that names none: the first that any rule names, else `localhost`."""
    return next((host for entry in book.entries for host in entry.hosts if not host.startswith(".")), "localhost")


def identity_of(who: As, factors: Collection[str], now: float) -> Identity:
    """The caller an example describes. Raises ValueError where level and factors contradict each other."""
    at = now - duration(who.proven.removesuffix(" ago"))
    shown = who.factors
    wanted = Level[who.level.upper()] if who.level else None
    if shown is None and who.verified:
        shown = (SECURITY_KEY,)
    elif shown is None:
        fitting = [name for name in factors if REACHES.get(name, Level.NONE) >= (wanted or Level.NONE)]
        shown = tuple(fitting[:1]) if wanted is not None and wanted >= Level.AAL2 else ()
    if who.verified and SECURITY_KEY not in shown:
        raise ValueError(f"only a key can have verified its user; name `{SECURITY_KEY}`, or leave one of the two out")
    if who.verified is False and wanted is Level.AAL3:
        raise ValueError("no key reaches aal3 that has not verified its user; leave one of the two out")
    verified = who.verified or wanted is Level.AAL3
    proofs = (Proof("password", at), *(_shown(name, at, wanted, verified) for name in shown if name != "password"))
    reached = level_of(proofs)
    named = who.factors is not None or who.verified
    if named and wanted is not None and (wanted >= Level.AAL2) != (reached >= Level.AAL2):
        raise ValueError(f"these factors reach {reached.acr}, not {wanted.acr}; leave one of the two out")
    return Identity(
        tenant=DEFAULT_TENANT,
        subject=who.user,
        user=who.user,
        email=who.email,
        groups=frozenset(who.groups),
        claims=who.claims,
        session=Session("example", 1, at, now + 86400, now, proofs, "192.0.2.1", "example"),
        level=wanted or reached,
        amr=amr_of(proofs),
        auth_time=at,
    )


def _shown(name: str, at: float, wanted: Level | None, verified: bool) -> Proof:
    """The proof of the factor `name`; of a key that reaches aal3 where that is `wanted`, else of a synced passkey where
    its device has `verified` who its user is."""
    if not verified or REACHES.get(name, Level.NONE) < Level.AAL3:
        return Proof(name, at)
    return Proof(name, at, "hwk" if wanted is Level.AAL3 else "swk", True)


def answer(
    book: Book, facts: Facts, identity: Identity | None, risk: Score, now: float
) -> tuple[Decision, Rule | None]:
    """What the gate would answer, limits aside: the strictest of every reading, and the rule that gave it."""
    rule = choose(book.find(facts, now), facts, identity)
    decision = decide(rule, facts, identity, risk, now)
    for method, path in book.readings(facts):
        other = choose(book.find_reading(facts, method, path, now), facts, identity)
        strict = stricter(decision, decide(other, facts, identity, risk, now))
        if strict is not decision:
            decision, rule = strict, other
    return decision, rule


def judge(
    example: Example,
    book: Book,
    factors: Collection[str],
    where: str,
    now: float | None = None,
    readings: Readings | None = None,
) -> Judgement:
    """Ask one question. `now` in seconds since the epoch; an example's own `at` goes before it."""
    now = time.time() if now is None else now
    file, _, line = where.rpartition(":")

    def judged(decision: Decision | None, rule: Rule | None, message: str = "") -> Judgement:
        said = ANSWERS[type(decision)] if decision is not None else "nothing"
        name = rule.name if rule is not None else ""
        reasons = decision.reasons if decision is not None else ()
        if not message and decision is not None:
            message = _difference(example, said, name, reasons)
        return Judgement(example, where, said, name, reasons, Problem(message, file, int(line)) if message else None)

    try:
        if example.at is not None:
            now = datetime.strptime(example.at, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp()
        facts = facts_of(
            example.request,
            host=first_host(book),
            address=example.address,
            headers=example.headers,
            readings=readings,
        )
        identity = identity_of(example.as_, factors, now) if example.as_ is not None else None
    except ValueError as error:
        return judged(None, None, f"example `{example.request}`: {error}")
    decision, rule = answer(book, facts, identity, Score(example.risk), now)
    if example.over is not None:
        limit = _limit(rule, example.over)
        if limit is None:
            return judged(decision, rule, f"example `{example.request}`: its rule has no limit called `{example.over}`")
        if limit.shadow:
            told = f"example `{example.request}`: `{limit.name}` is in shadow, so it never throttles anybody"
            return judged(decision, rule, told)
        if not limit.needs_identity or identity is not None:
            decision = Throttle((Reason.RATE_LIMITED,), Quota(limit, False, 0, limit.window, limit.window))
    return judged(decision, rule)


def _limit(rule: Rule | None, name: str) -> LimitSpec | None:
    if rule is None:
        return None
    return next((limit for limit in (*rule.request_limits, *rule.subject_limits) if limit.name == name), None)


def _difference(example: Example, said: str, rule: str, reasons: tuple[Reason, ...]) -> str:
    by = f"rule `{rule}`" if rule else "no rule"
    if said != example.expect:
        why = ", ".join(reasons)
        return f"example `{example.request}`: expected {example.expect}, got {said} ({by}: {why})"
    if example.rule is not None and example.rule != rule:
        return f"example `{example.request}`: expected an answer of rule `{example.rule}`, got one of {by}"
    return ""
