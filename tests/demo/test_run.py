"""`make run` as a whole: real processes, real ports, a folder of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.rig.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
READY = 60


class Demo:
    """One `python -m demo` and what it printed."""

    def __init__(self, data: Path, *, listen: str = "", password: str = "correct horse battery") -> None:
        self.data = data
        self.address = listen or f"127.0.0.1:{free_port()}"
        self.password = password
        self.said = ""
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "demo", "--data", str(self.data), "--listen", self.address,
            "--admin-listen", f"127.0.0.1:{free_port()}", "--service", f"127.0.0.1:{free_port()}",
            cwd=ROOT, env=os.environ | {"SALLYPORT_DEMO_PASSWORD": self.password},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    async def until(self, words: str) -> None:
        async with asyncio.timeout(READY):
            while words not in self.said:
                line = await self.process.stdout.readline()
                assert line, self.said
                self.said += line.decode()

    async def ended(self) -> int:
        async with asyncio.timeout(READY):
            self.said += (await self.process.stdout.read()).decode()
            return await self.process.wait()


@contextlib.asynccontextmanager
async def demo(data: Path, **options: str) -> AsyncIterator[Demo]:
    one = Demo(data, **options)
    await one.start()
    try:
        yield one
    finally:
        if one.process.returncode is None:
            one.process.send_signal(signal.SIGTERM)
        await one.ended()


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


async def test_it_comes_up_does_what_it_prints_and_goes_down(tmp_path: Path) -> None:
    async with demo(tmp_path / "data") as one, aiohttp.ClientSession(f"http://{one.address}") as client:
        await one.until("Ctrl-C")
        assert f"ann  {one.password}" in one.said
        assert f"bob  {one.password}" in one.said

        async with client.get("/public/echo", headers={"X-Forwarded-User": "forged"}) as response:
            received = await response.json()
            assert response.status == 200
        assert "forged" not in json.dumps(received)
        async with client.get("/echo") as response:
            assert response.status == 401
            assert response.content_type == "application/problem+json"
        async with client.get("/admin/", headers={"Accept": "text/html"}, allow_redirects=False) as response:
            assert response.status == 303
        admin = re.search(r"curl -s (http://\S+)/metrics", one.said)[1]
        async with client.get(f"{admin}/metrics") as response:
            assert "sallyport_requests_total" in await response.text()

        started = children(one.process.pid)
        assert len(started) == 2
        one.process.send_signal(signal.SIGINT)
        assert await one.ended() == 0, one.said
        assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
        assert "Traceback" not in one.said


async def test_a_second_run_keeps_the_users_and_takes_the_new_password(tmp_path: Path) -> None:
    for password in ("the first password", "quite another one"):
        async with demo(tmp_path / "data", password=password) as one:
            await one.until("Ctrl-C")
            assert f"bob  {password}" in one.said


async def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with demo(tmp_path / "data", listen=address) as one:
            assert await one.ended() == 1
    assert f"{address} is taken" in one.said
    assert "Traceback" not in one.said


async def test_a_part_that_ends_takes_the_rest_down_and_is_shown(tmp_path: Path) -> None:
    async with demo(tmp_path / "data") as one:
        await one.until("Ctrl-C")
        for pid in children(one.process.pid):
            if b"demo.service" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
        assert await one.ended() == 1
    assert "The demo service ended with exit code -9" in one.said


@pytest.mark.parametrize("password", ["short"])
async def test_a_password_that_is_refused_is_said(tmp_path: Path, password: str) -> None:
    async with demo(tmp_path / "data", password=password) as one:
        assert await one.ended() == 1
    assert "cannot make the user ann" in one.said
    assert "Traceback" not in one.said
