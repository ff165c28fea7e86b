"""Stopping: who has come is served, who waits for nothing is let go, nobody is reset."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.rig.client import PATIENCE, RawClient
from tests.rig.gateway import Gateway, answers_until_close, request, running
from tests.rig.messages import Request, Truncated
from tests.rig.upstream import Line, ok

GET = request(b"GET", b"/public/x")
LONG = 60.0
"""Seconds no test waits for."""


@pytest_asyncio.fixture
async def mine(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def stopping(gateway: Gateway, *, delay: float = 0.0, time: float = LONG) -> AsyncIterator[asyncio.Event]:
    """The data plane stops meanwhile, and has stopped afterwards; the event hurries it."""
    hurry = asyncio.Event()
    stopped = asyncio.ensure_future(gateway.app.wire.stop(time, delay, hurry))
    await asyncio.sleep(0)
    try:
        yield hurry
    except BaseException:
        stopped.cancel()
        raise
    async with asyncio.timeout(PATIENCE):
        await stopped


async def readiness(gateway: Gateway) -> tuple[int, bool]:
    async with await RawClient.connect(gateway.admin_port) as probe:
        await probe.send(b"GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
        answer = await probe.response()
    return answer.status, bool(json.loads(answer.body)["ready"])


async def test_in_the_delay_everybody_is_served_and_told_to_leave(mine: Gateway) -> None:
    async with await mine.connect() as kept:
        await kept.send(GET)
        assert not (await kept.response()).all("Connection")
        async with stopping(mine, delay=LONG - 1) as hurry:
            assert await readiness(mine) == (503, False)
            for client in (kept, await mine.connect()):
                await client.send(GET)
                answer = await client.response()
                assert (answer.status, answer.one("Connection")) == (200, b"close")
                assert await client.is_closed()
                assert not client.reset
                client.close()
            hurry.set()


async def test_an_idle_connection_outlives_the_delay_only(mine: Gateway) -> None:
    async with await mine.connect() as idle, await mine.connect() as busy, stopping(mine, delay=LONG - 1) as hurry:
        await busy.send(GET)
        assert (await busy.response()).status == 200  # that idle is still there shows the next line
        await idle.send(GET)
        assert (await idle.response()).status == 200
        async with await mine.connect() as late:
            hurry.set()
            assert await late.is_closed(), "let go after the delay, for nothing came"
            assert not late.reset


async def test_the_delay_ends_by_itself(mine: Gateway) -> None:
    async with await mine.connect() as idle, stopping(mine, delay=0.1):
        assert await idle.is_closed()
        assert not idle.reset


async def test_whoever_is_in_the_kernels_queue_is_still_served(mine: Gateway) -> None:
    """Connections that are completed and not accepted are reset when a listening socket is just closed."""
    queued = []
    for _ in range(64):  # nothing is awaited here: our loop, which is also the gateway's, accepts nobody
        sock = socket.create_connection(("127.0.0.1", mine.port))
        sock.sendall(GET)
        sock.setblocking(False)
        queued.append(RawClient(sock))
    try:
        async with stopping(mine):
            for client in queued:
                assert (await client.response()).status == 200
                assert await client.is_closed()
                assert not client.reset
    finally:
        for client in queued:
            client.close()
    assert len(mine.upstream.requests) == 64
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", mine.port)


async def test_a_request_that_has_begun_to_arrive_is_served(mine: Gateway) -> None:
    async with await mine.connect() as client, await mine.connect() as other:
        await client.send(GET[:20])
        await mine.heard(client)
        await other.send(GET)
        assert (await other.response()).status == 200
        async with stopping(mine):
            assert await other.is_closed()
            await client.send(GET[20:])
            answer = await client.response()
            assert (answer.status, answer.one("Connection")) == (200, b"close")
            assert await client.is_closed()


async def test_of_requests_sent_ahead_only_the_last_answer_says_close(mine: Gateway) -> None:
    release = asyncio.Event()

    async def slowly(seen: Request, line: Line) -> None:
        await release.wait()
        await line.send(ok(seen.target))

    mine.upstream.script = slowly
    targets = [b"/public/1", b"/public/2", b"/public/3"]
    async with await mine.connect() as client:
        await client.send(b"".join(request(b"GET", target) for target in targets))
        await mine.upstream.came(1)
        async with stopping(mine):
            release.set()
            answers = await answers_until_close(client)
    assert [answer.body for answer in answers] == targets
    assert [answer.all("Connection") for answer in answers] == [[], [], [b"close"]]


async def test_an_upload_under_way_is_received_whole(mine: Gateway) -> None:
    body = bytes(range(256)) * 512
    async with await mine.connect() as client:
        await client.send(request(b"POST", b"/public/x", b"Content-Length: %d\r\n" % len(body), body[:1000]))
        await mine.upstream.until(lambda: bool(mine.upstream.requests))
        async with stopping(mine):
            for at in range(1000, len(body), 30_000):
                await mine.heard(client)
                await client.send(body[at : at + 30_000])
            assert (await client.response("POST")).status == 200
            assert await client.is_closed()
    assert mine.upstream.only.body == body


async def test_what_takes_too_long_is_cut_and_seen_to_be(mine: Gateway) -> None:
    async def for_ever(_: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await line.closed.wait()

    mine.upstream.script = for_ever
    async with await mine.connect() as client:
        await client.send(GET)
        await client.read_until(b"hello")
        async with stopping(mine, time=0.3):
            with pytest.raises((Truncated, asyncio.IncompleteReadError)):
                await client.read_exactly(5)
            assert client.reset


async def test_event_streams_end_in_good_order(mine: Gateway) -> None:
    """Else they would last until the time is up, and their clients would see a broken answer."""

    async def events(_: Request, line: Line) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        await line.send(head + b"9\r\nid: 1\r\n\r\n\r\n")
        await line.closed.wait()

    mine.upstream.script = events
    async with await mine.connect() as client:
        await client.send(GET)
        await client.read_until(b"id: 1\r\n\r\n\r\n")
        async with stopping(mine):
            assert await client.read_rest() == b"0\r\n\r\n"
            assert not client.reset


async def test_whoever_asks_again_waits_for_nothing(mine: Gateway) -> None:
    release = asyncio.Event()

    async def slowly(_: Request, line: Line) -> None:
        await release.wait()
        await line.send(ok(b"x"))

    mine.upstream.script = slowly
    async with await mine.connect() as client:
        await client.send(GET)
        await mine.upstream.came(1)
        async with stopping(mine, delay=LONG - 1) as hurry:
            hurry.set()  # no delay: nobody new comes in
            async with asyncio.timeout(PATIENCE):
                while hurry.is_set():
                    await asyncio.sleep(0.01)
                while mine.app.wire.servers:
                    await asyncio.sleep(0.01)
            hurry.set()  # nor the rest
            assert await client.is_closed()
            assert client.reset
            release.set()


async def test_a_unix_socket_is_left_in_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    async with running(tmp_path, config={"listen": f"unix:{path}"}) as gateway:
        queued = []
        for _ in range(16):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(path))
            sock.sendall(GET)
            sock.setblocking(False)
            queued.append(RawClient(sock))
        try:
            async with stopping(gateway):
                for client in queued:
                    assert (await client.response()).status == 200
                    assert await client.is_closed()
        finally:
            for client in queued:
                client.close()
        assert not path.exists()
