"""Records on PostgreSQL, as an operator meets them: real processes, mistakes, a rolling upgrade, backup and restore."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.clock import SystemClock
from gateway.store.place import Place, server
from gateway.store.tables import SCHEMA_VERSION
from tests.house.process import ROOT, Home, Serving, home
from tests.house.visitor import Visitor
from tests.rig.behind import behind
from tests.rig.postgres import BIN, Server, needs_postgresql

pytestmark = needs_postgresql
NEXT = str(ROOT / "tests" / "store" / "next_version.py")
PASSWORD = "correct horse battery"


def url_of(home: Home) -> str:
    """Where its records are."""
    records = home.config["store"]["records"]
    return str(records["url"] if isinstance(records, dict) else records)


@pytest.fixture
def here(postgres: Server) -> Iterator[Home]:
    """A gateway's folder, its records in an empty database."""
    with home() as one:
        # What is tested is not how soon a database is given up.
        one.write_config(store={"records": {"url": postgres.url(postgres.database()), "deadline": "2s"}})
        yield one


async def add(here: Home, name: str) -> None:
    said = await here.call("user", "add", name, "--password-stdin", stdin=f"{PASSWORD}\n".encode())
    assert said.code == 0, said.err


# --- mistakes: one message without a password, exit 2, nothing changed ----------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda url: url.replace("postgresql:", "postgres:"), "not a place for records"),
        (lambda url: url.replace("hunter2", "hunter3"), "user sallyport is not let in"),
        (lambda url: url.rpartition("/")[0] + "/nowhere", "does not exist (createdb"),
        (lambda url: "postgresql://sallyport:hunter2@127.0.0.1:1/x", "x at 127.0.0.1:1 cannot be used"),
        (lambda url: url + "?sslmode=verify-full", "speaks no TLS"),
        (lambda url: url + "?sslmode=prefer", "sslmode is one of"),
    ],
)
async def test_a_place_that_cannot_be_used(here: Home, change, told: str) -> None:  # type: ignore[no-untyped-def]
    here.write_config(store={"records": change(url_of(here))})
    said = await here.refuses()
    assert told in said
    assert "hunter" not in said
    assert said.count("\n") == 1


async def test_a_database_of_somebody_else_is_left_alone(here: Home) -> None:
    place = Place(url_of(here))
    behind(place, "CREATE TABLE orders (id INTEGER)")
    said = await here.refuses()
    assert "belongs to another program" in said
    assert behind(place, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'") == [("orders",)]


async def test_who_may_not_make_tables_is_told(here: Home, postgres: Server) -> None:
    name = server(Place(url_of(here))).database
    postgres.execute("CREATE ROLE reader LOGIN PASSWORD 'hunter2/hunter2'")
    try:
        here.write_config(store={"records": postgres.url(name, user="reader")})
        said = await here.refuses()
        assert "permission denied for schema public" in said
        assert "let this user make tables" in said
    finally:
        postgres.execute("DROP ROLE reader")


async def test_who_may_only_use_the_tables_can_run(here: Home, postgres: Server) -> None:
    """As docs/state.md divides the roles: an owner upgrades, the gateway reads and writes."""
    name = server(Place(url_of(here))).database
    postgres.execute("CREATE ROLE worker LOGIN PASSWORD 'hunter2/hunter2'")
    try:
        for what in ("SELECT, INSERT, UPDATE, DELETE ON TABLES", "USAGE ON SEQUENCES"):
            postgres.execute(f"ALTER DEFAULT PRIVILEGES FOR ROLE sallyport GRANT {what} TO worker", name)
        assert (await here.ask("db", "upgrade")).code == 0
        here.write_config(store={"records": postgres.url(name, user="worker")})
        await add(here, "ann")
        async with here.serving():
            pass
        assert '"kind"' not in (await here.ask("user", "list")).err
    finally:
        postgres.execute("DROP OWNED BY worker", name)
        postgres.execute("DROP ROLE worker")


async def test_keys_that_do_not_open_the_records(here: Home) -> None:
    async with here.serving():
        pass
    shutil.move(here.data / "keys", here.folder / "elsewhere")
    said = await here.refuses()
    assert "key folder" in said
    with home() as other:
        async with other.serving():
            pass
        shutil.copytree(other.data / "keys", here.data / "keys", copy_function=shutil.copy2)
    (here.data / "keys").chmod(0o700)
    said = await here.refuses()
    assert "are not those that sealed database" in said
    assert "hunter" not in said


async def test_the_library_is_not_needed_where_nothing_names_it() -> None:
    code = (
        "import sys, asyncio\nfrom gateway.store.sql import Records\nfrom gateway.core.clock import SystemClock\n"
        "async def main():\n    import tempfile\n    folder = tempfile.mkdtemp()\n"
        "    await (await Records.open(f'sqlite:{folder}/x.db', clock=SystemClock())).close()\n"
        "asyncio.run(main())\nprint(sorted({'asyncpg', 'alembic'} & set(sys.modules)))"
    )
    said = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.stdout, said.stderr) == ("[]\n", "")


# --- a rolling upgrade ----------------------------------------------------------------------------------------------


