from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError
from gateway.crypto.keys import KeyRing
from gateway.crypto.masters import Master, MasterStanding, key_id
from gateway.crypto.sealing import Sealer, Unsealable
from gateway.identity.session_rows import revoke
from gateway.mfa import sealed
from gateway.mfa.recovery import Recoveries
from gateway.mfa.sealed import GRACE, Need
from gateway.store.sql import Records
from gateway.store.tables import backup_codes, factors, kept, users
from tests.mfa.conftest import MASTER, Room, somebody
from tests.rig.letters import Letters

NEW = b"n" * 32
BOTH = Sealer([NEW, MASTER])
DAY = 86_400.0


def standing(room: Room, master: bytes = MASTER) -> MasterStanding:
    """Of a key that was replaced a moment ago."""
    return MasterStanding(Master(key_id(master), 0.0, Path("unused"), master), "old", room.clock.now())


async def secrets_of(records: Records) -> dict[str, bytes]:
    async with records.read() as connection:
        rows = (await connection.execute(select(factors.c.id, factors.c.secret).where(factors.c.kind == "totp"))).all()
    return {row.id: row.secret for row in rows}


async def reseal(room: Room, sealer: Sealer = BOTH) -> list[bool]:
    return [row.opened async for row in sealed.reseal(room.records, sealer)]


async def needs(room: Room, master: bytes = MASTER, session: float = DAY) -> dict[str, Need]:
    found = await sealed.needs(room.records, standing(room, master), room.clock.now(), session)
    return {need.what: need for need in found}


async def test_every_secret_is_sealed_anew_and_works_on(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "AT_ONCE", 3)  # several pages
    devices = [await room.bind() for _ in range(7)]
    await room.give_codes()  # a set of codes has no secret, and is not one
    assert await sealed.left(room.records, BOTH) == 7
    assert await reseal(room) == [True] * 7
    assert await sealed.seals(room.records) == {key_id(NEW): 7}
    assert await sealed.left(room.records, BOTH) == 0
    assert await reseal(room) == [], "there is nothing to do a second time"
    room.sealer.use([NEW])
    for secret in devices:
        assert await room.judge(room.totp, "default", "s-ann", room.code(secret)) is not None


async def test_what_was_moved_does_not_open_afterwards_and_is_not_mended(room: Room) -> None:
    """Sealing anew must not bless a value that somebody has copied into another row."""
    await room.bind("s-ann")
    await room.bind("s-bob")
    async with room.records.begin() as connection:
        ann, bob = (await connection.execute(select(factors.c.id, factors.c.secret).order_by(factors.c.subject))).all()
        await connection.execute(update(factors).where(factors.c.id == ann.id).values(secret=bob.secret))
    assert sorted(await reseal(room)) == [False, True]
    assert (await secrets_of(room.records))[ann.id] == bob.secret, "left as it was"
    assert await sealed.left(room.records, BOTH) == 1
    with pytest.raises(Unsealable):
        await room.judge(room.totp, "default", "s-ann", "123456")
    fresh = (await secrets_of(room.records))[bob.id]
    for place in ({"table": "kept"}, {"column": "value"}, {"row": f"default/{ann.id}"}):
        with pytest.raises(Unsealable):
            BOTH.unseal(fresh, **{**sealed.place_of("default", bob.id), **place})


async def test_a_write_in_between_is_not_lost(room: Room, replica: Room) -> None:
    """Whatever another process does to a row between reading and writing it stays done."""
    for _ in range(3):
        await room.bind()
    first, second, third = sorted(await secrets_of(room.records))
    own = BOTH.seal(b"another secret!!", **sealed.place_of("default", second))
    going = sealed.reseal(room.records, BOTH)
    await anext(going)  # everything is read by now
    async with replica.records.begin() as connection:
        await connection.execute(update(factors).where(factors.c.id == second).values(secret=own, last_step=9))
        await connection.execute(factors.delete().where(factors.c.id == third))
    async for _ in going:
        pass
    after = await secrets_of(room.records)
    assert set(after) == {first, second}
    assert after[second] == own


