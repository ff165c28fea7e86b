from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.rule import Adaptation
from gateway.limits.adapt import scaled, share
from tests.limits.conftest import limit

CALM = {"risk": 0.0, "known_device": True, "latency": 0.0}


@pytest.mark.parametrize(
    ("score", "left"), [(0.0, 1.0), (0.4, 1.0), (0.55, 0.8), (0.7, 0.6), (0.85, 0.4), (1.0, 0.2), (1.5, 0.2)]
)
def test_it_shrinks_evenly_with_the_risk(score: float, left: float) -> None:
    assert share(Adaptation(risk=0.4, least=0.2), score, True, 0.0) == pytest.approx(left)


def test_an_unknown_device_has_the_share_that_is_named() -> None:
    adaptation = Adaptation(unknown_device=0.5)
    assert share(adaptation, 0.9, True, 9.0) == 1.0
    assert share(adaptation, 0.0, False, 0.0) == 0.5


@pytest.mark.parametrize(("seconds", "left"), [(0.0, 1.0), (0.5, 1.0), (1.0, 0.5), (2.0, 0.25), (60.0, 0.1)])
def test_a_slow_service_is_asked_less_often(seconds: float, left: float) -> None:
    assert share(Adaptation(latency=0.5), 0.0, True, seconds) == left


def test_the_smallest_share_counts_and_never_less_than_the_least() -> None:
    every = Adaptation(risk=0.5, unknown_device=0.5, latency=1.0, least=0.2)
    assert share(every, 0.0, False, 4.0) == 0.25
    assert share(every, 0.0, False, 1.5) == 0.5
    assert share(every, 1.0, False, 1.5) == 0.2
    assert share(every, 0.0, True, 99.0) == 0.2


@given(
    st.floats(0, 0.99),
    st.floats(0.01, 1),
    st.floats(0.01, 10),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.booleans(),
    st.floats(0, 100),
)
def test_a_share_is_always_between_the_least_and_the_whole(
    risk: float, unknown: float, latency: float, least: float, score: float, known: bool, seconds: float
) -> None:
    left = share(Adaptation(risk, max(unknown, least), latency, least), score, known, seconds)
    assert least <= left <= 1.0


def test_one_request_is_always_left() -> None:
    assert scaled(limit(rate=100, burst=20), 0.25) == (25, 5)
    assert scaled(limit(rate=3, burst=1), 0.1) == (1, 1)
    assert scaled(limit(rate=7, burst=7), 1.0) == (7, 7)
