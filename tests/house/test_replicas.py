"""Three gateways on one Redis and one database, each with connections and ports of its own, on real time.

What one of them ends is over at the others: within a second when they hear of it, within two when they do not, and for
what is open within five. Attacks 70 and 81 across replicas.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import pytest_asyncio

from gateway.core.identity import Identity, Level, Proof
from tests.house.visitor import Visitor, location
from tests.rig.awake import Awake
from tests.rig.client import RawClient
from tests.rig.faulty import Faulty, before
from tests.rig.frames import echo_frames, open_socket
from tests.rig.gateway import PASSWORD, Gateway, request, running
from tests.rig.messages import Request
from tests.rig.redis import Server, a_server, needs_redis
from tests.rig.sessions import PATIENT
from tests.rig.upstream import Line, ok

pytestmark = [pytest.mark.asyncio(loop_scope="module"), needs_redis]

POLICY = """
rules:
  - name: public
    match: {paths: [/public/**]}
    access: public
    upstream: app
  - name: fresh
    match: {paths: [/fresh/**]}
    access: authenticated
    fresh: true
    upstream: app
  - name: strong
    match: {paths: [/strong/**]}
    access: authenticated
    step_up: {level: aal2}
    upstream: app
  - name: rest
    access: authenticated
    upstream: app
"""
GRACE = 2.0
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class House:
    """The gateways, their Redis, and what stands between it and the last of them."""

    def __init__(self, replicas: list[Gateway], server: Server, proxy: Faulty) -> None:
        self.replicas = replicas
        self.server = server
        self.proxy = proxy

    async def warm(self, cookie: bytes) -> None:
        """Have every replica keep `cookie` near, with nothing left to notice that would make it look again."""
        for replica in self.replicas:
            async with asyncio.timeout(5):
                while replica.app.sessions._foreign != await replica.app.records.foreign():
                    await asyncio.sleep(0.01)
                while replica.app.sessions.near(token_of(cookie)) is None:
                    assert await status(replica, cookie) == 200
                    await asyncio.sleep(0.01)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    data = tmp_path_factory.mktemp("replicas")
    with a_server() as server, before(server.port) as proxy:
        async with contextlib.AsyncExitStack() as ending:
            replicas = []
            for port in (server.port, server.port, proxy.port):
                config = {
                    "store": {
                        "records": f"sqlite:{data}/records.db",
                        "shared": {"url": f"redis://127.0.0.1:{port}", "deadline": f"{PATIENT:g}s"},
                    },
                    "keys": str(data / "keys"),
                    "sessions": {"grace": f"{GRACE:g}s"},
                }
                folder: Path = tmp_path_factory.mktemp("replica")
                replica = await ending.enter_async_context(running(folder, policy=POLICY, config=config, hurries=True))
                replica.upstream.script = talks
                replicas.append(replica)
            yield House(replicas, server, proxy)


async def talks(asked: Request, line: Line) -> None:
    if asked.all("Upgrade"):
        await echo_frames(asked, line)
    elif asked.target.endswith(b"/events"):
        await line.send(EVENTS + b"5\r\ndata:\r\n")
        await line.reader.read()
    else:
        await line.send(ok(b"served"))


def token_of(cookie: bytes) -> str:
    return cookie.partition(b"=")[2].decode()


async def status(replica: Gateway, cookie: bytes, target: bytes = b"/app") -> int:
    return (await replica.ask(request(b"GET", target, cookie=cookie, head=b"Connection: close\r\n"))).status


async def who(replica: Gateway, cookie: bytes) -> Identity:
    found = await replica.app.sessions.find(token_of(cookie))
    assert found is not None
    assert found.session is not None
    return found


async def until_over(replica: Gateway, cookie: bytes, seconds: float, target: bytes = b"/app") -> float:
    """How long until it is refused there, in seconds in which we could work; asked all the time, so that it stays near
    as long as it is believed."""
    awake = Awake()
    began = awake.now()
    try:
        while (said := await status(replica, cookie, target)) == 200:
            assert awake.now() - began < seconds, f"still let in after {seconds} seconds"
            await asyncio.sleep(0.01)
        assert said == 401
        return awake.now() - began
    finally:
        awake.end()


async def end(replica: Gateway, identity: Identity) -> None:
    assert identity.session is not None
    assert await replica.app.sessions.end(identity.tenant, identity.subject, identity.session.id)


async def end_all(replica: Gateway, identity: Identity) -> None:
    assert await replica.app.sessions.end_all(identity.tenant, identity.subject) >= 1


async def disable(replica: Gateway, identity: Identity) -> None:
    await replica.app.users.disable(identity.user)


async def password(replica: Gateway, identity: Identity) -> None:
    await replica.app.users.set_password(identity.user, "another horse battery")


ENDS = [(end, 1.0), (end_all, 1.0), (disable, 2.0), (password, 2.0)]


async def test_what_one_has_opened_all_know_and_what_one_has_proven_all_believe(house: House) -> None:
    one, two, three = house.replicas
    cookie = await one.sign_in("bob")
    await house.warm(cookie)
    name = cookie.partition(b"=")[0]
    proof = Proof("totp", two.app.clock.now())
    fresh, _ = await two.app.sessions.prove(token_of(cookie), proof)
    assert (await who(three, name + b"=" + fresh.encode())).level is Level.AAL2
    for replica in house.replicas:
        await until_over(replica, cookie, 1.0)
        assert await status(replica, name + b"=" + fresh.encode()) == 200


async def test_a_step_up_may_begin_at_one_go_on_at_another_and_count_at_the_third(house: House) -> None:
    one, two, three = house.replicas
    await one.app.users.add("joy", PASSWORD)
    joy = Visitor(one.port)
    await joy.sign_in("joy")
    joy.port = two.port
    _, codes = await joy.enrol(one.app.clock)
    await joy.sign_in("joy")
    joy.port = three.port
    asked = location(await joy.get("/strong/x"))
    joy.port = one.port
    page = await joy.get(f"{asked}?factor=backup_code")
    before_ = dict(joy.cookies)
    joy.port = two.port
    assert location(await joy.fill(page, "verify/", code=codes[0], factor="backup_code")) == "/strong/x"
    for replica in house.replicas:
        joy.port = replica.port
        assert (await joy.get("/strong/x")).status == 200
    stale = Visitor(three.port)
    stale.cookies = before_
    assert (await stale.get("/strong/x")).status == 303
    assert location(await stale.get("/app")).startswith("/.sallyport/login")


@pytest.mark.parametrize(("how", "seconds"), ENDS, ids=[how.__name__ for how, _ in ENDS])
async def test_case_81_what_is_ended_at_one_is_over_at_all(
    house: House, how: Callable[[Gateway, Identity], Awaitable[None]], seconds: float
) -> None:
    one, *others = house.replicas
    user = f"user-{how.__name__}"
    cookie, other = await one.sign_in(user), await one.sign_in("bob")
    await house.warm(cookie)
    await house.warm(other)
    await how(one, await who(one, cookie))
    took = await asyncio.gather(*(until_over(replica, cookie, seconds) for replica in others))
    assert await status(one, cookie) == 401
    assert max(took) < seconds
    for replica in house.replicas:
        assert await status(replica, other) == 200


@pytest.mark.parametrize("lost", ["deaf", "killed"])
async def test_case_81_also_where_the_message_is_lost(house: House, lost: str) -> None:
    one, *others = house.replicas
    cookie = await one.sign_in("carl")
    await house.warm(cookie)
    topics = [hears(replica) for replica in others]
    kept = [dict(each) for each in topics]
    for each in topics:
        each.clear()
    if lost == "killed":
        house.server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    try:
        await end(one, await who(one, cookie))
        took = await asyncio.gather(*(until_over(replica, cookie, 2.0) for replica in others))
        assert max(took) < 2.0
    finally:
        for each, before_ in zip(topics, kept, strict=True):
            each.update(before_)
        house.server.ask("CLIENT", "KILL", "TYPE", "pubsub")


@pytest.mark.parametrize("kind", ["socket", "events"])
@pytest.mark.parametrize("lost", [False, True], ids=["heard", "lost"])
async def test_case_70_what_is_open_elsewhere_is_cut_within_five_seconds(house: House, kind: str, lost: bool) -> None:
    one, two, _ = house.replicas
    cookie, other = await one.sign_in("dora"), await one.sign_in("bob")
    clients = [await opened(two, kind, each) for each in (cookie, other)]
    await house.warm(cookie)
    topics = hears(two)
    kept = dict(topics)
    if lost:
        topics.clear()
    try:
        await end(one, await who(one, cookie))
        began = monotonic()
        async with asyncio.timeout(5):
            rest = await clients[0].read_rest()
        assert monotonic() - began < 5
        if kind == "socket":
            assert rest == b"\x88\x02" + (1008).to_bytes(2, "big")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(clients[1].read_rest(), 0.2)  # somebody else's stays
    finally:
        topics.update(kept)
        for client in clients:
            client.close()


async def test_a_rule_that_wants_it_fresh_obeys_at_once(house: House) -> None:
    """Nothing heard, nothing looked at yet: the next request already."""
    one, two, _ = house.replicas
    cookie = await one.sign_in("fay")
    await house.warm(cookie)
    assert await status(two, cookie, b"/fresh/x") == 200
    client = await opened(two, "events", cookie, b"/fresh/")
    topics = hears(two)
    kept = dict(topics)
    topics.clear()
    try:
        await end(one, await who(one, cookie))
        assert await status(two, cookie, b"/fresh/x") == 401
        async with asyncio.timeout(5):
            await client.read_rest()
    finally:
        topics.update(kept)
        client.close()


async def test_a_warm_request_asks_no_store(house: House) -> None:
    one = house.replicas[0]
    cookie = await one.sign_in("gil")
    await house.warm(cookie)
    async with await one.connect() as client:
        before_ = house.server.ask("INFO", "commandstats")
        for _ in range(300):
            await client.send(request(b"GET", b"/app", cookie=cookie))
            assert (await client.response()).status == 200
        after = house.server.ask("INFO", "commandstats")
    assert scripts(after) - scripts(before_) < 150, "more than what replicas ask each second anyway"


async def test_while_redis_is_away_only_who_is_known_goes_on_and_only_for_the_grace(house: House) -> None:
    """Case 83, for the replica that is cut off; the others do not notice."""
    one, _, cut_off = house.replicas
    cookie, strange = await one.sign_in("hal"), await one.sign_in("hal")
    await house.warm(cookie)
    house.proxy.begin("silent")
    try:
        began = monotonic()
        assert await status(cut_off, strange) == 503
        assert await status(cut_off, cookie, b"/fresh/x") == 503
        assert await status(cut_off, b"sallyport=" + b"x" * 43) == 503
        assert await status(cut_off, b"", b"/public/x") == 200
        if monotonic() - began < GRACE / 2:
            assert await status(cut_off, cookie) == 200
        while monotonic() - began < GRACE + 2.5:
            said = await status(cut_off, cookie)
            assert said in (200, 503)
            if said == 503:
                break
            await asyncio.sleep(0.02)
        assert said == 503, "known for longer than the grace"
        assert monotonic() - began > GRACE - 1.0
        assert await status(one, cookie) == 200
    finally:
        house.proxy.end()
    began = monotonic()
    while await status(cut_off, cookie) != 200:
        assert monotonic() - began < 5, "not back within five seconds"
        await asyncio.sleep(0.02)
    assert await status(cut_off, strange) == 200


async def test_who_is_disabled_while_a_replica_is_cut_off_is_out_there_too(house: House) -> None:
    """The database tells it of the generation: no grace for them, and still for everybody else."""
    one, _, cut_off = house.replicas
    cookie, other = await one.sign_in("ida"), await one.sign_in("bob")
    await house.warm(cookie)
    await house.warm(other)
    house.proxy.begin("refused")
    try:
        await one.app.users.disable("ida")
        awake = Awake()
        began = awake.now()
        while await status(cut_off, cookie) == 200:
            assert awake.now() - began < 2
            await asyncio.sleep(0.01)
        awake.end()
    finally:
        house.proxy.end()
    began = monotonic()
    while (said := await status(cut_off, cookie)) != 401:
        assert said == 503
        assert monotonic() - began < 5
        await asyncio.sleep(0.02)
    assert await status(cut_off, other) == 200


def hears(replica: Gateway) -> dict[bytes, Any]:
    """What it listens to; emptied, it is deaf."""
    assert replica.app.redis is not None
    return replica.app.redis._ear._topics


async def opened(replica: Gateway, kind: str, cookie: bytes, place: bytes = b"/app/") -> RawClient:
    if kind == "socket":
        return (await open_socket(replica, place + b"ws", cookie=cookie)).client
    client = await replica.connect()
    await client.send(request(b"GET", place + b"events", cookie=cookie))
    assert b" 200 OK" in await client.read_until(b"\r\n\r\n")
    await client.read_exactly(10)
    return client


def scripts(stats: str) -> int:
    return sum(
        int(line.split("calls=")[1].split(",")[0])
        for line in stats.splitlines()
        if line.startswith(("cmdstat_eval:", "cmdstat_evalsha:"))
    )
