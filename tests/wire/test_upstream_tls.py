"""TLS to a service: who is believed, and who we say we are."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigError
from gateway.wire.upstream_tls import UpstreamTls
from tests.rig.certificates import Authority, Made
from tests.rig.gateway import Gateway, running
from tests.rig.messages import Request
from tests.rig.upstream import Line, RecordingUpstream
from tests.wire.services_at import GET, settled, until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def server(made: Made, clients: Path | None = None) -> ssl.SSLContext:
    """What the service shows, and whose certificates it asks for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    return context


@asynccontextmanager
async def before(
    folder: Path, context: ssl.SSLContext, host: str = "localhost", **said: Any
) -> AsyncIterator[tuple[Gateway, RecordingUpstream]]:
    """A gateway before a service that speaks TLS; `said` is what the config says of the upstream."""
    service = RecordingUpstream()
    await service.start(tls=context)
    try:
        url = f"https://{host}:{service.port}"
        config = {"upstreams": {"app": {"url": url, **said}, "other": {"url": "http://127.0.0.1:1"}}}
        (folder / "house").mkdir()
        async with running(folder / "house", config=config) as gateway:
            yield gateway, service
    finally:
        await service.stop()


async def test_a_service_that_proves_who_it_is(tmp_path: Path, authority: Authority) -> None:
    context = server(authority.make("app", "localhost"))
    async with before(tmp_path, context, tls={"ca": str(authority.path)}) as (gateway, service):
        for _ in range(3):
            answer = await gateway.ask(GET)
            assert (answer.status, answer.body) == (200, b"GET /public/x 0")
        assert len(service.lines) == 1  # kept
        assert service.requests[0].one("Host") == b"good.test"
        body = bytes(range(256)) * 4096
        received = await gateway.ask(
            b"POST /public/up HTTP/1.1\r\nHost: good.test\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body), "POST"
        )
        assert received.body == b"POST /public/up %d" % len(body)


