"""Nobody may hold a connection for nothing. The clock is moved by hand; no test waits for it."""

from __future__ import annotations

import asyncio

import pytest

from tests.rig.client import RawClient
from tests.rig.gateway import Gateway, request, still
from tests.rig.messages import Request, Truncated
from tests.rig.upstream import Line, fixed, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")

GET = request(b"GET", b"/public/x")
HEAD, BODY, IDLE, RESPONSE = 10.0, 30.0, 75.0, 60.0
"""The defaults, in seconds."""


async def full(gateway: Gateway, client: RawClient) -> None:
    """Wait until every buffer on the way to a client that does not read is full, or all has gone."""
    connection = gateway.connection(client)
    assert connection is not None

    def held() -> object:
        writers = [line.writer.transport for line in gateway.upstream.lines if not line.closed.is_set()]
        ours = connection._transport.get_write_buffer_size(), connection.write_paused, len(gateway.upstream.requests)
        return ours, [each.get_write_buffer_size() for each in writers]

    await still(held)


async def test_half_a_head_may_take_its_time_but_not_longer(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(GET[:20])
        await gateway.heard(client)
        gateway.pass_time(HEAD - 1)
        await client.send(GET[20:30])
        await gateway.heard(client)
        gateway.pass_time(1.5)  # counted from the first byte, not from the last
        answer = await client.response()
        assert answer.status == 408
        assert await client.is_closed()
    assert gateway.upstream.requests == []
    assert await gateway.rejections() == 0, "slow is not hostile"


async def test_a_connection_that_says_nothing_is_closed_without_a_word(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await gateway.heard(client)
        gateway.pass_time(HEAD + 1)
        assert await client.is_closed()
    assert await gateway.rejections() == 0


async def test_a_kept_connection_ends_after_its_idle_time(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(GET)
        assert (await client.response()).status == 200
        gateway.pass_time(IDLE - 1)
        await client.send(GET)
        assert (await client.response()).status == 200
        gateway.pass_time(IDLE + 1)
        assert await client.is_closed()


async def test_a_second_head_has_its_own_time(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(GET)
        assert (await client.response()).status == 200
        await client.send(GET[:20])
        await gateway.heard(client)
        gateway.pass_time(HEAD + 1)
        assert (await client.response()).status == 408
        assert await client.is_closed()


async def test_half_a_head_sent_ahead_has_no_longer(gateway: Gateway) -> None:
    """It came with the request before it, while nobody was waiting for it."""
    async with await gateway.connect() as client:
        await client.send(GET + GET[:20])
        assert (await client.response()).status == 200
        gateway.pass_time(HEAD + 1)
        assert (await client.response()).status == 408
        assert await client.is_closed()


@pytest.mark.parametrize("target", [b"/public/x", b"/app/x"])
async def test_a_body_that_stops_coming(gateway: Gateway, target: bytes) -> None:
    cookie = await gateway.cookie("bob")
    async with await gateway.connect() as client:
        await client.send(request(b"POST", target, b"Content-Length: 10\r\n", b"hello", cookie=cookie))
        await gateway.upstream.until(lambda: bool(gateway.upstream.requests))
        gateway.pass_time(BODY - 1)
        await client.send(b"w")
        received = gateway.upstream.only
        await gateway.heard(client)
        gateway.pass_time(BODY - 1)  # counted from the last byte
        assert gateway.upstream.requests[0] is received
        gateway.pass_time(2)
        answer = await client.response("POST")
        assert answer.status == 408
        assert await client.is_closed()
    line = gateway.upstream.lines[received.connection - 1]
    await gateway.upstream.until(line.closed.is_set)
    assert not received.complete


async def test_a_service_that_does_not_answer(gateway: Gateway) -> None:
    async def script(_: Request, line: Line) -> None:
        await line.reader.read(1)

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        await client.send(GET)
        await gateway.upstream.came()
        gateway.pass_time(RESPONSE - 1)
        gateway.pass_time(2)
        answer = await client.response()
        assert answer.status == 504
        assert b"ERR-UPSTREAM-TIMED-OUT" in answer.body
    line = gateway.upstream.lines[gateway.upstream.only.connection - 1]
    await gateway.upstream.until(line.closed.is_set)


async def test_a_service_that_stops_amid_its_answer(gateway: Gateway) -> None:
    async def script(_: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await line.reader.read(1)

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        await client.send(GET)
        await client.read_until(b"hello")
        gateway.pass_time(RESPONSE + 1)
        assert await client.is_closed()
        assert client.reset


async def test_a_client_that_stops_reading(gateway: Gateway) -> None:
    async def script(_: Request, line: Line) -> None:
        await line.send(ok(bytes(64 << 20)))

    gateway.upstream.script = script
    async with await gateway.connect(buffers=65536) as client:
        await client.send(GET)
        await client.read_until(b"\r\n\r\n")
        await full(gateway, client)
        gateway.pass_time(BODY + 1)
        with pytest.raises((Truncated, AssertionError, asyncio.IncompleteReadError)):
            await client.read_exactly(64 << 20)


@pytest.mark.parametrize("head", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
@pytest.mark.parametrize("size", [1 << 10, 64 << 20])
async def test_nobody_holds_a_connection_by_not_reading(gateway: Gateway, head: bytes, size: int) -> None:
    """Also when its answer is whole on our side, and only the client's reading is missing."""
    gateway.upstream.script = fixed(ok(bytes(size)))
    wire = gateway.app.wire
    before = len(wire.clients)
    async with await gateway.connect(buffers=4096) as client:
        await client.send(request(b"GET", b"/public/x", head) * 40)
        await gateway.upstream.came(1)
        await full(gateway, client)
        gateway.pass_time(max(BODY, IDLE) + 1)
        gateway.pass_time(max(BODY, IDLE) + 1)
        await asyncio.sleep(0)
        await gateway.ask(GET)
        assert len(wire.clients) <= before + 1


async def test_unused_connections_to_a_service_are_let_go(gateway: Gateway) -> None:
    assert (await gateway.ask(GET)).status == 200
    line = gateway.upstream.lines[gateway.upstream.only.connection - 1]
    gateway.pass_time(61)
    await gateway.upstream.until(line.closed.is_set)
    assert (await gateway.ask(GET)).status == 200
    first, second = gateway.upstream.requests
    assert first.connection != second.connection


async def test_long_answers_that_keep_coming_are_not_cut(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(_: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await go_on.wait()
        await line.send(b"world")

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        await client.send(GET)
        await client.read_until(b"hello")
        gateway.pass_time(RESPONSE - 1)
        go_on.set()
        assert await client.read_exactly(5) == b"world"
