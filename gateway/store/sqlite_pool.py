"""Connections to SQLite that stay open between uses.

SQLAlchemy's own pool checks, resets and hands over more with each use than a lookup by key costs. These are lent as
they are; nothing but a transaction left open has to be undone.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple, cast

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.store.sqlite_connection import Connection

FAREWELL = 1.0
"""Seconds to wait for connections that are lent when the pool is closed. What they leave behind is tidied up by whoever
opens the file next."""


class Lent(NamedTuple):
    """A connection, as SQLAlchemy knows it and as SQLite does."""

    connection: AsyncConnection
    driver: Connection


class Pool:
    """`size` connections at most; who wants one more waits."""

    def __init__(self, engine: AsyncEngine, size: int) -> None:
        self._engine = engine
        self._size = size
        self._room = asyncio.Semaphore(size)
        self._idle: list[Lent] = []
        self._returning: set[asyncio.Task[None]] = set()
        """On their way back from somebody who was cancelled."""
        self._epoch = 0
        self._closed = False

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Lent]:
        """One that nobody else has. Raises what the engine does, and `sqlite3.ProgrammingError` when it is closed."""
        await self._room.acquire()
        returning: asyncio.Task[None] | None = None
        try:
            if self._closed:  # one opened now would never be closed
                raise sqlite3.ProgrammingError("it was closed")
            epoch = self._epoch
            lent = self._idle.pop() if self._idle else await self._connect()
            try:
                yield lent
            finally:
                if lent.driver.waits or epoch != self._epoch:
                    returning = asyncio.create_task(self._take_back(lent, epoch), name="a connection comes back")
                    self._returning.add(returning)
                    returning.add_done_callback(self._returning.discard)
                    await asyncio.shield(returning)
                else:
                    await self._take_back(lent, epoch)
        finally:
            if returning is None or returning.done():
                self._room.release()
            else:  # who was cancelled once more does not wait for it; its place is taken until it is back
                returning.add_done_callback(lambda _: self._room.release())

    async def renew(self) -> None:
        """Use none of those that are open now any more."""
        self._epoch += 1
        while self._idle:
            await self._idle.pop().connection.close()

    async def close(self) -> None:
        """Use none any more, and wait for those that are lent: they are soon given back, and closed by that."""
        self._closed = True
        await self.renew()
        back = 0
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    while back < self._size:
                        await self._room.acquire()
                        back += 1
                    await asyncio.gather(*self._returning)
        finally:
            for _ in range(back):  # who comes too late is told, and does not wait for ever
                self._room.release()

    async def _connect(self) -> Lent:
        connection = await self._engine.connect()
        try:
            return Lent(connection, cast(Connection, (await connection.get_raw_connection()).driver_connection))
        except BaseException:
            await connection.close()
            raise

    async def _take_back(self, lent: Lent, epoch: int) -> None:
        """Never raises: whatever its borrower has to say is what is heard."""
        fit = False
        with suppress(SQLAlchemyError, sqlite3.Error):
            if lent.driver.is_open:  # SQLAlchemy closes what somebody was cancelled with
                await lent.driver.rollback()
                if lent.connection.in_transaction():
                    await lent.connection.rollback()
                fit = epoch == self._epoch
        if fit:
            self._idle.append(lent)
        else:
            with suppress(SQLAlchemyError, sqlite3.Error):
                await lent.connection.close()
