"""The gate: one request's walk, top to bottom. It knows no bytes and no pages.

    facts → rule → how often (address) → who → how often (subject) → how strange → may they, and is it proven?

Everything a warm request needs is known already, so nothing on its walk waits; what is not known steps `aside` and
is looked up. A fault anywhere, ours or a store's, is a closed gate. Judging writes nothing: what is learnt, counted or
logged is learnt, counted or logged by others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.core.clock import Clock
from gateway.core.contracts import Credential, Ledger
from gateway.core.decision import ANSWERS, CALM, Quota, Refuse, Score, SignIn, Throttle, Verdict
from gateway.core.eager import aside
from gateway.core.errors import Broken, StoreAway
from gateway.core.events import Event, Kind, Severity
from gateway.core.facts import Facts
from gateway.core.identity import DEFAULT_TENANT, Identity
from gateway.core.reasons import Reason
from gateway.core.rule import LimitSpec, Rule
from gateway.policy.book import Book
from gateway.policy.decide import choose, decide, shadowed, stricter

_log = logging.getLogger(__name__)


class Strangeness(Protocol):
    """How strange is it? Answered by `risk`."""

    def remembered(self, facts: Facts, identity: Identity) -> Score | None:
        """The score, where nothing has changed since it was last weighed."""
        ...

    async def score(self, facts: Facts, identity: Identity) -> Score:
        """The score, weighed anew."""
        ...


Readings = tuple[tuple[str, str], ...]
Spend = Callable[[tuple[LimitSpec, ...], Facts, Identity | None, str], tuple[Quota, ...]]


class Gate:
    """Judges requests by the book that is open at the moment."""

    def __init__(
        self,
        book: Book,
        *,
        credentials: Sequence[Credential],
        spend: Spend,
        risk: Strangeness,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self.book = book
        """The policy in force; replaced whole, by one assignment."""
        self._credentials = tuple(credentials)
        self._spend = spend
        self._risk = risk
        self._ledger = ledger
        self._now = clock.now

    async def judge(self, facts: Facts) -> Verdict:
        """The verdict. Never raises: what goes wrong is refused."""
        try:
            verdict = await self._walk(facts, self.book)
        except StoreAway as away:
            _log.error("request %s: %s", facts.request_id, away)
            verdict = Verdict(Refuse((Reason.FAULT,), 503))
        except Exception:
            _log.exception("request %s: a fault while judging", facts.request_id)
            verdict = Verdict(Refuse((Reason.FAULT,), 500))
        if isinstance(verdict.decision, Refuse | Throttle):
            self._tell(facts, verdict, verdict.decision)
        return verdict

    async def _walk(self, facts: Facts, book: Book) -> Verdict:
        candidates = book.find(facts)
        rule = candidates[0] if candidates and candidates[0].applies is None and not candidates[0].shadow else None

        quotas: tuple[Quota, ...] = ()
        if rule is not None and rule.request_limits:
            quotas = self._spend(rule.request_limits, facts, None, rule.name)
            for quota in quotas:
                if not quota.allowed:
                    return _throttled(rule, None, quotas)

        identity, damaged = (await self.identify(facts)) if facts.cookie or facts.authorization else (None, False)
        if rule is None:
            rule = choose(candidates, facts, identity)
            if rule is not None and rule.request_limits:
                quotas = self._spend(rule.request_limits, facts, None, rule.name)
                for quota in quotas:
                    if not quota.allowed:
                        return _throttled(rule, identity, quotas)
        if rule is not None and rule.subject_limits and identity is not None:
            spent = self._spend(rule.subject_limits, facts, identity, rule.name)
            quotas += spent
            for quota in spent:
                if not quota.allowed:
                    return _throttled(rule, identity, quotas)

        risk = CALM
        if identity is not None:
            known = self._risk.remembered(facts, identity)
            if known is None:
                await aside()
                known = await self._risk.score(facts, identity)
            risk = known

        now = self._now()
        decision = decide(rule, facts, identity, risk, now)
        readings = book.readings(facts)
        for other in _other_rules(readings, rule, facts, identity, book) if readings else ():
            if other is not None and other.request_limits:
                spent = self._spend(other.request_limits, facts, None, other.name)
                for quota in spent:
                    if not quota.allowed:
                        return _throttled(other, identity, spent)
            decision = stricter(decision, decide(other, facts, identity, risk, now))
        if damaged and isinstance(decision, SignIn):
            decision = SignIn((Reason.SESSION_ENDED,), decision.demand)
        verdict = Verdict(decision, rule, identity, risk, quotas)
        if candidates and rule is not candidates[0]:
            watched = shadowed(candidates, facts, identity)
            if watched is not None:
                verdict.shadow = watched.name, ANSWERS[type(decide(watched, facts, identity, risk, now))]
        return verdict

    async def identify(self, facts: Facts) -> tuple[Identity | None, bool]:
        """Who this is, and whether a credential came that is no longer good."""
        damaged = False
        for credential in self._credentials:
            try:
                identity = await credential.identify(facts)
            except Broken:
                damaged = True
                continue
            if identity is not None:
                return identity, damaged
        return None, damaged

    def _tell(self, facts: Facts, verdict: Verdict, decision: Refuse | Throttle) -> None:
        identity = verdict.identity
        kind = Kind.THROTTLED if isinstance(decision, Throttle) else Kind.REFUSED
        if decision.reasons[0] is Reason.FAULT:
            kind = Kind.FAULT
        self._ledger.note(
            Event(
                kind,
                Severity.ALARM if kind is Kind.FAULT else Severity.NOTICE,
                tenant=identity.tenant if identity else DEFAULT_TENANT,
                user=identity.user if identity else "",
                session=identity.session.id if identity and identity.session else "",
                address=facts.address,
                agent=facts.agent,
                request_id=facts.request_id,
                rule=verdict.rule.name if verdict.rule else "",
                detail={"reason": decision.reasons[0].value, "method": facts.method, "path": facts.path},
            )
        )


def _other_rules(
    readings: Readings, rule: Rule | None, facts: Facts, identity: Identity | None, book: Book
) -> list[Rule | None]:
    """The rules of other ways to read this request; a reading can only add demands, never take one away."""
    others: list[Rule | None] = []
    for method, path in readings:
        other = choose(book.find_reading(facts, method, path), facts, identity)
        if other is not rule and other not in others:
            others.append(other)
    return others


def _throttled(rule: Rule, identity: Identity | None, quotas: tuple[Quota, ...]) -> Verdict:
    worst = max((quota for quota in quotas if not quota.allowed), key=lambda quota: quota.retry_after)
    return Verdict(Throttle((Reason.RATE_LIMITED,), worst), rule, identity, CALM, quotas)
