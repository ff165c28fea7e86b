"""The proxy does what it says: else a fault table would show nothing."""

from __future__ import annotations

import contextlib
import gc
import socket
import time
from collections.abc import Iterator

import pytest

from tests.rig.client import PATIENCE
from tests.rig.faulty import Faulty, before
from tests.rig.redis import Server, a_server, needs_redis

pytestmark = needs_redis

PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"
SOON = 0.2
"""Seconds in which an answer would have come; waited for only where none may."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
def proxy(server: Server) -> Iterator[Faulty]:
    with before(server.port) as proxy:
        yield proxy


@pytest.fixture
def line(proxy: Faulty) -> Iterator[socket.socket]:
    with connected(proxy) as sock:
        assert asked(sock) == PONG
        yield sock


def connected(proxy: Faulty, within: float = PATIENCE) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=within)


def asked(sock: socket.socket, within: float = PATIENCE) -> bytes:
    sock.settimeout(within)
    sock.sendall(PING)
    try:
        return sock.recv(100)
    finally:
        sock.settimeout(PATIENCE)


def test_refused(proxy: Faulty, line: socket.socket) -> None:
    proxy.begin("refused")
    with pytest.raises(ConnectionError):
        asked(line)
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    proxy.end()
    with connected(proxy) as again:
        assert asked(again) == PONG


def test_silent(proxy: Faulty, line: socket.socket) -> None:
    proxy.begin("silent")
    with pytest.raises(TimeoutError):
        asked(line, SOON)
    with pytest.raises(TimeoutError):
        connected(proxy, SOON)
    proxy.end()
    assert line.recv(100) == PONG, "what was held back arrives"
    with connected(proxy) as again:
        assert asked(again) == PONG


def test_slow(proxy: Faulty, line: socket.socket) -> None:
    proxy.slow = 0.3
    proxy.begin("slow")
    began = time.monotonic()
    assert asked(line) == PONG
    assert time.monotonic() - began >= 0.29, "a timer may be a little early"
    proxy.slow = 3600
    with pytest.raises(TimeoutError):
        asked(line, SOON)
    proxy.end()
    assert line.recv(100) == PONG


def test_cut(proxy: Faulty, line: socket.socket) -> None:
    proxy.begin("cut")
    line.sendall(PING)
    with pytest.raises(ConnectionError):
        b"".join(iter(lambda: line.recv(100), b""))
    proxy.end()
    with connected(proxy) as again:
        assert asked(again) == PONG


def test_garbage(proxy: Faulty, line: socket.socket) -> None:
    proxy.begin("garbage")
    said = asked(line)
    assert len(said) == len(PONG)
    assert said != PONG
    proxy.end()
    with pytest.raises(ConnectionError):
        line.recv(100)


def test_partial(proxy: Faulty, line: socket.socket) -> None:
    proxy.begin("partial")
    assert asked(line) == PONG[: len(PONG) // 2]
    with pytest.raises(TimeoutError):
        asked(line, SOON)
    proxy.end()
    with pytest.raises(ConnectionError):
        line.recv(100)


def test_pointed_elsewhere(proxy: Faulty, line: socket.socket) -> None:
    with a_server() as other:
        other.ask("SET", "which", "other")
        proxy.point(other.port)
        with pytest.raises(ConnectionError):
            asked(line)
        with connected(proxy) as again:
            again.sendall(b"*2\r\n$3\r\nGET\r\n$5\r\nwhich\r\n")
            assert b"other" in again.recv(100)


def test_who_comes_in_the_moment_it_ends_is_let_go(server: Server) -> None:
    """Whatever a loop leaves open is found by whichever test comes next."""
    for _ in range(20):
        with before(server.port) as proxy:
            came = [socket.create_connection(("127.0.0.1", proxy.port), timeout=5.0) for _ in range(5)]
        for each in came:
            with each, contextlib.suppress(ConnectionError):
                assert each.recv(1) == b""
    gc.collect()
