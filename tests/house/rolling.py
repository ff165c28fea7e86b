"""Rolling restarts under load: two real gateways on the same files, in front of one service, one restarted after the
other, and clients that are told by readiness alone where to go.

    make test     a short run        python -m tests.house.rolling     the whole one, and what it counted

Clients are strict. A request has failed when no complete and right answer came, or no connection could be made to a
gateway that was said to be ready. One thing is no failure: to find a kept connection closed before a byte is written.
Nothing is tried twice.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import random
import signal
import sys
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import uvloop
import yaml

from tests.house.process import PATIENCE, Home, Process, home
from tests.house.visitor import Visitor
from tests.rig.gateway import PASSWORD
from tests.rig.messages import Response, Violation, read_response

STARTS = 20.0
"""Seconds a gateway may take to be ready."""


class Replica:
    """One of the gateways, and what the balancer believes of it."""

    def __init__(self, house: Home, number: int, delay: float) -> None:
        self.house = house
        other = Home(house.folder, 9)  # for two free ports
        self.port, self.admin_port = other.port, other.admin_port
        self.file = f"config-{number}.yaml"
        entries = {"listen": f"127.0.0.1:{self.port}", "admin_listen": f"127.0.0.1:{self.admin_port}"}
        config = house.config | entries | {"drain": {"delay": f"{delay}s", "time": "25s"}}
        (house.folder / self.file).write_text(yaml.safe_dump(config))
        self.process: Process
        self.ready = False

    async def start(self) -> None:
        self.process = await self.house.start("run", "--config", self.file, "--log-level", "warning")

    async def probe(self) -> None:
        """Ask `/readyz`, as the kubelet does."""
        try:
            async with asyncio.timeout(2.0):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.admin_port)
                try:
                    writer.write(b"GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
                    self.ready = (await reader.readline()).startswith(b"HTTP/1.1 200 ")
                finally:
                    writer.close()
        except OSError:
            self.ready = False

    async def until(self, ready: bool) -> None:
        async with asyncio.timeout(STARTS):
            while self.ready is not ready:
                assert self.process.returncode is None or not ready, await self.process.stderr.read()  # type: ignore[union-attr]
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """SIGTERM; it has to end by itself, with 0 and without a word."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            _, err = await self.process.communicate()
        assert self.process.returncode == 0, err.decode()
        assert b"Traceback" not in err, err.decode()


