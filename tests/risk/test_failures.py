from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.clock import ManualClock
from gateway.core.events import Event, Kind
from gateway.mfa import stepup
from gateway.risk import failures
from gateway.risk.failures import HALF_LIFE, FailuresSignal
from tests.risk.conftest import ann, at


def failed(user: str = "ann", kind: Kind = Kind.SIGN_IN_FAILED, tenant: str = "default") -> Event:
    return Event(kind, user=user, tenant=tenant)


def test_rises_and_decays() -> None:
    clock = ManualClock()
    signal = FailuresSignal(clock)
    assert signal.weigh(at(), ann(), {}) is None
    values = []
    for _ in range(4):
        assert signal.observe(failed())
        values.append(signal.weigh(at(), ann(), {}))
    assert values == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0, 1.0]
    clock.advance(HALF_LIFE)
    assert signal.weigh(at(), ann(), {}) == pytest.approx(2 / 3)
    clock.advance(10 * HALF_LIFE)
    assert signal.weigh(at(), ann(), {}) is None


def test_setting_the_clock_neither_clears_nor_raises() -> None:
    clock = ManualClock()
    signal = FailuresSignal(clock)
    signal.observe(failed())
    clock.jump(-86400.0)
    clock.jump(200000.0)
    assert signal.count("default", "ann") == 1.0


def test_an_answer_that_came_too_late_is_no_guess() -> None:
    signal = FailuresSignal(ManualClock())
    late = Event(Kind.STEP_UP_FAILED, user="ann", detail={"factor": "other", "outcome": stepup.GONE})
    assert not signal.observe(late)
    assert signal.observe(replace(late, detail={"factor": "totp", "outcome": "ERR-MFA-INVALID"}))
    assert signal.count("default", "ann") == 1.0


def test_only_failures_of_that_account_count() -> None:
    signal = FailuresSignal(ManualClock())
    assert not signal.observe(failed(kind=Kind.SIGN_IN))
    assert not signal.observe(failed(user=""))
    assert signal.observe(failed(user="bob"))
    assert signal.observe(failed(tenant="other"))
    assert signal.observe(failed(kind=Kind.STEP_UP_FAILED))
    assert signal.count("default", "ann") == 1.0


def test_bounded_and_the_quiet_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "ACCOUNTS", 100)
    signal = FailuresSignal(ManualClock())
    for number in range(1000):
        signal.observe(failed())
        signal.observe(failed(user=f"nobody-{number}"))
    assert len(signal._counts) <= 100
    assert signal.count("default", "ann") == 1000.0
