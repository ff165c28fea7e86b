"""A real PostgreSQL for the tests: one server for all of them, as durable as in production.

`initdb` costs a second, a database copied from a template some tens of milliseconds and eight megabytes: so a test gets
the database of the one before, emptied, unless it wants one of its own. On SQLite it gets a copy of a file.

Without PostgreSQL (13 or newer) these tests are skipped, and the last lines of the run say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest

from gateway.core.clock import SystemClock
from gateway.store.place import Place
from gateway.store.sql import Records
from gateway.store.tables import metadata
from tests.rig.once import PATIENT
from tests.rig.ports import free_port

LEFT_OUT = "no PostgreSQL here: apt-get install postgresql"
PASSWORD = "hunter2%2Fhunter2"
"""As it stands in a URL."""
STARTS_WITHIN = 30.0
EITHER = ("sqlite", "postgresql")
T = TypeVar("T")

_EMPTYING = (
    "DO $$ BEGIN "
    + "".join(f"DELETE FROM {table}; " for table in metadata.tables if table != "meta")
    + "DELETE FROM meta WHERE name = 'sealed_by'; UPDATE meta SET number = 0 WHERE name = 'revision'; END $$"
)

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
_INITDB = next((str(path / "initdb") for path in _BINARIES), None) or shutil.which("initdb")
BIN = Path(_INITDB).resolve().parent if _INITDB else None
"""Where its programs are."""
_USER = "postgres"

needs_postgresql = pytest.mark.skipif(BIN is None, reason=LEFT_OUT)


class Server:
    """One server, on a port and on a Unix socket in its folder. It belongs to `postgres` where we are root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = (f"t{number}" for number in itertools.count())
        self._template = ""
        self._last = ""
        self._kept: _Kept | None = None

    def make(self) -> None:
        """`initdb`, and a user `sallyport` with a password."""
        self.own(self.folder)
        self.folder.chmod(0o711)
        self._run("initdb", "--pgdata", str(self.data), "--auth=scram-sha-256", "--auth-local=trust",
                  "--encoding=UTF8", "--locale=C", "--username=postgres")  # fmt: skip
        self.configure(unix_socket_directories=str(self.folder), port=self.port, max_connections=200)

    def follow(self, primary: Server, moved: dict[Path, Path]) -> None:
        """Instead of `make`: a standby of `primary`, with its tablespaces in other folders."""
        self.own(self.folder)
        self.folder.chmod(0o711)
        elsewhere = [f"--tablespace-mapping={old}={new}" for old, new in moved.items()]
        self._run("pg_basebackup", "--host", str(primary.folder), "--port", str(primary.port), "--username=postgres",
                  "--pgdata", str(self.data), "--write-recovery-conf", "--checkpoint=fast", *elsewhere)  # fmt: skip
        self.configure(unix_socket_directories=str(self.folder), port=self.port)

    def promote(self) -> None:
        """It is the primary from now on."""
        self.execute("SELECT pg_promote() WHERE pg_is_in_recovery()")

    def configure(self, **settings: object) -> None:
        """Write `settings` down; they count from the next start on."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> Server:
        """Start it and wait until it answers."""
        assert BIN is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_user(), str(BIN / "postgres"), "-D", str(self.data)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + STARTS_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.02)
        return self

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT at once but in order, SIGQUIT as if it had crashed."""
        if self._process is None:
            return
        os.kill(self.pid, how)
        self._process.wait(STARTS_WITHIN)
        self._process = None

    def stop_at_once(self) -> None:
        """As if it had crashed."""
        self.stop(signal.SIGQUIT)

    def reload(self) -> None:
        """Have it read its settings again."""
        os.kill(self.pid, signal.SIGHUP)

    @property
    def pid(self) -> int:
        """Of the server itself."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def processes(self) -> list[int]:
        """Every process of it, the server first: what has to stop for nobody to answer."""
        said = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False).stdout
        return [self.pid, *map(int, said.split())]

    def url(self, database: str, *, user: str = "sallyport", password: str = PASSWORD, port: int = 0) -> str:
        """Over TCP, where a password is asked for."""
        return f"postgresql://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    def socket(self, database: str, *, user: str = "sallyport") -> str:
        """Over the Unix socket: quicker."""
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def execute(self, statement: str, database: str = "postgres", user: str = "postgres") -> list[asyncpg.Record]:
        """Run one statement; over the Unix socket, where nobody is asked for a password."""

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(
                host=str(self.folder), port=self.port, user=user, database=database, ssl=False
            )
            try:
                return list(await connection.fetch(statement))
            finally:
                await connection.close()

        return _run(run)

    def database(self, template: str = "", tablespace: str = "") -> str:
        """The name of a fresh database, empty or like `template`; it belongs to `sallyport`."""
        name = next(self._names)
        like = f" TEMPLATE {template}" if template else ""
        where = f" TABLESPACE {tablespace}" if tablespace else ""
        self.execute(f"CREATE DATABASE {name} OWNER sallyport{like}{where}")
        return name

    def tablespace(self, name: str, folder: Path) -> None:
        """A place for databases, in `folder`, which is empty."""
        self.own(folder)
        self.execute(f"CREATE TABLESPACE {name} LOCATION '{folder}'")

    def own(self, folder: Path) -> None:
        """Give `folder` to whom the server runs as."""
        if os.geteuid() == 0:
            owner = pwd.getpwnam(_USER)
            os.chown(folder, owner.pw_uid, owner.pw_gid)

    def place(self) -> Place:
        """A database with our tables, and nothing in them: the one of the last test, where that can be."""
        if not self._last or not self._emptied(self._last):
            self._last = self._filled()
        return Place(self.socket(self._last))

    def _filled(self) -> str:
        if not self._template:
            self._template = self.database()
            at = self.socket(self._template)

            async def make() -> None:
                await (await Records.open(at, clock=SystemClock())).close()

            _run(make)
        return self.database(self._template)

    def _emptied(self, database: str) -> bool:
        """Without its rows; False where its tables are no longer what they were."""
        if self._kept is not None and self._kept.database == database:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                self._kept.execute(_EMPTYING)
                return True
        self.part()
        try:
            self._kept = _Kept(self.folder, self.port, database)
            self._kept.execute(_EMPTYING)
        except asyncpg.PostgresError:
            return False
        return True

    def part(self) -> None:
        """Keep no connection to it."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.execute("SELECT 1")
            return True
        return False

    def _run(self, program: str, *arguments: str) -> None:
        assert BIN is not None
        subprocess.run([*_as_user(), str(BIN / program), *arguments], check=True, capture_output=True, cwd="/")


