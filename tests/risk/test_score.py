from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select, text

from gateway.core.clock import ManualClock
from gateway.core.decision import Score
from gateway.core.errors import ConfigError, StoreAway
from gateway.core.events import Event, Kind, Severity
from gateway.risk import score as module
from gateway.risk.failures import HALF_LIFE
from gateway.risk.score import Risk
from gateway.store.sql import Records
from gateway.store.tables import seen
from tests.rig.ledger import Remembered
from tests.risk.conftest import ABROAD, CHROME, FIREFOX, HOME, ann, at
from tests.risk.test_country import geoip


def fail(risk: Risk, times: int = 3, user: str = "ann") -> None:
    for _ in range(times):
        risk.observe(Event(Kind.SIGN_IN_FAILED, user=user))


async def test_the_first_sign_in_is_not_strange(risk: Risk) -> None:
    assert await risk.score(at(), ann("s1")) == Score(0.0)
    await risk.learn(at(), ann("s1"))
    assert (await risk.score(at(), ann("s1"))).value == 0.0


async def test_what_each_combination_comes_to(
    records: Records, clock: ManualClock, ledger: Remembered, tmp_path: Path
) -> None:
    risk = Risk(records, clock, ledger, geoip=geoip(tmp_path))
    await risk.learn(at(HOME, FIREFOX), ann("s1"))
    here = (await risk.score(at(HOME, FIREFOX), ann("s2"))).value
    agent = (await risk.score(at(HOME, CHROME), ann("s3"))).value
    journey = (await risk.score(at(ABROAD, FIREFOX), ann("s4"))).value
    strange = (await risk.score(at(ABROAD, CHROME), ann("s5"))).value
    fail(risk)
    attacked = (await risk.score(at(HOME, FIREFOX), ann("s2"))).value
    travelling = (await risk.score(at(ABROAD, FIREFOX), ann("s4"))).value
    attacker = (await risk.score(at(ABROAD, CHROME), ann("s5"))).value
    risk.close()
    assert here == 0.0
    assert agent == 0.45
    assert journey == pytest.approx(0.493)
    assert strange == pytest.approx(0.7211)
    assert attacked == pytest.approx(0.49)
    assert 0.5 <= travelling < 0.8
    assert attacker >= 0.8


async def test_without_a_country_the_thresholds_hold_as_well(risk: Risk) -> None:
    await risk.learn(at(), ann("s1"))
    assert 0.5 <= (await risk.score(at(ABROAD, CHROME), ann("s2"))).value < 0.8
    fail(risk)
    assert (await risk.score(at(ABROAD, CHROME), ann("s2"))).value >= 0.8


async def test_a_score_says_why(risk: Risk) -> None:
    await risk.learn(at(), ann("s1"))
    fail(risk)
    score = await risk.score(at(HOME, CHROME), ann("s2"))
    assert score.because == (("agent", 1.0, 0.45), ("network", 0.0, 0.35), ("failures", 1.0, 0.49))
    assert score.value == pytest.approx(1 - 0.55 * 0.51)


async def test_remembered_for_session_version_and_place(risk: Risk) -> None:
    assert risk.remembered(at(), ann("s1")) is None
    score = await risk.score(at(), ann("s1"))
    assert risk.remembered(at(), ann("s1")) is score
    assert risk.remembered(at(), ann("s1", version=2)) is None
    assert risk.remembered(at(agent=CHROME), ann("s1")) is None
    assert risk.remembered(at(ABROAD), ann("s1")) is None
    assert risk.remembered(at(), ann("s2")) is None
    risk.forget("s1")
    assert risk.remembered(at(), ann("s1")) is None


async def test_a_new_proof_teaches_and_the_old_score_goes(risk: Risk) -> None:
    await risk.learn(at(), ann("s1"))
    assert (await risk.score(at(ABROAD, CHROME), ann("s2"))).value > 0.5
    await risk.learn(at(ABROAD, CHROME), ann("s2", "password", "totp", version=2))
    assert risk.remembered(at(ABROAD, CHROME), ann("s2")) is None
    assert (await risk.score(at(ABROAD, CHROME), ann("s2", "password", "totp", version=2))).value == 0.0


async def test_a_guessed_password_teaches_nothing_in_a_strange_place(risk: Risk) -> None:
    await risk.learn(at(), ann("s1"))
    for session in ("s2", "s3", "s4"):
        assert (await risk.score(at(ABROAD, CHROME), ann(session))).value > 0.5
        await risk.learn(at(ABROAD, CHROME), ann(session))
        assert (await risk.score(at(ABROAD, CHROME), ann(session))).value > 0.5


async def test_who_has_shown_two_factors_is_not_taught_by_one(risk: Risk) -> None:
    await risk.learn(at(), ann("s1", "password", "totp"))
    for session in ("s2", "s3"):
        await risk.learn(at(HOME, CHROME), ann(session))
        assert (await risk.score(at(HOME, CHROME), ann(session))).value == 0.45


async def test_one_factor_teaches_later_sessions_of_those_who_have_no_other(risk: Risk) -> None:
    await risk.learn(at(), ann("s1"))
    await risk.learn(at(HOME, CHROME), ann("s2"))
    assert (await risk.score(at(HOME, CHROME), ann("s2"))).value == 0.45
    assert (await risk.score(at(HOME, CHROME), ann("s3"))).value == 0.0


