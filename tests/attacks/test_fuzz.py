"""Thousands of broken requests and answers: whatever they are, nobody falls over and nobody is confused."""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio import IncompleteReadError

import pytest

from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from tests.attacks.caller import NESTED, PROBE
from tests.rig.gateway import Gateway, request
from tests.rig.messages import Request, Truncated
from tests.rig.upstream import Line, echo

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHORT = 0.05
"""Seconds to wait for an answer that may never come, since half a request is none."""

NASTY = [bytes([octet]) for octet in (*range(0x21), 0x7F, 0x80, 0x85, 0xA0, 0xC0, 0xFF)] + (
    rb": , ; = % %2e %2f / // .. \ # ? @ [ ] 0 1 5 -1 +5 0x5 chunked identity gzip close keep-alive upgrade h2c".split()
    + [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\r\n ", b"0\r\n\r\n", b"HTTP/1.1", b"HTTP/1.0", b"GET ", b"POST "]
    + [
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
    ]
    + [b"Connection: close\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"Host: good.test\r\n", b"Host: x\r\n"]
    + [b"X-Forwarded-User: evil\r\n", NESTED, b"5\r\nhello\r\n"]
)

SEEDS = [
    request(b"GET", b"/public/x?a=b", b"Accept: */*\r\n"),
    request(b"POST", b"/public/x", b"Content-Length: 5\r\n", b"hello"),
    request(
        b"POST", b"/public/x", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n"
    ),
    request(b"PUT", b"http://good.test/public/x", b"Connection: X-A, close\r\nX-A: b\r\n"),
    request(b"OPTIONS", b"/public/x", b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 5\r\n", b"hello"),
    request(b"GET", b"/public/1") + request(b"GET", b"/public/2") + request(b"GET", b"/app/3"),
]

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
]


def broken(dice: random.Random, whole: bytes) -> bytes:
    """`whole` with a few bytes put in, left out, doubled or turned around."""
    data = whole
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data) + 1)
        end = min(len(data), at + dice.choice((0, 0, 1, 1, 2, 5, 20)))
        piece = dice.choice((dice.choice(NASTY), dice.choice(NASTY), b"", data[at:end] * 2))
        data = data[:at] + piece + data[end:]
    return data


async def test_broken_requests(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(7)
    caplog.set_level(logging.WARNING)

    async def attack() -> None:
        raw = broken(dice, dice.choice(SEEDS))
        middle = dice.randrange(len(raw) + 1)
        async with await gateway.connect() as client:
            await client.send(*((raw[:middle], raw[middle:]) if dice.random() < 0.3 else (raw,)))
            try:
                async with asyncio.timeout(SHORT):
                    while (await client.response(raw.partition(b" ")[0].decode("latin-1"))).status < 400:
                        pass
            except (TimeoutError, Truncated):
                pass

    for _ in range(100):
        await asyncio.gather(*(attack() for _ in range(20)))
    assert len(gateway.upstream.requests) > 300
    for received in gateway.upstream.requests:
        assert received.target.startswith(
            (b"/public", b"/x/health", b"/healthz", b"/foo/public", b"/read", b"/post")
        ), received.raw
        assert received.all("Host") == [b"good.test"]
        assert not received.names & {"x-forwarded-user", "sallyport-assertion", "upgrade", "connection", "te", "expect"}
    assert await gateway.rejections() > 300
    assert await gateway.app.recorder.events(DEFAULT_TENANT, limit=10, kind=Kind.FAULT) == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert (await gateway.ask(PROBE)).body == b"GET /public/probe 0"


async def test_broken_answers(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """Each client gets the answer to its own request, a refusal, or a broken connection; never somebody else's."""
    dice = random.Random(8)

    async def script(received: Request, line: Line) -> None:
        if received.target == b"/public/probe":
            await echo(received, line)
            return
        raw = broken(dice, dice.choice(ANSWERS))
        middle = dice.randrange(len(raw) + 1)
        for piece in (raw[:middle], raw[middle:]) if dice.random() < 0.3 else (raw,):
            await line.send(piece)
        if dice.random() < 0.5:
            line.close()

    gateway.upstream.script = script

    async def ask() -> None:
        async with await gateway.connect() as client:
            await client.send(request(dice.choice((b"GET", b"POST", b"OPTIONS")), b"/public/x"))
            try:
                async with asyncio.timeout(SHORT):
                    await client.response()
            except (TimeoutError, Truncated, IncompleteReadError):
                return
        answer = await gateway.ask(PROBE)
        assert answer.body == b"GET /public/probe 0", answer.raw

    for _ in range(60):
        await asyncio.gather(*(ask() for _ in range(20)))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
