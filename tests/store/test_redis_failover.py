"""Another master is elected, slots move: under load, and nothing is counted twice or lost that was told as done."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import pytest
from redis.crc import key_slot

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.store.line import DEADLINE
from gateway.store.redis import Redis, Script
from gateway.store.redis_key_value import RedisKeyValue
from tests.rig.awake import Awake
from tests.rig.once import PATIENT
from tests.rig.redis import Masters, Server, Watched, answered, needs_redis, until, watched

pytestmark = needs_redis

AT_MOST = 0.2
"""Seconds a call may take in which we could work: 50 ms, and what a machine needs that runs seven servers and an
election."""


class Load:
    """Adds one to each of some counters, again and again, and knows what it was told."""

    def __init__(self, redis: Redis, keys: list[str]) -> None:
        self.kv = RedisKeyValue(redis)
        self.keys = keys
        self.told = Counter[str]()
        self.refused = Counter[str]()
        self.longest = 0.0
        self._awake = Awake()
        self._over = False
        self._tasks = [asyncio.create_task(self._add(key)) for key in keys]

    async def end(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)
        self._awake.end()

    async def _add(self, key: str) -> None:
        while not self._over:
            began = self._awake.now()
            try:
                await self.kv.add(key, 1, 600)
                self.told[key] += 1
            except StoreAway:
                self.refused[key] += 1
            self.longest = max(self.longest, self._awake.now() - began)
            await asyncio.sleep(0.002)


async def ask(server: Server, *command: str) -> str:
    return await asyncio.to_thread(server.ask, *command)


async def another_than(old: Server, group: Watched) -> Server:
    """The master, once the first Sentinel has heard of it as well."""
    async with asyncio.timeout(20):
        while (new := await asyncio.to_thread(group.master)) is old:
            await asyncio.sleep(0.05)
    return new


async def test_a_master_that_dies_is_replaced(clock: ManualClock) -> None:
    with watched() as group:
        redis = await Redis.open(group.where, clock=clock)
        load = Load(redis, [f"n{number}" for number in range(20)])
        lost: list[str] = []
        redis.listen("sessions", lambda _: None, lambda: lost.append("sessions"))
        await until(lambda: lost and min(load.told[key] for key in load.keys) > 20, 10)
        old = group.master()
        before = dict(load.told)
        old.kill()
        await until(lambda: not redis.line.up)
        await until(lambda: redis.line.up, 30)
        at = load.told.total()
        await until(lambda: load.told.total() > at + 500)
        await load.end()
        assert load.longest < AT_MOST
        new = await another_than(old, group)
        for key in load.keys:
            counted = int(new.ask("GET", f"sallyport:k:{key}"))
            # Replication is asynchronous: what the old master told in its last moments may be gone, and no more.
            assert before[key] - 20 <= counted <= load.told[key] + load.refused[key]
        await until(lambda: len(lost) >= 2, 10)  # once when it begins, and once when it hears again
        heard: list[bytes] = []
        redis.listen("limits", heard.append, lambda: lost.append("limits"))
        await until(lambda: "limits" in lost)
        await answered(lambda: redis.publish("limits", b"heard on the new one"), redis)
        await until(lambda: heard)

        old.start()  # it comes back as a replica, and nothing changes
        await asyncio.to_thread(_wait_for, old, "role:slave")
        await until(lambda: redis.line.up)
        assert [str(node.address) for node in redis._nodes.masters()] == [f"127.0.0.1:{new.port}"]
        await redis.close()


async def test_a_master_that_is_cut_off_is_left(clock: ManualClock) -> None:
    """It still answers us, and does not know that another was elected; Sentinels do."""
    with watched() as group:
        redis = await Redis.open(replace(group.where, deadline=PATIENT), clock=clock)
        await redis.execute("SET", "sallyport:a", "1", "PX", 60000)
        old = group.master()
        new = next(server for server in group.servers if server is not old)
        for sentinel in group.sentinels[1:]:
            await ask(sentinel, "SENTINEL", "SET", "mymaster", "failover-timeout", "60000")
        async with asyncio.timeout(20):  # until it has heard that the replica is good
            while (said := await ask(group.sentinels[0], "SENTINEL", "FAILOVER", "mymaster")) != "OK":
                assert said.startswith("NOGOODSLAVE"), said
                await asyncio.sleep(0.05)
        await until(lambda: [str(node.address) for node in redis._nodes.masters()] == [f"127.0.0.1:{new.port}"], 20)
        await until(lambda: redis.line.up, 20)
        assert await redis.execute("SET", "sallyport:a", "2", "PX", 60000) == b"OK"
        assert await ask(new, "GET", "sallyport:a") == "2"
        await redis.close()


async def test_a_sentinel_that_is_gone_or_says_nothing_is_not_missed(clock: ManualClock, awake: Awake) -> None:
    with watched() as group:
        redis = await Redis.open(group.where, clock=clock)
        group.sentinels[0].kill()
        group.sentinels[1].pause()
        for node in redis._nodes.masters():
            assert node.link is not None
            node.link.eof_received()
        key = f"{redis.prefix}a"
        began = awake.now()
        # The first who asks may find that it takes too long; it is found meanwhile.
        await answered(lambda: redis.execute("SET", key, "1", "PX", 1000), redis)
        assert awake.now() - began < 3
        again = await Redis.open(group.where, clock=clock)
        await again.close()
        await redis.close()


def _wait_for(server: Server, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in server.ask("INFO", "replication"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
async def clustered(redis_cluster: Masters, clock: ManualClock) -> AsyncIterator[Redis]:
    """With patience: for what is about something else than the deadline."""
    redis = await Redis.open(replace(redis_cluster.where, deadline=PATIENT), clock=clock)
    yield redis
    await redis.close()


@pytest.fixture
async def hurried(redis_cluster: Masters, clock: ManualClock) -> AsyncIterator[Redis]:
    """The same cluster, and nobody who waits."""
    redis = await Redis.open(redis_cluster.where, clock=clock)
    yield redis
    await redis.close()


async def test_slots_move_under_load(clustered: Redis, redis_cluster: Masters) -> None:
    """There and on, with keys on their way: every addition that was told is there once, and none else."""
    tag = "{moving}"
    load = Load(clustered, [f"{tag}{number}" for number in range(30)])
    slot = key_slot(b"moving")
    await until(lambda: min(load.told[key] for key in load.keys) > 5)
    for _ in range(3):
        to = (redis_cluster.owner(slot) + 1) % 3
        source = await asyncio.to_thread(redis_cluster.begin_move, slot, to)
        while await asyncio.to_thread(redis_cluster.move_keys, slot, source, to, 7):
            pass
        await asyncio.to_thread(redis_cluster.end_move, slot, to)
        at = load.told.total()
        await until(lambda at=at: load.told.total() > at + 200)  # type: ignore[misc]
    await load.end()
    assert load.refused.total() == 0
    assert clustered.line.lost == 0
    for key in load.keys:
        assert int(await clustered.execute("GET", f"{clustered.prefix}k:{key}")) == load.told[key]


async def test_exactly_one_claims_while_its_slot_moves(redis_cluster: Masters, clock: ManualClock) -> None:
    patient = await Redis.open(replace(redis_cluster.where, deadline=PATIENT), clock=clock)
    kv = RedisKeyValue(patient)
    slot = key_slot(b"claimed")
    to = (redis_cluster.owner(slot) + 1) % 3
    moving = asyncio.create_task(asyncio.to_thread(redis_cluster.move, slot, to))
    rounds = 0
    while not moving.done() or rounds < 20:
        claims = await asyncio.gather(*(kv.claim(f"{{claimed}}{rounds}", 60) for _ in range(20)))
        assert claims.count(True) == 1
        rounds += 1
    await moving
    await patient.close()


@pytest.mark.parametrize(
    "told", ["MOVED", "MOVED 1", "MOVED x 127.0.0.1:1", "MOVED 16384 127.0.0.1:1", "ASK 1 ann:bob"]
)
async def test_who_is_sent_to_no_place_there_is_has_no_answer(clustered: Redis, told: str) -> None:
    with pytest.raises(StoreAway, match="it sends us to no place"):
        await clustered.run(Script(f"return {{err = '{told}'}}"), ["sallyport:{a}"], [])


async def test_a_script_with_keys_on_both_sides_waits_its_turn(
    clustered: Redis, redis_cluster: Masters, awake: Awake
) -> None:
    """Some of its keys have moved and some have not. That is this call's bad luck; the store is not away."""
    both = Script("return redis.call('GET', KEYS[1]) .. redis.call('GET', KEYS[2])")
    keys = [f"sallyport:{{split}}{name}" for name in "ab"]
    for key, value in zip(keys, "xy", strict=True):
        await clustered.execute("SET", key, value, "PX", 60000)
    slot = key_slot(b"split")
    to = (redis_cluster.owner(slot) + 1) % 3
    source = await asyncio.to_thread(redis_cluster.begin_move, slot, to)
    assert await asyncio.to_thread(redis_cluster.move_keys, slot, source, to, 1) == 1
    clustered.line.deadline = DEADLINE
    began = awake.now()
    with pytest.raises(StoreAway, match="keys are being moved"):
        await clustered.run(both, keys, [])
    assert awake.now() - began < AT_MOST
    assert clustered.line.up
    waiting = asyncio.create_task(clustered.run(both, keys, []))
    await asyncio.to_thread(redis_cluster.move_keys, slot, source, to)
    await asyncio.to_thread(redis_cluster.end_move, slot, to)
    with_luck = await asyncio.gather(waiting, return_exceptions=True)
    assert with_luck == [b"xy"] or isinstance(with_luck[0], StoreAway)
    clustered.line.deadline = PATIENT
    assert await clustered.run(both, keys, []) == b"xy"


async def test_a_master_of_a_cluster_is_silent_and_comes_back(
    hurried: Redis, clustered: Redis, redis_cluster: Masters, awake: Awake
) -> None:
    kv, patient = RedisKeyValue(hurried), RedisKeyValue(clustered)
    for number in range(30):
        await patient.put(f"c{number}", b"1", 60)
    await answered(lambda: kv.get("c0"), hurried)
    redis_cluster.servers[1].pause()
    began = awake.now()
    results = await asyncio.gather(*(kv.get(f"c{number}") for number in range(30)), return_exceptions=True)
    assert awake.now() - began < AT_MOST
    assert any(isinstance(each, StoreAway) for each in results)
    assert not hurried.line.up
    redis_cluster.servers[1].go_on()
    await until(lambda: hurried.line.up)
    asking = [answered(partial(kv.get, f"c{number}"), hurried) for number in range(30)]
    assert await asyncio.gather(*asking) == [b"1"] * 30