@pytest.mark.parametrize(
    ("said", "names", "ends"),
    [
        ({}, ["localhost"], 365),  # the system's authorities do not know ours
        ({"ca": "other"}, ["localhost"], 365),
        ({"ca": "ours"}, ["elsewhere.test"], 365),
        ({"ca": "ours"}, ["localhost"], -1),
        ({"ca": "ours", "server_name": "app.internal"}, ["localhost"], 365),
    ],
    ids=["unknown to the system", "another authority", "another name", "expired", "not the name asked for"],
)
async def test_a_service_that_does_not_is_not_spoken_to(
    tmp_path: Path,
    authority: Authority,
    said: dict[str, str],
    names: list[str],
    ends: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    files = {"ours": authority.path, "other": Authority(tmp_path, "Somebody Else").path}
    tls = {key: str(files.get(value, value)) for key, value in said.items()}
    context = server(authority.make("app", *names, ends=datetime.timedelta(days=ends)))
    async with before(tmp_path, context, tls=tls) as (gateway, service):
        for _ in range(3):
            answer = await gateway.ask(GET)
            assert answer.status == 502
            assert b"ERR-UPSTREAM-UNREACHABLE" in answer.body
            assert b"certificate" not in answer.body.lower()
        assert service.raw == b""
        told = [record.getMessage() for record in caplog.records if "no connection" in record.getMessage()]
        assert len(told) == 1, "once, not for every request"
        assert "CERTIFICATE_VERIFY_FAILED" in told[0]
        await settled(gateway)


@pytest.mark.parametrize(("host", "names", "said"), [("127.0.0.1", ["app.internal"], {"server_name": "app.internal"})])
async def test_the_name_may_be_another_than_the_address(
    tmp_path: Path, authority: Authority, host: str, names: list[str], said: dict[str, str]
) -> None:
    context = server(authority.make("app", *names))
    async with before(tmp_path, context, host, tls={"ca": str(authority.path), **said}) as (gateway, _):
        assert (await gateway.ask(GET)).status == 200


async def test_insecure_is_possible_and_said_aloud(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    context = server(authority.make("app", "elsewhere.test"))
    async with before(tmp_path, context, tls={"verify": "insecure"}) as (gateway, _):
        assert (await gateway.ask(GET)).status == 200
    assert "the certificate of `app` is not verified" in caplog.text


async def test_we_say_who_we_are_and_take_up_a_new_certificate(tmp_path: Path, authority: Authority) -> None:
    shown: list[str] = []

    async def script(_: Request, line: Line) -> None:
        peer = line.writer.get_extra_info("peercert")
        shown.append(next(value for pairs in peer["subject"] for key, value in pairs if key == "commonName"))
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        line.close()

    context = server(authority.make("app", "localhost"), authority.path)
    first = authority.make("me", common_name="gateway-1")
    tls = {"ca": str(authority.path), "certificate": str(first.certificate), "key": str(first.key)}
    async with before(tmp_path, context, tls=tls) as (gateway, service):
        service.script = script
        assert (await gateway.ask(GET)).status == 200
        authority.make("me", common_name="gateway-2")
        gateway.pass_time(1)
        assert (await gateway.ask(GET)).status == 200
        first.key.write_text("nonsense")
        gateway.pass_time(1)
        assert (await gateway.ask(GET)).status == 200  # the last good one stays
        authority.make("me", common_name="gateway-3")
        gateway.pass_time(1)
        assert (await gateway.ask(GET)).status == 200
        assert shown == ["gateway-1", "gateway-2", "gateway-2", "gateway-3"]


async def test_a_service_that_wants_to_know_who_we_are(tmp_path: Path, authority: Authority) -> None:
    context = server(authority.make("app", "localhost"), authority.path)
    async with before(tmp_path, context, tls={"ca": str(authority.path)}) as (gateway, service):
        assert (await gateway.ask(GET)).status == 502
        assert service.requests == []


async def test_checks_go_the_same_way(tmp_path: Path, authority: Authority) -> None:
    context = server(authority.make("app", "elsewhere.test"))
    health = {"unhealthy": 1}
    async with before(tmp_path, context, tls={"ca": str(authority.path)}, health=health) as (gateway, service):
        gateway.pass_time(0)
        await settled(gateway)
        (endpoint,) = gateway.app.wire.upstreams["app"].endpoints
        assert not endpoint.up
        assert service.raw == b""


async def test_an_answer_cut_off_within_tls_is_no_whole_answer(tmp_path: Path, authority: Authority) -> None:
    """Without a length only the end of the connection tells, and only TLS can tell that from an attacker's (RFC 8446,
    section 6.1)."""
    context = server(authority.make("app", "localhost"))

    async def script(received: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")
        if received.target == b"/public/cut":  # the TCP connection ends well, but TLS says nothing of an end
            with socket.socket(fileno=os.dup(line.writer.get_extra_info("socket").fileno())) as raw:
                raw.shutdown(socket.SHUT_WR)
            await line.reader.read()
        else:
            line.close()

    async with before(tmp_path, context, tls={"ca": str(authority.path)}) as (gateway, service):
        service.script = script
        assert (await gateway.ask(GET)).body == b"half of it"
        async with await gateway.connect() as client:
            await client.send(GET.replace(b"/x", b"/cut"))
            rest = await client.read_rest()
            assert rest.endswith(b"half of it\r\n")  # and no last chunk


@pytest.mark.parametrize("broken", ["ca", "certificate", "key", "password", "other key"])
def test_files_that_are_not_fit_are_told_before_we_start(tmp_path: Path, authority: Authority, broken: str) -> None:
    made = authority.make("me", password=b"secret" if broken == "password" else b"")
    files = {"ca": authority.path, "certificate": made.certificate, "key": made.key}
    if broken == "other key":
        files["key"] = authority.make("you").key
    elif broken != "password":
        files[broken] = tmp_path / "nowhere.pem"
    with pytest.raises(ConfigError, match="upstream `app`: its TLS files cannot be used"):
        UpstreamTls("app", **files)


@pytest.mark.parametrize("leaves", [False, True], ids=["too slow", "the client leaves"])
async def test_a_service_that_never_finishes_its_greeting(tmp_path: Path, authority: Authority, leaves: bool) -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def accepts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                pass
        writer.close()
        ended.set()

    mute = await asyncio.start_server(accepts, "127.0.0.1", 0)
    url = f"https://localhost:{mute.sockets[0].getsockname()[1]}"
    said = {"url": url, "tls": {"ca": str(authority.path)}, "timeouts": {"connect": "60s" if leaves else "100ms"}}
    (tmp_path / "house").mkdir()
    config = {"upstreams": {"app": said, "other": {"url": "http://127.0.0.1:1"}}}
    async with running(tmp_path / "house", config=config) as gateway, await gateway.connect() as client:
        await client.send(GET)
        await begun.wait()
        if leaves:
            client.abort()
        else:
            assert (await client.response()).status == 502
        async with asyncio.timeout(10):
            await ended.wait()
        upstream = gateway.app.wire.upstreams["app"]
        await until(lambda: not upstream._connecting and not upstream.endpoints[0].open)
    mute.close()
    await mute.wait_closed()
