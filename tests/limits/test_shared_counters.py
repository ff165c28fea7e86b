"""Counters on a real Redis, looked at and taken away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from gateway.catalog import ALGORITHMS
from gateway.core.clock import SystemClock
from gateway.core.rule import Backoff, LimitSpec
from gateway.limits.shared_counters import SharedCounters
from gateway.limits.spelling import EVERYBODY, who
from gateway.sharing import TOPIC, shared_counters
from gateway.store.redis import Redis
from tests.limits.conftest import facts, limit, somebody
from tests.limits.shared import Replica
from tests.rig.once import PATIENT
from tests.rig.redis import Server, a_cluster, a_server, needs_redis, secure

pytestmark = needs_redis

LONG = 3600.0
"""Seconds: nothing comes back within a test."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
async def replica(server: Server) -> AsyncIterator[Replica]:
    server.ask("FLUSHALL")
    replica = await Replica.of(server.url)
    yield replica
    await replica.close()


@pytest.fixture
def counters(replica: Replica) -> SharedCounters:
    return shared_counters(replica.redis)


@pytest.mark.parametrize("mode", ["shared", "leased"])
@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_what_is_shown_is_what_happens_next(
    server: Server, replica: Replica, counters: SharedCounters, algorithm: str, mode: str
) -> None:
    per = replace(limit(rate=12, window=LONG, algorithm=algorithm), mode=mode)
    for _ in range(5):
        await replica.spend((per,), facts())
    (key,) = server.ask("KEYS", "*{l*").split()
    before = await replica.redis.execute("DUMP", key)
    (shown,) = await counters.status([("r", per)], EVERYBODY, 10)
    assert await replica.redis.execute("DUMP", key) == before
    assert (shown.rule, shown.limit, shown.key, shown.how) == ("r", per.name, "a192.0.2.1", mode)
    assert shown.allowed
    assert shown.retry_after == 0.0
    assert 0.0 < shown.reset <= LONG + 1
    lent = replica.leased._leases[key.encode()].units if mode == "leased" else 0
    left = 0
    while (await replica.spend((per,), facts()))[0].allowed:
        left += 1
    assert shown.remaining <= left <= shown.remaining + lent  # what was lent and not used in time is lost
    (over,) = await counters.status([("r", per)], EVERYBODY, 10)
    assert (over.allowed, over.remaining) == (False, 0)
    assert 0.0 < over.retry_after <= over.reset <= LONG + 1


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_whole_again_is_told_as_it_stands(
    server: Server, replica: Replica, counters: SharedCounters, algorithm: str
) -> None:
    """Not as of one request more: of ten an hour, one is paid back in six minutes, by those that pay back."""
    per = limit(rate=10, window=LONG, algorithm=algorithm)
    await replica.spend((per,), facts())
    (shown,) = await counters.status([("r", per)], EVERYBODY, 10)
    if algorithm in ("token_bucket", "gcra"):
        assert 350 < shown.reset <= 360
    else:
        assert 0 < shown.reset <= LONG


async def test_offences_and_waits_are_shown(replica: Replica, counters: SharedCounters) -> None:
    per = replace(limit(rate=1, window=2.0), backoff=Backoff(after=1, wait=60.0, longest=600.0, forget=3600.0))
    for _ in range(3):
        await replica.spend((per,), facts())
    (shown,) = await counters.status([("r", per)], EVERYBODY, 10)
    assert (shown.allowed, shown.offences) == (False, 2)
    assert 50 < shown.wait <= 60
    assert shown.retry_after == shown.wait
    assert await counters.reset([("r", per)], EVERYBODY) == 1
    replica.counting.forget()
    assert (await replica.spend((per,), facts()))[0].allowed
    (shown,) = await counters.status([("r", per)], EVERYBODY, 10)
    assert (shown.offences, shown.wait) == (0, 0.0)


def of(key: tuple[str, ...], name: str = "x") -> LimitSpec:
    return limit(name, key, rate=5, window=LONG)


