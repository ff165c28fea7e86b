"""A TCP proxy before a real store that does to its connections what networks and broken servers do.

It lives in a thread with a loop of its own, so that it is prompt whatever the test does meanwhile, and serves gateways
in processes of their own as well as those in this one. A fault may begin and end while connections are open:

    refused     nobody listens; what was open is reset
    silent      nothing passes any more, and new connections are not even accepted: a black hole
    slow        each answer comes five seconds late, or as many as `slow` says
    cut         each connection is reset in the middle of the next answer
    garbage     each answer is as long as it should be, and means nothing
    partial     half of the next answer of each connection, then silence

When it is over, connections that can make no sense any more are reset; the silent and the slow ones go on, and what
was held back arrives, as it does when a cable is plugged in again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Literal

Fault = Literal["refused", "silent", "slow", "cut", "garbage", "partial"]
FAULTS: tuple[Fault, ...] = ("refused", "silent", "slow", "cut", "garbage", "partial")

HERE = "127.0.0.1"
SLOW = 5.0


class Faulty:
    """The proxy before port `to`; made by `before`."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = 0
        self.fault: Fault | None = None
        self.slow = SLOW
        self.garbage: Callable[[int], bytes] = random.randbytes
        """What comes instead of so many octets."""
        self.connections = 0
        """How many came, in all."""
        self.spoilt = 0
        """Answers that were lost or changed, in all."""
        self._listener: socket.socket | None = None
        self._lines: set[_Line] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._hole: list[socket.socket] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty", daemon=True)
        self._thread.start()
        self._call(self._listen)

    def begin(self, fault: Fault) -> None:
        """From now on, also for what is open already."""
        self.end()
        self._call(self._begin, fault)

    def end(self) -> None:
        """Heal."""
        self._call(self._end)

    def point(self, to: int) -> None:
        """Lead new connections to another server; what is open is reset, as an address that moves does."""
        self.to = to
        self._call(self._reset)

    def close(self) -> None:
        """Let go of everything."""
        self._call(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Callable[..., Coroutine[Any, Any, None]], *given: object) -> None:
        asyncio.run_coroutine_threadsafe(work(*given), self._loop).result(10.0)

    async def _listen(self) -> None:
        # Not `start_server`: one that is closed forgets whom it has accepted a moment ago, and leaves them open.
        self._listener = socket.create_server((HERE, self.port), backlog=100)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept, self._listener)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            came, _ = listener.accept()
            came.setblocking(False)
            task = self._loop.create_task(self._came(came))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deaf(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def _begin(self, fault: Fault) -> None:
        self._fill()
        self.fault = fault
        if fault == "refused":
            await self._deaf()
            await self._reset()
        elif fault == "silent":
            await self._deaf()
            self._dig()
        for line in self._lines:
            line.changed()

    async def _end(self) -> None:
        self.fault = None
        for line in list(self._lines):
            if line.spoilt:
                line.reset()
            else:
                line.changed()
        self._fill()
        if self._listener is None:
            await self._listen()

    def _fill(self) -> None:
        for sock in self._hole:
            sock.close()
        self._hole = []

    def _dig(self) -> None:
        """A queue of one that is full, and nobody who takes from it: the kernel does not answer who knocks."""
        hole = socket.socket()
        self._hole = [hole]
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hole.bind((HERE, self.port))
        hole.listen(0)
        for _ in range(4):
            stone = socket.socket()
            stone.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                stone.connect((HERE, self.port))
            self._hole.append(stone)

    async def _reset(self) -> None:
        for line in list(self._lines):
            line.reset()

    async def _close(self) -> None:
        await self._end()
        await self._deaf()
        while self._tasks:  # also of who was accepted a moment ago
            await self._reset()
            await asyncio.wait(self._tasks, timeout=0.02)
        await asyncio.sleep(0)

    async def _came(self, sock: socket.socket) -> None:
        self.connections += 1
        line = _Line(self, *await asyncio.open_connection(sock=sock))
        self._lines.add(line)
        try:
            if self.fault == "refused":
                line.reset()
            else:
                await line.run()
        finally:
            self._lines.discard(line)


class _Line:
    """One connection through the proxy."""

    def __init__(self, proxy: Faulty, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.spoilt = False
        """Whether bytes were lost or changed: what follows could only be misunderstood."""
        self._proxy = proxy
        self._client = reader, writer
        self._far: asyncio.StreamWriter | None = None
        self._again = asyncio.Event()

    def changed(self) -> None:
        """Another fault, or none."""
        self._again.set()
        self._again = asyncio.Event()

    def reset(self) -> None:
        """End it with a reset on the gateway's side."""
        sock: socket.socket = self._client[1].get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self._client[1].transport.abort()
        if self._far is not None:
            self._far.transport.abort()
        self.changed()

    def _spoil(self) -> None:
        self.spoilt = True
        self._proxy.spoilt += 1

    async def run(self) -> None:
        reader, writer = self._client
        try:
            there, self._far = await asyncio.open_connection(HERE, self._proxy.to)
        except OSError:
            self.reset()
            return
        ways = [
            asyncio.ensure_future(self._pump(reader, self._far, False)),
            asyncio.ensure_future(self._pump(there, writer, True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for one in (writer, self._far):
                one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        while data := await reader.read(1 << 16):
            fault = self._proxy.fault
            while fault == "silent" or (self.spoilt and fault == "partial"):
                await self._again.wait()
                fault = self._proxy.fault
            if answers and fault == "slow":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._again.wait(), self._proxy.slow)
            elif answers and fault in ("cut", "partial"):
                self._spoil()
                writer.write(data[: len(data) // 2])
                if fault == "cut":
                    await asyncio.sleep(0.001)  # so that the half is seen before the reset takes it away
                    self.reset()
                    return
                continue
            elif answers and fault == "garbage":
                self._spoil()
                data = self._proxy.garbage(len(data))
            writer.write(data)
            await writer.drain()


@contextlib.contextmanager
def before(port: int) -> Iterator[Faulty]:
    """A proxy before the server on `port`, with no fault yet."""
    proxy = Faulty(port)
    try:
        yield proxy
    finally:
        proxy.close()
