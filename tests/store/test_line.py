"""When a store counts as away, and what says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.core.errors import StoreAway
from gateway.store.line import Line


async def answered() -> None:
    """A probe of a store that is there."""


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    made = Line("records", answered)
    yield made
    await made.close()


async def back(line: Line) -> None:
    async with asyncio.timeout(5):
        while not line.up:
            await asyncio.sleep(0)


async def test_who_has_no_answer_says_that_it_is_away(line: Line) -> None:
    with pytest.raises(StoreAway, match="no answer within 1 ms"):
        async with line.bounded(0.001):
            await asyncio.Event().wait()
    assert line.lost == 1
    await back(line)
    line.failed("closed by the server", line.lost)
    assert not line.up
    assert line.lost == 2


async def test_what_was_begun_before_it_was_away_says_nothing_of_how_it_is_now(line: Line) -> None:
    """Connections that a firewall has forgotten are found out one after the other: the first said it for all."""

    async def wait() -> None:
        async with line.bounded(0.05):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    line.failed("closed by the server")
    await back(line)
    with pytest.raises(StoreAway, match="no answer within 50 ms"):
        await waiting
    assert line.up
    assert line.lost == 1


@pytest.mark.parametrize("up", [True, False])
async def test_nobody_asks_what_is_closed(up: bool) -> None:
    asked = []

    async def never() -> None:
        asked.append(1)
        await asyncio.Event().wait()

    line = Line("shared", never)
    if not up:
        line.failed("closed by the server")
        await asyncio.sleep(0)
    await line.close()
    line.failed("closed")
    await asyncio.sleep(0)
    assert len(asked) == (0 if up else 1)
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("probe of")] == []
    with pytest.raises(StoreAway, match=r"shared: closed"):
        line.check()
