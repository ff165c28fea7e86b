"""A gateway that runs, asked on its socket."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from gateway import control
from gateway.catalog import ALGORITHMS
from gateway.control import Control
from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError, UserError
from gateway.core.events import Kind
from gateway.limits.limiter import Limiter
from gateway.limits.spelling import EVERYBODY, who
from gateway.limits.standings import Standings
from tests.limits.conftest import facts, limit
from tests.rig.ledger import Remembered

PER = limit(rate=2)


class One:
    """What a process has that can be asked."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Remembered()
        self.limiter = Limiter(ManualClock(), ALGORITHMS)
        self.control = Control(folder, Standings(lambda: [("r", PER)], self.limiter), self.ledger)

    def spend(self, network: str = "192.0.2.1") -> bool:
        return self.limiter.spend((PER,), facts(network), None, "r")[0].allowed


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop the gateway runs on in earnest."""
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """Its path is longer than the address of a socket may be."""
    long = tmp_path / ("long" * 30)
    long.mkdir()
    return long / "control"


@pytest.fixture
async def one(folder: Path) -> AsyncIterator[One]:
    one = One(folder)
    await one.control.open()
    yield one
    await one.control.close()


async def test_it_says_how_counters_stand_and_resets_them(one: One, folder: Path) -> None:
    while one.spend():
        pass
    one.spend("192.0.2.2")
    found = await control.status(folder, "", "", EVERYBODY, 10)
    assert found is not None
    assert sorted((each.key, each.allowed, each.remaining, each.how) for each in found) == [
        ("a192.0.2.1", False, 0, "local"),
        ("a192.0.2.2", True, 1, "local"),
    ]
    assert await control.status(folder, "r", PER.name, who("address:192.0.2.9"), 10) == []
    assert (await control.status(folder, "", "", EVERYBODY, 1) or [])[0] in found
    whom = who("address:192.0.2.1")
    assert await control.reset(folder, "r", "", whom, spelled="address:192.0.2.1", reason="they called") == 1
    assert one.spend()
    (event,) = one.ledger.events
    assert event.kind is Kind.LIMIT_RESET
    assert event.rule == "r"
    assert event.detail == {
        "limit": "", "who": "address:192.0.2.1", "counters": 1, "reason": "they called",
        "by": control.user_of(os.getuid()), "from": "command line",
    }  # fmt: skip


async def test_what_there_is_not_is_said_as_in_the_command_itself(one: One, folder: Path) -> None:
    with pytest.raises(UserError, match="did you mean r"):
        await control.status(folder, "rr", "", EVERYBODY, 10)
    with pytest.raises(UserError, match="no limit x"):
        await control.reset(folder, "r", "x", EVERYBODY, spelled="", reason="x")
    assert one.ledger.events == []


async def test_nobody_else_can_come_in(one: One, folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o750, 0o755, 0o701])
async def test_a_folder_that_others_can_enter_is_not_used(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="others can enter"):
        await One(folder).control.open()
    assert list(folder.iterdir()) == []


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        await One(tmp_path / "none" / "control").control.open()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        await One(tmp_path / "file").control.open()


async def test_where_nobody_runs_nobody_answers(folder: Path) -> None:
    assert await control.status(folder, "", "", EVERYBODY, 10) is None
    one = One(folder)
    await one.control.open()
    assert await control.status(folder, "", "", EVERYBODY, 10) == []
    await one.control.close()
    assert await control.status(folder, "", "", EVERYBODY, 10) is None
    assert list(folder.iterdir()) == []


async def test_several_processes_answer_together(one: One, folder: Path) -> None:
    other = One(folder)
    await other.control.open()
    for each in (one, other):
        each.spend()
    found = await control.status(folder, "", "", EVERYBODY, 10)
    assert [each.remaining for each in found or []] == [1, 1]
    assert await control.reset(folder, "r", "", EVERYBODY, spelled="", reason="x") == 2
    await other.control.close()
    assert await control.status(folder, "", "", EVERYBODY, 10) == []


async def test_the_socket_of_a_killed_process_is_taken_away_and_no_other(one: One, folder: Path) -> None:
    dead = "import os, socket, sys; os.chdir(sys.argv[1]); s = socket.socket(socket.AF_UNIX); s.bind('dead.sock')"
    subprocess.run([sys.executable, "-c", dead, str(folder)], check=True)
    assert (folder / "dead.sock").exists()
    assert await control.status(folder, "", "", EVERYBODY, 10) == []
    other = One(folder)
    await other.control.open()
    assert not (folder / "dead.sock").exists()
    assert len(list(folder.iterdir())) == 2
    one.spend()
    assert len(await control.status(folder, "", "", EVERYBODY, 10) or []) == 1
    await other.control.close()


@pytest.mark.parametrize(
    "question",
    [b"\n", b"{}\n", b"[]\n", b"null\n", b"{", b"\xff\n", b'{"do":"stop","rule":"r","limit":"","who":[]}\n',
     b'{"do":"status","rule":1,"limit":"","who":7,"most":"x"}\n', b"x" * 70_000 + b"\n", b"x" * 2_000_000],
)  # fmt: skip
async def test_what_cannot_be_understood_ends_the_connection_and_nothing_else(
    one: One, folder: Path, question: bytes
) -> None:
    (path,) = folder.iterdir()
    descriptor = os.open(folder, os.O_RDONLY)
    raw = socket.socket(socket.AF_UNIX)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(raw, f"/proc/self/fd/{descriptor}/{path.name}")
        try:
            await loop.sock_sendall(raw, question)
            raw.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(10):
                assert await loop.sock_recv(raw, 4096) == b""
        except (ConnectionResetError, BrokenPipeError):
            pass
    finally:
        raw.close()
        os.close(descriptor)
    one.spend()
    assert len(await control.status(folder, "", "", EVERYBODY, 10) or []) == 1
