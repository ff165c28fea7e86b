"""What it costs to run into a limit again and again: a wait that doubles each time.

An offence is a request that its limit refuses while nothing is being waited for. The first `after` offences cost
nothing more than the refusal. From then on each begins a wait, `wait` seconds for the first and twice as long for
each further one, up to `longest`. While somebody waits, every request of theirs is refused before it is counted, and
none of these is an offence: knocking makes no wait longer, so a program that retries blindly is stopped, not locked
out for ever. `forget` seconds without an offence forget all of them.

`state` is `(offences, since, wait)`: how many, the moment of the last, and how long it is waited from then on, in
whole microseconds. It has to be kept for `forget` seconds after the last.

A clock set back makes nobody's wait shorter, and longer by no more than it was set back.
"""

from __future__ import annotations


def check(state: tuple[float, ...] | None, now: float) -> float:
    """Seconds that are still to be waited at `now` (seconds); 0.0 for nobody who has to."""
    if state is None or state[2] == 0.0:
        return 0.0
    left = state[1] + state[2] - round(now * 1e6)
    return min(left, state[2]) / 1e6 if left > 0.0 else 0.0


def offend(
    state: tuple[float, ...] | None, now: float, after: int, wait: float, longest: float, forget: float
) -> tuple[float, ...]:
    """The state after one more offence at `now`; all times in seconds."""
    moment = float(round(now * 1e6))
    offences = 1.0 if state is None or moment - state[1] >= round(forget * 1e6) else state[0] + 1
    if offences <= after:
        return (offences, moment, 0.0)
    doubled = float(round(wait * 1e6)) * 2.0 ** min(offences - after - 1, 64.0)
    return (offences, moment, min(doubled, float(round(longest * 1e6))))
