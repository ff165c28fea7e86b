"""Who runs out of backup codes is reminded once a month, whoever looks."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import update

from gateway.core.events import Kind
from gateway.mfa.backup_codes import FEW
from gateway.mfa.reminders import EVERY, MONTH, SOON, Reminders
from gateway.store.sql_key_value import SqlKeyValue
from gateway.store.tables import backup_codes, users
from tests.mfa.conftest import Room

DAY = 86_400.0


def reminders(room: Room) -> Reminders:
    return Reminders(room.records, SqlKeyValue(room.records, room.clock), room.clock, room.ledger)


async def change(room: Room, **values: object) -> None:
    async with room.records.begin() as connection:
        await connection.execute(update(users).values(**values))


async def use(room: Room, codes: list[str]) -> None:
    for code in codes:
        assert await room.backup_codes.check("default", "s-ann", code, room.clock.now()) is not None


@pytest.fixture
async def codes(room: Room) -> list[str]:
    """Of ann, who has an address."""
    await change(room, email="ann@example.com")
    await room.bind()
    return list(await room.give_codes())


async def test_few_are_left(room: Room, codes: list[str]) -> None:
    await use(room, codes[: 10 - FEW - 1])
    assert await reminders(room).look() == 0
    await use(room, codes[10 - FEW - 1 : 10 - FEW])
    looked = await asyncio.gather(*(reminders(room).look() for _ in range(4)))
    assert sum(looked) == 1, "one of four replicas tells"
    (event,) = room.ledger.of(Kind.BACKUP_CODES_FEW)
    assert (event.user, event.detail) == ("ann", {"left": FEW})
    room.clock.advance(MONTH - 1)
    assert await reminders(room).look() == 0
    room.clock.advance(2)
    assert await reminders(room).look() == 1


async def test_none_are_left(room: Room, codes: list[str]) -> None:
    await use(room, codes)
    assert await reminders(room).look() == 1


async def test_they_end_soon(room: Room, codes: list[str]) -> None:
    room.clock.advance(90 * DAY - SOON - 1)
    assert await reminders(room).look() == 0
    room.clock.advance(2)
    assert await reminders(room).look() == 1


@pytest.mark.parametrize("values", [{"email": ""}, {"disabled": True}, {"quiet": True}])
async def test_who_is_not_reminded(room: Room, codes: list[str], values: dict[str, object]) -> None:
    await use(room, codes)
    await change(room, **values)
    assert await reminders(room).look() == 0


async def test_who_has_no_codes_is_reminded_of_none(room: Room) -> None:
    await change(room, email="ann@example.com")
    await room.bind()
    async with room.records.read() as connection:
        assert (await connection.execute(backup_codes.select())).first() is None
    assert await reminders(room).look() == 0


async def test_it_is_looked_at_once_an_hour(room: Room, codes: list[str]) -> None:
    one = reminders(room)
    assert await one.turn() == 0
    await use(room, codes)
    assert await one.turn() == 0
    room.clock.advance(EVERY)
    assert await one.turn() == 1
