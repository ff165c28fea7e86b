from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import delete, update

from gateway.core.errors import UserError
from gateway.mfa.attempts import LIFE, RUN
from gateway.mfa.factors import Checked
from gateway.store.tables import factors, users
from tests.mfa.codes.conftest import own
from tests.mfa.conftest import Room

ANN = ("default", "s-ann")


async def fail_to(room: Room, failures: int) -> None:
    async with room.records.begin() as connection:
        await connection.execute(update(factors).values(failures=failures))


async def test_lists_what_is_bound(room: Room) -> None:
    assert await room.factors.of(*ANN) == []
    await room.bind(label="phone")
    await room.give_codes()
    phone, codes = await room.factors.of(*ANN)
    assert (phone.kind, phone.label, phone.disabled, phone.created_at) == ("totp", "phone", False, 1_699_996_410.0)
    assert (codes.kind, codes.last_used_at) == ("backup_code", 0.0)
    assert await room.factors.of("other", "s-ann") == []


async def test_the_app_comes_before_codes_also_when_codes_were_used_last(room: Room) -> None:
    secret = await room.bind()
    async with room.records.begin() as connection:
        await connection.execute(update(factors).values(last_used_at=None))
    codes = await room.give_codes()
    assert await room.factors.usable(*ANN) == ("totp", "backup_code")
    await room.factors.check(*ANN, "backup_code", codes[0])
    assert await room.factors.usable(*ANN) == ("totp", "backup_code")
    room.clock.advance(60)
    await room.factors.check(*ANN, "totp", room.code(secret))
    assert await room.factors.usable(*ANN) == ("totp", "backup_code")


async def test_codes_that_are_used_up_or_void_are_not_usable(room: Room) -> None:
    await room.bind()
    await room.give_codes()
    room.clock.advance(91 * 86400)
    assert await room.factors.usable(*ANN) == ("totp",)
    assert len(await room.factors.of(*ANN)) == 2


