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

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, StoreAway

try:
    import hiredis  # noqa: F401 - the links need it
    from redis.exceptions import ResponseError
except ModuleNotFoundError as error:
    raise ConfigError(
        "store.shared: Redis needs a library that is not installed", "pip install 'sallyport[redis]'"
    ) from error

from gateway.store.line import Line
from gateway.store.redis_channel import Ear
from gateway.store.redis_checks import PATIENCE, examine, not_fit
from gateway.store.redis_link import Closed, Word, ended, seen, why
from gateway.store.redis_nodes import Cluster, Failed, Sentinels, make_nodes
from gateway.store.redis_where import Address, Where

_log = logging.getLogger("sallyport")

AWAY = frozenset("READONLY LOADING MASTERDOWN CLUSTERDOWN OOM NOAUTH WRONGPASS NOPERM MISCONF BUSY NOREPLICAS".split())
"""First words of errors that say: this server is no use now. The others are mistakes of ours."""
_IN_SCRIPT = re.compile(r"^ERR Error running script .*?: -?([A-Z]+) ")
"""How a server before 7.0 tells what a command in a script was answered."""
_NOT_OURS = "ERR The user executing the script can't"
"""How 7.0 says NOPERM of a command in a script."""


AGAIN = 0.005
"""Seconds until a cluster that is moving keys is asked again."""
STEP = 250
"""Keys that one step of a scan looks at: a server does nothing else meanwhile."""
LOOK_EVERY = 1.0
"""Seconds between two looks whether Sentinels name another master."""


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
        self.line = Line("shared", self._probe, deadline=where.deadline)
        self._nodes = make_nodes(where)
        self._ear = Ear(self)
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, where: Where, *, clock: Clock) -> Redis:
        """The Redis at `where`, looked at and found fit.

        Raises `ConfigError`, also where it is merely away: a gateway that has never seen its store cannot know whether
        it is the right one, and whoever started it tries again.
        """
        redis = cls(where)
        try:
            try:
                await redis._nodes.find(PATIENCE)
                for node, end in redis._nodes.masters().items():
                    await examine(where, node, f"{where.prefix}check{end}")
            except Failed as error:
                raise not_fit(where, error) from None
        except BaseException:
            await redis.close()
            raise
        if isinstance(redis._nodes, Sentinels):
            redis._watching = asyncio.create_task(redis._watch(redis._nodes), name="watching Sentinels")
        return redis

    @property
    def clustered(self) -> bool:
        """Whether keys without a common hash tag may be in different places."""
        return self.where.kind == "cluster"

    async def run(self, script: Script, keys: Sequence[Word], args: Sequence[Word]) -> Any:
        """What the script answers: bytes, integers, lists of them, None. Its keys share a hash tag.

        Raises `StoreAway`; `redis.exceptions.ResponseError` for a mistake in the script.
        """
        try:
            return await self._call(keys[0], ("EVALSHA", script.sha, len(keys), *keys, *args))
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await self._call(keys[0], ("EVAL", script.text, len(keys), *keys, *args))

    async def execute(self, *command: Word) -> Any:
        """What one command is answered; its second word is the key. Raises as `run` does."""
        return await self._call(command[1], command)

    async def scan(self, pattern: str, cursor: bytes) -> tuple[bytes, list[bytes]]:
        """Names of keys like `pattern` (a glob), and the cursor to go on with: `b"0"` to begin with, and at the end.

        One that is there all the while comes once or more. On a cluster, of the server that has the hash tag of
        `pattern`. Raises as `run` does, and may then be asked again.
        """
        cursor, names = await self._call(pattern, ("SCAN", cursor, "MATCH", pattern, "COUNT", STEP))
        return cursor, names

    async def publish(self, topic: str, message: bytes) -> None:
        """As the contract says."""
        channel = f"{self.prefix}{topic}"
        await self._call(channel, ("PUBLISH", channel, message))

    def listen(self, topic: str, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """As the contract says. `lost` is called also when listening begins."""
        self._ear.listen(topic, heard, lost)

    async def close(self) -> None:
        """Let go of every connection."""
        await self.line.close()  # first: who is told that it is closed must not make us look whether it is back
        await ended(self._watching)
        await self._ear.close()
        await self._nodes.close()

    def listen_at(self) -> Sequence[Address]:
        """Where messages can be heard now."""
        return [node.address for node in self._nodes.masters()]

    async def _call(self, key: Word, command: tuple[Word, ...]) -> Any:
        self.line.check()
        began, lost = asyncio.get_running_loop().time(), self.line.lost
        try:
            link = self._nodes.link(key)
            if link is None:
                link = await self._nodes.reach(key, self.line.deadline)
            return await link.ask(command)
        except ResponseError as error:
            said = str(error)
            code = said.partition(" ")[0]
            if isinstance(self._nodes, Cluster) and code in ("MOVED", "ASK", "TRYAGAIN"):
                return await self._redirected(self._nodes, said, key, command, began + self.line.deadline)
            if not _no_use(said):
                raise
            self.line.failed(said)
            raise StoreAway(f"{self.line.name}: {said}") from None
        except Failed as error:
            raise self._away(error, lost) from None

    def _away(self, error: BaseException, lost: int) -> StoreAway:
        """What to raise for one of `Failed`, which is told to the line where it says anything of the server.

        `lost`: how often it was away when the call began.
        """
        if not isinstance(error, Closed):
            self.line.failed(why(error), lost)
        return StoreAway(f"{self.line.name}: {why(error)}")

    async def _redirected(self, nodes: Cluster, said: str, key: Word, command: tuple[Word, ...], due: float) -> Any:
        """Ask where the cluster says, again and again while keys are on their way, until `due`.

        Each of these answers says that nothing was done. Not to get any further before `due` is this call's bad luck,
        not the whole store's.
        """
        lost = self.line.lost
        try:
            async with asyncio.timeout_at(due):
                while True:
                    self.line.check()  # it may be closed by now
                    code, _, rest = said.partition(" ")
                    if code == "TRYAGAIN":  # some of its keys have moved, some have not
                        await asyncio.sleep(AGAIN)
                        link = await nodes.reach(key, self.line.deadline)
                    else:
                        slot, address = nodes.redirected(key, rest)
                        node = nodes.moved(slot, address) if code == "MOVED" else nodes.at(address)
                        link = await node.reach(self.line.deadline)
                        if code == "ASK":
                            link.ask(("ASKING",)).add_done_callback(seen)  # the command after it says what matters
                    try:
                        return await link.ask(command)
                    except ResponseError as error:
                        said = str(error)
                        if said.partition(" ")[0] not in ("MOVED", "ASK", "TRYAGAIN"):
                            if not _no_use(said):
                                raise
                            self.line.failed(said)
                            raise StoreAway(f"{self.line.name}: {said}") from None
        except TimeoutError:
            raise StoreAway(f"{self.line.name}: keys are being moved") from None
        except Failed as error:
            if isinstance(error, ResponseError):
                raise
            raise self._away(error, lost) from None

    async def _probe(self) -> None:
        """Whether every server that is written to can be written to: a replica, or one that is full, answers too."""
        try:
            await self._nodes.find(self.line.deadline)
            key = f"{self.prefix}probe"
            masters = self._nodes.masters().items()
            await asyncio.gather(*(node.ask("SET", f"{key}{end}", "", "PX", "1000") for node, end in masters))
        except Failed as error:
            raise StoreAway(why(error)) from None

    async def _watch(self, sentinels: Sentinels) -> None:
        """A master that is cut off from the others does not know that it is none any more; Sentinels do."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                if self.line.up and await sentinels.moved():
                    self.line.failed("another master was elected")
                    for node in sentinels.masters():
                        node.close()
            except Failed:
                continue
            except Exception:
                _log.exception("looking at Sentinels failed")


def _no_use(error: str) -> bool:
    """Whether an error says that the server is no use now; else it is a mistake of ours."""
    code = error.partition(" ")[0]
    if code == "ERR" and (inner := _IN_SCRIPT.search(error)):
        code = inner[1]
    return code in AWAY or error.startswith(_NOT_OURS)
