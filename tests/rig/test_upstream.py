"""The witnesses are reliable: tested against each other, without any gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.rig.client import RawClient
from tests.rig.messages import Truncated, Violation, parse_response_head
from tests.rig.upstream import RecordingUpstream, fixed, ok


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[RecordingUpstream]:
    server = RecordingUpstream()
    await server.start()
    yield server
    await server.stop()


async def test_records_every_request_of_a_connection(upstream: RecordingUpstream) -> None:
    async with await RawClient.connect(upstream.port) as client:
        await client.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPO", b"ST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
        await client.send(b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n")
        answers = await client.responses("GET", "POST", "POST")
    assert [answer.body for answer in answers] == [b"GET /a 0", b"POST /b 3", b"POST /c 2"]
    assert [(r.connection, r.number, r.body) for r in upstream.requests] == [(1, 1, b""), (1, 2, b"abc"), (1, 3, b"de")]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX : y\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: y\r\n z\r\n\r\n",
        b"GET / HTTP/1.1\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        b"GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
    ],
)
async def test_tolerates_nothing(upstream: RecordingUpstream, raw: bytes) -> None:
    async with await RawClient.connect(upstream.port) as client:
        await client.send(raw)
        assert await client.is_closed()
    assert len(upstream.violations) == 1


async def test_the_client_tells_a_whole_answer_from_a_cut_one(upstream: RecordingUpstream) -> None:
    upstream.script = fixed(b"HTTP/1.1 100 Continue\r\n\r\n", ok(b"hello", b"X: y")[:-1], close=True)
    async with await RawClient.connect(upstream.port) as client:
        await client.send(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(Truncated):
            await client.response()


async def test_a_script_may_answer_before_the_body_and_stop_reading(upstream: RecordingUpstream) -> None:
    go_on = asyncio.Event()

    async def early(_: object, line: object) -> None:
        await go_on.wait()

    upstream.on_head = early
    async with await RawClient.connect(upstream.port, buffers=16384) as client:
        await client.send(b"POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n")
        sent = await client.send_until_stalled(bytes(65536), 1_000_000_000, stall=0.1)
    assert sent < 64_000_000
    go_on.set()


def test_a_sloppy_answer_is_seen() -> None:
    with pytest.raises(Violation):
        parse_response_head(b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n")
