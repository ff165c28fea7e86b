"""The admin listener by itself: three answers, and no more time or room than they need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.web import probes as module
from gateway.web.probes import Probes


class Parts:
    ready = True

    def readiness(self) -> tuple[bool, dict[str, str]]:
        return self.ready, {"store": "up" if self.ready else "away"}

    def metrics(self, accept: str) -> tuple[bytes, str]:
        if not self.ready:
            raise RuntimeError("secret")
        if accept:
            return b"", accept
        return b"m 1\n" * 100_000, "text/plain; version=1.0.0"


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
async def probes(parts: Parts) -> AsyncIterator[Probes]:
    probes = Probes(parts.metrics, parts.readiness)
    yield probes
    await probes.close()
    assert probes.connections == set()


@pytest.fixture
async def port(probes: Probes) -> int:
    return await probes.listen(("127.0.0.1", 0))


async def ask(port: int, raw: bytes) -> bytes:
    """Everything the listener says until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


async def test_three_answers(port: int, parts: Parts) -> None:
    assert (await ask(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(b"\r\n\r\nok\n")
    assert (await ask(port, b"GET /readyz?x HTTP/1.0\r\n\r\n")).endswith(b'{"ready":true,"store":"up"}\n')
    metrics = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert metrics.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=1.0.0\r\nContent-Length: 400000\r")
    assert metrics.count(b"m 1\n") == 100_000
    asked = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nACCEPT: open/metrics\r\n\r\n")
    assert b"Content-Type: open/metrics\r\nContent-Length: 0\r\n" in asked
    parts.ready = False
    assert (await ask(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
    broken = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert broken.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in broken


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\nPRI", 200),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3, 200),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n\xff\xff", 200),
    ],
)
async def test_one_request_one_answer_whatever_is_sent(port: int, raw: bytes, status: int) -> None:
    answer = await ask(port, raw)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close\r\n" in answer


async def test_a_head_may_come_in_pieces_and_head_gets_no_body(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in (b"HEAD /hea", b"lthz HTTP/1.1\r\nHo", b"st: x\r\n\r", b"\n"):
        writer.write(piece)
        await asyncio.sleep(0.005)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"Content-Length: 3\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n")


async def test_who_says_nothing_is_cut(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIME", 0.05)
    with pytest.raises((ConnectionResetError, AssertionError)):
        assert await ask(port, b"GET /healthz HTTP/1.1\r\n")


async def test_who_never_closes_is_cut(probes: Probes, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    due: list[Callable[[], None]] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def later(delay: float, what: Callable[..., object], *given: object) -> asyncio.TimerHandle:
        if delay == module.TIME:
            due.append(lambda: what(*given))
        return call_later(delay, what, *given)

    monkeypatch.setattr(loop, "call_later", later)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
    assert (await reader.read()).endswith(b"ok\n")
    writer.write(b"more")
    await writer.drain()
    assert len(probes.connections) == 1
    (it_is_time,) = due
    it_is_time()
    async with asyncio.timeout(10):
        while probes.connections:
            await asyncio.sleep(0.001)
    writer.close()


async def test_many_at_once_are_cut_and_leave_room_again(probes: Probes, port: int) -> None:
    many = [await asyncio.open_connection("127.0.0.1", port) for _ in range(module.CONNECTIONS)]
    with pytest.raises((ConnectionResetError, AssertionError)):
        assert await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")
    for _, writer in many:
        writer.close()
    async with asyncio.timeout(10):
        while probes.connections:
            await asyncio.sleep(0.001)
    assert (await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")).endswith(b"ok\n")


async def test_unix_socket_and_taken_port(port: int, tmp_path: Path, parts: Parts) -> None:
    probes = Probes(parts.metrics, parts.readiness)
    with pytest.raises(ConfigError, match="another program uses it; end that, or change `admin_listen`"):
        await probes.listen(("127.0.0.1", port))
    path = tmp_path / "admin.sock"
    assert await probes.listen(str(path)) == 0
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
    assert (await reader.read()).endswith(b"ok\n")
    writer.close()
    await probes.close()
    assert not path.exists()
