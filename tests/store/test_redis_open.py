"""A Redis that is not fit is refused when it is opened: one sentence, nothing secret in it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError
from gateway.store import redis_checks
from gateway.store.redis import Redis
from gateway.store.redis_where import Where
from tests.rig.certificates import Authority
from tests.rig.ports import free_port
from tests.rig.redis import PASSWORD, RIGHTS, USER, Masters, Secure, Server, Watched, a_server, needs_redis
from tests.rig.saying import saying

pytestmark = needs_redis

SECRET = "hunter2"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server with a password."""
    with a_server(options={"requirepass": "swordfish"}) as server:
        yield server


async def refusal(where: Where | str, clock: ManualClock) -> str:
    """What is said of it."""
    where = Where.parse(where) if isinstance(where, str) else where
    began = time.monotonic()
    with pytest.raises(ConfigError) as refused:
        await Redis.open(where, clock=clock)
    assert time.monotonic() - began < 5
    (problem,) = refused.value.problems
    said = str(problem)
    assert said.startswith(f"store.shared: {where} ")
    assert "\n" not in said
    for secret in (SECRET, PASSWORD, "swordfish"):
        assert secret not in said
    return said.removeprefix(f"store.shared: {where} ")


async def test_nobody_is_there(clock: ManualClock) -> None:
    said = await refusal(f"redis://u:{SECRET}@127.0.0.1:{free_port()}", clock)
    assert said == "cannot be reached: Connection refused"
    assert "cannot be reached" in await refusal("redis://nobody.invalid", clock)
    assert await refusal("unix:///nowhere/redis.sock", clock) == "cannot be reached: No such file or directory"
    said = await refusal(f"redis+cluster://127.0.0.1:{free_port()}", clock)
    assert said == "cannot be reached: Connection refused"
    said = await refusal(f"redis+sentinel://127.0.0.1:{free_port()}/x", clock)
    assert said == "cannot be reached: no Sentinel answers: Connection refused"


async def test_somebody_who_says_nothing(clock: ManualClock) -> None:
    with a_server() as server:
        server.pause()
        assert "cannot be reached: " in await refusal(server.url, clock)


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"%1\r\n*1\r\n:1\r\n:2\r\n"])
async def test_somebody_who_is_no_redis(words: bytes, clock: ManualClock) -> None:
    with saying(words) as port:
        assert "cannot be" in await refusal(f"redis://127.0.0.1:{port}", clock)


async def test_wrong_passwords_and_names(guarded: Server, secure_redis: Secure, clock: ManualClock) -> None:
    wrong = "does not accept our user name and password (`username` and `password` of `store.shared`)"
    at = guarded.url.removeprefix("redis://")
    assert await refusal(guarded.url, clock) == wrong
    assert await refusal(f"redis://:{SECRET}@{at}", clock) == wrong
    assert await refusal(f"redis://nobody:{SECRET}@{at}", clock) == wrong
    assert await refusal(replace(secure_redis.where, password=SECRET), clock) == wrong
    assert await refusal(replace(secure_redis.where, username="", password=""), clock) == wrong


async def test_tls(secure_redis: Secure, one_redis: Server, tmp_path: Path, clock: ManualClock) -> None:
    where = secure_redis.where
    said = await refusal(replace(where, ca=None), clock)
    assert said.startswith("its certificate is not good: ")
    assert said.endswith("(`ca` of `store.shared` names who signed it)")
    assert "its certificate is not good" in await refusal(replace(where, ca=Authority(tmp_path, "Other").path), clock)
    said = await refusal(replace(where, addresses=(replace(where.addresses[0], host="127.0.0.1"),)), clock)
    assert "its certificate is not good: IP address mismatch" in said
    said = await refusal(replace(where, certificate=None, key=None), clock)
    assert said.endswith("(if it asks for a certificate, `certificate` and `key` are ours)")
    assert "if it speaks TLS, write rediss://" in await refusal(f"redis://localhost:{secure_redis.server.port}", clock)
    said = await refusal(f"rediss://127.0.0.1:{one_redis.port}", clock)
    assert said.startswith("does not speak TLS: ")
    assert said.endswith(" (write redis://)")
    assert "No such file or directory" in await refusal(replace(where, ca=tmp_path / "none.pem"), clock)
    (tmp_path / "no.pem").write_text("nothing")
    assert "TLS failed" in await refusal(replace(where, ca=tmp_path / "no.pem"), clock)


