"""A connection to SQLite as SQLAlchemy's asyncio engine wants one, that asks a thread only where something may wait.

A lookup by key takes some ten microseconds where the operating system has the page, as it nearly always has. Handing it
to a thread and back costs ten times that, several times a statement, and on a busy machine each time waits for its turn
to run Python. So a statement runs where it is asked for, unless

- it ends a transaction: `COMMIT` waits for the disk;
- another process has the file: then a thread waits for it, `BUSY_TIMEOUT` long;
- it has once used more than `LONG` of the processor: it belongs to a thread ever after;
- it is about everybody, and whoever asks has said so (`apart`).

What a cancelled caller left to a thread is waited for before the connection does anything else.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from time import thread_time
from typing import Any, Self, TypeVar

LONG = 0.005
"""Seconds of processor time that a statement may take from everybody else, once."""
MANY = 16
"""Rows that are written where everybody waits."""
KNOWN = 1000
"""Statements remembered at most."""
BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process that is writing."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_T = TypeVar("_T")
_closing = threading.Lock()


class Connection:
    """What `aiosqlite.Connection` is to SQLAlchemy. Every method raises `sqlite3.Error`."""

    def __init__(self, path: str, threads: Executor, long: set[str]) -> None:
        """`long`: statements that are known to be; the connections of a file share it."""
        self._connection: sqlite3.Connection | None = sqlite3.connect(
            path, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        self._threads = threads
        self._long = long
        self._outside: Future[Any] | None = None
        self.asking: set[sqlite3.Cursor] = set()
        """Cursors that nobody has closed."""
        self.apart = False
        """Whether all of it goes to a thread."""

    @property
    def open(self) -> sqlite3.Connection:
        """Raises `ValueError` once it is closed."""
        if self._connection is None:
            raise ValueError("connection closed")
        return self._connection

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self._connection is not None

    @property
    def in_transaction(self) -> bool:
        """Whether there is something to commit, or to undo."""
        return self._connection is not None and self._connection.in_transaction

    def cursor(self) -> Cursor:
        """A cursor, to be entered."""
        return Cursor(self)

    async def commit(self) -> None:
        """End the transaction, if there is one; it is on the disk then."""
        await self._settled()
        if self.in_transaction:
            await self._elsewhere(self.open.commit)

    async def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        await self._settled()
        if self.in_transaction:
            self.open.rollback()

    async def close(self) -> None:
        """Give the file back; whoever is cancelled meanwhile has given it back all the same."""
        if self._connection is not None:
            await self._settled()
        closing, self._connection = self._connection, None
        if closing is None:
            return
        try:
            self._outside = self._threads.submit(_give_up, closing, list(self.asking))
        except RuntimeError:  # who lent it has closed already, and its threads have gone
            _give_up(closing, list(self.asking))
        else:
            await asyncio.shield(asyncio.wrap_future(self._outside))

    def stop(self) -> None:
        """The same, where nobody can wait. A thread that is at it does it at its end: before, it would crash."""
        closing, self._connection = self._connection, None
        if closing is None:
            return
        asking = list(self.asking)
        if self._outside is None:
            _give_up(closing, asking)
        else:
            self._outside.add_done_callback(lambda _: _give_up(closing, asking))

    async def create_function(self, name: str, narg: int, func: Callable[..., Any], **options: Any) -> None:
        """As SQLAlchemy wants one of its own."""
        self.open.create_function(name, narg, func, **options)

    @property
    def waits(self) -> bool:
        """Whether a thread is at it."""
        return self._outside is not None and not self._outside.done()

    async def execute(self, statement: str) -> None:
        """Run `statement`, which has no parameters and answers nothing."""
        await self.run(statement, lambda: self.open.execute(statement))

    async def run(self, statement: str, work: Callable[[], _T], *, apart: bool = False) -> _T:
        """Do `work`, which is (part of) `statement`, here or in a thread."""
        await self._settled()
        if not (apart or self.apart or statement in self._long):
            begun = thread_time()
            try:
                return work()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY:
                    raise
            finally:
                if thread_time() - begun > LONG and len(self._long) < KNOWN:
                    self._long.add(statement)
        return await self._elsewhere(self._patiently, work)

    async def _settled(self) -> None:
        while self.waits and self._outside is not None:
            ended = asyncio.wrap_future(self._outside)
            ended.add_done_callback(_seen)  # whoever asked for it has gone, and who waits here may go as well
            await asyncio.wait([ended])
        self._outside = None

    async def _elsewhere(self, work: Callable[..., _T], *arguments: Any) -> _T:
        try:
            self._outside = self._threads.submit(work, *arguments)
        except RuntimeError:  # the threads have gone: who has lent it has closed, and did not wait for ever
            raise sqlite3.ProgrammingError("it was closed") from None
        return await asyncio.wrap_future(self._outside)

    def _patiently(self, work: Callable[[], _T]) -> _T:
        self.open.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT * 1000:.0f}")
        try:
            return work()
        finally:
            self.open.execute("PRAGMA busy_timeout = 0")


def _seen(ended: asyncio.Future[Any]) -> None:
    if not ended.cancelled():
        ended.exception()


def _give_up(connection: sqlite3.Connection, asking: Iterable[sqlite3.Cursor]) -> None:
    for cursor in asking:  # who was cancelled has left a question open, and the file would be kept open for its answer
        with suppress(sqlite3.ProgrammingError):  # a thread is at it
            cursor.close()
    if connection.in_transaction:  # which would outlive the connection for as long as somebody keeps a cursor of it
        connection.rollback()
    with _closing:  # the last one puts the log into the file; two at the same moment would each leave it to the other
        connection.close()


class Cursor:
    """What `aiosqlite.Cursor` is to SQLAlchemy."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = connection.open.cursor()
        connection.asking.add(self._cursor)
        self._statement = ""

    async def __aenter__(self) -> Self:
        return self

    @property
    def description(self) -> Any:
        """As PEP 249 has it."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """As PEP 249 has it."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """As PEP 249 has it."""
        return self._cursor.lastrowid

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Self:
        """As PEP 249 has it."""
        self._statement = statement
        await self._connection.run(statement, lambda: self._cursor.execute(statement, parameters))
        return self

    async def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> Self:
        """As PEP 249 has it."""
        many = len(parameters) > MANY
        await self._connection.run(statement, lambda: self._cursor.executemany(statement, parameters), apart=many)
        return self

    async def fetchall(self) -> list[Any]:
        """As PEP 249 has it."""
        return await self._connection.run(self._statement, self._cursor.fetchall)

    async def close(self) -> None:
        """As PEP 249 has it."""
        self._cursor.close()  # not where a thread is at it; the connection's end closes it then
        self._connection.asking.discard(self._cursor)
