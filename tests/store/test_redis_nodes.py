"""Asking several servers at once."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gateway.store.redis_link import Closed, Node
from gateway.store.redis_nodes import Cluster, Nodes, _all, make_nodes
from gateway.store.redis_where import Where
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


@contextmanager
def nobody_answers() -> Iterator[Where]:
    """A place where connections come about, and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Where.parse(f"redis://127.0.0.1:{listening.getsockname()[1]}")


@pytest.mark.parametrize("end", [Node.close, Node.closed])
async def test_who_waits_for_a_node_that_is_let_go_of_is_told_and_is_not_ended(
    end: Callable[[Node], Awaitable[None] | None],
) -> None:
    """Connecting is ended; they are not. Who took it for their own end would say nothing to who waits for them."""
    with nobody_answers() as where:
        node = Node(where, where.addresses[0])
        waiting = [asyncio.create_task(node.ask("PING", seconds=10.0)) for _ in range(2)]
        await asyncio.sleep(0)
        if (ended := end(node)) is not None:
            await ended
        for told in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(told, Closed)
        await node.closed()
        with pytest.raises(Closed):
            await node.ask("PING", seconds=10.0)


@needs_redis
@pytest.mark.parametrize("kind", ["redis-cluster", "redis-sentinel"])
async def test_who_looks_where_servers_are_while_it_is_closed_is_told(
    kind: str, request: pytest.FixtureRequest
) -> None:
    nodes = make_nodes(where_of(kind, request))
    looking = asyncio.create_task(nodes.find(10.0))
    await asyncio.sleep(0)
    await nodes.close()
    with pytest.raises(Closed):
        await looking


@needs_redis
async def test_a_node_that_somebody_waits_for_is_not_let_go_of(request: pytest.FixtureRequest) -> None:
    """It has no slots yet: keys are on their way to it, and whoever wants one was sent there."""
    nodes = make_nodes(where_of("redis-cluster", request))
    assert isinstance(nodes, Cluster)
    with nobody_answers() as there:
        node = nodes.at(there.addresses[0])
        waiting = asyncio.create_task(node.reach(0.5))
        await asyncio.sleep(0)
        await nodes.find(10.0)
        assert nodes.at(there.addresses[0]) is node
        with pytest.raises(TimeoutError):
            await waiting
        node.close()
        while node.busy:
            await asyncio.sleep(0)
        await nodes.find(10.0)
        assert nodes.at(there.addresses[0]) is not node
        await nodes.close()
