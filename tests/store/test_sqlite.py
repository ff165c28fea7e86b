"""What is SQLite's own: who waits for whom, and where."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.store import sqlite_connection, sqlite_pool
from gateway.store.sql import Records
from gateway.store.sqlite import Sqlite
from gateway.store.sqlite_connection import Connection
from gateway.store.tables import seen

HEAVY = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 400000) SELECT whose(), max(x) FROM n"


def row(subject: str) -> dict[str, object]:
    return {"tenant": "t", "subject": subject, "history": {}, "updated_at": 0.0}


async def written(records: Records) -> set[str]:
    async with records.read() as connection:
        return set((await connection.scalars(select(seen.c.subject))).all())


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Every one of them, from here on."""
    found: list[Connection] = []
    commit = Connection.commit

    async def counted(connection: Connection) -> None:
        found.append(connection)
        await commit(connection)

    monkeypatch.setattr(Connection, "commit", counted)
    return found


async def test_those_who_wait_go_to_the_disk_together(records: Records, commits: list[Connection]) -> None:
    async def write(number: int) -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row(str(number))))

    await asyncio.gather(*(write(number) for number in range(50)))
    assert len(await written(records)) == 50
    assert len(commits) == 1
    await write(50)
    assert len(commits) == 2


async def test_a_folder_that_another_process_makes_meanwhile_is_no_hindrance(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists

    def looked_too_early(path: Path) -> bool:
        there = exists(path)
        if path.name == "data" and not there:
            path.mkdir(mode=0o700)
        return there

    monkeypatch.setattr(Path, "exists", looked_too_early)
    await (await Records.open(f"sqlite:{tmp_path}/data/sallyport.db", clock=clock)).close()


async def test_nobody_is_told_before_it_is_on_the_disk(records: Records) -> None:
    went_on = asyncio.Event()

    async def write(name: str, until: asyncio.Event | None = None) -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row(name)))
            if until is not None:
                await until.wait()

    first = asyncio.create_task(write("first"))
    second = asyncio.create_task(write("second", went_on))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not first.done()
    assert await written(records) == set()
    went_on.set()
    await asyncio.gather(first, second)
    assert await written(records) == {"first", "second"}


async def test_a_part_that_fails_takes_back_its_own(records: Records, commits: list[Connection]) -> None:
    async def write(name: str) -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row(name)))
            if name.startswith("bad"):
                raise LookupError(name)

    for names in (["bad", "a", "b"], ["c", "bad", "d", "bad again", "e"]):
        ended = await asyncio.gather(*map(write, names), return_exceptions=True)
        assert [isinstance(one, LookupError) for one in ended] == [name.startswith("bad") for name in names]
    assert await written(records) == {"a", "b", "c", "d", "e"}
    assert len(commits) == 2


async def test_where_the_whole_is_given_up_nobody_is_told_that_theirs_is_done(records: Records) -> None:
    """As SQLite may do by itself where the disk is full. Who came later begins anew, and waits for nobody."""

    async def write(name: str, *, give_up: bool = False) -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row(name)))
            if give_up:
                await connection.exec_driver_sql("ROLLBACK")

    async with asyncio.timeout(20):
        ended = await asyncio.gather(
            write("a"), write("b", give_up=True), write("c"), write("d"), return_exceptions=True
        )
        assert [type(one) for one in ended] == [StoreAway, StoreAway, type(None), type(None)]
        assert await written(records) == {"c", "d"}
        await write("e")
    assert await written(records) == {"c", "d", "e"}


async def test_who_wants_to_be_alone_waits_for_those_who_write_together(records: Records) -> None:
    database = records._database

    async def write(name: str) -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row(name)))

    async def alone() -> set[str]:
        async with database.alone() as connection:
            return set((await connection.scalars(select(seen.c.subject))).all())

    async with asyncio.timeout(5):
        for turn in range(3):
            _, _, found, _ = await asyncio.gather(*map(write, (f"a{turn}", f"b{turn}")), alone(), write(f"c{turn}"))
            assert found >= {f"a{turn}", f"b{turn}"}
    assert len(await written(records)) == 9


async def test_what_was_written_is_on_the_disk_before_it_is_closed(records: Records) -> None:
    async def write(name: str) -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row(name)))

    async with asyncio.timeout(5):
        await asyncio.gather(write("ann"), write("bob"), records.close())
    with closing(sqlite3.connect(records.place.path)) as file:
        assert sorted(file.execute("SELECT subject FROM seen")) == [("ann",), ("bob",)]


