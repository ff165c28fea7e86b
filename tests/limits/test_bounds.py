"""A million random arrivals for each algorithm, and what each promises about any stretch of time."""

from __future__ import annotations

import pytest

from gateway.catalog import ALGORITHMS
from tests.limits.test_token_bucket import MICRO, arrivals, seconds

LIMITS = [(1, 1, 1), (7, 3, 2), (50, 7, 50), (60, 60, 5), (300, 60, 300), (1000, 60, 40), (999, 3600, 10)]
EACH = 1_000_000 // len(LIMITS) + 1


def admitted(algorithm: str, rate: int, window: int, burst: int) -> tuple[list[int], list[int]]:
    """When requests came, and when they were let through, in microseconds."""
    step, state, through = ALGORITHMS[algorithm], None, []
    moments = arrivals(rate * window, window / rate, EACH)
    for moment in moments:
        state, allowed, *_ = step(state, seconds(moment), rate, window, burst)
        if allowed:
            through.append(moment)
    return moments, through


def at_most(through: list[int], most: int, length: int) -> None:
    """No stretch of `length` holds more than `most`."""
    assert len(through) > most  # or nothing would have been seen
    assert all(later - earlier >= length for earlier, later in zip(through, through[most:], strict=False))


@pytest.mark.parametrize("algorithm", ["token_bucket", "gcra"])
@pytest.mark.parametrize(("rate", "window", "burst"), LIMITS)
def test_at_most_the_burst_and_what_was_refilled(algorithm: str, rate: int, window: int, burst: int) -> None:
    moments, through = admitted(algorithm, rate, window, burst)
    cost, lowest, highest = window * MICRO, None, 0
    for count, moment in enumerate(through):
        # For every earlier one i: (j - i + 1) * cost <= burst * cost + rate * (t_j - t_i), in whole numbers.
        level = count * cost - rate * moment
        lowest = level if lowest is None else min(lowest, level)
        highest = max(highest, level - lowest)
    assert (burst - 1) * cost - rate * MICRO < highest <= (burst - 1) * cost  # reached, and not passed
    assert len(through) < len(moments)


@pytest.mark.parametrize(("rate", "window", "burst"), LIMITS)
def test_a_sliding_window_never_holds_more_than_the_rate(rate: int, window: int, burst: int) -> None:
    _, through = admitted("sliding_window", rate, window, burst)
    at_most(through, rate, window * MICRO)


@pytest.mark.parametrize(("rate", "window", "burst"), LIMITS)
def test_a_fixed_window_is_exact_and_any_stretch_holds_at_most_twice_the_rate(
    rate: int, window: int, burst: int
) -> None:
    moments, through = admitted("fixed_window", rate, window, burst)
    length = window * MICRO
    at_most(through, 2 * rate, length)
    came, went = (dict[int, int](), dict[int, int]())
    for counts, times in ((came, moments), (went, through)):
        for moment in times:
            counts[moment // length] = counts.get(moment // length, 0) + 1
    assert all(went[number] == min(rate, count) for number, count in came.items())
    assert max(came.values()) > rate
