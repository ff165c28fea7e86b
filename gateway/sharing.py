"""What replicas have in common: limits that they count together. Not loaded where nothing is shared.

Redis ── spend.lua ─▶ Shared ──┐
      ── lease.lua ─▶ Leased ──┼─▶ Counting ─▶ gate, pages
Limiter (this process) ────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from gateway.catalog import ALGORITHMS
from gateway.core.errors import StoreAway
from gateway.limits.away import Away
from gateway.limits.counting import Counting
from gateway.limits.leased import Leased
from gateway.limits.scripts import script
from gateway.limits.shared import Shared
from gateway.limits.shared_counters import Named, SharedCounters
from gateway.limits.standings import Standings, local_reset, told
from gateway.store.redis import Redis, Script

if TYPE_CHECKING:
    from gateway.audit.metrics import Metrics
    from gateway.core.clock import Clock
    from gateway.limits.limiter import Limiter

_log = logging.getLogger("sallyport")

TOPIC = "limits"
"""Where a reset of a limit is told."""
PATIENCE = 1.0
"""Seconds that an operator's question waits for a store that is away."""
AGAIN = 0.1
"""Seconds between two tries."""
SILENT = 5
"""Seconds after which a replica that says nothing is not counted as one."""


class Sharing:
    """Counting together over one Redis."""

    def __init__(self, redis: Redis, local: Limiter, clock: Clock, metrics: Metrics) -> None:
        self.redis = redis
        self.away = Away(local, metrics.limit_away)
        self.counting = Counting(
            local,
            Leased(self._lend, clock, self._spawn, self.away, prefix=redis.prefix),
            Shared(self._spend, clock, self.away, prefix=redis.prefix, clustered=redis.clustered),
        )
        self._name = token_hex(8)
        self._spending = Script(script("spend", ALGORITHMS))
        self._lending = Script(script("lease", ALGORITHMS))
        self._present = Script(script("replicas", ()))
        self._tasks: set[asyncio.Task[None]] = set()
        redis.listen(TOPIC, self._reset, self.counting.forget)

    def standings(self, limits: Callable[[], Sequence[Named]]) -> Standings:
        """The counters here and there, of every limit that `limits` answers."""
        return Standings(limits, self.counting.local, shared_counters(self.redis), self._tell)

    async def _tell(self, said: bytes) -> None:
        """Tell every replica of a reset. This one need not wait until it hears of it itself."""
        self._reset(said)
        await self.redis.publish(TOPIC, said)

    def _reset(self, said: bytes) -> None:
        """Somebody, here or elsewhere, had counters begin anew."""
        if (what := told(said)) is not None:
            local_reset(self.counting.local, *what)
        self.counting.forget()

    async def beat(self) -> None:
        """Say that this replica is there, and learn how many there are. Call it every second. Never raises."""
        with contextlib.suppress(StoreAway):
            self.away.replicas = await self.redis.run(self._present, (self._members,), (self._name, SILENT))

    async def close(self) -> None:
        """Be a replica no more."""
        await self.counting.shared.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(StoreAway):
            await self.redis.execute("ZREM", self._members, self._name)

    @property
    def _members(self) -> str:
        return f"{self.redis.prefix}replicas"

    async def _spend(self, keys: Sequence[bytes], args: Sequence[bytes]) -> list[int]:
        numbers: list[int] = await self.redis.run(self._spending, keys, args)
        return numbers

    async def _lend(self, keys: Sequence[bytes], args: Sequence[bytes | str | int]) -> list[int]:
        numbers: list[int] = await self.redis.run(self._lending, keys, args)
        return numbers

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="borrowing")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def shared_counters(redis: Redis) -> SharedCounters:
    """The counters on `redis`, to look at them and take them away.

    Going through a million takes thousands of calls, of which one may well be late. An operator can wait, and each of
    these calls may be made twice.
    """
    looking = Script(script("status", ALGORITHMS))

    async def run(keys: Sequence[bytes], args: Sequence[bytes]) -> list[int]:
        numbers: list[int] = await _patiently(lambda: redis.run(looking, keys, args))
        return numbers

    async def scan(pattern: str) -> AsyncIterator[list[bytes]]:
        cursor, more = b"0", True
        while more:
            ask = partial(redis.scan, pattern, cursor)
            cursor, names = await _patiently(ask)
            more = cursor != b"0"
            yield names

    async def remove(keys: Sequence[bytes]) -> int:
        gone: int = await _patiently(lambda: redis.execute("UNLINK", *keys))
        return gone

    return SharedCounters(run, scan, remove, prefix=redis.prefix, clustered=redis.clustered)


async def _patiently(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What is answered, if within `PATIENCE`. Raises as `ask` does."""
    due = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await ask()
        except StoreAway:
            if asyncio.get_running_loop().time() > due:
                raise
        await asyncio.sleep(AGAIN)
