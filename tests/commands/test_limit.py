"""`sallyport limit` as an operator gives it: from another process, beside gateways that run, with Redis and without."""

from __future__ import annotations

import contextlib
import getpass
import json
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.commands.kept import Sallyport
from tests.house.process import Home, Said, home, until
from tests.house.visitor import Visitor
from tests.rig.client import RawClient
from tests.rig.gateway import PASSWORD, request
from tests.rig.messages import Response
from tests.rig.redis import Server, a_server, needs_redis
from tests.rig.upstream import RecordingUpstream

POLICY = """
rules:
  - name: counted
    match: {paths: [/counted/**]}
    access: public
    limits:
      - {name: few, key: address, rate: 3/h}
      - {name: here, key: address, rate: 100/h, mode: local}
    upstream: app
  - name: keys
    match: {paths: [/keys/**]}
    access: public
    limits: [{name: per-key, key: "header:X-Api-Key", rate: 100/h, shadow: true}]
    upstream: app
  - name: mine
    match: {paths: [/mine/**]}
    access: authenticated
    limits: [{name: per-user, key: user, rate: 3/h}]
    upstream: app
"""


@pytest_asyncio.fixture
async def service() -> AsyncIterator[RecordingUpstream]:
    service = RecordingUpstream()
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
def at(service: RecordingUpstream) -> Iterator[Home]:
    with home(service.port) as one:
        one.write(POLICY)
        yield one


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
def redis(server: Server, at: Home) -> Server:
    server.ask("FLUSHALL")
    at.write_config(store={"shared": {"url": server.url, "deadline": "2s"}})  # a busy machine is no store that is away
    return server


async def asked(one: Home, target: bytes = b"/counted/x", head: bytes = b"") -> Response:
    async with await RawClient.connect(one.port) as client:
        await client.send(request(target=target, head=head))
        return await client.response()


async def limit(one: Home, *arguments: str) -> Said:
    return await one.ask("limit", *arguments)


async def status(one: Home, *arguments: str) -> list[dict[str, Any]]:
    said = await limit(one, "status", "--json", *arguments)
    assert said.code == 0, said
    shown: list[dict[str, Any]] = json.loads(said.out)
    return [each for each in shown if each["rule"] != "sallyport-pages"]


def events(one: Home) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(one.data / "sallyport.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM events WHERE kind = 'limit_reset' ORDER BY id")]


async def test_a_gateway_is_asked_about_what_it_keeps_in_memory(at: Home) -> None:
    async with at.serving():
        answers = [(await asked(at)).status for _ in range(4)]
        assert answers == [200, 200, 200, 429]
        table = (await limit(at, "status", "--rule", "counted")).out.splitlines()
        assert [line.split()[:6] for line in table] == [
            ["RULE", "LIMIT", "WHO", "COUNTED", "NOW", "LEFT"],
            ["counted", "few", "address:127.0.0.1", "local", "refused", "0"],
            ["counted", "here", "address:127.0.0.1", "local", "allowed", "97"],
        ]
        (few,) = await status(at, "--limit", "few", "--key", "address:127.0.0.1")
        assert (few["allowed"], few["remaining"], few["counted"]) == (False, 0, "local")
        assert 3590 < few["retry_after"] <= 3600
        assert await status(at, "--rule", "counted", "--key", "address:192.0.2.1") == []
        said = await at.call("limit", "reset", "--rule", "counted", "--limit", "few", "--key", "address:127.0.0.1",
                             "--reason", "they fixed their client")  # fmt: skip
        assert (said.code, said.out) == (
            0, "1 counter of address:127.0.0.1 in rule counted, limit few was reset\n",
        )  # fmt: skip
        assert (await asked(at)).status == 200
        (event,) = events(at)
        assert event["rule"] == "counted"
        detail = json.loads(event["detail"])
        assert detail.pop("by") == getpass.getuser()
        assert detail == {
            "limit": "few", "who": "address:127.0.0.1", "counters": 1, "reason": "they fixed their client",
            "from": "command line",
        }  # fmt: skip


async def test_without_a_gateway_memory_cannot_be_asked(at: Home) -> None:
    said = await limit(at, "status")
    assert (said.code, said.out) == (1, "")
    assert "no gateway runs" in said.err
    assert "ERR-NO-GATEWAY" in said.err


