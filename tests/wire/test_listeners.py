from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import stat
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import ConfigError
from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from gateway.wire.listener import Where, bind
from tests.rig.client import PATIENCE, RawClient
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Response

V1 = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    + struct.pack("!H", 12)
    + ipaddress.ip_address("203.0.113.9").packed
    + ipaddress.ip_address("192.0.2.1").packed
    + struct.pack("!HH", 4711, 443)
)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0"
ASK = request(b"GET", b"/public/x", b"Connection: close\r\n")


def listening(*listen: Any, **config: Any) -> dict[str, Any]:
    return {"listen": list(listen), **config}


async def turned_away(gateway: Gateway) -> list[dict[str, Any]]:
    """The events of connections that never came to a request."""
    await gateway.app.recorder.flush()
    events = await gateway.app.recorder.events(DEFAULT_TENANT, kind=Kind.REQUEST_REJECTED)
    return [{"address": event.address, **event.detail} for event in events]


def seen(gateway: Gateway, name: bytes) -> bytes:
    """A header of the one request that the service has seen."""
    (one,) = gateway.upstream.requests
    (value,) = one.all(name.decode())
    return value


async def ask_unix(path: Path, *segments: bytes) -> Response:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, str(path))
    async with RawClient(sock) as client:
        await client.send(*segments)
        return await client.response()


# -- several, IPv6 ---------------------------------------------------------------------------------------------------


async def test_several_listeners_at_once(tmp_path: Path) -> None:
    listen = listening("127.0.0.1:0", "[::1]:0", f"unix:{tmp_path / 'in.sock'}", "localhost:0")
    async with running(tmp_path, config=listen) as gateway:
        four, six, unix, name = gateway.app.wire.servers
        assert [server.port for server in (four, unix)] == [gateway.port, 0]
        for port, host, address in (
            (four.port, "127.0.0.1", b"127.0.0.1"),
            (six.port, "::1", b"::1"),
            (name.port, str(name.sockets[0].getsockname()[0]), None),
        ):
            gateway.upstream.clear()
            async with await RawClient.connect(port, host=host) as client:
                await client.send(ASK)
                assert (await client.response()).status == 200
            assert seen(gateway, b"X-Forwarded-For") == address or address is None
        gateway.upstream.clear()
        assert (await ask_unix(tmp_path / "in.sock", ASK)).status == 200
        assert seen(gateway, b"X-Forwarded-For") == b"unknown"
    assert not (tmp_path / "in.sock").exists()


async def test_the_wildcard_of_ipv6_is_for_ipv4_too_and_addresses_stay_canonical(tmp_path: Path) -> None:
    async with running(tmp_path, config=listening("[::]:0")) as gateway:
        for host, address in (("127.0.0.1", b"127.0.0.1"), ("::1", b"::1")):
            gateway.upstream.clear()
            async with await RawClient.connect(gateway.port, host=host) as client:
                await client.send(ASK)
                assert (await client.response()).status == 200
            assert seen(gateway, b"X-Forwarded-For") == address


async def test_an_address_of_ipv6_is_for_ipv6_alone(tmp_path: Path) -> None:
    async with running(tmp_path, config=listening("[::1]:0")) as gateway:
        with pytest.raises(ConnectionRefusedError), socket.socket() as four:
            four.connect(("127.0.0.1", gateway.port))


