"""The database, whichever it is: `sqlite:path`, the embedded default, or `postgresql://…` for several replicas.

- What is read in `begin` cannot have changed when it is written, as far as it is about the person `begin` was told.
  How that is kept, and what else can be relied on, differs: see `store.sqlite` and `store.postgresql`.
- Whoever keeps copies of rows is told: `bump` marks the change, `listen` hears of it in this process once it is
  committed, `foreign` shows it to every other process, `revision` counts them all.
- The row that counts is written last in a transaction, so that those who change different people wait for each other
  as shortly as can be, and never in a circle.
- An empty database is made whole at the first start. One that is behind is upgraded at the start where that is nobody
  else's business, on SQLite; on PostgreSQL somebody decides when: `sallyport db upgrade`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

from sqlalchemy import bindparam, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, StoreAway
from gateway.store import schema
from gateway.store.database import Database, cause
from gateway.store.line import Line
from gateway.store.place import POSTGRESQL, SQLITE, Place
from gateway.store.schema import Standing, State
from gateway.store.tables import SCHEMA_VERSION, meta

_log = logging.getLogger("sallyport")

PATIENCE = 5.0
"""Seconds for an answer that only who asked waits for."""

_REVISION = select(meta.c.number).where(meta.c.name == "revision")
_COUNT = (
    update(meta)
    .where(meta.c.name == "revision")
    .values(number=meta.c.number + bindparam("by"))
    .returning(meta.c.number)
)
_ROOM = text("SELECT has_schema_privilege(current_schema(), 'CREATE'), current_schema()")
_ROOM_FOR = "let this user make tables, or let the owner run `sallyport db upgrade` and this user use the tables"

Listener = Callable[[str, str], None]
"""Called with `(tenant, subject)` of whom a change concerns; an empty subject means everybody."""


class Records:
    """An open database. Made by `open`."""

    def __init__(self, database: Database, place: Place, clock: Clock) -> None:
        self.place = place
        self._database = database
        self._clock = clock
        self._bumped: dict[int, list[tuple[str, str]]] = {}
        self._listeners: list[Listener] = []
        self.own_revisions = 0
        """How many of the database's revisions were made through this object."""
        self._ours: set[int] = set()
        self._seen = 0
        self._foreign = 0

    @classmethod
    async def open(cls, where: str | Place, *, clock: Clock) -> Records:
        """Open, and make if need be, the database at `where`.

        Raises `ConfigError` for one that cannot be reached, opened or written, that is not ours, that is too new, half
        migrated, or behind with nobody to say that it may be upgraded.
        """
        opened = await cls._open(_place(where), clock, make=True)
        if opened is None:
            raise AssertionError
        return opened

    @classmethod
    async def find(cls, where: str | Place, *, clock: Clock) -> Records | None:
        """The same, but None, and nothing made, where there is no database or an empty one."""
        place = _place(where)
        if place.scheme == SQLITE and not place.path.exists():
            return None
        return await cls._open(place, clock, make=False)

    @classmethod
    async def _open(cls, place: Place, clock: Clock, *, make: bool) -> Records | None:
        database = await connect(place)
        try:
            found = await standing(database)
            if found.state is State.EMPTY and not make:
                await _demand_room(database)
                await database.close()
                return None
            await prepare(database, upgrade=_log.warning if place.scheme == SQLITE else None)
        except BaseException:
            await database.close()
            raise
        return cls(database, place, clock)

    @property
    def line(self) -> Line:
        """Whether the database is there."""
        return self._database.line

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Let an answer take seconds: at a start, and in commands, nobody stands in line."""
        usual, self.line.deadline = self.line.deadline, PATIENCE
        try:
            yield
        finally:
            self.line.deadline = usual

    @property
    def refuses(self) -> str:
        """Why it took nothing when it was last written to (full, read-only), while it can be read; or empty."""
        return self._database.refuses

    @property
    def name(self) -> str:
        """As messages call it; without password."""
        return self._database.name

    def begin(self, tenant: str = "", subject: str = "") -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that may write: committed at the end of the block, rolled back when the block raises.

        `tenant` and `subject`: whom it is about. Of those about the same person there is one at a time, of all
        processes; without a person, on PostgreSQL, only single statements can be relied on. Not to be nested.

        Raises `StoreAway` where the database is away, locked by another process, read-only, full or damaged.
        `sqlalchemy.exc.IntegrityError` passes, for it is an answer.
        """
        return self._begin(tenant, subject)

    @asynccontextmanager
    async def _begin(self, tenant: str, subject: str) -> AsyncIterator[AsyncConnection]:
        bumped: list[tuple[str, str]] = []
        numbers: range = range(0)
        try:
            async with self._database.write(tenant, subject) as connection:
                self._bumped[id(connection)] = bumped
                try:
                    yield connection
                finally:
                    del self._bumped[id(connection)]
                if bumped:
                    numbers = await self._count(connection, len(bumped))
                    self._ours.update(numbers)
            self.own_revisions += len(bumped)
        except BaseException:
            # Whoever gets these numbers now may be somebody else, and may have been taken for us already.
            self._ours.difference_update(numbers)
            self._foreign += len(numbers)
            raise
        finally:
            # Also when it was not committed, or nobody knows whether it was: forgetting is always safe.
            for whom in bumped:
                for listener in self._listeners:
                    listener(*whom)

    def read(self, *, long: bool = False) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read with, one consistent snapshot for each statement. Raises `StoreAway` as `begin` does.

        `long`: it is a question about everybody, which may take seconds to answer.
        """
        return self._database.read(long=long)

    async def bump(self, connection: AsyncConnection, tenant: str = "", subject: str = "") -> None:
        """Mark, inside a transaction, a change of users, sessions or factors of whom it concerns."""
        self._bumped[id(connection)].append((tenant, subject))

    def listen(self, listener: Listener) -> None:
        """Have `listener` called right after every transaction that bumped, once for each bump."""
        self._listeners.append(listener)

    async def sealed_by(self) -> int | None:
        """The number of the master key this database was first sealed with; None: nothing was sealed yet."""
        async with self.read() as connection:
            number: int | None = await connection.scalar(select(meta.c.number).where(meta.c.name == "sealed_by"))
        return number

    async def seal_with(self, number: int) -> int:
        """Remember the number of the master key that seals from now on, unless there is one; the one that does."""
        try:
            async with self.begin() as connection:
                await connection.execute(insert(meta).values(name="sealed_by", number=number))
        except IntegrityError:
            return await self.sealed_by() or 0
        return number

    async def revision(self) -> int:
        """How many changes of users, sessions and factors this database has seen, from all processes."""
        async with self._database.read(apart=True) as connection:
            number: int | None = await connection.scalar(_REVISION)
        if number is None:
            raise StoreAway("the database has lost its revision")
        return number

    async def foreign(self) -> int:
        """A number that is another one whenever other processes have changed users, sessions or factors since."""
        revision = await self.revision()
        ours = {number for number in self._ours if number <= revision}
        between = sum(number > self._seen for number in ours)
        self._foreign += abs(revision - self._seen - between)  # it goes back when a backup is restored beneath us
        self._seen = revision
        self._ours -= ours
        return self._foreign

    async def try_again(self) -> None:
        """Write what changes nothing, to see whether it `refuses` still. Raises `StoreAway` where it does.

        That some transaction went through proves nothing: it may have had nothing to change.
        """
        async with self.begin() as connection:
            await connection.execute(update(meta).where(meta.c.name == "revision").values(number=meta.c.number))
        self._database.refuses = ""

    async def close(self) -> None:
        """Close every connection."""
        await self._database.close()

    async def _count(self, connection: AsyncConnection, by: int) -> range:
        """The revisions that are ours once this is committed; the row is ours alone until then."""
        last: int | None = await connection.scalar(_COUNT, {"by": by})
        if last is None:
            raise StoreAway("the database has lost its revision")
        return range(last - by + 1, last + 1)


async def connect(place: Place) -> Database:
    """The database at `place`, whatever is in it. Raises `ConfigError`."""
    if place.scheme == POSTGRESQL:
        try:
            from gateway.store import postgresql
        except ModuleNotFoundError as error:
            raise ConfigError(
                "store.records: PostgreSQL needs a library that is not installed", "pip install 'sallyport[postgresql]'"
            ) from error
        return await postgresql.connect(place)
    if place.scheme != SQLITE or not place.url.partition(":")[2]:
        raise ConfigError(  # nothing of the URL is told: there may be a password in it, wherever it begins
            "store.records: that is not a database I know",
            "use sqlite:path/to/file.db or postgresql://user:password@host:port/database",
        )
    from gateway.store import sqlite

    return sqlite.open_file(place)


async def standing(database: Database) -> Standing:
    """What is in `database`. Raises `ConfigError`."""
    try:
        async with database.engine.connect() as connection:
            return await connection.run_sync(schema.look)
    except database.errors as error:
        raise unfit(database, error) from error


async def _demand_room(database: Database) -> None:
    """An empty database will have to take tables. Asked before anything is made that belongs to them."""
    if database.engine.dialect.name == SQLITE:
        return
    async with database.engine.connect() as connection:
        may, where = (await connection.execute(_ROOM)).one()
    if not may:
        raise ConfigError(f"{database.name}: permission denied for schema {where}", _ROOM_FOR)


async def prepare(database: Database, *, upgrade: Callable[[str], None] | None) -> None:
    """Have tables in `database` that this program can work with: made where there are none, or upgraded.

    `upgrade` is told each step; None: it is somebody else's to decide. Raises `ConfigError`; nothing is changed then.
    """
    try:
        found = await standing(database)
        if found.state is State.EMPTY:
            async with database.alone() as connection:
                found = await connection.run_sync(schema.look)  # another process may have been first
                if found.state is State.EMPTY:
                    await connection.run_sync(schema.make)
                    return
    except database.errors as error:
        raise unfit(database, error) from error
    found.check(database.name)
    if found.state is State.NEWER:
        _log.warning(
            "%s has schema %d of a newer version; this one works with it as with its own, %d",
            database.name, found.schema, SCHEMA_VERSION,
        )  # fmt: skip
    if found.state is not State.BEHIND:
        return
    if upgrade is None:
        raise ConfigError(
            f"{database.name} has schema {found.schema}, this version needs {SCHEMA_VERSION}",
            "run `sallyport db upgrade`",
        )
    from gateway.store import upgrade as migrations  # brings Alembic

    upgrade(f"{database.name} has schema {found.schema} and is upgraded to {SCHEMA_VERSION}")
    await migrations.upgrade(database, upgrade)


def unfit(database: Database, error: BaseException) -> ConfigError:
    """What to tell about a database that was reached, and cannot be used."""
    said = cause(error)
    if database.engine.dialect.name == SQLITE:
        from gateway.store.sqlite import words

        path = Path(database.engine.url.database or "")
        return ConfigError(words(path, said), "restore a backup, or point store.records elsewhere")
    if getattr(said, "sqlstate", "") == "42501":
        return ConfigError(f"{database.name}: {said}", _ROOM_FOR)
    return ConfigError(f"{database.name} cannot be used: {said}", "check store.records, and the log of the server")


def _place(where: str | Place) -> Place:
    return Place(where) if isinstance(where, str) else where
