"""Rules that count only a key whose device made sure who its user is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.decision import Allow, Decision, Score, SignIn, StepUp
from gateway.core.errors import Problem
from gateway.core.identity import TRUSTED_DEVICE, Identity, Level, Proof, amr_of, level_of, proof_as_kept, proof_from
from gateway.core.reasons import Reason
from gateway.core.rule import RiskThresholds, Rule, StepUpDemand
from gateway.policy.decide import RISK_MAX_AGE, decide
from gateway.policy.examples import identity_of
from gateway.policy.schema import As
from tests.policy.conftest import NOW, MakeBook, facts, somebody

FACTORS = ["totp", "webauthn", "backup_code"]
DAY = 86400.0
WANTED = StepUpDemand(Level.AAL2, frozenset({"webauthn"}), verified=True)
BARE = StepUpDemand(Level.AAL2, verified=True)
"""As nothing of ours makes it; it has to mean the same."""


def text(step_up: str, access: str = "authenticated") -> str:
    return f"rules:\n  - name: r\n    access: {access}\n    step_up: {step_up}\n    upstream: app\n"


def showing(*proofs: Proof) -> Identity:
    shown = (Proof("password", NOW), *proofs)
    identity = somebody("bob")
    assert identity.session is not None
    session = replace(identity.session, proofs=shown)
    return replace(identity, session=session, level=level_of(shown), amr=amr_of(shown))


def key(*, verified: bool = True, ago: float = 0.0, kind: str = "hwk") -> Proof:
    return Proof("webauthn", NOW - ago, kind, verified)


def judged(demand: StepUpDemand, identity: Identity | None, risk: Score = Score(0.0), **more: Any) -> Decision:  # noqa: B008
    rule = Rule("r", "p.yaml:1", public=False, admits=lambda one: True, step_up=demand, risk=RiskThresholds(**more))
    return decide(rule, facts(), identity, risk, NOW)


# -- what a rule says -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step_up", "demand"),
    [
        ("{user_verification: required}", WANTED),
        ("{level: aal2, user_verification: required, factors: [webauthn]}", WANTED),
        (
            "{level: aal3, user_verification: required, max_age: 15m}",
            StepUpDemand(Level.AAL3, frozenset({"webauthn"}), 900.0, verified=True),
        ),
        ("{user_verification: required, trusted_devices: forbid}", WANTED),
        ("{factors: [webauthn]}", StepUpDemand(Level.AAL2, frozenset({"webauthn"}))),
        ("{level: aal3}", StepUpDemand(Level.AAL3)),
    ],
)
def test_what_a_rule_asks(book: MakeBook, step_up: str, demand: StepUpDemand) -> None:
    """Trusted devices are configured, and stand in for no key that knew its user."""
    made = book(text(step_up), factors=FACTORS, trusted=30 * DAY)
    assert made.rules[0].step_up == demand
    assert made.warnings == ()


def test_administrators_rules_ask_for_it_too(book: MakeBook) -> None:
    made = book(text("{user_verification: required}", "{groups: [admins]}"), factors=FACTORS)
    assert made.rules[0].step_up == WANTED


def test_factors_that_cannot_know_their_user_do_not_count_and_that_is_told(book: MakeBook) -> None:
    made = book(text("{factors: [totp, webauthn], user_verification: required}"), factors=FACTORS)
    assert made.rules[0].step_up == WANTED
    assert [(one.message, one.line) for one in made.warnings] == [
        ("`totp` does not know its user, so it does not count here", 4)
    ]


MISTAKES: dict[str, tuple[str, list[str], list[str]]] = {
    "a word that is none": (
        "{user_verification: preferred}", FACTORS, ["user_verification` cannot be `preferred`"],
    ),
    "a truth value": ("{user_verification: true}", FACTORS, ["user_verification"]),
    "no keys here": (
        "{user_verification: required}", ["totp"], ["only a key knows its user, and `webauthn` is not configured"],
    ),
    "no factors at all": (
        "{user_verification: required}", [], ["only a key knows its user, and `webauthn` is not configured"],
    ),
    "no keys here, and aal3": (
        "{level: aal3, user_verification: required}", ["totp"],
        ["only a key knows its user, and `webauthn` is not configured"],
    ),
    "no keys here, and another factor named": (
        "{factors: [totp, webauthn], user_verification: required}", ["totp"],
        ["only a key knows its user, and `webauthn` is not configured"],
    ),
    "factors without it": (
        "{factors: [totp], user_verification: required}", FACTORS,
        ["only a key knows its user, and the rule's factors leave `webauthn` out"],
    ),
    "factors without it, one mistyped": (
        "{factors: [totpp], user_verification: required}", FACTORS,
        ["only a key knows its user, and the rule's factors leave `webauthn` out", "`totpp` is not a factor"],
    ),
    "aal1": (
        "{level: aal1, user_verification: required}", FACTORS,
        ["a key that knew its user makes aal2 with the password, and the rule asks for aal1"],
    ),
    "a trusted device instead": (
        "{trusted_devices: allow, user_verification: required}", FACTORS,
        ["a trusted device does not know who uses it"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_makes_no_sense_is_told_with_its_place(problems: Callable[..., list[Problem]], name: str) -> None:
    step_up, factors, told = MISTAKES[name]
    found = problems(text(step_up), factors=factors, trusted=30 * DAY)
    assert [any(part in str(one) for one in found) for part in told] == [True] * len(told)
    assert len(found) == len(told)
    assert {one.line for one in found} == {4}


# -- what it lets through ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("demand", [WANTED, BARE])
@pytest.mark.parametrize(
    ("proofs", "reason"),
    [
        ((key(),), None),
        ((key(kind="swk"),), None),
        ((key(ago=30 * DAY),), None),
        ((key(kind="swk"), Proof("totp", NOW)), None),
        ((), Reason.LEVEL_TOO_LOW),
        ((Proof(TRUSTED_DEVICE, NOW),), Reason.LEVEL_TOO_LOW),
        ((key(verified=False),), Reason.FACTOR_NOT_ACCEPTED),
        ((key(verified=False, kind="swk"),), Reason.FACTOR_NOT_ACCEPTED),
        ((Proof("webauthn", NOW),), Reason.FACTOR_NOT_ACCEPTED),  # set up, but never asked
        ((Proof("totp", NOW),), Reason.FACTOR_NOT_ACCEPTED),
        ((Proof("sms", NOW), Proof("email", NOW), Proof("backup_code", NOW)), Reason.FACTOR_NOT_ACCEPTED),
        ((Proof("totp", NOW), Proof(TRUSTED_DEVICE, NOW)), Reason.FACTOR_NOT_ACCEPTED),
    ],
)
def test_only_a_key_that_knew_its_user_counts(
    demand: StepUpDemand, proofs: tuple[Proof, ...], reason: Reason | None
) -> None:
    answer = judged(demand, showing(*proofs))
    assert answer == (Allow((Reason.GRANTED,)) if reason is None else StepUp((reason,), demand))


def test_a_browser_that_is_trusted_does_not_stand_in_whatever_the_demand_says() -> None:
    demand = StepUpDemand(Level.AAL2, trusted=30 * DAY, verified=True)
    assert judged(demand, showing(Proof(TRUSTED_DEVICE, NOW))) == StepUp((Reason.LEVEL_TOO_LOW,), demand)


def test_its_own_age_counts_and_no_fresher_proof_stands_in_for_it() -> None:
    demand = StepUpDemand(Level.AAL2, frozenset({"webauthn"}), 600.0, verified=True)
    assert judged(demand, showing(key(ago=600))) == Allow((Reason.GRANTED,))
    stale = StepUp((Reason.PROOF_TOO_OLD,), demand)
    assert judged(demand, showing(key(ago=601), Proof("totp", NOW))) == stale
    assert judged(demand, showing(key(ago=-61))) == stale  # a clock was set back


def test_with_aal3_the_key_also_has_to_stay_in_its_device() -> None:
    demand = StepUpDemand(Level.AAL3, frozenset({"webauthn"}), verified=True)
    assert judged(demand, showing(key())) == Allow((Reason.GRANTED,))
    assert judged(demand, showing(key(kind="swk"))) == StepUp((Reason.LEVEL_TOO_LOW,), demand)


def test_nobody_is_told_what_will_be_asked_and_programs_have_no_key() -> None:
    assert judged(WANTED, None) == SignIn((Reason.NO_SESSION,), WANTED)
    machine = somebody("robot", session=None, level=Level.AAL2, auth_time=NOW)
    for demand in (WANTED, BARE):
        assert judged(demand, machine) == StepUp((Reason.FACTOR_NOT_ACCEPTED,), demand)


def test_against_risk_it_is_asked_for_as_well() -> None:
    """What a strange request has to show is what the rule asks, and recently: never less."""
    asked = StepUpDemand(Level.AAL2, frozenset({"webauthn"}), RISK_MAX_AGE, verified=True)
    for shown in (showing(Proof("totp", NOW)), showing(key(verified=False)), showing(key(ago=RISK_MAX_AGE + 1))):
        answer = judged(WANTED, shown, Score(0.6), step_up_at=0.5)
        assert isinstance(answer, StepUp)
        assert (answer.reasons[-1], answer.demand) == (Reason.RISK_STEP_UP, asked)
    assert judged(WANTED, showing(key()), Score(0.6), step_up_at=0.5) == Allow((Reason.GRANTED,))


@st.composite
def proofs(draw: st.DrawFn) -> tuple[Proof, ...]:
    names = draw(st.sets(st.sampled_from(["totp", "sms", "email", "backup_code", TRUSTED_DEVICE])))
    made = [Proof(name, NOW - draw(st.sampled_from([0.0, 59.0, 61.0]))) for name in sorted(names)]
    if draw(st.booleans()):
        kind = draw(st.sampled_from(["hwk", "swk"]))
        made.append(key(verified=draw(st.booleans()), ago=draw(st.sampled_from([0.0, 59.0, 61.0])), kind=kind))
    return tuple(made)


@given(
    proofs(),
    st.sampled_from(list(Level)),
    st.sampled_from([frozenset(), frozenset({"webauthn"}), frozenset({"totp", "webauthn"}), frozenset({"totp"})]),
    st.sampled_from([None, 60.0]),
    st.sampled_from([0.0, DAY]),
    st.sampled_from([0.0, 0.6]),
)
def test_asking_for_it_never_lets_in_whom_the_same_rule_without_it_would_not(
    shown: tuple[Proof, ...], level: Level, factors: frozenset[str], max_age: float | None, trusted: float, risk: float
) -> None:
    """And nobody at all without such a proof that is young enough; whatever else they show."""
    with_it = StepUpDemand(level, factors, max_age, trusted, verified=True)
    without = StepUpDemand(level, factors, max_age, trusted)
    who, score = showing(*shown), Score(risk)
    if isinstance(judged(with_it, who, score, step_up_at=0.5), Allow):
        assert isinstance(judged(without, who, score, step_up_at=0.5), Allow)
        good = [one for one in shown if one.verified and (max_age is None or NOW - one.at <= max_age)]
        assert [one.factor for one in good] == ["webauthn"]
        assert with_it.counts("webauthn")


@pytest.mark.parametrize("factors", [frozenset(), frozenset({"webauthn"}), frozenset({"totp", "webauthn"})])
def test_what_a_demand_counts(factors: frozenset[str]) -> None:
    demand = StepUpDemand(Level.AAL2, factors, verified=True)
    others = ["totp", "sms", "email", "backup_code", "password", TRUSTED_DEVICE, ""]
    assert (demand.counts("webauthn"), [demand.counts(one) for one in others]) == (True, [False] * len(others))
    assert not StepUpDemand(Level.AAL2, frozenset({"totp"}), verified=True).counts("webauthn")
    plain = StepUpDemand(Level.AAL2, factors)
    assert [plain.counts(one) for one in ("webauthn", "totp")] == [True, not factors or "totp" in factors]


def test_a_proof_is_known_to_be_verified_only_where_that_was_kept() -> None:
    for verified, kind in product((True, False), ("hwk", "swk")):
        assert proof_from(proof_as_kept(key(verified=verified, kind=kind))).verified is verified
    assert not proof_from(["webauthn", NOW, "hwk", 1]).verified
    assert not proof_from(["webauthn", NOW]).verified


# -- examples ---------------------------------------------------------------------------------------------------------

EXAMPLES = """\
rules:
  - name: payments
    access: authenticated
    step_up: {user_verification: required}
    upstream: app
