"""Fixtures every room may use."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway import gate
from gateway.core.clock import ManualClock
from gateway.store.place import Place
from gateway.store.sql import Records
from tests.rig import argon2, once
from tests.rig.awake import Awake
from tests.rig.gateway import Gateway, running
from tests.rig.ledger import Remembered
from tests.rig.postgres import LEFT_OUT, Server, started


def pytest_configure() -> None:
    """What is said to test the compiled gateway must not quietly test the other one."""
    if os.environ.get("SALLYPORT_COMPILED") and (gate.__file__ or "").endswith(".py"):
        raise pytest.UsageError("SALLYPORT_COMPILED is set, but `gateway` is not the compiled one: run scripts/compile")
    once.remember()
    argon2.cheap()


def pytest_collection_finish() -> None:
    """What is there now stays: the collector need not look at ten thousand tests again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.fixture(autouse=True, scope="module")
def _nothing_left_open() -> Iterator[None]:
    """What a file of tests left open is found at its end, and not in somebody else's."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """A command says how loud it wants its loggers for as long as its process lives; here others live in it too."""
    loggers = [logging.getLogger(name) for name in ("sallyport", "sallyport.events")]
    were = [(each.level, each.propagate, list(each.handlers)) for each in loggers]
    yield
    for each, (level, propagate, handlers) in zip(loggers, were, strict=True):
        each.setLevel(level)
        each.propagate = propagate
        each.handlers[:] = handlers


@pytest.fixture(scope="module")
def argon2_as_shipped() -> Iterator[None]:
    """Passwords of this file cost what they cost people."""
    with argon2.as_shipped():
        yield


@pytest.fixture
def clock() -> ManualClock:
    """Stands still until it is told to move."""
    return ManualClock()


@pytest.fixture
def ledger() -> Remembered:
    """Events in a list."""
    return Remembered()


@pytest.fixture
async def awake() -> AsyncIterator[Awake]:
    """Seconds in which the loop of this test could work."""
    clock = Awake()
    yield clock
    clock.end()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One PostgreSQL for the whole run."""
    yield from started()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Where `records` are; rooms that have to work on either database say so in their own conftest."""
    return Place(f"sqlite:{tmp_path}/data/sallyport.db")


@pytest.fixture
async def records(place: Place, clock: ManualClock) -> AsyncIterator[Records]:
    """A real database of its own."""
    opened = await Records.open(place, clock=clock)
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if LEFT_OUT in str(report.longrepr)]
    if skipped:
        terminalreporter.section("LEFT OUT", sep="!", red=True)
        terminalreporter.line(f"{len(skipped)} tests on PostgreSQL did not run: {LEFT_OUT}", red=True)