class _Kept:
    """A connection that stays open, in a thread of its own: it has learnt the tables, and that is what takes long."""

    def __init__(self, folder: Path, port: int, database: str) -> None:
        self.database = database
        self._runner = asyncio.Runner()
        self._thread = ThreadPoolExecutor(1)
        self._connection: asyncpg.Connection | None = None

        async def connect() -> None:
            self._connection = await asyncpg.connect(
                host=str(folder), port=port, user="postgres", database=database, ssl=False
            )

        try:
            self._do(connect)
        except BaseException:
            self.close()
            raise

    def execute(self, statement: str) -> None:
        """Raises what the driver does."""
        assert self._connection is not None
        self._do(functools.partial(self._connection.execute, statement))

    def close(self) -> None:
        """Be gone at once."""
        if self._connection is not None:
            self._do(self._terminate)
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    async def _terminate(self) -> None:
        assert self._connection is not None
        self._connection.terminate()

    def _do(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._thread.submit(lambda: self._runner.run(work())).result()


@contextlib.contextmanager
def standby_of(primary: Server, moved: dict[Path, Path]) -> Iterator[Server]:
    """One that has all that `primary` has, and follows it; its tablespaces are in the folders `moved` says."""
    folder = Path(tempfile.mkdtemp(prefix="sallyport-standby-"))
    standby = Server(folder)
    for other in moved.values():
        standby.own(other)
    try:
        standby.follow(primary, moved)
        standby.start()
        yield standby
    finally:
        standby.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


def started() -> Iterator[Server]:
    """A server of its own, gone afterwards."""
    if BIN is None:
        pytest.skip(LEFT_OUT)
    folder = Path(tempfile.mkdtemp(prefix="sallyport-postgres-"))
    server = Server(folder)
    try:
        server.make()
        server.start()
        server.execute("CREATE ROLE sallyport LOGIN PASSWORD 'hunter2/hunter2'")
        yield server
    finally:
        server.part()
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


def _as_user() -> list[str]:
    return ["runuser", "-u", _USER, "--"] if os.geteuid() == 0 else []


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """In a thread of its own: the test may be in the middle of a loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


def either(request: pytest.FixtureRequest, folder: Path) -> Place:
    """A place for records, for a fixture with the parameters `EITHER`."""
    return place_of(request.param, request, folder)


@functools.cache
def _file() -> bytes:
    """A database on SQLite with our tables, and nothing in them."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder) / "sallyport.db"

        async def make() -> None:
            await (await Records.open(f"sqlite:{at}", clock=SystemClock())).close()

        _run(make)
        return at.read_bytes()


def _furnished(at: Path) -> Path:
    at.parent.mkdir(mode=0o700)
    at.write_bytes(_file())
    at.chmod(0o600)
    return at


def place_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    """A place for records: `sqlite` or `postgresql`."""
    if kind == "sqlite":
        return Place(f"sqlite:{_furnished(folder / 'data' / 'sallyport.db')}")
    server: Server = request.getfixturevalue("postgres")
    return replace(server.place(), deadline=PATIENT)