async def test_of_a_hundred_wrong_guesses_at_once_five_are_checked(
    room: Room, replica: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = await room.bind()
    wrong = room.wrong(secret)
    looked = 0
    for one in (room, replica):
        check = one.totp.check

        async def counting(*what: object, check: object = check, **how: object) -> object:
            nonlocal looked
            looked += 1
            return await check(*what, **how)  # type: ignore[operator]

        monkeypatch.setattr(one.totp, "check", counting)
    answers = await asyncio.gather(
        *(one.factors.check(*ANN, "totp", wrong) for one in (room, replica) for _ in range(50))
    )
    assert looked == RUN
    assert sum(answer.wait > 0 for answer in answers) == 95
    assert (await room.factors.check(*ANN, "totp", room.code(secret))).proof is None  # right, but too late


async def test_the_sixth_try_is_not_looked_at_even_when_right_and_the_code_is_not_used_up(room: Room) -> None:
    secret = await room.bind()
    for _ in range(RUN):
        await room.factors.check(*ANN, "totp", room.wrong(secret))
    shut_out = await room.factors.check(*ANN, "totp", room.code(secret))
    assert shut_out == Checked(wait=900.0)
    room.clock.advance(900)
    assert (await room.factors.check(*ANN, "totp", room.code(secret))).proof is not None


async def test_a_hundred_wrong_in_a_row_take_a_factor_out_of_use_told_once(room: Room) -> None:
    secret = await room.bind()
    told = []
    for _ in range(LIFE):
        assert await room.factors.usable(*ANN) == ("totp",)
        told.append((await room.factors.check(*ANN, "totp", room.wrong(secret))).disabled)
        room.clock.advance(3600)
    (device,) = await room.factors.of(*ANN)
    assert device.disabled
    assert told == [()] * (LIFE - 1) + [(device.id,)]
    room.clock.advance(10 * 365 * 86400)
    late = await room.factors.check(*ANN, "totp", room.code(secret))
    assert late.proof is None
    assert late.disabled == ()
    assert await room.factors.usable(*ANN) == ()


async def test_a_right_answer_at_the_last_try_begins_a_new_life(room: Room) -> None:
    secret = await room.bind()
    await fail_to(room, LIFE - 1)
    assert (await room.factors.check(*ANN, "totp", room.code(secret))).proof is not None
    for _ in range(RUN):
        assert (await room.factors.check(*ANN, "totp", room.wrong(secret))).disabled == ()


async def test_the_last_try_is_one_even_when_ten_come_at_once(room: Room, replica: Room) -> None:
    secret = await room.bind()
    await fail_to(room, LIFE - 1)
    answers = await asyncio.gather(
        *(one.factors.check(*ANN, "totp", room.wrong(secret)) for one in (room, replica) for _ in range(5))
    )
    assert sum(len(answer.disabled) for answer in answers) == 1
    assert (await room.factors.of(*ANN))[0].disabled


async def test_a_device_out_of_use_stays_so_when_another_one_answers(room: Room) -> None:
    lost = await room.bind(label="lost")
    await fail_to(room, LIFE)
    phone = await room.bind(label="phone")
    assert (await room.factors.check(*ANN, "totp", room.code(lost))).proof is None
    assert (await room.factors.check(*ANN, "totp", room.code(phone))).proof is not None
    assert {one.label: one.disabled for one in await room.factors.of(*ANN)} == {"lost": True, "phone": False}
    assert (await room.factors.check(*ANN, "totp", room.code(lost, 1))).proof is None


async def test_hints_only_where_they_are_allowed(room: Room) -> None:
    secret = await room.bind()
    assert (await room.factors.check(*ANN, "totp", room.code(secret, -4))).hint == ""
    assert "2 minutes behind" in (await room.factors.check(*ANN, "totp", room.code(secret, -4), hint=True)).hint


async def test_backup_codes_have_a_life_too(room: Room) -> None:
    codes = await room.give_codes()
    await fail_to(room, LIFE - 1)
    last = await room.factors.check(*ANN, "backup_code", "00000-00000")
    assert len(last.disabled) == 1
    assert (await room.factors.check(*ANN, "backup_code", codes[0])).proof is None
    fresh = await room.give_codes()
    assert (await room.factors.check(*ANN, "backup_code", fresh[0])).proof is not None


async def test_how_many_could_answer(room: Room) -> None:
    """People, not rows; not what is out of use, used up, no longer offered, or of somebody who is disabled."""
    assert await room.factors.adoption() == (2, {"totp": 0.0, "backup_code": 0.0, "any": 0.0})
    await room.bind("s-ann", "phone")
    await room.bind("s-ann", "tablet")
    codes = await room.give_codes("s-ann")
    await room.bind("s-bob")
    assert await room.factors.adoption() == (2, {"totp": 2.0, "backup_code": 1.0, "any": 2.0})
    for code in codes:
        assert (await room.factors.check(*ANN, "backup_code", code)).proof is not None
    assert await room.factors.adoption() == (2, {"totp": 2.0, "backup_code": 0.0, "any": 2.0})
    without_apps = Room(room.records, room.clock, ("backup_code",))
    assert await without_apps.factors.adoption() == (2, {"backup_code": 0.0, "any": 0.0})
    async with room.records.begin() as connection:
        await connection.execute(update(factors).where(factors.c.subject == "s-ann").values(failures=LIFE))
    assert await room.factors.adoption() == (2, {"totp": 1.0, "backup_code": 0.0, "any": 1.0})
    async with room.records.begin() as connection:
        await connection.execute(update(users).where(users.c.subject == "s-bob").values(disabled=True))
    assert await room.factors.adoption() == (1, {"totp": 0.0, "backup_code": 0.0, "any": 0.0})


async def test_backup_codes_that_are_void_help_nobody(room: Room) -> None:
    await room.bind()
    await room.give_codes()
    room.clock.advance(91 * 86400)
    assert await room.factors.adoption() == (2, {"totp": 1.0, "backup_code": 0.0, "any": 1.0})


async def test_who_prefers_a_factor_is_asked_for_it_first(room: Room, replica: Room) -> None:
    both = Room(room.records, room.clock, ("totp", "sms", "backup_code"))
    secret = await both.bind()
    await own(both)
    await both.give_codes()
    assert await both.factors.preferred(*ANN) == ""
    await both.factors.check(*ANN, "totp", both.code(secret))
    assert await both.factors.usable(*ANN) == ("totp", "sms", "backup_code"), "the one used last"
    await both.factors.prefer(*ANN, "sms")
    assert await both.factors.usable(*ANN) == ("sms", "totp", "backup_code")
    assert await replica.factors.preferred(*ANN) == "sms"
    assert await both.factors.usable("default", "s-bob") == ()
    async with both.records.begin() as connection:
        await connection.execute(delete(factors).where(factors.c.kind == "sms"))
    assert await both.factors.usable(*ANN) == ("totp", "backup_code"), "what is gone is not asked for"
    await both.factors.prefer(*ANN, "")
    assert await both.factors.preferred(*ANN) == ""


@pytest.mark.parametrize("factor", ["sms", "backup_code", "password", "x" * 64])
async def test_nobody_prefers_what_they_do_not_have_or_what_comes_last(room: Room, factor: str) -> None:
    room = Room(room.records, room.clock, ("totp", "sms", "backup_code"))
    await room.bind()
    await room.give_codes()
    with pytest.raises(UserError, match="ERR-MFA-METHOD"):
        await room.factors.prefer(*ANN, factor)
    assert await room.factors.preferred(*ANN) == ""


async def test_among_those_never_used_the_operators_order_counts(room: Room) -> None:
    for order in (("totp", "sms"), ("sms", "totp")):
        ordered = Room(room.records, room.clock, order)
        if order == ("totp", "sms"):
            await ordered.bind()
            await own(ordered)
            async with room.records.begin() as connection:
                await connection.execute(update(factors).values(last_used_at=None))
        assert await ordered.factors.usable(*ANN) == order
