"""Which server has a key: the only one, the master Sentinels name, or a master of a cluster.

`find` looks where they are now. It is asked before each connection to a master of Sentinels, by each probe of a store
that is away, and when a cluster says that it has changed. What it finds replaces what was known at once; a call that
is on its way to the old place ends with it.

A cluster counts as one store: it is away when one of its masters is. So is the cluster itself, unless it was told
otherwise (`cluster-require-full-coverage`), and a gateway that had half of its limits would let too much through.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import RedisError

from gateway.store.redis_link import Link, Lost, Node, Word, ended, outcome, seen, why
from gateway.store.redis_where import Address, Where

_log = logging.getLogger("sallyport")

SLOTS = 16384
_REDIRECTED = re.compile(r"([0-9]{1,5}) (\S*):([0-9]{1,5})(?: .*)?", re.DOTALL).fullmatch
ALL = 0.6
"""Part of the time in which all who are asked may answer; after it one answer is enough."""

Failed = (Lost, OSError, RedisError, TimeoutError)
"""What connecting and asking raise when the other side is no use."""


class Nodes(Protocol):
    """The servers of one Redis."""

    def link(self, key: Word) -> Link | None:
        """The link to the server that has `key`, where it is open."""
        ...

    async def reach(self, key: Word, seconds: float) -> Link:
        """The link to the server that has `key`. Raises one of `Failed`."""
        ...

    async def find(self, seconds: float) -> None:
        """Look where the servers are, and connect to all that are written to. Raises one of `Failed`."""
        ...

    def masters(self) -> Mapping[Node, str]:
        """All that are written to, each with the end of a key that it has."""
        ...

    async def close(self) -> None:
        """Let go of them."""
        ...


class OneServer:
    """The only one."""

    def __init__(self, where: Where) -> None:
        self._node = Node(where, where.addresses[0])

    def link(self, key: Word) -> Link | None:
        """As `Nodes` says."""
        return self._node.link

    async def reach(self, key: Word, seconds: float) -> Link:
        """As `Nodes` says."""
        return await self._node.reach(seconds)

    async def find(self, seconds: float) -> None:
        """As `Nodes` says."""
        await self._node.reach(seconds)

    def masters(self) -> Mapping[Node, str]:
        """As `Nodes` says."""
        return {self._node: ""}

    async def close(self) -> None:
        """As `Nodes` says."""
        await self._node.closed()


class NoSuchMaster(Lost):
    """Sentinels answer, and know nobody of that name."""


class Sentinels:
    """The master that Sentinels name. The one who knows the latest election is believed."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._sentinels = [Node(where, address, sentinel=True) for address in where.addresses]
        self._master: Node | None = None
        self._finding: asyncio.Task[None] | None = None

    def link(self, key: Word) -> Link | None:
        """As `Nodes` says."""
        return self._master.link if self._master is not None else None

    async def reach(self, key: Word, seconds: float) -> Link:
        """As `Nodes` says: a link that has ended may have, because another is the master now."""
        await self.find(seconds)
        if self._master is None:
            raise Lost("no master is known")
        return await self._master.reach(seconds)

    async def find(self, seconds: float) -> None:
        """As `Nodes` says."""
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(
                self._find(max(seconds, self._where.deadline)), name="finding the master"
            )
            self._finding.add_done_callback(seen)
        await outcome(self._finding, seconds)

    def masters(self) -> Mapping[Node, str]:
        """As `Nodes` says."""
        return {self._master: ""} if self._master is not None else {}

    async def close(self) -> None:
        """As `Nodes` says."""
        await ended(self._finding)  # only then nobody begins to connect to a node that was let go of
        for node in (*self._sentinels, *self.masters()):
            await node.closed()

    async def moved(self) -> bool:
        """Whether the Sentinels name another master than the one in use."""
        address = await self._named(1.0)
        return self._master is not None and address != self._master.address

    async def _find(self, seconds: float) -> None:
        address = await self._named(seconds)
        if self._master is None or self._master.address != address:
            if self._master is not None:
                _log.warning("the master of the shared store is %s now", address)
                self._master.close()
            self._master = Node(self._where, address)
        if self._master.link is None:
            answer = await self._master.ask("INFO", "replication", seconds=seconds)
            if b"role:master" not in answer:
                self._master.close()
                raise Lost(f"{address} is not the master any more, and no other is named yet")

    async def _named(self, seconds: float) -> Address:
        name = self._where.master
        questions = [partial(node.ask, "SENTINEL", "MASTER", name, seconds=seconds) for node in self._sentinels]
        answers = await _all(questions, seconds)
        best: dict[bytes, bytes] = {}
        for answer in answers:
            if isinstance(answer, list):
                said = dict(zip(answer[::2], answer[1::2], strict=False))
                if not best or int(said[b"config-epoch"]) > int(best[b"config-epoch"]):
                    best = said
        if best:
            return Address(best[b"ip"].decode(), int(best[b"port"]))
        if any("No such master" in str(answer) for answer in answers):
            raise NoSuchMaster(f"no Sentinel knows a master called `{name}`")
        raise Lost(f"no Sentinel answers: {', '.join(sorted({why(e) for e in answers if isinstance(e, Exception)}))}")


