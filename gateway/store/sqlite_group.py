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

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.sqlite_pool import Lent, Pool


class Group:
    """An open transaction of several. Made by `begin`; whoever calls a method has the turn to write."""

    def __init__(self, lent: Lent, giving_back: AsyncExitStack) -> None:
        self.ends: asyncio.Task[None] | None = None
        """Its commit, from when on there is something to commit."""
        self.over = False
        """Whether nobody can join any more."""
        self._connection, self._driver = lent
        self._giving_back = giving_back
        self._parts = 0

    @classmethod
    async def begin(cls, pool: Pool) -> Group:
        """Raises what SQLite does."""
        async with AsyncExitStack() as stack:
            lent = await stack.enter_async_context(pool.lend())
            await lent.driver.execute("BEGIN IMMEDIATE")
            return cls(lent, stack.pop_all())
        raise AssertionError

    @asynccontextmanager
    async def part(self) -> AsyncIterator[AsyncConnection]:
        """One transaction of it."""
        driver, first = self._driver, not self._parts
        try:
            if not first:
                await driver.execute("SAVEPOINT part")
            yield self._connection
            if not driver.in_transaction:
                raise _given_up()
            if not first:
                await driver.execute("RELEASE part")
        except BaseException:
            undone = False
            try:
                if not first and driver.in_transaction:
                    await driver.execute("ROLLBACK TO part")
                    await driver.execute("RELEASE part")
                    undone = True
            finally:
                if not undone:  # also for who is cancelled once more: a part that is half done is not kept with others
                    self.over = True
                    await self._giving_back.aclose()  # whoever writes next begins anew
            raise
        self._parts += 1

    async def commit(self) -> None:
        """Have what was done kept. Raises what SQLite does, also where it gave up before."""
        if self.over:
            raise _given_up()
        self.over = True
        async with self._giving_back:
            await self._driver.commit()


def _given_up() -> sqlite3.Error:
    return sqlite3.OperationalError("the transaction was given up")
