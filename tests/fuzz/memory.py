"""The running gateway without sockets: bytes in from a client, bytes out to a service, and back, in one process.

A fuzzer that waited for a network would try a thousand inputs a second less, and could not know when nothing more
comes. The transports here keep what is written; everything between them is the real thing.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import re
import tempfile
from asyncio import IncompleteReadError
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

from gateway.wire.client import ClientConnection
from gateway.wire.upstream_connection import UpstreamConnection
from tests.rig.gateway import Gateway, running
from tests.rig.messages import (
    Request,
    Response,
    Truncated,
    Violation,
    framing,
    parse_request_head,
    read_chunk,
    read_response,
)
from tests.wire.services import SERVICES

TURNS = 6
"""Of the loop, for what was put off."""


class Pipe(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self, peer: str = "192.0.2.9") -> None:
        super().__init__()
        self._peer = peer
        self.written = bytearray()
        self.ended = False
        """Whether nothing more is written."""
        self.closing = False
        self.aborted = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return (self._peer, 9) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.ended:
            raise RuntimeError("written after the end")
        if not self.closing:
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = self.ended = True

    def abort(self) -> None:
        self.closing = self.ended = self.aborted = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0


class Conversation:
    """One client connection, and every connection to the service that was made for it."""

    def __init__(self, gateway: Gateway, peer: str = "192.0.2.9") -> None:
        wire = gateway.app.wire
        self.services: list[tuple[UpstreamConnection, Pipe]] = []
        for upstream in wire.upstreams.values():
            upstream.take = self._take  # type: ignore[method-assign]
            upstream.connect = self._connect  # type: ignore[method-assign]
        self._endpoint = wire.upstreams["app"].endpoints[0]
        self.client = ClientConnection(wire, wire.servers[0])
        self.pipe = Pipe(peer)
        self.client.connection_made(self.pipe)

    def _take(self, _: object) -> UpstreamConnection:
        while self._endpoint.unused:
            if (known := self._endpoint.unused.pop()).usable:
                return known
        return self._made()

    async def _connect(self, _: object) -> UpstreamConnection:
        return self._made()

    def _made(self) -> UpstreamConnection:
        pipe = Pipe()
        made = UpstreamConnection(self._endpoint)
        made.connection_made(pipe)
        self.services.append((made, pipe))
        return made

    @property
    def sent(self) -> bytes:
        """Every byte that services got, connection by connection."""
        return b"".join(bytes(pipe.written) for _, pipe in self.services)

    async def say(self, *pieces: bytes) -> None:
        """The client sends, piece by piece."""
        for piece in pieces:
            if not self.pipe.closing and piece:
                self.client.data_received(piece)
        await self.settle()

    async def answer(self, *pieces: bytes, end: bool = False) -> None:
        """The service that was asked last answers, and then closes the connection, if `end`."""
        if not self.services:
            return
        service, pipe = self.services[-1]
        for piece in pieces:
            if not pipe.closing and piece:
                service.data_received(piece)
        if end and not pipe.closing:
            pipe.close()
            service.connection_lost(None)
        await self.settle()

    async def settle(self) -> None:
        """Let the loop turn until what was put off is done, and tell connections that have ended."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Everybody leaves."""
        self.pipe.close()
        self.client.connection_lost(None)
        for service, pipe in self.services:
            pipe.close()
            service.connection_lost(None)
        self._endpoint.unused.clear()
        await self.settle()

    async def came(self) -> tuple[list[Request], bool]:
        """The whole requests that services got, and whether there is the beginning of one more.

        Raises `Violation` where one is not perfectly framed.
        """
        found: list[Request] = []
        began = False
        for number, (_, pipe) in enumerate(self.services, 1):
            read = Read(bytes(pipe.written))
            while read.left:
                try:
                    request = parse_request_head(await read.until(b"\r\n\r\n"), number, len(found) + 1)
                    length = framing(request)
                    if length is None:
                        while chunk := await read_chunk(read.until, read.exactly):
                            request.body += chunk
                    elif length > 0:
                        request.body = await read.exactly(length)
                except IncompleteReadError:
                    began = True
                    break
                request.complete = True
                found.append(request)
        return found, began

    async def heard(self, *methods: str) -> tuple[list[Response], bool]:
        """The whole answers that the client got to requests with `methods`, and whether one more was cut.

        Raises `Violation` where one is not perfectly framed, or nobody asked for it.
        """
        read = Read(bytes(self.pipe.written), whole=self.pipe.ended and not self.pipe.aborted)
        found: list[Response] = []
        for method in methods:
            if not read.left:
                break
            try:
                found.append(await read_response(read.until, read.exactly, read.rest, method))
            except Truncated:
                return found, True
        if read.left:
            raise Violation(f"more than was asked for: {await read.rest()!r}")
        return found, False


