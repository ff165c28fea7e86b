from __future__ import annotations

from gateway.limits.backoff import check, offend


def again(state: tuple[float, ...] | None, now: float) -> tuple[float, ...]:
    return offend(state, now, after=2, wait=30.0, longest=300.0, forget=3600.0)


def test_the_first_cost_nothing_then_each_wait_is_twice_the_one_before() -> None:
    state, now, waits = None, 1000.0, []
    for _ in range(8):
        state = again(state, now)
        waits.append(check(state, now))
        now += waits[-1] + 1.0
    assert waits == [0.0, 0.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0]


def test_a_wait_runs_down_and_ends() -> None:
    state = again(again(again(None, 10.0), 20.0), 30.0)
    assert [check(state, now) for now in (30.0, 45.0, 59.0, 60.0, 90.0)] == [30.0, 15.0, 1.0, 0.0, 0.0]


def test_everything_is_forgotten_after_a_while_without_an_offence() -> None:
    state = again(again(again(None, 10.0), 20.0), 30.0)
    assert check(again(state, 3629.0), 3629.0) == 60.0
    assert again(state, 3630.0) == (1, 3_630_000_000, 0)


def test_offences_without_number_stay_within_the_longest() -> None:
    state = None
    for number in range(5000):
        state = again(state, float(number))
    assert state is not None
    assert check(state, 4999.0) == 300.0


def test_a_clock_set_back_makes_no_wait_shorter() -> None:
    """Case 118."""
    state = again(again(again(None, 1000.0), 1000.0), 1000.0)
    assert check(state, 900.0) == 30.0
    assert check(again(state, 900.0), 900.0) == 60.0


def test_nobody_waits_for_nothing() -> None:
    assert check(None, 5.0) == 0.0
