"""The gate: one request's walk, top to bottom. It knows no bytes and no pages.

    facts → rule → who → how often → how strange → may they, and is it proven?

Everything a warm request needs is known already, so nothing on its walk waits; what is not known steps `aside` and
is looked up. A fault anywhere, ours or a store's, is a closed gate. Judging writes nothing: what is learnt, counted
or logged is learnt, counted or logged by others.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from gateway.audit.refusals import refusal
from gateway.core.clock import Clock
from gateway.core.contracts import Credential, Ledger, Strangeness
from gateway.core.decision import ANSWERS, CALM, Decision, Quota, Refuse, Score, SignIn, Throttle, Verdict
from gateway.core.eager import aside
from gateway.core.errors import Broken, StoreAway
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.reasons import Reason
from gateway.core.rule import LimitSpec, Rule
from gateway.policy.book import Book
from gateway.policy.decide import choose, decide, shadowed, stricter
from gateway.policy.readings import other_rules

_log = logging.getLogger(__name__)

Quotas = tuple[Quota, ...]
Share = Callable[[LimitSpec], float]
"""What is left of a limit now, 0.0 to 1.0."""
Shares = Callable[[Rule, Facts, Identity | None, Score], Share]
Spend = Callable[[tuple[LimitSpec, ...], Facts, Identity | None, str, Share | None], Quotas | Awaitable[Quotas]]
"""The quotas now; or an `Answer` that will be them, or somebody who waits for one."""


class Gate:
    """Judges requests by the book that is open at the moment."""

    def __init__(
        self,
        book: Book,
        *,
        credentials: Sequence[Credential],
        spend: Spend,
        risk: Strangeness,
        shares: Shares,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        self.book = book
        """The policy in force; replaced whole, by one assignment."""
        self._credentials = tuple(credentials)
        self._spend = spend
        self._risk = risk
        self._shares = shares
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
        if type(verdict.decision) in (Refuse, Throttle):
            self._ledger.note(refusal(facts, verdict))
        return verdict

    async def _walk(self, facts: Facts, book: Book) -> Verdict:
        candidates = book.find(facts)
        first = candidates[0] if candidates else None
        rule = first if first is not None and first.applies is None and not first.shadow else None
        identity: Identity | None = None
        for credential in self._credentials:
            identity = credential.near(facts)
            if identity is not None:
                break
        quotas: Quotas = ()
        damaged = False
        if identity is None:
            if rule is not None:  # looking somebody up costs more than counting: too many are stopped before
                share = self._shares(rule, facts, None, CALM) if rule.adaptive else None
                spent = self._spend(rule.request_limits, facts, None, rule.name, share)
                quotas = spent if isinstance(spent, tuple) else await spent
                if not _within(quotas):
                    return _stopped(rule, None, quotas)
            if facts.cookie or facts.authorization:
                identity, damaged = await self.identify(facts)
        rule = rule or choose(candidates, facts, identity)
        others = other_rules(book, facts, identity, rule) if book.readings(facts) else []
        if identity is not None and _fresh(rule, others):  # looked up just now it may be, or forgiven: nobody can tell
            identity, damaged = await self.identify(facts, fresh=True)
            rule = choose(candidates, facts, identity)
            others = other_rules(book, facts, identity, rule) if book.readings(facts) else []

        risk: Score | None = None
        if rule is not None:
            share = None
            if rule.adaptive:
                risk = await self._strangeness(facts, identity)
                share = self._shares(rule, facts, identity, risk)
            limits = rule.limits if identity is not None and not quotas else _uncounted(rule, identity, quotas)
            spent = self._spend(limits, facts, identity, rule.name, share)
            quotas += spent if isinstance(spent, tuple) else await spent
            for quota in quotas:
                if not quota.allowed and quota.how != "shadow":
                    return _stopped(rule, identity, quotas)

        if risk is None:
            risk = self._risk.remembered(facts, identity) if identity is not None else CALM
        if risk is None:
            risk = await self._strangeness(facts, identity)
        now = self._now()
        decision = decide(rule, facts, identity, risk, now)
        for other in others:
            if other is not None:
                share = self._shares(other, facts, None, CALM) if other.adaptive else None
                spent = self._spend(other.request_limits, facts, None, other.name, share)
                more = spent if isinstance(spent, tuple) else await spent
                if not _within(more):
                    return _stopped(other, identity, more)
            decision = stricter(decision, decide(other, facts, identity, risk, now))
        if damaged and isinstance(decision, SignIn):
            decision = SignIn((Reason.SESSION_ENDED,), decision.demand)
        verdict = Verdict(decision, rule, identity, risk, quotas)
        if rule is not first and (watched := shadowed(candidates, facts, identity)) is not None:
            verdict.shadow = watched.name, ANSWERS[type(decide(watched, facts, identity, risk, now))]
        return verdict

    async def _strangeness(self, facts: Facts, identity: Identity | None) -> Score:
        if identity is None:
            return CALM
        risk = self._risk.remembered(facts, identity)
        if risk is None:
            await aside()
            risk = await self._risk.score(facts, identity)
        return risk

    async def review(self, facts: Facts, before: Verdict) -> Decision:
        """Whether what `before` has let through, and what is still open, may stay so. Never raises.

        The same walk, but nothing is spent and nothing noted: nobody asks for anything. Whoever was somebody has to be
        the same still, under a public rule too, for the service was told their name.
        """
        try:
            return await self._again(facts, before, self.book)
        except StoreAway as away:
            _log.error("request %s: %s", facts.request_id, away)
            return Refuse((Reason.FAULT,), 503)
        except Exception:
            _log.exception("request %s: a fault while judging again", facts.request_id)
            return Refuse((Reason.FAULT,), 500)

    async def _again(self, facts: Facts, before: Verdict, book: Book) -> Decision:
        identity: Identity | None = None
        if before.identity is not None:
            for credential in self._credentials:
                identity = credential.near(facts)
                if identity is not None:
                    break
            else:
                await aside()
                identity, _ = await self.identify(facts)
                for credential in self._credentials:
                    identity = identity or await credential.again(before.identity)
            if identity is None:
                return SignIn((Reason.SESSION_ENDED,))
        rule = choose(book.find(facts), facts, identity)
        others = other_rules(book, facts, identity, rule) if book.readings(facts) else []
        if identity is not None and _fresh(rule, others):
            await aside()
            identity = await self._still(facts, identity)
            if identity is None:
                return SignIn((Reason.SESSION_ENDED,))
            rule = choose(book.find(facts), facts, identity)
            others = other_rules(book, facts, identity, rule) if book.readings(facts) else []
        risk = await self._strangeness(facts, identity)
        now = self._now()
        decision = decide(rule, facts, identity, risk, now)
        for other in others:
            decision = stricter(decision, decide(other, facts, identity, risk, now))
        if rule is not None and before.rule is not None and rule.upstream != before.rule.upstream:
            return stricter(decision, Refuse((Reason.NOT_ALLOWED,)))  # it is open to a service that is not theirs now
        return decision

    async def _still(self, facts: Facts, before: Identity) -> Identity | None:
        """Who it is that was `before`, by what the stores say now."""
        identity, _ = await self.identify(facts, fresh=True)
        for credential in self._credentials:
            identity = identity or await credential.again(before, fresh=True)
        return identity

    async def identify(self, facts: Facts, fresh: bool = False) -> tuple[Identity | None, bool]:
        """Who this is, and whether a credential came that is no longer good; with `fresh` nothing near is believed.

        Raises `StoreAway`.
        """
        damaged = False
        for credential in self._credentials:
            try:
                identity = await (credential.fresh(facts) if fresh else credential.identify(facts))
            except Broken:
                damaged = True
                continue
            if identity is not None:
                return identity, damaged
        return None, damaged


def _fresh(rule: Rule | None, others: Sequence[Rule | None]) -> bool:
    """Whether one of the rules that count believes nothing near."""
    if rule is not None and rule.fresh:
        return True
    return bool(others) and any(other is not None and other.fresh for other in others)


def _uncounted(rule: Rule, identity: Identity | None, counted: Quotas) -> tuple[LimitSpec, ...]:
    """The limits of `rule` that this request has still to be counted by."""
    if identity is None:
        return () if counted else rule.request_limits
    return rule.subject_limits if counted else rule.limits


def _within(quotas: Quotas) -> bool:
    return all([quota.allowed or quota.how == "shadow" for quota in quotas])  # noqa: C419 - a generator costs more


def _stopped(rule: Rule, identity: Identity | None, quotas: Quotas) -> Verdict:
    """Too often; or nobody can say how often, and the rule refuses then."""
    stopping = [quota for quota in quotas if not quota.allowed and quota.how != "shadow"]
    worst = max(stopping, key=lambda quota: quota.retry_after)
    if worst.how == "away":
        return Verdict(Refuse((Reason.STORE_AWAY,), 503), rule, identity, CALM, quotas)
    return Verdict(Throttle((Reason.RATE_LIMITED,), worst), rule, identity, CALM, quotas)
