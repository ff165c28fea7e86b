"""Asking several servers at once."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from gateway.store.redis_nodes import _all


async def test_whoever_stops_asking_leaves_nothing_unsaid() -> None:
    """Not even that one of the servers had refused already."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def refused() -> None:
        raise ConnectionRefusedError

    asking = asyncio.create_task(_all([refused, asyncio.Event().wait], 60.0))
    for _ in range(3):
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    del asking
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []
