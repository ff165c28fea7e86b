"""People, sessions and a ledger on real stores, each of them in a place of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.clock import ManualClock
from gateway.core.identity import Identity, Proof
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.identity.sessions import Sessions
from gateway.identity.users import User
from gateway.store.place import Place
from gateway.store.redis_where import Where
from gateway.store.sql import Records
from tests.rig.ledger import Remembered
from tests.rig.postgres import place_of
from tests.rig.redis import Masters, Server, a_cluster, a_server, needs_redis
from tests.rig.sessions import PATIENT, TERMS, Stores, opened

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session")
def passwords() -> Passwords:
    return Passwords()


@pytest.fixture
def people(records: Records, passwords: Passwords, clock: ManualClock, ledger: Remembered) -> LocalUsers:
    return LocalUsers(records, passwords, clock, ledger)


@pytest.fixture
async def ann(people: LocalUsers) -> User:
    return await people.add("ann", PASSWORD, email="ann@example.com", display_name="Ann", groups=["admins"])


@pytest.fixture
async def bob(people: LocalUsers) -> User:
    return await people.add("bob", PASSWORD)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """One for all; who wants it empty says FLUSHALL."""
    with a_server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[Masters]:
    with a_cluster() as masters:
        yield masters


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the records are: in PostgreSQL for whoever runs over that."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    return place_of("postgresql" if params.get("stores") == "postgresql" else "sqlite", request, tmp_path)


@pytest.fixture(params=["sqlite"])
async def stores(request: pytest.FixtureRequest, records: Records, clock: ManualClock) -> AsyncIterator[Stores]:
    """By default in the database; over which stores a file of tests runs it says with `over`."""
    where = None
    if request.param == "redis":
        server: Server = request.getfixturevalue("redis_server")
        server.ask("FLUSHALL")
        where = replace(Where.parse(server.url), deadline=PATIENT)
    elif request.param == "cluster":
        masters: Masters = request.getfixturevalue("redis_cluster")
        for each in masters.servers:
            each.ask("FLUSHALL")
        where = replace(masters.where, deadline=PATIENT)
    async with opened(records, clock, where) as stores:
        yield stores


def over(*kinds: str) -> pytest.MarkDecorator:
    """Run on these stores: `sqlite`, `postgresql`, `redis`, `cluster`."""
    needs = {"redis": [needs_redis], "cluster": [needs_redis]}
    marks = [pytest.param(kind, marks=needs.get(kind, []), id=kind) for kind in kinds]
    return pytest.mark.parametrize("stores", marks, indirect=True)


@pytest.fixture
async def sessions(stores: Stores, ledger: Remembered) -> Sessions:
    return await stores.sessions(ledger=ledger, terms=TERMS)


class Browser:
    """Signs in with a password and steps up with a code, at the clock's time."""

    def __init__(self, sessions: Sessions, clock: ManualClock) -> None:
        self.sessions = sessions
        self.clock = clock

    async def sign_in(self, user: User, replacing: str | None = None) -> tuple[str, Identity]:
        proof = Proof("password", self.clock.now())
        return await self.sessions.open(user, proof, address="192.0.2.1", agent="test", replacing=replacing)

    async def step_up(self, token: str, factor: str = "totp") -> tuple[str, Identity]:
        return await self.sessions.prove(token, Proof(factor, self.clock.now()))


@pytest.fixture
def browser(sessions: Sessions, clock: ManualClock) -> Browser:
    return Browser(sessions, clock)
