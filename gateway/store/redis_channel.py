"""Listening: one connection that does nothing else, so that a message never waits behind an answer.

Pub/sub keeps nothing: what is said while nobody listens is gone. So every (new) subscription says `lost`, and whoever
listens has then to look for themselves. A silent connection is asked each second whether it is there; one that does
not answer within another is given up.

Plain pub/sub on a cluster as well: each node passes on what was said at any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from gateway.core.errors import StoreAway
from gateway.store.redis_link import Lost, connect, ended, let_go, seen, why

if TYPE_CHECKING:
    from gateway.store.redis import Redis
    from gateway.store.redis_where import Address

_log = logging.getLogger("sallyport")

ASK_EVERY = 1.0
"""Seconds of silence until the server is asked whether it is there, and again until it is given up."""
AGAIN = 0.25
"""Seconds between two tries to listen."""

Heard = Callable[[bytes], None]
Missed = Callable[[], None]


class Ear:
    """Listens for `redis`, from the first topic on."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._topics: dict[bytes, list[tuple[Heard, Missed]]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._connection: Any = None
        self._asked: set[asyncio.Task[None]] = set()
        self._turn = 0
        self._hears = True
        """Whether it hears, or has not said yet that it does not."""
        self._seen = 0.0

    def listen(self, topic: str, heard: Heard, lost: Missed) -> None:
        """As the contract says."""
        name = f"{self._redis.prefix}{topic}".encode()
        known = name in self._topics
        self._topics.setdefault(name, []).append((heard, lost))
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._listen(), name="listening to Redis")
        elif not known and self._connection is not None:
            more = asyncio.get_running_loop().create_task(self._more(self._connection, name), name="listening to more")
            self._asked.add(more)
            more.add_done_callback(self._asked.discard)

    async def _more(self, connection: Any, name: bytes) -> None:
        with contextlib.suppress(OSError, RedisError):  # the next connection listens to all
            await _say(connection, "SUBSCRIBE", name)

    async def close(self) -> None:
        """Listen no more."""
        for task in (self._listening, *self._asked):
            await ended(task)

    async def _listen(self) -> None:
        while True:
            try:
                await self._until_lost()
            except (Lost, OSError, RedisError, StoreAway, TimeoutError) as error:
                if self._hears:
                    _log.warning("the other replicas are not heard: %s", why(error))
            except Exception:
                _log.exception("the other replicas are not heard")
            self._hears = False
            await asyncio.sleep(AGAIN)

    async def _until_lost(self) -> None:
        at = self._redis.listen_at()
        if not at:
            raise Lost("nobody knows where it is")
        self._turn += 1
        address = at[self._turn % len(at)]
        connection: Any = await connect(self._redis.where, address)
        asking = None
        try:
            self._connection = connection
            await connection.send_command("SUBSCRIBE", *self._topics)
            self._seen = asyncio.get_running_loop().time()
            asking = asyncio.create_task(self._ask(connection, address), name="asking whether Redis is there")
            asking.add_done_callback(seen)  # what it stumbles over, who listens does too
            while True:
                reply = await connection.read_response(disable_decoding=True)
                self._seen = asyncio.get_running_loop().time()
                self._take(reply)
        finally:
            self._connection = None
            if asking is not None:
                asking.cancel()
            let_go(connection)

    async def _ask(self, connection: Any, address: Address) -> None:
        """Give the connection up where it says nothing, or where nobody speaks there any more."""
        asked_at = 0.0
        while True:
            await asyncio.sleep(ASK_EVERY / 2)
            now = asyncio.get_running_loop().time()
            if now - self._seen > 2 * ASK_EVERY or address not in self._redis.listen_at():
                let_go(connection)
                return
            if now - max(self._seen, asked_at) >= ASK_EVERY:
                asked_at = now
                await _say(connection, "PING")

    def _take(self, reply: Any) -> None:
        match reply:
            case [b"message", bytes(topic), bytes(message)]:
                for heard, _ in self._topics.get(topic, ()):
                    _call(heard, message)
            case [b"subscribe", bytes(topic), _]:
                self._hears = True
                for _, lost in self._topics.get(topic, ()):
                    _call(lost)
            case _:
                pass


async def _say(connection: Any, *command: str | bytes) -> None:
    """Unless it is gone: redis-py would connect anew then, and nobody would let go of that."""
    if connection.is_connected:
        await connection.send_command(*command)


def _call(listener: Callable[..., None], *message: bytes) -> None:
    try:
        listener(*message)
    except Exception:
        _log.exception("what was heard of the other replicas could not be followed")
