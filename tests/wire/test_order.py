"""What comes between two events of another connection: an end, a pause, a farewell, at the worst of moments."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rig.gateway import Gateway, request, running
from tests.rig.upstream import ok
from tests.wire.services_at import until

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
    upstreams = {"app": {"url": url, "timeouts": timeouts, "connections": 1, "queue": {"wait": "60s"}}, "other": {"url": url}}
    async with running(tmp_path, config={"upstreams": upstreams}) as made:
        yield made


async def met(gateway: Gateway, listening: socket.socket) -> socket.socket:
    """The connection the gateway has made, once its first bytes are there; they stay unread."""
    loop = gateway.app.wire.loop
    sock, _ = await loop.sock_accept(listening)
    waiting = sock.dup()
    waiting.setblocking(False)
    await loop.sock_recv(waiting, 1)
    waiting.close()
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