class Rolling:
    """A run, and what it counted."""

    def __init__(self, replicas: list[Replica], cookie: str) -> None:
        self.replicas = replicas
        self.cookie = cookie
        self.count: Counter[str] = Counter()
        self.failures: list[str] = []
        self.over = asyncio.Event()
        self._numbers = itertools.count()
        self._random = random.Random(7)

    def choose(self) -> Replica:
        """One that is said to be ready."""
        return self._random.choice([one for one in self.replicas if one.ready])

    def failed(self, what: str, error: object) -> None:
        self.count[f"{what} failed"] += 1
        if len(self.failures) < 20:
            self.failures.append(f"{what}: {type(error).__name__} {error}")

    async def balance(self, every: float) -> None:
        """Look at readiness, over and over."""
        while not self.over.is_set():
            await asyncio.gather(*(one.probe() for one in self.replicas))
            await asyncio.sleep(every)

    async def keep_alive(self, rate: float) -> None:
        """One client that sends `rate` requests a second, on one connection as long as that lasts."""
        loop = asyncio.get_running_loop()
        kept: tuple[StreamReader, StreamWriter] | None = None
        due = loop.time() + self._random.random() / rate
        while not self.over.is_set():
            await asyncio.sleep(max(0.0, due - loop.time()))
            due += 1 / rate
            number = next(self._numbers)
            known = number % 2 == 0
            target = f"/echo?n={number}" if known else f"/public/echo?n={number}"
            who = f"Cookie: {self.cookie}\r\n" if known else ""
            try:
                async with asyncio.timeout(10.0):
                    if kept is not None and (kept[0].at_eof() or kept[1].is_closing()):
                        kept[1].close()
                        kept = None
                        self.count["connections found closed"] += 1
                    if kept is None:
                        kept = await asyncio.open_connection("127.0.0.1", self.choose().port)
                    answer = await _ask(*kept, f"GET {target} HTTP/1.1\r\nHost: good.test\r\n{who}\r\n".encode())
                if answer.status != 200:
                    raise Violation(f"{answer.status} {answer.body[:300]!r}")
                said = json.loads(answer.body)
                user = [value for name, value in said["headers"] if name == "X-Forwarded-User"]
                if said["target"] != target or user != (["bob"] if known else []):
                    raise Violation(f"{answer.status} {answer.body[:200]!r}")
                self.count["requests"] += 1
                if answer.all("Connection") == [b"close"]:
                    self.count["connections told to close"] += 1
                    kept[1].close()
                    kept = None
            except (OSError, Violation, ValueError, KeyError, asyncio.IncompleteReadError) as error:
                self.failed("requests", error)
                if kept is not None:
                    kept[1].close()
                    kept = None
        if kept is not None:
            kept[1].close()

    async def upload(self, size: int, pieces: int, seconds: float) -> None:
        """Send bodies piece by piece, one after the other."""
        while not self.over.is_set():
            body = self._random.randbytes(size)
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.choose().port)
                try:
                    head = f"POST /public/upload HTTP/1.1\r\nHost: good.test\r\nContent-Length: {size}\r\n\r\n"
                    writer.write(head.encode())
                    for at in range(0, size, size // pieces):
                        writer.write(body[at : at + size // pieces])
                        await writer.drain()
                        await asyncio.sleep(seconds / pieces)
                    answer = await _answer(reader, "POST")
                    if json.loads(answer.body) != {"bytes": size, "sha256": hashlib.sha256(body).hexdigest()}:
                        raise Violation(f"{answer.status} {answer.body[:200]!r}")
                    self.count["uploads"] += 1
                finally:
                    writer.close()
            except (OSError, Violation, ValueError, asyncio.IncompleteReadError) as error:
                self.failed("uploads", error)

    async def socket(self, session: aiohttp.ClientSession) -> None:
        """A WebSocket that talks once a second, and comes back when it is told 1001."""
        while not self.over.is_set():
            try:
                async with session.ws_connect(f"http://127.0.0.1:{self.choose().port}/public/ws") as socket:
                    self.count["sockets opened"] += 1
                    await self._talk(socket)
                    if not self.over.is_set():
                        if socket.close_code != 1001:
                            raise Violation(f"closed with {socket.close_code}")
                        self.count["sockets closed with 1001"] += 1
            except (OSError, aiohttp.ClientError, Violation) as error:
                self.failed("sockets", error)
                await asyncio.sleep(0.1)

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        for number in itertools.count():
            if self.over.is_set():
                return
            with contextlib.suppress(ConnectionError):  # it has been closed; what for is read next
                await socket.send_str(f"{number}")
            said = await socket.receive(timeout=10.0)
            if said.type is not aiohttp.WSMsgType.TEXT:
                return
            if said.data != f"{number}":
                raise Violation(f"{said.data!r} instead of {number}")
            self.count["messages"] += 1
            with contextlib.suppress(TimeoutError):
                await socket.receive(timeout=1.0)
                return

    async def restart(self, times: int, pause: float) -> None:
        """One after the other, each only when the one before is back."""
        for number in range(times):
            replica = self.replicas[number % len(self.replicas)]
            await replica.stop()
            await replica.until(False)
            await replica.start()
            await replica.until(True)
            self.count["restarts"] += 1
            await asyncio.sleep(pause)
        self.over.set()


async def _ask(reader: StreamReader, writer: StreamWriter, raw: bytes) -> Response:
    writer.write(raw)
    return await _answer(reader, "GET")


async def _answer(reader: StreamReader, method: str) -> Response:
    return await read_response(reader.readuntil, reader.readexactly, reader.read, method)


async def run(
    *,
    restarts: int,
    rate: float,
    clients: int,
    sockets: int,
    uploads: int,
    delay: float,
    every: float,
    pause: float,
    replicas: int = 2,
    store: Mapping[str, object] | None = None,
) -> Rolling:
    """Restart `restarts` times under `rate` requests a second; what was counted. `store`: instead of SQLite."""
    with home() as house:
        probe = Home(house.folder, 9)
        service = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "demo.service", "--listen", f"127.0.0.1:{probe.port}",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env=dict(os.environ),
        )  # fmt: skip
        house.write_config(
            public_url=f"http://127.0.0.1:{house.port}", upstreams={"app": {"url": f"http://127.0.0.1:{probe.port}"}}
        )
        if store is not None:
            house.write_config(store=dict(store))
        started = [Replica(house, number, delay) for number in range(replicas)]
        house.write_config()  # looking for free ports has written another
        try:
            added = await house.call("user", "add", "bob", "--password-stdin", stdin=PASSWORD.encode() + b"\n")
            assert added.code == 0, added
            for replica in started:
                await replica.start()
                await _until_ready(replica)
            bob = Visitor(started[0].port, origin=f"http://127.0.0.1:{house.port}")
            signed = await bob.sign_in("bob")
            assert signed.status == 303, signed.body
            rolling = Rolling(started, f"sallyport={bob.cookies['sallyport']}")
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                work: list[Awaitable[None]] = [rolling.balance(every), rolling.restart(restarts, pause)]
                work += [rolling.keep_alive(rate / clients) for _ in range(clients)]
                work += [rolling.upload(1 << 18, 16, 1.0) for _ in range(uploads)]
                work += [rolling.socket(session) for _ in range(sockets)]
                async with asyncio.TaskGroup() as group:
                    for each in work:
                        group.create_task(each)  # type: ignore[arg-type]
            return rolling
        finally:
            service.kill()
            await service.wait()
            for replica in started:
                if hasattr(replica, "process") and replica.process.returncode is None:
                    await replica.stop()


async def _until_ready(replica: Replica) -> None:
    async with asyncio.timeout(STARTS):
        while not replica.ready:
            await asyncio.sleep(0.05)
            await replica.probe()


def main(runner: Callable[..., Rolling] = uvloop.run) -> int:
    """The whole run."""
    parser = argparse.ArgumentParser(prog="python -m tests.house.rolling", description=__doc__)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second")
    options = parser.parse_args()
    rolling = runner(
        run(
            restarts=options.restarts, rate=options.rate, clients=100, sockets=200, uploads=50,
            delay=3.0, every=0.5, pause=1.0,
        )
    )  # fmt: skip
    for name, count in sorted(rolling.count.items()):
        print(f"{count:>9,}  {name}")
    print("\n".join(rolling.failures) or "        0  failed")
    return 1 if rolling.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
