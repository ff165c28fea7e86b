"""Open sockets: what goes through, what is said when they end, and who is still there."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from demo.service import application
from tests.rig.certificates import Authority
from tests.rig.client import PATIENCE
from tests.rig.frames import (
    BINARY,
    CLOSE,
    HANDSHAKE,
    PING,
    PONG,
    TEXT,
    Frame,
    Socket,
    agreed,
    echo_frames,
    frame,
    open_socket,
    read_frame,
)
from tests.rig.gateway import Gateway, request, running, still
from tests.rig.messages import Request
from tests.rig.upstream import Line
from tests.wire.services_at import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    config = {"websocket": {"message": "1M"}}
    async with running(tmp_path_factory.mktemp("tunnel"), config=config) as gateway:
        gateway.app.wire.upstreams["app"].connections = 2000
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(house: Gateway) -> AsyncIterator[Gateway]:
    await house.mark()
    house.upstream.script = echo_frames
    yield house
    for tunnel in list(house.app.wire.streams.tunnels):
        tunnel.exchange.client.abort()
    await closed(house)
    assert house.upstream.violations == []


Serving = Callable[[web.Application, ssl.SSLContext | None], Awaitable[int]]


@pytest_asyncio.fixture(loop_scope="module")
async def serving() -> AsyncIterator[Serving]:
    """Serves an application until the test ends; gives its port."""
    async with AsyncExitStack() as ending:

        async def serve(served: web.Application, tls: ssl.SSLContext | None) -> int:
            runner = web.AppRunner(served, shutdown_timeout=1.0)
            await runner.setup()
            ending.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            return int(runner.addresses[0][1])

        yield serve


async def closed(gateway: Gateway, count: int = 0) -> None:
    """Wait until no more than `count` sockets are open."""
    await until(lambda: len(gateway.app.wire.streams.tunnels) <= count)


def logged(gateway: Gateway) -> list[dict[str, object]]:
    gateway.app.wire.settle()
    log = gateway.app._access_log
    log.flush()
    end = time.monotonic() + PATIENCE
    while log._file._written < log._file._handed:  # by a thread of its own
        assert time.monotonic() < end
        time.sleep(0.001)
    return [json.loads(line) for line in Path(gateway.app.settings.log.access).read_text().splitlines()]


async def test_messages_of_every_kind_and_size(gateway: Gateway) -> None:
    async with await open_socket(gateway) as socket:
        for opcode, payload in [(TEXT, b"hello"), (BINARY, bytes(range(256)) * 300), (TEXT, b""), (PING, b"there?")]:
            await socket.send(frame(opcode, payload))
            assert await socket.frame() == Frame(PONG if opcode == PING else opcode, payload)
        await socket.send(frame(TEXT, b"in ", final=False), frame(PING, b"p"), frame(0, b"pieces"))
        assert [await socket.frame() for _ in range(3)] == [
            Frame(TEXT, b"in ", final=False),
            Frame(PONG, b"p"),
            Frame(0, b"pieces"),
        ]
        await socket.send(frame(CLOSE, b"\x03\xe8bye"))
        assert await socket.frame() == Frame(CLOSE, b"\x03\xe8bye")
        assert await socket.client.is_closed()
    await closed(gateway)


async def test_what_comes_with_the_heads_is_not_lost(gateway: Gateway) -> None:
    async def greets(asked: Request, line: Line) -> None:
        await line.send(agreed(asked.one("Sec-WebSocket-Key")) + frame(TEXT, b"welcome", mask=None))
        assert (await read_frame(line)).payload == b"already"
        await line.send(frame(TEXT, b"heard", mask=None))
        await line.reader.read()

    gateway.upstream.script = greets
    client = await gateway.connect()
    async with Socket(client) as socket:
        await client.send(request(b"GET", b"/public/ws", HANDSHAKE) + frame(TEXT, b"already"))
        await client.read_until(b"\r\n\r\n")
        assert (await socket.frame()).payload == b"welcome"
        assert (await socket.frame()).payload == b"heard"


async def test_a_socket_is_logged_and_counted_at_its_end(gateway: Gateway) -> None:
    before = len(logged(gateway))
    async with await open_socket(gateway, b"/app/ws", cookie=await gateway.cookie("bob")) as socket:
        assert "sallyport_open_tunnels 1.0" in gateway.app.metrics.render()[0].decode()
        await socket.send(frame(TEXT, b"hello"))
        await socket.frame()
        gateway.clock.advance(5)
        assert len(logged(gateway)) == before
        await socket.send(frame(CLOSE, b"\x03\xe8"))
        assert await socket.closes() == 1000
    await closed(gateway)
    line = logged(gateway)[-1]
    assert line["status"] == 101
    assert line["user"] == "bob"
    assert (line["received"], line["sent"]) == (len(frame(TEXT, b"hello")) + 8, 7 + 4)
    assert line["duration_us"] == 5_000_000
    assert "sallyport_open_tunnels 0.0" in gateway.app.metrics.render()[0].decode()


async def test_the_service_dies(gateway: Gateway) -> None:
    async with await open_socket(gateway) as socket:
        await socket.send(frame(TEXT, b"x"))
        await socket.frame()
        gateway.upstream.lines[-1].abort()
        assert await socket.closes() == 0
    await closed(gateway)


async def test_the_service_leaves_with_last_words(gateway: Gateway) -> None:
    words = frame(BINARY, bytes(200_000), mask=None) + frame(CLOSE, b"\x03\xe9", mask=None)

    async def leaves(asked: Request, line: Line) -> None:
        await line.send(agreed(asked.one("Sec-WebSocket-Key")) + words)
        line.close()

    gateway.upstream.script = leaves
    async with await open_socket(gateway) as socket:
        await socket.send(frame(TEXT, bytes(100_000)))
        await gateway.upstream.until(gateway.upstream.lines[-1].closed.is_set)
        (tunnel,) = gateway.app.wire.streams.tunnels
        await until(lambda: tunnel.service.lost or tunnel.client.stalled)  # before anybody reads
        assert len((await socket.frame()).payload) == 200_000
        assert await socket.closes() == 1001
    await closed(gateway)


@pytest.mark.parametrize("how", ["close", "abort", "finish"])
async def test_the_client_leaves(gateway: Gateway, how: str) -> None:
    socket = await open_socket(gateway)
    await socket.send(frame(TEXT, b"x"))
    await socket.frame()
    getattr(socket.client, how)()
    await gateway.upstream.lines[-1].closed.wait()
    await closed(gateway)
    socket.client.close()


async def test_a_close_that_is_not_answered_is_not_waited_for(gateway: Gateway) -> None:
    async def silent(asked: Request, line: Line) -> None:
        await line.send(agreed(asked.one("Sec-WebSocket-Key")))
        await line.reader.read()
        await asyncio.sleep(60)

    gateway.upstream.script = silent
    async with await open_socket(gateway) as socket:
        await socket.send(frame(CLOSE, b"\x03\xe8"))
        (tunnel,) = gateway.app.wire.streams.tunnels
        await until(lambda: tunnel.closing)
        gateway.pass_time(29)
        assert len(gateway.app.wire.streams.tunnels) == 1
        gateway.pass_time(2)
        assert await socket.closes() == 0
    await closed(gateway)


async def test_going_away_tells_both(gateway: Gateway) -> None:
    got: asyncio.Queue[Frame] = asyncio.Queue()

    async def listens(asked: Request, line: Line) -> None:
        await line.send(agreed(asked.one("Sec-WebSocket-Key")))
        got.put_nowait(await read_frame(line))
        line.close()

    gateway.upstream.script = listens
    async with await open_socket(gateway) as socket:
        gateway.app.wire.streams.going_away()
        assert await socket.closes() == 1001
    last = await got.get()
    assert (last.code, last.masked) == (1001, True)
    await closed(gateway)


async def test_in_the_midst_of_a_frame_nothing_is_said(gateway: Gateway) -> None:
    async def half(asked: Request, line: Line) -> None:
        await line.send(agreed(asked.one("Sec-WebSocket-Key")) + frame(BINARY, bytes(1000), mask=None)[:500])
        await line.reader.read()

    gateway.upstream.script = half
    async with await open_socket(gateway) as socket:
        assert len(await socket.client.read_exactly(500)) == 500
        gateway.app.wire.streams.going_away()  # it may still be finished
        (tunnel,) = gateway.app.wire.streams.tunnels
        assert not tunnel.closing
        tunnel.end(1008)
        assert await socket.client.read_rest() == b""
    await closed(gateway)


async def test_case_72_a_slow_reader_holds_the_service_back(gateway: Gateway) -> None:
    sent = 0

    async def floods(asked: Request, line: Line) -> None:
        nonlocal sent
        await line.send(agreed(asked.one("Sec-WebSocket-Key")))
        block = frame(BINARY, bytes(100_000), mask=None)
        while True:
            await line.send(block)
            sent += len(block)

    gateway.upstream.script = floods
    async with await open_socket(gateway, buffers=8192) as socket:
        await still(lambda: sent)
        before = sent
        (tunnel,) = gateway.app.wire.streams.tunnels
        assert tunnel.client.transport.get_write_buffer_size() < 1_000_000
        assert sent < 20_000_000
        for _ in range(50):
            assert len((await socket.frame()).payload) == 100_000
        await until(lambda: before < sent)
        await still(lambda: (sent, tunnel.client.stalled))
        assert tunnel.client.stalled
        gateway.pass_time(31)
        await closed(gateway)


async def test_a_slow_service_holds_the_client_back(gateway: Gateway) -> None:
    async def deaf(asked: Request, line: Line) -> None:
        await line.send(agreed(asked.one("Sec-WebSocket-Key")))
        await asyncio.sleep(60)

    gateway.upstream.script = deaf
    async with await open_socket(gateway) as socket:
        block = frame(BINARY, bytes(100_000))
        sent = await socket.client.send_until_stalled(block, 100_000_000)
        assert sent < 60_000_000
        (tunnel,) = gateway.app.wire.streams.tunnels
        await still(lambda: tunnel.service.stalled)
        assert tunnel.service.stalled
        gateway.pass_time(31)
        await closed(gateway)


async def test_silence_is_asked_about_and_a_pong_is_ours_alone(gateway: Gateway) -> None:
    async with await open_socket(gateway) as socket:
        for _ in range(3):
            gateway.pass_time(31)
            ping = await socket.frame()
            assert ping.opcode == PING
            await socket.send(frame(PONG, ping.payload))
            await gateway.heard(socket.client)
            gateway.pass_time(1)
        await socket.send(frame(TEXT, b"still here"))
        assert (await socket.frame()).payload == b"still here"
        assert ping.payload not in gateway.upstream.lines[-1].received
        gateway.pass_time(1)
        gateway.pass_time(31)
        assert (await socket.frame()).opcode == PING
        gateway.pass_time(29)
        assert len(gateway.app.wire.streams.tunnels) == 1
        gateway.pass_time(2)
        assert await socket.closes() == 1001
    await closed(gateway)


async def test_case_72_a_thousand_idle_sockets_are_reaped(gateway: Gateway) -> None:
    async def silent(asked: Request, line: Line) -> None:
        await line.send(agreed(asked.one("Sec-WebSocket-Key")))
        await line.reader.read()
        line.close()

    gateway.upstream.script = silent
    sockets: list[Socket] = []
    for _ in range(20):
        sockets += await asyncio.gather(*(open_socket(gateway) for _ in range(50)))
    assert len(gateway.app.wire.streams.tunnels) == 1000
    gateway.pass_time(1)
    gateway.pass_time(31)
    assert len(gateway.app.wire.streams.tunnels) == 1000
    gateway.pass_time(31)
    gateway.pass_time(3)
    await closed(gateway)
    for socket in sockets:
        socket.client.close()


async def test_a_real_client_and_the_demo_service(tmp_path: Path, serving: Serving) -> None:
    port = await serving(application(), None)
    config = {"upstreams": {"app": {"url": f"http://127.0.0.1:{port}"}, "other": {"url": f"http://127.0.0.1:{port}"}}}
    async with running(tmp_path, config=config) as gateway, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{gateway.port}/public/ws"
        headers = {"Host": "good.test"}
        async with session.ws_connect(url, headers=headers, compress=15, max_msg_size=0) as socket:
            assert socket.compress == 0
            await socket.send_str("grüße")
            assert await socket.receive_str() == "grüße"
            await socket.send_bytes(bytes(1_000_000))
            assert await socket.receive_bytes() == bytes(1_000_000)
            await socket.ping(b"x")
        assert socket.close_code == 1000
        await closed(gateway)


@pytest.mark.parametrize("end", ["client", "service", "gateway"])
async def test_over_tls_on_both_sides(tmp_path: Path, end: str, serving: Serving) -> None:
    authority = Authority(tmp_path)
    made = authority.make("both", "good.test")
    opened: list[web.WebSocketResponse] = []

    async def service(asked: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        opened.append(socket)
        await socket.prepare(asked)
        async for message in socket:
            await socket.send_bytes(message.data)
        return socket

    application = web.Application()
    application.router.add_get("/public/ws", service)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(made.certificate, made.key)
    behind = {
        "url": f"https://127.0.0.1:{await serving(application, server)}",
        "tls": {"ca": str(authority.path), "server_name": "good.test"},
    }
    listen = {"address": "127.0.0.1:0", "tls": {"certificate": str(made.certificate), "key": str(made.key)}}
    trusting = ssl.create_default_context(cafile=str(authority.path))
    async with (
        running(tmp_path, config={"listen": listen, "upstreams": {"app": behind, "other": behind}}) as gateway,
        aiohttp.ClientSession() as session,
        asyncio.timeout(10),
    ):
        url = f"wss://127.0.0.1:{gateway.port}/public/ws"
        headers = {"Host": "good.test", "Origin": "https://good.test"}
        async with session.ws_connect(
            url, headers=headers, ssl=trusting, server_hostname="good.test", max_msg_size=0
        ) as socket:
            for size in (0, 100, 1_000_000):
                await socket.send_bytes(bytes(size))
                assert await socket.receive_bytes() == bytes(size)
            if end == "client":
                await socket.close()
            elif end == "service":
                await opened[0].close(code=3333)
                assert (await socket.receive()).data == 3333
            else:
                gateway.app.wire.streams.going_away()
                assert (await socket.receive()).data == 1001
        await closed(gateway)
        assert opened[0].close_code in (1000, 3333, 1001)