async def test_after_a_gateway_was_killed_the_next_one_is_asked(at: Home) -> None:
    async with at.serving() as killed:
        killed.process.send_signal(signal.SIGKILL)
        await killed.process.wait()
    assert len(list((at.data / "control").iterdir())) == 1
    assert (await limit(at, "status")).code == 1
    async with at.serving():
        assert len(list((at.data / "control").iterdir())) == 1
        await asked(at)
        assert len(await status(at)) == 2
    assert list((at.data / "control").iterdir()) == []


@needs_redis
async def test_redis_is_asked_whether_a_gateway_runs_or_not(at: Home, redis: Server) -> None:
    async with at.serving():
        assert [(await asked(at)).status for _ in range(4)] == [200, 200, 200, 429]
        for each in (b"s3cret", b"another"):
            await asked(at, b"/keys/x", b"X-Api-Key: " + each + b"\r\n")
        shown = {(each["limit"], each["counted"]): each for each in await status(at, "--rule", "counted")}
        assert set(shown) == {("few", "shared"), ("here", "local")}
        assert shown["few", "shared"]["remaining"] == 0
        assert shown["here", "local"]["remaining"] == 96  # asked first, so it has counted what `few` refused
    said = await limit(at, "status", "--rule", "counted", "--json")
    assert "limits of mode `local` are left out here" in said.err
    (few,) = json.loads(said.out)
    assert (few["limit"], few["counted"], few["allowed"]) == ("few", "shared", False)
    said = await limit(at, "status", "--rule", "keys")
    assert "s3cret" not in said.out
    assert said.out.count("allowed (shadow)") == 2
    assert len(await status(at, "--key", "header:s3cret")) == 1
    said = await limit(at, "reset", "--rule", "counted", "--all", "--reason", "a drill", "--json")
    assert (said.code, json.loads(said.out)["counters"]) == (0, 1)
    assert await status(at, "--rule", "counted") == []
    assert len(await status(at, "--rule", "keys")) == 2


@needs_redis
async def test_a_reset_reaches_every_replica(at: Home, redis: Server, service: RecordingUpstream) -> None:
    """What they remember of shared counters, and what each has counted by itself; on other machines too."""
    with home(service.port) as there:
        there.write(POLICY)
        there.write_config(store={"shared": redis.url})
        async with at.serving(), there.serving():
            for one in (at, there):
                for _ in range(5):
                    await asked(one)
            assert (await asked(at)).status == (await asked(there)).status == 429
            before = await status(there, "--limit", "here")
            assert before[0]["remaining"] < 100
            said = await limit(at, "reset", "--rule", "counted", "--key", "address:127.0.0.1", "--reason", "x")
            assert (said.code, said.out) == (0, "2 counters of address:127.0.0.1 in rule counted were reset\n")

            async def obeyed() -> bool:
                return await status(there, "--limit", "here") == []

            await until(obeyed)
            assert [(await asked(one)).status for one in (at, there, at, there)] == [200, 200, 200, 429]
            assert [json.loads(each["detail"])["counters"] for each in events(at)] == [1, 1]


@needs_redis
async def test_users_are_named(at: Home, redis: Server) -> None:
    said = await at.call("user", "add", "bob", "--password-stdin", stdin=f"{PASSWORD}\n".encode())
    assert said.code == 0, said
    async with at.serving():
        bob = Visitor(at.port, origin=f"http://127.0.0.1:{at.port}")
        await bob.sign_in("bob", PASSWORD, "")
        assert (await bob.get("/mine/x")).status == 200
    (mine,) = await status(at, "--rule", "mine")
    assert (mine["key"], mine["remaining"]) == ("user:bob", 2)
    assert [each["key"] for each in await status(at, "--rule", "mine", "--key", "user:BOB")] == ["user:bob"]
    assert await status(at, "--rule", "mine", "--key", "user:ann") == []
    said = await limit(at, "reset", "--rule", "mine", "--key", "user:bob", "--reason", "x")
    assert said.out == "1 counter of user:bob in rule mine was reset\n"
    assert await status(at, "--rule", "mine") == []


@needs_redis
async def test_more_than_is_shown_is_said(at: Home, redis: Server) -> None:
    async with at.serving():
        for n in range(5):
            await asked(at, b"/keys/x", b"X-Api-Key: %d\r\n" % n)
    said = await limit(at, "status", "--rule", "keys", "--most", "3", "--json")
    assert len(json.loads(said.out)) == 3
    assert "the first 3" in said.err
    said = await limit(at, "status", "--rule", "keys", "--most", "5", "--json")
    assert len(json.loads(said.out)) == 5
    assert said.err == ""


