from __future__ import annotations

import asyncio

import pytest

from gateway.core.clock import ManualClock
from gateway.core.contracts import KeyValue
from gateway.core.errors import StoreAway
from gateway.identity.throttle import FREE_FOR_ADDRESS, LONGEST_WAIT, REMEMBER, SignInThrottle
from gateway.store.memory import MemoryKeyValue
from gateway.store.sql import Records
from gateway.store.sql_key_value import SqlKeyValue

HERE, THERE = "192.0.2.1", "198.51.100.7"


@pytest.fixture(params=["memory", "sql"])
def kv(request: pytest.FixtureRequest, clock: ManualClock, records: Records) -> KeyValue:
    return MemoryKeyValue(clock) if request.param == "memory" else SqlKeyValue(records, clock)


@pytest.fixture
def throttle(kv: KeyValue, clock: ManualClock) -> SignInThrottle:
    return SignInThrottle(kv)


async def admitted(throttle: SignInThrottle, account: str, network: str, known: bool = False, tries: int = 30) -> int:
    """How many of `tries` in a row, without waiting, are let through."""
    return [await throttle.admit(account, network, known) == 0.0 for _ in range(tries)].count(True)


async def test_within_ten_wrong_tries_at_one_account(throttle: SignInThrottle) -> None:
    waits = [await throttle.admit("ann", f"192.0.2.{number}", False) for number in range(10)]
    assert waits[:6] == [0.0] * 6
    assert min(waits[6:]) > 0


async def test_within_ten_wrong_tries_from_one_address(throttle: SignInThrottle) -> None:
    """Password spraying: another name each time."""
    waits = [await throttle.admit(f"user{number}", HERE, False) for number in range(12)]
    assert waits[:9] == [0.0] * 9
    assert min(waits[9:]) > 0


async def test_a_flood_of_names_does_not_give_an_account_its_free_tries_back(clock: ManualClock) -> None:
    """From a network that has addresses enough, each for a few names."""
    throttle = SignInThrottle(MemoryKeyValue(clock, capacity=256))
    assert [await throttle.admit("ann", f"network {number}", False) for number in range(6)] == [0.0] * 6
    for number in range(1000):
        await throttle.admit(f"nobody{number}", f"another {number // FREE_FOR_ADDRESS}", False)
    tries = [await throttle.admit("ann", f"a third {number}", False) for number in range(6)]
    assert tries.count(0.0) <= 1, "the wait may be forgotten, and begins anew; the tries are not"


async def test_waits_grow_and_are_told_truly(throttle: SignInThrottle, clock: ManualClock) -> None:
    assert await admitted(throttle, "ann", HERE, tries=6) == 6
    waits = []
    for number in range(11):
        wait = await throttle.admit("ann", f"network {number}", False)
        waits.append(wait)
        clock.advance(wait - 0.5)
        assert 0 < await throttle.admit("ann", f"network {number}", False) <= 1.0
        clock.advance(0.5)
        assert await throttle.admit("ann", f"network {number}", False) == 0.0
    assert waits == pytest.approx([2, 4, 8, 16, 32, 64, 128, 256, 512, LONGEST_WAIT, LONGEST_WAIT], abs=0.01)


async def test_never_more_than_a_quarter_of_an_hour_however_hard_it_is_tried(
    throttle: SignInThrottle, clock: ManualClock
) -> None:
    """A stranger can make it slow, but never lock anybody out, and hammering does not prolong the wait."""
    for _ in range(40):
        await throttle.admit("ann", HERE, False)
        clock.advance(30)
    for _ in range(500):
        assert await throttle.admit("ann", HERE, False) <= LONGEST_WAIT
    clock.advance(LONGEST_WAIT)
    assert await throttle.admit("ann", THERE, False) == 0.0


async def test_a_hundred_guesses_in_one_instant_are_a_hundred_guesses(throttle: SignInThrottle) -> None:
    """Case 105."""
    tries = (throttle.admit("ann", f"network {number}", False) for number in range(100))
    waits = await asyncio.gather(*tries)
    assert waits.count(0.0) == 6
    assert await admitted(throttle, "ann", "another") == 0


async def test_refused_tries_do_not_count(throttle: SignInThrottle, clock: ManualClock) -> None:
    await asyncio.gather(*(throttle.admit("ann", HERE, False) for _ in range(100)))
    clock.advance(2)
    assert await throttle.admit("ann", HERE, False) == 0.0
    assert await throttle.admit("ann", HERE, False) == pytest.approx(4.0, abs=0.01)


