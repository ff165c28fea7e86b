"""A sliding window: never more than `rate` requests in any stretch of `window` seconds, wherever it begins.

A fixed window lets twice its limit through around its edge, and the usual pair of counters nearly as much against
somebody who knows it. Limits guard passwords and codes here, so this one is a log of requests, made small:

- up to `CELLS` per window, each request is remembered by its own time, and the limit is exact in both directions;
- above, requests within the same sixteenth of a window are remembered together, under the time of the last.

Why it never lets too many through: a request is forgotten only once the last of its company is a whole window old,
so everything younger than a window is always counted, and one is let through only when the count is below `rate`.
What it costs: a request may be held against somebody for up to a sixteenth of a window too long, never more, since
a company spans no more than that. At most `CELLS + 1` companies are alive at once, so the state is bounded too.
Times are whole microseconds and counts whole numbers, so nothing is rounded.

Refused requests are not counted: who slows down is let in as soon as there is room.

A clock set back finds requests in the future. They are then taken as having happened now: nothing is let through
that would not have been, and after one window at most everything is forgotten as it should be.
"""

from __future__ import annotations

from typing import Final

WHOLE: Final = 4503599627370496.0
"""2**52. A double below it that it is added to and taken from again is a whole number, the nearest."""
CELLS: Final = 16


def step(
    state: tuple[float, ...] | None, now: float, rate: int, window: float, burst: int
) -> tuple[tuple[float, ...], bool, int, float, float]:
    """Count one request at `now` (seconds); `burst` is of no interest here.

    `state` is `(total, open, time, count, time, count, …)`, oldest first, times in whole microseconds: who comes
    before `open` joins the last company.
    """
    moment = now * 1e6 + WHOLE - WHOLE
    length = window * 1e6
    if state is None:
        state = (0, 0.0)
    elif state[-2] > moment:
        state = (state[0], moment, moment, state[0])
    total = state[0]
    end = len(state)
    first = 2
    while first < end and state[first] <= moment - length:
        total -= state[first + 1]
        first += 2
    if total >= rate:
        last, left = first, total - state[first + 1]
        while left >= rate:  # the rate has become lower meanwhile
            last += 2
            left -= state[last + 1]
        wait = (state[last] + length - moment) / 1e6
        return state, False, 0, (state[-2] + length - moment) / 1e6, wait
    total += 1
    # Joined with `+`: unpacking would go through a list, at three times the cost.
    if moment < state[1] and first < end:
        after = (total, state[1]) + state[first:-2] + (moment, state[-1] + 1)  # noqa: RUF005
    else:
        after = (total, moment + length / CELLS if rate > CELLS else moment) + state[first:] + (moment, 1)  # noqa: RUF005
    return after, True, int(rate - total), window, (after[2] + length - moment) / 1e6 if total >= rate else 0.0
