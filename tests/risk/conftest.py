from __future__ import annotations

import pytest

from gateway.core.clock import ManualClock
from gateway.core.facts import Facts
from gateway.core.identity import Identity, Level, Proof, Session, level_of
from gateway.risk.score import Risk
from gateway.store.sql import Records
from tests.rig.ledger import Remembered

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36"
)
HOME, ABROAD = "198.51.100.7", "203.0.113.9"


@pytest.fixture
def risk(records: Records, clock: ManualClock, ledger: Remembered) -> Risk:
    return Risk(records, clock, ledger)


def at(address: str = HOME, agent: str = FIREFOX) -> Facts:
    network = address if ":" not in address else address.rpartition("::")[0] + "::/64"
    return Facts(method="GET", host="h", path="/", address=address, network=network, agent=agent, request_id="r-1")


def ann(session: str = "s1", *factors: str, version: int = 1, subject: str = "sub-ann", user: str = "ann") -> Identity:
    proofs = tuple(Proof(factor, 1.0) for factor in (factors or ("password",)))
    kept = Session(session, version, 0.0, 0.0, 0.0, proofs, "", "")
    return Identity("default", subject, user, session=kept, level=level_of(proofs) or Level.NONE)
