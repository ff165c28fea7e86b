"""How a database becomes that of another version: whole or not at all, with its data, and while others go on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, func, insert, inspect, select, text

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError
from gateway.crypto.mac import Mac
from gateway.crypto.sealing import Sealer
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.mfa import otp
from gateway.mfa.backup_codes import BackupCodes
from gateway.mfa.totp import Totp
from gateway.store import upgrade
from gateway.store.database import Database
from gateway.store.own_address import confirm, own_address
from gateway.store.place import SQLITE, Place
from gateway.store.schema import State
from gateway.store.sql import Records, connect, standing
from gateway.store.sql_key_value import SqlKeyValue
from gateway.store.suppressed_table import is_suppressed
from gateway.store.tables import SCHEMA_VERSION, meta, metadata, suppressed
from tests.house.process import POLICY, ask
from tests.rig.behind import behind
from tests.rig.ledger import Remembered
from tests.rig.postgres import EITHER, Server
from tests.rig.sessions import in_rows

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NOW = 1_700_000_010.0
"""When the dump was made."""
MASTER = b"m" * 32
NEXT = SCHEMA_VERSION + 1


@pytest.fixture(params=EITHER)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A database with nothing in it."""
    if request.param == "sqlite":
        return Place(f"sqlite:{tmp_path}/data/sallyport.db")
    server: Server = request.getfixturevalue("postgres")
    return Place(server.socket(server.database()))


@pytest.fixture
async def database(empty: Place) -> AsyncIterator[Database]:
    opened = await connect(empty)
    yield opened
    await opened.close()


