"""Who is let through. Pure: the same question gets the same answer, from the gate, from an example, from `explain`.

Order: is there a rule → is it open → who is it → may they → is it too strange → have they what they must have → is
their session young enough → have they proven enough, with the right thing, recently enough, given how strange it is.
Every reason to step up is given, not only the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gateway.core.decision import STRICTNESS, Allow, Decision, Refuse, Score, SignIn, StepUp
from gateway.core.facts import Facts
from gateway.core.identity import TRUSTED_DEVICE, Identity, Level, reaches
from gateway.core.reasons import Reason
from gateway.core.rule import Rule, SessionDemand, StepUpDemand

_PUBLIC = Allow((Reason.PUBLIC,))
_GRANTED = Allow((Reason.GRANTED,))
_NO_RULE = Refuse((Reason.NO_RULE,))
_NOT_ALLOWED = Refuse((Reason.NOT_ALLOWED,))
_ENROL_FIRST = Refuse((Reason.MFA_ENROL,))
_RISK_REFUSED = Refuse((Reason.RISK_REFUSED,))
RISK_MAX_AGE = 600.0
"""Seconds for which a second factor answers for how strange a request is, where the rule names no `max_age`. The
score itself may stay where it is after a proof, so without a time somebody who has just proven it would be asked for
ever; and without an end one proof would excuse a session's whole life. It answers for the place it was given at."""

CLOCK_TOLERANCE = 60.0
"""Seconds a proof may seem to lie in the future before a clock was set back and it counts for nothing."""

_SECOND_FACTOR = StepUpDemand(level=Level.AAL2, max_age=RISK_MAX_AGE)


def choose(candidates: Sequence[Rule], facts: Facts, identity: Identity | None) -> Rule | None:
    """The first candidate that applies to this caller; a shadow rule is never chosen."""
    for rule in candidates:
        if (rule.applies is None or rule.applies(facts, identity)) and not rule.shadow:
            return rule
    return None


def shadowed(candidates: Sequence[Rule], facts: Facts, identity: Identity | None) -> Rule | None:
    """The shadow rule that would have been chosen instead, if there is one; for the log."""
    for rule in candidates:
        if rule.applies is None or rule.applies(facts, identity):
            return rule if rule.shadow else None
    return None


def decide(rule: Rule | None, facts: Facts, identity: Identity | None, risk: Score, now: float) -> Decision:
    """What `rule` (None: no rule was found) answers to this caller at `now`, seconds since the epoch."""
    if rule is None:
        return _NO_RULE
    if rule.public:
        return _PUBLIC
    if rule.nobody:
        return _NOT_ALLOWED
    if identity is None:
        return SignIn((Reason.NO_SESSION,), rule.step_up)
    if not rule.admits(identity):
        return _NOT_ALLOWED
    thresholds = rule.risk
    if thresholds.refuse_at is not None and risk.value >= thresholds.refuse_at:
        return _RISK_REFUSED
    if now >= identity.enrol_by:
        return _ENROL_FIRST
    demand = rule.step_up
    if rule.session is not None and _too_old(rule.session, identity, now):
        return SignIn((Reason.SESSION_TOO_OLD,), demand)
    reasons = () if demand is None else _lacking(demand, identity, now)
    if thresholds.step_up_at is not None and risk.value >= thresholds.step_up_at:
        asked = _against_risk(demand)
        if _lacking(asked, identity, now) or not _given_here(risk, asked, now):
            return StepUp((*reasons, Reason.RISK_STEP_UP), asked)
    return StepUp(reasons, demand) if demand is not None and reasons else _GRANTED


def _too_old(demand: SessionDemand, identity: Identity, now: float) -> bool:
    """Whether the caller's session has lived, or rested, for longer than `demand` lets it. Signing in opens another."""
    session = identity.session
    if demand.idle is not None and session is not None and session.rested > demand.idle:
        return True
    begun = session.created_at if session is not None else identity.auth_time
    return demand.absolute is not None and not -CLOCK_TOLERANCE <= now - begun <= demand.absolute


def _against_risk(demand: StepUpDemand | None) -> StepUpDemand:
    """What answers for a strange request: what the rule asks anyway, with a second factor and recently. A browser that
    is trusted says nothing: it may be what was stolen."""
    if demand is None:
        return _SECOND_FACTOR
    max_age = demand.max_age if demand.max_age is not None else RISK_MAX_AGE
    return replace(demand, level=max(demand.level, Level.AAL2), max_age=max_age, trusted=0.0)


def _given_here(risk: Score, asked: StepUpDemand, now: float) -> bool:
    """Whether a second factor was shown where the request comes from: what somebody has proven at home says nothing
    about whoever uses their session elsewhere (a stolen cookie)."""
    if risk.answered_at is None or asked.max_age is None:
        return True
    return -CLOCK_TOLERANCE <= now - risk.answered_at <= asked.max_age


def _lacking(demand: StepUpDemand, identity: Identity, now: float) -> tuple[Reason, ...]:
    """What the caller's proofs lack for `demand`."""
    if identity.level < demand.level:
        return () if _stands_in(demand, identity, now) else (Reason.LEVEL_TOO_LOW,)
    if not demand.factors and demand.max_age is None and not demand.verified:
        return ()
    newest = _proven_at(demand, identity)
    if newest is None:
        return (Reason.FACTOR_NOT_ACCEPTED,)
    if demand.max_age is not None and not -CLOCK_TOLERANCE <= now - newest <= demand.max_age:
        return (Reason.PROOF_TOO_OLD,)
    return ()


def _stands_in(demand: StepUpDemand, identity: Identity, now: float) -> bool:
    """Whether the rule is content with a browser that was trusted when a second factor was last shown in it."""
    if demand.trusted <= 0.0 or demand.level is not Level.AAL2 or identity.level is not Level.AAL1 or demand.verified:
        return False
    for proof in identity.session.proofs if identity.session is not None else ():
        if proof.factor == TRUSTED_DEVICE and -CLOCK_TOLERANCE <= now - proof.at <= demand.trusted:
            return True
    return False


def _proven_at(demand: StepUpDemand, identity: Identity) -> float | None:
    """When a factor that counts was last shown; None if never. Above aal1 a password alone freshens nothing, for aal3
    only what reaches it does, and where user verification is asked for only a key that knew its user."""
    if identity.session is None:
        return None if demand.factors or demand.verified else identity.auth_time
    newest = None
    for proof in identity.session.proofs:
        if demand.factors:
            counts = proof.factor in demand.factors and (demand.level < Level.AAL3 or reaches(proof) >= demand.level)
        else:
            counts = reaches(proof) >= max(demand.level, Level.AAL1)
        if counts and (newest is None or proof.at > newest) and (proof.verified or not demand.verified):
            newest = proof.at
    return newest


def stricter(one: Decision, other: Decision) -> Decision:
    """The stricter of two answers; `one` where they are equally strict."""
    return other if STRICTNESS.index(type(other)) > STRICTNESS.index(type(one)) else one
