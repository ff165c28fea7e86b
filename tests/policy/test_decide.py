from __future__ import annotations

import time
import timeit
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.decision import CALM, Allow, Decision, Refuse, Score, SignIn, StepUp, Throttle
from gateway.core.identity import Identity, Level, Proof, level_of
from gateway.core.reasons import Reason
from gateway.core.rule import RiskThresholds, Rule, SessionDemand, StepUpDemand
from gateway.policy.decide import RISK_MAX_AGE, choose, decide, shadowed, stricter
from tests.policy.conftest import NOW, facts, somebody


def rule(name: str = "r", **said: Any) -> Rule:
    return Rule(
        **{
            "name": name,
            "where": "p.yaml:1",
            "public": False,
            "admits": lambda identity: True,
            "step_up": None,
            "risk": RiskThresholds(),
            **said,
        }
    )


def judged(one: Rule | None, identity: Identity | None = None, risk: float = 0.0, now: float = NOW) -> Decision:
    return decide(one, facts(), identity, Score(risk), now)


def test_no_rule_is_refused_whoever_asks() -> None:
    assert judged(None) == Refuse((Reason.NO_RULE,))
    assert judged(None, somebody("ann", "totp", groups=["admins"])) == Refuse((Reason.NO_RULE,))


def test_a_public_rule_lets_anybody_in() -> None:
    assert judged(rule(public=True)) == Allow((Reason.PUBLIC,))
    assert judged(rule(public=True), somebody(), risk=1.0) == Allow((Reason.PUBLIC,))


def test_a_closed_rule_does_not_even_ask_who_it_is() -> None:
    assert judged(rule(nobody=True)) == Refuse((Reason.NOT_ALLOWED,))
    assert judged(rule(nobody=True), somebody()) == Refuse((Reason.NOT_ALLOWED,))


def test_nobody_in_particular_is_told_what_will_be_asked() -> None:
    demand = StepUpDemand(Level.AAL2, frozenset({"totp"}), 600.0)
    assert judged(rule(step_up=demand)) == SignIn((Reason.NO_SESSION,), demand)
    assert judged(rule()) == SignIn((Reason.NO_SESSION,))


def test_who_may_not_enter_is_refused_before_anything_is_asked_of_them() -> None:
    closed = rule(admits=lambda identity: False, step_up=StepUpDemand(Level.AAL2))
    assert judged(closed, somebody()) == Refuse((Reason.NOT_ALLOWED,))


TOTP = StepUpDemand(Level.AAL2, frozenset({"totp"}), 600.0)
ANY = StepUpDemand(Level.AAL2)
FRESH = StepUpDemand(Level.AAL2, max_age=600.0)


def test_who_must_have_a_second_factor_first_comes_before_what_the_rule_asks() -> None:
    """And after who may not enter at all, or is too strange: they are told nothing of their account."""
    owing = replace(somebody("ann", "totp"), enrol_by=NOW)
    first = Refuse((Reason.MFA_ENROL,))
    too_old = SessionDemand(absolute=0.0)
    assert judged(rule(), owing) == first
    assert judged(rule(step_up=StepUpDemand(Level.AAL3), session=too_old), owing) == first
    assert judged(rule(), replace(owing, enrol_by=NOW + 0.001)) == Allow((Reason.GRANTED,))
    assert judged(rule(public=True), owing) == Allow((Reason.PUBLIC,))
    assert judged(rule(admits=lambda identity: False), owing) == Refuse((Reason.NOT_ALLOWED,))
    assert judged(rule(risk=RiskThresholds(refuse_at=0.5)), owing, risk=0.6) == Refuse((Reason.RISK_REFUSED,))


