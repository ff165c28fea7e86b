"""Why the gate would answer a request as it does: every rule, every criterion, and the judgement itself.

The criteria are the very functions a request meets, and the answer is `examples.answer`: nothing is decided twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.core.decision import ANSWERS, CALM, Decision, Score
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.rule import Rule
from gateway.policy.book import Book, Entry
from gateway.policy.decide import choose, decide, shadowed
from gateway.policy.examples import answer
from gateway.policy.glob import segments


@dataclass(frozen=True, slots=True)
class Tried:
    """One rule, held against the request."""

    rule: Rule
    outcome: str
    """`hit`, `miss`, `contradiction`, `shadow` (it would have decided, but only watches), `not reached`."""
    why: str
    """The criterion that was not met, or those that were."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a service might take the request for, and what that asks."""

    method: str
    path: str
    rule: str
    answer: str
    decisive: bool
    """Whether it is stricter than the literal request, and so decides."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole story of one request."""

    tried: tuple[Tried, ...]
    readings: tuple[Reading, ...]
    decision: Decision
    entry: Entry | None
    """The rule that decides."""
    shadow: Rule | None
    """The shadow rule that would have decided."""


def explain(book: Book, facts: Facts, identity: Identity | None, now: float, risk: Score = CALM) -> Explanation:
    """Why `facts`, asked by `identity` at `now` with this risk score, get the answer they get (limits aside)."""
    candidates = book.find(facts, now)
    literal = decide(choose(candidates, facts, identity), facts, identity, risk, now)
    decision, rule = answer(book, facts, identity, risk, now)
    readings = []
    for method, path in book.readings(facts):
        other = choose(book.find_reading(facts, method, path, now), facts, identity)
        said = decide(other, facts, identity, risk, now)
        name = other.name if other is not None else ""
        readings.append(Reading(method, path, name, ANSWERS[type(said)], said == decision and said != literal))
    return Explanation(
        tried=tuple(_try(book, facts, identity, now)),
        readings=tuple(readings),
        decision=decision,
        entry=next((entry for entry in book.entries if entry.rule is rule), None),
        shadow=shadowed(candidates, facts, identity),
    )


def _try(book: Book, facts: Facts, identity: Identity | None, now: float) -> Iterator[Tried]:
    over = ""
    for entry in book.entries:
        if over:
            yield Tried(entry.rule, "not reached", over)
            continue
        met, missed, contradicted = _held(entry, facts, identity, now)
        if contradicted:
            over = f"rule `{entry.rule.name}` found the request contradicting itself"
            yield Tried(entry.rule, "contradiction", f"{contradicted}: some values fit and some do not")
        elif missed:
            yield Tried(entry.rule, "miss", missed)
        elif entry.rule.shadow:
            yield Tried(entry.rule, "shadow", met)
        else:
            over = f"rule `{entry.rule.name}` decides"
            yield Tried(entry.rule, "hit", met)


def _held(entry: Entry, facts: Facts, identity: Identity | None, now: float) -> tuple[str, str, str]:
    """The criteria met; the first that was not; the one the request contradicts itself in."""
    met: list[str] = []
    if entry.hosts:
        text = "hosts: " + _listed(f"*{host}" if host.startswith(".") else host for host in entry.hosts)
        host = facts.host
        if not any(host.endswith(one) and host != one if one.startswith(".") else host == one for one in entry.hosts):
            return "", f"{text}, not {host}", ""
        met.append(text)
    if entry.globs:
        text = "paths: " + _listed(glob.text for glob in entry.globs)
        if not any(glob.match(segments(facts.path)) for glob in entry.globs):
            return "", f"{text}, not {facts.path}", ""
        met.append(text)
    if entry.methods is not None:
        text = "methods: " + _listed(sorted(entry.methods))
        if facts.method not in entry.methods:
            return "", f"{text}, not {facts.method}", ""
        met.append(text)
    for condition in entry.conditions:
        fits = condition.test(facts, now)
        if fits is None:
            return "", "", condition.text
        if not fits:
            return "", condition.text, ""
        met.append(condition.text)
    for about in entry.caller:
        if not about.test(facts, identity):
            return "", about.text + ("" if identity is not None else ", and nobody is signed in"), ""
        met.append(about.text)
    return "; ".join(met) or "it is about every request", "", ""


def _listed(words: Iterator[str] | list[str]) -> str:
    return "[" + ", ".join(words) + "]"
