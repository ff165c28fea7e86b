"""Gateways as processes of their own that need not import everything again, for that is most of what a start costs.

A server of forks is started once, as `python -m gateway` is, imports what a gateway imports and does nothing. Who wants
a gateway sends it arguments, folder, environment and the ends of its pipes; it forks, and the child becomes what
`python -m gateway` would have become: same streams, signals, permissions and exit. Nothing of the tests is in it, and
nothing is shared with it but what is imported. The server says the number of the child, and how it ended.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
KNOWN = (
    "gateway.commands.run gateway.commands.workers gateway.services gateway.people gateway.app uvloop aiosqlite asyncpg"
)
"""What is imported by then; only what every gateway imports anyhow, and the driver of a database."""

FAREWELL = 1.0
"""Seconds for the last words of one that has ended."""

_LIBC = ctypes.CDLL(None)
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2

_served: socket.socket | None = None


class Forked:
    """One of them, with what tests use of an `asyncio.subprocess.Process`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.pid = 0
        self.returncode: int | None = None
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._born: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[None] = loop.create_future()
        self._silent: list[asyncio.Future[None]] = [loop.create_future(), loop.create_future()]
        self._pipes: list[asyncio.BaseTransport] = []

    async def communicate(self, stdin: bytes | None = None) -> tuple[bytes, bytes]:
        """All that it says from here on, once it has ended. What it is told was sent when it started."""
        out, err = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return out, err

    async def wait(self) -> int:
        """How it ended: its exit code, or minus the number of the signal."""
        await asyncio.shield(self._over)
        _, open_still = await asyncio.wait(self._silent, timeout=FAREWELL)
        if open_still:  # a child of its own may hold them
            for pipe in self._pipes:
                pipe.close()
            await asyncio.wait(self._silent)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Raises `ProcessLookupError` where it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Heard(asyncio.StreamReaderProtocol):
    """Feeds `reader`, and tells when there is no more."""

    def __init__(self, reader: asyncio.StreamReader, silent: asyncio.Future[None]) -> None:
        super().__init__(reader)
        self._silent = silent

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self._silent.done():
            self._silent.set_result(None)


class _Told(asyncio.Protocol):
    """Two lines: its number, and how it ended."""

    def __init__(self, process: Forked) -> None:
        self._process = process
        self._said = b""

    def data_received(self, data: bytes) -> None:
        self._said += data
        lines = self._said.split(b"\n")
        if len(lines) > 1 and not self._process._born.done():
            self._process.pid = int(lines[0])
            self._process._born.set_result(None)
        if len(lines) > 2:
            self._process.returncode = int(lines[1])

    def connection_lost(self, exc: Exception | None) -> None:
        if self._process.returncode is not None and not self._process._over.done():
            self._process._over.set_result(None)
        for one in (self._process._born, self._process._over):
            if not one.done():
                one.set_exception(RuntimeError("the server of forks has ended"))
                one.exception()


async def start(*arguments: str, folder: Path, environ: Mapping[str, str], stdin: bytes | None, obey: bool) -> Forked:
    """`python -m gateway …`, in `folder`; `obey`: without what makes permissions mean nothing to root."""
    order = json.dumps([arguments, str(folder), dict(environ), obey]).encode()
    mine: list[int] = []
    theirs: list[int] = []
    if stdin is None:
        theirs.append(os.open(os.devnull, os.O_RDONLY))
    else:
        assert len(stdin) < select.PIPE_BUF, "more than a pipe holds for nobody"
        end, begin = os.pipe()
        os.write(begin, stdin)
        os.close(begin)
        theirs.append(end)
    for _ in range(3):
        end, begin = os.pipe()
        mine.append(end)
        theirs.append(begin)
    try:
        socket.send_fds(_server(), [order], theirs)
    finally:
        for one in theirs:
            os.close(one)
    loop, process = asyncio.get_running_loop(), Forked()
    protocols: list[Callable[[], Any]] = [
        lambda: _Heard(process.stdout, process._silent[0]),
        lambda: _Heard(process.stderr, process._silent[1]),
        lambda: _Told(process),
    ]
    for descriptor, protocol in zip(mine, protocols, strict=True):
        file: IO[bytes] = os.fdopen(descriptor, "rb", 0)
        pipe, _ = await loop.connect_read_pipe(protocol, file)
        process._pipes.append(pipe)
    await asyncio.shield(process._born)
    return process


def _server() -> socket.socket:
    global _served
    if _served is None:
        _served, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        left_out = ("SALLYPORT_", "PYTHONDONTWRITEBYTECODE")
        environ = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.house.forks", str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd="/",
            env=environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        theirs.close()
        atexit.register(_end, _served, process)
    return _served


def _end(served: socket.socket, process: subprocess.Popen[bytes]) -> None:
    served.close()
    process.wait(10)


# -- the server: everything from here on runs in its process -----------------------------------------------------------


def _serve(control: socket.socket) -> tuple[str, ...]:
    """Fork whatever is asked for, until nobody can ask any more. Returns, in each child, what it is to run."""
    told: dict[int, int] = {}
    woken, waking = os.pipe()
    os.set_blocking(waking, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(waking, warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([control, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 512)
            _bury(told)
        if control not in ready:
            continue
        order, descriptors, _, _ = socket.recv_fds(control, 1 << 18, 4)
        if not order:
            os._exit(0)
        *streams, told_to = descriptors
        child = os.fork()
        if not child:
            signal.set_wakeup_fd(-1)
            for descriptor in (woken, waking, control.detach(), told_to, *told.values()):
                os.close(descriptor)
            return _become(order, streams)
        told[child] = told_to
        os.write(told_to, f"{child}\n".encode())
        for descriptor in streams:
            os.close(descriptor)


def _bury(told: dict[int, int]) -> None:
    while told:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        with contextlib.suppress(BrokenPipeError):
            os.write(told[child], f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os.close(told.pop(child))


def _become(order: bytes, streams: list[int]) -> tuple[str, ...]:
    arguments, folder, environ, obey = json.loads(order)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if obey:
        obey_permissions()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    return tuple(arguments)


def obey_permissions() -> None:
    """Without the capabilities by which root may read and write whatever it wants, now and in whatever is run."""
    head, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if _LIBC.capget(head, sets):
        raise OSError("capget")
    for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
        _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        for number in range(3):  # effective, permitted, inheritable
            sets[number] &= ~(1 << capability)
    if _LIBC.capset(head, sets):
        raise OSError("capset")


def _main() -> int:
    control = socket.socket(fileno=int(sys.argv[1]))
    from gateway import cli

    for name in KNOWN.split():
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    arguments = _serve(control)
    sys.argv = [str(Path(cli.__file__).with_name("__main__.py")), *arguments]
    return cli.main()


if __name__ == "__main__":
    raise SystemExit(_main())
