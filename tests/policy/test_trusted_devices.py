"""Which rules a trusted browser may stand in for the second factor of, and what it never answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.decision import Allow, Score, StepUp
from gateway.core.errors import ConfigError
from gateway.core.facts import Facts
from gateway.core.identity import TRUSTED_DEVICE, Identity, Level, Proof, Session, amr_of, level_of
from gateway.core.reasons import Reason
from gateway.core.rule import Rule
from gateway.policy.book import Book
from gateway.policy.decide import decide
from gateway.policy.load import load

DAY = 86400.0
NOW = 1_700_000_000.0


def book_of(folder: Path, step_up: str, *, access: str = "authenticated", more: str = "", days: float = 30) -> Book:
    (folder / "app.yaml").write_text(f"rules:\n  - {{name: one, access: {access}, upstream: app, {step_up}{more}}}\n")
    return load(folder, upstreams=["app"], factors=["totp", "webauthn"], admin_groups=["admins"], trusted=days * DAY)


def rule_of(folder: Path, step_up: str, **about: object) -> Rule:
    [entry] = book_of(folder, step_up, **about).entries  # type: ignore[arg-type]
    return entry.rule


def somebody(*proofs: Proof) -> Identity:
    session = Session("s", 1, NOW, NOW + DAY, NOW, proofs, "192.0.2.1", "test")
    return Identity(
        "default",
        "s-ann",
        "ann",
        groups=frozenset({"admins"}),
        session=session,
        level=level_of(proofs),
        amr=amr_of(proofs),
        auth_time=max(proof.at for proof in proofs),
    )


def trusting(ago: float = DAY) -> Identity:
    return somebody(Proof("password", NOW), Proof(TRUSTED_DEVICE, NOW - ago))


FACTS = Facts(method="GET", host="app", port=0, path="/", query="", scheme="http", target=b"/", address="", network="")


@pytest.mark.parametrize(
    ("step_up", "days"),
    [
        ("step_up: {level: aal2}", 30.0),
        ("step_up: {trusted_devices: allow}", 30.0),
        ("step_up: {level: aal2, trusted_devices: allow, max_age: 7d}", 7.0),
        ("step_up: {level: aal2, trusted_devices: allow, max_age: 90d}", 30.0),
        ("step_up: {level: aal2, trusted_devices: forbid}", 0.0),
        ("step_up: {level: aal2, max_age: 10m}", 0.0),
        ("step_up: {level: aal2, factors: [totp]}", 0.0),
        ("step_up: {level: aal3}", 0.0),
        ("step_up: {level: aal1, max_age: 1h}", 0.0),
    ],
)
def test_for_how_long(tmp_path: Path, step_up: str, days: float) -> None:
    demand = rule_of(tmp_path, step_up).step_up
    assert demand is not None
    assert demand.trusted == days * DAY


def test_where_nobody_can_trust_anything(tmp_path: Path) -> None:
    demand = rule_of(tmp_path, "step_up: {level: aal2}", days=0).step_up
    assert demand is not None
    assert demand.trusted == 0.0
    book = book_of(tmp_path, "step_up: {trusted_devices: allow}", days=0)
    assert [warning.message for warning in book.warnings] == ["no device can be trusted"]


@pytest.mark.parametrize("step_up", ["", "step_up: {level: aal2}", "step_up: {level: aal1}"])
def test_never_for_administrators_rules(tmp_path: Path, step_up: str) -> None:
    demand = rule_of(tmp_path, step_up, access="{groups: [admins]}").step_up
    assert demand is not None
    assert (demand.level, demand.trusted) == (Level.AAL2, 0.0)


@pytest.mark.parametrize(
    ("step_up", "access", "told"),
    [
        ("step_up: {trusted_devices: allow}", "{groups: [admins]}", "only administrators come in here"),
        ("step_up: {level: aal3, trusted_devices: allow}", "authenticated", "stands in for aal2 only"),
        ("step_up: {level: aal1, trusted_devices: allow}", "authenticated", "stands in for aal2 only"),
        ("step_up: {factors: [totp], trusted_devices: allow}", "authenticated", "names its factors"),
        ("step_up: {trusted_devices: yes-please}", "authenticated", "trusted_devices"),
    ],
)
def test_what_makes_no_sense_is_told(tmp_path: Path, step_up: str, access: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        book_of(tmp_path, step_up, access=access)


def test_it_stands_in_and_raises_nothing(tmp_path: Path) -> None:
    rule, identity = rule_of(tmp_path, "step_up: {level: aal2}"), trusting()
    assert isinstance(decide(rule, FACTS, identity, Score(0.0), NOW), Allow)
    assert (identity.level, identity.amr, identity.auth_time) == (Level.AAL1, ("pwd",), NOW)


@pytest.mark.parametrize(("ago", "allowed"), [(30 * DAY, True), (30 * DAY + 1, False), (-60, True), (-61, False)])
def test_until_it_is_over(tmp_path: Path, ago: float, *, allowed: bool) -> None:
    """Also in the middle of a session."""
    rule = rule_of(tmp_path, "step_up: {level: aal2}")
    assert isinstance(decide(rule, FACTS, trusting(ago), Score(0.0), NOW), Allow) is allowed


@pytest.mark.parametrize(
    "step_up",
    [
        "step_up: {level: aal2, trusted_devices: forbid}",
        "step_up: {level: aal2, max_age: 10m}",
        "step_up: {level: aal2, factors: [totp]}",
        "step_up: {level: aal3}",
    ],
)
def test_where_it_does_not(tmp_path: Path, step_up: str) -> None:
    decision = decide(rule_of(tmp_path, step_up), FACTS, trusting(60), Score(0.0), NOW)
    assert isinstance(decision, StepUp)
    assert decision.reasons == (Reason.LEVEL_TOO_LOW,)


def test_alone_it_is_nothing(tmp_path: Path) -> None:
    rule, identity = rule_of(tmp_path, "step_up: {level: aal2}"), somebody(Proof(TRUSTED_DEVICE, NOW))
    assert (identity.level, identity.amr) == (Level.NONE, ())
    assert isinstance(decide(rule, FACTS, identity, Score(0.0), NOW), StepUp)


@pytest.mark.parametrize("step_up", ["step_up: {level: aal2}", ""])
def test_it_says_nothing_against_risk(tmp_path: Path, step_up: str) -> None:
    rule = rule_of(tmp_path, step_up, more=f"{', ' if step_up else ''}risk: {{step_up_at: 0.5}}")
    decision = decide(rule, FACTS, trusting(60), Score(0.5), NOW)
    assert isinstance(decision, StepUp)
    assert (decision.reasons, decision.demand.trusted) == ((Reason.RISK_STEP_UP,), 0.0)
    assert isinstance(decide(rule, FACTS, trusting(60), Score(0.4), NOW), Allow)


def test_it_freshens_nothing(tmp_path: Path) -> None:
    """A rule that wants a recent proof does not take the moment of trusting for one."""
    old = somebody(Proof("password", NOW - 7200), Proof(TRUSTED_DEVICE, NOW))
    decision = decide(rule_of(tmp_path, "step_up: {level: aal1, max_age: 1h}"), FACTS, old, Score(0.0), NOW)
    assert isinstance(decision, StepUp)
    shown = somebody(Proof("password", NOW), Proof("totp", NOW - 7200), Proof(TRUSTED_DEVICE, NOW))
    decision = decide(rule_of(tmp_path, "step_up: {level: aal2, max_age: 1h}"), FACTS, shown, Score(0.0), NOW)
    assert isinstance(decision, StepUp)
    assert decision.reasons == (Reason.PROOF_TOO_OLD,)
