"""Seconds in which this loop could work: a clock that stands still while the machine does.

Where a promise is about time (nobody waits longer than 50 ms for a store that is away), what the clock on the wall says
of a busy machine is no measure of us: it stands still for a second now and then, and whoever waits then has waited for
that. So what comes due here every few milliseconds is not counted for as long as it comes late. Of a call that waits,
for whatever it waits, everything is counted; of one that keeps the loop from turning, nothing, nor is there a promise
of time that such a call would break first.
"""

from __future__ import annotations

import asyncio
import time

STEP = 0.01
"""Seconds. Some loops round up to a millisecond: so much may be missing of each."""


class Awake:
    """Runs from here on, on the running loop, until it is ended."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late = 0.0
        self._step(time.monotonic())

    def now(self) -> float:
        """Seconds since some moment, without those in which the loop came late. Raises RuntimeError on another loop."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this is not the loop whose time it tells")
        return min(time.monotonic(), self._due) - self._late

    def end(self) -> None:
        """Stop."""
        self._handle.cancel()

    def _step(self, now: float) -> None:
        self._due = now + STEP
        self._handle = self._loop.call_later(STEP, self._came)

    def _came(self) -> None:
        now = time.monotonic()
        self._late += max(0.0, now - self._due)
        self._step(now)
