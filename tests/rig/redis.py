"""Real Redis servers on free ports, each in a folder of its own: one, one with TLS and an ACL, Sentinels, a cluster.
A Sentinel is `redis-server --sentinel`.

Whatever becomes of the tests, the servers end with them: beside each stands a shell that kills it when our end of a
pipe is closed, which a killed process does too.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

from gateway.core.errors import StoreAway
from gateway.store.redis_where import Where
from tests.rig.certificates import Authority, Made
from tests.rig.ports import free_port

if TYPE_CHECKING:
    from gateway.store.redis import Redis

T = TypeVar("T")
HERE = "127.0.0.1"
WITHIN = 20.0
"""Seconds in which a server has started, or a cluster has agreed."""
LOOK_EVERY = 0.005
USER, PASSWORD = "sallyport", "p@ss:word/?#1"
RIGHTS = (
    "resetkeys ~sallyport:* resetchannels &sallyport:* -@all +@read +@write +@connection -@dangerous "
    "+eval +evalsha +publish +subscribe +unsubscribe +time +info"
)
"""What docs/state.md tells operators to allow."""
MASTER = "mymaster"

Options = Mapping[str, str | Sequence[str]]

needs_redis = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("redis-server", "redis-cli")),
    reason="redis-server and redis-cli are not installed",
)


class Server:
    """One redis-server. `options` are lines of its configuration: `{"maxmemory": "10mb"}`."""

    def __init__(self, folder: Path, *, port: int = 0, options: Options | None = None, sentinel: bool = False) -> None:
        self.port = port or free_port()
        self.folder = folder
        self.cli: list[str] = []
        """What redis-cli needs beside host and port."""
        self._options = dict(options or {})
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None
        self._reaper: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{HERE}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> Server:
        """Start it and wait until it can be connected to."""
        file = self.folder / "redis.conf"
        if not file.exists():
            file.write_text("".join(f"{line}\n" for line in self._lines()))
        (self.folder / "log").write_bytes(b"")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", str(file), *(["--sentinel"] if self._sentinel else [])],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self._reaper = subprocess.Popen(
            ["sh", "-c", 'cat >/dev/null; kill -9 "$0" 2>/dev/null', str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + WITHIN
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        """As a crash would: at once, nothing is written."""
        if self._process is None or self._reaper is None:
            return
        self._reaper.kill()
        self._process.kill()
        self._process.wait()
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait()
        self._process = self._reaper = None

    def restart(self) -> None:
        """Kill it, and start it again on the same port and files."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Have it go silent: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: str) -> str:
        """What redis-cli is answered."""
        return subprocess.run(
            ["redis-cli", "-h", HERE, "-p", str(self.port), *self.cli, *command],
            capture_output=True,
            timeout=10,
            text=True,
            check=False,
        ).stdout.strip()

    def _lines(self) -> Iterator[str]:
        given: dict[str, str | Sequence[str]] = {"bind": HERE, "port": str(self.port), "dir": str(self.folder)}
        if not self._sentinel:
            given |= {"save": '""', "appendonly": "no"}
        for name, value in {**given, **self._options}.items():
            for each in [value] if isinstance(value, str) else value:
                yield f"{name} {each}"

    def _listens(self) -> bool:
        """At every door: that of a path is opened after that of the port."""
        with contextlib.suppress(OSError), socket.create_connection((HERE, self.port), timeout=1):
            path = self._options.get("unixsocket")
            if isinstance(path, str):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(path)
            return True
        return False


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder that goes away again."""
    path = Path(tempfile.mkdtemp(prefix="redis-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def a_server(*, options: Options | None = None, port: int = 0) -> Iterator[Server]:
    """A running server."""
    with folder() as at:
        server = Server(at, port=port, options=options)
        try:
            yield server.start()
        finally:
            server.kill()


class Secure:
    """A server that only speaks TLS, only to clients with a certificate, and only to one user, who may what the docs
    say."""

    def __init__(self, server: Server, authority: Authority, client: Made) -> None:
        self.server = server
        self.authority = authority
        self.client = client

    @property
    def where(self) -> Where:
        """How the gateway comes in."""
        from dataclasses import replace

        return replace(
            Where.parse(f"rediss://localhost:{self.server.port}"),
            username=USER,
            password=PASSWORD,
            ca=self.authority.path,
            certificate=self.client.certificate,
            key=self.client.key,
        )


@contextlib.contextmanager
def secure() -> Iterator[Secure]:
    """A running server with TLS and an ACL."""
    with folder() as at:
        authority = Authority(at)
        made, client = authority.make("server", "localhost"), authority.make("client", "gateway")
        port = free_port()
        server = Server(
            at,
            port=port,
            options={
                "port": "0",
                "tls-port": str(port),
                "tls-cert-file": str(made.certificate),
                "tls-key-file": str(made.key),
                "tls-ca-cert-file": str(authority.path),
                "tls-auth-clients": "yes",
                "user": ["default off", f"{USER} on >{PASSWORD} {RIGHTS}", "root on >root ~* &* +@all"],
            },
        )
        server.cli = ["--tls", "--cacert", str(authority.path), "--cert", str(client.certificate)]
        server.cli += [
            "--key",
            str(client.key),
            "--sni",
            "localhost",
            "--user",
            "root",
            "--pass",
            "root",
            "--no-auth-warning",
        ]
        try:
            server.start()
            yield Secure(server, authority, client)
        finally:
            server.kill()


class Watched:
    """A master, its replicas, and Sentinels that take another master when it has been silent for a second."""

    def __init__(self, servers: Sequence[Server], sentinels: Sequence[Server]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def where(self) -> Where:
        """How the gateway comes in."""
        places = ",".join(f"{HERE}:{each.port}" for each in self.sentinels)
        return Where.parse(f"redis+sentinel://{places}/{MASTER}")

    def master(self) -> Server:
        """Who is it now, as a Sentinel says."""
        port = int(self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER).split()[1])
        return next(server for server in self.servers if server.port == port)


@contextlib.contextmanager
def watched(replicas: int = 1, sentinels: int = 3) -> Iterator[Watched]:
    """A running master with replicas and Sentinels, who know each other."""
    with folder() as at, contextlib.ExitStack() as ending:

        def started(name: str, options: Options, sentinel: bool = False) -> Server:
            server = Server(at / name, options=options, sentinel=sentinel)
            ending.callback(server.kill)
            return server.start()

        fast = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
        servers = [started("master", fast)]
        of = f"{HERE} {servers[0].port}"
        servers += [started(f"replica{number}", {**fast, "replicaof": of}) for number in range(replicas)]
        _until(lambda: servers[0].ask("INFO", "replication").count("state=online") == replicas)
        watch = {
            "sentinel": [
                f"monitor {MASTER} {of} 2",
                f"down-after-milliseconds {MASTER} 1000",
                f"failover-timeout {MASTER} 5000",
            ]
        }
        watchers = [started(f"sentinel{number}", watch, True) for number in range(sentinels)]
        knows = f"slaves={replicas},sentinels={sentinels}"
        _until(lambda: all(knows in each.ask("INFO", "sentinel") for each in watchers))
        yield Watched(servers, watchers)


class Masters:
    """A cluster of masters."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = servers
        self.ids = [server.ask("CLUSTER", "MYID") for server in servers]

    @property
    def where(self) -> Where:
        """How the gateway comes in."""
        places = ",".join(f"{HERE}:{each.port}" for each in self.servers)
        return Where.parse(f"redis+cluster://{places}")

    def owner(self, slot: int) -> int:
        """The number of the server that has `slot`."""
        for number, server in enumerate(self.servers):
            for line in server.ask("CLUSTER", "NODES").splitlines():
                if "myself" in line:
                    ranges = [each.split("-") for each in line.split()[8:] if not each.startswith("[")]
                    if any(int(each[0]) <= slot <= int(each[-1]) for each in ranges):
                        return number
        raise LookupError(slot)

    def begin_move(self, slot: int, to: int) -> int:
        """Have `slot` be on its way to server number `to`; from where."""
        source = self.owner(slot)
        assert self.servers[to].ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", self.ids[source]) == "OK"
        assert self.servers[source].ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", self.ids[to]) == "OK"
        return source

    def move_keys(self, slot: int, source: int, to: int, most: int = 1000) -> int:
        """Move up to `most` keys of `slot`; how many there were."""
        keys = self.servers[source].ask("CLUSTER", "GETKEYSINSLOT", str(slot), str(most)).split()
        if keys:
            port = str(self.servers[to].port)
            assert self.servers[source].ask("MIGRATE", HERE, port, "", "0", "5000", "KEYS", *keys) in ("OK", "NOKEY")
        return len(keys)

    def end_move(self, slot: int, to: int) -> None:
        """All its keys are there: let everybody know."""
        for server in (self.servers[to], *self.servers):
            server.ask("CLUSTER", "SETSLOT", str(slot), "NODE", self.ids[to])

    def move(self, slot: int, to: int) -> None:
        """All of it."""
        source = self.begin_move(slot, to)
        while self.move_keys(slot, source, to):
            pass
        self.end_move(slot, to)


