"""One contract, every `KeyValue`."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from gateway.core.clock import ManualClock
from gateway.core.contracts import KeyValue
from gateway.core.errors import StoreAway
from gateway.store.memory import MemoryKeyValue
from gateway.store.sql import Records
from gateway.store.sql_key_value import SWEEP_EVERY, SqlKeyValue


@pytest.fixture(params=["memory", "sql"])
def kv(request: pytest.FixtureRequest, clock: ManualClock, records: Records) -> KeyValue:
    return MemoryKeyValue(clock) if request.param == "memory" else SqlKeyValue(records, clock)


async def test_a_value_lives_its_time(kv: KeyValue, clock: ManualClock) -> None:
    assert await kv.get("t/a") is None
    await kv.put("t/a", b"\x00one", 10)
    clock.advance(9.9)
    assert await kv.get("t/a") == b"\x00one"
    clock.advance(0.1)
    assert await kv.get("t/a") is None


async def test_putting_again_replaces_value_and_time(kv: KeyValue, clock: ManualClock) -> None:
    await kv.put("t/a", b"one", 10)
    clock.advance(5)
    await kv.put("t/a", b"two", 10)
    clock.advance(9)
    assert await kv.get("t/a") == b"two"


async def test_dropping(kv: KeyValue) -> None:
    await kv.put("t/a", b"one", 10)
    await kv.add("t/n", 3, 10)
    await kv.drop("t/a")
    await kv.drop("t/n")
    await kv.drop("t/never")
    assert await kv.get("t/a") is None
    assert await kv.add("t/n", 1, 10) == 1


async def test_exactly_one_of_many_claims(kv: KeyValue, clock: ManualClock) -> None:
    assert sorted(await asyncio.gather(*(kv.claim("t/once", 10) for _ in range(30)))) == [False] * 29 + [True]
    clock.advance(9.9)
    assert await kv.claim("t/once", 10) is False
    clock.advance(0.1)
    assert await kv.claim("t/once", 10) is True
    assert await kv.claim("t/once", 10) is False


async def test_exactly_one_of_many_takes(kv: KeyValue, clock: ManualClock) -> None:
    await kv.put("t/a", b"one", 10)
    taken = await asyncio.gather(*(kv.take("t/a") for _ in range(30)))
    assert [value for value in taken if value is not None] == [b"one"]
    await kv.put("t/a", b"two", 10)
    clock.advance(10)
    assert await kv.take("t/a") is None


async def test_counters_count_every_addition_once(kv: KeyValue) -> None:
    counted = await asyncio.gather(*(kv.add("t/n", 1, 10) for _ in range(40)))
    assert sorted(counted) == list(range(1, 41))
    assert await kv.add("t/n", -5, 10) == 35
    assert await kv.get("t/n") == b"35"


async def test_a_counter_lives_from_its_first_use(kv: KeyValue, clock: ManualClock) -> None:
    assert await kv.add("t/n", 1, 10) == 1
    clock.advance(9.9)
    assert await kv.add("t/n", 1, 10) == 2
    clock.advance(0.1)
    assert await kv.get("t/n") is None
    assert await kv.add("t/n", 1, 10) == 1


async def test_keys_do_not_meet(kv: KeyValue) -> None:
    await kv.put("a/x", b"1", 10)
    await kv.put("b/x", b"2", 10)
    assert await kv.take("a/x") == b"1"
    assert await kv.get("b/x") == b"2"


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
    again = await Records.open(f"sqlite:{records._path}", clock=clock)
    assert await SqlKeyValue(again, clock).claim("t/once", 100) is False
    await again.close()


async def test_sql_rows_carry_their_tenant_and_expired_ones_go(records: Records, clock: ManualClock) -> None:
    kv = SqlKeyValue(records, clock)
    await kv.put("acme/old", b"", 1)
    clock.advance(2)
    for _ in range(SWEEP_EVERY):
        await kv.add("acme/count", 1, 100)
    with sqlite3.connect(records._path) as database:
        assert database.execute("SELECT tenant, key, number FROM kept").fetchall() == [
            ("acme", "acme/count", SWEEP_EVERY)
        ]
    database.close()
