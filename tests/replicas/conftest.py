"""What takes a minute of real time comes last, and at the same time, as processes of their own: the minute under load,
and the fault table. Both wait more than they compute."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from tests.house.process import ROOT
from tests.replicas.fault_table import Measured
from tests.replicas.load import One

ENDS_WITHIN = 200.0
"""Seconds."""
BESIDE = {"table": "tests.replicas.fault_table", "minute": "tests.replicas.burst"}
"""Fixtures, and the programs whose outcome they are."""

Processes = Mapping[str, subprocess.Popen[bytes]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who waits for one of them comes last."""
    items.sort(key=lambda item: bool(_waits_for(item)))


def _waits_for(item: pytest.Item) -> set[str]:
    return BESIDE.keys() & set(getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def _beside(request: pytest.FixtureRequest) -> Iterator[Processes]:
    """Those that somebody will ask for."""
    wanted = sorted(set[str]().union(*map(_waits_for, request.session.items)))
    started: dict[str, subprocess.Popen[bytes]] = {}
    for name in wanted:
        command = [sys.executable, "-m", BESIDE[name]]
        started[name] = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    yield started
    for process in started.values():
        process.terminate()
        process.communicate()


def _outcome(process: subprocess.Popen[bytes]) -> bytes:
    out, err = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 0, err.decode()
    return out


@pytest.fixture(scope="session")
def minute(_beside: Processes) -> list[One]:
    """Every request of the minute under load."""
    return [One(*one) for one in json.loads(_outcome(_beside["minute"]))]


@pytest.fixture(scope="session")
def table(_beside: Processes) -> Mapping[tuple[str, str], Measured]:
    """The fault table, by store and fault."""
    measured: list[Measured] = pickle.loads(_outcome(_beside["table"]))
    return {(one.row.store, one.row.fault): one for one in measured}
