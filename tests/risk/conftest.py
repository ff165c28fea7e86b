from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.clock import ManualClock
from gateway.core.events import Event
from gateway.core.facts import Facts
from gateway.core.identity import Identity, Level, Proof, Session, level_of
from gateway.risk.score import Risk
from gateway.store.sql import Records

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36"
)
HOME, ABROAD = "198.51.100.7", "203.0.113.9"


class Ledger:
    """Keeps events in a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def note(self, event: Event) -> None:
        self.events.append(event)

    async def record(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def records(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Records]:
    records = await Records.open(f"sqlite:{tmp_path}/data/test.db", clock=clock)
    yield records
    await records.close()


@pytest.fixture
def risk(records: Records, clock: ManualClock, ledger: Ledger) -> Risk:
    return Risk(records, clock, ledger)


def at(address: str = HOME, agent: str = FIREFOX) -> Facts:
    network = address if ":" not in address else address.rpartition("::")[0] + "::/64"
    return Facts(method="GET", host="h", path="/", address=address, network=network, agent=agent, request_id="r-1")


def ann(session: str = "s1", *factors: str, version: int = 1, subject: str = "sub-ann", user: str = "ann") -> Identity:
    proofs = tuple(Proof(factor, 1.0) for factor in (factors or ("password",)))
    kept = Session(session, version, 0.0, 0.0, 0.0, proofs, "", "")
    return Identity("default", subject, user, session=kept, level=level_of(proofs) or Level.NONE)
