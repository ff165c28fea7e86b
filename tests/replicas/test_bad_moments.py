"""Limits at the moments in which counting together goes wrong elsewhere (attack cases 118 and 119): a master that dies,
a server that forgets its scripts or its keys, a cluster that moves them, clocks that are set.

Two gateways, over a data plane without records. Each limit is asked for much more than it allows.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from gateway.limits.places import slot_of
from tests.replicas.load import Load, loaded
from tests.replicas.several import Replica, Several, eventually, several
from tests.rig.redis import MASTER, Server, a_cluster, a_server, needs_redis, watched

pytestmark = needs_redis

RATE = 40
LIMITS = {
    "/exact": "algorithm: sliding_window, rate: 40/h, when_away: refuse",
    "/bucket": "algorithm: token_bucket, rate: 40/h, burst: 40, when_away: refuse",
    "/leased": "algorithm: gcra, rate: 40/h, burst: 40, mode: leased, when_away: refuse",
    "/local": "algorithm: sliding_window, rate: 40/h, when_away: local",
}
BACK_WITHIN = 5.0
"""Seconds after the store is there again."""


def policy(limits: dict[str, str], **others: str) -> str:
    return "rules:\n" + "".join(
        f"  - name: {path[1:]}\n    match: {{paths: [{path}]}}\n    access: public\n    upstream: app\n"
        f"    limits: [{{name: all, key: address, {said}}}]\n"
        for path, said in {**limits, **{f"/{name}": said for name, said in others.items()}}.items()
    )


@asynccontextmanager
async def two(url: str, **others: str) -> AsyncIterator[Several]:
    """Two gateways that share the Redis at `url`; they say nothing that must not be said.

    What is tested is not how soon it is given up where it is late on a busy machine.
    """
    store = {"records": "none", "shared": {"url": url, "deadline": "2s"}}
    async with several(2, policy=policy(LIMITS, **others), store=store) as house:
        await house.start()
        for replica in house.replicas:
            assert await eventually(partial(knows, replica, 2), 15.0) < 3.0
        yield house
        for replica in house.replicas:
            assert replica.process.returncode is None, replica.said
        house.calm()


async def knows(replica: Replica, count: int) -> bool:
    """Whether it knows how many replicas there are."""
    return (await replica.metrics())["sallyport_replicas"] == count


async def asked_for(load: Load, name: str, times: int) -> None:
    """Wait until `name` was asked for so many times more."""
    before = len(load.of(name))
    async with asyncio.timeout(30.0):
        while len(load.of(name)) < before + times:
            await asyncio.sleep(0.02)


async def counted_again(house: Several, name: str = "/watch") -> None:
    """Every replica counts, and says so."""
    for replica in house.replicas:
        async with asyncio.timeout(BACK_WITHIN):
            while (await replica.ask(name)).status != 200:
                await asyncio.sleep(0.03)
        assert (await replica.metrics())['sallyport_store_up{store="shared"}'] == 1.0


GENEROUS = "algorithm: fixed_window, rate: 100000/h, when_away: refuse"


async def test_scripts_that_are_forgotten_all_the_time() -> None:
    with a_server() as redis:
        async with two(redis.url) as house, loaded(house.replicas, [*LIMITS], clients=8) as load:
            for _ in range(50):
                await asyncio.to_thread(redis.ask, "SCRIPT", "FLUSH", "SYNC")
            await asked_for(load, "/exact", 50)
            for name in LIMITS:
                await asked_for(load, name, 2 * RATE - len(load.of(name)))
    for name in ("/exact", "/bucket", "/local"):
        assert load.let_through(name) == RATE
        assert set(load.statuses(name)) == {200, 429}
    assert 0.9 * RATE <= load.let_through("/leased") <= RATE


async def test_a_master_that_dies() -> None:
    """What its replica had not heard of yet is all that may be let through again."""
    with watched() as redis:
        url = f"redis+sentinel://{','.join(map(str, redis.where.addresses))}/{MASTER}"
        async with two(url, watch=GENEROUS) as house, loaded(house.replicas, [*LIMITS], clients=4) as load:
            await asked_for(load, "/exact", 40)
            old = redis.master()
            await asyncio.to_thread(old.kill)
            for replica in house.replicas:
                await replica.until("store shared is away", within=5.0)
                assert (await replica.ask("/watch")).status == 503, "who refuses while the store is away"
            async with asyncio.timeout(30.0):
                while (await asyncio.to_thread(redis.master)) is old:
                    await asyncio.sleep(0.05)
            for replica in house.replicas:
                await replica.until("store shared is back", within=BACK_WITHIN)
            await counted_again(house)
            await asked_for(load, "/exact", 2 * RATE)
            await asked_for(load, "/leased", RATE)
        assert load.let_through("/exact") <= RATE + 2
        assert load.let_through("/exact") >= RATE - 5, "what was counted, and whose answer never came, is lost"
        assert load.let_through("/bucket") <= RATE + 2
        assert load.let_through("/leased") <= RATE + 2
        assert load.let_through("/local") <= 2 * RATE, "each replica has let its half through in the meantime"
        assert set(load.statuses("/local")) == {200, 429}
        assert set(load.statuses("/exact")) == {200, 429, 503}


async def test_slots_that_move() -> None:
    with a_cluster() as redis:
        url = f"redis+cluster://{','.join(map(str, redis.where.addresses))}"
        async with two(url) as house, loaded(house.replicas, [*LIMITS], clients=4) as load:
            slots = {name: await slot_in(redis.servers[0], name) for name in LIMITS}
            for _ in range(3):
                for name, slot in slots.items():
                    await asked_for(load, name, 10)
                    target = (redis.owner(slot) + 1) % 3
                    source = await asyncio.to_thread(redis.begin_move, slot, target)
                    await asked_for(load, name, 5)
                    await asyncio.to_thread(redis.move_keys, slot, source, target)
                    await asked_for(load, name, 5)
                    await asyncio.to_thread(redis.end_move, slot, target)
            for name in LIMITS:
                await asked_for(load, name, max(1, 2 * RATE - len(load.of(name))))
    for name in ("/exact", "/bucket", "/local"):
        assert load.let_through(name) == RATE
    assert 0.9 * RATE <= load.let_through("/leased") <= RATE
    assert sum(load.statuses(name)[503] for name in LIMITS) <= 0.02 * len(load.tally)


async def slot_in(server: Server, name: str) -> int:
    """The slot of the cluster that the counters of a rule are in."""
    return int(await asyncio.to_thread(server.ask, "CLUSTER", "KEYSLOT", f"sallyport:{{l{slot_of(name[1:])}}}:"))


async def test_keys_that_are_pushed_out() -> None:
    """A store that forgets lets more through: the operator is told at the start. And then nobody is shut out, and
    nothing breaks."""
    options = {"maxmemory": "3mb", "maxmemory-policy": "allkeys-lru"}
    with a_server(options=options) as redis:
        async with two(redis.url, watch=GENEROUS) as house:
            for replica in house.replicas:
                assert "forgets keys when it is full (maxmemory-policy allkeys-lru)" in replica.said
                assert "set noeviction" in replica.said
            async with loaded(house.replicas, [*LIMITS], clients=4) as before:
                await asked_for(before, "/exact", RATE // 2)
            # Nobody asks meanwhile: what is asked for all the time is the last to go, and a limit that was reached is
            # not looked up again.
            await fill(redis)
            async with loaded(house.replicas, [*LIMITS], clients=4) as after:
                for name in LIMITS:
                    await asked_for(after, name, 3 * RATE)
                await counted_again(house, "/watch")
    for name in LIMITS:
        # What is counted anew; and who has a lease from before.
        assert after.let_through(name) <= 2 * RATE
        assert before.let_through(name) + after.let_through(name) >= 0.9 * RATE
        assert after.statuses(name)[429] > RATE
    assert before.let_through("/exact") > 0
    assert after.let_through("/exact") == RATE, "counted anew"
    assert set(after.statuses("/local")) == {200, 429}


async def fill(redis: Server) -> None:
    """Put more in than there is room for, until no counter is left, and make room again: a store that stays full
    forgets again and again, the more often the longer it is asked.
    """
    assert await asyncio.to_thread(redis.ask, "--scan", "--pattern", "sallyport:{l*")
    async with asyncio.timeout(60.0):
        for number in itertools.count():
            text = f"for n = 1, 500 do redis.call('SET', 'other:{number}:' .. n, string.rep('x', 100)) end"
            await asyncio.to_thread(redis.ask, "EVAL", text, "0")
            if not await asyncio.to_thread(redis.ask, "--scan", "--pattern", "sallyport:{l*"):
                break
    await asyncio.to_thread(redis.ask, "CONFIG", "SET", "maxmemory", "0")


async def test_a_store_that_is_full_refuses_what_it_cannot_count() -> None:
    with a_server() as redis:
        async with two(redis.url, watch=GENEROUS) as house, loaded(house.replicas, [*LIMITS], clients=4) as load:
            await asked_for(load, "/exact", 10)
            await asyncio.to_thread(redis.ask, "CONFIG", "SET", "maxmemory", "1mb")  # more is in use
            for replica in house.replicas:
                await replica.until("store shared is away", within=5.0)
            await asked_for(load, "/exact", 20)
            for replica in house.replicas:
                assert (await replica.ask("/watch")).status == 503
                assert replica.said.count("store shared is away") <= 2, "it does not come and go"
                assert (await replica.metrics())['sallyport_store_up{store="shared"}'] == 0.0
            await asyncio.to_thread(redis.ask, "CONFIG", "SET", "maxmemory", "0")
            await counted_again(house)
            await asked_for(load, "/exact", 2 * RATE)
    assert load.let_through("/exact") <= RATE
    assert load.let_through("/local") <= 2 * RATE


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("clock") / "wrong_clock.so"
    source = Path(__file__).with_name("wrong_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
    return library


async def test_a_clock_of_the_store_that_is_set(
    wrong_clock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back by an hour, nothing is let through that would not have been, and nobody waits for what it was set back
    by. Set forward again, the windows that lie between are over, as they are for everybody who looks at that clock."""
    wrong = tmp_path / "wrong"
    wrong.write_text("0")
    monkeypatch.setenv("WRONG_CLOCK", str(wrong))
    monkeypatch.setenv("LD_PRELOAD", str(wrong_clock))
    with a_server() as redis:
        monkeypatch.undo()
        quick = "algorithm: sliding_window, rate: 20/2s, when_away: refuse"
        waits = "algorithm: fixed_window, rate: 20/1s, when_away: refuse, backoff: {after: 1, wait: 2s, longest: 2s}"
        targets = [*LIMITS, "/quick", "/waits"]
        async with (
            two(redis.url, quick=quick, waits=waits) as house,
            loaded(house.replicas, targets, clients=6, pace=0.03) as load,
        ):
            for turn, seconds in enumerate((0, -3600, 0)):
                wrong.write_text(str(seconds))
                said = await asyncio.to_thread(redis.ask, "TIME")
                assert abs(int(said.split()[0]) - time.time() - seconds) < 5
                for name in LIMITS:
                    await asked_for(load, name, 2 * RATE)
                before = {name: load.let_through(name) for name in ("/quick", "/waits")}
                deadline = time.monotonic() + 8.0
                for name, let_through in before.items():
                    while load.let_through(name) <= let_through:
                        assert time.monotonic() < deadline, f"nobody gets through {name} any more"
                        await asyncio.sleep(0.05)
                for name in ("/exact", "/bucket", "/local"):
                    assert load.let_through(name) == RATE or turn == 2
    for name in ("/exact", "/bucket", "/local"):
        assert RATE <= load.let_through(name) <= 2 * RATE
