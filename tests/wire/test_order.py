"""What comes between two events of another connection: an end, a pause, a farewell, at the worst of moments."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.identity import Identity
from gateway.wire.client import ClientConnection
from gateway.wire.drain import drain
from tests.rig.certificates import Authority
from tests.rig.client import PATIENCE, RawClient
from tests.rig.frames import HANDSHAKE, KEY, agreed
from tests.rig.gateway import Gateway, request, running
from tests.rig.upstream import ok
from tests.wire.services_at import settled, until

pytestmark = pytest.mark.asyncio

LARGE = 32 << 20


@pytest.fixture
async def listening() -> AsyncIterator[socket.socket]:
    """Where a service listens of which the test is the loop; it takes little at a time."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    made.bind(("127.0.0.1", 0))
    made.listen()
    made.setblocking(False)
    yield made
    made.close()


@pytest.fixture
async def gateway(tmp_path: Path, listening: socket.socket) -> AsyncIterator[Gateway]:
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    timeouts = {"idle": "5s"}
    upstreams = {
        "app": {"url": url, "timeouts": timeouts, "connections": 1, "queue": {"wait": "60s"}},
        "other": {"url": url},
    }
    async with running(tmp_path, config={"upstreams": upstreams}) as made:
        yield made


def readable(*numbers: int) -> None:
    """Until one of these has something to read, or its end; the loop does not turn meanwhile."""
    arrived = select.poll()
    for number in numbers:
        arrived.register(number, select.POLLIN)
    assert arrived.poll(PATIENCE * 1000)


async def met(gateway: Gateway, listening: socket.socket) -> socket.socket:
    """The connection the gateway has made, once its first bytes are there; they stay unread."""
    loop = gateway.app.wire.loop
    async with asyncio.timeout(PATIENCE):
        sock, _ = await loop.sock_accept(listening)
        with sock.dup() as waiting:
            waiting.setblocking(False)
            await loop.sock_recv(waiting, 1)
    return sock