async def test_counters_are_found_by_rule_limit_and_whom_they_count(replica: Replica, counters: SharedCounters) -> None:
    by_user, by_both, by_address = of(("user",), "u"), of(("user", "address"), "both"), of(("address",), "a")
    everything = [("one", by_user), ("one", by_both), ("two", by_address)]
    for name in ("ann", "bob"):
        for network in ("192.0.2.1", "192.0.2.2"):
            await replica.spend((by_user, by_both), facts(network), somebody(name), "one")
            await replica.spend((by_address,), facts(network), somebody(name), "two")

    async def found(whom: str, limits: list[tuple[str, LimitSpec]] = everything) -> list[tuple[str, str]]:
        return sorted((one.rule, one.limit) for one in await counters.status(limits, who(whom), 100))

    assert len(await found("")) == 2 + 4 + 2
    assert await found("user:ann") == [("one", "both"), ("one", "both"), ("one", "u")]
    assert await found("address:192.0.2.1") == [("one", "both"), ("one", "both"), ("two", "a")]
    assert await found("user:ann + address:192.0.2.1") == [("one", "both")]
    assert await found("user:ann", everything[:1]) == [("one", "u")]
    assert await found("user:eve") == []
    assert len(await counters.status(everything, EVERYBODY, 3)) == 3
    assert await counters.reset(everything, who("user:ann")) == 3
    assert await found("user:ann") == []
    assert await counters.reset(everything[:2], EVERYBODY) == 3
    assert await found("") == [("two", "a"), ("two", "a")]
    assert await counters.reset(everything, who("user:nobody")) == 0


async def test_many_are_gone_through_and_nothing_else_is_touched(
    server: Server, replica: Replica, counters: SharedCounters
) -> None:
    per = of(("address",))
    for n in range(3000):
        await replica.spend((per,), facts(f"n{n}"))
    for stranger in ("sallyport:k:r/x", "sallyport:{l0}:short", "other:{l0}:r/x/y/z", "sallyport:{s1}:r/x/y/z"):
        server.ask("SET", stranger, "1")
    assert len(await counters.status([("r", per)], EVERYBODY, 10_000)) == 3000
    assert await counters.reset([("r", per)], EVERYBODY) == 3000
    assert server.ask("DBSIZE") == "4"


async def test_over_a_cluster_every_slot_is_looked_at() -> None:
    with a_cluster() as masters:
        redis = await Redis.open(replace(masters.where, deadline=PATIENT), clock=SystemClock())
        replica = Replica(redis, SystemClock())
        try:
            limits = [(f"rule{n}", of(("address",))) for n in range(40)]
            for rule, each in limits:
                await replica.spend((each,), facts(), rule=rule)
            counters = shared_counters(redis)
            assert {one.rule for one in await counters.status(limits, EVERYBODY, 100)} == {rule for rule, _ in limits}
            assert all(server.ask("DBSIZE") != "0" for server in masters.servers)
            assert await counters.reset(limits[:3], who("address:192.0.2.1")) == 3
            assert await counters.reset(limits, EVERYBODY) == 37
        finally:
            await replica.close()


async def test_what_the_docs_tell_operators_to_allow_is_enough() -> None:
    with secure() as server:
        redis = await Redis.open(replace(server.where, deadline=PATIENT), clock=SystemClock())
        replica = Replica(redis, SystemClock())
        try:
            per = of(("user", "address"))
            await replica.spend((per,), facts(), somebody("ann"))
            counters = shared_counters(redis)
            assert len(await counters.status([("r", per)], who("user:ann"), 10)) == 1
            assert await counters.reset([("r", per)], who("user:ann")) == 1
            await redis.publish(TOPIC, b"{}")
        finally:
            await replica.close()


async def test_a_limit_that_was_edited_is_another_one(replica: Replica, counters: SharedCounters) -> None:
    per = of(("address",))
    await replica.spend((per,), facts())
    assert await counters.status([("r", replace(per, rate=6))], EVERYBODY, 10) == []


async def test_a_reset_is_told_and_obeyed_by_all(server: Server, replica: Replica, counters: SharedCounters) -> None:
    """A replica that knows a counter to be over asks again, and lets its leases go."""
    per, leased = of(("address",)), replace(of(("address",), "l"), mode="leased")
    for each in (per, leased):
        while (await replica.spend((each,), facts()))[0].allowed:
            pass
    await counters.reset([("r", per), ("r", leased)], EVERYBODY)
    assert not (await replica.spend((per,), facts()))[0].allowed
    replica.counting.forget()
    assert (await replica.spend((per,), facts()))[0].allowed
    assert (await replica.spend((leased,), facts()))[0].allowed