def test_link_local_peers_have_no_zone_in_their_address(tmp_path: Path) -> None:
    from gateway.wire.forwarded import TrustedProxies
    from gateway.wire.listener import Listener

    class Wire:
        proxies = TrustedProxies([ipaddress.ip_network("fe80::/10")])
        scheme = "http"

    listener = Listener(Wire(), Where(), [], tls=None, proxy_protocol=False)  # type: ignore[arg-type]
    assert listener.known(("fe80::1%eth0", 1, 0, 2)) == ("fe80::1", True)
    assert listener.known(("::ffff:192.0.2.1", 1, 0, 0)) == ("192.0.2.1", False)
    assert listener.known("") == ("unknown", False)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (Where("192.0.2.1", 80), "cannot listen on 192.0.2.1:80: "),
        (Where("no-such-host.invalid", 80), "cannot listen on no-such-host.invalid:80: "),
        (Where("fe80::1%nowhere", 80), "cannot listen on \\[fe80::1%nowhere\\]:80: "),
        (Where(path="/no/such/folder/in.sock"), "cannot listen on unix:/no/such/folder/in.sock: No such file"),
        (Where(descriptor=987), "cannot listen on fd:987: "),
    ],
)
def test_where_nobody_can_listen(where: Where, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bind(where)


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        with pytest.raises(ConfigError, match="another program uses it"):
            bind(Where("127.0.0.1", gateway.port))


# -- Unix sockets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "bits"), [(None, 0o660), ("0600", 0o600), ("666", 0o666)])
async def test_the_mode_of_a_unix_socket(mode: str | None, bits: int, tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    listen = {"address": f"unix:{path}"} | ({"mode": mode} if mode else {})
    async with running(tmp_path, config=listening(listen)):
        assert stat.S_IMODE(path.stat().st_mode) == bits


async def test_a_socket_that_was_left_behind_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    bind(Where(path=str(path)))[0].close()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(ConfigError, match="use"):
        bind(Where(path=str(path)))
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("trusted", "address", "chain"), [([], b"unknown", b"unknown"), (["unix"], b"203.0.113.9", b"203.0.113.9, unknown")]
)
async def test_peers_on_a_unix_socket_are_believed_where_that_is_said(
    trusted: list[str], address: bytes, chain: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "in.sock"
    async with running(tmp_path, config=listening(f"unix:{path}", trusted_proxies=trusted)) as gateway:
        head = b"Connection: close\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n"
        assert (await ask_unix(path, request(head=head))).status == 200
        assert seen(gateway, b"X-Forwarded-For") == chain
        assert seen(gateway, b"X-Forwarded-Proto") == (b"https" if trusted else b"http")
        await asyncio.sleep(0)
        gateway.app.wire.settle()
        gateway.app._access_log.flush()
    assert b'"address":"%b"' % address in (tmp_path / "access.log").read_bytes()


async def test_unix_does_not_make_anybody_else_believed(tmp_path: Path) -> None:
    async with running(tmp_path, config={"trusted_proxies": ["unix"]}) as gateway:
        await gateway.ask(request(head=b"X-Forwarded-For: 203.0.113.9\r\n"))
        assert seen(gateway, b"X-Forwarded-For") == b"127.0.0.1"


# -- sockets that are open already -----------------------------------------------------------------------------------


async def test_a_socket_of_somebody_else_is_served_and_outlives_us(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        port = ours.getsockname()[1]
        async with running(tmp_path, config=listening(f"fd:{os.dup(ours.fileno())}")) as gateway:
            assert gateway.port == port
            assert (await gateway.ask(request())).status == 200
        async with await RawClient.connect(port) as client:  # nobody serves it now, and nobody is refused
            await client.send(ASK)
            connection, _ = ours.accept()
            with connection:
                assert connection.recv(4096).startswith(b"GET /public/x ")


async def test_sockets_of_systemd_belong_to_the_process_they_are_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.wire.listener import inherited

    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert inherited() == [Where(descriptor=3), Where(descriptor=4)]
    for name, value in (("LISTEN_PID", "1"), ("LISTEN_PID", ""), ("LISTEN_FDS", "0"), ("LISTEN_FDS", "-1")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(ConfigError, match="systemd passes no socket on"):
                inherited()


# -- PROXY protocol --------------------------------------------------------------------------------------------------

PROXIED = {"address": "127.0.0.1:0", "proxy_protocol": True}


@asynccontextmanager
async def proxied(folder: Path, *trusted: str, **config: Any) -> AsyncIterator[Gateway]:
    async with running(folder, config=listening(PROXIED, trusted_proxies=trusted, **config)) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (V1, b"203.0.113.9"),
        (V2, b"203.0.113.9"),
        (b"PROXY TCP6 2001:DB8::9 ::1 1 2\r\n", b"2001:db8::9"),
        (LOCAL, b"127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", b"unknown"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x00\0\0", b"unknown"),
    ],
)
@pytest.mark.parametrize("pieces", ["one", "two", "bytes"])
async def test_the_address_a_proxy_tells(header: bytes, address: bytes, pieces: str, tmp_path: Path) -> None:
    async with proxied(tmp_path, "127.0.0.1/32") as gateway, await gateway.connect() as client:
        if pieces == "one":
            await client.send(header + ASK)
        elif pieces == "two":
            await client.send(header, ASK)
        else:
            await client.send(*(bytes((octet,)) for octet in header + ASK))
        assert (await client.response()).status == 200
        assert seen(gateway, b"X-Forwarded-For") == address
        assert await turned_away(gateway) == []


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x00\0\0", V1])
async def test_a_client_of_a_proxy_cannot_choose_its_address(header: bytes, tmp_path: Path) -> None:
    """Also where the proxy cannot tell who it is: the proxy is trusted, but what follows is not its word."""
    async with proxied(tmp_path, "127.0.0.1/32") as gateway, await gateway.connect() as client:
        await client.send(header + request(head=b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n"))
        assert (await client.response()).status == 200
        assert seen(gateway, b"X-Forwarded-For") == (b"203.0.113.9" if header == V1 else b"unknown")
        assert seen(gateway, b"X-Forwarded-Proto") == b"http"


async def test_many_requests_follow_one_header(tmp_path: Path) -> None:
    async with proxied(tmp_path, "127.0.0.1/32") as gateway, await gateway.connect() as client:
        await client.send(V2 + request() + request())
        await client.send(request())
        assert [one.status for one in await client.responses("GET", "GET", "GET")] == [200, 200, 200]
        assert {one.all("X-Forwarded-For")[0] for one in gateway.upstream.requests} == {b"203.0.113.9"}


@pytest.mark.parametrize(
    "sent",
    [
        ASK,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 99999\r\n" + ASK,
        b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n" + ASK,
        V2[:14] + b"\xff\xff" + ASK,
        V2[:12] + b"\x31" + V2[13:] + ASK,
        b"\r\n" + V1 + ASK,
        os.urandom(64).replace(b"P", b"p").replace(b"\r", b"x"),
    ],
    ids=["none", "tls", "port", "long", "length", "version", "line", "garbage"],
)
async def test_a_trusted_proxy_must_introduce_its_client(sent: bytes, tmp_path: Path) -> None:
    async with proxied(tmp_path, "127.0.0.1/32") as gateway, await gateway.connect() as client:
        await client.send(sent)
        assert await client.is_closed()
        (event,) = await turned_away(gateway)
        assert (event["reason"], event["address"]) == ("bad_proxy_header", "127.0.0.1")
        assert event["trusted"] is True
        assert gateway.upstream.requests == []


@pytest.mark.parametrize("sent", [V1 + ASK, V2 + ASK, ASK])
@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8"], ["unix"]])
async def test_nobody_else_is_heard(sent: bytes, trusted: list[str], tmp_path: Path) -> None:
    async with proxied(tmp_path, *trusted) as gateway, await gateway.connect() as client:
        await client.send(sent)
        assert await client.is_closed()
        (event,) = await turned_away(gateway)
        assert (event["reason"], event["trusted"]) == ("bad_proxy_header", False)
        assert gateway.upstream.requests == []


async def test_where_no_header_is_expected_it_is_no_request(tmp_path: Path) -> None:
    async with running(tmp_path, config={"trusted_proxies": ["127.0.0.1/32"]}) as gateway:
        (answer,) = await gateway.say(V1 + ASK)
        assert answer.status == 400
        assert gateway.upstream.requests == []


async def test_a_proxy_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    async with proxied(tmp_path, "127.0.0.1/32") as gateway, await gateway.connect() as silent:
        async with await gateway.connect() as half:
            await half.send(V1[:20])
            (listener,) = gateway.app.wire.servers
            async with asyncio.timeout(PATIENCE):
                while len(listener._arriving) < 2:
                    await asyncio.sleep(0)
            gateway.pass_time(11.0)
            assert await half.is_closed()
            assert await silent.is_closed()
        assert not listener.arriving


async def test_who_is_given_up_before_anybody_turned_to_them_is_let_go(tmp_path: Path) -> None:
    async with proxied(tmp_path, "127.0.0.1/32") as gateway:
        (listener,) = gateway.app.wire.servers
        with socket.create_connection(("127.0.0.1", gateway.port)) as early:
            listener._accept(listener.sockets[0])
            (task,) = listener._arriving
            gateway.pass_time(11.0)
            early.setblocking(False)
            async with asyncio.timeout(PATIENCE):
                assert await asyncio.get_running_loop().sock_recv(early, 1) == b""
            assert task.cancelled()
            assert not listener.arriving


async def test_a_proxy_that_goes_away_leaves_nothing_behind(tmp_path: Path) -> None:
    async with proxied(tmp_path, "127.0.0.1/32") as gateway:
        for said in (b"", V1[:9], V2[:13]):
            async with await gateway.connect() as client:
                await client.send(said)
                client.finish()
                assert await client.is_closed()
        assert not gateway.app.wire.servers[0].arriving
        assert await turned_away(gateway) == []


async def test_behind_the_told_address_forwarded_headers_count_if_it_is_a_proxy_too(tmp_path: Path) -> None:
    head = b"Connection: close\r\nX-Forwarded-For: 198.51.100.7\r\n"
    for trusted, chain in (
        (["127.0.0.1/32"], b"203.0.113.9"),
        (["127.0.0.1/32", "203.0.113.0/24"], b"198.51.100.7, 203.0.113.9"),
    ):
        folder = tmp_path / str(len(trusted))
        folder.mkdir()
        async with proxied(folder, *trusted) as gateway, await gateway.connect() as client:
            await client.send(V1 + request(head=head))
            assert (await client.response()).status == 200
            assert seen(gateway, b"X-Forwarded-For") == chain


async def test_a_header_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    listen = {"address": f"unix:{path}", "proxy_protocol": True}
    async with running(tmp_path, config=listening(listen, trusted_proxies=["unix"])) as gateway:
        assert (await ask_unix(path, V2, ASK)).status == 200
        assert seen(gateway, b"X-Forwarded-For") == b"203.0.113.9"


# -- Forwarded -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "chain", "scheme"),
    [("x-forwarded", b"198.51.100.1, 127.0.0.1", b"http"), ("forwarded", b"203.0.113.9, 127.0.0.1", b"https")],
)
async def test_case_59_one_header_is_read_and_the_other_never(
    header: str, chain: bytes, scheme: bytes, tmp_path: Path
) -> None:
    config = {"trusted_proxies": ["127.0.0.1/32"], "forwarded_header": header}
    async with running(tmp_path, config=config) as gateway:
        both = b"Forwarded: for=203.0.113.9;proto=https\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: http\r\n"
        assert (await gateway.ask(request(head=both))).status == 200
        assert seen(gateway, b"X-Forwarded-For") == chain
        assert seen(gateway, b"X-Forwarded-Proto") == scheme
        assert gateway.upstream.requests[0].all("Forwarded") == []


@pytest.mark.parametrize("header", ["x-forwarded", "forwarded"])
async def test_case_59_forwarded_of_anybody_else_has_no_effect(header: str, tmp_path: Path) -> None:
    async with running(tmp_path, config={"forwarded_header": header}) as gateway:
        head = b'Forwarded: for="[::1]";proto=https\r\nX-Forwarded-For: ::1\r\nX-Forwarded-Proto: https\r\n'
        assert (await gateway.ask(request(head=head))).status == 200
        assert seen(gateway, b"X-Forwarded-For") == b"127.0.0.1"
        assert seen(gateway, b"X-Forwarded-Proto") == b"http"
        assert gateway.upstream.requests[0].all("Forwarded") == []


async def test_case_61_who_trusts_everybody_is_warned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plainly = {"network": "0.0.0.0/0", "i_trust_everybody": True}
    async with running(tmp_path, config={"trusted_proxies": [plainly]}) as gateway:
        assert "0.0.0.0/0 is everybody: whoever connects can choose their own address" in caplog.text
        await gateway.ask(request(head=b"X-Forwarded-For: 203.0.113.9\r\n"))
        assert seen(gateway, b"X-Forwarded-For") == b"203.0.113.9, 127.0.0.1"