async def test_a_try_refused_for_its_address_is_no_try_at_the_account(throttle: SignInThrottle) -> None:
    assert await admitted(throttle, "somebody", HERE, tries=6) == 6
    await admitted(throttle, "else", HERE, tries=10)
    assert await admitted(throttle, "ann", HERE) == 0
    assert await admitted(throttle, "ann", THERE) == 6


async def test_a_stranger_does_not_lock_the_owner_out(throttle: SignInThrottle) -> None:
    """Also not from behind the same router."""
    await admitted(throttle, "ann", HERE)
    assert await throttle.admit("ann", THERE, False) > 0
    assert await throttle.admit("ann", HERE, True) == 0.0
    await throttle.succeeded("ann", HERE, True)
    assert await admitted(throttle, "ann", HERE, known=True) == 6
    assert await throttle.admit("ann", HERE, False) > 0  # the stranger got nothing back by it


async def test_success_gives_an_account_its_free_tries_back(throttle: SignInThrottle, clock: ManualClock) -> None:
    assert await admitted(throttle, "ann", HERE, tries=6) == 6
    clock.advance(2)
    assert await throttle.admit("ann", HERE, False) == 0.0
    await throttle.succeeded("ann", HERE, False)
    assert await admitted(throttle, "ann", THERE) == 6


async def test_ones_own_success_does_not_buy_guesses_at_others(throttle: SignInThrottle) -> None:
    guesses = 0
    for number in range(30):
        if await throttle.admit("mallory", HERE, False) == 0.0:
            await throttle.succeeded("mallory", HERE, False)
        guesses += await throttle.admit(f"user{number}", HERE, False) == 0.0
    assert guesses <= 9


async def test_an_office_that_signs_in_properly_is_never_slowed(throttle: SignInThrottle) -> None:
    for number in range(100):
        assert await throttle.admit(f"user{number}", HERE, False) == 0.0
        await throttle.succeeded(f"user{number}", HERE, False)


async def test_all_is_forgotten_after_a_day(throttle: SignInThrottle, clock: ManualClock) -> None:
    await admitted(throttle, "ann", HERE)
    clock.advance(REMEMBER)
    assert await admitted(throttle, "ann", HERE) == 6


async def test_guesses_in_a_day_at_one_account_stay_few(clock: ManualClock) -> None:
    throttle, guesses, start = SignInThrottle(MemoryKeyValue(clock)), 0, clock.now()
    while clock.now() - start < 86400:
        wait = await throttle.admit("ann", f"network {guesses}", False)
        guesses += wait == 0.0
        clock.advance(wait or 0.01)
    assert guesses < 115


async def test_replicas_whose_clocks_differ_wait_equally_long(clock: ManualClock) -> None:
    """What is kept together is timed by its keeper; no gateway's own clock is asked."""
    kv = MemoryKeyValue(clock)
    one, other = SignInThrottle(kv), SignInThrottle(kv)
    assert await admitted(one, "ann", HERE, tries=6) == 6
    clock.jump(3600)
    assert 1.0 <= await other.admit("ann", THERE, False) <= 2.0
    clock.jump(-7200)
    assert 1.0 <= await one.admit("ann", THERE, False) <= 2.0
    clock.advance(2)
    assert await other.admit("ann", THERE, False) == 0.0


async def test_tenants_do_not_meet(throttle: SignInThrottle) -> None:
    await admitted(throttle, "ann", HERE)
    assert await throttle.admit("ann", HERE, False, tenant="acme") == 0.0


async def test_what_was_typed_is_not_kept(clock: ManualClock) -> None:
    kv = MemoryKeyValue(clock)
    await SignInThrottle(kv).admit("my password, in the wrong field", HERE, False)
    assert "password" not in repr(kv._counters)


async def test_who_cannot_count_lets_nobody_guess(records: Records, clock: ManualClock) -> None:
    throttle = SignInThrottle(SqlKeyValue(records, clock))
    async with records.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE kept")
    with pytest.raises(StoreAway):
        await throttle.admit("ann", HERE, False)


async def test_a_try_that_nobody_looked_at_is_none(throttle: SignInThrottle, clock: ManualClock) -> None:
    """However often; and who had to wait for it waits no more."""
    for _ in range(30):
        assert await throttle.admit("ann", HERE, False) == 0.0
        await throttle.withdrawn("ann", HERE, False)
    assert await admitted(throttle, "ann", HERE, tries=6) == 6
    wait = await throttle.admit("ann", THERE, False)
    assert wait > 1.0
    clock.advance(wait)
    assert await throttle.admit("ann", THERE, False) == 0.0
    await throttle.withdrawn("ann", THERE, False)
    assert await throttle.admit("ann", THERE, False) == 0.0
    assert await throttle.admit("ann", THERE, False) > 1.0