async def test_two_at_once_and_one_broken_off(room: Room, replica: Room) -> None:
    for _ in range(20):
        await room.bind()
    going = sealed.reseal(room.records, BOTH)
    for _ in range(5):
        await anext(going)
    await going.aclose()  # as killed: nothing is remembered but the rows
    assert 15 <= await sealed.left(room.records, BOTH) <= 16
    await asyncio.gather(reseal(room), reseal(replica))
    assert await sealed.seals(room.records) == {key_id(NEW): 20}


# -- what an old key is needed for -------------------------------------------------------------------------------------


async def test_an_old_key_is_needed_for_secrets_until_they_are_sealed_anew(room: Room) -> None:
    await room.bind()
    assert (await needs(room))["secrets of factors"] == Need("secrets of factors", 1, 0.0)
    assert "secrets of factors" not in await needs(room, NEW)
    await reseal(room)
    assert "secrets of factors" not in await needs(room)


async def test_for_the_links_of_open_recoveries(room: Room) -> None:
    letters = Letters()
    recoveries = Recoveries(
        room.records, room.clock, room.ledger, room.mac,
        unbind=room.enrolment.unbind, revoke=revoke, letters=letters, by_email=True,
    )  # fmt: skip
    await room.bind()
    async with room.records.begin() as connection:
        confirmed = {"email": "ann@example.com", "email_confirmed": "ann@example.com", "email_confirmed_at": 1.0}
        await connection.execute(update(users).where(users.c.name == "ann").values(**confirmed))
    room.clock.advance(DAY)
    begun = await recoveries.ask(somebody())
    assert (await needs(room))["open recoveries"] == Need("open recoveries", 1, begun.expires_at)
    assert "open recoveries" not in await needs(room, NEW)
    room.mac.use([NEW, MASTER])
    room.clock.advance(DAY)
    await recoveries.turn()
    assert [(await needs(room, master))["open recoveries"].count for master in (MASTER, NEW)] == [1, 1], "one of each"
    await recoveries.cancel(letters.asked_[0][1])
    assert "open recoveries" not in await needs(room)


async def test_for_backup_codes_that_still_count(room: Room) -> None:
    codes = await room.give_codes()
    at = room.clock.now()
    assert (await needs(room))["backup codes"] == Need("backup codes", 10, at + 90 * DAY)
    assert "backup codes" not in await needs(room, NEW)
    assert await room.judge(room.backup_codes, "default", "s-ann", codes[0]) is not None
    assert (await needs(room))["backup codes"].count == 9
    room.mac.use([NEW, MASTER])
    assert await room.judge(room.backup_codes, "default", "s-ann", codes[1]) is not None, (
        "the old key recognises its own"
    )
    await room.give_codes()
    assert "backup codes" not in await needs(room)
    assert (await needs(room, NEW))["backup codes"].count == 10
    room.clock.advance(90 * DAY)
    assert "backup codes" not in await needs(room, NEW)


async def test_codes_that_name_no_key_need_every_old_one(room: Room) -> None:
    """As they were made before tokens named their key."""
    await room.give_codes()
    async with room.records.begin() as connection:
        await connection.execute(update(backup_codes).values(digest="A" * 43))
    for master in (MASTER, NEW):
        assert (await needs(room, master))["backup codes"].count == 10


async def test_for_what_waits_sealed_and_expires(room: Room) -> None:
    await room.enrolment.begin_totp(somebody())
    need = (await needs(room))["setups and interrupted requests"]
    assert (need.count, need.until) == (1, room.clock.now() + 600)
    assert "setups and interrupted requests" not in await needs(room, NEW)
    room.clock.advance(601)
    assert "setups and interrupted requests" not in await needs(room)


