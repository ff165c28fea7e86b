"""How long a service is waited for: as its upstream says, or the rule. The clock is moved by hand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.policy.load import load
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Request, Truncated
from tests.rig.upstream import Line, RecordingUpstream
from tests.wire.services_at import until

POLICY = """
rules:
  - name: patient
    match: {paths: [/patient/**]}
    access: public
    upstream: app
    timeouts: {response: 5m, idle: 10m}
  - name: hasty
    match: {paths: [/hasty/**]}
    access: public
    upstream: app
    timeouts: {response: 3s}
  - name: unreachable
    match: {paths: [/unreachable/**]}
    access: public
    upstream: app
    timeouts: {connect: 50ms}
  - name: usual
    access: public
    upstream: app
"""


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    service = RecordingUpstream()
    await service.start()
    said = {"url": f"http://127.0.0.1:{service.port}", "timeouts": {"response": "20s", "idle": "40s", "keep": "10s"}}
    async with running(tmp_path, policy=POLICY, config={"upstreams": {"app": said}}) as made:
        made.upstream = service
        yield made
    await service.stop()


async def silent(_: Request, line: Line) -> None:
    await line.reader.read(1)


@pytest.mark.parametrize(("path", "seconds"), [(b"/patient/x", 300), (b"/hasty/x", 3), (b"/x", 20)])
async def test_for_a_head(gateway: Gateway, path: bytes, seconds: float) -> None:
    gateway.upstream.script = silent
    async with await gateway.connect() as client:
        await client.send(request(b"GET", path))
        await gateway.upstream.came()
        gateway.pass_time(seconds - 0.5)
        await asyncio.sleep(0)
        assert not gateway.upstream.lines[0].closed.is_set()
        gateway.pass_time(1)
        assert (await client.response()).status == 504


@pytest.mark.parametrize(("path", "seconds"), [(b"/patient/x", 600), (b"/hasty/x", 40), (b"/x", 40)])
async def test_within_an_answer(gateway: Gateway, path: bytes, seconds: float) -> None:
    async def stops(received: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await silent(received, line)

    gateway.upstream.script = stops
    async with await gateway.connect() as client:
        await client.send(request(b"GET", path))
        await until(lambda: bool(gateway.upstream.requests))
        head = await client.read_until(b"hello")
        assert b"200 OK" in head
        gateway.pass_time(seconds - 0.5)
        assert not gateway.upstream.lines[0].closed.is_set()
        gateway.pass_time(1)
        with pytest.raises(Truncated):
            await client.response()
        assert client.reset


async def test_a_connection_used_by_one_rule_is_as_good_for_another(gateway: Gateway) -> None:
    for path in (b"/hasty/x", b"/x", b"/patient/x", b"/x"):
        assert (await gateway.ask(request(b"GET", path))).status == 200
    assert len(gateway.upstream.lines) == 1
    gateway.upstream.script = silent
    async with await gateway.connect() as client:
        await client.send(request(b"GET", b"/x"))
        await gateway.upstream.came(5)
        gateway.pass_time(19)
        assert not gateway.upstream.lines[0].closed.is_set()
        gateway.pass_time(2)
        assert (await client.response()).status == 504


async def test_an_unused_connection_is_let_go(gateway: Gateway) -> None:
    assert (await gateway.ask(request(b"GET", b"/x"))).status == 200
    gateway.pass_time(9)
    assert not gateway.upstream.lines[0].closed.is_set()
    gateway.pass_time(2)
    await gateway.upstream.until(gateway.upstream.lines[0].closed.is_set)


async def test_for_a_connection(tmp_path: Path) -> None:
    """A port whose backlog is full: the kernel does not answer."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        taken = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            taken.append(one)
        config = {"upstreams": {"app": {"url": f"http://127.0.0.1:{full.getsockname()[1]}"}}}
        async with running(tmp_path, policy=POLICY, config=config) as gateway:
            answer = await gateway.ask(request(b"GET", b"/unreachable/x"))
            assert answer.status == 502
            assert b"ERR-UPSTREAM-UNREACHABLE" in answer.body
        for one in taken:
            one.close()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("{}", "an empty `timeouts` says nothing"),
        ("{response: 0s}", "greater than 0"),
        ("{response: 5}", "is not a duration"),
        ("{reponse: 5s}", "did you mean `response`"),
    ],
)
def test_what_a_rule_may_say(tmp_path: Path, said: str, told: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("{response: 5m, idle: 10m}", said))
    with pytest.raises(ConfigError, match=told):
        load(file, upstreams=["app"], factors=(), admin_groups=(), environ={})