@contextlib.contextmanager
def a_cluster(masters: int = 3) -> Iterator[Masters]:
    """A running cluster whose nodes agree on who has which slot."""
    with folder() as at, contextlib.ExitStack() as ending:
        servers = []
        for number in range(masters):
            options = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", "cluster-config-file": "nodes.conf"}
            servers.append(Server(at / f"node{number}", options=options))
            ending.callback(servers[-1].kill)
            servers[-1].start()
        each = -(-16384 // masters)
        for number, server in enumerate(servers):
            slots = map(str, range(number * each, min(16384, (number + 1) * each)))
            assert server.ask("CLUSTER", "ADDSLOTS", *slots) == "OK"
            assert server.ask("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1)) == "OK"
        for server in servers[1:]:
            servers[0].ask("CLUSTER", "MEET", HERE, str(server.port))
        whole = "cluster_state:ok", f"cluster_known_nodes:{masters}", f"cluster_size:{masters}"
        _until(lambda: all(said in server.ask("CLUSTER", "INFO") for server in servers for said in whole))
        yield Masters(servers)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError("the servers have not found each other")
        time.sleep(0.05)


async def until(true: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until `true` is. Raises TimeoutError: after so many looks as well, for the machine may have stood still."""
    deadline, looks = time.monotonic() + seconds, 0
    while not true():
        if time.monotonic() > deadline and looks * LOOK_EVERY > seconds / 2:
            raise TimeoutError
        looks += 1
        await asyncio.sleep(LOOK_EVERY)


async def answered(ask: Callable[[], Awaitable[T]], redis: Redis) -> T:
    """What is answered in the end by a store that is there: on a busy machine it may be late, and then away a moment.

    Raises TimeoutError.
    """
    async with asyncio.timeout(WITHIN):
        while True:
            with contextlib.suppress(StoreAway):
                return await ask()
            await until(lambda: redis.line.up, WITHIN)
