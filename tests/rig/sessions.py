"""Sessions on every store there is, with the lifetimes most tests want; and further replicas on the same store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from sqlalchemy import select

from gateway.core.clock import Clock, ManualClock
from gateway.core.contracts import Ledger
from gateway.identity.session_rows import SessionRows
from gateway.identity.session_store import Lifetimes, Terms
from gateway.identity.sessions import Sessions
from gateway.identity.users import User
from gateway.store.sql import Records
from gateway.store.tables import users
from tests.rig.ledger import Remembered

HOUR = 3600.0
TERMS = Terms(Lifetimes(idle=HOUR, absolute=24 * HOUR, per_user=5))


def in_rows(records: Records, clock: Clock, ledger: Ledger, terms: Terms = TERMS) -> Sessions:
    """Sessions in the database."""
    return Sessions(SessionRows(records, clock, terms), records, clock, ledger, terms)


class Stores:
    """One place to keep sessions in, and as many replicas on it as are asked for."""

    def __init__(self, records: Records, clock: ManualClock, ending: AsyncExitStack) -> None:
        self.records = records
        self.clock = clock
        self._ending = ending

    async def sessions(self, *, ledger: Ledger | None = None, terms: Terms = TERMS) -> Sessions:
        """On connections that are there already."""
        return in_rows(self.records, self.clock, ledger or Remembered(), terms)

    async def replica(self, *, terms: Terms = TERMS, clock: ManualClock | None = None) -> Sessions:
        """Another process, on connections of its own."""
        records = await Records.open(f"sqlite:{self.records._path}", clock=clock or self.clock)
        self._ending.push_async_callback(records.close)
        return in_rows(records, clock or self.clock, Remembered(), terms)

    async def generation(self, user: User) -> int:
        """How often everything of theirs was ended."""
        async with self.records.read() as connection:
            number = await connection.scalar(select(users.c.generation).where(users.c.subject == user.subject))
        assert number is not None
        return number

    async def let_expire(self) -> None:
        """Have the store notice how late it is, where it does so by itself."""

    async def close(self) -> None:
        """No more answers."""
        await self.records.close()


@asynccontextmanager
async def opened(kind: str, records: Records, clock: ManualClock, folder: Path) -> AsyncIterator[Stores]:
    """The store called `kind`, empty."""
    async with AsyncExitStack() as ending:
        yield Stores(records, clock, ending)
