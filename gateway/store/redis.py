"""What replicas share, on Redis: scripts, commands about one key, messages.

    run, execute ─▶ line: away? StoreAway at once
                    └▶ nodes: whose key is it? ─▶ link: written at once, answered in order

A call waits 50 ms at most, whatever happens: connecting, a redirection and a script the server has forgotten are in
these 50 ms. Nothing is sent twice unless the server has said that it did not do it. What says that the server cannot
be used (it is loading, a replica, out of memory, does not know us any more) makes the store away, like silence does;
a mistake in a script of ours is an error that is raised.

Several keys of one script share a hash tag, `{…}`, so that they are in one place on a cluster too.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any

from redis.exceptions import RedisError, ResponseError

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, StoreAway
from gateway.store.line import DEADLINE, Line
from gateway.store.redis_channel import Ear
from gateway.store.redis_link import Link, Lost, Word, connect
from gateway.store.redis_where import Address, Where

_log = logging.getLogger("sallyport")

AWAY = frozenset(
    "READONLY LOADING MASTERDOWN CLUSTERDOWN OOM NOAUTH WRONGPASS NOPERM MISCONF BUSY NOREPLICAS TRYAGAIN "
    "UNBLOCKED INPROG".split()
)
"""First words of errors that say: this server is no use now. The others are mistakes of ours."""
_IN_SCRIPT = re.compile(r"^ERR Error running script .*?: -?([A-Z]+) ")
"""How a server before 7.0 tells what a command in a script was answered."""


class Script:
    """A Lua script, known to servers by its SHA-1."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


class Redis:
    """One Redis, however many servers it is made of."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self.prefix = where.prefix
        self.line = Line("shared", self._probe)
        self._node = Node(where, where.addresses[0], self._ended)
        self._ear = Ear(self)

    @classmethod
    async def open(cls, where: Where, *, clock: Clock) -> Redis:
        """The Redis at `where`, looked at and found fit. Raises `ConfigError`, also when it is merely away."""
        redis = cls(where)
        try:
            await redis._node.reach(2.0)
        except (Lost, OSError, RedisError, TimeoutError) as error:
            await redis.close()
            raise ConfigError(f"store.shared: {where} cannot be reached: {_words(error)}") from None
        except BaseException:
            await redis.close()
            raise
        return redis

    @property
    def clustered(self) -> bool:
        """Whether keys without a common hash tag may be in different places."""
        return self.where.kind == "cluster"

    async def run(self, script: Script, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        """What the script answers, as redis-py gives it without decoding. Its keys share a hash tag.

        Raises `StoreAway`; `redis.exceptions.ResponseError` for a mistake in the script.
        """
        count = len(keys)
        try:
            return await self._call(("EVALSHA", script.sha, count, *keys, *args))
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await self._call(("EVAL", script.text, count, *keys, *args))

    async def execute(self, *command: Word) -> Any:
        """What one command is answered; its second word is the key. Raises as `run` does."""
        return await self._call(command)

    async def publish(self, topic: str, message: bytes) -> None:
        """As the contract says."""
        await self._call(("PUBLISH", f"{self.prefix}{topic}", message))

    def listen(self, topic: str, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """As the contract says. `lost` is called also when listening begins."""
        self._ear.listen(topic, heard, lost)

    async def close(self) -> None:
        """Let go of every connection."""
        await self._ear.close()
        await self.line.close()
        self._node.close()

    async def _call(self, command: tuple[Word, ...]) -> Any:
        self.line.check()
        link = self._node.link
        try:
            if link is None:
                link = await self._node.reach(DEADLINE)
            return await link.ask(command)
        except ResponseError as error:
            if (why := _away(str(error))) == "":
                raise
            self.line.failed(why)
            raise StoreAway(f"shared: {why}") from None
        except (Lost, OSError, RedisError, TimeoutError) as error:
            why = _words(error)
            self.line.failed(why)
            raise StoreAway(f"shared: {why}") from None

    def _ended(self, why: str) -> None:
        """A link has broken. Where somebody waited they say so; nobody needs to know otherwise."""

    async def _probe(self) -> None:
        link = await self._node.reach(DEADLINE)
        try:
            await link.ask(("PING",))
        except (ResponseError, Lost) as error:
            raise StoreAway(str(error)) from None


class Node:
    """One server, and the link to it."""

    def __init__(self, where: Where, address: Address, ended: Callable[[str], None]) -> None:
        self.where = where
        self.address = address
        self._ended = ended
        self._link: Link | None = None
        self._connecting: asyncio.Task[Link] | None = None

    @property
    def link(self) -> Link | None:
        """The open link, if there is one."""
        return self._link if self._link is not None and not self._link.broken else None

    async def reach(self, seconds: float) -> Link:
        """The link, after `seconds` at most; many who ask wait for the same. Raises as `connect` does."""
        if (link := self.link) is not None:
            return link
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(), name=f"connecting to {self.address}")
            self._connecting.add_done_callback(_heard)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._connecting)
        except TimeoutError:
            raise TimeoutError(f"no connection within {seconds * 1000:g} ms") from None

    def close(self) -> None:
        """Let go of it."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.close()

    async def _connect(self) -> Link:
        self._link = Link(await connect(self.where, self.address), DEADLINE, self._ended)
        return self._link


def _heard(task: asyncio.Task[Link]) -> None:
    """Somebody has looked at how it ended; else asyncio would say that nobody did."""
    if not task.cancelled():
        task.exception()


def _away(error: str) -> str:
    """Why the server is no use, or nothing where the error is a mistake of ours."""
    code = error.partition(" ")[0]
    if code == "ERR" and (inner := _IN_SCRIPT.search(error)):
        code = inner[1]
    return error if code in AWAY else ""


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
