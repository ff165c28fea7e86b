"""`sallyport session`, on the database alone and on a Redis."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.clock import SystemClock
from gateway.core.identity import Proof
from gateway.crypto.keys import KeyRing
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.identity.session_keys import SessionKeys
from gateway.identity.sessions import Sessions
from gateway.store.redis import Redis
from gateway.store.redis_where import Where
from gateway.store.sql import Records
from tests.commands.kept import Sallyport
from tests.rig.ledger import Remembered
from tests.rig.redis import Server, a_server, needs_redis
from tests.rig.sessions import PATIENT, TERMS, in_rows

PASSWORD = "correct horse battery staple"


@dataclass
class Kept:
    """Where sessions are, and what a gateway does there."""

    folder: Path
    server: Server | None

    def gateway(self, work: Callable[[LocalUsers, Sessions], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            records = await Records.open(f"sqlite:{self.folder}/data/sallyport.db", clock=SystemClock())
            clock, passwords, ledger = SystemClock(), Passwords(), Remembered()
            keys = KeyRing.open(self.folder / "data" / "keys", create=True)
            redis = None
            try:
                sessions = in_rows(records, clock, ledger)
                if self.server is not None:
                    where = replace(Where.parse(self.server.url), deadline=PATIENT)
                    redis = await Redis.open(where, clock=clock)
                    store = SessionKeys(redis, records, keys.sealer, TERMS)
                    sessions = Sessions(store, records, clock, ledger, TERMS)
                return await work(LocalUsers(records, passwords, clock, ledger), sessions)
            finally:
                if redis is not None:
                    await redis.close()
                passwords.close()
                await records.close()

        return asyncio.run(run())

    def sign_in(self, name: str, times: int) -> list[tuple[str, str]]:
        """Tokens and ids."""

        async def work(people: LocalUsers, sessions: Sessions) -> list[tuple[str, str]]:
            user = await people.find(name)
            assert user is not None
            opened = []
            for number in range(times):
                proof = Proof("password", SystemClock().now())
                token, identity = await sessions.open(user, proof, address=f"192.0.2.{number}", agent="Wg\x1b[2Jet/1")
                assert identity.session is not None
                opened.append((token, identity.session.id))
            return opened

        result: list[tuple[str, str]] = self.gateway(work)
        return result

    def alive(self, *tokens: str) -> list[bool]:
        async def work(_: LocalUsers, sessions: Sessions) -> list[bool]:
            return [await sessions.find(token) is not None for token in tokens]

        result: list[bool] = self.gateway(work)
        return result


@pytest.fixture
def sallyport(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sallyport:
    return Sallyport(tmp_path, capsys, monkeypatch)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def kept(request: pytest.FixtureRequest, sallyport: Sallyport) -> Iterator[Kept]:
    sallyport("user", "add", "ann", "--password-stdin", stdin=PASSWORD)
    sallyport("user", "add", "bob", "--password-stdin", stdin=PASSWORD)
    if request.param == "sqlite":
        yield Kept(sallyport.folder, None)
        return
    with a_server() as server, (sallyport.folder / "config.yaml").open("a") as config:
        config.write(f"store: {{shared: {{url: '{server.url}', deadline: {PATIENT:g}s}}}}\n")
        config.flush()
        yield Kept(sallyport.folder, server)


def test_sessions_are_listed(sallyport: Sallyport, kept: Kept) -> None:
    opened = kept.sign_in("ann", 2)
    kept.sign_in("bob", 1)
    said = sallyport("session", "list", "Ann")
    assert said.code == 0
    assert len(said.out.splitlines()) == 3
    assert {line.split()[0] for line in said.out.splitlines()[1:]} == {id_ for _, id_ in opened}
    assert "192.0.2.1" in said.out
    assert "\x1b" not in said.out
    assert all(token not in said.out for token, _ in opened)
    listed = sallyport("session", "list", "ann", "--json").json
    assert {one["id"] for one in listed} == {id_ for _, id_ in opened}
    assert {one["acr"] for one in listed} == {"aal1"}


def test_one_is_ended(sallyport: Sallyport, kept: Kept) -> None:
    (first, first_id), (second, _) = kept.sign_in("ann", 2)
    ((bobs, bobs_id),) = kept.sign_in("bob", 1)
    said = sallyport("session", "end", "ann", "--id", first_id)
    assert (said.code, said.out) == (0, f"ended session {first_id} of ann\n")
    assert kept.alive(first, second, bobs) == [False, True, True]
    for id_ in (first_id, bobs_id, "nonsense"):
        said = sallyport("session", "end", "ann", "--id", id_)
        assert (said.code, said.out) == (1, f"ann has no session {id_}\n")
    assert kept.alive(bobs) == [True]


def test_all_are_ended_and_the_ledger_names_the_command_line(sallyport: Sallyport, kept: Kept) -> None:
    tokens = [token for token, _ in kept.sign_in("ann", 3)]
    ((bobs, _),) = kept.sign_in("bob", 1)
    assert sallyport("session", "end", "ann", "--json").json == {"user": "ann", "ended": 3}
    assert kept.alive(*tokens, bobs) == [False, False, False, True]
    database = sqlite3.connect(sallyport.folder / "data" / "sallyport.db")
    told = database.execute("SELECT user, detail FROM events WHERE kind = 'sessions_ended'").fetchall()
    database.close()
    assert [(user, json.loads(detail)) for user, detail in told] == [("ann", {"count": 3, "by": "command line"})]


def test_all_are_ended_also_where_redis_is_away(sallyport: Sallyport, kept: Kept) -> None:
    if kept.server is None:
        pytest.skip("nothing is shared")
    ((token, id_),) = kept.sign_in("ann", 1)
    kept.server.pause()
    try:
        assert sallyport("session", "list", "ann").code == 2
        assert sallyport("session", "end", "ann", "--id", id_).code == 2
        said = sallyport("session", "end", "ann")
        assert said.code == 0
        assert "every session of ann is over" in said.out
        assert "void" in said.err
    finally:
        kept.server.go_on()
    assert kept.alive(token) == [False]


def test_nobody_there(sallyport: Sallyport, kept: Kept) -> None:
    for action in ("list", "end"):
        said = sallyport("session", action, "nobody")
        assert (said.code, said.out) == (1, "")
        assert said.err == "sallyport: ERR-USER-UNKNOWN: There is no user nobody.\n"


def test_resetting_and_new_passwords_end_what_is_in_redis_too(sallyport: Sallyport, kept: Kept) -> None:
    for command in (("user", "reset", "ann"), ("user", "passwd", "ann", "--generate"), ("user", "disable", "ann")):
        ((token, _),) = kept.sign_in("ann", 1)
        assert kept.alive(token) == [True]
        assert sallyport(*command).code == 0
        assert kept.alive(token) == [False]
