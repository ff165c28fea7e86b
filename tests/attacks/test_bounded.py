"""What a stranger can make the gateway spend: a process of its own, measured from outside.

In the other files the gateway shares a process with the services and clients of the test, whose work and memory cannot
be told from its own.
"""

from __future__ import annotations

import asyncio
import os
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio

from tests.house.process import Serving, home
from tests.rig.client import RawClient

MEBIBYTE = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")


class Cost:
    """Processor seconds and memory of the gateway, from here on."""

    def __init__(self, process: int) -> None:
        self._proc = Path(f"/proc/{process}")
        self._seconds, self._bytes = self._spent(), self._memory("VmRSS")

    @property
    def seconds(self) -> float:
        return self._spent() - self._seconds

    @property
    def memory(self) -> int:
        """Bytes at the highest, beyond those at the beginning."""
        return self._memory("VmHWM") - self._bytes

    def _spent(self) -> float:
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def _memory(self, name: str) -> int:
        (line,) = [line for line in (self._proc / "status").read_text().splitlines() if line.startswith(name)]
        return int(line.split()[1]) * 1024


async def swallow(reader: StreamReader, writer: StreamWriter) -> None:
    """A service that reads a chunked request to its end, and says how long its body was."""
    count = 0
    await reader.readuntil(b"\r\n\r\n")
    while size := int(await reader.readline(), 16):
        count += len(await reader.readexactly(size + 2)) - 2
    body = b"%d" % count
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    writer.close()


async def answer_heads(reader: StreamReader, writer: StreamWriter) -> None:
    """A service that answers every head with the same kilobyte."""
    try:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


Service = Callable[[StreamReader, StreamWriter], Awaitable[None]]


@pytest_asyncio.fixture
async def before() -> AsyncIterator[Callable[[Service], Awaitable[Serving]]]:
    """Starts a gateway process in front of a service."""
    async with AsyncExitStack() as ending:

        async def start(service: Service) -> Serving:
            server = await asyncio.start_server(service, "127.0.0.1", 0, limit=1 << 20)
            ending.push_async_callback(server.wait_closed)
            ending.callback(server.close)
            where = ending.enter_context(home(server.sockets[0].getsockname()[1]))
            where.anew = True
            serving = await ending.enter_async_context(where.serving())
            _, writer = await asyncio.open_connection("127.0.0.1", where.port)  # what is loaded at first use is
            writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
            await writer.drain()
            writer.close()
            return serving

        yield start


async def test_case_21_ten_mebibytes_in_one_byte_chunks(before: Callable[[Service], Awaitable[Serving]]) -> None:
    serving = await before(swallow)
    cost = Cost(serving.process.pid)
    piece = b"1\r\na\r\n" * 8192
    reader, writer = await asyncio.open_connection("127.0.0.1", serving.home.port)
    writer.write(b"POST /public/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(10 * MEBIBYTE // 8192):
        writer.write(piece)
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    assert int(await reader.read(64)) == 10 * MEBIBYTE
    writer.close()
    print(f"{cost.seconds / 10:.2f} s and {cost.memory / 10 / MEBIBYTE:.2f} MiB for each mebibyte")
    assert cost.seconds < 10 * 2.0  # ten times less, where nobody else wants the processor
    assert cost.memory < 16 * MEBIBYTE


async def test_case_26_answers_that_nobody_reads_do_not_pile_up(
    before: Callable[[Service], Awaitable[Serving]],
) -> None:
    """Requests without end in a row: those that have no room wait unread, and so does their sender."""
    serving = await before(answer_heads)
    cost = Cost(serving.process.pid)
    async with await RawClient.connect(serving.home.port, buffers=1 << 16) as client:
        one = b"GET /public/x HTTP/1.1\r\nHost: x\r\n\r\n"
        sent = await client.send_until_stalled(one * 1000, 64 * MEBIBYTE, stall=1.0)
        assert sent < 64 * MEBIBYTE
        assert cost.memory < 16 * MEBIBYTE
        for _ in range(200):  # and it goes on, in order, once somebody reads
            assert (await client.response()).status == 200


async def test_case_30_heads_without_end(before: Callable[[Service], Awaitable[Serving]]) -> None:
    """Forty clients at once, each with a mebibyte that is no head; every one is told, and memory stays where it was."""
    serving = await before(answer_heads)
    endless = (
        (b"GET /" + b"a" * MEBIBYTE, b"414"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * MEBIBYTE, b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X" * MEBIBYTE, b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % each for each in range(80_000)), b"431"),
    )

    async def attack(data: bytes, status: bytes, step: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.home.port)
        try:
            for start in range(0, len(data), step):
                writer.write(data[start : start + step])
                await writer.drain()
        except ConnectionError:
            pass
        try:
            said = await reader.read(64)
        except ConnectionError:
            said = b""  # the refusal was overtaken by the end of a connection that went on sending
        assert not said or said[9:12] == status, said
        writer.transport.abort()
        told.append(bool(said))

    told: list[bool] = []
    cost = Cost(serving.process.pid)
    await asyncio.gather(*(attack(*each, step) for each in endless for step in [7_000] * 5 + [200_000] * 5))
    assert sum(told) >= 20
    assert cost.memory < 16 * MEBIBYTE
    line = b"GET /" + b"a" * 9_000  # and in single bytes
    await attack(line, b"414", 1)
