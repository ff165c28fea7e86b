"""What clients are told of limits, wherever these are counted; and of limits in shadow nobody is told anything."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from gateway.core.rule import LimitSpec
from gateway.limits.spelling import EVERYBODY
from gateway.limits.standings import message
from gateway.sharing import TOPIC
from tests.house.process import until
from tests.limits.conftest import facts
from tests.rig.client import RawClient
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Response
from tests.rig.redis import Server, a_server, needs_redis

POLICY = """
rules:
  - name: counted
    access: public
    limits:
      - {name: few, key: address, rate: 3/h, mode: MODE}
      - {name: many, key: address, rate: 100/h, algorithm: token_bucket, mode: MODE}
    upstream: app
"""
WATCHED = POLICY.replace(
    "    upstream", "      - {name: trial, key: address, rate: 1/h, mode: MODE, shadow: true}\n    upstream"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
async def ending() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as ending:
        yield ending


COUNTED = [
    ("memory", "shared"),
    *[pytest.param("redis", mode, marks=needs_redis) for mode in ("shared", "leased", "local")],
]
"""Where, and how."""


async def begin(ending: AsyncExitStack, folder: Path, where: str, mode: str, policy: str = POLICY) -> Gateway:
    """A gateway that counts there."""
    folder.mkdir()
    store = {"records": f"sqlite:{folder / 'data' / 'rig.db'}", "shared": where}
    config: dict[str, object] = {"store": store}
    gateway = await ending.enter_async_context(running(folder, policy=policy.replace("MODE", mode), config=config))
    await until(lambda: listens(gateway), "listening")
    return gateway


async def listens(gateway: Gateway) -> bool:
    """Whether it hears what replicas tell each other: when that begins, what it has borrowed is let go."""
    if gateway.app.sharing is None:
        return True
    probe = (LimitSpec("probe", ("route",), "fixed_window", 1, 3600.0, 1),)
    gateway.app.limiter.spend(probe, facts(), None, "probe")
    await gateway.app.sharing.redis.publish(TOPIC, message("probe", "", EVERYBODY))
    await asyncio.sleep(0.01)
    return gateway.app.limiter.status("probe") == []


def url(where: str, server: Server) -> str:
    if where == "memory":
        return where
    server.ask("FLUSHALL")
    return server.url


async def scraped(gateway: Gateway) -> str:
    async with await RawClient.connect(gateway.admin_port) as client:
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return (await client.response()).body.decode()


def number(answer: Response, name: str) -> tuple[int, int]:
    """What `RateLimit` says of a limit: how many are left, whole again after how many seconds."""
    told = answer.one("RateLimit")
    assert told is not None
    found = re.search(rf'"{name}";r=(\d+);t=(\d+)(?:,|$)', told.decode())
    assert found, told
    return int(found[1]), int(found[2])


@pytest.mark.parametrize(("where", "mode"), COUNTED)
async def test_clients_are_told_what_they_have_left(
    server: Server, ending: AsyncExitStack, tmp_path: Path, where: str, mode: str
) -> None:
    gateway = await begin(ending, tmp_path / "one", url(where, server), mode)
    answers = [await gateway.ask(request()) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert [number(answer, "few")[0] for answer in answers] == [2, 1, 0, 0, 0]
    assert all(0 < number(answer, "few")[1] <= 3601 for answer in answers)
    for answer in answers[:3]:
        assert answer.one("RateLimit-Policy") == b'"few";q=3;w=3600, "many";q=100;w=3600'
        assert answer.all("Retry-After") == []
    assert [number(answer, "many")[0] for answer in answers[:3]] == lefts(mode)
    for answer in answers[3:]:  # what refuses is told; what was not asked any more may be left out
        assert (answer.one("RateLimit-Policy") or b"").startswith(b'"few";q=3;w=3600')
        assert 3500 < int(answer.one("Retry-After") or 0) <= 3601


def lefts(mode: str) -> list[int]:
    """Of a hundred, after each of three. What is borrowed is a burst smaller by what a lease may be late."""
    return [98, 97, 96] if mode == "leased" else [99, 98, 97]


@needs_redis
@pytest.mark.parametrize("mode", ["shared", "leased"])
async def test_a_client_of_two_replicas_is_told_of_one_count(
    server: Server, ending: AsyncExitStack, tmp_path: Path, mode: str
) -> None:
    shared = url("redis", server)
    replicas = [await begin(ending, tmp_path / name, shared, mode) for name in ("one", "two")]
    answers = [await replicas[turn % 2].ask(request()) for turn in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert [number(answer, "few")[0] for answer in answers] == [2, 1, 0, 0, 0]


@pytest.mark.parametrize(("where", "mode"), COUNTED)
async def test_a_limit_in_shadow_changes_no_byte_and_counts_what_it_would_have_done(
    server: Server, ending: AsyncExitStack, tmp_path: Path, where: str, mode: str
) -> None:
    shared = url(where, server)
    said = {}
    for name, policy in (("without", POLICY), ("with", WATCHED)):
        gateway = await begin(ending, tmp_path / name, shared, mode, policy)
        said[name] = [
            same(await gateway.ask(each))
            for each in (request(), request(b"POST", body=b"x", head=b"Content-Length: 1\r\n"), request())
        ]
        told = await scraped(gateway)
        said[name] += [same(await gateway.ask(request())) for _ in range(2)]
        for limit in ("few", "many"):
            await gateway.app.standings.reset("counted", limit, EVERYBODY)
    assert said["with"] == said["without"]
    assert [answer.partition(b" ")[2][:3] for answer in said["with"]] == [b"200"] * 3 + [b"429"] * 2
    for outcome, times in (("shadow_allowed", 1.0), ("shadow_refused", 2.0)):
        assert f'sallyport_limits_total{{limit="trial",outcome="{outcome}"}} {times}' in told
    (trial,), _ = await gateway.app.standings.status("counted", "trial", EVERYBODY, 10)
    assert (trial.shadow, trial.allowed, trial.remaining) == (True, False, 0)


def same(answer: Response) -> bytes:
    """An answer without what is another each time."""
    raw = re.sub(rb"(?i)(X-Request-Id|Date): [^\r]*", rb"\1: x", answer.raw + answer.body)
    raw = re.sub(rb'"request_id":"[^"]*"', b'"request_id":"x"', raw)
    # Two gateways were not asked in the same second, nor borrowed the same shares.
    return re.sub(rb"(;t=|Retry-After: )\d+", rb"\1n", raw)
