from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError, StoreAway
from gateway.store.place import Place
from gateway.store.sql import Records
from gateway.store.tables import SCHEMA_VERSION, meta, metadata, seen
from tests.rig.postgres import EITHER, place_of

on_both = pytest.mark.parametrize("place", EITHER, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """In a file, unless a test is `on_both`."""
    return place_of(getattr(request, "param", "sqlite"), request, tmp_path)


def row(subject: str) -> dict[str, object]:
    return {"tenant": "t", "subject": subject, "history": {}, "updated_at": 0.0}


async def test_a_new_database_is_private(records: Records) -> None:
    path = records.place.path
    async with records.begin() as connection:
        await connection.execute(insert(seen).values(row("ann")))
    assert path.parent.stat().st_mode & 0o777 == 0o700
    files = list(path.parent.iterdir())
    assert {file.name for file in files} >= {"sallyport.db", "sallyport.db-wal"}
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


async def test_it_writes_as_it_promises(records: Records) -> None:
    async with records.read() as connection:
        asked = ["journal_mode", "synchronous", "foreign_keys", "busy_timeout"]
        found = [await connection.scalar(text(f"PRAGMA {pragma}")) for pragma in asked]
    assert found == ["wal", 2, 1, 0]  # 0: it is a thread that waits, and asks for it


async def test_every_table_but_meta_carries_a_tenant() -> None:
    assert {name for name, table in metadata.tables.items() if "tenant" not in table.c} == {"meta"}


@on_both
async def test_what_was_committed_is_there_after_reopening(records: Records, clock: ManualClock) -> None:
    async with records.begin() as connection:
        await connection.execute(insert(seen).values(row("ann")))
    await records.close()
    again = await Records.open(records.place, clock=clock)
    async with again.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(seen)) == 1
    await again.close()


@on_both
async def test_what_is_raised_rolls_back(records: Records) -> None:
    async def change_our_mind() -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row("ann")))
            await records.bump(connection)
            raise LookupError

    with pytest.raises(LookupError):
        await change_our_mind()
    async with records.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(seen)) == 0
    assert await records.revision() == records.own_revisions == 0


@on_both
async def test_a_broken_promise_of_the_schema_is_an_answer(records: Records) -> None:
    async with records.begin() as connection:
        await connection.execute(insert(seen).values(row("ann")))
    with pytest.raises(IntegrityError):
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row("ann")))


async def test_writers_take_turns_and_lose_nothing(records: Records, clock: ManualClock) -> None:
    """Reading and then writing what was read is safe in a transaction, from two connections at once."""
    other = await Records.open(records.place, clock=clock)

    async def count(which: Records) -> None:
        async with which.begin() as connection:
            number = await connection.scalar(select(meta.c.number).where(meta.c.name == "revision"))
            await asyncio.sleep(0)
            await connection.execute(meta.update().where(meta.c.name == "revision").values(number=number + 1))

    await asyncio.gather(*(count(which) for which in (records, other) * 15))
    assert await records.revision() == 30
    await other.close()


@on_both
async def test_readers_do_not_wait_for_a_writer(records: Records) -> None:
    async with records.begin() as connection:
        await connection.execute(insert(seen).values(row("ann")))
        assert await asyncio.wait_for(records.revision(), 2) == 0


@on_both
async def test_a_bump_is_heard_here_and_seen_elsewhere(records: Records, clock: ManualClock) -> None:
    other = await Records.open(records.place, clock=clock)
    heard: list[tuple[str, str]] = []
    records.listen(lambda tenant, subject: heard.append((tenant, subject)))
    async with records.begin() as connection:
        await records.bump(connection, "t", "ann")
        await records.bump(connection)
        assert heard == []
    assert heard == [("t", "ann"), ("", "")]
    assert (await records.revision(), records.own_revisions) == (2, 2)
    assert (await other.revision(), other.own_revisions) == (2, 0)
    await other.close()


