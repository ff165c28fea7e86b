from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits import token_bucket
from gateway.limits.gcra import step
from tests.limits.test_token_bucket import arrivals, seconds


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rate=st.integers(1, 10_000),
    window=st.sampled_from([1.0, 7.0, 60.0, 3600.0, 86400.0]),
    burst=st.integers(1, 500),
)
def test_lets_through_what_the_token_bucket_lets_through(seed: int, rate: int, window: float, burst: int) -> None:
    one, other = None, None
    for moment in arrivals(seed, window / rate, 2_000):
        one, *said = step(one, seconds(moment), rate, window, burst)
        other, *expected = token_bucket.step(other, seconds(moment), rate, window, burst)
        assert said == expected


def test_remembers_one_moment_to_the_part_of_a_microsecond() -> None:
    """Three a second: each moves it on by 333,333 and a third microseconds, and three by exactly one second."""
    state = None
    seen = []
    for _ in range(3):
        state = step(state, 10.0, 3, 1.0, 3)[0]
        seen.append(state)
    assert seen == [(10_333_333, 1), (10_666_666, 2), (11_000_000, 0)]


def test_a_burst_then_one_as_each_is_refilled() -> None:
    state, outcomes = None, []
    for _ in range(4):
        state, allowed, remaining, reset, retry_after = step(state, 100.0, 30, 60.0, 3)
        outcomes.append((allowed, remaining, reset, retry_after))
    assert outcomes == [(True, 2, 2.0, 0.0), (True, 1, 4.0, 0.0), (True, 0, 6.0, 2.0), (False, 0, 6.0, 2.0)]
    assert step(state, 101.9, 30, 60.0, 3)[1] is False
    assert step(state, 102.0, 30, 60.0, 3)[1] is True


def test_a_refusal_changes_nothing() -> None:
    state = step(None, 5.0, 7, 60.0, 1)[0]
    for later in (5.0, 6.0, 13.5):
        after, allowed, *_ = step(state, later, 7, 60.0, 1)
        assert (after, allowed) == (state, False)


def test_a_clock_set_back_grants_nothing_and_blocks_for_no_longer_than_one_request_takes() -> None:
    """Case 118."""
    state = None
    for _ in range(10):
        state, allowed, *_ = step(state, 10_000.0, 10, 60.0, 10)
        assert allowed
    state, allowed, remaining, _, retry_after = step(state, 1_000.0, 10, 60.0, 10)
    assert (allowed, remaining, retry_after) == (False, 0, 6.0)
    granted = 0
    for second in range(60):
        state, allowed, *_ = step(state, 1_001.0 + second, 10, 60.0, 10)
        granted += allowed
    assert granted == 10
