"""Real Redis servers on free ports, each in a folder of its own, ended when the test is."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

HERE = "127.0.0.1"
STARTS_WITHIN = 10.0

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind((HERE, 0))
        return int(sock.getsockname()[1])


class Server:
    """One redis-server. `options` are lines of its configuration: `{"maxmemory": "10mb"}`."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        options: Mapping[str, str | list[str]] | None = None,
        sentinel: bool = False,
    ) -> None:
        self.port = port or free_port()
        self.folder = folder
        self._options = dict(options or {})
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{HERE}:{self.port}"

    def start(self) -> Server:
        """Start it and wait until it answers."""
        file = self.folder / "redis.conf"
        if not file.exists():
            given: dict[str, str | list[str]] = {
                "bind": HERE,
                "port": str(self.port),
                "dir": str(self.folder),
                "save": '""',
                "appendonly": "no",
                "daemonize": "no",
            }
            if self._sentinel:
                del given["save"], given["appendonly"]
            lines = []
            for name, value in {**given, **self._options}.items():
                lines += [f"{name} {each}" for each in ([value] if isinstance(value, str) else value)]
            file.write_text("\n".join(lines) + "\n")
        command = ["redis-server", str(file), *(["--sentinel"] if self._sentinel else [])]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + STARTS_WITHIN
        while b"Ready to accept" not in (text := (self.folder / "log").read_bytes()) and (
            b"Running mode=sentinel" not in text
        ):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start:\n{text.decode(errors='replace')}")
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        """As a crash would: at once, nothing is written."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        (self.folder / "log").write_bytes(b"")

    def restart(self) -> None:
        """Kill it and start it again on the same port and files."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Have it go silent: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(19)

    def go_on(self) -> None:
        """Have it answer again."""
        assert self._process is not None
        self._process.send_signal(18)

    def ask(self, *command: str) -> str:
        """What redis-cli is answered."""
        done = subprocess.run(
            ["redis-cli", "-h", HERE, "-p", str(self.port), *command], capture_output=True, timeout=10, text=True
        )
        return done.stdout.strip()


@contextlib.contextmanager
def a_server(*, options: Mapping[str, str | list[str]] | None = None, port: int = 0) -> Iterator[Server]:
    """A running server in a folder that goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    server = Server(folder, port=port, options=options)
    try:
        yield server.start()
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


async def until(true: object, seconds: float = 5.0) -> None:
    """Wait until the callable `true` is. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.005)
