"""Processes on chosen cores, and what /proc tells about them.

With two cores there is one honest split: the proxy under test alone on the first, the load and the origin together on
the second. A proxy is at its limit only when it uses its whole core; where it does not, the second core was the limit
and the figure is a lower bound, which the table then says.
"""

from __future__ import annotations

import http.client
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
_TICK = os.sysconf("SC_CLK_TCK")


def cores() -> tuple[int, set[int]]:
    """The core of the proxy under test, and those of load and origin."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], set(allowed[1:]) or {allowed[0]}


def find(program: str) -> str | None:
    """Where a program is; build/bin and the folders of administrators' programs count too."""
    places = [str(ROOT / "build" / "bin"), os.environ.get("PATH", ""), "/usr/local/go/bin", "/usr/sbin", "/sbin"]
    return shutil.which(program, path=os.pathsep.join(places))


def said(*command: str) -> str:
    """What a program prints, both outputs together; for versions."""
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return ended.stdout.strip()


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def described() -> str:
    """The machine and our own runtime in one line."""
    model = "unknown processor"
    with suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else platform.processor() or model
    runtime = f"CPython {platform.python_version()}, uvloop {version('uvloop')}, httptools {version('httptools')}"
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release().split('-')[0]}; {runtime}"


def core_busy(core: int) -> float:
    """Seconds a core has worked for anybody, other virtual machines included, until now."""
    line = re.search(rf"^cpu{core} (.*)$", Path("/proc/stat").read_text(), re.MULTILINE)
    user, nice, system, _idle, _waiting, *rest = map(int, (line[1] if line else "0 0 0 0 0").split())
    return (user + nice + system + sum(rest[:3])) / _TICK


class Process:
    """A program that runs until it is left, its output in a file under build/bench."""

    def __init__(
        self, name: str, command: Sequence[str], *, cores: set[int], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._command = list(command)
        self._cores = cores
        # As an installed program runs: with its bytecode kept, whatever the shell that measures prefers.
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self._environment = {**kept, **(environment or {})}
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        BUILD.mkdir(parents=True, exist_ok=True)
        self._output = (BUILD / f"{self.name}.log").open("wb")
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            preexec_fn=lambda: os.sched_setaffinity(0, self._cores),
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._output is not None:
            self._output.close()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    def wait_for(self, url: str, within: float = 20.0, every: float = 0.02) -> None:
        """Return as soon as `url` answers at all; RuntimeError with the program's last words when it does not."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                if _status(url) < 500:
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(every)
        last = (BUILD / f"{self.name}.log").read_text(errors="replace").splitlines()[-10:]
        raise RuntimeError("\n".join([f"{self.name} does not answer on {url}", *last]))

    def cpu(self) -> float:
        """Seconds of processor time used until now."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def rss(self) -> int:
        """Resident memory now, in bytes."""
        return self._memory("VmRSS")

    def peak_rss(self) -> int:
        """The most resident memory since `forget_peak`, in bytes."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        """Let `peak_rss` begin anew (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _memory(self, field: str) -> int:
        found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0


def _status(url: str) -> int:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=2)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status
    finally:
        connection.close()


def python(*arguments: str) -> list[str]:
    """A command line of our own interpreter."""
    return [sys.executable, *arguments]