async def test_who_still_reads_when_it_is_closed_is_waited_for(records: Records) -> None:
    """Else the log of what was written stays beside the file."""
    reads, may_end = asyncio.Event(), asyncio.Event()

    async def read() -> int | None:
        async with records.read() as connection:
            reads.set()
            await may_end.wait()
            return await connection.scalar(select(func.count()).select_from(seen))

    reading = asyncio.create_task(read())
    await reads.wait()
    assert beside(records) == {"-shm", "-wal"}
    closing_it = asyncio.create_task(records.close())
    done, _ = await asyncio.wait([closing_it], timeout=0.05)
    assert not done
    may_end.set()
    assert await reading == 0
    await closing_it
    assert beside(records) == set()


async def test_who_reads_on_and_on_is_not_waited_for_without_end(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_pool, "FAREWELL", 0.01)
    async with asyncio.timeout(5), records.read() as connection:
        await records.close()
        assert await connection.scalar(select(func.count()).select_from(seen)) == 0


async def test_who_needs_a_thread_when_there_are_none_any_more_is_told(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read_on() -> None:
        async with records.read(long=True) as connection:
            await records.close()
            await connection.scalar(select(func.count()).select_from(seen))

    monkeypatch.setattr(sqlite_pool, "FAREWELL", 0.01)
    with pytest.raises(StoreAway, match="it was closed"):
        await read_on()


async def test_a_close_that_is_given_up_keeps_nobody_waiting(records: Records) -> None:
    database = records._database
    assert isinstance(database, Sqlite)
    async with asyncio.timeout(5), records.read():
        closing_it = asyncio.create_task(database._reading.close())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        late = asyncio.create_task(written(records))
        await asyncio.sleep(0)
        closing_it.cancel()
        await asyncio.wait([closing_it])
        with pytest.raises(StoreAway, match="it was closed"):
            await late


def beside(records: Records) -> set[str]:
    """What SQLite has put beside the file."""
    path = records.place.path
    return {file.name.removeprefix(path.name) for file in path.parent.glob(f"{path.name}-*")}


async def test_who_is_cancelled_leaves_when_it_is_decided(records: Records, commits: list[Connection]) -> None:
    async def write() -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row("ann")))

    task = asyncio.create_task(write())
    while not commits:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await written(records) == {"ann"}


async def test_everybody_else_goes_on_while_another_process_writes(records: Records) -> None:
    locking = sqlite3.connect(records.place.path, isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")

    async def write() -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row("ann")))

    waiting = asyncio.create_task(write())
    for _ in range(50):
        assert await written(records) == set()
        await asyncio.sleep(0)
    assert not waiting.done()
    locking.execute("COMMIT")
    locking.close()
    await waiting
    assert await written(records) == {"ann"}


async def test_a_reader_that_gives_up_leaves_its_connection_usable(records: Records) -> None:
    async def give_up() -> None:
        async with records.read() as connection:
            await connection.execute(select(func.count()).select_from(seen))
            raise LookupError

    for _ in range(10):  # more than there are connections
        with pytest.raises(LookupError):
            await give_up()
    assert await written(records) == set()


async def test_who_is_cancelled_while_a_thread_reads_for_them_is_cancelled(records: Records) -> None:
    """And not told of something else instead, which they might survive."""
    long = text("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300000) SELECT max(x) FROM n")

    async def read() -> None:
        async with records.read(long=True) as connection:
            await connection.scalar(long)

    for turns in range(6):
        reading = asyncio.create_task(read())
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert await written(records) == set()


async def test_who_is_cancelled_while_a_thread_writes_for_them_is_cancelled(records: Records) -> None:
    """It takes the connection with it, and whoever else had written through it hears that it was lost."""
    many = [row(f"many {number}") for number in range(2000)]
    went_on = asyncio.Event()

    async def write(rows: list[dict[str, object]]) -> None:
        async with records.begin() as connection:
            went_on.set()
            await connection.execute(insert(seen), rows)

    first = asyncio.create_task(write([row("first")]))
    second = asyncio.create_task(write(many))
    while not went_on.is_set():
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)
    second.cancel()
    ended = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(ended[1], asyncio.CancelledError)
    assert ended[0] is None or isinstance(ended[0], StoreAway)
    found = await written(records)
    assert ("first" in found) == (ended[0] is None)
    assert len(found - {"first"}) in (0, len(many))  # it may have been too late
    await write([row("later")])
    assert "later" in await written(records)


