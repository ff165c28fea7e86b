"""A service that answers at once and hangs up resets the connection that we still write to; what it said is heard."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rig.client import RawClient
from tests.rig.frames import BINARY, CLOSE, HANDSHAKE, KEY, TEXT, Socket, agreed, frame
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Truncated, parse_response_head
from tests.rig.upstream import ok
from tests.wire.services_at import until

pytestmark = pytest.mark.asyncio

MUCH = 20_000
"""Bytes that the gateway gets in one piece, and writes in the turn in which they came."""


class Service:
    """A service on a bare socket: what it does is done between two turns of the gateway's loop, and in that order."""

    def __init__(self, folder: Path) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.folder = folder

    async def met(self, gateway: Gateway) -> socket.socket:
        """The connection the gateway has made, once its first bytes are there; they stay unread."""
        loop = gateway.app.wire.loop
        sock, _ = await loop.sock_accept(self._listening)
        sock.setblocking(True)
        waiting = sock.dup()
        waiting.setblocking(False)
        await loop.sock_recv(waiting, 1)
        waiting.close()
        return sock

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    made = Service(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def gateway(service: Service) -> AsyncIterator[Gateway]:
    upstreams = {"app": {"url": service.url}, "other": {"url": service.url}}
    async with running(service.folder, config={"upstreams": upstreams}) as made:
        yield made


def goes(client: RawClient, data: bytes, sock: socket.socket, said: bytes) -> None:
    """In one turn of the loop: the client goes on, and after that the service speaks and is gone, with bytes unread."""
    assert client._sock.send(data) == len(data)
    sock.sendall(said)
    sock.close()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_an_early_answer_is_heard_though_the_body_finds_nobody(
    service: Service, gateway: Gateway, chunked: bool
) -> None:
    head = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: 4000000\r\n"
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/public/x", head, b"5\r\nhello\r\n" if chunked else b"hello"))
        sock = await service.met(gateway)
        more = b"%x\r\n%b\r\n" % (MUCH, bytes(MUCH)) if chunked else bytes(MUCH)
        goes(client, more, sock, b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
        answer = await client.response("POST")
        assert (answer.status, answer.body) == (413, b"big")
        assert await client.is_closed()
    assert not gateway.app.wire.upstreams["app"].endpoints[0].open


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 413 Content Too Large\r\nContent-Le",
        b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ],
    ids=["nothing", "half a head", "nonsense"],
)
async def test_what_is_no_answer_stays_none(service: Service, gateway: Gateway, said: bytes) -> None:
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/public/x", b"Content-Length: 4000000\r\n", b"hello"))
        goes(client, bytes(MUCH), await service.met(gateway), said)
        answer = await client.response("POST")
        assert (answer.status, answer.one("Connection")) == (502, b"close")
    assert not gateway.app.wire.upstreams["app"].endpoints[0].open


@pytest.mark.parametrize("framing", [b"Content-Length: 10\r\n", b""], ids=["length", "until it closes"])
async def test_half_an_answer_is_not_made_whole(service: Service, gateway: Gateway, framing: bytes) -> None:
    """A reset is no end of a body (RFC 9112, section 8)."""
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/public/x", b"Content-Length: 4000000\r\n", b"hello"))
        said = b"HTTP/1.1 413 Content Too Large\r\n%b\r\nbig" % framing
        goes(client, bytes(MUCH), await service.met(gateway), said)
        with pytest.raises(Truncated):
            await client.response("POST")


async def test_a_connection_is_not_used_again_for_its_last_words(service: Service) -> None:
    """Whoever waits for it gets one of their own: theirs cannot be sent twice."""
    upstreams = {"app": {"url": service.url, "connections": 1}, "other": {"url": service.url}}
    async with running(service.folder, config={"upstreams": upstreams}) as gateway:
        app = gateway.app.wire.upstreams["app"]
        async with await gateway.connect() as client, await gateway.connect() as second:
            await client.send(request(b"POST", b"/public/x", b"Content-Length: %d\r\n" % (5 + MUCH), b"hello"))
            sock = await service.met(gateway)
            await second.send(request(b"POST", b"/public/y", b"Content-Length: 5\r\n", b"hello"))
            await until(lambda: len(app.waiting) == 1)
            goes(client, bytes(MUCH), sock, ok(b"first"))
            assert (await client.response("POST")).body == b"first"
            sock = await service.met(gateway)
            sock.sendall(ok(b"second"))
            assert (await second.response("POST")).body == b"second"
            sock.close()


async def test_nobody_speaks_another_protocol_with_who_is_gone(service: Service, gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(request(b"GET", b"/public/x"))
        sock = await service.met(gateway)
        sock.sendall(ok(b"kept"))
        assert (await client.response()).body == b"kept"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        goes(client, request(b"GET", b"/public/ws", HANDSHAKE), sock, agreed(KEY))
        again = asyncio.create_task(service.met(gateway))  # where the gateway hears the service first, it asks anew
        again.add_done_callback(lambda met: met.cancelled() or met.result().close())
        assert (await client.response()).status == 502
        again.cancel()
    assert not gateway.app.wire.streams.tunnels
    assert not gateway.app.wire.upstreams["app"].endpoints[0].open


async def shaken(service: Service, gateway: Gateway) -> tuple[Socket, socket.socket]:
    """Both ends of an open WebSocket."""
    client = await gateway.connect()
    await client.send(request(b"GET", b"/public/ws", HANDSHAKE))
    sock = await service.met(gateway)
    sock.sendall(agreed(KEY))
    answer = parse_response_head(await client.read_until(b"\r\n\r\n"))
    assert answer.status == 101
    return Socket(client), sock


async def test_the_last_words_of_a_socket_are_passed_on(service: Service, gateway: Gateway) -> None:
    opened, sock = await shaken(service, gateway)
    async with opened:
        words = frame(BINARY, bytes(50_000), mask=None) + frame(CLOSE, b"\x03\xe9", mask=None)
        goes(opened.client, frame(TEXT, bytes(MUCH)), sock, words)
        assert len((await opened.frame()).payload) == 50_000
        assert await opened.closes() == 1001
    await until(lambda: not gateway.app.wire.upstreams["app"].endpoints[0].open)


async def test_last_words_are_read_like_all_others(service: Service, gateway: Gateway) -> None:
    """A frame that must not be is not passed on because it came last."""
    opened, sock = await shaken(service, gateway)
    async with opened:
        goes(opened.client, frame(TEXT, bytes(MUCH)), sock, frame(BINARY, b"x", mask=None, reserved=0x40))
        assert await opened.closes() == 1001