async def test_a_service_that_is_full_from_the_start_holds_its_client_back(
    gateway: Gateway, listening: socket.socket
) -> None:
    """Also where what waited for its connection is more already than it takes."""
    app = gateway.app.wire.upstreams["app"]
    async with await gateway.connect() as first, await gateway.connect() as second:
        await first.send(request(b"GET", b"/public/x"))
        sock = await met(gateway, listening)
        try:
            head = request(b"POST", b"/public/x", b"Content-Length: %d\r\n" % LARGE)
            second._sock.send(head + bytes(LARGE // 4))  # as much as there is room for, at once
            await until(lambda: len(app.waiting) == 1)
            await second.send_until_stalled(bytes(1 << 16), LARGE, stall=0.2)
            sock.sendall(ok(b"first"))
            assert (await first.response()).body == b"first"
            assert await second.send_until_stalled(bytes(1 << 16), LARGE, stall=0.2) < LARGE // 4
        finally:
            sock.close()


async def test_a_connection_whose_end_was_just_read_is_not_used_again(
    gateway: Gateway, listening: socket.socket
) -> None:
    """What cannot be sent twice would be refused."""
    async with await gateway.connect() as client:
        await client.send(request(b"GET", b"/public/x"))
        sock = await met(gateway, listening)
        sock.sendall(ok(b"kept"))
        assert (await client.response()).body == b"kept"
        sock.recv(65_536)  # closing with unread bytes would be a reset
        sock.close()
        (kept,) = gateway.app.wire.upstreams["app"].endpoints[0].unused
        readable(kept._transport.get_extra_info("socket").fileno())
        client._sock.send(request(b"POST", b"/public/x", b"Content-Length: 5\r\n", b"hello"))
        sock = await met(gateway, listening)
        sock.sendall(ok(b"new"))
        assert (await client.response("POST")).body == b"new"
        sock.close()


async def fill(gateway: Gateway, sock: socket.socket, piece: bytes) -> ClientConnection:
    """Answer with `piece` again and again, until the client, who does not read, takes no more."""
    served = next(each for each in gateway.app.wire.clients if each.answering is not None)
    async with asyncio.timeout(PATIENCE):
        while not served.write_paused:
            with contextlib.suppress(BlockingIOError):
                sock.send(piece)
            await asyncio.sleep(0)
    return served


async def test_a_client_that_does_not_read_is_no_silence_of_the_service(
    gateway: Gateway, listening: socket.socket
) -> None:
    """Else whoever reads slowly could have a service left alone, or an endpoint left out."""
    endpoint = gateway.app.wire.upstreams["app"].endpoints[0]
    async with await gateway.connect(buffers=65_536) as client:
        await client.send(request(b"GET", b"/public/x"))
        sock = await met(gateway, listening)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        served = await fill(gateway, sock, bytes(1 << 16))
        gateway.pass_time(6)
        assert (endpoint.failures, len(endpoint.open), served.write_paused) == (0, 1, True)
        await client.read_until(b"\r\n\r\n")
        await client.read_exactly(1 << 20)
        gateway.pass_time(31)
        assert await client.read_rest() != b""
        await until(lambda: not endpoint.open)
        assert endpoint.failures == 0
        sock.close()


async def test_who_reads_again_has_still_to_send(gateway: Gateway, listening: socket.socket) -> None:
    async with await gateway.connect(buffers=65_536) as client:
        await client.send(request(b"POST", b"/public/x", b"Content-Length: 9\r\n", b"hello"))
        sock = await met(gateway, listening)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        served = await fill(gateway, sock, bytes(1 << 16))
        async with asyncio.timeout(PATIENCE):
            while served.write_paused:
                await client.read_exactly(1 << 12)
        assert served.deadline <= served.now() + gateway.app.wire.bounds.body_time
        sock.close()


async def test_who_is_refused_in_line_stands_there_no_longer(gateway: Gateway, listening: socket.socket) -> None:
    app = gateway.app.wire.upstreams["app"]
    async with await gateway.connect() as first, await gateway.connect() as second:
        await first.send(request(b"GET", b"/public/x"))
        sock = await met(gateway, listening)
        await second.send(request(b"POST", b"/public/x", b"Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n"))
        await until(lambda: len(app.waiting) == 1)
        await second.send(b"this is no chunk\r\n")
        assert (await second.response("POST")).status == 400
        assert not app.waiting
        sock.close()


async def test_what_turned_out_to_be_no_request_goes_nowhere(
    gateway: Gateway, listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even as far as a connection, though it is found out while it is judged."""
    cookie = await gateway.cookie()
    sessions, asked, known = gateway.app.sessions, asyncio.Event(), asyncio.Event()
    find, near = sessions.find, sessions.near

    async def slowly(token: str) -> Identity | None:
        asked.set()
        await known.wait()
        return await find(token)

    monkeypatch.setattr(sessions, "near", lambda token: near(token) if known.is_set() else None)
    monkeypatch.setattr(sessions, "find", slowly)
    async with await gateway.connect() as client:
        head = b"Transfer-Encoding: chunked\r\n"
        await client.send(request(b"POST", b"/app/x", head, b"1\r\nx\r\n", cookie=cookie))
        await asked.wait()
        await client.send(b"this is no chunk\r\n")
        assert (await client.response()).status == 400
        known.set()
        await settled(gateway)
    with pytest.raises(BlockingIOError):
        listening.accept()


async def test_room_is_made_by_those_alone_who_are_let_go(gateway: Gateway) -> None:
    """Not by one whose request has come just now."""
    wire = gateway.app.wire
    async with await gateway.connect() as one, await gateway.connect() as two, await gateway.connect():
        await until(lambda: len(wire.clients) == 3)
        gateway.clock.advance(2)
        one._sock.send(b"GET")
        readable(*(each.fileno() for each in wire.clients))
        wire.admission._make_room()
        assert wire.admission._room == 2
        assert await two.is_closed()


async def test_who_is_accepted_last_is_served(tmp_path: Path) -> None:
    """Also where nobody else is there when the gateway stops."""
    path = tmp_path / "in.sock"
    async with running(tmp_path, config={"listen": f"unix:{path}"}) as gateway:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(path))
        sock.sendall(request())
        sock.setblocking(False)
        async with RawClient(sock):
            await drain(gateway.app.wire, 5.0, 0.0, asyncio.Event())
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")


async def test_who_is_given_up_while_they_come_in_is_gone(tmp_path: Path) -> None:
    config = {"listen": {"address": "127.0.0.1:0", "proxy_protocol": True}, "trusted_proxies": ["127.0.0.1/32"]}
    async with running(tmp_path, config=config) as gateway:
        wire = gateway.app.wire
        async with await gateway.connect() as client, asyncio.timeout(PATIENCE):
            await client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
            while not wire.clients:
                await asyncio.sleep(0)
            (listener,) = wire.servers
            assert listener.arriving
            listener.sweep(float("inf"))
            assert await client.is_closed()
            assert not wire.clients


class Secret:
    """A client that speaks TLS as far as it is told to."""

    def __init__(self, raw: RawClient, trust: Authority) -> None:
        self.raw = raw
        self._come, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(trust.path))
        self._tls = context.wrap_bio(self._come, self._goes, server_hostname="good.test")

    async def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send()
                await self.hear()
        self._send()

    async def hear(self, most: int = 65_536) -> bool:
        """Take what has come, without looking at it."""
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self.raw._sock, most)
        self._come.write(data)
        return bool(data)

    def say(self, data: bytes) -> None:
        self._tls.write(data)
        self._send()

    def _send(self) -> None:
        self.raw._sock.send(self._goes.read())


@pytest.fixture
async def secure(tmp_path: Path, listening: socket.socket) -> AsyncIterator[tuple[Gateway, Authority]]:
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    authority = Authority(tmp_path)
    made = authority.make("good", "good.test")
    tls = {"certificate": str(made.certificate), "key": str(made.key)}
    config = {
        "listen": {"address": "127.0.0.1:0", "tls": tls},
        "upstreams": {"app": {"url": url}, "other": {"url": url}},
    }
    async with running(tmp_path, config=config) as gateway:
        yield gateway, authority


async def test_nobody_opens_a_socket_for_who_has_just_gone(
    secure: tuple[Gateway, Authority], listening: socket.socket
) -> None:
    """Whatever comes first, the end of the one or the word of the other: nothing stays open."""
    gateway, authority = secure
    wire = gateway.app.wire
    for turns in range(6):
        client = Secret(await gateway.connect(), authority)
        await client.shake_hands()
        client.say(request(b"GET", b"/public/ws", HANDSHAKE))
        sock = await met(gateway, listening)
        client.raw.abort()
        for _ in range(turns):
            await asyncio.sleep(0)
        sock.send(agreed(KEY))
        await until(lambda: not wire.clients or bool(wire.streams.tunnels))
        sock.close()
        await until(lambda: not wire.clients and not wire.streams.tunnels)
        assert not wire.upstreams["app"].endpoints[0].open
