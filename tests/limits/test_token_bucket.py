from __future__ import annotations

import random
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits.token_bucket import step

MICRO = 1_000_000


def arrivals(seed: int, mean: float, count: int) -> list[int]:
    """Random moments in microseconds: bursts, gaps, and steady stretches."""
    dice = random.Random(seed)
    moment, moments = dice.randrange(10**12), []
    while len(moments) < count:
        gap = dice.choice([0, 0, mean / 10, mean, mean, 8 * mean])
        for _ in range(dice.randrange(1, 30)):
            moment += int(dice.expovariate(1 / gap) * MICRO) if gap else dice.randrange(3)
            moments.append(moment)
    return moments[:count]


def seconds(moment: int) -> float:
    return moment / MICRO


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rate=st.integers(1, 10_000),
    window=st.sampled_from([1.0, 7.0, 60.0, 3600.0, 86400.0]),
    burst=st.integers(1, 500),
)
def test_at_most_burst_and_what_was_refilled_in_any_stretch(seed: int, rate: int, window: float, burst: int) -> None:
    cost = int(window) * MICRO
    state, admitted, lowest = None, 0, None
    for moment in arrivals(seed, window / rate, 5_000):  # 200,000 in all
        state, allowed, *_ = step(state, seconds(moment), rate, window, burst)
        if allowed:
            # For every earlier one i: (j - i + 1) * cost <= burst * cost + rate * (t_j - t_i), in whole numbers.
            level = admitted * cost - rate * moment
            lowest = level if lowest is None else min(lowest, level)
            assert level - lowest <= (burst - 1) * cost
            admitted += 1
    assert admitted >= burst


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), rate=st.integers(1, 1000), burst=st.integers(1, 200))
def test_agrees_with_the_textbook_in_fractions(seed: int, rate: int, burst: int) -> None:
    state = None
    tokens, last = Fraction(burst), None
    for moment in arrivals(seed, 60 / rate, 400):
        if last is not None:
            tokens = min(Fraction(burst), tokens + Fraction((moment - last) * rate, 60 * MICRO))
        last = moment
        state, allowed, remaining, reset, retry_after = step(state, seconds(moment), rate, 60.0, burst)
        assert allowed is (tokens >= 1)
        if allowed:
            tokens -= 1
        assert remaining == int(tokens)
        assert abs(reset - float((burst - tokens) * 60 / rate)) < 1e-6
        assert abs(retry_after - float(max(Fraction(0), (1 - tokens) * 60 / rate))) < 1e-6


def test_a_burst_then_one_as_each_is_refilled() -> None:
    state, outcomes = None, []
    for _ in range(4):
        state, allowed, remaining, reset, retry_after = step(state, 100.0, 30, 60.0, 3)
        outcomes.append((allowed, remaining, reset, retry_after))
    assert outcomes == [(True, 2, 2.0, 0.0), (True, 1, 4.0, 0.0), (True, 0, 6.0, 2.0), (False, 0, 6.0, 2.0)]
    assert step(state, 101.9, 30, 60.0, 3)[1] is False
    assert step(state, 102.0, 30, 60.0, 3)[1] is True


def test_what_a_refusal_promises_holds() -> None:
    state, allowed = step(None, 5.0, 7, 60.0, 1)[:2]
    assert allowed
    state, allowed, _, _, retry_after = step(state, 6.0, 7, 60.0, 1)
    assert not allowed
    assert step(state, 6.0 + retry_after - 0.001, 7, 60.0, 1)[1] is False
    assert step(state, 6.0 + retry_after + 0.001, 7, 60.0, 1)[1] is True


def test_a_clock_set_back_grants_nothing_and_blocks_for_no_longer_than_one_request_takes() -> None:
    """Case 118."""
    state = None
    for _ in range(10):
        state, allowed, *_ = step(state, 10_000.0, 10, 60.0, 10)
        assert allowed
    state, allowed, remaining, _, retry_after = step(state, 1_000.0, 10, 60.0, 10)
    assert (allowed, remaining) == (False, 0)
    assert retry_after == 6.0
    granted = 0
    for second in range(60):
        state, allowed, *_ = step(state, 1_001.0 + second, 10, 60.0, 10)
        granted += allowed
    assert granted == 10
