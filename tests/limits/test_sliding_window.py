from __future__ import annotations

from bisect import bisect_right

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.limits.sliding_window import CELLS, step
from tests.limits.test_token_bucket import MICRO, arrivals, seconds


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rate=st.integers(1, 3_000),
    window=st.sampled_from([1.0, 7.0, 60.0, 3600.0]),
)
def test_never_more_than_the_rate_in_any_window_and_nobody_is_held_long(seed: int, rate: int, window: float) -> None:
    length = int(window) * MICRO
    # With up to CELLS a window it is the exact log; above, one may be counted a sixteenth of a window too long.
    slack = 0 if rate <= CELLS else length / CELLS
    state, admitted = None, []
    for moment in arrivals(seed, window / rate, 5_000):  # 200,000 in all
        state, allowed, remaining, _, _ = step(state, seconds(moment), rate, window, rate)
        assert len(state) <= 2 + 2 * (CELLS + 1)
        if allowed:
            if len(admitted) >= rate:
                assert moment - admitted[-rate] >= length
            admitted.append(moment)
            assert 0 <= remaining <= rate - 1
        else:
            assert len(admitted) - bisect_right(admitted, moment - length - slack) >= rate
    assert len(admitted) >= min(rate, 5_000)


def test_the_edge_of_a_fixed_window_buys_nothing() -> None:
    state = None
    for _ in range(10):
        state, allowed, *_ = step(state, 59.9, 10, 60.0, 10)
        assert allowed
    state, allowed, remaining, reset, retry_after = step(state, 60.1, 10, 60.0, 10)
    assert (allowed, remaining) == (False, 0)
    assert abs(retry_after - 59.8) < 1e-6
    assert abs(reset - 59.8) < 1e-6
    assert step(state, 119.89, 10, 60.0, 10)[1] is False
    assert step(state, 119.91, 10, 60.0, 10)[1] is True


def test_a_refused_request_is_not_counted() -> None:
    state = step(None, 100.0, 1, 10.0, 1)[0]
    for second in range(1, 10):
        state, allowed, *_ = step(state, 100.0 + second, 1, 10.0, 1)
        assert not allowed
    assert step(state, 110.0, 1, 10.0, 1)[1] is True


def test_says_how_many_remain() -> None:
    state, remaining = None, []
    for second in range(3):
        state, _, left, reset, _ = step(state, 100.0 + second, 3, 60.0, 3)
        remaining.append(left)
        assert reset == 60.0
    assert remaining == [2, 1, 0]
    assert step(state, 160.0, 3, 60.0, 3)[2] == 0
    assert step(state, 170.0, 3, 60.0, 3)[2] == 2


def test_a_clock_set_back_grants_nothing_and_blocks_for_a_window_at_most() -> None:
    """Case 118."""
    state = None
    for second in range(5):
        state, allowed, *_ = step(state, 10_000.0 + second, 5, 60.0, 5)
        assert allowed
    state, allowed, _, _, retry_after = step(state, 100.0, 5, 60.0, 5)
    assert not allowed
    assert retry_after == 60.0
    assert step(state, 159.9, 5, 60.0, 5)[1] is False
    assert step(state, 160.0, 5, 60.0, 5)[1:3] == (True, 4)
