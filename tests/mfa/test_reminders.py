"""Who runs out of backup codes, has one device alone or must have one soon is reminded, once, whoever looks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from gateway.core.events import Kind
from gateway.core.identity import Identity
from gateway.mfa.attempts import LIFE
from gateway.mfa.backup_codes import FEW
from gateway.mfa.demands import NOTICE, Demand, Demands
from gateway.mfa.reminders import EVERY, MONTH, QUARTER, SETTLED, SOON, Reminders
from gateway.store.place import Place as Where
from gateway.store.sql_key_value import SqlKeyValue
from gateway.store.tables import backup_codes, factors, users
from tests.mfa.conftest import Room, somebody
from tests.rig.postgres import EITHER, either

DAY = 86_400.0


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """SQLite; both databases where a test says so: what one of them can tell is not asked of the other."""
    return either(request, tmp_path) if hasattr(request, "param") else Where(f"sqlite:{tmp_path}/sallyport.db")


both = pytest.mark.parametrize("place", EITHER, indirect=True)


def reminders(room: Room, *demands: Demand, by_email: bool = False) -> Reminders:
    demanded = Demands(room.records, room.clock, room.ledger, demands)
    kv = SqlKeyValue(room.records, room.clock)
    return Reminders(room.records, kv, room.clock, room.ledger, demanded, by_email=by_email)


async def change(room: Room, **values: object) -> None:
    async with room.records.begin() as connection:
        await connection.execute(update(users).values(**values))


async def use(room: Room, codes: list[str]) -> None:
    for code in codes:
        assert await room.judge(room.backup_codes, "default", "s-ann", code) is not None


@pytest.fixture
async def codes(room: Room) -> list[str]:
    """Of ann, who has an address."""
    await change(room, email="ann@example.com")
    await room.bind()
    return list(await room.give_codes())


@both
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


async def test_who_stops_half_way_has_told_nobody_and_claimed_nothing(room: Room, codes: list[str]) -> None:
    """A gateway that is stopped, or whose database goes away, between the two: somebody would hear of it next month."""
    await use(room, codes)

    with room.ledger.stopped():
        await reminders(room).look()
    assert room.ledger.of(Kind.BACKUP_CODES_FEW) == []
    assert await reminders(room).look() == 1
    assert len(room.ledger.of(Kind.BACKUP_CODES_FEW)) == 1


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


@pytest.fixture
async def alone(room: Room) -> Room:
    """Ann, with an address and a device that has been there for a week less an hour, and no codes."""
    await change(room, email="ann@example.com")
    await room.bind()
    room.clock.advance(SETTLED - 3600 - 1)
    return room


@both
async def test_one_device_alone(alone: Room) -> None:
    assert await reminders(alone).look() == 0
    alone.clock.advance(2)
    await change(alone, email_confirmed="ann@example.com")
    assert await reminders(alone, by_email=True).look() == 0, "there is a way back by e-mail"
    await change(alone, email_confirmed="ann@example.org")
    assert await reminders(alone, by_email=True).look() == 1, "there is none"
    await alone.kv.drop("default/reminder-single/s-ann")
    alone.ledger.events.clear()
    looked = await asyncio.gather(*(reminders(alone).look() for _ in range(4)))
    assert sum(looked) == 1
    (event,) = alone.ledger.of(Kind.FACTOR_SINGLE)
    assert event.user == "ann"
    alone.clock.advance(QUARTER - 1)
    assert await reminders(alone).look() == 0
    alone.clock.advance(2)
    assert await reminders(alone).look() == 1


@pytest.mark.parametrize("beside", ["device", "codes", "used codes", "burnt", "quiet", "another burnt"])
async def test_who_is_not_told_that_it_is_the_only_one(alone: Room, beside: str) -> None:
    alone.clock.advance(QUARTER)
    if beside in ("device", "another burnt"):
        await alone.bind()
    elif beside in ("codes", "used codes"):
        codes = list(await alone.give_codes())
        if beside == "used codes":
            await use(alone, codes)
    elif beside == "quiet":
        await change(alone, quiet=True)
    if "burnt" in beside:
        async with alone.records.begin() as connection:
            one = select(factors.c.id).where(factors.c.kind == "totp").order_by(factors.c.created_at).limit(1)
            this = update(factors).where(factors.c.id == one.scalar_subquery())
            await connection.execute(this.values(failures=LIFE))
    await reminders(alone).look()
    assert alone.ledger.of(Kind.FACTOR_SINGLE) == []
    if beside == "another burnt":
        alone.clock.advance(SETTLED)
        await reminders(alone).look()
        assert len(alone.ledger.of(Kind.FACTOR_SINGLE)) == 1, "what is out of use is no second one"


WEEKS = Demand(groups=frozenset({"finance"}), grace=14 * DAY)
HOURS = Demand(groups=frozenset({"finance"}), grace=4 * 3600.0)
FINANCE = replace(somebody("ann"), groups=frozenset({"finance"}))


async def seen(room: Room, demand: Demand, who: Identity = FINANCE) -> None:
    """Ann is seen for the first time while it holds."""
    await change(room, email="ann@example.com", groups=["finance"])
    demands = Demands(room.records, room.clock, room.ledger, [demand])
    assert await demands.enrol_by(who) == room.clock.now() + demand.grace


@both
@pytest.mark.parametrize(("demand", "before"), [(WEEKS, NOTICE), (HOURS, 2 * 3600.0)])
async def test_a_second_factor_is_due_soon(room: Room, demand: Demand, before: float) -> None:
    await seen(room, demand)
    due = room.clock.now() + demand.grace
    room.clock.advance(demand.grace - before - 1)
    assert await reminders(room, demand).look() == 0
    room.clock.advance(2)
    looked = await asyncio.gather(*(reminders(room, demand).look() for _ in range(4)))
    assert sum(looked) == 1
    (event,) = room.ledger.of(Kind.MFA_DUE)
    assert (event.user, event.detail) == ("ann", {"until": int(due)})
    room.clock.advance(before - 2)
    assert await reminders(room, demand).look() == 0, "once"
    room.clock.advance(2 * DAY)
    assert await reminders(room, demand).look() == 0, "and not when it is over"


async def test_who_has_set_one_up_is_not_told_that_it_is_due(room: Room) -> None:
    await seen(room, WEEKS)
    await change(room, email_confirmed="ann@example.com")
    await room.bind()
    room.clock.advance(WEEKS.grace - 60)
    assert await reminders(room, WEEKS, by_email=True).look() == 0
    keys = replace(WEEKS, factors=frozenset({"webauthn"}))
    await Demands(room.records, room.clock, room.ledger, [keys]).enrol_by(FINANCE)
    room.clock.advance(keys.grace - 60)
    assert await reminders(room, keys, by_email=True).look() == 1, "another kind is demanded"


@pytest.mark.parametrize("values", [{"email": ""}, {"disabled": True}, {"quiet": True}, {"groups": ["staff"]}])
async def test_who_is_not_told_that_one_is_due(room: Room, values: dict[str, object]) -> None:
    await seen(room, WEEKS)
    room.clock.advance(WEEKS.grace - 60)
    await change(room, **values)
    assert await reminders(room, WEEKS).look() == 0


async def test_an_administrators_date_comes_nearer(room: Room) -> None:
    due = room.clock.now() + 30 * DAY
    await change(room, email="ann@example.com")
    async with room.records.begin() as connection:
        await connection.execute(update(users).where(users.c.name == "ann").values(mfa_required_from=due))
    assert await reminders(room).look() == 0
    room.clock.advance(29 * DAY - 1)
    assert await reminders(room).look() == 0
    room.clock.advance(2)
    assert await reminders(room).look() == 1
    (event,) = room.ledger.of(Kind.MFA_DUE)
    assert event.detail == {"until": int(due)}


@both
@pytest.mark.parametrize("what", [Kind.BACKUP_CODES_FEW, Kind.MFA_DUE, Kind.FACTOR_SINGLE])
async def test_who_has_been_told_keeps_nobody_else_from_it(
    room: Room, what: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more than are told in one look each has their turn; else the first of them would be looked at for ever."""
    monkeypatch.setattr("gateway.mfa.reminders.AT_ONCE", 1)
    await change(room, email="someone@example.com")
    demands = (WEEKS,) if what is Kind.MFA_DUE else ()
    for name in ("ann", "bob"):
        if demands:
            await seen(room, WEEKS, replace(somebody(name), groups=frozenset({"finance"})))
            continue
        await room.bind(f"s-{name}")
        for code in await room.give_codes(f"s-{name}") if what is Kind.BACKUP_CODES_FEW else ():
            assert await room.judge(room.backup_codes, "default", f"s-{name}", code) is not None
    room.clock.advance({Kind.BACKUP_CODES_FEW: 0.0, Kind.MFA_DUE: WEEKS.grace - 60}.get(what, SETTLED))
    assert [await reminders(room, *demands).look() for _ in range(3)] == [1, 1, 0]
    assert sorted(event.user for event in room.ledger.of(what)) == ["ann", "bob"]
