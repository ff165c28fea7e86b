"""Limits that replicas count together, over a real Redis."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from gateway.catalog import ALGORITHMS
from gateway.core.clock import ManualClock
from gateway.core.decision import Quota
from gateway.core.eager import run_eagerly
from gateway.core.errors import StoreAway
from gateway.core.rule import Adaptation, Backoff, LimitSpec
from gateway.limits.leased import LARGEST, terms
from gateway.limits.limiter import Limiter
from gateway.limits.scripts import script
from gateway.store.redis import Script
from tests.limits.conftest import facts, limit, somebody
from tests.limits.shared import Replica
from tests.rig.redis import Server, a_server, needs_redis

pytestmark = needs_redis


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
async def replicas(server: Server) -> AsyncIterator[list[Replica]]:
    server.ask("FLUSHALL")
    three = [await Replica.of(server.url) for _ in range(3)]
    yield three
    for replica in three:
        await replica.close()


@pytest.fixture
async def alone(server: Server, clock: ManualClock) -> AsyncIterator[Replica]:
    """One replica whose own clock stands still until it is told to move."""
    server.ask("FLUSHALL")
    replica = await Replica.of(server.url, clock)
    yield replica
    await replica.close()


LONG = 3600.0
"""Seconds: nothing comes back within a test."""


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_three_replicas_let_exactly_as_many_through_as_one(replicas: list[Replica], algorithm: str) -> None:
    limits = (limit(rate=100, window=LONG, algorithm=algorithm),)
    spent = await asyncio.gather(*[replica.spend(limits, facts()) for _ in range(100) for replica in replicas])
    assert sum(quota.allowed for (quota,) in spent) == 100


async def test_what_is_asked_in_one_turn_is_one_question(replicas: list[Replica]) -> None:
    one = replicas[0]
    both = (limit(rate=1000), limit("per-user", ("user",), rate=1000))
    await asyncio.gather(*[one.spend(both, facts(f"192.0.2.{n}"), somebody(f"s{n}")) for n in range(100)])
    assert one.asked == 1


async def test_too_many_counters_for_one_script_are_several_questions(replicas: list[Replica]) -> None:
    one = replicas[0]
    spent = await asyncio.gather(*[one.spend((limit(),), facts(f"n{n}")) for n in range(2000)])
    assert all(quota.allowed for (quota,) in spent)
    assert one.asked == 4


async def test_all_limits_count_a_request_or_none(replicas: list[Replica]) -> None:
    few, many = limit(rate=2, window=LONG), limit("per-user", ("user",), rate=10, window=LONG)
    for replica in replicas:
        await replica.spend((few, many), facts(), somebody())
    (refused, given_back) = await replicas[0].spend((few, many), facts("192.0.2.9"), somebody())
    assert (refused.allowed, given_back.remaining) == (True, 7)


async def test_a_limit_that_is_over_is_not_asked_about_again(replicas: list[Replica]) -> None:
    one, other, _ = replicas
    limits = (limit(rate=1, window=LONG),)
    assert (await one.spend(limits, facts()))[0].allowed
    for _ in range(5):
        (refused,) = await one.spend(limits, facts())
        assert not refused.allowed
        assert LONG - 60 < refused.retry_after <= LONG
    assert (one.asked, one.shared.unasked) == (2, 4)
    one.counting.forget()
    await one.spend(limits, facts())
    assert one.asked == 3
    assert other.asked == 0


async def test_what_was_asked_before_a_reset_is_not_believed_after_it(replicas: list[Replica], server: Server) -> None:
    """Who resets is heard on another connection, so it may be before the answer that was given before."""
    one, limits = replicas[0], (limit(rate=1, window=LONG),)
    assert (await one.spend(limits, facts()))[0].allowed
    asked = one.asked
    late = asyncio.create_task(one.spend(limits, facts()))
    while one.asked == asked:
        await asyncio.sleep(0)
    one.counting.forget()
    assert not (await late)[0].allowed
    server.ask("FLUSHALL")
    assert (await one.spend(limits, facts()))[0].allowed


async def test_whoever_waits_for_a_count_that_is_ended_is_told(replicas: list[Replica]) -> None:
    """They wait for an answer, not for a task: what ends the one would leave the others waiting for ever."""
    one, limits = replicas[0], (limit(rate=1, window=LONG),)
    waiting = asyncio.create_task(one.spend(limits, facts()))
    while not one.asked:
        await asyncio.sleep(0)
    for counting in one.shared._tasks:
        counting.cancel()
    with pytest.raises(StoreAway):
        await asyncio.wait_for(waiting, 5.0)


async def test_shadow_limits_count_and_refuse_nobody(replicas: list[Replica]) -> None:
    tried = replace(limit("tried", rate=1, window=LONG), shadow=True)
    limits = (tried, limit(rate=3, window=LONG))
    spent = [await replicas[0].spend(limits, facts()) for _ in range(4)]
    assert [(shadow.allowed, shadow.how, real.allowed) for shadow, real in spent] == [
        (True, "shadow", True),
        (False, "shadow", True),
        (False, "shadow", True),
        (False, "shadow", False),
    ]


async def test_who_runs_into_a_limit_again_and_again_waits(replicas: list[Replica]) -> None:
    backoff = Backoff(after=2, wait=500.0, longest=5000.0, forget=LONG)
    limits = (replace(limit(rate=1, window=10.0), backoff=backoff),)
    assert (await replicas[0].spend(limits, facts()))[0].allowed
    waits = [(await replicas[n % 3].spend(limits, facts()))[0].retry_after for n in range(4)]
    assert max(waits[:2]) <= 10.0
    assert 499.0 < waits[2] <= 500.0
    assert 498.0 < waits[3] <= 500.0


async def test_every_counter_goes_by_itself(replicas: list[Replica], server: Server) -> None:
    for algorithm in ALGORITHMS:
        await replicas[0].spend((limit(rate=5, window=30.0, algorithm=algorithm),), facts(algorithm))
    keys = server.ask("KEYS", "*").split("\n")
    assert len(keys) == len(ALGORITHMS)
    for key in keys:
        assert key.startswith("sallyport:{l")
        assert 0 < int(server.ask("PTTL", key)) <= 31_000


async def test_the_walk_in_lua_is_the_walk_in_python(alone: Replica, clock: ManualClock) -> None:
    """The same requests, at the same moments, answered alike: limits of every kind, shared keys, backoff, shadow."""
    dice = random.Random(11)
    python = Limiter(clock, ALGORITHMS)
    limits = {
        "one": (limit(rate=3, window=5.0, algorithm="sliding_window"),),
        "two": (limit(rate=5, window=7.0, algorithm="gcra"), limit("u", ("user",), rate=4, window=9.0)),
        "waits": (
            replace(limit(rate=2, window=9.0), backoff=Backoff(after=1, wait=3.0, longest=9.0, forget=20.0)),
            limit("u", ("user",), rate=9, window=9.0, algorithm="fixed_window"),
        ),
        "watches": (
            replace(limit(rate=3, window=6.0), shadow=True, backoff=Backoff(after=1, wait=5.0, longest=9.0)),
            replace(limit("r", ("route",), rate=6, window=4.0, algorithm="sliding_window"), shadow=True),
            limit("u", ("user",), rate=4, window=9.0),
        ),
        "shrinks": (
            replace(limit(rate=20, window=5.0, algorithm="sliding_window"), adapt=Adaptation(risk=0.5)),
            replace(limit("u", ("user",), rate=20, window=9.0, burst=9, algorithm="gcra"), adapt=Adaptation(risk=0.5)),
        ),
    }
    # The store's clock, handed in: everything else of the script is as it runs.
    text = script("spend", ALGORITHMS).replace("redis.call('TIME')", "cjson.decode(ARGV[2])")
    spend = Script(text)

    async def run(keys: list[bytes], args: tuple[bytes]) -> list[int]:
        moment = round(clock.monotonic() * 1e6)
        numbers: list[int] = await alone.redis.run(
            spend, keys, (*args, f"[{moment // 1_000_000},{moment % 1_000_000}]")
        )
        return numbers

    alone.shared._run = run  # type: ignore[assignment]
    refused: Counter[str] = Counter()
    for _ in range(4000):
        clock.advance(dice.choice((0.0, 0.0, 0.1, 0.2, 0.5)))
        rule = dice.choice(list(limits))
        where, who = facts(f"192.0.2.{dice.randrange(3)}"), somebody(f"s-{dice.randrange(3)}")
        alone.counting.forget()
        left = dice.choice((1.0, 1.0, 0.5, 0.1))
        asked = alone.counting.spend(limits[rule], where, who, rule, lambda _, left=left: left)
        told = asked if isinstance(asked, tuple) else await asked
        own = python.spend(limits[rule], where, who, rule, lambda _, left=left: left)
        assert [_rounded(quota) for quota in told] == [_rounded(quota) for quota in own]
        refused[rule] += not all(quota.allowed for quota in own)
        python.sweep()
    assert all(50 < refused[rule] < 750 for rule in limits), refused


def _rounded(quota: Quota) -> tuple[object, ...]:
    name, (_, allowed, remaining, reset, retry_after, how) = quota.limit.name, quota
    return name, allowed, remaining, round(reset * 1e6), round(retry_after * 1e6), how


# --- leases -----------------------------------------------------------------------------------------------------------


def leased(rate: int, algorithm: str = "sliding_window", window: float = LONG) -> LimitSpec:
    return replace(limit(rate=rate, window=window, algorithm=algorithm), mode="leased")


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_leases_never_pass_the_limit_and_leave_little(replicas: list[Replica], algorithm: str) -> None:
    limits = (leased(1000, algorithm),)
    spent = await asyncio.gather(
        *[replica.spend(limits, facts()) for _ in range(700) for replica in replicas], return_exceptions=False
    )
    allowed = sum(quota.allowed for (quota,) in spent)
    assert 950 <= allowed <= 1000
    assert sum(replica.asked for replica in replicas) < 250


async def test_little_of_what_is_lent_is_left_over_by_a_flood_that_slows_down(
    server: Server, clock: ManualClock
) -> None:
    """What ends unused is lost: shares must not be as large as the flood was, nor larger than the trickle is now."""
    server.ask("FLUSHALL")
    replicas = [await Replica.of(server.url, clock) for _ in range(3)]
    limits = (leased(1000),)
    for replica in replicas:
        replica.away.replicas = 3
    flood = await asyncio.gather(*[replica.spend(limits, facts()) for _ in range(120) for replica in replicas])
    allowed = sum(quota.allowed for (quota,) in flood)
    assert allowed == 360
    for tick in range(900):
        clock.advance(0.1 if tick % 7 else 0.025)
        for replica in replicas:
            (quota,) = await replica.spend(limits, facts())
            allowed += quota.allowed
    assert 950 <= allowed <= 1000
    assert sum(replica.asked for replica in replicas) < 900
    for replica in replicas:
        await replica.close()


async def test_a_lease_that_is_not_used_ends(alone: Replica, clock: ManualClock) -> None:
    limits = (leased(1000),)
    for _ in range(40):
        await alone.spend(limits, facts())
    (lease,) = alone.leased._leases.values()
    assert lease.units > 0
    asked = alone.asked
    clock.advance(1.1)
    await alone.spend(limits, facts())
    assert alone.asked == asked + 1


async def test_who_goes_away_takes_nobody_elses_answer_along(replicas: list[Replica]) -> None:
    """Many wait for one question, in tasks and without; a client that has gone is no reason to leave them waiting."""
    one, limits = replicas[0], (leased(1000),)
    gone, stays = (asyncio.create_task(one.spend(limits, facts())) for _ in range(2))
    said: asyncio.Future[tuple[Quota, ...]] = asyncio.get_running_loop().create_future()

    async def without_a_task() -> None:
        said.set_result(await one.spend(limits, facts()))

    await asyncio.sleep(0)
    run_eagerly(without_a_task(), asyncio.ensure_future)
    gone.cancel()
    ended = await asyncio.gather(gone, stays, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert not isinstance(ended[1], BaseException)
    assert ended[1][0].allowed
    async with asyncio.timeout(5):
        assert (await said)[0].allowed


async def test_what_another_limit_refuses_is_given_back(replicas: list[Replica]) -> None:
    one = replicas[0]
    limits = (leased(100), limit("per-user", ("user",), rate=1, window=LONG))
    assert all(quota.allowed for quota in await one.spend(limits, facts(), somebody()))
    (lease,) = one.leased._leases.values()
    for _ in range(50):
        (lent, refused) = await one.spend(limits, facts(), somebody())
        assert (lent.allowed, refused.allowed) == (True, False)
    assert lease.units + lease.size <= 100 // LARGEST * 2
    assert one.asked <= 4


def test_terms_leave_room_for_what_is_lent() -> None:
    for rate, window, burst in ((1000, 60.0, 1000), (10, 1.0, 5), (5, 3600.0, 1), (100, 10.0, 3)):
        for algorithm in ALGORITHMS:
            spec = LimitSpec("x", ("address",), algorithm, rate, window, burst)
            agreed = terms(spec)
            if agreed is None:
                continue
            assert agreed.life <= window / 40
            if algorithm == "sliding_window":
                assert agreed.window == window + agreed.life
            elif algorithm != "fixed_window":
                assert agreed.burst + rate * agreed.life / window <= burst + 1e-9
                assert agreed.burst >= 1


# --- away -------------------------------------------------------------------------------------------------------------


async def test_while_the_store_is_away_each_limit_does_as_it_says() -> None:
    with a_server() as server:
        replica = await Replica.of(server.url)
        replica.away.replicas = 4
        limits = {
            did: (replace(limit(did, rate=8, window=LONG, algorithm="sliding_window"), when_away=did),)
            for did in ("refuse", "local", "allow")
        }
        for each in limits.values():
            assert (await replica.spend(each, facts()))[0].allowed
        server.kill()
        allowed = {
            did: sum([(await replica.spend(each, facts()))[0].allowed for _ in range(20)])
            for did, each in limits.items()
        }
        assert allowed == {"refuse": 0, "local": 2, "allow": 20}
        (refused,) = await replica.spend(limits["refuse"], facts())
        assert (refused.how, refused.retry_after) == ("away", 1.0)
        assert replica.did["local", "local"] == 20
        server.start()
        await asyncio.wait_for(_back(replica), 5.0)
        assert (await replica.spend(limits["refuse"], facts()))[0].allowed
        await replica.close()


async def _back(replica: Replica) -> None:
    while not replica.redis.line.up:
        await asyncio.sleep(0.01)
