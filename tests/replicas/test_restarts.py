"""What a restart of any part takes from people, while three replicas on one Redis and one PostgreSQL are under load: a
replica that is killed, a database and a Redis that are restarted, with what they had written down and without."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from gateway.core.clock import SystemClock
from tests.house import rolling
from tests.house.visitor import Visitor, location
from tests.replicas.fault_table import cookie_of, patiently
from tests.replicas.load import Load, loaded
from tests.replicas.several import Several, several
from tests.rig.messages import Response
from tests.rig.postgres import Server as PostgreSQL
from tests.rig.postgres import needs_postgresql, started
from tests.rig.redis import Server as Redis
from tests.rig.redis import a_server, needs_redis

pytestmark = [needs_redis, needs_postgresql]

RATE = 60
POLICY = f"""\
rules:
  - name: counted
    match: {{paths: [/counted]}}
    access: public
    limits: [{{name: all, key: address, rate: {RATE}/h, when_away: refuse}}]
    upstream: app
  - name: admin
    match: {{paths: [/admin/**]}}
    access: {{groups: [admins]}}
    step_up: {{level: aal2, factors: [totp, backup_code], max_age: 1s}}
    upstream: app
  - {{name: everything-else, access: authenticated, upstream: app}}
"""
KEPT = {"appendonly": "yes", "appendfsync": "always"}
"""Everything that was answered is on the disk."""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgreSQL]:
    yield from started()


def both(redis: Redis, postgres: PostgreSQL) -> dict[str, dict[str, str]]:
    """The stores; what is tested is not how soon one is given up that is late on a busy machine."""
    return {
        "records": {"url": postgres.url(postgres.database()), "deadline": "2s"},
        "shared": {"url": redis.url, "deadline": "2s"},
    }


@asynccontextmanager
async def three(redis: Redis, postgres: PostgreSQL, count: int = 3, grace: str = "10s") -> AsyncIterator[Several]:
    """Replicas that serve, with bob and ann."""
    async with several(count, policy=POLICY, store=both(redis, postgres), sessions={"grace": grace}) as house:
        await house.start()
        await house.add_users("bob")
        await house.add_users("ann", groups=["admins"])
        yield house
        for replica in house.replicas:
            assert await replica.stop() == 0, replica.said
        house.calm()


async def signed_in(house: Several, name: str) -> Visitor:
    one = house.replicas[0].visitor()

    async def sign_in() -> Visitor:
        assert (await one.sign_in(name)).status == 303
        return one

    return await patiently(sign_in)


async def asked_for(load: Load, name: str, times: int) -> None:
    """Wait until `name` was asked for so many times more, and answered 200 at the last."""
    before = len(load.of(name))
    async with asyncio.timeout(30.0):
        while len(load.of(name)) < before + times or load.of(name)[-1].status not in (200, 429):
            await asyncio.sleep(0.02)


async def question(ann: Visitor) -> Response:
    """The page that asks for a code."""
    async with asyncio.timeout(5.0):
        while (answer := await ann.get("/admin/x")).status == 200:
            await asyncio.sleep(0.1)
    page = await ann.get(location(answer) + "?method=totp")
    assert page.status == 200
    return page


async def test_a_replica_that_is_killed_takes_what_it_was_answering_and_nothing_else(own_postgres: PostgreSQL) -> None:
    with a_server() as redis:
        async with three(redis, own_postgres) as house:
            bob, ann = await signed_in(house, "bob"), await signed_in(house, "ann")
            phone, _ = await ann.enrol(SystemClock())
            page = await patiently(lambda: question(ann))
            killed = house.replicas[1]
            statuses = []
            async with loaded(house.replicas, ["/app/x", "/counted"], clients=6, cookie=cookie_of(bob)) as load:
                await asked_for(load, "/app/x", 60)
                for port in (killed.port, killed.port, house.replicas[2].port):
                    ann.port = port
                    statuses.append((await ann.fill(page, "verify/", code=phone.wrong)).status)
                await killed.kill()
                await asked_for(load, "/app/x", 60)
                ann.port = house.replicas[2].port
                statuses.append((await ann.fill(page, "verify/", code=phone.wrong)).status)
                await killed.start()
                await asked_for(load, "/app/x", 60)
                ann.port = killed.port
                statuses += [(await ann.fill(page, "verify/", code=phone.wrong)).status for _ in range(3)]
                await asked_for(load, "/counted", 3 * RATE)
            assert statuses == [400] * 5 + [429] * 2, "tries are counted by all, whoever dies"
            assert RATE - 6 <= load.let_through("/counted") <= RATE, "what was counted and never answered is lost"
            for number in (0, 2):
                assert set(load.statuses("/app/x", number)) == {200}
                assert set(load.statuses("/counted", number)) <= {200, 429}
            lost = load.statuses("/app/x", 1)[0] + load.statuses("/counted", 1)[0]
            assert lost <= 6, "one of each client at most"
            late = [one for one in load.of("/app/x", 1) if one.sent > max(each.sent for each in load.tally) - 0.5]
            assert {one.status for one in late} == {200}, "and it is one of them again"


async def test_a_database_that_is_restarted_under_load(own_postgres: PostgreSQL) -> None:
    """Who is known does not notice; who comes in waits for seconds at most."""
    with a_server() as redis:
        async with three(redis, own_postgres, 2, grace="60s") as house:  # however long a busy machine takes to start it
            bob = await signed_in(house, "bob")
            async with loaded(house.replicas, ["/app/x", "/counted"], clients=4, cookie=cookie_of(bob)) as load:
                # Three seconds: whoever hears of a change, as of the last sign-in, forgets who was known before, and
                # knows nobody if the database is gone just then.
                await asked_for(load, "/app/x", 150)
                await asyncio.to_thread(own_postgres.stop_at_once)
                for replica in house.replicas:
                    await replica.until("store records is away", within=15.0)
                    assert (await replica.readiness())[0] == 503
                await asyncio.to_thread(own_postgres.start)
                for replica in house.replicas:
                    await replica.until("store records is back", within=15.0)
                again = await signed_in(house, "bob")
                assert (await again.get("/app/x")).status == 200
                await asked_for(load, "/counted", 2 * RATE)
            assert set(load.statuses("/app/x")) == {200}
            assert load.let_through("/counted") == RATE


@pytest.mark.parametrize("kept", [True, False], ids=["with an append-only file", "with nothing written down"])
async def test_a_redis_that_is_restarted_under_load(own_postgres: PostgreSQL, kept: bool) -> None:
    """With what it had written down, nobody notices for longer than it was away. Without, people sign in again and
    limits begin anew; nothing opens."""
    with a_server(options=KEPT if kept else {}) as redis:
        async with three(redis, own_postgres, 2) as house:
            bob = await signed_in(house, "bob")
            cookie = cookie_of(bob)
            async with loaded(house.replicas, ["/app/x", "/counted"], clients=4, cookie=cookie) as load:
                await asked_for(load, "/counted", 2 * RATE)
                assert load.let_through("/counted") == RATE
                await asyncio.to_thread(redis.kill)
                for replica in house.replicas:
                    await replica.until("store shared is away", within=15.0)
                await asyncio.to_thread(redis.start)
                for replica in house.replicas:
                    await replica.until("store shared is back", within=15.0)
                async with asyncio.timeout(15.0):  # until every replica has heard that it may have missed something
                    wanted = 200 if kept else 401
                    while {(await one.ask("/app/x", cookie=cookie)).status for one in house.replicas} != {wanted}:
                        await asyncio.sleep(0.05)
                await asked_for(load, "/counted", 2 * RATE)
            nobody = {(await replica.ask("/app/x")).status for replica in house.replicas}
            assert nobody == {401}
            assert set(load.statuses("/app/x")) <= ({200, 503} if kept else {200, 401, 503})
            assert not any(re.fullmatch(r"/app/x ?", who) for who in house.service.named), "never as nobody"
            if kept:
                assert load.let_through("/counted") == RATE
            else:
                assert load.let_through("/counted") <= 2 * RATE
                assert (await (await signed_in(house, "bob")).get("/app/x")).status == 200


async def test_nothing_is_lost_over_rolling_restarts_of_three(own_postgres: PostgreSQL) -> None:
    with a_server() as redis:
        store = both(redis, own_postgres)
        run = await rolling.run(
            restarts=3, rate=200.0, clients=30, sockets=6, uploads=2, delay=0.5, every=0.1, pause=0.2,
            replicas=3, store=store,
        )  # fmt: skip
    assert run.failures == []
    assert run.count["restarts"] == 3
    assert run.count["requests"] > 500
