"""Ten times what can be done: that much is done, the rest is told so at once, and afterwards all is as before."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from gateway.wire.upstream import Queue
from tests.rig.awake import Awake
from tests.rig.client import RawClient
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Request
from tests.rig.upstream import Line, ok

GET = request(b"GET", b"/public/x")
CONNECTIONS = 8
TAKES = 0.1
"""Seconds the service works on each request: so with its connections it can do eighty a second, on any machine."""
CAPACITY = CONNECTIONS / TAKES


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


@pytest_asyncio.fixture
async def mine(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path, config={"timeouts": {"head": "10s"}}) as gateway:
        for upstream in gateway.app.wire.upstreams.values():
            upstream.connections, upstream.queue = CONNECTIONS, Queue(length=CONNECTIONS, wait=1.0)
        yield gateway
        assert gateway.upstream.violations == []


async def slowly(_: Request, line: Line) -> None:
    await asyncio.sleep(TAKES)
    await line.send(ok(b"done"))


async def offer(gateway: Gateway, awake: Awake, clients: int, rate: float, seconds: float) -> Counter[str]:
    """Answers to `rate` requests a second from `clients` connections that keep their pace whatever is answered."""
    loop = asyncio.get_running_loop()
    heard: Counter[str] = Counter()
    end = awake.now() + seconds

    async def one(number: int) -> None:
        due = loop.time() + number / rate
        async with await gateway.connect() as client:
            while awake.now() < end:
                await asyncio.sleep(due - loop.time())
                await client.send(GET)
                answer = await client.response()
                heard[f"{answer.status}{'' if answer.status == 200 else ' ' + answer.one('Retry-After').decode()}"] += 1
                due = max(due + clients / rate, loop.time())

    await asyncio.gather(*(one(number) for number in range(clients)))
    return heard


async def test_ten_times_the_capacity(mine: Gateway, awake: Awake) -> None:
    mine.upstream.script = slowly
    heard = await offer(mine, awake, clients=200, rate=10 * CAPACITY, seconds=2.0)
    assert set(heard) <= {"200", "503 1"}, heard
    assert heard["503 1"] > 0
    assert heard["200"] >= 0.8 * CAPACITY * 2.0, heard
    assert len(mine.upstream.requests) == heard["200"], "what was refused never reached the service"
    mine.upstream.clear()
    assert (await mine.ask(GET)).status == 200, "and the next is served at once"


async def test_slow_readers_cost_a_bounded_amount_each(mine: Gateway) -> None:
    size = 16 << 20

    async def much(_: Request, line: Line) -> None:
        await line.send(ok(bytes(size)))

    mine.upstream.script = much
    wire = mine.app.wire
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(await mine.connect(buffers=16_384)) for _ in range(CONNECTIONS)]
        for reader in readers:
            await reader.send(GET)
        async with asyncio.timeout(10):
            while sum(client.write_paused for client in wire.clients) < len(readers):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        held = [client._transport.get_write_buffer_size() for client in wire.clients]
        assert max(held) < 1 << 20, held
        await readers[0].response()  # who reads gets all of it


async def test_a_body_in_single_bytes_is_held_back_like_any_other(mine: Gateway) -> None:
    """Each byte costs six on the wire and an object here; a service that does not read stops the client."""
    go_on = asyncio.Event()

    async def wait(_: Request, line: Line) -> None:
        await go_on.wait()

    mine.upstream.on_head = wait
    block = b"1\r\nx\r\n" * 10_000
    async with await mine.connect(buffers=65_536) as client:
        await client.send(request(b"POST", b"/public/x", b"Transfer-Encoding: chunked\r\n"))
        await mine.upstream.until(lambda: bool(mine.upstream.requests))
        sent = await client.send_until_stalled(block, 200 << 20, stall=0.3)
        assert sent < 100 << 20
        (exchange,) = [one.answering for one in mine.app.wire.clients if one.answering is not None]
        assert exchange.pending < 1 << 20
        assert len(exchange.chunks) < 1 << 20
        go_on.set()
        rest = -sent % 6
        await client.send((b"1\r\nx\r\n"[-rest:] if rest else b"") + b"0\r\n\r\n")
        assert (await client.response("POST")).status == 200
    assert mine.upstream.only.body == b"x" * (-(-sent // 6))


async def test_ten_thousand_headers_are_refused_before_they_are_all_here(mine: Gateway) -> None:
    clients = [await RawClient.connect(mine.port) for _ in range(20)]
    try:
        for client in clients:
            await client.send(request(b"GET", b"/public/x", b"".join(b"X-%d: y\r\n" % each for each in range(10_000))))
            assert (await client.response()).status == 431
        assert mine.upstream.requests == []
        assert sum(len(one._fields) for one in mine.app.wire.clients) == 0, "nor kept"
    finally:
        for client in clients:
            client.close()


async def test_dribbled_heads_do_not_keep_others_waiting(mine: Gateway) -> None:
    async with AsyncExitStack() as stack:
        dribblers = [await stack.enter_async_context(await mine.connect()) for _ in range(500)]
        for at in range(10):
            for dribbler in dribblers:
                await dribbler.send(GET[at : at + 1])
            if at % 3 == 0:
                assert (await mine.ask(GET)).status == 200
        mine.pass_time(11)
        for dribbler in dribblers:
            assert (await dribbler.response()).status == 408
        assert (await mine.ask(GET)).status == 200
    assert len(mine.upstream.requests) == 5
