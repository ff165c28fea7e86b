"""Several gateways as an operator runs them: processes of their own that share one folder of policies and keys, and
stores. Each may be killed, stopped and started again; what it says is kept."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gateway.core.clock import SystemClock
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.store.place import Place
from gateway.store.sql import Records
from tests.house.process import PATIENCE, Home, Process, home
from tests.house.visitor import Visitor
from tests.rig.argon2 import as_shipped
from tests.rig.awake import Awake
from tests.rig.client import RawClient
from tests.rig.gateway import PASSWORD
from tests.rig.ledger import Remembered
from tests.rig.messages import Response
from tests.rig.ports import free_port
from tests.rig.upstream import ok

NEVER = ("Traceback", "never retrieved", "was never awaited", "Task was destroyed", "housekeeping failed")
"""What no log of a gateway holds, whatever the day was like."""
LISTENING = "listening on"


class Replica:
    """One of the gateways."""

    def __init__(self, house: Home, number: int, environ: Mapping[str, str]) -> None:
        self.house = house
        self.port, self.admin_port = free_port(), free_port()
        self.file = f"config-{number}.yaml"
        self.environ = dict(environ)
        self.said = ""
        """Everything it wrote to standard error, over all its lives."""
        self.process: Process
        self._reading: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def write_config(self, **entries: Any) -> None:
        """Its own copy of the house's configuration."""
        mine = {"listen": f"127.0.0.1:{self.port}", "admin_listen": f"127.0.0.1:{self.admin_port}"}
        (self.house.folder / self.file).write_text(yaml.safe_dump(self.house.config | mine | entries))

    async def start(self) -> Replica:
        """Start it, and wait until it serves."""
        before, self.house.environ = self.house.environ, self.house.environ | self.environ
        times = self.said.count(LISTENING) + 1
        try:
            self.process = await self.house.start("run", "--config", self.file)
        finally:
            self.house.environ = before
        self._reading = asyncio.create_task(self._read())
        await self.until(LISTENING, times)
        return self

    async def until(self, words: str, times: int = 1, within: float = PATIENCE) -> None:
        """Wait until it has said `words` so many times."""
        async with asyncio.timeout(within):
            while self.said.count(words) < times:
                assert self._reading is None or not self._reading.done(), f"ended without {words!r}: {self.said}"
                await self._changed.wait()

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self._ended()

    async def kill(self) -> None:
        """SIGKILL: nothing is finished, nothing is written."""
        os.kill(self.process.pid, signal.SIGKILL)
        await self._ended()

    async def _ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            if self._reading is not None:
                await self._reading
        return code

    async def _read(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        while line := await stream.readline():
            self.said += line.decode(errors="replace")
            self._wake()
        asyncio.get_running_loop().call_soon(self._wake)  # once this task is done

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def ask(self, target: str, *, cookie: str = "", head: str = "", method: str = "GET") -> Response:
        """One request on a connection of its own."""
        async with await RawClient.connect(self.port) as client:
            await client.send(raw(target, cookie=cookie, head=head, method=method))
            return await client.response(method)

    async def metrics(self) -> dict[str, float]:
        """What is scraped: every sample by its name and labels, as they are spelled."""
        text = (await self._admin("/metrics")).body.decode()
        return {name: float(value) for name, value in re.findall(r"^(sallyport_\S+) (\S+)$", text, re.MULTILINE)}

    async def readiness(self) -> tuple[int, dict[str, Any]]:
        """`/readyz`: its status, and what it says."""
        answer = await self._admin("/readyz")
        return answer.status, json.loads(answer.body)

    async def _admin(self, path: str) -> Response:
        async with await RawClient.connect(self.admin_port) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n".encode())
            return await client.response()

    def visitor(self) -> Visitor:
        """A browser that has this one's address."""
        return Visitor(self.port, origin=f"http://127.0.0.1:{self.house.port}")


def raw(target: str, *, cookie: str = "", head: str = "", method: str = "GET") -> bytes:
    """A request as a program sends it."""
    line = f"Cookie: {cookie}\r\n" if cookie else ""
    return f"{method} {target} HTTP/1.1\r\nHost: good.test\r\nUser-Agent: raw-client/1\r\n{line}{head}\r\n".encode()


class Service:
    """What is behind: answers 200 to everything, and tells how many requests came, and as whom."""

    def __init__(self) -> None:
        self.port = 0
        self.named: dict[str, int] = {}
        """Requests by target and `X-Forwarded-User`: `/app/x bob`; `/app/x ` where nobody was named."""
        self._server: asyncio.Server | None = None

    async def start(self) -> Service:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Served(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def close(self) -> None:
        if self._server is not None:
            self._server.close()


class _Served(asyncio.Protocol):
    """Requests without bodies are all that is sent here."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            named = re.search(rb"(?im)^x-forwarded-user: *([^\r\n]*)", head)
            who = f"{head.split(b' ', 2)[1].decode()} {named[1].decode() if named else ''}"
            self._service.named[who] = self._service.named.get(who, 0) + 1
            self._transport.write(ok(b"served"))


class Several:
    """A house with its replicas and the service behind them."""

    def __init__(self, house: Home, service: Service, replicas: Sequence[Replica]) -> None:
        self.house = house
        self.service = service
        self.replicas = list(replicas)

    async def add_users(self, *names: str, groups: Sequence[str] = ()) -> None:
        """People with the password of the rig; once there are tables."""
        where = Place(absolute(self.house.config["store"]["records"], self.house.folder))
        records = await Records.open(where, clock=SystemClock())
        records.line.deadline = PATIENCE
        passwords = Passwords()
        try:
            users = LocalUsers(records, passwords, SystemClock(), Remembered())
            with as_shipped():
                for name in names:
                    await users.add(name, PASSWORD, groups=groups)
        finally:
            passwords.close()
            await records.close()

    async def start(self) -> None:
        """The first alone, for it makes keys and tables; then the others together."""
        first, *others = self.replicas
        await first.start()
        await asyncio.gather(*(one.start() for one in others))

    def calm(self) -> None:
        """Nobody has said what must never be said."""
        for replica in self.replicas:
            for words in NEVER:
                assert words not in replica.said, replica.said


@contextlib.asynccontextmanager
async def several(
    count: int,
    *,
    policy: str,
    store: Mapping[str, Any],
    environs: Sequence[Mapping[str, str]] = (),
    **entries: Any,
) -> AsyncIterator[Several]:
    """`count` gateways, not started yet; ended at the end, however."""
    with home() as house:
        service = await Service().start()
        house.write(policy)
        house.write_config(upstreams={"app": {"url": f"http://127.0.0.1:{service.port}"}}, store=dict(store), **entries)
        replicas = []
        for number in range(count):
            replica = Replica(house, number, environs[number] if environs else {})
            replica.write_config()
            replicas.append(replica)
        try:
            yield Several(house, service, replicas)
        finally:
            for replica in replicas:
                if hasattr(replica, "process") and replica.process.returncode is None:
                    replica.process.kill()
                if hasattr(replica, "process"):
                    await replica._ended()
            service.close()


def absolute(where: str | dict[str, str], folder: Path) -> str:
    """A URL as it is meant in `folder`, also where more is said beside it."""
    url = where if isinstance(where, str) else where["url"]
    return url if "//" in url else f"sqlite:{folder / url.removeprefix('sqlite:')}"


async def eventually(true: Any, within: float) -> float:
    """Ask the coroutine function `true` until it says yes; the seconds that took in which we could work. Raises
    TimeoutError."""
    awake = Awake()
    began = awake.now()
    try:
        async with asyncio.timeout(within):
            while not await true():
                await asyncio.sleep(0.03)
        return awake.now() - began
    finally:
        awake.end()
