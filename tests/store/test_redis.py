"""Redis, one server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.exceptions import ResponseError

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.store.redis import Redis, Script
from gateway.store.redis_where import Where
from tests.rig.redis import Server, a_server, needs_redis, until

pytestmark = needs_redis

COUNT = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


@pytest.fixture(scope="module")
def started() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
def server(started: Server) -> Server:
    started.ask("FLUSHALL")
    return started


@pytest.fixture
async def redis(server: Server, clock: ManualClock) -> AsyncIterator[Redis]:
    opened = await Redis.open(Where.parse(server.url), clock=clock)
    yield opened
    await opened.close()


async def test_scripts_and_commands_answer(redis: Redis) -> None:
    assert await redis.run(COUNT, ["sallyport:n"], [5]) == 5
    assert await redis.run(COUNT, ["sallyport:n"], ["-2"]) == 3
    assert await redis.execute("GET", "sallyport:n") == b"3"
    assert await redis.execute("SET", "sallyport:\x00 strange\r\n", b"\xff\x00") == b"OK"
    assert await redis.execute("GET", "sallyport:\x00 strange\r\n") == b"\xff\x00"


async def test_many_at_once_each_get_their_own_answer(redis: Redis) -> None:
    async def one(number: int) -> None:
        await redis.execute("SET", f"k{number}", number)
        assert await redis.execute("GET", f"k{number}") == b"%d" % number

    await asyncio.gather(*map(one, range(500)))


async def test_a_script_that_was_forgotten_is_told_again(redis: Redis, server: Server) -> None:
    await redis.run(COUNT, ["n"], [1])
    server.ask("SCRIPT", "FLUSH")
    assert await redis.run(COUNT, ["n"], [1]) == 2


async def test_a_mistake_of_ours_is_not_the_servers(redis: Redis) -> None:
    with pytest.raises(ResponseError):
        await redis.run(Script("return redis.call('NOSUCH')"), ["n"], [])
    with pytest.raises(ResponseError):
        await redis.run(Script("this is not Lua"), ["n"], [])
    assert redis.line.up


async def test_a_server_that_says_nothing_is_away_and_comes_back(redis: Redis, server: Server) -> None:
    await redis.execute("SET", "a", "1")
    server.pause()
    began = time.monotonic()
    with pytest.raises(StoreAway, match="no answer within 50 ms"):
        await redis.execute("GET", "a")
    assert time.monotonic() - began < 0.15
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(StoreAway):
            await redis.execute("GET", "a")
    assert time.monotonic() - began < 0.05
    server.go_on()
    await until(lambda: redis.line.up)
    assert await redis.execute("GET", "a") == b"1"


async def test_what_is_published_is_heard(redis: Redis) -> None:
    heard: list[bytes] = []
    lost: list[bool] = []
    redis.listen("sessions", heard.append, lambda: lost.append(True))
    await until(lambda: lost)
    await redis.publish("sessions", b"one")
    await redis.publish("limits", b"not for us")
    await redis.publish("sessions", b"two")
    await until(lambda: len(heard) == 2)
    assert heard == [b"one", b"two"]
