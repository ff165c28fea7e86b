"""The room with codes that are sent, and people who have numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import insert

from gateway.core.clock import ManualClock
from gateway.core.errors import UserError
from gateway.core.identity import DEFAULT_TENANT, Identity, Level
from gateway.core.rule import StepUpDemand
from gateway.mfa.codes.factor import Sending
from gateway.mfa.sealed import place_of
from gateway.store.place import Place
from gateway.store.sql import Records
from gateway.store.tables import factors
from tests.mfa.conftest import Room, somebody
from tests.rig.postgres import EITHER, either

AAL2 = StepUpDemand(Level.AAL2)
ANN = "+905321234512"
OFFERED = ("totp", "sms", "email", "backup_code")


async def own(room: Room, address: str = ANN, subject: str = "s-ann", factor_id: str = "f-1", failures: int = 0) -> str:
    """Have `address` bound, since an hour."""
    kind = "email" if "@" in address else "sms"
    at = room.clock.now() - 3600
    async with room.records.begin(DEFAULT_TENANT, subject) as connection:
        await connection.execute(
            insert(factors).values(
                tenant=DEFAULT_TENANT,
                id=factor_id,
                subject=subject,
                kind=kind,
                label="",
                secret=room.sealer.seal(address.encode(), **place_of(DEFAULT_TENANT, factor_id)),
                last_step=-1,
                refused_step=-1,
                failures=failures,
                created_at=at,
                last_used_at=at,
            )
        )
    return factor_id


@dataclass
class Asked:
    """An open challenge of somebody."""

    room: Room
    who: Identity
    ticket: str

    async def send(self, factor: str = "sms", **more: str) -> Sending:
        return await self.room.stepups.send(self.ticket, self.who, factor, **more)

    async def answer(self, code: str, factor: str = "sms") -> object:
        return await self.room.stepups.answer(self.ticket, self.who, factor, code)

    def elsewhere(self, room: Room) -> Asked:
        """The same challenge, asked about in another process."""
        return replace(self, room=room)


async def ask(room: Room, who: Identity | None = None) -> Asked:
    who = who or somebody()
    return Asked(room, who, await room.stepups.begin(who, AAL2, return_to="/"))


async def refused(awaitable: object) -> UserError:
    with pytest.raises(UserError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


BOTH = pytest.mark.parametrize("place", EITHER, indirect=True)
"""What one database might tell otherwise than the other: what happens at once, and what is undone."""


@pytest.fixture(params=["sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Most of it asks the database nothing new; what does runs over `BOTH`."""
    return either(request, tmp_path)


@pytest.fixture
def room(records: Records, clock: ManualClock) -> Room:
    return Room(records, clock, OFFERED)


@pytest.fixture
async def replica(place: Place, room: Room, clock: ManualClock) -> AsyncIterator[Room]:
    opened = await Records.open(place, clock=clock)
    yield Room(opened, clock, OFFERED, room.post)
    await opened.close()
