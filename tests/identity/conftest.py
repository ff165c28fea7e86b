"""People, sessions and a ledger on a real database in a temporary folder."""

from __future__ import annotations

import pytest

from gateway.core.clock import ManualClock
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.identity.sessions import Sessions
from gateway.store.sql import Records
from tests.rig.ledger import Remembered

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session")
def passwords() -> Passwords:
    return Passwords()


@pytest.fixture
def people(records: Records, passwords: Passwords, clock: ManualClock, ledger: Remembered) -> LocalUsers:
    return LocalUsers(records, passwords, clock, ledger)


@pytest.fixture
def sessions(records: Records, clock: ManualClock, ledger: Remembered) -> Sessions:
    return Sessions(records, clock, ledger, idle=3600.0, absolute=86400.0, per_user=5)
