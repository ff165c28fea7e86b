"""Rolling restarts lose nothing: the short run. `make soak` is the whole one."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from tests.house import rolling


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


async def test_nothing_is_lost_over_four_restarts() -> None:
    run = await rolling.run(
        restarts=4, rate=500.0, clients=40, sockets=20, uploads=4, delay=0.6, every=0.1, pause=0.3
    )  # fmt: skip
    assert run.failures == []
    assert run.count["restarts"] == 4
    assert run.count["requests"] > 2_000
    assert run.count["uploads"] > 10
    assert run.count["sockets closed with 1001"] >= 20, "each of them was on a gateway that went"
    assert run.count["sockets opened"] == 20 + run.count["sockets closed with 1001"], "and came back"
