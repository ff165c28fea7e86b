"""A service that keeps every byte it was sent and answers by script."""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections.abc import Awaitable, Callable

from tests.rig.client import PATIENCE
from tests.rig.messages import Request, Violation, framing, parse_request_head, read_chunk

Script = Callable[[Request, "Line"], Awaitable[None]]


class Line:
    """One connection as a script sees it."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = bytearray()
        """Every byte that came on this connection so far."""
        self.closed = asyncio.Event()
        """Set when the connection has ended, whoever ended it."""

    async def read_until(self, mark: bytes) -> bytes:
        """Bytes up to and with `mark`. Raises IncompleteReadError."""
        try:
            data = await self.reader.readuntil(mark)
        except IncompleteReadError as end:
            self.received += end.partial
            raise
        self.received += data
        return data

    async def read_exactly(self, count: int) -> bytes:
        """`count` bytes. Raises IncompleteReadError."""
        try:
            data = await self.reader.readexactly(count)
        except IncompleteReadError as end:
            self.received += end.partial
            raise
        self.received += data
        return data

    async def send(self, data: bytes) -> None:
        """Write `data` and wait until it is on its way."""
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        """End the connection once what was written is sent."""
        self.writer.close()

    def abort(self) -> None:
        """End it with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.writer.transport.abort()


def fixed(*parts: bytes, close: bool = False) -> Script:
    """A script that answers the same to every request."""

    async def script(_: Request, line: Line) -> None:
        for part in parts:
            await line.send(part)
        if close:
            line.close()

    return script


def ok(body: bytes = b"", *headers: bytes) -> bytes:
    """A plain answer."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (lines, len(body), body)


async def echo(request: Request, line: Line) -> None:
    """Answer with method, target and the number of body bytes."""
    body = b"%s %s %d" % (request.method, request.target, len(request.body))
    answer = ok(body)
    await line.send(answer[: -len(body)] if request.method == b"HEAD" else answer)


class RecordingUpstream:
    """A raw server. Requests that are not perfectly framed are kept in `violations`, which every test looks at."""

    def __init__(self) -> None:
        self.script: Script = echo
        """Called when a request has been read whole."""
        self.on_head: Script | None = None
        """Called when a head has been read and before its body is."""
        self.requests: list[Request] = []
        """In the order their heads came."""
        self.lines: list[Line] = []
        """Every connection since the start; `Request.connection` counts from 1."""
        self.violations: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    async def start(
        self, port: int = 0, backlog: int = 256, *, path: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen on a free port of 127.0.0.1, on `port`, or on the Unix socket `path`."""
        if path:
            self._server = await asyncio.start_unix_server(self._connected, path, limit=1 << 20)
            return
        self._server = await asyncio.start_server(
            self._connected, "127.0.0.1", port, limit=1 << 20, backlog=backlog, ssl=tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end every connection."""
        if self._server is None:
            return
        self._server.close()
        for line in self.lines:
            if not line.closed.is_set():
                line.writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def clear(self) -> None:
        """Forget what was seen and answer plainly again; connections stay."""
        self.script, self.on_head = echo, None
        self.requests.clear()
        self.violations.clear()

    @property
    def raw(self) -> bytes:
        """Every byte received on every connection since the start, joined."""
        return b"".join(line.received for line in self.lines)

    @property
    def only(self) -> Request:
        """The one request that came."""
        if len(self.requests) != 1:
            raise AssertionError(f"one request expected: {[(r.method, r.target) for r in self.requests]}")
        return self.requests[0]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` holds; it is asked whenever something came, was answered or ended."""
        try:
            async with asyncio.timeout(PATIENCE), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            came = [(each.method, each.target, each.complete) for each in self.requests]
            raise AssertionError(f"it did not come to that: {len(self.lines)} connections, {came}") from None

    async def came(self, count: int = 1) -> None:
        """Wait until `count` requests have been read whole."""
        await self.until(lambda: sum(request.complete for request in self.requests) >= count)

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(reader, writer)
        self.lines.append(line)
        number = len(self.lines)
        try:
            await self._serve(line, number)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Violation as violation:
            self.violations.append(f"connection {number}: {violation}")
        finally:
            self._tasks.discard(task)
            line.closed.set()
            writer.close()
            await self._tell()

    async def _serve(self, line: Line, connection: int) -> None:
        count = 0
        while True:
            try:
                raw = await line.read_until(b"\r\n\r\n")
            except IncompleteReadError as end:
                if end.partial:
                    self.violations.append(f"connection {connection}: half a head {end.partial[:200]!r}")
                return
            count += 1
            request = parse_request_head(raw, connection, count)
            self.requests.append(request)
            length = framing(request)
            await self._tell()
            if self.on_head is not None:
                await self.on_head(request, line)
            try:
                await self._read_body(request, line, length)
            except IncompleteReadError:
                return  # the gateway gave up; `complete` stays False and says so
            request.complete = True
            await self._tell()
            await self.script(request, line)
            await self._tell()
            if line.writer.is_closing():
                return

    async def _read_body(self, request: Request, line: Line, length: int | None) -> None:
        if length is None:
            chunks = []
            while chunk := await read_chunk(line.read_until, line.read_exactly):
                chunks.append(chunk)
            request.body = b"".join(chunks)
        elif length > 0:
            request.body = await line.read_exactly(length)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