@pytest.fixture
def old(tmp_path: Path) -> Place:
    """A database that version 0.1 has made: ann with a device, codes and a session, and bob, who is disabled."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript((HERE / "schema_1.sql").read_text())
    return Place(f"sqlite:{path}")


def look(connection: Connection) -> dict[str, Any]:
    """All there is to see of the tables."""
    seen = inspect(connection)
    return {
        table: {
            "columns": [{**column, "type": str(column["type"])} for column in seen.get_columns(table)],
            "key": seen.get_pk_constraint(table),
            "foreign": seen.get_foreign_keys(table),
            "indexes": sorted(seen.get_indexes(table), key=lambda index: str(index["name"])),
            "unique": sorted(seen.get_unique_constraints(table), key=str),
        }
        for table in sorted(seen.get_table_names())
    }


def by_migrations(connection: Connection) -> None:
    for step in upgrade.steps(0):
        with Operations.context(MigrationContext.configure(connection)):
            step.upgrade()


async def test_the_migrations_make_what_an_empty_database_is_given(database: Database) -> None:
    async with database.alone() as connection:
        await connection.run_sync(by_migrations)
        migrated = await connection.run_sync(look)
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
        made = await connection.run_sync(look)
    assert set(made) == set(metadata.tables)
    assert migrated == made


def test_the_files_are_numbered_as_the_schema_is() -> None:
    assert [int(step.revision) for step in upgrade.steps(0)] == list(range(1, SCHEMA_VERSION + 1))
    assert upgrade.steps(SCHEMA_VERSION) == []


async def made_by(database: Database, schema: int, *statements: str) -> None:
    """A database as the version with that schema leaves it."""

    def make(connection: Connection) -> None:
        for step in upgrade.steps(0)[:schema]:
            with Operations.context(MigrationContext.configure(connection)):
                step.upgrade()
        connection.execute(insert(meta), [{"name": "schema", "number": schema}, {"name": "compatible", "number": 1}])
        for statement in statements:
            connection.execute(text(statement))

    async with database.alone() as connection:
        await connection.run_sync(make)


@pytest.mark.parametrize("schema", [3, 8])
async def test_tables_that_an_upgrade_both_makes_and_changes(database: Database, schema: int) -> None:
    """They cannot be locked beforehand, and nobody else has them."""
    await made_by(database, schema)
    assert await upgrade.upgrade(database, lambda step: None) == SCHEMA_VERSION - schema
    assert (await standing(database)).state is State.GOOD


async def test_addresses_that_were_suppressed_before_count_as_mailboxes(database: Database) -> None:
    rows = "('a', 'email', 'Ann@x.example', 'complained', 1), ('a', 'email', 'bob+1@x.example', 'bounced', 1)"
    await made_by(database, 13, f"INSERT INTO suppressed (tenant, channel, target, why, at) VALUES {rows}")
    assert await upgrade.upgrade(database, lambda step: None) == SCHEMA_VERSION - 13
    async with database.alone() as connection:
        assert await connection.scalar(select(func.count()).where(suppressed.c.mailbox == "")) == 0
        assert await is_suppressed(connection, "a", "email", "ann+1@X.example")
        assert await is_suppressed(connection, "a", "email", "BOB+1@x.example")
        assert not await is_suppressed(connection, "a", "email", "bob@x.example")


async def test_nobodys_address_is_confirmed_by_an_upgrade(database: Database) -> None:
    insert = "INSERT INTO users (tenant, subject, name, email, display_name, groups, password, disabled, created_at)"
    await made_by(database, 14, f"{insert} VALUES ('a', 's', 'ann', 'ann@x.example', '', '[]', '', false, 1)")
    assert await upgrade.upgrade(database, lambda step: None) == SCHEMA_VERSION - 14
    async with database.alone() as connection:
        assert await own_address(connection, "a", "s") == ("ann@x.example", 0.0)
        assert await confirm(connection, "a", "s", "ann@x.example", 2.0)
        assert await own_address(connection, "a", "s") == ("ann@x.example", 2.0)


async def test_a_database_of_version_1_goes_on_with_its_data(old: Place, caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock(NOW)
    records = await Records.open(old, clock=clock)
    assert f"database {old} has schema 1 and is upgraded to {SCHEMA_VERSION}" in caplog.text
    people = LocalUsers(records, Passwords(), clock, Remembered())
    ann = await people.verify("ann", "correct horse battery")
    assert ann is not None
    assert (ann.email, ann.groups) == ("ann@example.com", {"admins"})
    assert await people.verify("bob", "correct horse battery") is None
    identity = await in_rows(records, clock, Remembered()).find("a-token-of-schema-1")
    assert identity is not None
    assert (identity.user, identity.session.rested if identity.session else None) == ("ann", 0.0)
    totp = Totp(records, Sealer([MASTER]), clock)
    code = otp.code_at(b"12345678901234567890", otp.step_at(NOW))
    async with records.begin("default", ann.subject) as connection:
        assert await totp.check(connection, "default", ann.subject, code, NOW) is not None
    codes = BackupCodes(records, Mac([MASTER]), clock)
    assert (await codes.left("default", ann.subject)).count == 10
    async with records.begin("default", ann.subject) as connection:
        assert await codes.check(connection, "default", ann.subject, "00007-00000", NOW) is not None
    kept = SqlKeyValue(records, clock)
    assert (await kept.get("default/kept"), await kept.get("default/count")) == (b"\x00value", b"7")
    assert await records.sealed_by() == Sealer([MASTER]).current
    assert len(behind(old, "SELECT * FROM events")) == 3
    await records.close()
    before = caplog.text
    await (await Records.open(old, clock=clock)).close()
    assert caplog.text == before, "once is enough"


# --- as processes ---------------------------------------------------------------------------------------------------


async def next_version(folder: Path, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """Run a command of the version after this one."""
    return await run(folder, [sys.executable, str(HERE / "next_version.py")], *arguments, **environ)


async def this_version(folder: Path, *arguments: str) -> tuple[int, str, str]:
    return await run(folder, [sys.executable, "-m", "gateway"], *arguments)


async def run(folder: Path, program: list[str], *arguments: str, **environ: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *program, *arguments,
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def configure(folder: Path, place: Place) -> None:
    (folder / "config.yaml").write_text(
        f"upstreams: {{app: {{url: http://127.0.0.1:9}}}}\nstore: {{records: '{place.url}'}}\n"
    )
    (folder / "policies").mkdir()
    (folder / "policies" / "a.yaml").write_text(POLICY)


@pytest.fixture
async def house(empty: Place, tmp_path: Path) -> Place:
    """A configuration in `tmp_path`, and a database of this version with ann in it."""
    configure(tmp_path, empty)
    code, _, err = await ask(tmp_path, "user", "add", "ann", "--generate")
    assert code == 0, err
    return empty


def schema_of(place: Place) -> dict[str, int]:
    return dict(behind(place, "SELECT name, number FROM meta WHERE name IN ('schema', 'compatible')"))


async def test_an_upgrade_that_is_killed_has_not_happened(house: Place, tmp_path: Path) -> None:
    code, out, err = await next_version(tmp_path, "db", "upgrade", DIE="1")
    assert (code, "Badges of users" in out) == (-9, True), err
    assert schema_of(house) == {"schema": SCHEMA_VERSION, "compatible": 1}
    async with asyncio.timeout(60):
        while (said := await ask(tmp_path, "user", "list"))[0]:
            await asyncio.sleep(0.1)  # until the server has noticed
    assert "ann" in said[1]
    code, out, err = await next_version(tmp_path, "db", "upgrade")
    assert (code, err) == (0, "")
    assert schema_of(house) == {"schema": NEXT, "compatible": SCHEMA_VERSION}
    assert (await next_version(tmp_path, "user", "list"))[1] == said[1]


async def test_this_version_works_with_the_next_ones_tables_while_it_may(house: Place, tmp_path: Path) -> None:
    before = await next_version(tmp_path, "db", "status", "--json")
    assert (before[0], '"state": "behind"' in before[1], f'"schema": {SCHEMA_VERSION}' in before[1]) == (1, True, True)
    assert (await next_version(tmp_path, "db", "upgrade"))[0] == 0
    after = await next_version(tmp_path, "db", "status")
    assert (after[0], f"has schema {NEXT}: good" in after[1]) == (0, True)
    assert "of a newer version, which this one can work with" in (await ask(tmp_path, "db", "status"))[1]
    code, _, err = await ask(tmp_path, "user", "add", "bob", "--generate")
    assert code == 0, err
    assert (await next_version(tmp_path, "user", "list"))[1].count("active") == 2
    assert "nothing to do" in (await ask(tmp_path, "db", "upgrade"))[1]
    assert schema_of(house) == {"schema": NEXT, "compatible": SCHEMA_VERSION}


async def test_this_version_leaves_tables_alone_that_it_could_not_work_with(house: Place, tmp_path: Path) -> None:
    assert (await next_version(tmp_path, "db", "upgrade", NARROW="1"))[0] == 0
    for ours, command in (
        (ask, ("user", "list")), (this_version, ("run",)), (ask, ("db", "status")), (ask, ("db", "upgrade")),
    ):  # fmt: skip
        code, out, err = await ours(tmp_path, *command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"(its schema is {NEXT}, this version knows up to {SCHEMA_VERSION})" in err
    assert schema_of(house) == {"schema": NEXT, "compatible": NEXT}


async def test_who_is_behind_on_postgresql_is_told_to_upgrade_first(house: Place, tmp_path: Path) -> None:
    code, out, err = await next_version(tmp_path, "user", "list")
    if house.scheme == SQLITE:
        assert (code, "ann" in out) == (0, True)
        assert schema_of(house) == {"schema": NEXT, "compatible": SCHEMA_VERSION}
        return
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"has schema {SCHEMA_VERSION}, this version needs {NEXT} (run `sallyport db upgrade`)" in err
    assert "hunter2" not in err
    assert schema_of(house) == {"schema": SCHEMA_VERSION, "compatible": 1}


async def test_half_a_migration_is_left_alone(house: Place, tmp_path: Path) -> None:
    behind(house, "ALTER TABLE sessions DROP COLUMN rested")
    for command in (("user", "list"), ("db", "status"), ("db", "upgrade")):
        code, out, err = await ask(tmp_path, *command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"is half migrated: sessions.rested missing from schema {SCHEMA_VERSION} (restore a backup)" in err


async def test_an_upgrade_that_cannot_be_leaves_everything_as_it_was(house: Place, tmp_path: Path) -> None:
    behind(house, "ALTER TABLE users ADD COLUMN badges INTEGER")
    code, _, err = await next_version(tmp_path, "db", "upgrade")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be upgraded" in err
    assert "nothing was changed" in err
    assert schema_of(house) == {"schema": SCHEMA_VERSION, "compatible": 1}
    assert (await ask(tmp_path, "user", "list"))[0] == 0


async def test_several_may_make_and_upgrade_at_once(empty: Place, tmp_path: Path) -> None:
    configure(tmp_path, empty)
    made = await asyncio.gather(*(this_version(tmp_path, "user", "list") for _ in range(3)))
    assert [one[0] for one in made] == [0, 0, 0], made
    raised = await asyncio.gather(*(next_version(tmp_path, "db", "upgrade") for _ in range(3)))
    assert [one[0] for one in raised] == [0, 0, 0], raised
    assert sum("Badges of users" in one[1] for one in raised) == 1
    assert schema_of(empty) == {"schema": NEXT, "compatible": SCHEMA_VERSION}


async def test_somebody_elses_tables_are_left_alone(empty: Place, tmp_path: Path) -> None:
    if empty.scheme == SQLITE:
        empty.path.parent.mkdir()
    behind(empty, "CREATE TABLE orders (id INTEGER)")
    opened = await connect(empty)
    assert (await standing(opened)).state is State.FOREIGN
    await opened.close()
    with pytest.raises(ConfigError, match="belongs to another program"):
        await Records.open(empty, clock=ManualClock())
    with pytest.raises(ConfigError, match="belongs to another program"):
        await Records.find(empty, clock=ManualClock())
    assert behind(empty, "SELECT count(*) FROM orders") == [(0,)]