async def test_users_and_tenants_do_not_share_a_history(risk: Risk) -> None:
    await risk.learn(at(), ann("s1"))
    assert (await risk.score(at(ABROAD, CHROME), ann("s2", subject="sub-bob", user="bob"))).because == ()


async def test_failures_are_felt_at_once_and_by_nobody_else(risk: Risk) -> None:
    bob = ann("s9", subject="sub-bob", user="bob")
    calm, other = await risk.score(at(), ann("s1")), await risk.score(at(), bob)
    assert calm.value == 0.0
    fail(risk, 1)
    assert risk.remembered(at(), ann("s1")) is None
    assert risk.remembered(at(), bob) is other
    assert (await risk.score(at(), ann("s1"))).value == pytest.approx(0.49 / 3, abs=1e-4)


async def test_a_score_with_failures_falls_again(risk: Risk, clock: ManualClock) -> None:
    fail(risk)
    first = await risk.score(at(), ann("s1"))
    clock.advance(59.0)
    assert risk.remembered(at(), ann("s1")) is first
    clock.advance(1.0)
    assert risk.remembered(at(), ann("s1")) is None
    clock.advance(HALF_LIFE)
    assert (await risk.score(at(), ann("s1"))).value < first.value
    clock.advance(20 * HALF_LIFE)
    calm = await risk.score(at(), ann("s1"))
    assert calm.value == 0.0
    clock.advance(1e6)
    assert risk.remembered(at(), ann("s1")) is calm


async def test_flagged_once(risk: Risk, ledger: Remembered) -> None:
    await risk.learn(at(), ann("s1"))
    for _ in range(3):
        await risk.score(at(ABROAD, CHROME), ann("s2"))
    await risk.score(at(HOME, CHROME), ann("s3"))
    assert [event.kind for event in ledger.events] == [Kind.RISK_FLAGGED]
    event = ledger.events[0]
    assert (event.user, event.session, event.address, event.severity) == ("ann", "s2", ABROAD, Severity.NOTICE)
    assert event.detail == {"score": 0.6425, "because": {"agent": 0.45, "network": 0.35}}
    fail(risk)
    await risk.score(at(ABROAD, CHROME), ann("s2"))
    assert [event.severity for event in ledger.events] == [Severity.NOTICE, Severity.WARNING]


async def test_learning_while_a_score_is_worked_out(risk: Risk) -> None:
    await risk.learn(at(), ann("s1"))
    second = ann("s2", "password", "totp")
    await asyncio.gather(
        risk.score(at(ABROAD, CHROME), second), risk.learn(at(ABROAD, CHROME), second), risk.score(at(), second)
    )
    assert (risk.remembered(at(ABROAD, CHROME), second) or Score(0.0)).value == 0.0
    assert (await risk.score(at(ABROAD, CHROME), second)).value == 0.0


async def test_learnt_things_survive_a_restart(records: Records, clock: ManualClock, ledger: Remembered) -> None:
    await Risk(records, clock, ledger).learn(at(), ann("s1"))
    assert (await Risk(records, clock, ledger).score(at(HOME, CHROME), ann("s2"))).value == 0.45


async def test_parallel_proofs_all_teach(risk: Risk, records: Records) -> None:
    await asyncio.gather(
        *(risk.learn(at(f"10.{number}.0.1"), ann(f"s{number}", "password", "totp")) for number in range(10))
    )
    async with records.read() as connection:
        history = await connection.scalar(select(seen.c.history))
    assert len(history["networks"]) == 10


async def test_memory_is_bounded(risk: Risk, monkeypatch: pytest.MonkeyPatch) -> None:
    risk._remembered.capacity = 50
    for number in range(200):
        await risk.score(at(), ann(f"s{number}", user=f"user-{number % 7}"))
    assert len(risk._remembered) <= 50
    assert sum(map(len, risk._of_account.values())) == len(risk._remembered)
    for number in range(40):
        await risk.score(at(agent=f"program-{number}/1"), ann("s199", user="user-3"))
    assert len(risk._remembered["s199"].places) == module.PLACES


async def test_without_the_store_there_is_no_score(risk: Risk, records: Records) -> None:
    async with records.begin() as connection:
        await connection.execute(text("DROP TABLE seen"))
    with pytest.raises(StoreAway):
        await risk.score(at(), ann("s1"))
    assert risk.remembered(at(), ann("s1")) is None


async def test_weights_are_the_operators(records: Records, clock: ManualClock, ledger: Remembered) -> None:
    risk = Risk(records, clock, ledger, weights={"agent": 0.0, "network": 1.0})
    await risk.learn(at(), ann("s1"))
    assert (await risk.score(at(HOME, CHROME), ann("s2"))).because == (("network", 0.0, 1.0),)
    assert (await risk.score(at(ABROAD), ann("s2"))).value == 1.0


@pytest.mark.parametrize("weights", [{"moon": 0.5}, {"agent": 1.5}, {"agent": -0.1}, {"agent": float("nan")}])
async def test_weights_that_are_none(
    records: Records, clock: ManualClock, ledger: Remembered, weights: dict[str, float]
) -> None:
    with pytest.raises(ConfigError, match=r"risk\.weights"):
        Risk(records, clock, ledger, weights=weights)
