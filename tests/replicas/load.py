"""Clients that keep their connection and ask at a pace, and what each request came to. Nothing is tried twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

from tests.replicas.several import Replica, raw


class One(NamedTuple):
    """One request."""

    name: str
    """What was asked for."""
    replica: int
    sent: float
    """As `time.time` says, like the next."""
    answered: float
    status: int
    """0 where no answer came."""

    @property
    def took(self) -> float:
        """Seconds."""
        return self.answered - self.sent


class Load:
    """Everything that was asked."""

    def __init__(self) -> None:
        self.tally: list[One] = []
        self.over = asyncio.Event()
        self.turned_away = 0
        """Connections that could not be made, as when nobody listens."""

    def of(self, name: str, replica: int | None = None) -> list[One]:
        """Requests for one target."""
        return [one for one in self.tally if one.name == name and replica in (None, one.replica)]

    def let_through(self, name: str) -> int:
        """Requests for it that were answered 200."""
        return sum(one.status == 200 for one in self.of(name))

    def statuses(self, name: str, replica: int | None = None) -> Counter[int]:
        """How requests for it were answered."""
        return Counter(one.status for one in self.of(name, replica))

    async def client(
        self, number: int, replica: Replica, targets: Iterator[str], first: int, pace: float, cookie: str
    ) -> None:
        """One client of replica `number`, which asks for one target after the other, every `pace` seconds."""
        turns = itertools.islice(targets, first, None)
        link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.over.is_set():
            target, sent = next(turns), time.time()
            try:
                if link is not None and link[0].at_eof():
                    link[1].close()
                    link = None
                if link is None:
                    link = await asyncio.open_connection("127.0.0.1", replica.port)
                    sent = time.time()
                self.tally.append(One(target, number, sent, *await asked(*link, raw(target, cookie=cookie))))
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                if link is None:
                    self.turned_away += 1
                else:
                    self.tally.append(One(target, number, sent, time.time(), 0))
                    link[1].close()
                    link = None
            due = max(due + pace, loop.time() - pace)
            await asyncio.sleep(max(0.0, due - loop.time()))
        if link is not None:
            link[1].close()


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[float, int]:
    """When the answer was there, and its status."""
    async with asyncio.timeout(20.0):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        await reader.readexactly(length)
    return time.time(), int(head[9:12])


@contextlib.asynccontextmanager
async def loaded(
    replicas: Sequence[Replica], targets: Sequence[str], *, clients: int = 4, pace: float = 0.04, cookie: str = ""
) -> AsyncIterator[Load]:
    """`clients` on each replica, until the end of it. Where one of them fails in itself, so does the test."""
    load = Load()
    tasks = [
        asyncio.create_task(load.client(number, replica, itertools.cycle(targets), turn, pace, cookie))
        for number, replica in enumerate(replicas)
        for turn in range(clients)
    ]
    try:
        yield load
    finally:
        load.over.set()
        await asyncio.gather(*tasks)
