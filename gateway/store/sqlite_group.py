"""Transactions that go to the disk together.

A disk takes a commit in a tenth of a millisecond or in ten, and SQLite has one writer. So a transaction that is done
does not commit by itself: its commit queues up behind those who want to write already, and they become parts of the
same one, each behind a savepoint. Nobody is told that theirs is done before it is on the disk; where nobody waits, that
is at once.

A part that fails takes back what is its own. Where SQLite has given up the whole (a full disk), nobody's is done.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.store.sqlite_connection import Connection


class Group:
    """An open transaction of several. Made by `begin`; whoever calls a method has the turn to write."""

    def __init__(self, connection: AsyncConnection, driver: Connection, stack: AsyncExitStack) -> None:
        self.connection = connection
        self.ends: asyncio.Task[None] | None = None
        """Its commit, from when on there is something to commit."""
        self.over = False
        """Whether nobody can join any more."""
        self._driver = driver
        self._stack = stack
        self._parts = 0

    @classmethod
    async def begin(cls, engine: AsyncEngine) -> Group:
        """Raises what `engine` does."""
        async with AsyncExitStack() as opening:
            connection = await opening.enter_async_context(engine.connect())
            await connection.execution_options(sallyport_writes=True)
            await opening.enter_async_context(connection.begin())
            driver = cast(Connection, (await connection.get_raw_connection()).driver_connection)
            return cls(connection, driver, opening.pop_all())
        raise AssertionError

    @asynccontextmanager
    async def part(self) -> AsyncIterator[AsyncConnection]:
        """One transaction of it."""
        savepoint = await self.connection.begin_nested() if self._parts else None
        try:
            yield self.connection
            if not self._driver.open.in_transaction:
                raise sqlite3.OperationalError("the transaction was given up")
            if savepoint is not None:
                await savepoint.commit()
        except BaseException as error:
            if not self._driver.open.in_transaction:
                self.over = True
            elif savepoint is not None:
                await savepoint.rollback()
            if not self._parts:
                self.over = True
                await self._stack.__aexit__(type(error), error, error.__traceback__)
            raise
        self._parts += 1

    async def commit(self) -> None:
        """Have what was done kept. Raises what SQLite does, also where it gave up before."""
        if self.over:
            lost = sqlite3.OperationalError("the transaction was given up")
            await self._stack.__aexit__(type(lost), lost, None)
            raise lost
        self.over = True
        await self._stack.aclose()