@pytest.mark.parametrize(
    ("demand", "factors", "ago", "reason"),
    [
        (ANY, (), 0, Reason.LEVEL_TOO_LOW),
        (ANY, ("totp",), 0, None),
        (ANY, ("backup_code",), 86400, None),
        (TOTP, (), 0, Reason.LEVEL_TOO_LOW),
        (TOTP, ("totp",), 0, None),
        (TOTP, ("totp",), 600, None),
        (TOTP, ("totp",), 601, Reason.PROOF_TOO_OLD),
        (TOTP, ("backup_code",), 0, Reason.FACTOR_NOT_ACCEPTED),
        (FRESH, ("backup_code",), 599, None),
        (FRESH, ("backup_code",), 601, Reason.PROOF_TOO_OLD),
        (StepUpDemand(Level.AAL3), ("totp",), 0, Reason.LEVEL_TOO_LOW),
        (StepUpDemand(Level.AAL1, max_age=60.0), (), 61, Reason.PROOF_TOO_OLD),
        (StepUpDemand(Level.AAL1, max_age=60.0), (), 59, None),
        (StepUpDemand(Level.AAL1), (), 9e6, None),
    ],
)
def test_what_has_to_be_proven(
    demand: StepUpDemand, factors: tuple[str, ...], ago: float, reason: Reason | None
) -> None:
    answer = judged(rule(step_up=demand), somebody("bob", *factors, ago=ago))
    assert answer == (Allow((Reason.GRANTED,)) if reason is None else StepUp((reason,), demand))


def test_a_fresh_password_does_not_freshen_a_second_factor() -> None:
    bob = somebody("bob", "totp", ago=3600)
    assert bob.session is not None
    password, totp = bob.session.proofs
    again = somebody("bob", "totp", session=_with_proofs(bob, (type(password)("password", NOW), totp)))
    assert judged(rule(step_up=FRESH), again) == StepUp((Reason.PROOF_TOO_OLD,), FRESH)


def test_for_aal3_only_what_reaches_it_freshens() -> None:
    demand = StepUpDemand(Level.AAL3, max_age=600.0)
    bob = somebody("bob", "totp")
    old, totp = Proof("webauthn", NOW - 3600, "hwk", True), Proof("totp", NOW)

    def answer(*proofs: Proof, of: StepUpDemand = demand) -> Decision:
        shown = (Proof("password", NOW), *proofs)
        return judged(rule(step_up=of), replace(bob, session=_with_proofs(bob, shown), level=level_of(shown)))

    assert answer(replace(old, at=NOW)) == Allow((Reason.GRANTED,))
    assert answer(old, totp) == StepUp((Reason.PROOF_TOO_OLD,), demand)
    assert answer(replace(old, at=NOW, key="swk"), totp) == StepUp((Reason.LEVEL_TOO_LOW,), demand)
    assert answer(replace(old, at=NOW, verified=False)) == StepUp((Reason.LEVEL_TOO_LOW,), demand)
    named = replace(demand, factors=frozenset({"totp", "webauthn"}))
    assert answer(old, totp, of=named) == StepUp((Reason.PROOF_TOO_OLD,), named)


def _with_proofs(identity: Identity, proofs: tuple[Any, ...]) -> Any:
    from dataclasses import replace

    assert identity.session is not None
    return replace(identity.session, proofs=proofs)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -61.0])
def test_case_82_a_clock_that_jumps_never_makes_an_old_proof_fresh(jump: float) -> None:
    answer = judged(rule(step_up=TOTP), somebody("bob", "totp"), now=NOW + jump)
    assert answer == StepUp((Reason.PROOF_TOO_OLD,), TOTP)


def test_a_caller_without_a_session_has_shown_no_factor() -> None:
    machine = somebody("robot", session=None, level=Level.AAL2, auth_time=NOW - 30)
    assert judged(rule(step_up=TOTP), machine) == StepUp((Reason.FACTOR_NOT_ACCEPTED,), TOTP)
    assert judged(rule(step_up=FRESH), machine) == Allow((Reason.GRANTED,))
    assert judged(rule(step_up=FRESH), machine, now=NOW + 600) == StepUp((Reason.PROOF_TOO_OLD,), FRESH)


RISK = RiskThresholds(step_up_at=0.5, refuse_at=0.8)


@pytest.mark.parametrize(
    ("risk", "answer"),
    [(0.0, Allow), (0.49, Allow), (0.5, StepUp), (0.79, StepUp), (0.8, Refuse), (1.0, Refuse)],
)
def test_risk_thresholds(risk: float, answer: type[Decision]) -> None:
    assert type(judged(rule(risk=RISK), somebody("bob"), risk)) is answer


