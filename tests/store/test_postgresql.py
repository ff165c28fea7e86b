"""PostgreSQL on its bad days: nobody waits, nobody is told anything wrong, and it is found back."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select, text

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError, StoreAway
from gateway.store import postgresql
from gateway.store.place import Place, server
from gateway.store.postgresql import POOL, PostgreSQL, check_version
from gateway.store.postgresql_frames import Protocol
from gateway.store.sql import Records
from gateway.store.tables import seen
from tests.rig.awake import Awake
from tests.rig.certificates import Authority
from tests.rig.faulty import FAULTS, Fault, Faulty, before
from tests.rig.postgres import PATIENT, Server, started
from tests.rig.saying import saying

TOLD_WITHIN = 0.5
"""Seconds in which we could work: 50 ms, and what a busy machine takes to get round to it."""
BACK_WITHIN = 5.0


@pytest.fixture
def place(postgres: Server) -> Place:
    return postgres.place()


@pytest.fixture
async def records(place: Place, clock: ManualClock) -> AsyncIterator[Records]:
    """With patience: for what is about something else than the deadline."""
    opened = await Records.open(place, clock=clock)
    opened.line.deadline = PATIENT
    yield opened
    await opened.close()


@pytest.fixture
def proxy(postgres: Server) -> Iterator[Faulty]:
    with before(postgres.port) as proxy:
        yield proxy


@pytest.fixture
async def far(postgres: Server, place: Place, proxy: Faulty, clock: ManualClock) -> AsyncIterator[Records]:
    """The database behind a network that can be made to fail."""
    opened = await Records.open(postgres.url(server(place).database, port=proxy.port), clock=clock)
    yield opened
    await opened.close()


def row(subject: str) -> dict[str, object]:
    return {"tenant": "t", "subject": subject, "history": {}, "updated_at": 0.0}


async def add(records: Records, subject: str) -> None:
    async with records.begin("t", subject) as connection:
        await connection.execute(insert(seen).values(row(subject)))


async def everybody(records: Records) -> set[str]:
    async with records.read() as connection:
        return set(await connection.scalars(select(seen.c.subject)))


async def until_away(records: Records) -> None:
    async with asyncio.timeout(BACK_WITHIN):
        while records.line.up:
            try:
                await everybody(records)
            except StoreAway:
                return
            await asyncio.sleep(0.01)


async def until_back(records: Records) -> None:
    async with asyncio.timeout(BACK_WITHIN):
        while not records.line.up:
            await asyncio.sleep(0.01)


async def probed(records: Records, times: int) -> None:
    """Wait until it was asked so many times more whether it is there, and had answered or not."""
    line, left = records.line, times
    probe, enough = line._probe, asyncio.Event()

    async def counted() -> None:
        nonlocal left
        try:
            await probe()
        finally:
            left -= 1
            if not left:
                enough.set()

    line._probe = counted
    await asyncio.wait_for(enough.wait(), BACK_WITHIN)
    line._probe = probe


def opened_by(records: Records) -> set[Any]:
    database = records._database
    assert isinstance(database, PostgreSQL)
    return {connection for connection in database._open if not connection.is_closed()}


@pytest.mark.parametrize("fault", FAULTS)
async def test_each_way_to_fail_is_away_at_once_and_back_soon(
    far: Records, proxy: Faulty, fault: Fault, awake: Awake
) -> None:
    with far.patient():
        await add(far, "before")
    proxy.begin(fault)
    began = awake.now()
    results = await asyncio.gather(*(everybody(far) for _ in range(30)), return_exceptions=True)
    assert awake.now() - began < TOLD_WITHIN
    # What is cut or spoilt is the next answer of each connection; where there is another, it is a right one.
    assert all(one == {"before"} or isinstance(one, StoreAway) for one in results), results
    assert any(isinstance(one, StoreAway) for one in results)
    if fault not in ("cut", "partial"):  # which leave new connections alone: it may be back by now
        await until_away(far)
        began = awake.now()
        with pytest.raises(StoreAway):
            await everybody(far)
        with pytest.raises(StoreAway):
            await add(far, "meanwhile")
        assert awake.now() - began < 0.05
    proxy.end()
    await until_back(far)
    with far.patient():
        await add(far, "after")
        assert await everybody(far) >= {"before", "after"}
    assert len(opened_by(far)) == POOL + 1


@pytest.mark.parametrize("kind", [b"C", b"D"])
async def test_garbage_that_the_driver_would_die_of_is_away_too(far: Records, proxy: Faulty, kind: bytes) -> None:
    far.line.deadline = PATIENT
    await add(far, "before")
    proxy.garbage = lambda size: (kind + b"\xc0\0\0\0").ljust(size, b"x")
    proxy.begin("garbage")
    with pytest.raises(StoreAway, match="no answer of PostgreSQL's"):
        await everybody(far)
    assert not far.line.up
    proxy.end()
    await until_back(far)
    assert await everybody(far) == {"before"}
    assert all(isinstance(connection._protocol, Protocol) for connection in opened_by(far))


async def test_a_transaction_in_the_middle_is_told_too(far: Records, proxy: Faulty, awake: Awake) -> None:
    """It has a second; but who takes longer than 50 ms has the database asked, and the answer counts for all."""

    async def writing() -> None:
        async with far.begin("t", "ann") as connection:
            await connection.execute(insert(seen).values(row("ann")))
            proxy.begin("silent")
            await connection.execute(select(seen.c.subject))

    began = awake.now()
    with pytest.raises(StoreAway):
        await writing()
    assert awake.now() - began < 0.8
    proxy.end()
    await until_back(far)
    with far.patient():
        assert await everybody(far) == set()
        await add(far, "ann")


async def test_a_server_that_crashes_comes_back_with_all_it_has_promised(clock: ManualClock) -> None:
    for alone in started():
        records = await Records.open(alone.url(alone.database()), clock=clock)
        records.line.deadline = PATIENT
        await add(records, "before")
        alone.stop(signal.SIGQUIT)
        with pytest.raises(StoreAway):
            await everybody(records)
        assert not records.line.up
        await asyncio.to_thread(alone.start)
        await until_back(records)
        assert await everybody(records) == {"before"}
        await add(records, "after")
        assert records.line.lost == 1
        await records.close()


async def test_a_server_that_takes_no_changes_is_away_until_it_does(
    postgres: Server, place: Place, clock: ManualClock
) -> None:
    name = server(place).database
    records = await Records.open(postgres.url(name), clock=clock)
    try:
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        postgres.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND usename = 'sallyport'"
        )
        await until_away(records)
        await probed(records, 2)  # each finds a server that answers, and takes nothing
        assert not records.line.up
    finally:
        postgres.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await until_back(records)
    with records.patient():
        await add(records, "after")
    await records.close()


async def test_a_lock_that_another_process_keeps_is_not_a_server_that_is_gone(
    records: Records, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "LONG", 0.2)
    other = await Records.open(records.place, clock=clock)
    other.line.deadline = PATIENT
    async with other.begin("t", "ann") as connection:
        await connection.execute(insert(seen).values(row("ann")))
        with pytest.raises(StoreAway, match="changing the same person"):
            await add(records, "ann")
        await add(records, "bob")
        assert records.line.up
    assert await everybody(records) == {"ann", "bob"}
    await other.close()


async def test_many_at_once_share_few_connections(records: Records) -> None:
    await asyncio.gather(*(add(records, str(number)) for number in range(100)))
    await asyncio.gather(*(everybody(records) for _ in range(100)))
    assert len(opened_by(records)) == POOL + 1
    assert len(await everybody(records)) == 100


async def test_who_gives_up_leaves_nothing_behind(records: Records) -> None:
    """Cancelled at any point, a transaction has happened or it has not, and its lock is free."""
    for turns in range(60):
        task = asyncio.create_task(add(records, "ann"))
        for _ in range(turns % 30):
            await asyncio.sleep(0)
        if turns >= 30:
            await asyncio.sleep(0.0005 * (turns - 30))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if "ann" in await everybody(records):
            break
    async with asyncio.timeout(BACK_WITHIN):
        await add(records, "bob")
        async with records.begin("t", "ann") as connection:
            await connection.execute(select(seen))
    assert len(opened_by(records)) <= POOL + 1


async def test_who_has_a_connection_when_it_is_closed_is_waited_for(records: Records) -> None:
    """What they give back afterwards would be given to a pool that is gone, and stay open."""
    before = opened_by(records)
    has, may_end = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with records.begin("t", "ann") as connection:
            has.set()
            await may_end.wait()
            await connection.execute(insert(seen).values(row("ann")))

    writing = asyncio.create_task(write())
    await has.wait()
    closing = asyncio.create_task(records.close())
    done, _ = await asyncio.wait([closing], timeout=0.05)
    assert not done
    may_end.set()
    await writing
    await closing
    assert before
    assert {connection.is_closed() for connection in before} == {True}
    with pytest.raises(StoreAway):
        await everybody(records)
    assert opened_by(records) == set()


async def test_who_keeps_a_connection_when_it_is_closed_is_hung_up_on(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody looks whether the database is back."""

    async def read_on() -> None:
        async with records.read() as connection:
            await records.close()
            assert opened_by(records) == set()
            await connection.execute(select(seen))

    monkeypatch.setattr(postgresql, "LAST", 0.02)
    with pytest.raises(StoreAway):
        await read_on()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("probe of")] == []
    with pytest.raises(StoreAway):
        await everybody(records)


