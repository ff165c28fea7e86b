"""What counts together, over a real Redis: as `gateway.sharing` puts it together, one replica each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Coroutine
from dataclasses import replace
from typing import Any

from gateway.catalog import ALGORITHMS
from gateway.core.clock import Clock, SystemClock
from gateway.core.decision import Quota
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.rule import LimitSpec
from gateway.limits.away import Away
from gateway.limits.counting import Counting
from gateway.limits.leased import Leased
from gateway.limits.limiter import Limiter
from gateway.limits.scripts import script
from gateway.limits.shared import Shared
from gateway.store.redis import Redis, Script
from gateway.store.redis_where import Where
from tests.rig.once import PATIENT

SPEND = Script(script("spend", ALGORITHMS))
LEND = Script(script("lease", ALGORITHMS))


class Replica:
    """One process's counting. Made by `of`."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self.redis = redis
        self.asked = 0
        """Scripts that were run."""
        self.did: Counter[tuple[str, str]] = Counter()
        self.local = Limiter(clock, ALGORITHMS)
        self.away = Away(self.local, self._count)
        self.shared = Shared(self._spend, clock, self.away, prefix=redis.prefix, clustered=redis.clustered)
        self.leased = Leased(self._lend, clock, self._spawn, self.away, prefix=redis.prefix)
        self.counting = Counting(self.local, self.leased, self.shared)
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def of(cls, url: str, clock: Clock | None = None) -> Replica:
        """Over the Redis at `url`, which has time to answer: what is tested is not how soon it is given up."""
        clock = clock or SystemClock()
        return cls(await Redis.open(replace(Where.parse(url), deadline=PATIENT), clock=clock), clock)

    async def spend(
        self, limits: tuple[LimitSpec, ...], facts: Facts, identity: Identity | None = None, rule: str = "r"
    ) -> tuple[Quota, ...]:
        spent: tuple[Quota, ...] | Awaitable[tuple[Quota, ...]] = self.counting.spend(limits, facts, identity, rule)
        return spent if isinstance(spent, tuple) else await spent

    async def close(self) -> None:
        await self.shared.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.redis.close()

    async def _spend(self, keys: Any, args: Any) -> list[int]:
        self.asked += 1
        numbers: list[int] = await self.redis.run(SPEND, keys, args)
        return numbers

    async def _lend(self, keys: Any, args: Any) -> list[int]:
        self.asked += 1
        numbers: list[int] = await self.redis.run(LEND, keys, args)
        return numbers

    def _count(self, limit: str, did: str) -> None:
        self.did[limit, did] += 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
