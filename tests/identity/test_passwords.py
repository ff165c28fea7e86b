from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest
from argon2.low_level import Type, hash_secret

from gateway.core.errors import StoreAway, UserError
from gateway.identity import passwords as module
from gateway.identity.passwords import NICE, Passwords, check_strength

pytestmark = pytest.mark.usefixtures("argon2_as_shipped")


@pytest.fixture
def passwords(argon2_as_shipped: None) -> Iterator[Passwords]:
    """Of this file, for its parameters are others than everybody's."""
    made = Passwords()
    yield made
    made.close()


async def test_a_hash_is_argon2id_with_the_documented_parameters(passwords: Passwords) -> None:
    hashed = await passwords.hash("correct horse battery")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await passwords.verify(hashed, "correct horse battery")
    assert not await passwords.verify(hashed, "correct horse batterx")
    assert hashed != await passwords.hash("correct horse battery")


async def test_a_hash_made_elsewhere(passwords: Passwords) -> None:
    """From the test suite of the argon2 reference implementation: version 0x13, t=2, m=2^16, p=1, `somesalt`."""
    published = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
    assert await passwords.verify(published, "password")
    assert not await passwords.verify(published, "differentpassword")
    assert passwords.outdated(published)
    assert not passwords.outdated(await passwords.hash("password"))


async def test_nobody_has_no_password_but_costs_the_same(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 104: unknown users take the same code with the same parameters."""
    compared: list[str] = []
    matches = module._matches
    monkeypatch.setattr(module, "_matches", lambda hashed, given: compared.append(hashed) or matches(hashed, given))
    hashed = await passwords.hash("correct horse battery")
    assert not await passwords.verify(None, "correct horse battery")
    assert not await passwords.verify(hashed, "wrong")
    nobody, somebody = compared
    assert nobody.split("$")[:4] == somebody.split("$")[:4]
    assert [len(part) for part in nobody.split("$")] == [len(part) for part in somebody.split("$")]


async def test_two_keyboards_one_password(passwords: Passwords) -> None:
    """RFC 8265, OpaqueString: composed and decomposed, and every kind of blank, are the same; case is not."""
    hashed = await passwords.hash("Caf\u00e9 au lait")
    assert await passwords.verify(hashed, "Cafe\u0301\u00a0au\u3000lait")
    assert not await passwords.verify(hashed, "caf\u00e9 au lait")


async def test_nothing_is_cut_off(passwords: Passwords) -> None:
    hashed = await passwords.hash("x" * 128)
    assert not await passwords.verify(hashed, "x" * 127)
    assert not await passwords.verify(hashed, "x" * 129)
    with_nul = await passwords.hash("before\0after")
    assert not await passwords.verify(with_nul, "before\0")


async def test_the_loop_goes_on(passwords: Passwords) -> None:
    ticks = 0
    verifying = asyncio.gather(*(passwords.verify(None, "x") for _ in range(6)))
    while not verifying.done():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks > 20


async def test_a_full_queue_says_so_and_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords, go_on = Passwords(), threading.Event()
    monkeypatch.setattr(module, "_matches", lambda *_: go_on.wait(10))
    waiting = [asyncio.create_task(passwords.verify(None, "x")) for _ in range(module.QUEUE)]
    await asyncio.sleep(0)
    with pytest.raises(UserError) as caught:
        await passwords.verify(None, "x")
    assert (caught.value.code, caught.value.status, caught.value.retry_after) == ("ERR-BUSY", 503, 2.0)
    for task in waiting[:10]:
        task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await passwords.verify(None, "x") is False
    passwords.close()


@pytest.mark.parametrize("damaged", ["", "x", "$argon2id$", "$argon2id$v=19$m=1,t=0,p=1$AAAA$AAAA", "$2b$12$abc"])
async def test_a_damaged_hash_lets_nobody_in(passwords: Passwords, damaged: str) -> None:
    """Case 83."""
    if damaged == "":
        assert not await passwords.verify(damaged, "x")
        return
    with pytest.raises(StoreAway):
        await passwords.verify(damaged, "x")


async def test_a_password_that_is_no_text_is_wrong(passwords: Passwords) -> None:
    assert not await passwords.verify(await passwords.hash("correct horse"), "\ud800")
    assert not await passwords.verify(None, "\ud800")


async def test_older_parameters_are_outdated(passwords: Passwords) -> None:
    old = hash_secret(b"x", b"somesalt", 1, 8192, 1, 32, Type.ID).decode()
    assert passwords.outdated(old)
    assert await passwords.verify(old, "x")


@pytest.mark.parametrize(
    "password", ["correct horse battery", "x9 kQ2 !m", "a" * 60 + "bcde" * 17, "дом у синего моря", "🐎🔋📎🦉🧲🪁🧵🎲"]
)
def test_good_ones(password: str) -> None:
    check_strength(password, "ann")


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "at least 8"),
        ("short", "at least 8"),
        ("1234567", "at least 8"),
        ("é" * 129, "at most 128"),
        ("Password", "first that anybody"),
        ("P@ssw0rd2024", "first that anybody"),
        ("qwertyuiop", "first that anybody"),
        ("abababababab", "first that anybody"),
        ("        ", "first that anybody"),
        ("annabelle.smith", "user name"),
        ("Annabelle.Smith", "user name"),
        ("annabelle.smith1", "user name"),
    ],
)
def test_weak_ones_and_why(password: str, why: str) -> None:
    """NIST SP 800-63B-4, section 3.1.1; ASVS 6.2.1, 6.2.4, 6.2.11."""
    with pytest.raises(UserError, match=why) as caught:
        check_strength(password, "annabelle.smith")
    assert caught.value.code == "ERR-PASSWORD-WEAK"


def test_a_name_in_a_long_password_is_no_harm() -> None:
    check_strength("annabelle.smith walks the dog", "annabelle.smith")


async def test_hashing_stands_back_for_the_loop() -> None:
    passwords = Passwords()
    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    theirs = await passwords._off_the_loop(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    passwords.close()
    assert theirs == min(19, mine + NICE)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == mine