async def test_and_for_as_long_as_a_session_lives(room: Room) -> None:
    old = standing(room)
    assert await sealed.needs(room.records, old, old.replaced_at + DAY + GRACE, DAY) == []
    (need,) = await sealed.needs(room.records, old, old.replaced_at + DAY + GRACE - 1, DAY)
    assert need == Need("sessions and open forms", 0, old.replaced_at + DAY + GRACE)


async def test_voiding_the_codes_of_a_key_leaves_those_of_others(room: Room) -> None:
    await room.give_codes("s-ann")
    room.mac.use([NEW, MASTER])
    bobs = await room.give_codes("s-bob")
    assert await sealed.void_codes(room.records, room.backup_codes, key_id(MASTER), room.clock.now()) == 1
    assert (await room.backup_codes.left("default", "s-ann")).count == 0
    assert await room.factors.of("default", "s-ann") == []
    assert await room.judge(room.backup_codes, "default", "s-bob", bobs[0]) is not None


# -- keys and records belong together ----------------------------------------------------------------------------------


@pytest.fixture
def ring(tmp_path: Path, clock: ManualClock) -> KeyRing:
    return KeyRing.open(tmp_path / "keys", create=True, clock=clock)


async def test_a_secret_under_a_key_that_is_missing_is_told(room: Room, ring: KeyRing) -> None:
    await sealed.remember_key(room.records, ring)
    await sealed.demand_keys(room.records, ring)
    await room.bind()
    name = key_id(MASTER).hex()
    with pytest.raises(ConfigError, match=f"1 secrets in {room.records.name} are sealed with master key {name}"):
        await sealed.demand_keys(room.records, ring)


async def test_records_that_another_key_seals_are_told_without_a_password(
    room: Room, ring: KeyRing, tmp_path: Path, clock: ManualClock
) -> None:
    await sealed.remember_key(room.records, ring)
    other = KeyRing.open(tmp_path / "others", create=True, clock=clock)
    with pytest.raises(ConfigError) as caught:
        await sealed.demand_keys(room.records, other)
    assert f"are not those that sealed {room.records.name} (" in str(caught.value)
    assert "postgresql://" not in str(caught.value)


async def test_a_rotation_makes_the_new_key_the_one_that_seals(room: Room, ring: KeyRing, clock: ManualClock) -> None:
    await sealed.remember_key(room.records, ring)
    first = ring.masters.current
    clock.advance(10)
    ring.rotate_master(0)
    await sealed.demand_keys(room.records, ring)
    await sealed.remember_key(room.records, ring)
    assert await room.records.sealed_by() == ring.sealer.current
    ring.retire_master(first)
    await sealed.demand_keys(room.records, ring)


async def test_a_look_at_many_rows_is_quick(room: Room) -> None:
    """It is taken at each start. A hundred thousand take a few dozen milliseconds; half a second is generous."""
    made = [
        {
            "tenant": "default", "id": f"f{number}", "subject": "s-ann", "kind": "totp", "label": "",
            "secret": room.sealer.seal(b"0" * 20, **sealed.place_of("default", f"f{number}")),
            "last_step": 0, "refused_step": -1, "failures": 0, "created_at": 0.0, "last_used_at": None,
        }
        for number in range(10_000)
    ]  # fmt: skip
    async with room.records.begin() as connection:
        await connection.execute(insert(factors), made)
    took = []
    for _ in range(3):  # the best of a few: others run too
        began = time.monotonic()
        assert await sealed.seals(room.records) == {key_id(MASTER): 10_000}
        took.append(time.monotonic() - began)
    assert min(took) < 0.5


async def test_kept_values_that_are_not_sealed_need_nothing(room: Room) -> None:
    async with room.records.begin() as connection:
        await connection.execute(
            insert(kept).values(key="x", tenant="default", value=b"{}", expires_at=room.clock.now() + 60)
        )
        await connection.execute(
            insert(kept).values(key="y", tenant="default", number=3, expires_at=room.clock.now() + 60)
        )
    assert set(await needs(room)) == {"sessions and open forms"}