async def test_who_is_ended_while_connections_are_made_leaves_none_behind(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some are there already, and some are not yet."""
    database = records._database
    assert isinstance(database, PostgreSQL)
    connect_to, asked, there = database._connect_to, [], []

    async def two(host: str, port: int) -> Any:
        asked.append(host)
        if len(asked) > 2:
            await asyncio.Event().wait()
        return await connect_to(host, port)

    monkeypatch.setattr(database, "_connect_to", two)
    await database.engine.dispose()
    event.listen(database.engine.sync_engine, "checkout", lambda *_: there.append(1))
    filling = asyncio.create_task(database._fill(POOL))
    async with asyncio.timeout(BACK_WITHIN):
        while len(there) < 2:
            await asyncio.sleep(0.001)
    filling.cancel()
    await asyncio.wait([filling])
    assert filling.cancelled()
    assert database.engine.pool.status().startswith("Pool size: 5  Connections in pool: 2 Current Overflow: -3")
    assert len(opened_by(records)) == 2


async def test_a_connection_from_before_it_was_away_says_nothing_of_how_it_is_now(records: Records) -> None:
    async def read_on() -> None:
        async with records.read() as connection:
            records.line.failed("another one has ended")
            await until_back(records)
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(StoreAway):
        await read_on()
    assert records.line.up
    assert records.line.lost == 1
    await everybody(records)


def test_a_server_that_is_too_old_is_told() -> None:
    check_version(13, "database x")
    with pytest.raises(ConfigError, match=r"database x: the server is PostgreSQL 12 \(Sallyport needs PostgreSQL 13"):
        check_version(12, "database x")


# --- where there is nothing to be had -------------------------------------------------------------------------------


async def problem(url: str | Place) -> str:
    with pytest.raises(ConfigError) as caught:
        await Records.open(url, clock=ManualClock())
    (one,) = caught.value.problems
    assert one.suggestion
    assert "hunter" not in str(one)
    return one.message


async def test_what_keeps_a_database_from_being_used_is_told(postgres: Server, place: Place, tmp_path: Path) -> None:
    name = server(place).database
    at = f"127.0.0.1:{postgres.port}"
    assert await problem(postgres.url(name, password="hunter3")) == (
        f"database {name} at {at}: user sallyport is not let in"
    )
    assert await problem(postgres.url("nowhere")) == f"database nowhere at {at} does not exist"
    assert "cannot be used" in await problem("postgresql://u:hunter2@127.0.0.1:1/x")
    assert await problem(postgres.url(name) + "?sslmode=verify-full") == f"database {name} at {at} speaks no TLS"
    postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'hunter2/hunter2'")
    empty = postgres.database()
    assert "permission denied for schema public" in await problem(postgres.url(empty, user="guest"))
    assert "permission denied for table meta" in await problem(postgres.url(name, user="guest"))
    postgres.execute("DROP ROLE guest")
    ca = tmp_path / "ca.pem"
    assert "the files of TLS cannot be read" in await problem(Place(postgres.url(name), ca=ca))


async def test_what_answers_and_is_no_postgresql(tmp_path: Path) -> None:
    with saying(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20) as port:
        said = await problem(f"postgresql://u:hunter2@127.0.0.1:{port}/x")
    assert "what it says is no answer of PostgreSQL's" in said


async def test_who_does_not_answer_is_told_soon(proxy: Faulty, postgres: Server, place: Place, awake: Awake) -> None:
    proxy.begin("silent")
    began = awake.now()
    assert "does not answer" in await problem(postgres.url(server(place).database, port=proxy.port))
    assert awake.now() - began < 3
    proxy.end()


async def test_of_two_hosts_the_second_is_found_where_the_first_says_nothing(
    proxy: Faulty, postgres: Server, place: Place, clock: ManualClock, awake: Awake
) -> None:
    """A primary without power does not even refuse; its standby, promoted, is the other host."""
    name = server(place).database
    both = postgres.url(name, port=proxy.port).replace(f"/{name}", f",127.0.0.1:{postgres.port}/{name}")
    proxy.begin("silent")
    began = awake.now()
    records = await Records.open(both, clock=clock)
    assert awake.now() - began < 3, "the first is asked once, not for each connection"
    with records.patient():
        await add(records, "ann")
        assert await everybody(records) == {"ann"}
    await records.close()
    proxy.end()


async def test_tls_is_used_and_always_verifies(tmp_path: Path) -> None:
    ours, others = Authority(tmp_path), Authority(tmp_path, "Somebody")
    for alone in started():
        made = ours.make("db", "localhost")
        for file, name in ((made.certificate, "db.crt"), (made.key, "db.key")):
            shutil.copy(file, alone.data / name)
            shutil.chown(alone.data / name, alone.data.owner())
            (alone.data / name).chmod(0o600)
        alone.configure(ssl="on", ssl_cert_file="db.crt", ssl_key_file="db.key")
        alone.stop()
        await asyncio.to_thread(alone.start)
        by_address = alone.url(alone.database())
        by_name = by_address.replace("127.0.0.1", "localhost")
        records = await Records.open(Place(by_name, ca=ours.path), clock=ManualClock())
        records.line.deadline = PATIENT
        async with records.read() as connection:
            secured = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            assert await connection.scalar(secured) is True
        assert all(isinstance(connection._protocol, Protocol) for connection in opened_by(records))
        await records.close()
        await (await Records.open(Place(f"{by_address}?sslmode=verify-ca", ca=ours.path), clock=ManualClock())).close()
        assert "TLS failed: IP address mismatch" in await problem(Place(by_address, ca=ours.path))
        assert "TLS failed: " in await problem(Place(by_name, ca=others.path))
        for mode in ("require", "verify-full"):
            assert "TLS failed: " in await problem(f"{by_name}?sslmode={mode}")


async def test_a_disk_that_is_full_is_told_and_what_is_there_can_be_read(records: Records) -> None:
    """As the server says it (53100). Nothing is away: reading goes on, and the next change is tried."""
    await add(records, "before")
    full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend: No space left on device' USING ERRCODE = '53100'; END $$"

    async def fill() -> None:
        async with records.begin("t", "ann") as connection:
            await connection.exec_driver_sql(full)

    with pytest.raises(StoreAway, match="No space left"):
        await fill()
    assert records.line.up
    assert "No space left" in records.refuses
    assert await everybody(records) == {"before"}
    await records.try_again()
    assert records.refuses == ""
    await add(records, "after")
