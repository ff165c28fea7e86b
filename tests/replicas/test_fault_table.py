"""A laboratory that breaks says of what, and takes no other with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from tests.replicas.fault_table import Doing, Laboratory, Measured, measured

ROWS = [Doing("X", fault, "away", lambda: None, lambda: None) for fault in ("slow", "garbage", "crash")]


class Mortal(Laboratory):
    """Its gateway dies of the second fault."""

    async def open(self) -> None:
        program = [sys.executable, "-c", "input(); import os; os.kill(os.getpid(), 11)"]
        process = await asyncio.create_subprocess_exec(*program, stdin=asyncio.subprocess.PIPE)
        self.gateway: Any = SimpleNamespace(process=process, said="its last words")

    async def measure(self, row: Doing) -> Measured:
        if row.fault == "garbage":
            await self.gateway.process.communicate(b"\n")
        return Measured(row)


@contextlib.asynccontextmanager
async def mortal() -> AsyncIterator[Laboratory]:
    yield Mortal(SimpleNamespace(replicas=[None]), ROWS)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def nowhere() -> AsyncIterator[Laboratory]:
    raise OSError("no disk to build it on")
    yield


async def test_a_gateway_that_died_is_told_by_its_exit_code() -> None:
    slow, garbage, broken = await measured("X", mortal())
    assert [slow.row, garbage.row] == ROWS[:2]
    assert (broken.row.store, broken.row.fault) == ("X", "")
    assert f"the gateway ended with {-signal.SIGSEGV}" in broken.error
    assert "its last words" in broken.error


async def test_what_cannot_be_built_is_told_beside_the_other_tables() -> None:
    _, (broken,) = await asyncio.gather(measured("X", mortal()), measured("Y", nowhere()))
    assert broken.row.store == "Y"
    assert "no disk to build it on" in broken.error