class Read:
    """Bytes as the readers of `tests.rig.messages` want them. `whole`: whether their end is the end of the message."""

    def __init__(self, data: bytes, *, whole: bool = True) -> None:
        self.left = data
        self._whole = whole

    async def until(self, mark: bytes) -> bytes:
        at = self.left.find(mark)
        if at < 0:
            raise IncompleteReadError(self.left, None)
        return await self.exactly(at + len(mark))

    async def exactly(self, count: int) -> bytes:
        if len(self.left) < count:
            raise IncompleteReadError(self.left, count)
        taken, self.left = self.left[:count], self.left[count:]
        return taken

    async def rest(self) -> bytes:
        if not self._whole:
            raise IncompleteReadError(self.left, None)
        return await self.exactly(len(self.left))


POLICY = """
rules:
  - {name: admin, match: {paths: [/admin/**]}, access: {groups: [admins]}, upstream: app}
  - {name: open, match: {paths: ["/**"]}, access: public, upstream: app}
"""
PROXY = "10.0.0.1"
"""The address of a trusted proxy; nobody else is one."""
ADMIN = re.compile(r"/admin(?:/.*)?", re.DOTALL)


def readable_as_admin(target: bytes) -> bool:
    """Whether some service would take `target` for `/admin` or something below it."""
    return any(ADMIN.fullmatch(service(target.decode("latin-1"))) for service in SERVICES)


class _House:
    """A gateway that stays for as long as the process does."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        folder = tempfile.TemporaryDirectory(prefix="sallyport-fuzz-")
        config = {"trusted_proxies": [f"{PROXY}/32"]}
        self._running = running(Path(folder.name), policy=POLICY, config=config)
        self.gateway = self._loop.run_until_complete(self._running.__aenter__())
        atexit.register(folder.cleanup)
        atexit.register(self.stop)

    def run(self, attack: Callable[[Conversation], Awaitable[None]], peer: str = "192.0.2.9") -> None:
        """Lead a conversation. Raises AssertionError too where anything was an error in the log."""
        self._loop.run_until_complete(self._lead(attack, peer))

    async def _lead(self, attack: Callable[[Conversation], Awaitable[None]], peer: str) -> None:
        _errors.clear()
        conversation = Conversation(self.gateway, peer)
        try:
            await attack(conversation)
        finally:
            await conversation.end()
        assert not _errors, _errors

    def stop(self) -> None:
        """Stop the gateway."""
        atexit.unregister(self.stop)
        self._loop.run_until_complete(self._running.__aexit__(None, None, None))
        self._loop.close()


class _Errors(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _errors.append(record.getMessage())


_errors: list[str] = []


@cache
def house() -> _House:
    """The one gateway: `/admin` is for administrators, the rest is public."""
    logging.getLogger("gateway").addHandler(_Errors(logging.ERROR))
    return _House()


def cut(data: bytes, places: bytes) -> list[bytes]:
    """`data` in pieces, whose sizes are said by the bytes of `places`; one of 0 is half of what is left."""
    pieces: list[bytes] = []
    for place in places:
        size = place or (len(data) + 1) // 2
        pieces.append(data[:size])
        data = data[size:]
        if not data:
            break
    return [*pieces, data] if data else pieces


def split(data: bytes, into: int) -> list[bytes]:
    """The parts of an input, which are separated by a line of `--`; always `into` of them."""
    parts = data.split(b"\n--\n", into - 1)
    return [*parts, *[b""] * (into - len(parts))]
