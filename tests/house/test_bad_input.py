"""What an operator gets wrong is told once, plainly, with where and what to do; and nothing is open meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sqlite3
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.crypto.keys import KeyRing
from gateway.store.tables import SCHEMA_VERSION
from tests.house.process import PATIENCE, POLICY, ROOT, Home, Said, home, until
from tests.rig.client import RawClient

ADMIN_BY_RISK = """\
rules:
  - name: pay
    access: authenticated
    risk: {step_up_at: 0.5}
    upstream: app
"""


@pytest.fixture
def here() -> Iterator[Home]:
    with home() as one:
        yield one


async def both(here: Home, check: Callable[..., Awaitable[Said]] | None = None) -> list[str]:
    """What `run` and `check` say: `check` the same, and what else is wrong further on."""
    refused = (await here.refuses()).splitlines()
    before = here.state()
    said = await (check or here.ask)("check")
    assert said.code == 1, said
    assert said.err == ""
    told = [line for line in said.out.splitlines() if line and "problem" not in line.split(":")[-1]]
    assert told[: len(refused)] == refused
    assert here.state() == before
    return told


# -- config.yaml and policies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("listen: [127.0.0.1:8080\nupstreams: {}\n", 2, ""),
        ("upstreams:\n  app: {url: http://127.0.0.1:1}\nlisten: 127.0.0.1:1\nlisten: 127.0.0.1:2\n", 4, "listen"),
        ("upstreams: {app: {url: http://127.0.0.1:1}}\nlistne: 127.0.0.1:8080\n", 2, "listen"),
        ("upstreams: {app: {url: http://127.0.0.1:1}}\nsessions:\n  idle: for ever\n", 3, ""),
        ("listen: 127.0.0.1:8080\n", 0, "upstreams"),
        ("upstreams: {app: {url: !!python/object/apply:os.system [id]}}\n", 1, ""),
    ],
    ids=["broken", "twice", "unknown-key", "no-duration", "missing", "python-tag"],
)
async def test_a_configuration_with_a_mistake(here: Home, text: str, line: int, words: str) -> None:
    here.write_config(text)
    told, *_ = await both(here)
    assert told.startswith(f"config.yaml:{line}: " if line else "config.yaml"), told
    assert words in told


async def test_every_mistake_is_told_at_once(here: Home) -> None:
    here.write_config(here_config(here) + "listne: x\nsesions: {}\n")
    here.write(POLICY.replace("access: public", "acess: public"))
    told = await both(here)
    assert len(told) >= 4
    assert sum("config.yaml" in one for one in told) == 2
    assert sum("policies/rules.yaml:" in one for one in told) >= 2


def here_config(here: Home) -> str:
    return (here.folder / "config.yaml").read_text()


async def test_no_configuration_at_all(here: Home) -> None:
    (here.folder / "config.yaml").unlink()
    (told,) = (await here.refuses()).splitlines()
    assert "config.yaml" in told
    assert "--config" in told


@pytest.mark.parametrize(
    ("policy", "line", "words"),
    [
        ("rules:\n  - name: a\n   access: public\n", 3, ""),
        (POLICY.replace("access: public", "acces: public"), 4, "access"),
        (POLICY.replace("access: public\n    upstream: app", "access: public\n    upstream: ap"), 5, "app"),
        (POLICY.replace("factors: [totp, backup_code]", "factors: [sms]"), 9, "factor"),
        (POLICY.replace("factors: [totp, backup_code]", "factors: []"), 9, ""),
        (POLICY + "examples:\n  - {request: GET /public/x, expect: refuse}\n", 16, "allow"),
    ],
    ids=["broken", "unknown-key", "upstream-not-there", "factor-not-there", "no-factor-named", "wrong-example"],
)
async def test_a_policy_with_a_mistake(here: Home, policy: str, line: int, words: str) -> None:
    here.write(policy)
    told = await both(here)
    assert told[-1].startswith(f"policies/rules.yaml:{line}: "), told
    assert words in told[-1]


async def test_a_rule_that_can_step_up_where_there_is_no_factor(here: Home) -> None:
    here.write_config(mfa={"totp": None, "backup_codes": None, "required_groups": []})
    here.write(ADMIN_BY_RISK)
    (told,) = await both(here)
    assert told.startswith("policies/rules.yaml:4: ")
    assert "no factor is configured" in told
    assert "config.yaml" in told


@pytest.mark.parametrize("missing", [True, False])
async def test_no_rule_at_all(here: Home, missing: bool) -> None:
    (here.folder / "policies" / "rules.yaml").unlink()
    if missing:
        (here.folder / "policies").rmdir()
    (told,) = await both(here)
    assert told.startswith("policies")


async def test_policies_that_cannot_be_read(here: Home) -> None:
    (here.folder / "policies" / "rules.yaml").chmod(0)
    (told,) = await both(here, here.call)  # this process may have root's capabilities
    assert "policies" in told


async def test_what_check_calls_good_runs(here: Home) -> None:
    """Examples that ask for other readings of a path get one answer from both."""
    here.write(POLICY + "examples:\n  - {request: GET /Admin/users, as: {user: bob}, expect: refuse}\n")
    assert (await here.ask("check")).code == 0
    async with here.serving() as gateway:
        assert "3 rules" in gateway.err


# -- the service, and ports --------------------------------------------------------------------------------------------


async def test_a_service_that_is_not_there(here: Home) -> None:
    """Known only when somebody asks: a clear answer, and the gate as closed as ever."""
    async with here.serving(), await RawClient.connect(here.port) as client:
        await client.send(b"GET /public/x HTTP/1.1\r\nHost: a.test\r\n\r\n")
        answer = await client.response()
        assert answer.status == 502
        assert answer.one("Content-Type") == b"application/problem+json"
        assert b'"ERR-UPSTREAM-UNREACHABLE"' in answer.body
        await client.send(b"GET /public/x HTTP/1.1\r\nHost: a.test\r\nAccept: text/html\r\n\r\n")
        answer = await client.response()
        assert answer.status == 502
        assert answer.one("Content-Type").startswith(b"text/html")
        assert b"cannot be reached" in answer.body
        assert str(here.config["upstreams"]["app"]["url"]).encode() not in answer.body
        await client.send(b"GET /else HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert (await client.response()).status == 401


@pytest.mark.parametrize(("which", "entry"), [("port", "listen"), ("admin_port", "admin_listen")])
async def test_a_port_in_use(used: Home, which: str, entry: str) -> None:
    port = getattr(used, which)
    keys = sorted((used.data / "keys").iterdir())
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        said = await used.call("run")
    assert said.code == 2
    (told,) = said.err.splitlines()
    assert f"127.0.0.1:{port}" in told
    assert f"`{entry}`" in told
    assert "in use" in told
    assert not await used.listens()
    assert sorted((used.data / "keys").iterdir()) == keys
    async with used.serving():
        pass


async def test_an_address_that_is_not_ours(here: Home) -> None:
    here.write_config(listen="192.0.2.1:8080")
    said = await here.call("run")
    assert said.code == 2
    assert "Traceback" not in said.err
    assert "192.0.2.1:8080" in said.err.splitlines()[-1]
    assert not await here.listens()


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """What a first start has made."""
    with home() as one:

        async def once() -> None:
            async with one.serving():
                pass

        asyncio.run(once())
        yield one.data


@pytest.fixture
def used(here: Home, data: Path) -> Home:
    """A home where a gateway has run before."""
    shutil.copytree(data, here.data)
    return here


async def test_a_first_start_makes_what_is_missing_private_and_says_so(here: Home) -> None:
    async with here.serving() as gateway:
        assert "made new keys in data/keys" in gateway.err
    made = [here.data, *here.data.rglob("*")]
    assert len(made) >= 5
    for path in made:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    before = {path: path.read_bytes() for path in (here.data / "keys").iterdir()}
    async with here.serving() as gateway:
        assert "made new keys" not in gateway.err
    assert {path: path.read_bytes() for path in (here.data / "keys").iterdir()} == before


@pytest.mark.parametrize(("kind", "mode"), [("master", 0o644), ("signing", 0o640)])
async def test_a_key_file_others_can_read(used: Home, kind: str, mode: int) -> None:
    (key,) = (used.data / "keys").glob(f"{kind}-*")
    key.chmod(mode)
    (told,) = (await used.refuses()).splitlines()
    name = str(key.relative_to(used.folder))
    assert f"{name} can be read by others" in told
    assert f"chmod 600 {name}" in told


async def test_a_key_file_that_is_damaged(used: Home) -> None:
    for kind in ("master", "signing"):
        (key,) = (used.data / "keys").glob(f"{kind}-*")
        whole = key.read_bytes()
        key.write_bytes(whole[:20])
        (told,) = (await used.refuses()).splitlines()
        assert key.name in told
        key.write_bytes(whole)


async def test_a_master_key_that_was_lost_is_not_replaced(used: Home) -> None:
    (key,) = (used.data / "keys").glob("master-*")
    key.unlink()
    (told,) = (await used.refuses()).splitlines()
    assert "master key" in told
    assert "backup" in told


@pytest.mark.parametrize("mode", [0o000, 0o300])
async def test_a_key_folder_that_cannot_be_read(used: Home, mode: int) -> None:
    (used.data / "keys").chmod(mode)
    said = await used.call("run")
    (used.data / "keys").chmod(0o700)
    assert said.code == 2, said
    assert "Traceback" not in said.err
    (told,) = said.err.splitlines()
    assert "data/keys" in told
    assert "Permission denied" in told
    assert not await used.listens()


async def test_keys_of_another_database(used: Home) -> None:
    """New keys would not open what the old ones have sealed: neither made in silence, nor taken for the old ones."""
    (used.data / "keys").rename(used.data / "moved")
    (told,) = (await used.refuses()).splitlines()
    assert "data/keys" in told
    assert not (used.data / "keys").exists()
    KeyRing.open(used.data / "keys", create=True)
    (told,) = (await used.refuses()).splitlines()
    assert "data/keys" in told
    assert "data/sallyport.db" in told
    assert "restore the key folder" in told


async def test_a_key_folder_that_misses_one_key_of_several(used: Home) -> None:
    """As on a host that was forgotten in a rotation, or where somebody has tidied up by hand."""
    with contextlib.closing(sqlite3.connect(database(used))) as connection, connection:
        connection.execute(
            'INSERT INTO users (tenant, subject, name, email, display_name, "groups", password, disabled, created_at)'
            " VALUES ('default', 's', 'ann', '', '', '[]', '', 0, 0.0)"
        )
        connection.execute(
            "INSERT INTO factors VALUES ('default', 'f', 's', 'totp', '', ?, 0, -1, 0, 0.0, NULL)",
            (b"\x01" + bytes.fromhex("0c0cb1f2a7f5d3e9") + bytes(48),),
        )
    (told,) = (await used.refuses()).splitlines()
    assert "1 secrets in " in told
    assert "data/sallyport.db" in told
    assert "master key 0c0cb1f2a7f5d3e9, which is not in data/keys" in told
    for command in (("key", "rotate", "master"), ("key", "retire")):
        assert "0c0cb1f2a7f5d3e9" in await used.refuses(*command)


async def test_a_key_folder_that_is_a_file(here: Home) -> None:
    here.data.mkdir(mode=0o700)
    (here.data / "keys").write_text("")
    (told,) = (await here.refuses()).splitlines()
    assert "data/keys" in told


async def test_a_key_folder_anybody_can_change(used: Home) -> None:
    (used.data / "keys").chmod(0o777)
    (told,) = (await used.refuses()).splitlines()
    assert "can be changed by others" in told
    assert "chmod 700" in told


# -- the database ------------------------------------------------------------------------------------------------------


def database(here: Home) -> Path:
    return here.data / "sallyport.db"


async def test_a_database_from_a_newer_version(used: Home) -> None:
    with contextlib.closing(sqlite3.connect(database(used), isolation_level=None)) as connection:
        newer = (SCHEMA_VERSION + 1,)
        connection.execute("UPDATE meta SET number = ? WHERE name IN ('schema', 'compatible')", newer)
    (told,) = (await used.refuses()).splitlines()
    assert "data/sallyport.db" in told
    assert "newer version" in told
    assert "backup" in told
    said = await used.ask("user", "list")
    assert said.code == 2
    assert "newer version" in said.err


async def test_a_database_that_is_none(used: Home) -> None:
    database(used).write_bytes(b"SQLite format 3, or so it says" * 200)
    (told,) = (await used.refuses()).splitlines()
    assert "data/sallyport.db is not a database" in told


async def test_a_database_of_another_program(used: Home) -> None:
    """Its tables are not ours to add to."""
    database(used).unlink()
    with contextlib.closing(sqlite3.connect(database(used))) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    database(used).chmod(0o600)
    said = await used.call("run")
    assert said.code == 2
    (told,) = said.err.splitlines()
    assert "data/sallyport.db belongs to another program" in told
    with contextlib.closing(sqlite3.connect(database(used))) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]
    assert not await used.listens()


async def test_a_database_that_is_a_folder(used: Home) -> None:
    database(used).unlink()
    database(used).mkdir()
    (told,) = (await used.refuses()).splitlines()
    assert "data/sallyport.db" in told


async def test_a_database_that_cannot_be_written(used: Home) -> None:
    database(used).chmod(0o400)
    (told,) = (await used.refuses()).splitlines()
    assert "data/sallyport.db" in told


async def test_a_data_folder_that_cannot_be_written(here: Home) -> None:
    here.folder.chmod(0o555)
    (told,) = (await here.refuses()).splitlines()
    assert "data" in told
    assert "Permission denied" in told


async def test_a_database_in_a_folder_that_cannot_be_written(used: Home) -> None:
    used.write_config(store={"records": "sqlite:closed/sallyport.db"})
    (used.folder / "closed").mkdir()
    (used.folder / "closed").chmod(0o555)
    (told,) = (await used.refuses()).splitlines()
    assert "closed/sallyport.db" in told
    assert "Permission denied" in told


async def test_an_access_log_that_cannot_be_written(used: Home) -> None:
    used.write_config(log={"access": "policies"})
    said = await used.call("run")
    assert said.code == 2
    assert "Traceback" not in said.err
    (told,) = said.err.splitlines()
    assert "policies" in told
    assert not await used.listens()


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rnu",), "did you mean `run`?"),
        (("run", "--confg", "x"), "--confg"),
        (("run", "--config", "elsewhere.yaml"), "elsewhere.yaml"),
        (("user", "disable"), "USER"),
        (("key", "rotate", "--overlap", "soon"), "--overlap"),
    ],
)
async def test_wrong_usage(here: Home, arguments: tuple[str, ...], words: str) -> None:
    assert words in await here.refuses(*arguments)


async def test_standard_streams_that_are_closed_are_no_hindrance(used: Home) -> None:
    """As some ways of starting a service leave them; nothing else may take their numbers."""
    used.write_config(log={"access": "-"})
    process = await asyncio.create_subprocess_shell(
        f"exec {sys.executable} -m gateway run <&- >&- 2>&-",
        cwd=used.folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        await until(used.listens)
        async with await RawClient.connect(used.port) as client:
            await client.send(b"GET /else HTTP/1.1\r\nHost: a.test\r\n\r\n")
            assert (await client.response()).status == 401
        streams = {number: (Path("/proc") / str(process.pid) / "fd" / str(number)).readlink() for number in range(3)}
        assert set(map(str, streams.values())) == {"/dev/null"}
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0


async def test_nothing_of_a_start_that_failed_or_a_run_that_ended_is_left(used: Home) -> None:
    temporary = used.folder / "tmp"
    temporary.mkdir()
    used.environ["TMPDIR"] = str(temporary)
    async with used.serving():
        (private,) = temporary.iterdir()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert list(temporary.iterdir()) == []
    used.write_config(admin_listen="192.0.2.1:9090")
    assert (await used.call("run")).code == 2
    assert list(temporary.iterdir()) == []