async def test_one_layout_given_as_another(
    one_redis: Server, watched_redis: Watched, redis_cluster: Masters, clock: ManualClock
) -> None:
    node, sentinel, one = redis_cluster.servers[0].port, watched_redis.sentinels[0].port, one_redis.port
    said = await refusal(f"redis://127.0.0.1:{node}", clock)
    assert said == "is a node of a cluster (write redis+cluster://host:6379)"
    assert "is no cluster" in await refusal(f"redis+cluster://127.0.0.1:{one}", clock)
    assert "is a Sentinel" in await refusal(f"redis://127.0.0.1:{sentinel}", clock)
    assert "is no cluster" in await refusal(f"redis+cluster://127.0.0.1:{sentinel}", clock)
    assert "is no Sentinel" in await refusal(f"redis+sentinel://127.0.0.1:{one}/mymaster", clock)
    assert "is no Sentinel" in await refusal(f"redis+sentinel://127.0.0.1:{node}/mymaster", clock)
    said = await refusal(f"redis+sentinel://127.0.0.1:{sentinel}/another", clock)
    assert said.startswith("no Sentinel knows a master called `another` (")
    replica = next(server for server in watched_redis.servers if server is not watched_redis.master())
    assert "is a replica" in await refusal(replica.url, clock)


async def test_a_version_that_is_too_old(
    one_redis: Server, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_checks, "OLDEST", (99, 0))
    said = await refusal(one_redis.url, clock)
    assert said.startswith("is version 7.") or said.startswith("is version 8.")
    assert said.endswith(" (6.2 or newer is needed)")


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        (RIGHTS.replace("+@write", ""), "SET"),
        (RIGHTS.replace("+eval ", ""), "eval"),
        (RIGHTS.replace("+info", ""), "info"),
        (RIGHTS.replace("+publish", ""), "PUBLISH"),
        (RIGHTS.replace("+subscribe", ""), "subscribe"),
        (RIGHTS.replace("&sallyport:*", "&other:*"), "PUBLISH"),
        (RIGHTS.replace("~sallyport:*", "~other:*"), "key"),
        (RIGHTS.replace("+@connection", "+select"), "client"),
    ],
)
async def test_an_acl_that_is_too_tight(rights: str, missing: str, clock: ManualClock) -> None:
    with a_server(options={"user": [f"{USER} on >{SECRET} {rights}"]}) as server:
        where = replace(Where.parse(server.url), username=USER, password=SECRET)
        said = await refusal(where, clock)
        assert missing in said
        assert said.endswith("(docs/state.md has the line for the ACL)")


async def test_the_acl_of_the_docs_is_enough(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    with a_server(options={"user": [f"{USER} on >{SECRET} {RIGHTS}"], "appendonly": "yes"}) as server:
        where = replace(Where.parse(server.url), username=USER, password=SECRET)
        redis = await Redis.open(where, clock=clock)
        await redis.close()
    assert caplog.messages == []


def test_the_docs_have_that_acl() -> None:
    text = (Path(__file__).parents[2] / "docs" / "state.md").read_text()
    lines = re.findall(f"^ACL SETUSER {USER} (.*)$", text, re.MULTILINE)
    assert " ".join(lines) == f"on >PASSWORD {RIGHTS}"


def test_a_library_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "hiredis.py").write_text("raise ModuleNotFoundError('hiredis')")
    said = subprocess.run(
        [sys.executable, "-c", "import gateway.store.redis"],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
    ).stderr
    assert "pip install 'sallyport[redis]'" in said


async def test_what_is_warned_of(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "sallyport")
    with a_server(options={"maxmemory-policy": "allkeys-lru"}) as server:
        redis = await Redis.open(Where.parse(server.url), clock=clock)
        await redis.close()
    forgets, keeps_nothing = caplog.messages
    assert "(maxmemory-policy allkeys-lru)" in forgets
    assert "keeps nothing on disk" in keeps_nothing


def test_the_command_says_one_thing_and_ends_with_2(tmp_path: Path) -> None:
    """And nothing was made: no keys, no database."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.yaml").write_text("rules: [{name: all, access: authenticated, upstream: app}]\n")
    (tmp_path / "config.yaml").write_text(
        "listen: 127.0.0.1:0\nadmin_listen: null\nupstreams: {app: {url: 'http://127.0.0.1:9'}}\n"
        f"store: {{shared: 'redis://u:{SECRET}@127.0.0.1:{free_port()}'}}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "gateway", "run", "--config", str(tmp_path / "config.yaml")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if line]
    assert len(said) == 1
    assert said[0].endswith("cannot be reached: Connection refused")
    assert SECRET not in ended.stdout + ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml", "policies"]
