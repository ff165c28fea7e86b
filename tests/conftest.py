"""Fixtures every room may use."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway import gate
from gateway.core.clock import ManualClock
from gateway.store.sql import Records
from tests.rig.gateway import Gateway, running
from tests.rig.ledger import Remembered


def pytest_configure() -> None:
    """What is said to test the compiled gateway must not quietly test the other one."""
    if os.environ.get("SALLYPORT_COMPILED") and (gate.__file__ or "").endswith(".py"):
        raise pytest.UsageError("SALLYPORT_COMPILED is set, but `gateway` is not the compiled one: run scripts/compile")


@pytest.fixture
def clock() -> ManualClock:
    """Stands still until it is told to move."""
    return ManualClock()


@pytest.fixture
def ledger() -> Remembered:
    """Events in a list."""
    return Remembered()


@pytest.fixture
async def records(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Records]:
    """A real database in a folder of its own."""
    opened = await Records.open(f"sqlite:{tmp_path}/data/sallyport.db", clock=clock)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """One gateway for a whole file of tests; they mark themselves `asyncio(loop_scope="module")`."""
    async with running(Path(tmp_path_factory.mktemp("house"))) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(house: Gateway) -> AsyncIterator[Gateway]:
    """The shared gateway, with nothing remembered. Whatever a service receives in any test is perfectly framed."""
    await house.mark()
    yield house
    assert house.upstream.violations == []
    assert house.other.violations == []
