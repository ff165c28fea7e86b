"""The database. SQLite in the embedded default.

- One writer at a time: `begin` waits for its turn inside this process and opens with `BEGIN IMMEDIATE`, so what is read
  in a transaction cannot have changed when it is written, and no transaction dies half way because another was faster.
- `read` never waits for a writer (write-ahead log); each statement sees what was committed when it began.
- `synchronous=FULL`: what was committed is still there after a power cut; an ended session stays ended.
- Whoever keeps copies of rows is told: `bump` marks the change, `listen` hears of it in this process once it is
  committed, `revision` shows it to every other process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import event, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, StoreAway
from gateway.store.tables import SCHEMA_VERSION, meta, metadata

# At level debug it would write down every statement with its values: hashes, and whatever people typed as their name.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process that is writing."""

Listener = Callable[[str, str], None]
"""Called with `(tenant, subject)` of whom a change concerns; an empty subject means everybody."""


class Records:
    """An open database. Made by `open`."""

    def __init__(self, engine: AsyncEngine, path: Path, clock: Clock) -> None:
        self._engine = engine
        self._path = path
        self._clock = clock
        self._writing = asyncio.Lock()
        self._bumped: list[tuple[str, str]] = []
        self._listeners: list[Listener] = []
        self.own_revisions = 0
        """How many of the database's revisions were made through this object."""

    @classmethod
    async def open(cls, url: str, *, clock: Clock) -> Records:
        """Open, and make if need be, the database at `url` (`sqlite:path`).

        Raises `ConfigError` for an unknown scheme, a file that is no database, cannot be opened or written, or was made
        by a newer version.
        """
        scheme, _, rest = url.partition(":")
        if scheme != "sqlite" or not rest:
            raise ConfigError(f"store.records: {url!r} is not a database I know", "use sqlite:path/to/file.db")
        path = Path(rest.removeprefix("//"))
        _make_private_file(path)
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{path}",
            connect_args={"timeout": BUSY_TIMEOUT},
            json_serializer=lambda value: orjson.dumps(value).decode(),
            json_deserializer=_from_json,
            pool_size=4,
            max_overflow=0,
            pool_timeout=30.0,
        )
        event.listen(engine.sync_engine, "connect", _prepare)
        event.listen(engine.sync_engine, "begin", _begin)
        records = cls(engine, path, clock)
        try:
            await records._make_tables()
        except BaseException as error:
            await engine.dispose()
            if isinstance(error, SQLAlchemyError | StoreAway):
                raise ConfigError(_unfit(path, error), "restore a backup, or point store.records elsewhere") from error
            raise
        return records

    async def _make_tables(self) -> None:
        async with self.begin() as connection:
            found = None
            tables = set(await connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
            if "meta" in tables:
                found = await connection.scalar(select(meta.c.number).where(meta.c.name == "schema"))
            if tables and found is None:
                raise ConfigError(f"database {self._path} belongs to another program", "point store.records elsewhere")
            if found is not None and found > SCHEMA_VERSION:
                raise ConfigError(
                    f"database {self._path} was made by a newer version of Sallyport"
                    f" (its schema is {found}, this version knows up to {SCHEMA_VERSION})",
                    "run the newer version, or restore a backup from before the upgrade",
                )
            if found is None:
                await connection.run_sync(metadata.create_all)
                await connection.execute(
                    insert(meta), [{"name": "schema", "number": SCHEMA_VERSION}, {"name": "revision", "number": 0}]
                )

    def begin(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that may write: committed at the end of the block, rolled back when the block raises.

        Raises `StoreAway` where the database is away, locked by another process, read-only, full or damaged.
        `sqlalchemy.exc.IntegrityError` passes, for it is an answer.
        """
        return self._begin()

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        async with self._writing:
            self._bumped = []
            try:
                with _store_away():
                    async with self._engine.connect() as connection:
                        await connection.execution_options(sallyport_writes=True)
                        async with connection.begin():
                            yield connection
                    self.own_revisions += len(self._bumped)
            finally:
                # Also when it was not committed, or nobody knows whether it was: forgetting is always safe.
                for tenant, subject in self._bumped:
                    for listener in self._listeners:
                        listener(tenant, subject)

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read with, one consistent snapshot for each statement. Raises `StoreAway` as `begin` does."""
        return self._read()

    @asynccontextmanager
    async def _read(self) -> AsyncIterator[AsyncConnection]:
        with _store_away():
            async with self._engine.connect() as connection:
                yield connection

    async def bump(self, connection: AsyncConnection, tenant: str = "", subject: str = "") -> None:
        """Mark, inside a transaction, a change of users, sessions or factors of whom it concerns."""
        await connection.execute(update(meta).where(meta.c.name == "revision").values(number=meta.c.number + 1))
        self._bumped.append((tenant, subject))

    def listen(self, listener: Listener) -> None:
        """Have `listener` called right after every transaction that bumped, once for each bump."""
        self._listeners.append(listener)

    @staticmethod
    def exists(url: str) -> bool:
        """Whether there is a database at `url` already."""
        return Path(url.partition(":")[2].removeprefix("//")).exists()

    async def sealed_by(self) -> int | None:
        """The number of the master key this database was first sealed with; None: nothing was sealed yet."""
        async with self.read() as connection:
            number: int | None = await connection.scalar(select(meta.c.number).where(meta.c.name == "sealed_by"))
        return number

    async def seal_with(self, number: int) -> None:
        """Remember the number of the master key that seals from now on."""
        async with self.begin() as connection:
            await connection.execute(insert(meta).values(name="sealed_by", number=number))

    async def revision(self) -> int:
        """How many changes of users, sessions and factors this database has seen, from all processes."""
        async with self.read() as connection:
            number: int | None = await connection.scalar(select(meta.c.number).where(meta.c.name == "revision"))
        if number is None:
            raise StoreAway("the database has lost its revision")
        return number

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


def _make_private_file(path: Path) -> None:
    """An empty file nobody else can read, in a folder nobody else can enter; SQLite's side files inherit its mode."""
    try:
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, parents=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigError(
            f"database {path} cannot be opened: {error.strerror or error}",
            "check store.records, and that its folder can be written by this user",
        ) from error


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, the driver would say it too late
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Any) -> None:
    if connection.get_execution_options().get("sallyport_writes", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _from_json(stored: str) -> Any:
    try:
        return orjson.loads(stored)
    except ValueError as error:
        raise StoreAway("database: a stored value makes no sense") from error


@contextmanager
def _store_away() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise StoreAway(f"database: {cause}") from error
    except sqlite3.Error as error:
        raise StoreAway(f"database: {error}") from error


def _unfit(path: Path, error: BaseException) -> str:
    said = str(error)
    if "not a database" in said:
        return f"{path} is not a database"
    if "readonly" in said:
        return f"database {path} cannot be written"
    if "locked" in said:
        return f"database {path} is locked by another program"
    return f"database {path} cannot be used: {said.removeprefix('database: ')}"