async def test_a_change_elsewhere_under_a_number_that_was_to_be_ours_is_seen(
    records: Records, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit of ours is lost, somebody else gets its number, and we look before we know that it was lost."""
    other = await Records.open(records.place, clock=clock)
    before = await records.foreign()
    write = records._database.write

    @asynccontextmanager
    async def lost(*whom: str) -> AsyncIterator[AsyncConnection]:
        async with write(*whom) as connection:
            yield connection
            await connection.rollback()
        async with other.begin() as theirs:
            await other.bump(theirs, "default", "s-1")
        await records.foreign()
        raise StoreAway("nobody knows whether it was committed")

    monkeypatch.setattr(records._database, "write", lost)
    with pytest.raises(StoreAway):
        async with records.begin() as connection:
            await records.bump(connection, "default", "s-2")
    monkeypatch.undo()
    assert await records.foreign() != before
    await other.close()


@on_both
async def test_cancelling_a_writer_leaves_the_database_usable(records: Records) -> None:
    for turns in range(40):

        async def write(number: int = turns) -> None:
            async with records.begin() as connection:
                await connection.execute(insert(seen).values(row(str(number))))

        task = asyncio.create_task(write())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with records.begin() as connection:
        await connection.execute(insert(seen).values(row("after")))


@on_both
async def test_only_what_others_changed_is_foreign(records: Records, clock: ManualClock) -> None:
    """Also while ours is on its way: a revision is known as ours before anybody can see it."""
    other = await Records.open(records.place, clock=clock)
    assert [await records.foreign(), await other.foreign()] == [0, 0]

    async def change(which: Records, subject: str) -> None:
        async with which.begin("t", subject) as connection:
            await which.bump(connection, "t", subject)
            await which.bump(connection, "t", subject)

    changing = asyncio.gather(*(change(records, str(number)) for number in range(20)))
    while not changing.done():
        assert await records.foreign() == 0
        await asyncio.sleep(0)
    await changing
    assert [await records.foreign(), await other.foreign(), await other.foreign()] == [0, 40, 40]

    async def change_our_mind() -> None:
        async with records.begin("t", "ann") as connection:
            await records.bump(connection, "t", "ann")
            raise LookupError

    with pytest.raises(LookupError):
        await change_our_mind()
    await change(other, "ann")
    assert [await records.foreign(), await other.foreign()] == [2, 40]
    await other.close()


@on_both
async def test_reading_and_then_writing_about_one_person_is_safe(records: Records, clock: ManualClock) -> None:
    """From two processes at once, the first row included, which there is nothing to lock of yet."""
    other = await Records.open(records.place, clock=clock)

    async def count(which: Records, subject: str) -> None:
        mine = (seen.c.tenant == "t", seen.c.subject == subject)
        async with which.begin("t", subject) as connection:
            history = await connection.scalar(select(seen.c.history).where(*mine))
            await asyncio.sleep(0)
            if history is None:
                await connection.execute(insert(seen).values({**row(subject), "history": {"count": 1}}))
            else:
                await connection.execute(seen.update().where(*mine).values(history={"count": history["count"] + 1}))

    await asyncio.gather(*(count(which, who) for which in (records, other) * 12 for who in ("ann", "bob")))
    async with records.read() as connection:
        counted = (await connection.execute(select(seen.c.subject, seen.c.history).order_by(seen.c.subject))).all()
    assert [tuple(one) for one in counted] == [("ann", {"count": 24}), ("bob", {"count": 24})]
    await other.close()


@on_both
async def test_what_no_database_can_hold_is_replaced_and_found_nowhere(records: Records) -> None:
    async with records.begin("t", "a\0b\ud800") as connection:
        await connection.execute(insert(seen).values(row("a\0b\ud800")))
        await connection.execute(insert(seen).values({**row("größe ✓"), "history": {"a": "\0", "b": 2**53, "c": 1.5}}))
    async with records.read() as connection:
        found = (await connection.execute(select(seen.c.subject, seen.c.history).order_by(seen.c.subject))).all()
        assert [tuple(one) for one in found] == [
            ("a\ufffdb\ufffd", {}),
            ("größe ✓", {"a": "\0", "b": 2**53, "c": 1.5}),
        ]
        assert await connection.scalar(select(func.count()).where(seen.c.subject == "größe ✓\0")) == 0


# --- what goes wrong ----------------------------------------------------------------------------------------------


async def problem(url: str) -> str:
    with pytest.raises(ConfigError) as caught:
        await Records.open(url, clock=ManualClock())
    assert caught.value.problems[0].suggestion
    return caught.value.problems[0].message


@pytest.mark.parametrize("url", ["", "sqlite:", "mysql://x", "data/sallyport.db", "sqlite"])
async def test_an_unknown_url_is_told(url: str) -> None:
    assert "is not a database I know" in await problem(url)


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("shopping: milk, bread, a very long list of things to buy\n" * 100)
    assert await problem(f"sqlite:{path}") == f"{path} is not a database"


async def test_a_database_from_a_newer_version(records: Records) -> None:
    async with records.begin() as connection:
        newer = meta.update().where(meta.c.name.in_(("schema", "compatible")))
        await connection.execute(newer.values(number=SCHEMA_VERSION + 1))
    await records.close()
    before = records.place.path.read_bytes()
    assert "was made by a newer version of Sallyport" in await problem(f"sqlite:{records.place.path}")
    assert records.place.path.read_bytes() == before


async def test_a_place_where_nothing_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be opened" in await problem(f"sqlite:{tmp_path}/file/sallyport.db")
    assert "cannot be opened" in await problem(f"sqlite:{tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be opened" in await problem(f"sqlite:{tmp_path}/sallyport.db")


async def test_a_database_another_process_keeps_locked_is_away(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.sqlite_connection.BUSY_TIMEOUT", 0.05)
    hasty = await Records.open(f"sqlite:{records.place.path}", clock=ManualClock())
    locking = sqlite3.connect(records.place.path, isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreAway, match="locked"):
        async with hasty.begin() as connection:
            await connection.execute(insert(seen).values(row("ann")))
    assert await hasty.revision() == 0
    locking.execute("ROLLBACK")
    locking.close()
    async with hasty.begin() as connection:
        await connection.execute(insert(seen).values(row("ann")))
    await hasty.close()


async def test_a_locked_database_is_told_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.store.sqlite_connection.BUSY_TIMEOUT", 0.05)
    path = tmp_path / "sallyport.db"
    locking = sqlite3.connect(path, isolation_level=None)
    locking.execute("PRAGMA journal_mode=WAL")
    locking.execute("BEGIN IMMEDIATE")
    assert "is locked by another program" in await problem(f"sqlite:{path}")
    locking.close()


async def test_a_full_disk_is_away_and_loses_nothing(records: Records) -> None:
    async with records.begin() as connection:
        await connection.execute(insert(seen).values(row("ann")))
        pages = await connection.scalar(text("PRAGMA page_count"))
    large = [{**row(str(number)), "history": {"x": "y" * 4000}} for number in range(1000)]

    async def fill() -> None:
        async with records.begin() as connection:
            await connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
            await connection.execute(insert(seen), large)

    with pytest.raises(StoreAway, match="full"):
        await fill()
    async with records.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(seen)) == 1


async def test_a_file_that_became_unreadable_is_away_until_it_can_be_read(records: Records) -> None:
    path = records.place.path
    async with records.begin() as connection:
        await connection.execute(insert(seen).values(row("ann")))
    async with records.read() as connection:
        await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    good = path.read_bytes()
    path.write_bytes(b"\xff" * len(good))

    async def look() -> int | None:
        async with records.read() as connection:
            return await connection.scalar(select(func.count()).select_from(seen))

    async with asyncio.timeout(5):
        while records.line.up:  # what is in a cache may be read once more
            await records._database.engine.dispose()
            with suppress(StoreAway):
                await look()
    with pytest.raises(StoreAway):
        await look()
    path.write_bytes(good)
    async with asyncio.timeout(5):
        while not records.line.up:
            await asyncio.sleep(0.01)
    assert await look() == 1


async def test_a_database_that_became_read_only_is_away(records: Records) -> None:
    async with records.begin() as connection:
        await connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(StoreAway, match="readonly"):
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row("ann")))
    assert records.line.up, "it can be read on"
    assert "readonly" in records.refuses


async def test_a_process_that_is_killed_leaves_what_it_committed(tmp_path: Path, clock: ManualClock) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio, os
        from sqlalchemy import insert
        from gateway.core.clock import SystemClock
        from gateway.store.sql import Records
        from gateway.store.tables import seen

        async def main():
            records = await Records.open("sqlite:{tmp_path}/sallyport.db", clock=SystemClock())
            for name in ("one", "two"):
                async with records.begin() as connection:
                    row = dict(tenant="t", subject=name, history={{}}, updated_at=0.0)
                    await connection.execute(insert(seen).values(row))
                    if name == "two":
                        os.kill(os.getpid(), 9)
        asyncio.run(main())
        """
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=Path(__file__).parents[2])
    assert await process.wait() == -9
    records = await Records.open(f"sqlite:{tmp_path}/sallyport.db", clock=clock)
    async with records.read() as connection:
        assert (await connection.execute(select(seen.c.subject))).scalars().all() == ["one"]
    await records.close()


def test_two_processes_may_make_the_database_at_the_same_time(tmp_path: Path) -> None:
    program = (
        "import asyncio\nfrom gateway.core.clock import SystemClock\nfrom gateway.store.sql import Records\n"
        "async def main():\n"
        f"    records = await Records.open('sqlite:{tmp_path}/new/sallyport.db', clock=SystemClock())\n"
        "    print(await records.revision())\n"
        "    await records.close()\n"
        "asyncio.run(main())\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for process in started:
        said, complained = process.communicate(timeout=60)
        assert (said, complained) == (b"0\n", b"")
