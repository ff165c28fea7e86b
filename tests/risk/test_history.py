from __future__ import annotations

from gateway.risk.history import MOST, best_level, known, teach
from tests.risk.conftest import ann


def test_a_session_does_not_vouch_for_itself() -> None:
    history: dict = {}
    teach(history, "agents", "a", ann("s1"), 1.0)
    assert known(history, "agents", ann("s1")) == {}
    assert set(known(history, "agents", ann("s2"))) == {"a"}
    teach(history, "agents", "a", ann("s2"), 2.0)
    assert set(known(history, "agents", ann("s1"))) == {"a"}
    assert set(known(history, "agents", ann("s2"))) == {"a"}


def test_two_factors_vouch_and_are_not_forgotten_by_one() -> None:
    history: dict = {}
    teach(history, "agents", "a", ann("s1", "password", "totp"), 1.0)
    assert set(known(history, "agents", ann("s1"))) == {"a"}
    teach(history, "agents", "a", ann("s1"), 2.0)
    assert best_level(history) == 2
    assert set(known(history, "agents", ann("s1"))) == {"a"}


def test_the_last_ones_are_kept() -> None:
    history: dict = {}
    for number in range(MOST):
        teach(history, "networks", f"n{number}", ann("s1"), float(number))
    teach(history, "networks", "n0", ann("s1"), 100.0)
    teach(history, "networks", "new", ann("s1"), 101.0)
    kept = set(known(history, "networks", ann("s2")))
    assert len(kept) == MOST
    assert {"n0", "new"} <= kept
    assert "n1" not in kept
