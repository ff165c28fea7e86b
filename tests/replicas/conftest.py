"""What takes a minute of real time comes last, and at the same time, as processes of their own: the minute under load,
and the fault table. Both wait more than they compute."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import pytest

from tests.house.process import ROOT
from tests.replicas.fault_table import Measured
from tests.replicas.load import One

ENDS_WITHIN = 200.0
"""Seconds."""
BESIDE = {"table": "tests.replicas.fault_table", "minute": "tests.replicas.burst"}
"""Fixtures, and the programs whose outcome they are."""


class Beside:
    """One of them. What it says is kept in files: nobody reads while it runs, and a pipe holds little."""

    def __init__(self, program: str, out: BinaryIO, err: BinaryIO) -> None:
        self._out, self._err = out, err
        self._process = subprocess.Popen([sys.executable, "-m", program], cwd=ROOT, stdout=self._out, stderr=self._err)
        with contextlib.suppress(PermissionError):  # it measures how long others wait, and not for whatever runs beside
            os.setpriority(os.PRIO_PROCESS, self._process.pid, -10)

    def outcome(self) -> bytes:
        """What it has printed, once it has ended."""
        code = self._process.wait(ENDS_WITHIN)
        self._err.seek(0)
        assert code == 0, self._err.read().decode()
        self._out.seek(0)
        return self._out.read()

    def end(self) -> None:
        """Also where nobody has waited for it."""
        self._process.terminate()
        self._process.wait()


Processes = Mapping[str, Beside]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who waits for one of them comes last."""
    items.sort(key=lambda item: bool(_waits_for(item)))


def _waits_for(item: pytest.Item) -> set[str]:
    return BESIDE.keys() & set(getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def _beside(request: pytest.FixtureRequest) -> Iterator[Processes]:
    """Those that somebody will ask for."""
    wanted = sorted(set[str]().union(*map(_waits_for, request.session.items)))
    with contextlib.ExitStack() as ending:
        started = {}
        for name in wanted:
            out, err = [ending.enter_context(tempfile.TemporaryFile()) for _ in range(2)]
            started[name] = Beside(BESIDE[name], out, err)
            ending.callback(started[name].end)
        yield started


@pytest.fixture(scope="session")
def minute(_beside: Processes) -> list[One]:
    """Every request of the minute under load."""
    return [One(*one) for one in json.loads(_beside["minute"].outcome())]


@pytest.fixture(scope="session")
def table(_beside: Processes) -> Mapping[tuple[str, str], Measured]:
    """The fault table, by store and fault."""
    measured: list[Measured] = pickle.loads(_beside["table"].outcome())
    return {(one.row.store, one.row.fault): one for one in measured}
