"""A Redis that cannot be used: hardly anybody waits for it, and nobody gets another's answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.store.redis import Redis, Script
from gateway.store.redis_where import Where
from tests.rig.awake import Awake
from tests.rig.faulty import FAULTS, Fault, Faulty, before
from tests.rig.once import PATIENT
from tests.rig.redis import Server, a_server, answered, needs_redis, until

pytestmark = needs_redis

SET = Script("return redis.call('SET', KEYS[1], ARGV[1], 'PX', 60000)")
AT_MOST = 0.15
"""Seconds a call may take in which we could work: 50 ms, and what a busy machine needs."""


@pytest.fixture
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Faulty]:
    with before(server.port) as proxy:
        yield proxy


@pytest.fixture
async def redis(server: Server, clock: ManualClock) -> AsyncIterator[Redis]:
    opened = await Redis.open(Where.parse(server.url), clock=clock)
    yield opened
    await opened.close()


@pytest.fixture
async def through(proxy: Faulty, clock: ManualClock) -> AsyncIterator[Redis]:
    """The same server through the proxy."""
    opened = await Redis.open(Where.parse(f"redis://127.0.0.1:{proxy.port}"), clock=clock)
    yield opened
    await opened.close()


async def refused(redis: Redis, awake: Awake, *command: str) -> float:
    """Call it, which fails; how long that took."""
    began = awake.now()
    with pytest.raises(StoreAway):
        await redis.execute(*command)
    return awake.now() - began


async def bounded(redis: Redis, awake: Awake, number: int) -> float:
    """Ask for `k<number>`: the answer, or none; how long that took."""
    began = awake.now()
    with contextlib.suppress(StoreAway):
        assert await redis.execute("GET", f"k{number}") == b"%d" % number
    return awake.now() - began


async def fill(redis: Redis, count: int) -> None:
    """Have `k0`, `k1` and so on hold their numbers."""
    for number in range(count):
        await answered(lambda number=number: redis.execute("SET", f"k{number}", number), redis)  # type: ignore[misc]


@pytest.mark.parametrize("fault", FAULTS)
async def test_nobody_waits_long_and_all_is_well_afterwards(
    fault: Fault, through: Redis, proxy: Faulty, awake: Awake
) -> None:
    await fill(through, 20)
    proxy.begin(fault)
    waits = await asyncio.gather(*(bounded(through, awake, number) for number in range(20)))
    assert max(waits) < AT_MOST
    await until(lambda: not through.line.up)
    began = awake.now()
    for _ in range(200):
        await refused(through, awake, "GET", "k1")
    assert awake.now() - began < 0.2  # at once: nobody waits even a millisecond
    proxy.end()
    began = awake.now()
    await until(lambda: through.line.up, 10)
    assert awake.now() - began < 5
    for number in range(20):
        ask = lambda number=number: through.execute("GET", f"k{number}")  # noqa: E731
        assert await answered(ask, through) == b"%d" % number


@pytest.mark.parametrize("fault", FAULTS)
async def test_answers_are_never_mixed_up(fault: Fault, through: Redis, proxy: Faulty) -> None:
    """Faults come and go under load; whatever is answered is the answer to what was asked."""
    await fill(through, 50)
    proxy.slow = 0.1
    right = Counter[str]()

    async def ask(number: int) -> None:
        while not over.is_set():
            try:
                answer = await through.execute("GET", f"k{number}")
            except StoreAway:
                await asyncio.sleep(0.01)
                continue
            assert answer == b"%d" % number
            right["all"] += 1
            await asyncio.sleep(0)

    over = asyncio.Event()
    asking = [asyncio.create_task(ask(number)) for number in range(20)]
    for _ in range(3):
        proxy.begin(fault)
        await until(lambda: not through.line.up)
        proxy.end()
        await until(lambda: through.line.up)
        right.clear()
        await until(lambda: right["all"] > 100)
    over.set()
    await asyncio.gather(*asking)


async def test_the_server_restarts(redis: Redis, server: Server, awake: Awake) -> None:
    server.kill()
    assert await refused(redis, awake, "GET", "a") < AT_MOST
    assert redis.line.why
    server.start()
    began = awake.now()
    await until(lambda: redis.line.up)
    assert awake.now() - began < 1
    assert await answered(lambda: redis.execute("GET", "a"), redis) is None


def read_only(server: Server) -> Callable[[], object]:
    server.ask("REPLICAOF", "127.0.0.1", "1")
    return lambda: server.ask("REPLICAOF", "NO", "ONE")


def cut_off(server: Server) -> Callable[[], object]:
    server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
    return read_only(server)


def full(server: Server) -> Callable[[], object]:
    server.ask("CONFIG", "SET", "maxmemory", "1")
    return lambda: server.ask("CONFIG", "SET", "maxmemory", "0")


def not_ours(server: Server) -> Callable[[], object]:
    server.ask("ACL", "SETUSER", "default", "-@write")
    return lambda: server.ask("ACL", "SETUSER", "default", "+@all")


def nowhere_to_write(server: Server) -> Callable[[], object]:
    server.ask("CONFIG", "SET", "min-replicas-to-write", "1")
    return lambda: server.ask("CONFIG", "SET", "min-replicas-to-write", "0")


@pytest.mark.parametrize(
    ("begin", "why"),
    [
        (read_only, "READONLY"),
        (cut_off, "MASTERDOWN"),
        (full, "OOM"),
        (not_ours, "NOPERM|ERR The user executing the script can't"),
        (nowhere_to_write, "NOREPLICAS"),
    ],
)
async def test_a_server_that_answers_and_cannot_be_used(
    begin: Callable[[Server], Callable[[], object]], why: str, redis: Redis, server: Server
) -> None:
    """It is away once, with why, and stays so until it can be written to: it does not come and go."""
    back = begin(server)
    for call in (redis.run(SET, ["a"], ["1"]), redis.execute("SET", "a", "1")):
        with pytest.raises(StoreAway, match="shared: "):
            await call
    await until(lambda: re.match(why, redis.line.why))  # at once, unless it was late for once: then when it is asked
    with pytest.raises(TimeoutError):
        await until(lambda: redis.line.up, 0.8)  # three probes
    assert redis.line.lost == 1
    back()
    await until(lambda: redis.line.up)
    await answered(lambda: redis.run(SET, ["a"], ["1"]), redis)


async def test_a_server_that_is_loading(clock: ManualClock, awake: Awake) -> None:
    options = {"key-load-delay": "1000", "loading-process-events-interval-bytes": "1024", "rdbcompression": "no"}
    with a_server(options=options) as server:
        redis = await Redis.open(replace(Where.parse(server.url), deadline=PATIENT), clock=clock)
        await asyncio.gather(*(redis.execute("SET", f"k{number}", "x" * 1000) for number in range(700)))
        server.ask("SAVE")
        server.kill()
        await refused(redis, awake, "GET", "k1")
        server.start()
        await until(lambda: "LOADING" in redis.line.why)
        await until(lambda: redis.line.up)
        assert await redis.execute("GET", "k1") == b"x" * 1000
        await redis.close()


async def test_a_password_that_changes(server: Server, redis: Redis, awake: Awake) -> None:
    """Whoever is known stays so; a new connection is refused, and no secret is told."""
    server.ask("CONFIG", "SET", "requirepass", "hunter2")
    for node in redis._nodes.masters():
        assert node.link is not None
        node.link.eof_received()
    await refused(redis, awake, "GET", "a")
    await until(lambda: "NOAUTH" in redis.line.why or "Authentication" in redis.line.why)
    assert "hunter2" not in redis.line.why


async def test_it_is_said_once_when_it_goes_and_once_when_it_comes(
    redis: Redis, server: Server, caplog: pytest.LogCaptureFixture, awake: Awake
) -> None:
    caplog.set_level(logging.WARNING, "sallyport")
    caplog.clear()
    server.pause()
    await asyncio.gather(*(refused(redis, awake, "GET", "a") for _ in range(50)))
    for _ in range(50):
        await refused(redis, awake, "GET", "a")
    server.go_on()
    await until(lambda: redis.line.up)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["store shared is away: no answer within 50 ms", "store shared is back"]
