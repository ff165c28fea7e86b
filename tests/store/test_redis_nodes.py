"""Asking several servers at once."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from gateway.store.redis_nodes import Nodes, _all, make_nodes
from tests.rig.redis import needs_redis
from tests.store.conftest import where_of


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


@needs_redis
@pytest.mark.parametrize("kind", ["redis-cluster", "redis-sentinel"])
async def test_what_is_closed_while_it_looks_connects_to_nobody_afterwards(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Whoever was about to ask a node would have connected to it, and nobody would have let go of that."""
    where = where_of(kind, request)

    async def look(nodes: Nodes) -> None:
        try:
            await nodes.find(5.0)
        finally:
            await nodes.close()

    for turns in range(12):
        looking = asyncio.create_task(look(make_nodes(where)))
        for _ in range(turns):
            await asyncio.sleep(0)
        looking.cancel()
        await asyncio.wait([looking])
        for _ in range(5):
            await asyncio.sleep(0)
        left = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("connecting to")]
        assert left == [], f"after {turns} turns"
