from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from gateway.core.identity import Proof
from gateway.crypto.mac import Mac
from gateway.mfa.backup_codes import ALPHABET, COUNT, LENGTH, LIFETIME, BackupCodes, canonical, new_code
from gateway.store.tables import backup_codes
from tests.mfa.conftest import MASTER, Room

ANN = ("default", "s-ann")
BOB = ("default", "s-bob")


async def check(room: Room, code: str, user: tuple[str, str] = ANN) -> Proof | None:
    return await room.judge(room.backup_codes, *user, code)


def test_codes_have_fifty_bits_in_letters_hard_to_mistake() -> None:
    assert LENGTH * math.log2(len(ALPHABET)) >= 50
    assert len(set(ALPHABET)) == 32
    assert not set("ilou") & set(ALPHABET)
    code = new_code()
    assert len(code) == 11
    assert code[5] == "-"


@pytest.mark.parametrize(
    "typed",
    ["a1b0c-d2e3f", "A1B0C-D2E3F", "a1b0cd2e3f", " a1b0c d2e3f ", "alboc-d2e3f", "AIBOC–D2E3F", "a1b0c.d2e3f",
     "aıb0c-d2e3f", "AİBOC-D2E3F"],
)  # fmt: skip
def test_codes_are_read_forgivingly(typed: str) -> None:
    assert canonical(typed) == "a1b0cd2e3f"


@pytest.mark.parametrize("typed", ["", "a1b0c-d2e3", "a1b0c-d2e3ff", "a1b0c-d2e3u", "a1b0c-d2e3é", "a" * 10_000])
def test_what_cannot_be_a_code_is_nothing(typed: str) -> None:
    assert canonical(typed) == ""


@given(st.text())
def test_any_text_is_a_code_or_nothing(typed: str) -> None:
    read = canonical(typed)
    assert read == "" or (len(read) == LENGTH and set(read) <= set(ALPHABET))


async def test_ten_different_codes_each_once_in_any_order(room: Room) -> None:
    codes = await room.give_codes()
    assert len(set(codes)) == COUNT == 10
    for code in reversed(codes):
        assert await check(room, code.upper()) == Proof("backup_code", room.clock.now())
        assert await check(room, code) is None
    assert not await room.backup_codes.offer(*ANN)


async def test_twenty_tries_in_two_processes_one_success(room: Room, replica: Room) -> None:
    code = (await room.give_codes())[3]
    proofs = await asyncio.gather(*(check(one, code) for one in (room, replica) for _ in range(10)))
    assert sum(proof is not None for proof in proofs) == 1
    assert (await room.backup_codes.left(*ANN)).count == 9


async def test_only_a_keyed_hash_is_kept(room: Room) -> None:
    codes = await room.give_codes()
    async with room.records.read() as connection:
        rows = (await connection.execute(select(backup_codes))).all()
    kept = repr(rows)
    assert all(code not in kept and canonical(code) not in kept for code in codes)
    stranger = BackupCodes(room.records, Mac([b"x" * 32]), room.clock)
    assert await room.judge(stranger, *ANN, codes[0]) is None


async def test_codes_outlive_a_change_of_the_master_key(room: Room) -> None:
    codes = await room.give_codes()
    rotated = BackupCodes(room.records, Mac([b"n" * 32, MASTER]), room.clock)
    assert await room.judge(rotated, *ANN, codes[0]) is not None


async def test_those_of_others_are_not_counted(room: Room) -> None:
    codes = await room.give_codes()
    await room.give_codes("s-bob")
    assert await check(room, codes[0]) is not None
    assert [(await room.backup_codes.left(*who)).count for who in (ANN, BOB)] == [9, 10]


async def test_new_codes_void_the_old(room: Room) -> None:
    old = await room.give_codes()
    new = await room.give_codes()
    for code in old:
        assert await check(room, code) is None
    assert await check(room, new[0]) is not None
    assert len([one for one in await room.factors.of(*ANN) if one.kind == "backup_code"]) == 1


async def test_void_after_ninety_days(room: Room) -> None:
    codes = await room.give_codes()
    room.clock.advance(LIFETIME - 1)
    assert await check(room, codes[0]) is not None
    room.clock.advance(1)
    assert await check(room, codes[1]) is None
    assert not await room.backup_codes.offer(*ANN)
    assert LIFETIME == 90 * 24 * 3600


async def test_worth_nothing_for_somebody_else(room: Room) -> None:
    codes = await room.give_codes()
    await room.give_codes("s-bob")
    assert await check(room, codes[0], BOB) is None
    assert await check(room, codes[0], ("other", "s-ann")) is None
    assert await check(room, codes[0]) is not None


async def test_says_how_many_are_left_and_when_it_is_time_for_more(room: Room) -> None:
    assert (await room.backup_codes.left(*ANN)).count == 0
    codes = await room.give_codes()
    left = await room.backup_codes.left(*ANN)
    assert (left.count, left.few, left.expires_at) == (10, False, room.clock.now() + LIFETIME)
    for code in codes[:6]:
        await check(room, code)
    assert not (await room.backup_codes.left(*ANN)).few
    await check(room, codes[6])
    left = await room.backup_codes.left(*ANN)
    assert (left.count, left.few) == (3, True)
