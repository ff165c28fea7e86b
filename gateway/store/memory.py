"""Small things that expire, in this process: the `shared: memory` of a single gateway.

Every method runs to its end without giving way, which is what makes it one step. Time is monotonic, so setting the
machine's clock neither revives nor kills anything.

When the shelf is full, counters make room: a flood must not use up memory, and a forgotten counter only makes
throttling milder. Those that have counted least go, and of these the oldest: who types one name after another pushes
out what they have typed, and not the count of an account that they guess at. Values and claims are never pushed out: a
forgotten claim would let something single happen twice. There the flood is refused instead.
"""

from __future__ import annotations

from gateway.core.clock import Clock
from gateway.core.errors import StoreAway
from gateway.store.near import Near


class MemoryKeyValue:
    """A `KeyValue` that lives as long as the process. At most `capacity` values and `capacity` counters."""

    def __init__(self, clock: Clock, capacity: int = 50_000) -> None:
        self._clock = clock
        self._capacity = capacity
        self._values: dict[str, tuple[float, bytes]] = {}
        self._counters: Near[str, tuple[float, int]] = Near(capacity)
        self._sweep_at = 0.0

    async def get(self, key: str) -> bytes | None:
        """The value, or a counter's digits."""
        now = self._clock.monotonic()
        if (kept := self._values.get(key)) and kept[0] > now:
            return kept[1]
        if (counter := self._counters.get(key)) and counter[0] > now:
            return b"%d" % counter[1]
        return None

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Raises `StoreAway` when full."""
        self._make_room(key)
        self._counters.pop(key, None)
        self._values[key] = (self._clock.monotonic() + ttl, value)

    async def claim(self, key: str, ttl: float) -> bool:
        """Raises `StoreAway` when full."""
        now = self._clock.monotonic()
        if (kept := self._values.get(key)) and kept[0] > now:
            return False
        self._make_room(key)
        self._values[key] = (now + ttl, b"")
        return True

    async def take(self, key: str) -> bytes | None:
        """As the contract says."""
        kept = self._values.pop(key, None)
        return kept[1] if kept and kept[0] > self._clock.monotonic() else None

    async def drop(self, key: str) -> None:
        """As the contract says."""
        self._values.pop(key, None)
        self._counters.pop(key, None)

    async def left(self, key: str) -> float:
        """As the contract says."""
        kept = self._values.get(key) or self._counters.get(key)
        return max(0.0, kept[0] - self._clock.monotonic()) if kept else 0.0

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """As the contract says."""
        now = self._clock.monotonic()
        expires_at, number = self._counters.get(key, (0.0, 0))
        if expires_at <= now:
            expires_at, number = now + ttl, 0
            self._counters.pop(key, None)
            if len(self._counters) >= self._capacity:
                self._sweep(now)
            if len(self._counters) >= self._capacity:
                self._forget_some()
        self._counters.keep(key, (expires_at, number + amount))
        return number + amount

    def _make_room(self, key: str) -> None:
        if len(self._values) < self._capacity or key in self._values:
            return
        self._sweep(self._clock.monotonic())
        if len(self._values) >= self._capacity:
            raise StoreAway("too many pending values; try again later")

    def _forget_some(self) -> None:
        """An eighth of the counters, those that say least."""
        least = sorted(self._counters.items(), key=lambda one: one[1][1])
        for key, _ in least[: self._capacity // 8 + 1]:
            del self._counters[key]

    def _sweep(self, now: float) -> None:
        """Forget what has expired, at most once a second: a full shelf must not cost a walk for every request."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + 1.0
        for key in [key for key, kept in self._values.items() if kept[0] <= now]:
            del self._values[key]
        for key in [key for key, counter in self._counters.items() if counter[0] <= now]:
            del self._counters[key]
