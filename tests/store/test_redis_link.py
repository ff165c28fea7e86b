"""One connection to a Redis server: what is left of it when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError

from gateway.store import redis_link
from gateway.store.redis_link import connect
from gateway.store.redis_where import Where
from tests.rig.certificates import Authority, Made


@contextlib.contextmanager
def refusing(made: Made) -> Iterator[int]:
    """The port of a server that speaks TLS, accepts no password, and does not answer a farewell."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    def talk() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1 << 16)
            secure.sendall(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
            ended.wait(10)

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        talking = threading.Thread(target=talk)
        talking.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            talking.join()


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Whatever was opened inside is closed."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(each.message) for each in said] == []


def test_who_is_refused_over_tls_leaves_no_socket_behind(tmp_path: Path) -> None:
    """Not even for the time of a farewell: its loop may be gone by then."""
    authority = Authority(tmp_path)
    with refusing(authority.make("server", "localhost")) as port, nothing_left():
        where = replace(Where.parse(f"rediss://u:wrong@localhost:{port}"), ca=authority.path)
        with pytest.raises(AuthenticationError):
            asyncio.run(connect(where, where.addresses[0]))


def test_who_gives_up_when_tls_is_there_leaves_no_socket_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the very turn in which the handshake is done, and nobody has been told yet."""
    authority = Authority(tmp_path)
    context = ssl.create_default_context(cafile=authority.path)
    connecting: asyncio.Task[None]

    class GivenUp(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            asyncio.get_running_loop().call_soon(connecting.cancel)

    async def give_up() -> None:
        nonlocal connecting
        connecting = asyncio.create_task(connect(where, where.addresses[0]))
        with pytest.raises(asyncio.CancelledError):
            await connecting

    context.sslobject_class = GivenUp
    monkeypatch.setattr(redis_link, "tls_of", lambda _: context)
    with refusing(authority.make("server", "localhost")) as port, nothing_left():
        where = Where.parse(f"rediss://localhost:{port}")
        asyncio.run(give_up())
