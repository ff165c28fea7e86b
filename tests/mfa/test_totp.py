from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select, update

from gateway.core.identity import Proof
from gateway.crypto.sealing import Unsealable
from gateway.mfa import otp
from gateway.store.tables import factors
from tests.mfa.conftest import Room

ANN = ("default", "s-ann")
BOB = ("default", "s-bob")


async def check(room: Room, code: str, user: tuple[str, str] = ANN) -> Proof | None:
    return await room.judge(room.totp, *user, code)


async def test_a_right_code_is_a_proof_of_now_once(room: Room) -> None:
    secret = await room.bind()
    code = room.code(secret)
    assert await check(room, code) == Proof("totp", room.clock.now())
    assert await check(room, code) is None
    room.clock.advance(30)
    assert await check(room, code) is None
    assert await check(room, room.code(secret)) is not None


@pytest.mark.parametrize("steps", [-1, 0, 1])
async def test_neighbouring_steps_count(room: Room, steps: int) -> None:
    secret = await room.bind()
    assert await check(room, room.code(secret, steps)) is not None


@pytest.mark.parametrize("steps", [-10, -2, 2, 10])
async def test_further_steps_do_not(room: Room, steps: int) -> None:
    secret = await room.bind()
    assert await check(room, room.code(secret, steps)) is None


async def test_after_a_newer_step_an_older_one_is_refused(room: Room) -> None:
    secret = await room.bind()
    older, present, newer = (room.code(secret, steps) for steps in (-1, 0, 1))
    assert await check(room, newer) is not None
    assert await check(room, present) is None
    assert await check(room, older) is None


async def test_two_processes_twenty_posts_one_success(room: Room, replica: Room) -> None:
    secret = await room.bind()
    code = room.code(secret)
    proofs = await asyncio.gather(*(check(one, code) for one in (room, replica) for _ in range(10)))
    assert sum(proof is not None for proof in proofs) == 1


async def test_a_code_is_worth_nothing_for_somebody_else_or_in_another_tenant(room: Room) -> None:
    secret = await room.bind()
    await room.bind("s-bob")
    assert await check(room, room.code(secret), BOB) is None
    assert await check(room, room.code(secret), ("other", "s-ann")) is None
    assert await check(room, room.code(secret)) is not None


async def test_any_of_several_devices_answers_and_each_has_its_own_steps(room: Room) -> None:
    phone, tablet = await room.bind(label="phone"), await room.bind(label="tablet")
    assert await check(room, room.code(tablet)) is not None
    assert await check(room, room.code(phone)) is not None
    assert await check(room, room.code(phone)) is None


async def test_the_secret_is_sealed_at_rest_and_bound_to_its_row(room: Room) -> None:
    anns, bobs = await room.bind(), await room.bind("s-bob")
    async with room.records.begin() as connection:
        rows = {row.subject: row for row in (await connection.execute(select(factors))).all()}
        for plain in (anns, otp.base32(anns).encode()):
            assert plain not in rows["s-ann"].secret
        await connection.execute(
            update(factors).where(factors.c.id == rows["s-ann"].id).values(secret=rows["s-bob"].secret)
        )
    with pytest.raises(Unsealable):
        await check(room, room.code(bobs))
    assert await check(room, room.code(bobs), BOB) is not None


async def test_a_server_clock_set_back_never_accepts_a_code_twice(room: Room) -> None:
    secret = await room.bind()
    code = room.code(secret)
    assert await check(room, code) is not None
    room.clock.jump(-3600)
    assert await check(room, room.code(secret)) is None
    room.clock.jump(3600)
    assert await check(room, code) is None


async def test_a_clock_that_is_off_is_told_of_and_nothing_is_accepted(room: Room) -> None:
    secret = await room.bind()

    async def hint(steps: int) -> str:
        code = room.code(secret, steps)
        assert await check(room, code) is None
        return await room.totp.hint(*ANN, code, room.clock.now())

    assert "about 1 minute behind" in await hint(-2)
    assert "about 5 minutes behind" in await hint(-10)
    assert "about 3 minutes ahead" in await hint(6)
    assert await hint(-11) == await hint(11) == ""
    assert await room.totp.hint(*ANN, "not a code", room.clock.now()) == ""


async def test_a_hint_does_not_give_away_a_code_that_works_later(room: Room) -> None:
    secret = await room.bind()
    code = room.code(secret, 6)
    assert "ahead" in await room.totp.hint(*ANN, code, room.clock.now())
    room.clock.advance(6 * otp.STEP)
    assert await check(room, code) is None
    assert await check(room, room.code(secret, 1)) is not None


async def test_offered_only_to_who_has_one_in_use(room: Room) -> None:
    assert not await room.totp.offer(*ANN)
    await room.bind()
    assert await room.totp.offer(*ANN)
    assert not await room.totp.offer(*BOB)
    async with room.records.begin() as connection:
        await connection.execute(update(factors).values(failures=100))
    assert not await room.totp.offer(*ANN)


async def test_no_secret_is_printed(room: Room) -> None:
    secret = await room.bind()
    async with room.records.read() as connection:
        assert str(secret) not in repr(await room.totp._devices(connection, *ANN))