class Traffic:
    """Bob signs in again and again, and ann, who is signed in, looks at her account all the time."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self.signed_in = 0
        self.looked = 0
        self.failed: list[str] = []
        self._ann = visitor(ports[0])
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Traffic:
        assert (await self._ann.sign_in("ann", PASSWORD)).status == 303
        self._tasks = [asyncio.create_task(self._sign_in()), asyncio.create_task(self._look())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def some(self, more: int) -> None:
        """Go on until bob has signed in so many times more, and ann has looked as well."""
        signed_in, looked = self.signed_in + more, self.looked + more
        async with asyncio.timeout(60):
            while self.signed_in < signed_in or self.looked < looked:
                await asyncio.sleep(0.01)
                for task in self._tasks:
                    if task.done():
                        task.result()

    async def _sign_in(self) -> None:
        while True:
            for port in self.ports:
                status = (await visitor(port).sign_in("bob", PASSWORD)).status
                self.signed_in += 1
                if status != 303:
                    self.failed.append(f"sign-in at {port}: {status}")
                await asyncio.sleep(0.5)  # more often, an address may not

    async def _look(self) -> None:
        while True:
            for port in self.ports:
                self._ann.port = port
                status = (await self._ann.get("account")).status
                self.looked += 1
                if status != 200:
                    self.failed.append(f"account at {port}: {status}")
                await asyncio.sleep(0.1)


def visitor(port: int) -> Visitor:
    return Visitor(port, origin=ORIGIN)


ORIGIN = "http://good.test"


async def test_two_versions_serve_one_database_while_it_is_upgraded(here: Home) -> None:
    """The old one goes on while the schema becomes that of the next, which then starts beside it; nobody notices."""
    here.write_config(public_url=ORIGIN)
    for name in ("ann", "bob"):
        await add(here, name)
    async with here.serving():
        async with Traffic(here.port) as traffic:
            await traffic.some(5)
            upgrading = await next_version(here, "db", "upgrade")
            assert await upgrading.wait() == 0
            await traffic.some(5)
        assert traffic.failed == []
        assert schema_of(here) == {"schema": SCHEMA_VERSION + 1, "compatible": SCHEMA_VERSION}
        with home() as beside:
            mine = {name: beside.config[name] for name in ("listen", "admin_listen")}
            beside.write_config(**{**here.config, **mine, "keys": str(here.data / "keys")})
            newer = Serving(beside, await next_version(beside, "run"))
            await newer.until("listening on")
            async with Traffic(here.port, beside.port) as traffic:
                await traffic.some(6)
            assert traffic.failed == []
            newer.process.send_signal(signal.SIGTERM)
            assert await newer.ended() == 0
    async with here.serving() as again:
        assert "of a newer version; this one works with it" in again.err
        async with Traffic(here.port) as traffic:
            await traffic.some(3)
        assert traffic.failed == []


async def next_version(here: Home, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, NEXT, *arguments,
        cwd=here.folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


def schema_of(here: Home) -> dict[str, int]:
    found = behind(Place(url_of(here)), "SELECT name, number FROM meta")
    return {name: number for name, number in found if name in ("schema", "compatible")}


# --- backup and restore ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_backup_under_load_comes_back_elsewhere(here: Home, postgres: Server, kind: str) -> None:
    """Users, passwords, sessions; with the keys that belong to it, and with no others."""
    if kind == "sqlite":
        here.write_config(store={"records": "sqlite:data/sallyport.db"})
    here.write_config(public_url=ORIGIN)
    for name in ("ann", "bob"):
        await add(here, name)
    ann = visitor(here.port)
    async with here.serving():
        assert (await ann.sign_in("ann", PASSWORD)).status == 303
        _, codes = await ann.enrol(SystemClock())
        async with Traffic(here.port) as traffic:
            await traffic.some(3)
            copied = await copy(here, postgres, kind)
            await traffic.some(3)
        assert traffic.failed == []
    with home() as there:
        await restore(there, postgres, kind, copied)
        there.write_config(public_url=ORIGIN)
        shutil.copytree(here.data / "keys", there.data / "keys", copy_function=shutil.copy2)
        (there.data / "keys").chmod(0o700)
        async with there.serving():
            ann.port = there.port
            assert (await ann.get("account")).status == 200
            assert (await visitor(there.port).sign_in("bob", PASSWORD)).status == 303
            left = behind(place_of(there), "SELECT count(*) FROM backup_codes WHERE used_at IS NULL")
            assert (len(codes), left) == (10, [(10,)])
        shutil.rmtree(there.data / "keys")
        with home() as other:
            async with other.serving():
                pass
            shutil.copytree(other.data / "keys", there.data / "keys", copy_function=shutil.copy2)
        (there.data / "keys").chmod(0o700)
        assert "are not those that sealed database" in await there.refuses()


def place_of(here: Home) -> Place:
    url = url_of(here)
    return Place(url if url.startswith("postgresql") else f"sqlite:{here.folder}/{url.partition(':')[2]}")


async def copy(here: Home, postgres: Server, kind: str) -> Path:
    """As docs/state.md says."""
    if kind == "sqlite":
        said = await here.call("db", "backup", "backup.db")
        assert said.code == 0, said.err
        return here.folder / "backup.db"
    target = here.folder / "sallyport.dump"
    await tool("pg_dump", "--format=custom", f"--file={target}", url_of(here))
    return target


async def restore(there: Home, postgres: Server, kind: str, copied: Path) -> None:
    if kind == "sqlite":
        there.data.mkdir(mode=0o700)
        shutil.copy2(copied, there.data / "sallyport.db")
        there.write_config(store={"records": "sqlite:data/sallyport.db"})
        return
    url = postgres.url(postgres.database())
    await tool("pg_restore", "--no-owner", f"--dbname={url}", str(copied))
    there.write_config(store={"records": url})


async def tool(program: str, *arguments: str) -> None:
    assert BIN is not None
    said = await asyncio.to_thread(
        subprocess.run, [str(BIN / program), *arguments], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
