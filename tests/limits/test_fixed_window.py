from __future__ import annotations

from gateway.limits.fixed_window import step


def test_counts_anew_with_each_window() -> None:
    state, outcomes = None, []
    for _ in range(4):
        state, allowed, remaining, reset, retry_after = step(state, 125.0, 3, 60.0, 3)
        outcomes.append((allowed, remaining, reset, retry_after))
    assert outcomes == [(True, 2, 55.0, 0.0), (True, 1, 55.0, 0.0), (True, 0, 55.0, 55.0), (False, 0, 55.0, 55.0)]
    assert step(state, 179.9, 3, 60.0, 3)[1] is False
    assert step(state, 180.0, 3, 60.0, 3)[1:] == (True, 2, 60.0, 0.0)


def test_its_worst_case_is_twice_the_rate_around_an_edge() -> None:
    state, granted = None, 0
    for now in (59.9, 60.0):
        for _ in range(20):
            state, allowed, *_ = step(state, now, 10, 60.0, 10)
            granted += allowed
    assert granted == 20


def test_windows_begin_at_the_same_moment_for_everybody() -> None:
    ends = {round(moment + step(None, moment, 5, 60.0, 5)[3]) for moment in (600.0, 601.5, 659.0)}
    assert ends == {660}


def test_a_clock_set_back_grants_nothing_and_blocks_for_a_window_at_most() -> None:
    """Case 118."""
    state = None
    for _ in range(5):
        state, allowed, *_ = step(state, 10_000.0, 5, 60.0, 5)
        assert allowed
    state, allowed, _, _, retry_after = step(state, 100.0, 5, 60.0, 5)
    assert (allowed, retry_after) == (False, 20.0)
    state, allowed, *_ = step(state, 119.9, 5, 60.0, 5)
    assert not allowed
    assert step(state, 120.0, 5, 60.0, 5)[1:3] == (True, 4)


def test_a_refusal_counts_nothing() -> None:
    state = step(None, 10.0, 1, 60.0, 1)[0]
    assert step(state, 11.0, 1, 60.0, 1)[0] == state
