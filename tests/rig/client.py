"""A client that sends what it is told, byte for byte, and reads only when asked."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from asyncio import IncompleteReadError

from tests.rig.messages import Response, read_response

PATIENCE = 10.0
"""Seconds until a test that hangs is called failed; no test waits for it."""
_PIECES = 20


class RawClient:
    """One TCP connection. Nothing is read from the socket before somebody asks, so a slow reader is one that waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._loop = asyncio.get_running_loop()
        self.reset = False
        """Whether the other side ended with a reset."""

    @classmethod
    async def connect(cls, port: int, *, buffers: int = 0, host: str = "127.0.0.1") -> RawClient:
        """Connect. `buffers`: bytes of socket buffer in each direction, 0 for the machine's own choice."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setblocking(False)
        if buffers:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    async def __aenter__(self) -> RawClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Our own port, by which the other side can tell us from others."""
        return int(self._sock.getsockname()[1])

    @property
    def on_the_way(self) -> int:
        """Bytes we have sent that have not come to the other machine yet."""
        return int(struct.unpack("i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))[0])

    async def send(self, *segments: bytes) -> None:
        """Send each segment by itself. A peer that has already closed is no error: its answer is still to be read."""
        async with asyncio.timeout(PATIENCE):
            for segment in segments:
                try:
                    await self._loop.sock_sendall(self._sock, segment)
                except (ConnectionResetError, BrokenPipeError):
                    return
                await asyncio.sleep(0)

    async def send_until_stalled(self, block: bytes, limit: int, stall: float = 0.4) -> int:
        """Send `block` again and again until `limit` bytes went or nothing moves for `stall` seconds; bytes sent."""
        sent = 0
        view = memoryview(block)
        while sent < limit:
            try:
                sent += self._sock.send(view[sent % len(view) :])
                await asyncio.sleep(0)
            except BlockingIOError:
                if not await self._writable(stall):
                    break
            except (ConnectionResetError, BrokenPipeError):
                break
        return sent

    async def _writable(self, within: float) -> bool:
        # In pieces: a machine that stands still uses up one of them, and whoever is to read has the others.
        for _ in range(_PIECES):
            if await self._writable_soon(within / _PIECES):
                return True
        return False

    async def _writable_soon(self, within: float) -> bool:
        ready = asyncio.Event()
        self._loop.add_writer(self._sock, ready.set)
        try:
            async with asyncio.timeout(within):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            self._loop.remove_writer(self._sock)
        return True

    def finish(self) -> None:
        """Close our sending half."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both halves."""
        self._sock.close()

    def abort(self) -> None:
        """Close with a reset, as a machine that went away does."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self._sock.close()

    async def response(self, method: str = "GET") -> Response:
        """The next final answer, to a request with `method`. Raises `Violation`, `Truncated`, TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            return await read_response(self.read_until, self.read_exactly, self.read_rest, method)

    async def responses(self, *methods: str) -> list[Response]:
        """One answer for each of `methods`, in order."""
        return [await self.response(method) for method in methods]

    async def read_until(self, mark: bytes) -> bytes:
        """Bytes up to and with `mark`. Raises IncompleteReadError."""
        start = 0
        while (found := self._buffer.find(mark, start)) < 0:
            start = max(0, len(self._buffer) - len(mark) + 1)
            if not await self._fill():
                raise IncompleteReadError(bytes(self._buffer), None)
        return self._take(found + len(mark))

    async def read_exactly(self, count: int) -> bytes:
        """`count` bytes. Raises IncompleteReadError."""
        while len(self._buffer) < count:
            if not await self._fill():
                raise IncompleteReadError(bytes(self._buffer), count)
        return self._take(count)

    async def read_rest(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(PATIENCE):
            while await self._fill():
                pass
        return self._take(len(self._buffer))

    async def is_closed(self) -> bool:
        """Wait for the other side to close; False (with `patience` gone) if it says something instead."""
        return await self.read_rest() == b""

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _fill(self) -> bool:
        try:
            data = await self._loop.sock_recv(self._sock, 65536)
        except ConnectionResetError:
            self.reset = True
            return False
        self._buffer += data
        return bool(data)
