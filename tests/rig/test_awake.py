"""A clock that stands still while the machine does, and only then."""

from __future__ import annotations

import asyncio
import time

from tests.rig.awake import STEP, Awake


async def test_what_nobody_could_work_in_is_not_counted() -> None:
    awake = Awake()
    began = awake.now()
    time.sleep(0.2)
    assert awake.now() - began <= STEP
    await asyncio.sleep(0)
    assert awake.now() - began <= 2 * STEP
    awake.end()


async def test_what_somebody_waits_is_counted() -> None:
    """On the best of a few tries; never more than the clock on the wall says."""
    awake, counted = Awake(), []
    for _ in range(5):
        wall, began = time.monotonic(), awake.now()
        await asyncio.sleep(0.1)
        counted.append(awake.now() - began)
        assert counted[-1] <= time.monotonic() - wall
    assert max(counted) > 0.05
    awake.end()
