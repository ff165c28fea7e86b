"""The minute under load runs beside the other tests of this folder, and is looked at last."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.house.process import ROOT
from tests.replicas.load import One

ENDS_WITHIN = 150.0
"""Seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who waits for the minute comes last."""
    items.sort(key=_waits)


def _waits(item: pytest.Item) -> bool:
    return "minute" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def _running(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes] | None]:
    """The minute, where somebody will ask for it."""
    if not any(map(_waits, request.session.items)):
        yield None
        return
    command = [sys.executable, "-m", "tests.replicas.burst"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        yield process
        process.terminate()


@pytest.fixture(scope="session")
def minute(_running: subprocess.Popen[bytes]) -> list[One]:
    """Every request of it."""
    out, err = _running.communicate(timeout=ENDS_WITHIN)
    assert _running.returncode == 0, err.decode()
    return [One(*one) for one in json.loads(out)]
