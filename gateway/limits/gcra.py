"""GCRA, the generic cell rate algorithm: a token bucket that remembers one moment.

What is kept is the theoretical arrival time, the moment at which the next request would be due if they came evenly,
one each `window / rate`. Each that is let through moves it on by one such interval, from now where it lies behind.
One that would move it more than `burst` intervals past now came too early and is refused. Source: ITU-T I.371
(ATM Forum Traffic Management 4.0, section 4.4.5), "virtual scheduling", with a tolerance of `burst - 1` intervals.

It lets through what the token bucket lets through, request by request, and in any stretch of W seconds at most
`burst + rate * W / window`. What differs is that a refusal changes nothing, so nothing has to be written for it:
somebody who knocks without end costs a shared store reads only. And that the moment is in time, not in requests:
where the rate changes meanwhile, whoever has to wait waits as long as before.

An interval is seldom a whole number of microseconds. The moment is kept as whole microseconds and `rate`-ths of one,
so that every quantity is a whole number, which a double adds and multiplies without rounding below 2**52.

What clients are told is rounded up to whole microseconds, so that coming back then works.

A clock set back finds the moment further ahead than `burst` intervals. It is then taken as exactly so far ahead,
which is never more generous than the truth, and nobody waits longer than one interval.
"""

from __future__ import annotations

from typing import Final

WHOLE: Final = 4503599627370496.0
"""2**52. A double below it that it is added to and taken from again is a whole number, the nearest."""


def step(
    state: tuple[float, ...] | None, now: float, rate: int, window: float, burst: int
) -> tuple[tuple[float, ...], bool, int, float, float]:
    """Count one request at `now` (seconds). `state` is `(due, parts)`: microseconds, and `rate`-ths of one."""
    moment = now * 1e6 + WHOLE - WHOLE
    interval = window * 1e6  # in rate-ths of a microsecond, as all that follows
    most = burst * interval
    ahead = 0.0 if state is None else (state[0] - moment) * rate + state[1]
    if ahead < 0.0:
        ahead = 0.0
    elif ahead > most:
        ahead = most
    second = ahead + interval
    if second > most:
        if state is None or (state[0] - moment) * rate + state[1] > most:
            parts = ahead % rate
            state = (moment + (ahead - parts) / rate, parts)
        return state, False, 0, ahead / rate // -1 / -1e6, (second - most) / rate // -1 / -1e6
    parts = second % rate
    due = moment + (second - parts) / rate
    remaining = int((most - second) / interval)
    wait = 0.0 if remaining else (second + interval - most) / rate // -1 / -1e6
    return (due, parts), True, remaining, (due - moment + (1.0 if parts else 0.0)) / 1e6, wait
