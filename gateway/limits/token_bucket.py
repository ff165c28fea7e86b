"""A token bucket: `burst` requests at once, refilled evenly and without steps at `rate` per `window`.

What is kept is the debt, how much the bucket lacks, and the moment it was reckoned. Time is read in whole
microseconds, as Redis `TIME` gives it, and debt is counted in units of which a microsecond pays back `rate` and a
request costs as many as the window has microseconds. So every quantity is a whole number, which a double (Python's
float, Lua's number) adds and multiplies without rounding as long as it stays below 2**52: up to a burst of
fifty thousand with a window of a day. The bound is exact: in any stretch of W seconds at most
`burst + rate * W / window` requests are let through.

What clients are told is rounded up to whole microseconds, so that coming back then works.

A clock set back finds more debt than a bucket can have. It is then taken as empty, which is never more generous
than the truth, and nobody waits longer than one request takes to be paid back. More debt than that without it was made
when the bucket was larger, and has to be paid.
"""

from __future__ import annotations

from typing import Final

WHOLE: Final = 4503599627370496.0
"""2**52. A double below it that it is added to and taken from again is a whole number, the nearest."""


def step(
    state: tuple[float, ...] | None, now: float, rate: int, window: float, burst: int
) -> tuple[tuple[float, ...], bool, int, float, float]:
    """Count one request at `now` (seconds). `state` is `(debt, moment)`."""
    moment = now * 1e6 + WHOLE - WHOLE
    cost = window * 1e6
    most = burst * cost
    if state is None:
        debt = 0.0
    else:
        debt = state[0] - (moment - state[1]) * rate
        if debt < 0.0:
            debt = 0.0
        elif debt > most and moment < state[1]:
            debt = most
    after = debt + cost
    if after > most:
        if state is None or moment < state[1]:
            state = (debt, moment)
        return state, False, 0, debt / rate // -1 / -1e6, (after - most) / rate // -1 / -1e6
    remaining = int((most - after) / cost)
    wait = 0.0 if remaining else (after + cost - most) / rate // -1 / -1e6
    exact = after / rate
    reset = exact + WHOLE - WHOLE
    if reset < exact:
        reset += 1.0
    return (after, moment), True, remaining, reset / 1e6, wait
