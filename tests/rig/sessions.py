"""Sessions on every store there is, with the lifetimes most tests want; and further replicas on the same store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from gateway.core.clock import Clock, ManualClock
from gateway.core.contracts import Dues, Ledger
from gateway.crypto.sealing import Sealer
from gateway.identity.session_keys import SessionKeys
from gateway.identity.session_rows import SessionRows
from gateway.identity.session_store import Lifetimes, Terms
from gateway.identity.sessions import Sessions
from gateway.identity.users import User
from gateway.store.redis import Redis, Script
from gateway.store.redis_link import Word
from gateway.store.redis_where import Where
from gateway.store.sql import Records
from gateway.store.tables import users
from tests.rig.ledger import Remembered

HOUR = 3600.0
TERMS = Terms(Lifetimes(idle=HOUR, absolute=24 * HOUR, per_user=5))
EPOCH = ManualClock().now() - ManualClock().monotonic()
PATIENT = 1.0
"""Seconds for a Redis: what is tested is not how soon it is given up."""
MASTER = b"\x07" * 32


def in_rows(
    records: Records, clock: Clock, ledger: Ledger, terms: Terms = TERMS, *, dues: Dues | None = None
) -> Sessions:
    """Sessions in the database."""
    return Sessions(SessionRows(records, clock, terms), records, clock, ledger, terms, dues=dues)


def in_keys(
    redis: Redis, records: Records, clock: Clock, ledger: Ledger, terms: Terms = TERMS, *, dues: Dues | None = None
) -> Sessions:
    """Sessions in Redis."""
    return Sessions(SessionKeys(redis, records, Sealer([MASTER]), terms), records, clock, ledger, terms, dues=dues)


class Timed(Redis):
    """A Redis whose scripts believe `hands`, so that hours need not be waited for. Its keys expire as ever.

    Setting the clock of a replica (`jump`) does not set that of Redis.
    """

    hands: ManualClock | None = None
    hears: asyncio.Event
    """Set when it listens."""

    def listen(self, topic: str, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        self.hears = asyncio.Event()

        def began() -> None:
            self.hears.set()
            lost()

        super().listen(topic, heard, began)

    async def run(self, script: Script, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        if self.hands is not None:
            now = EPOCH + self.hands.monotonic()
            seconds, micros = divmod(round(now * 1_000_000), 1_000_000)
            time = f"{{'{seconds}', '{micros}'}}"
            assert "redis.call('TIME')" in script.text
            script = Script(script.text.replace("redis.call('TIME')", time))
        return await super().run(script, keys, args)


class Stores:
    """One place to keep sessions in, and as many replicas on it as are asked for."""

    def __init__(self, records: Records, clock: ManualClock, where: Where | None, ending: AsyncExitStack) -> None:
        self.records = records
        self.clock = clock
        self.where = where
        """The Redis; None: in the database."""
        self._ending = ending
        self._opened: list[Redis] = []

    async def sessions(
        self, *, ledger: Ledger | None = None, terms: Terms = TERMS, dues: Dues | None = None
    ) -> Sessions:
        """Beside whoever uses the database here."""
        return await self._on(self.records, self.clock, ledger or Remembered(), terms, dues=dues)

    async def replica(
        self, *, terms: Terms = TERMS, clock: ManualClock | None = None, where: Where | None = None
    ) -> Sessions:
        """Another process, on connections of its own, with a clock of its own; `where`: on another way to Redis."""
        records = await Records.open(self.records.place, clock=clock or self.clock)
        self._ending.push_async_callback(records.close)
        return await self._on(records, clock or self.clock, Remembered(), terms, where)

    async def redis(self, where: Where | None = None) -> Timed:
        """One more way to the Redis."""
        where = where or self.where
        assert where is not None
        redis = await Timed.open(where, clock=self.clock)
        assert isinstance(redis, Timed)
        redis.hands = self.clock
        self._ending.push_async_callback(redis.close)
        self._opened.append(redis)
        return redis

    async def _on(
        self,
        records: Records,
        clock: ManualClock,
        ledger: Ledger,
        terms: Terms,
        where: Where | None = None,
        *,
        dues: Dues | None = None,
    ) -> Sessions:
        if self.where is None:
            return in_rows(records, clock, ledger, terms, dues=dues)
        redis = await self.redis(where)
        sessions = in_keys(redis, records, clock, ledger, terms, dues=dues)
        async with asyncio.timeout(10):
            await redis.hears.wait()  # it begins by forgetting everything
        return sessions

    async def generation(self, user: User) -> int:
        """How often everything of theirs was ended."""
        async with self.records.read() as connection:
            number = await connection.scalar(select(users.c.generation).where(users.c.subject == user.subject))
        assert number is not None
        return number

    async def now(self, user: User) -> User:
        """`user` as they are now: whoever signs in after everything of theirs was ended."""
        return replace(user, generation=await self.generation(user))

    async def let_expire(self) -> None:
        """Have Redis notice what its own clock does not: keys of whatever is over by the hands of ours."""
        if self.where is None:
            return
        redis = await self.redis()
        late = round((EPOCH + self.clock.monotonic()) * 1000) - 130_000
        for slot in range(16):
            alive = f"{redis.prefix}{{s{slot}}}:alive"
            for digest in await redis.execute("ZRANGEBYSCORE", alive, "-inf", late):
                await redis.execute("DEL", f"{redis.prefix}{{s{slot}}}:session:{digest.decode()}")

    async def close(self) -> None:
        """No more answers."""
        for redis in self._opened:
            await redis.close()
        await self.records.close()


@asynccontextmanager
async def opened(records: Records, clock: ManualClock, where: Where | None) -> AsyncIterator[Stores]:
    """Sessions in the database, or in the Redis at `where`."""
    async with AsyncExitStack() as ending:
        yield Stores(records, clock, where, ending)


async def settled(replica: Sessions, token: str) -> None:
    """Look `token` up until it stays near: what was said of an earlier change may still be on its way, in a cluster
    from one server to the next."""
    async with asyncio.timeout(10):
        while True:
            assert await replica.find(token) is not None
            await asyncio.sleep(0.02)
            if replica.near(token) is not None:
                return