async def test_a_part_whose_undoing_is_cancelled_is_not_kept_with_others(records: Records) -> None:
    database = records._database
    assert isinstance(database, Sqlite)
    database._long.add("ROLLBACK TO part")  # it took a thread's time once
    went_on = asyncio.Event()

    async def write(name: str, *, then: asyncio.Event | None = None) -> None:
        async with records.begin() as connection:
            await connection.execute(insert(seen).values(row(name)))
            if then is not None:
                then.set()
                await asyncio.Event().wait()

    first, half = asyncio.create_task(write("first")), asyncio.create_task(write("half", then=went_on))
    await went_on.wait()
    with busy(database._threads):
        for _ in range(2):
            half.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
    ended = await asyncio.gather(first, half, return_exceptions=True)
    assert isinstance(ended[1], asyncio.CancelledError)
    assert await written(records) == ({"first"} if ended[0] is None else set())
    await write("later")
    assert "later" in await written(records)


async def test_a_connection_that_a_thread_is_at_keeps_its_place(records: Records) -> None:
    """Also where who had it has gone, and does not wait until it is back."""
    database = records._database
    assert isinstance(database, Sqlite)
    pool, begun, go_on = database._writing, threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)

    async def borrow() -> None:
        async with pool.lend() as (_, driver):
            await driver.run("", work, apart=True)

    borrowing = asyncio.create_task(borrow())
    while not begun.is_set():
        await asyncio.sleep(0.001)
    for _ in range(2):
        borrowing.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
    assert borrowing.cancelled()
    waiting = asyncio.create_task(pool._room.acquire())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    await waiting
    assert len(pool._idle) == 1
    pool._room.release()


async def test_who_still_reads_when_it_is_closed_ends_in_peace(records: Records) -> None:
    async with records.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(seen)) == 0
        await records.close()
        assert await connection.scalar(select(func.count()).select_from(seen)) == 0


async def test_who_comes_too_late_opens_nothing(records: Records) -> None:
    await written(records)
    await records.close()
    with pytest.raises(StoreAway, match="closed"):
        await written(records)
    with pytest.raises(StoreAway, match="closed"):
        async with records.begin():
            raise AssertionError
    assert beside(records) == set()


# --- one connection -----------------------------------------------------------------------------------------------


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[Connection]:
    with ThreadPoolExecutor(1) as threads:
        made = Connection(str(tmp_path / "a.db"), threads, set())
        await made.create_function("whose", 0, threading.get_ident)
        yield made
        await made.close()


async def rows(connection: Connection, statement: str) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    await cursor.execute(statement)
    found = await cursor.fetchall()
    await cursor.close()
    return found


async def asked(connection: Connection, statement: str) -> int:
    """Which thread has run it."""
    ((thread, *_),) = await rows(connection, statement)
    assert isinstance(thread, int)
    return thread


async def test_a_lookup_runs_where_it_is_asked(connection: Connection) -> None:
    assert [await asked(connection, "SELECT whose()") for _ in range(3)] == [threading.get_ident()] * 3


async def test_those_that_are_closed_at_the_same_moment_leave_no_log(tmp_path: Path) -> None:
    """Each would believe that another is there still, in one of twenty rounds."""
    left: list[Path] = []
    with ThreadPoolExecutor(5) as threads:
        for turn in range(100):
            path = tmp_path / f"{turn}.db"
            several = [Connection(str(path), threads, set()) for _ in range(5)]
            await several[0].execute("PRAGMA journal_mode=WAL")
            await several[0].execute("CREATE TABLE t (x)")
            for one in several:
                assert await rows(one, "SELECT count(*) FROM t") == [(0,)]
            await asyncio.gather(*(one.close() for one in several))
            left += tmp_path.glob(f"{path.name}-*")
    assert left == []


async def test_a_question_that_a_cancelled_caller_left_open_is_closed_with_the_connection(
    connection: Connection, tmp_path: Path
) -> None:
    """Whoever still has it in hand (a coroutine in a circle of references) would keep the file open, and its log."""
    await connection.execute("PRAGMA journal_mode=WAL")
    await connection.execute("CREATE TABLE t (x)")
    await connection.execute("INSERT INTO t VALUES (1), (2)")
    cursor = connection.cursor()
    await cursor.execute("SELECT x FROM t")
    await connection.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
    assert cursor.description is not None  # we have it still


async def test_what_has_taken_long_once_is_a_threads_ever_after(connection: Connection) -> None:
    here = threading.get_ident()
    assert await asked(connection, HEAVY) == here
    assert await asked(connection, HEAVY) != here
    assert await asked(connection, "SELECT whose()") == here


async def test_a_question_about_everybody_is_a_threads(connection: Connection) -> None:
    connection.apart = True
    assert await asked(connection, "SELECT whose()") != threading.get_ident()
    connection.apart = False
    assert await asked(connection, "SELECT whose()") == threading.get_ident()


