"""`sallyport db` on SQLite; on PostgreSQL, and as processes: tests/store/test_migrations.py."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store.tables import SCHEMA_VERSION
from tests.commands.conftest import Run


def database(folder: Path) -> Path:
    return folder / "data" / "sallyport.db"


@pytest.fixture
def used(sallyport: Run, folder: Path) -> Path:
    assert sallyport("user", "add", "ann", "--generate").code == 0
    return folder


def test_status_of_nothing_makes_nothing(sallyport: Run, folder: Path) -> None:
    code, out, _ = sallyport("db", "status")
    assert (code, "is empty: it is made at the first start" in out) == (0, True)
    assert json.loads(sallyport("db", "status", "--json").out) == {
        "database": "data/sallyport.db", "state": "empty", "schema": None, "compatible": None,
        "needed": SCHEMA_VERSION,
    }  # fmt: skip
    assert not database(folder).exists()


def test_upgrade_makes_an_empty_database(sallyport: Run, folder: Path) -> None:
    assert f"was empty and has schema {SCHEMA_VERSION} now" in sallyport("db", "upgrade").out
    assert "nothing to do" in sallyport("db", "upgrade").out
    assert sallyport("user", "list").code == 0


@pytest.mark.usefixtures("used")
def test_status_tells_what_is_there(sallyport: Run) -> None:
    assert sallyport("db", "status") == (0, f"database data/sallyport.db has schema {SCHEMA_VERSION}: good\n", "")
    assert json.loads(sallyport("db", "status", "--json").out)["state"] == "good"


def test_a_database_that_is_behind_is_told_upgraded_and_good(sallyport: Run, folder: Path) -> None:
    database(folder).parent.mkdir()
    with closing(sqlite3.connect(database(folder))) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript((Path(__file__).parents[1] / "store" / "schema_1.sql").read_text())
    before = database(folder).read_bytes()
    code, out, _ = sallyport("db", "status")
    assert (code, f"has schema 1, this version needs {SCHEMA_VERSION}: run `sallyport db upgrade`" in out) == (1, True)
    code, out, _ = sallyport("db", "status", "--json")
    assert (code, json.loads(out)["state"], json.loads(out)["schema"]) == (1, "behind", 1)
    assert database(folder).read_bytes() == before
    code, out, _ = sallyport("db", "upgrade")
    assert code == 0
    assert "  schema 2: Generations of a user's sessions" in out
    assert f"had schema 1 and has {SCHEMA_VERSION} now" in out
    assert sallyport("db", "status").code == 0
    assert sallyport("user", "list").out.count("\n") == 3


def test_without_records_there_is_nothing_to_look_at(sallyport: Run, folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "upstreams: {app: {url: http://127.0.0.1:9000}}\nstore: {records: none, shared: none}\n"
    )
    for command in (("db", "status"), ("db", "upgrade"), ("db", "backup", "x")):
        code, _, err = sallyport(*command)
        assert (code, "`store.records` is none" in err) == (2, True)


def test_a_copy_is_whole_private_and_opens(sallyport: Run, used: Path) -> None:
    copy = used / "copy.db"
    with closing(sqlite3.connect(database(used), isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM users")  # somebody is in the middle of something
        code, out, _ = sallyport("db", "backup", str(copy))
        assert (code, f"copied data/sallyport.db to {copy}" in out, "key folder belongs to it" in out) == (
            0,
            True,
            True,
        )
        writer.execute("ROLLBACK")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in used.iterdir() if "copy" in file.name] == ["copy.db"]
    (used / "config.yaml").write_text(
        f"upstreams: {{app: {{url: http://127.0.0.1:9000}}}}\nstore: {{records: 'sqlite:{copy}'}}\n"
    )
    assert "ann" in sallyport("user", "list").out


def test_a_copy_replaces_nothing_and_needs_something_to_copy(sallyport: Run, used: Path) -> None:
    (used / "there").write_text("mine")
    code, _, err = sallyport("db", "backup", "there")
    assert (code, "there exists (name a file that does not)" in err) == (2, True)
    assert (used / "there").read_text() == "mine"
    code, _, err = sallyport("db", "backup", "no/such/folder/copy.db")
    assert (code, "cannot be copied to" in err) == (2, True)
    database(used).rename(used / "elsewhere.db")
    code, _, err = sallyport("db", "backup", "copy.db")
    assert (code, "does not exist" in err) == (2, True)
    assert not (used / "copy.db").exists()


def test_a_damaged_database_gives_no_copy(sallyport: Run, used: Path) -> None:
    database(used).write_bytes(b"SQLite format 3\0" + b"\xff" * 20_000)
    code, _, err = sallyport("db", "backup", "copy.db")
    assert (code, err.count("\n"), "cannot be copied" in err) == (2, 1, True)
    assert not [file.name for file in used.iterdir() if "copy" in file.name]