class Cluster:
    """Masters that share the slots."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._nodes = {address: Node(where, address) for address in where.addresses}
        self._slots: list[Node] = []
        self._finding: asyncio.Task[None] | None = None
        self._turn = 0

    def link(self, key: Word) -> Link | None:
        """As `Nodes` says."""
        return self._slots[_slot(key)].link if self._slots else None

    async def reach(self, key: Word, seconds: float) -> Link:
        """As `Nodes` says."""
        if not self._slots:
            await self.find(seconds)
        return await self._slots[_slot(key)].reach(seconds)

    async def find(self, seconds: float) -> None:
        """As `Nodes` says."""
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(
                self._find(max(seconds, self._where.deadline)), name="finding the masters"
            )
            self._finding.add_done_callback(seen)
        await outcome(self._finding, seconds)

    def masters(self) -> Mapping[Node, str]:
        """As `Nodes` says."""
        found: dict[Node, str] = {}
        missing = set(self._slots)
        for number in range(100_000):
            if not missing:
                break
            end = f"{{{number}}}"
            node = self._slots[_slot(end)]
            if node in missing:
                missing.discard(node)
                found[node] = end
        return found

    def redirected(self, key: Word, text: str) -> tuple[int, Address]:
        """Slot and address as an error tells them: `slot host:port`, or `:port` of the host that was asked.

        Raises `Lost` for what tells no such thing.
        """
        if (told := _REDIRECTED(text)) is None or int(told[1]) >= SLOTS:
            raise Lost("it sends us to no place there is")
        return int(told[1]), Address(told[2].strip("[]") or self._slots[_slot(key)].address.host, int(told[3]))

    def moved(self, slot: int, address: Address) -> Node:
        """A slot is somewhere else now, and more may be."""
        node = self.at(address)
        if self._slots:
            self._slots[slot] = node
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(self._find(1.0), name="finding the masters")
            self._finding.add_done_callback(seen)
        return node

    def at(self, address: Address) -> Node:
        """The node there."""
        if address not in self._nodes:
            self._nodes[address] = Node(self._where, address)
        return self._nodes[address]

    async def close(self) -> None:
        """As `Nodes` says."""
        await ended(self._finding)  # only then nobody begins to connect to a node that was let go of
        for node in self._nodes.values():
            await node.closed()

    async def _find(self, seconds: float) -> None:
        """Each time another node is asked first: one that is cut off from the others would tell old news for ever."""
        asked = [*dict.fromkeys(self._slots), *(self.at(address) for address in self._where.addresses)]
        asked = list(dict.fromkeys(asked))
        self._turn += 1
        turn = self._turn % len(asked)
        asked = asked[turn:] + asked[:turn]
        questions = [partial(node.ask, "CLUSTER", "SLOTS", seconds=seconds) for node in asked]
        answers = await _all(questions, seconds * ALL)
        slots: list[Node] | None = None
        for node, answer in zip(asked, answers, strict=True):
            if isinstance(answer, list) and (slots := self._read(node, answer)) is not None:
                break
        if slots is None:
            errors = sorted({why(e) for e in answers if isinstance(e, Exception)})
            raise Lost(", ".join(errors) if errors else "the cluster has slots that nobody serves")
        self._slots = slots
        keep = {*slots, *(self.at(address) for address in self._where.addresses)}
        for address, node in list(self._nodes.items()):
            if node not in keep and not node.busy:  # who is on their way to it was sent there: keys are moving
                del self._nodes[address]
                node.close()
        await asyncio.gather(*(node.reach(seconds) for node in dict.fromkeys(slots)))

    def _read(self, asked: Node, answer: list[Any]) -> list[Node] | None:
        """The node of each slot; None where one has none."""
        slots: list[Node | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in answer:
            node = self.at(Address(host.decode() if host and host != b"?" else asked.address.host, int(port)))
            slots[first : last + 1] = [node] * (last - first + 1)
        return None if None in slots else slots  # type: ignore[return-value]


def make_nodes(where: Where) -> Nodes:
    """The servers of `where`."""
    if where.kind == "sentinel":
        return Sentinels(where)
    return Cluster(where) if where.kind == "cluster" else OneServer(where)


def _slot(key: Word) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


async def _all(questions: Sequence[Callable[[], Awaitable[Any]]], seconds: float) -> list[Any]:
    """What each was answered, or why not. Who does not answer is not waited for longer than a part of the time."""

    async def asked(question: Callable[[], Awaitable[Any]]) -> Any:
        return await question()

    tasks = [asyncio.ensure_future(asked(question)) for question in questions]
    for task in tasks:
        task.add_done_callback(seen)  # whoever asks may be gone by then
    try:
        done, late = await asyncio.wait(tasks, timeout=seconds * ALL)
        if late and not any(task.exception() is None for task in done):
            await asyncio.wait(late, timeout=seconds * (1 - ALL), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
    answers: list[Any] = []
    for task in tasks:
        if not task.done() or task.cancelled():
            answers.append(TimeoutError("no answer in time"))
        else:
            answers.append(task.exception() or task.result())
    return answers
