"""SQLite, the embedded default: one file, beside the processes that use it.

- One writer at a time: `write` waits for its turn inside this process and opens with `BEGIN IMMEDIATE`, so what is read
  in a transaction cannot have changed when it is written, and no transaction dies half way because another was faster.
  Those who wait go to the disk together (`store.sqlite_group`).
- `read` never waits for a writer (write-ahead log); each statement sees what was committed when it began.
- `synchronous=FULL`: what was committed is still there after a power cut; an ended session stays ended.
- Its line opens where the file itself has become unreadable, and for nothing else: a file that is locked, full or
  read-only says so at once, and can be read on; a busy machine is no reason to believe that it is gone.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, event, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.core.errors import ConfigError, StoreAway
from gateway.store.database import cause, from_json, to_json
from gateway.store.line import Line
from gateway.store.place import Place
from gateway.store.sqlite_connection import Connection
from gateway.store.sqlite_group import Group
from gateway.store.sqlite_pool import Pool
from gateway.store.tables import metadata

POOL = 4
"""Connections to read with; one more writes. Each has a thread for what has to wait."""
PROBE_PATIENCE = 5.0

_UNREADABLE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_UNWRITABLE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY})
_NOT_WRITTEN = frozenset(
    {
        sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_DELETE, sqlite3.SQLITE_IOERR_SHMSIZE,
    }
)  # fmt: skip
"""Extended codes of a disk that has become read-only, or fails: what was there before can be read all the same."""


class Sqlite:
    """A `Database` in a file. Made by `open_file`."""

    errors = (SQLAlchemyError, sqlite3.Error)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"database {path}"
        self.refuses = ""
        self._threads = ThreadPoolExecutor(POOL + 1, "sqlite")
        self._long: set[str] = set()
        self._turn = asyncio.Lock()
        self._group: Group | None = None
        self.engine: AsyncEngine = create_async_engine(
            f"sqlite+aiosqlite:///{path}",
            async_creator=self._connect,
            json_serializer=to_json,
            json_deserializer=from_json,
            hide_parameters=True,
            poolclass=NullPool,
        )
        event.listen(self.engine.sync_engine, "connect", _prepare)
        self._reading = Pool(self.engine, POOL)
        self._writing = Pool(self.engine, 1)
        self.line = Line("records", self._probe, patience=PROBE_PATIENCE)

    @asynccontextmanager
    async def write(self, tenant: str, subject: str) -> AsyncIterator[AsyncConnection]:
        """One writer at a time, whomever it is about; those who stand in line meanwhile share the way to the disk."""
        with self._understood():
            async with self._turn:
                self.line.check()
                group = self._group
                if group is None or group.over:
                    group = self._group = await Group.begin(self._writing)
                async with group.part() as connection:
                    yield connection
                if group.ends is None:
                    group.ends = asyncio.create_task(self._commit(group), name="commit of the records")
                    group.ends.add_done_callback(lambda task: task.cancelled() or task.exception())
            await _ended(group.ends)

    @asynccontextmanager
    async def read(self, *, long: bool = False, apart: bool = False) -> AsyncIterator[AsyncConnection]:
        """No reader waits for a writer, nor long for another reader."""
        self.line.check()
        with self._understood():
            async with self._reading.lend() as (connection, driver):
                driver.apart = long
                try:
                    yield connection
                finally:
                    driver.apart = False

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[AsyncConnection]:
        """As every writer is."""
        async with self._after_the_group(), self._writing.lend() as (connection, driver):
            driver.apart = True
            try:
                await driver.execute("BEGIN IMMEDIATE")
                yield connection
                await driver.commit()
            finally:
                driver.apart = False

    async def close(self) -> None:
        """Close every connection, once what was written is on the disk."""
        async with self._after_the_group():
            await asyncio.gather(self._reading.close(), self._writing.close())
        await self.line.close()
        self._threads.shutdown(wait=False)

    @asynccontextmanager
    async def _after_the_group(self) -> AsyncIterator[None]:
        """The turn; those who have written together bring it to the disk first, and need the turn for it."""
        while True:
            async with self._turn:
                group = self._group
                if group is None or group.over or group.ends is None:
                    yield
                    return
            await asyncio.wait([group.ends])

    async def _renew(self) -> None:
        await self._reading.renew()
        await self._writing.renew()

    async def _connect(self) -> Connection:
        return Connection(str(self.path), self._threads, self._long)

    async def _commit(self, group: Group) -> None:
        """In the same line as who writes: those who stand there already come with it."""
        async with self._turn:
            if self._group is group:  # not where it was given up, and another was begun
                self._group = None
            await group.commit()

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except self.errors as error:
            reason = cause(error)
            code = getattr(reason, "sqlite_errorcode", None) or 0
            if code & 0xFF in _UNWRITABLE or code in _NOT_WRITTEN:
                self.refuses = str(reason)
            elif code & 0xFF in _UNREADABLE:
                self.line.failed(str(reason))
            raise StoreAway(f"database: {reason}") from error

    async def _probe(self) -> None:
        """Whether a row of every table can be read, by who opens the file anew."""
        await self._renew()
        async with self._reading.lend() as (connection, _):
            for table in metadata.tables.values():
                await connection.execute(select(table).limit(1))


def open_file(place: Place) -> Sqlite:
    """The database at `place`, an empty one where there is none. Raises `ConfigError`."""
    _make_private_file(place.path)
    return Sqlite(place.path)


def words(path: Path, error: BaseException) -> str:
    """What is wrong with a file, by what the driver said."""
    said = str(error)
    if "not a database" in said:
        return f"{path} is not a database"
    if "readonly" in said:
        return f"database {path} cannot be written"
    if "locked" in said:
        return f"database {path} is locked by another program"
    return f"database {path} cannot be used: {said.removeprefix('database: ')}"


def _make_private_file(path: Path) -> None:
    """An empty file nobody else can read, in a folder nobody else can enter; SQLite's side files inherit its mode."""
    try:
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # by another process meanwhile
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigError(
            f"database {path} cannot be opened: {error.strerror or error}",
            "check store.records, and that its folder can be written by this user",
        ) from error


async def _ended(commit: asyncio.Task[None]) -> None:
    """Raises what `commit` does. Who is cancelled leaves only when it is over: what they tell others is true then."""
    cancelled: asyncio.CancelledError | None = None
    while not commit.done():
        try:
            await asyncio.wait([commit])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    commit.result()


def _prepare(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    safe = ("foreign_keys=ON", "trusted_schema=OFF", "secure_delete=ON")  # what is gone is gone from the file too
    for pragma in ("journal_mode=WAL", "synchronous=FULL", *safe):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
