from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.clock import ManualClock
from gateway.crypto.keys import KeyRing


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "keys"


@pytest.fixture
def ring(folder: Path, clock: ManualClock) -> KeyRing:
    return KeyRing.open(folder, create=True, clock=clock, assertion_lifetime=60.0)
