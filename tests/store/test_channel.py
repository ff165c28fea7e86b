"""One contract, every `Channel`: what is said is heard by every replica, and silence is known for what it is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.store.redis import Redis
from gateway.store.redis_link import let_go
from gateway.store.redis_where import Where
from tests.rig.awake import Awake
from tests.rig.faulty import FAULTS, Fault, Faulty, before
from tests.rig.once import PATIENT
from tests.rig.redis import Server, a_server, needs_redis, until
from tests.store.conftest import KINDS, where_of

pytestmark = needs_redis


def patient(server: Server) -> Where:
    """Where it is, and time to answer."""
    return replace(Where.parse(server.url), deadline=PATIENT)


class Listener:
    """What one replica hears of a topic."""

    def __init__(self, redis: Redis, topic: str = "sessions") -> None:
        self.heard: list[bytes] = []
        self.lost = 0
        redis.listen(topic, self.heard.append, self._lost)

    def _lost(self) -> None:
        self.lost += 1


@pytest.fixture(params=KINDS)
async def replicas(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[list[Redis]]:
    """Three of them."""
    where = where_of(request.param, request)
    opened = [await Redis.open(where, clock=clock) for _ in range(3)]
    yield opened
    for each in opened:
        await each.close()


async def test_everybody_hears_everything_in_order(replicas: list[Redis]) -> None:
    listeners = [Listener(each) for each in replicas]
    await until(lambda: all(each.lost for each in listeners))
    said = [b"%d\x00\xff" % number for number in range(200)]
    for message in said:
        await replicas[0].publish("sessions", message)
    await until(lambda: all(len(each.heard) >= 200 for each in listeners))
    assert [each.heard for each in listeners] == [said] * 3
    assert [each.lost for each in listeners] == [1] * 3


async def test_topics_do_not_meet(replicas: list[Redis]) -> None:
    one, _, other = replicas
    sessions, limits = Listener(one), Listener(one, "limits")
    await until(lambda: sessions.lost and limits.lost)
    await other.publish("limits", b"l")
    await other.publish("else", b"e")
    await other.publish("sessions", b"s")
    await until(lambda: sessions.heard and limits.heard)
    assert (sessions.heard, limits.heard) == ([b"s"], [b"l"])


async def test_more_topics_interrupt_nobody(one_redis: Server, clock: ManualClock) -> None:
    redis = await Redis.open(patient(one_redis), clock=clock)
    first = Listener(redis)
    await until(lambda: first.lost)
    second = Listener(redis, "limits")
    await until(lambda: second.lost)
    await redis.publish("sessions", b"s")
    await redis.publish("limits", b"l")
    await until(lambda: first.heard and second.heard)
    assert (first.lost, second.lost) == (1, 1)
    await redis.close()


async def test_a_connection_that_ends_when_a_topic_comes_is_not_made_anew_beside_the_next(
    one_redis: Server, clock: ManualClock
) -> None:
    """redis-py would connect to say something, and nobody would let go of that."""
    redis = await Redis.open(Where.parse(one_redis.url), clock=clock)
    first = Listener(redis)
    await until(lambda: first.lost)
    gone = redis._ear._connection
    second = Listener(redis, "limits")
    let_go(gone)
    await until(lambda: second.lost)
    assert not gone.is_connected
    assert (first.lost, second.lost) == (2, 1)
    await redis.close()


async def test_nothing_that_is_asked_for_outlives_who_listens(one_redis: Server, clock: ManualClock) -> None:
    redis = await Redis.open(Where.parse(one_redis.url), clock=clock)
    first = Listener(redis)
    await until(lambda: first.lost)
    Listener(redis, "limits")
    await redis.close()
    assert [task.get_name() for task in asyncio.all_tasks() if "listening" in task.get_name()] == []


async def test_prefixes_do_not_meet(one_redis: Server, clock: ManualClock) -> None:
    where = patient(one_redis)
    one, other = [await Redis.open(replace(where, prefix=f"{name}:"), clock=clock) for name in ("one", "other")]
    listener = Listener(one)
    await until(lambda: listener.lost)
    await other.publish("sessions", b"other")
    await one.publish("sessions", b"one")
    await until(lambda: listener.heard)
    assert listener.heard == [b"one"]
    await one.close()
    await other.close()


async def test_who_cannot_follow_does_not_stop_the_others(
    replicas: list[Redis], caplog: pytest.LogCaptureFixture
) -> None:
    def deaf(_: bytes) -> None:
        raise LookupError("not me")

    def lost() -> None:
        raise LookupError("nor me")

    redis = replicas[0]
    redis.listen("sessions", deaf, lost)
    listener = Listener(redis)
    await until(lambda: listener.lost)
    with caplog.at_level(logging.ERROR, "sallyport"):
        await redis.publish("sessions", b"one")
        await redis.publish("sessions", b"two")
        await until(lambda: len(listener.heard) == 2)
    assert caplog.messages == ["what was heard of the other replicas could not be followed"] * 3


@pytest.fixture
def proxy(one_redis: Server) -> Iterator[Faulty]:
    with before(one_redis.port) as proxy:
        yield proxy


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "slow"])
async def test_what_may_have_been_missed_is_said(
    fault: Fault, proxy: Faulty, one_redis: Server, clock: ManualClock, awake: Awake
) -> None:
    """Also when the connection stays and nothing comes: it is asked each second, and given up within three."""
    deaf = await Redis.open(Where.parse(f"redis://127.0.0.1:{proxy.port}"), clock=clock)
    other = await Redis.open(patient(one_redis), clock=clock)
    listener = Listener(deaf)
    await until(lambda: listener.lost == 1)
    proxy.begin(fault)
    for number in range(3):
        await other.publish("sessions", b"missed %d" % number)
    if fault == "silent":
        await until(lambda: deaf._ear._connection is None, 10)
    elif fault != "refused":  # which has struck already
        await until(lambda: proxy.spoilt)
    listener.heard.clear()
    proxy.end()
    began = awake.now()
    await until(lambda: listener.lost >= 2, 10)
    assert awake.now() - began < 5
    await other.publish("sessions", b"heard")
    await until(lambda: b"heard" in listener.heard)
    await deaf.close()
    await other.close()


async def test_the_server_restarts(clock: ManualClock) -> None:
    with a_server() as server:
        redis = await Redis.open(patient(server), clock=clock)
        listener = Listener(redis)
        await until(lambda: listener.lost == 1)
        server.kill()
        with pytest.raises(StoreAway):
            await redis.publish("sessions", b"nobody hears")
        server.start()
        await until(lambda: listener.lost == 2 and redis.line.up)
        await redis.publish("sessions", b"again")
        await until(lambda: listener.heard)
        assert listener.heard == [b"again"]
        await redis.close()