async def test_many_rows_are_written_by_a_thread(connection: Connection) -> None:
    await connection.execute("CREATE TABLE t (x)")
    where = {}
    for count in (sqlite_connection.MANY, sqlite_connection.MANY + 1):
        await connection.execute("DELETE FROM t")
        await connection.cursor().executemany("INSERT INTO t VALUES (whose() + 0 * ?)", [(0,)] * count)
        where[count] = {one for (one,) in connection.open.execute("SELECT x FROM t")}
    few, many = where.values()
    assert few == {threading.get_ident()}
    assert len(many) == 1
    assert few != many


async def test_what_a_cancelled_caller_left_to_a_thread_is_waited_for(connection: Connection) -> None:
    begun, go_on, order = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        go_on.wait(10)
        order.append("first")

    first = asyncio.create_task(connection.run("", work, apart=True))
    while not begun.is_set():
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(connection.run("", lambda: order.append("second")))
    for _ in range(20):
        await asyncio.sleep(0)
    assert order == []
    go_on.set()
    await second
    assert order == ["first", "second"]


async def until_gone(path: Path) -> bool:
    """Whether it is, soon."""
    due = asyncio.get_running_loop().time() + 10.0
    while path.exists() and asyncio.get_running_loop().time() < due:
        await asyncio.sleep(0.001)
    return not path.exists()


@contextmanager
def busy(threads: ThreadPoolExecutor) -> Iterator[None]:
    """None of them does anything else."""
    go_on = threading.Event()
    for _ in range(threads._max_workers):
        threads.submit(go_on.wait, 10)
    try:
        yield
    finally:
        go_on.set()


async def left(connection: Connection, work: Callable[[], object]) -> threading.Event:
    """Have a thread do `work` that nobody waits for any more, once the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        go_on.wait(10)
        work()

    asking = asyncio.create_task(connection.run("", long, apart=True))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    asking.cancel()
    await asyncio.wait([asking])
    return go_on


async def test_what_fails_when_nobody_waits_for_it_any_more_is_no_complaint(connection: Connection) -> None:
    """Who asked has gone, and so has who waited to ask the next thing."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        raise sqlite3.OperationalError("disk I/O error")

    first = asyncio.create_task(connection.run("", work, apart=True))
    while not begun.is_set():
        await asyncio.sleep(0)
    second = asyncio.create_task(connection.run("", lambda: None))
    await asyncio.sleep(0)
    for task in (first, second):
        task.cancel()
        await asyncio.wait([task])
    go_on.set()
    await connection.run("", lambda: None)
    del first, second, task
    await asyncio.sleep(0)
    gc.collect()
    assert complaints == []


async def test_a_connection_is_not_taken_away_from_under_a_thread(connection: Connection, tmp_path: Path) -> None:
    """Who is cancelled a second time waits for no thread; closing what it works with would end the whole process."""
    await connection.execute("PRAGMA journal_mode=WAL")
    await connection.execute("CREATE TABLE t (x)")
    raw, found = connection.open, list[object]()
    go_on = await left(connection, lambda: found.extend(raw.execute("SELECT count(*) FROM t")))
    closing = asyncio.create_task(connection.close())  # waits for the thread
    await asyncio.sleep(0)
    connection.stop()
    assert not connection.is_open
    go_on.set()
    await closing
    assert found == [(0,)]
    assert await until_gone(tmp_path / "a.db-wal")


async def test_a_connection_whose_closing_is_cancelled_is_closed(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        connection = Connection(str(tmp_path / "a.db"), threads, set())
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("CREATE TABLE t (x)")
        with busy(threads):
            closing = asyncio.create_task(connection.close())
            await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
        assert closing.cancelled()
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]


async def test_a_cursor_that_a_thread_is_at_is_closed_with_the_connection(
    connection: Connection, tmp_path: Path
) -> None:
    await connection.execute("PRAGMA journal_mode=WAL")
    await connection.execute("CREATE TABLE t (x)")
    await connection.execute("INSERT INTO t VALUES (1), (2)")
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(10)

    await connection.create_function("slow", 0, slow)
    connection.apart = True
    cursor = connection.cursor()
    asking = asyncio.create_task(cursor.execute("SELECT slow(), x FROM t"))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    asking.cancel()
    await asyncio.wait([asking])
    with pytest.raises(sqlite3.ProgrammingError):
        await cursor.close()
    go_on.set()
    await connection.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"]
    assert cursor.description is not None  # we have it still


async def test_a_closed_connection_says_so(connection: Connection) -> None:
    await connection.close()
    await connection.close()
    connection.stop()
    with pytest.raises(ValueError, match="closed"):
        connection.cursor()
