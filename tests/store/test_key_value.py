"""One contract, every `KeyValue`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import ManualClock
from gateway.core.contracts import KeyValue
from gateway.core.errors import StoreAway
from gateway.store.memory import MemoryKeyValue
from gateway.store.redis import Redis
from gateway.store.redis_key_value import RedisKeyValue
from gateway.store.sql import Records
from gateway.store.sql_key_value import SWEEP_EVERY, SqlKeyValue
from tests.rig.behind import behind
from tests.rig.postgres import EITHER, either
from tests.rig.redis import needs_redis
from tests.store.conftest import KINDS, where_of


class Shelf:
    """A `KeyValue`, and a way to let time pass by the clock that it goes by itself.

    `unit` is a lifetime that is long enough to look twice, in seconds. Redis's clock is nobody's to move: there, most
    of it is taken from the key instead.
    """

    unit = 20.0

    def __init__(self, kv: KeyValue, clock: ManualClock | Redis) -> None:
        self.kv = kv
        self.clock = clock

    async def expire(self, key: str) -> None:
        """Let `key` live to its end. It must be there now, and not go before its time."""
        left = await self.kv.left(key)
        assert self.unit / 2 < left <= self.unit
        if isinstance(self.clock, ManualClock):
            self.clock.advance(left - self.unit / 100)
            assert await self.kv.left(key) > 0
            self.clock.advance(self.unit / 100)
            assert await self.kv.left(key) == 0
            return
        began = time.monotonic()
        assert await self.clock.execute("PEXPIRE", f"{self.clock.prefix}k:{key}", "300") == 1
        while await self.kv.left(key):
            assert time.monotonic() - began < 10
            await asyncio.sleep(0.005)
        assert time.monotonic() - began > 0.25


@pytest.fixture(params=["memory", *EITHER, *(pytest.param(kind, marks=needs_redis) for kind in KINDS)])
async def shelf(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Shelf]:
    if request.param in KINDS:
        redis = await Redis.open(where_of(request.param, request), clock=clock)
        yield Shelf(RedisKeyValue(redis), redis)
        await redis.close()
    elif request.param in EITHER:
        records = await Records.open(either(request, tmp_path), clock=clock)
        yield Shelf(SqlKeyValue(records, clock), clock)
        await records.close()
    else:
        yield Shelf(MemoryKeyValue(clock), clock)


@pytest.fixture
def kv(shelf: Shelf) -> KeyValue:
    return shelf.kv


async def test_a_value_lives_its_time(kv: KeyValue, shelf: Shelf) -> None:
    assert await kv.get("t/a") is None
    assert await kv.left("t/a") == 0.0
    await kv.put("t/a", b"\x00one", shelf.unit)
    assert await kv.get("t/a") == b"\x00one"
    await shelf.expire("t/a")
    assert await kv.get("t/a") is None


async def test_putting_again_replaces_value_and_time(kv: KeyValue, shelf: Shelf) -> None:
    await kv.put("t/a", b"one", shelf.unit / 5)
    await kv.put("t/a", b"two", shelf.unit)
    assert await kv.left("t/a") > shelf.unit / 5
    assert await kv.get("t/a") == b"two"


async def test_dropping(kv: KeyValue) -> None:
    await kv.put("t/a", b"one", 10)
    await kv.add("t/n", 3, 10)
    await kv.drop("t/a")
    await kv.drop("t/n")
    await kv.drop("t/never")
    assert await kv.get("t/a") is None
    assert await kv.add("t/n", 1, 10) == 1


async def test_exactly_one_of_many_claims(kv: KeyValue, shelf: Shelf) -> None:
    assert sorted(await asyncio.gather(*(kv.claim("t/once", shelf.unit) for _ in range(50)))) == [False] * 49 + [True]
    await shelf.expire("t/once")
    assert await kv.claim("t/once", shelf.unit) is True
    assert await kv.claim("t/once", shelf.unit) is False


async def test_exactly_one_of_many_takes(kv: KeyValue, shelf: Shelf) -> None:
    await kv.put("t/a", b"one", 10)
    taken = await asyncio.gather(*(kv.take("t/a") for _ in range(50)))
    assert [value for value in taken if value is not None] == [b"one"]
    await kv.put("t/a", b"two", shelf.unit)
    await shelf.expire("t/a")
    assert await kv.take("t/a") is None


async def test_a_counter_holds_a_moment_in_milliseconds(kv: KeyValue) -> None:
    assert await kv.add("t/wait", 1, 10) == 1
    assert await kv.add("t/wait", 1_700_000_000_000, 10) == 1_700_000_000_001
    assert await kv.add("t/wait", -(2**40), 10) == 1_700_000_000_001 - 2**40


async def test_counters_count_every_addition_once(kv: KeyValue) -> None:
    counted = await asyncio.gather(*(kv.add("t/n", 1, 10) for _ in range(50)))
    assert sorted(counted) == list(range(1, 51))
    assert await kv.add("t/n", -5, 10) == 45
    assert await kv.get("t/n") == b"45"


async def test_a_counter_lives_from_its_first_use(kv: KeyValue, shelf: Shelf) -> None:
    assert await kv.add("t/n", 1, shelf.unit) == 1
    assert await kv.add("t/n", 1, 100 * shelf.unit) == 2
    await shelf.expire("t/n")
    assert await kv.get("t/n") is None
    assert await kv.add("t/n", 1, 10) == 1


async def test_keys_do_not_meet(kv: KeyValue) -> None:
    await kv.put("a/x", b"1", 10)
    await kv.put("b/x", b"2", 10)
    assert await kv.take("a/x") == b"1"
    assert await kv.get("b/x") == b"2"


STRANGE = ["t/{a}", "t/}{", "t/ \r\nSET x 1\r\n", "t/%25*?[a]", "t/ünï", "t/" + "k" * 900, "t/\x00"]


@pytest.mark.parametrize("key", STRANGE)
async def test_keys_may_hold_anything(kv: KeyValue, key: str) -> None:
    assert await kv.claim(key, 10) is True
    assert await kv.claim(key, 10) is False
    await kv.drop(key)
    assert await kv.add(key, 2, 10) == 2
    await kv.put(key, b"v", 10)
    assert await kv.get("t/a") is None
    assert await kv.take(key) == b"v"


async def test_values_may_be_large_and_hold_anything(kv: KeyValue) -> None:
    value = bytes(range(256)) * 1024
    await kv.put("t/large", value, 10)
    assert await kv.get("t/large") == value
    assert await kv.take("t/large") == value


async def test_memory_ignores_a_clock_that_is_set(clock: ManualClock) -> None:
    kv = MemoryKeyValue(clock)
    await kv.claim("t/a", 10)
    clock.jump(3600)
    assert await kv.claim("t/a", 10) is False
    clock.advance(10)
    clock.jump(-7200)
    assert await kv.claim("t/a", 10) is True


async def test_memory_refuses_values_when_full_and_never_forgets_a_claim(clock: ManualClock) -> None:
    kv = MemoryKeyValue(clock, capacity=10)
    for number in range(10):
        assert await kv.claim(f"t/{number}", 10 + number)
    with pytest.raises(StoreAway):
        await kv.put("t/more", b"", 10)
    with pytest.raises(StoreAway):
        await kv.claim("t/more", 10)
    assert await kv.claim("t/0", 10) is False
    clock.advance(12)
    assert await kv.claim("t/more", 10) is True


async def test_memory_makes_room_for_counters(clock: ManualClock) -> None:
    kv = MemoryKeyValue(clock, capacity=10)
    for number in range(1000):
        assert await kv.add(f"t/{number}", 1, 100) == 1
    assert len(kv._counters) <= 10
    assert await kv.get("t/999") == b"1"


async def test_sql_outlives_a_restart(records: Records, clock: ManualClock) -> None:
    await SqlKeyValue(records, clock).claim("t/once", 100)
    again = await Records.open(records.place, clock=clock)
    assert await SqlKeyValue(again, clock).claim("t/once", 100) is False
    await again.close()


async def test_sql_rows_carry_their_tenant_and_expired_ones_go(records: Records, clock: ManualClock) -> None:
    kv = SqlKeyValue(records, clock)
    await kv.put("acme/old", b"", 1)
    clock.advance(2)
    for _ in range(SWEEP_EVERY):
        await kv.add("acme/count", 1, 100)
    assert behind(records.place, "SELECT tenant, key, number FROM kept") == [("acme", "acme/count", SWEEP_EVERY)]


async def test_what_was_claimed_is_though_nobody_could_tidy_up_after_it(
    records: Records, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is told that the store is away tries again, and their code would be used up."""
    kv = SqlKeyValue(records, clock)
    kv._writes = SWEEP_EVERY - 1
    begin, begun = records.begin, []

    def once(*whom: str) -> Any:
        begun.append(whom)
        if len(begun) > 1:
            raise StoreAway("gone")
        return begin(*whom)

    monkeypatch.setattr(records, "begin", once)
    assert await kv.claim("acme/last", 60)
    assert len(begun) == 2