examples:
  - {request: GET /, expect: sign_in}
  - {request: GET /, as: {user: bob}, expect: step_up}
  - {request: GET /, as: {user: bob, factors: [totp]}, expect: step_up}
  - {request: GET /, as: {user: bob, level: aal2}, expect: step_up}
  - {request: GET /, as: {user: bob, factors: [webauthn]}, expect: step_up}
  - {request: GET /, as: {user: bob, factors: [webauthn], verified: false}, expect: step_up}
  - {request: GET /, as: {user: bob, factors: [webauthn], verified: true}, expect: allow}
  - {request: GET /, as: {user: bob, factors: [webauthn, totp], level: aal2, verified: true}, expect: allow}
  - {request: GET /, as: {user: bob, verified: true}, expect: allow}
  - {request: GET /, as: {user: bob, level: aal3}, expect: allow}
"""


def test_examples_say_whether_a_key_knew_its_user(book: MakeBook) -> None:
    assert len(book(EXAMPLES, factors=FACTORS).rules) == 1


def who(**said: Any) -> As:
    return As.model_validate({"user": "ann", **said})


@pytest.mark.parametrize(
    ("said", "level", "proof"),
    [
        ({"verified": True}, Level.AAL2, Proof("webauthn", NOW, "swk", True)),
        ({"verified": True, "level": "aal2"}, Level.AAL2, Proof("webauthn", NOW, "swk", True)),
        ({"verified": True, "level": "aal3"}, Level.AAL3, Proof("webauthn", NOW, "hwk", True)),
        ({"factors": ["webauthn"], "level": "aal3"}, Level.AAL3, Proof("webauthn", NOW, "hwk", True)),
        ({"factors": ["webauthn"]}, Level.AAL2, Proof("webauthn", NOW)),
        ({"verified": False, "level": "aal2"}, Level.AAL2, Proof("totp", NOW)),
    ],
)
def test_what_was_shown(said: dict[str, Any], level: Level, proof: Proof) -> None:
    identity = identity_of(who(**said), FACTORS, NOW)
    assert identity.session is not None
    assert (identity.level, identity.session.proofs) == (level, (Proof("password", NOW), proof))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"verified": True, "factors": ["totp"]}, "only a key can have verified its user"),
        ({"verified": True, "factors": []}, "only a key can have verified its user"),
        ({"verified": False, "level": "aal3"}, "no key reaches aal3 that has not verified its user"),
        ({"verified": True, "level": "aal1"}, "these factors reach aal2, not aal1"),
    ],
)
def test_what_cannot_have_been(said: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        identity_of(who(**said), FACTORS, NOW)