def test_risk_asks_for_a_second_factor_and_says_why() -> None:
    asked = StepUpDemand(Level.AAL2, max_age=RISK_MAX_AGE)
    assert judged(rule(risk=RISK), somebody(), 0.6) == StepUp((Reason.RISK_STEP_UP,), asked)
    strict = rule(risk=RISK, step_up=TOTP)
    assert judged(strict, somebody(), 0.6) == StepUp((Reason.LEVEL_TOO_LOW, Reason.RISK_STEP_UP), TOTP)
    mild = rule(risk=RISK, step_up=StepUpDemand(Level.AAL1, max_age=60.0))
    assert judged(mild, somebody(), 0.6) == StepUp((Reason.RISK_STEP_UP,), StepUpDemand(Level.AAL2, max_age=60.0))


@pytest.mark.parametrize(
    ("step_up", "factors", "ago", "lets_in"),
    [
        (None, ("totp",), 0, True),
        (None, ("backup_code",), RISK_MAX_AGE, True),
        (None, ("totp",), RISK_MAX_AGE + 1, False),
        (ANY, ("totp",), RISK_MAX_AGE, True),
        (ANY, ("totp",), RISK_MAX_AGE + 1, False),
        (TOTP, ("totp",), 600, True),
        (TOTP, ("backup_code",), 0, False),
        (StepUpDemand(Level.AAL2, max_age=60.0), ("totp",), 61, False),
        (StepUpDemand(Level.AAL2, max_age=3600.0), ("totp",), 3599, True),
        (StepUpDemand(Level.AAL1, max_age=60.0), (), 0, False),
        (StepUpDemand(Level.AAL1, max_age=60.0), ("totp",), 59, True),
    ],
)
def test_who_has_just_proven_it_is_not_asked_again_for_the_same_risk(
    step_up: StepUpDemand | None, factors: tuple[str, ...], ago: float, lets_in: bool
) -> None:
    """The score may stay high after the proof; asking for ever would lock people out."""
    one, who = rule(risk=RISK, step_up=step_up), somebody("bob", *factors, ago=ago)
    answer = judged(one, who, 0.79)
    assert isinstance(answer, Allow) is lets_in
    assert lets_in or (isinstance(answer, StepUp) and answer.reasons[-1] is Reason.RISK_STEP_UP)
    assert judged(one, who, 0.8) == Refuse((Reason.RISK_REFUSED,)), "no proof outweighs what refuses"


def test_what_risk_asks_for_is_answered_by_giving_it() -> None:
    """No demand of a decision may be one that its own answer does not meet."""
    for step_up in (None, ANY, TOTP, FRESH, StepUpDemand(Level.AAL1, max_age=60.0), StepUpDemand(Level.AAL1)):
        one = rule(risk=RISK, step_up=step_up)
        asked = judged(one, somebody(), 0.6)
        assert isinstance(asked, StepUp)
        given = next(iter(asked.demand.factors), "totp")
        assert judged(one, somebody("bob", given), 0.6) == Allow((Reason.GRANTED,))


def test_risk_that_refuses_goes_before_a_step_up() -> None:
    assert judged(rule(risk=RISK, step_up=TOTP), somebody(), 0.9) == Refuse((Reason.RISK_REFUSED,))


def test_a_rule_without_thresholds_is_not_moved_by_risk() -> None:
    assert judged(rule(), somebody(), 1.0) == Allow((Reason.GRANTED,))


def test_the_first_candidate_that_applies_is_chosen() -> None:
    pilots = rule("pilots", applies=lambda asked, who: who is not None and "pilots" in who.groups)
    watching = rule("watching", shadow=True)
    rest = rule("rest")
    candidates = (watching, pilots, rest)
    assert choose(candidates, facts(), None) is rest
    assert choose(candidates, facts(), somebody(groups=["pilots"])) is pilots
    assert choose((watching,), facts(), None) is None
    assert choose((), facts(), None) is None


def test_a_shadow_rule_is_told_only_where_it_would_have_decided() -> None:
    watching = rule("watching", shadow=True, applies=lambda asked, who: who is None)
    rest = rule("rest")
    assert shadowed((watching, rest), facts(), None) is watching
    assert shadowed((watching, rest), facts(), somebody()) is None
    assert shadowed((rest,), facts(), None) is None
    assert shadowed((), facts(), None) is None


