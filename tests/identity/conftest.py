"""People, sessions and a ledger on a real database in a temporary folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.clock import ManualClock
from gateway.core.events import Event, Kind
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.identity.sessions import Sessions
from gateway.store.sql import Records

PASSWORD = "correct horse battery"


class Remembered:
    """A ledger that can be read."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def note(self, event: Event) -> None:
        self.events.append(event)

    async def record(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self) -> list[Kind]:
        return [event.kind for event in self.events]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger() -> Remembered:
    return Remembered()


@pytest.fixture
async def records(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Records]:
    records = await Records.open(f"sqlite:{tmp_path}/sallyport.db", clock=clock)
    yield records
    await records.close()


@pytest.fixture(scope="session")
def passwords() -> Passwords:
    return Passwords()


@pytest.fixture
def people(records: Records, passwords: Passwords, clock: ManualClock, ledger: Remembered) -> LocalUsers:
    return LocalUsers(records, passwords, clock, ledger)


@pytest.fixture
def sessions(records: Records, clock: ManualClock, ledger: Remembered) -> Sessions:
    return Sessions(records, clock, ledger, idle=3600.0, absolute=86400.0, per_user=5)
