"""Small things that expire, on Redis: shared by every replica, and gone when Redis says so.

Each method is one command or one script about one key, so it is one step, on a cluster too. Time is Redis's own: it is
asked for a lifetime, never told a moment, so replicas whose clocks differ keep things equally long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store.redis import Script

if TYPE_CHECKING:
    from gateway.store.redis import Redis

_ADD = Script(
    """
local number = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return number
"""
)


class RedisKeyValue:
    """A `KeyValue` of keys that begin with `k:`. Every method raises `StoreAway`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._prefix = f"{redis.prefix}k:"

    async def get(self, key: str) -> bytes | None:
        """The value, or a counter's digits."""
        value: bytes | None = await self._redis.execute("GET", self._prefix + key)
        return value

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """As the contract says."""
        await self._redis.execute("SET", self._prefix + key, value, "PX", _ms(ttl))

    async def claim(self, key: str, ttl: float) -> bool:
        """As the contract says."""
        return await self._redis.execute("SET", self._prefix + key, b"", "PX", _ms(ttl), "NX") is not None

    async def take(self, key: str) -> bytes | None:
        """As the contract says."""
        value: bytes | None = await self._redis.execute("GETDEL", self._prefix + key)
        return value

    async def drop(self, key: str) -> None:
        """As the contract says."""
        await self._redis.execute("DEL", self._prefix + key)

    async def left(self, key: str) -> float:
        """As the contract says."""
        milliseconds: int = await self._redis.execute("PTTL", self._prefix + key)
        return 0.0 if milliseconds < 0 else max(1, milliseconds) / 1000  # 0 is the last millisecond it is there

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """As the contract says."""
        number: int = await self._redis.run(_ADD, [self._prefix + key], [amount, _ms(ttl)])
        return number


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