@needs_redis
async def test_a_redis_that_is_gone_is_said_in_a_line(at: Home, redis: Server) -> None:
    at.write_config(store={"shared": "redis://:p4ss@127.0.0.1:1"})
    for action in (("status",), ("reset", "--rule", "counted", "--all", "--reason", "x")):
        said = await limit(at, *action)
        assert (said.code, said.out) == (2, "")
        assert "cannot be reached" in said.err
        assert "p4ss" not in said.err
        assert "Traceback" not in said.err


async def test_the_data_plane_alone_is_asked_where_it_is_told_to_listen(at: Home) -> None:
    at.write("rules: [{name: open, access: public, upstream: app, limits: [{name: few, key: address, rate: 3/h}]}]")
    at.write_config(store={"records": "none"})
    async with at.serving():
        said = await limit(at, "status")
        assert said.code == 1
        assert "`control: data/control`" in said.err
        assert not at.data.exists()
    at.write_config(control="asked")
    async with at.serving() as serving:
        await asked(at)
        (few,) = await status(at)
        assert (few["limit"], few["remaining"]) == ("few", 2)
        said = await limit(at, "reset", "--rule", "open", "--all", "--reason", "x")
        assert said.code == 0, said
        await serving.until('"event":"limit_reset"')
        assert '"reason":"x"' in serving.err


async def test_a_control_folder_that_cannot_be_used_is_no_reason_to_stop_unless_it_was_asked_for(at: Home) -> None:
    at.data.mkdir(mode=0o700)
    (at.data / "control").mkdir(mode=0o755)
    (at.data / "control").chmod(0o755)
    async with at.serving() as serving:
        assert "`sallyport limit` cannot ask this gateway" in serving.err
        assert (await asked(at)).status == 200
    at.write_config(control="data/control")
    said = await at.call("run")
    assert said.code == 2
    assert "others can enter" in said.err
    assert "Traceback" not in said.err


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sallyport(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sallyport:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.yaml").write_text(POLICY)
    return Sallyport(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("reset", "--rule", "counted", "--reason", "x"), 2, "--key user:NAME, or --all"),
        (("reset", "--rule", "counted", "--key", "user:bob", "--all", "--reason", "x"), 2, "--key user:NAME, or --all"),
        (("reset", "--all", "--reason", "x"), 2, "--rule"),
        (("reset", "--rule", "counted", "--all"), 2, "--reason"),
        (("reset", "--rule", "counted", "--all", "--reason", " "), 2, "--reason 'why'"),
        (("reset", "--rule", "counted", "--all", "--reason", "x" * 501), 2, "up to 500"),
        (("status", "--most", "0"), 2, "from 1 on"),
        (("status", "--most", "x"), 2, "--most"),
        (("status", "--key", "bob"), 2, "user:NAME"),
        (("status", "--rule", "countd"), 1, "did you mean counted"),
        (("status", "--rule", "counted", "--limit", "fw"), 1, "did you mean few"),
        (("reset", "--rule", "nothing", "--all", "--reason", "x"), 1, "No rule nothing has limits"),
        (("forget",), 2, "invalid choice"),
        ((), 2, "ACTION"),
    ],
)
def test_what_cannot_be_is_said_with_what_can(
    sallyport: Sallyport, arguments: tuple[str, ...], code: int, words: str
) -> None:
    assert sallyport("user", "add", "bob", "--generate").code == 0
    said = sallyport("limit", *arguments)
    assert (said.code, said.out) == (code, "")
    assert words in said.err
    assert not any(kind == "limit_reset" for kind, _ in sallyport.events())


def test_where_nothing_is_counted_nothing_can_be_shown(sallyport: Sallyport) -> None:
    (sallyport.folder / "config.yaml").write_text(
        "upstreams: {app: {url: http://127.0.0.1:9000}}\nstore: {records: none, shared: none}\n"
    )
    (sallyport.folder / "policies" / "a.yaml").write_text("rules: [{name: x, access: public, upstream: app}]\n")
    said = sallyport("limit", "status")
    assert said.code == 1
    assert "nothing is counted" in said.err