def test_the_stricter_answer() -> None:
    allow, step = Allow((Reason.GRANTED,)), StepUp((Reason.LEVEL_TOO_LOW,), ANY)
    sign, refuse = SignIn((Reason.NO_SESSION,)), Refuse((Reason.NO_RULE,))
    order: list[Decision] = [allow, step, sign, refuse]
    for low, mild in enumerate(order):
        for strict in order[low:]:
            assert stricter(mild, strict) is strict
            assert stricter(strict, mild) is strict
    assert stricter(sign, SignIn((Reason.SESSION_ENDED,))) is sign
    assert Throttle not in map(type, order)


def test_choosing_and_deciding_cost_next_to_nothing() -> None:
    one = rule(step_up=TOTP, risk=RISK, admits=lambda identity: "admins" in identity.groups)
    ann, asked = somebody("ann", "totp", groups=["admins"]), facts()

    def run() -> None:
        for _ in range(1000):
            decide(choose((one,), asked, ann), asked, ann, CALM, NOW)

    assert decide(one, asked, ann, CALM, NOW) == Allow((Reason.GRANTED,))
    assert min(timeit.repeat(run, number=1, repeat=30, timer=time.thread_time)) * 1000 <= 2.0, "µs for one request"


def aged(age: float, rested: float = 0.0) -> Identity:
    """Signed in `age` seconds ago, proven again now, and `rested` seconds at rest since."""
    identity = somebody("bob", "totp")
    assert identity.session is not None
    return replace(identity, session=replace(identity.session, created_at=NOW - age, rested=rested))


@pytest.mark.parametrize(
    ("demand", "identity", "good"),
    [
        (SessionDemand(absolute=3600.0), aged(3600.0), True),
        (SessionDemand(absolute=3600.0), aged(3600.5), False),
        (SessionDemand(absolute=3600.0), aged(10.0, rested=9999.0), True),
        (SessionDemand(idle=900.0), aged(99_999.0, rested=900.0), True),
        (SessionDemand(idle=900.0), aged(1000.0, rested=900.5), False),
        (SessionDemand(900.0, 3600.0), aged(3000.0, rested=100.0), True),
        (SessionDemand(900.0, 3600.0), aged(4000.0, rested=100.0), False),
        # a clock set back: its age cannot be known
        (SessionDemand(absolute=3600.0), aged(-30.0), True),
        (SessionDemand(absolute=3600.0), aged(-7200.0), False),
    ],
)
def test_a_session_too_old_for_the_rule_is_opened_anew(demand: SessionDemand, identity: Identity, good: bool) -> None:
    answer = judged(rule(session=demand), identity)
    assert answer == (Allow((Reason.GRANTED,)) if good else SignIn((Reason.SESSION_TOO_OLD,)))


def test_who_may_not_enter_is_not_sent_to_sign_in_for_it() -> None:
    old = rule(session=SessionDemand(absolute=60.0), admits=lambda identity: False)
    assert judged(old, aged(99.0)) == Refuse((Reason.NOT_ALLOWED,))
    risky = rule(session=SessionDemand(absolute=60.0), risk=RiskThresholds(refuse_at=0.5))
    assert judged(risky, aged(99.0), risk=0.6) == Refuse((Reason.RISK_REFUSED,))


def test_signing_in_again_is_asked_before_a_second_factor_and_says_what_comes_then() -> None:
    strict = rule(session=SessionDemand(absolute=60.0), step_up=FRESH)
    assert judged(strict, aged(99.0)) == SignIn((Reason.SESSION_TOO_OLD,), FRESH)


def test_who_has_no_session_is_as_old_as_what_they_showed() -> None:
    program = replace(aged(0.0), session=None, auth_time=NOW - 100.0)
    assert judged(rule(session=SessionDemand(absolute=100.0)), program) == Allow((Reason.GRANTED,))
    assert judged(rule(session=SessionDemand(absolute=99.0)), program) == SignIn((Reason.SESSION_TOO_OLD,))
