"""A fixed window: `rate` requests in each window, and all of them again when the next begins.

Windows follow one another from the zero of the clock: on Redis's clock they begin at the same moment for everybody,
`1/h` at the full hour; in the memory of one process, whose clock is monotonic, at moments that only it knows.

The plainest limit and the cheapest, two numbers a key, but the least even one: what was left of a window and all of
the next may be used within a moment, so that a stretch as long as a window sees up to twice the rate where it lies
across an edge. Within each window it is exact. It suits quotas that are told by the clock ("1,000 an hour"), and
nothing that guards a secret.

A clock set back finds the count of a window still to come. It then stands for the window that is, and the window it
was meant for begins anew: nothing is let through that would not have been, and nobody waits for longer than a window.
"""

from __future__ import annotations

from typing import Final

WHOLE: Final = 4503599627370496.0
"""2**52. A double below it that it is added to and taken from again is a whole number, the nearest."""


def step(
    state: tuple[float, ...] | None, now: float, rate: int, window: float, burst: int
) -> tuple[tuple[float, ...], bool, int, float, float]:
    """Count one request at `now` (seconds); `burst` is of no interest here.

    `state` is `(begin, count)`, the moment in whole microseconds at which the window began.
    """
    moment = now * 1e6 + WHOLE - WHOLE
    length = window * 1e6
    begin = moment - moment % length
    count = 0.0 if state is None or state[0] < begin else state[1]
    left = (begin + length - moment) / 1e6
    if count >= rate:
        if state is None or state[0] != begin:
            state = (begin, count)
        return state, False, 0, left, left
    count += 1
    remaining = int(rate - count)
    return (begin, count), True, remaining, left, 0.0 if remaining else left
