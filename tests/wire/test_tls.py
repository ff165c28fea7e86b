from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from gateway.core.clock import SystemClock
from gateway.core.errors import ConfigError
from gateway.core.facts import Facts
from gateway.wire.tls import Files, ServerTls
from tests.rig.certificates import Authority, Made
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Response, Truncated, read_response

V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    + struct.pack("!H", 12)
    + ipaddress.ip_address("203.0.113.9").packed
    + ipaddress.ip_address("192.0.2.1").packed
    + struct.pack("!HH", 4711, 443)
)
LAST = request(head=b"Connection: close\r\n")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def secured(
    folder: Path, *made: Made, config: dict[str, Any] | None = None, **listen: Any
) -> AsyncIterator[Gateway]:
    """A gateway with one TLS listener. `listen`: more of its `tls`, or of itself."""
    pairs = [{"certificate": str(each.certificate), "key": str(each.key)} for each in made]
    own = {key: listen.pop(key) for key in ("proxy_protocol", "address") if key in listen}
    tls = (pairs[0] if len(pairs) == 1 else {"certificates": pairs}) | listen
    described = {"address": "127.0.0.1:0", "tls": tls} | own
    async with running(folder, config={"listen": described, **(config or {})}) as gateway:
        yield gateway


class Secure:
    """A TLS connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connected(
        cls,
        port: int,
        trust: Authority,
        name: str = "good.test",
        *,
        context: ssl.SSLContext | None = None,
        first: bytes = b"",
    ) -> AsyncIterator[Secure]:
        """`first`: sent in clear, byte for byte, before the handshake."""
        context = context or client(trust)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for octet in first:
                writer.write(bytes((octet,)))
                await asyncio.sleep(0)
            await writer.start_tls(context, server_hostname=name)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            await asyncio.sleep(0)

    async def ask(self, raw: bytes = b"") -> Response:
        """One answer, to `raw`."""
        async with asyncio.timeout(10):
            self.writer.write(raw or request())
            return await read_response(self.reader.readuntil, self.reader.readexactly, self.reader.read, "GET")

    @property
    def handshake(self) -> ssl.SSLObject:
        """What was agreed on."""
        return self.writer.get_extra_info("ssl_object")  # type: ignore[no-any-return]

    @property
    def names(self) -> list[str]:
        """The host names of the certificate we were shown."""
        shown = self.handshake.getpeercert() or {}
        return [name for _, name in shown["subjectAltName"]]  # type: ignore[misc]

    @property
    def serial(self) -> str:
        """Of the certificate we were shown."""
        return str((self.handshake.getpeercert() or {})["serialNumber"])


def client(trust: Authority, *, shows: Made | None = None, any_name: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trust.path))
    context.check_hostname = not any_name
    if shows is not None:
        context.load_cert_chain(shows.certificate, shows.key)
    return context


# -- serving ---------------------------------------------------------------------------------------------------------


async def test_a_request_over_tls(tmp_path: Path, authority: Authority) -> None:
    made = authority.make("good", "good.test")
    async with secured(tmp_path, made) as gateway, Secure.connected(gateway.port, authority) as secure:
        assert [(await secure.ask()).status for _ in range(3)] == [200, 200, 200]
        assert secure.handshake.version() == "TLSv1.3"
        assert {one.all("X-Forwarded-Proto")[0] for one in gateway.upstream.requests} == {b"https"}
        assert {one.all("X-Forwarded-For")[0] for one in gateway.upstream.requests} == {b"127.0.0.1"}
        assert (await secure.ask(LAST)).status == 200
        assert await secure.reader.read() == b""


async def test_an_ordinary_client(tmp_path: Path, authority: Authority) -> None:
    made = authority.make("good", "good.test", "localhost")
    async with secured(tmp_path, made) as gateway:
        connector = aiohttp.TCPConnector(ssl=client(authority))
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"https://localhost:{gateway.port}/public/x"
            for _ in range(3):
                async with session.post(url, data=b"x" * 300_000, headers={"Host": "good.test"}) as answer:
                    assert (answer.status, await answer.read()) == (200, b"POST /public/x 300000")


async def test_a_large_answer_and_a_slow_reader(tmp_path: Path, authority: Authority) -> None:
    from tests.rig.upstream import fixed, ok

    made = authority.make("good", "good.test")
    body = bytes(range(256)) * 40_000
    async with secured(tmp_path, made) as gateway, Secure.connected(gateway.port, authority) as secure:
        gateway.upstream.script = fixed(ok(body))
        assert (await secure.ask(LAST)).body == body


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(512), b"\0" * 64], ids=["http", "hello", "nul"]
)
async def test_what_is_no_handshake_is_no_request(sent: bytes, tmp_path: Path, authority: Authority) -> None:
    made = authority.make("good", "good.test")
    async with secured(tmp_path, made) as gateway, await gateway.connect() as plain:
        await plain.send(sent)
        assert b"HTTP/" not in await plain.read_rest()
        assert gateway.upstream.requests == []


async def test_who_does_not_come_to_the_end_of_a_handshake_is_not_waited_for(
    tmp_path: Path, authority: Authority
) -> None:
    made = authority.make("good", "good.test")
    async with secured(tmp_path, made) as gateway, await gateway.connect() as silent, await gateway.connect() as half:
        await half.send(b"\x16\x03\x01\x02\x00\x01")
        (listener,) = gateway.app.wire.servers
        async with asyncio.timeout(10):
            while len(listener._arriving) < 2:
                await asyncio.sleep(0)
        gateway.pass_time(11.0)
        assert await half.is_closed()
        assert await silent.is_closed()
        assert not listener.arriving


async def test_handshakes_that_are_held_back_keep_nobody_out(tmp_path: Path, authority: Authority) -> None:
    made = authority.make("good", "good.test")
    async with (
        secured(tmp_path, made, config={"connections": {"clients": 16}}) as gateway,
        contextlib.AsyncExitStack() as silent,
    ):
        held = [await silent.enter_async_context(await gateway.connect()) for _ in range(40)]
        async with Secure.connected(gateway.port, authority) as secure:
            assert (await secure.ask()).status == 200
            assert (await secure.ask()).status == 200
        assert await held[0].is_closed()
        assert len(gateway.app.wire.servers[0]._arriving) <= 16


async def test_a_rejected_request_is_answered_and_the_connection_ends(tmp_path: Path, authority: Authority) -> None:
    made = authority.make("good", "good.test")
    async with secured(tmp_path, made) as gateway, Secure.connected(gateway.port, authority) as secure:
        answer = await secure.ask(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        assert answer.status == 400
        gateway.pass_time(60.0)
        async with asyncio.timeout(10):
            assert await secure.reader.read() == b""


@pytest.mark.parametrize(
    ("minimum", "spoken", "well"),
    [
        (None, ssl.TLSVersion.TLSv1_2, True),
        (None, ssl.TLSVersion.TLSv1_3, True),
        (None, ssl.TLSVersion.TLSv1_1, False),
        ("1.3", ssl.TLSVersion.TLSv1_3, True),
        ("1.3", ssl.TLSVersion.TLSv1_2, False),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_the_lowest_version(
    minimum: str | None, spoken: ssl.TLSVersion, well: bool, tmp_path: Path, authority: Authority
) -> None:
    context = client(authority)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = context.maximum_version = spoken
    more = {"minimum": minimum} if minimum else {}
    async with secured(tmp_path, authority.make("good", "good.test"), **more) as gateway:
        if well:
            async with Secure.connected(gateway.port, authority, context=context) as secure:
                assert (await secure.ask()).status == 200
        else:
            with pytest.raises(OSError):
                async with Secure.connected(gateway.port, authority, context=context):
                    pass


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), ([], None)]
)
async def test_http_1_1_is_what_is_spoken(
    offered: list[str], chosen: str | None, tmp_path: Path, authority: Authority
) -> None:
    context = client(authority)
    if offered:
        context.set_alpn_protocols(offered)
    async with (
        secured(tmp_path, authority.make("good", "good.test")) as gateway,
        Secure.connected(gateway.port, authority, context=context) as secure,
    ):
        assert secure.handshake.selected_alpn_protocol() == chosen
        assert (await secure.ask()).status == 200


# -- SNI -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("first.test", ["first.test"]),
        ("SECOND.test", ["second.test", "*.wild.test"]),
        ("a.wild.test", ["second.test", "*.wild.test"]),
        ("a.b.wild.test", ["first.test"]),
        ("wild.test", ["first.test"]),
        ("exact.wild.test", ["exact.wild.test"]),
        ("nobody.test", ["first.test"]),
        ("", ["first.test"]),
    ],
)
async def test_the_name_asked_for_chooses_the_certificate(
    asked: str, shown: list[str], tmp_path: Path, authority: Authority
) -> None:
    made = (
        authority.make("first", "first.test"),
        authority.make("second", "second.test", "*.wild.test"),
        authority.make("third", "exact.wild.test"),
    )
    context = client(authority, any_name=True)
    async with (
        secured(tmp_path, *made) as gateway,
        Secure.connected(gateway.port, authority, asked, context=context) as secure,
    ):
        assert secure.names == shown
        assert (await secure.ask()).status == 200


# -- hot reload ------------------------------------------------------------------------------------------------------


async def until_serial(gateway: Gateway, authority: Authority, serial: str, name: str = "good.test") -> None:
    async with asyncio.timeout(10):
        while True:
            async with Secure.connected(gateway.port, authority, name) as secure:
                if secure.serial == serial:
                    return
            await asyncio.sleep(0.05)


def serial_of(made: Made) -> str:
    number = f"{x509.load_pem_x509_certificate(made.certificate.read_bytes()).serial_number:X}"
    return number if len(number) % 2 == 0 else "0" + number


async def asked(gateway: Gateway, path: str) -> bytes:
    """What the admin listener says."""
    async with aiohttp.request("GET", f"http://127.0.0.1:{gateway.admin_port}{path}") as answer:
        assert answer.status == 200
        return await answer.read()


async def readiness(gateway: Gateway) -> dict[str, Any]:
    return dict(json.loads(await asked(gateway, "/readyz")))


async def metrics(gateway: Gateway) -> str:
    return (await asked(gateway, "/metrics")).decode()


async def test_new_files_serve_new_connections_and_drop_none(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    before = serial_of(authority.make("good", "good.test"))
    made = Made(tmp_path / "good.crt", tmp_path / "good.key")
    async with secured(tmp_path, made) as gateway, Secure.connected(gateway.port, authority) as held:
        assert held.serial == before
        assert (await held.ask()).status == 200
        assert (await readiness(gateway))["certificates"] == "loaded"

        after = serial_of(authority.make("good", "good.test"))
        await until_serial(gateway, authority, after)
        assert (await held.ask()).status == 200

        authority.make("good", "good.test").key.write_bytes(b"nonsense")
        async with asyncio.timeout(10):
            while "refused" not in (await readiness(gateway))["certificates"]:
                await asyncio.sleep(0.05)
        assert "good.crt" in (await readiness(gateway))["certificates"]
        assert "certificates of 127.0.0.1:0 not reloaded" in caplog.text
        assert 'sallyport_certificate_reload_success{listener="127.0.0.1:0"} 0.0' in await metrics(gateway)
        await until_serial(gateway, authority, after)
        assert (await held.ask()).status == 200

        mended = serial_of(authority.make("good", "good.test"))
        await until_serial(gateway, authority, mended)
        assert (await readiness(gateway))["certificates"] == "loaded"
        assert (await held.ask(LAST)).status == 200


async def test_a_mounted_secret_is_swapped_by_its_link(tmp_path: Path, authority: Authority) -> None:
    """As the kubelet does: `..data` points to a folder, and is renamed over."""
    serials = []
    for number in (1, 2):
        (tmp_path / f"..{number}").mkdir()
        made = authority.make(f"tls{number}", "good.test")
        made.certificate.rename(tmp_path / f"..{number}" / "tls.crt")
        made.key.rename(tmp_path / f"..{number}" / "tls.key")
        serials.append(serial_of(Made(tmp_path / f"..{number}" / "tls.crt", made.key)))
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    async with secured(tmp_path, Made(tmp_path / "tls.crt", tmp_path / "tls.key")) as gateway:
        await until_serial(gateway, authority, serials[0])
        (tmp_path / "..next").symlink_to("..2")
        (tmp_path / "..next").rename(tmp_path / "..data")
        await until_serial(gateway, authority, serials[1])


def opened(*made: Made, **more: Any) -> ServerTls:
    return ServerTls([Files(*each) for each in made], clock=SystemClock(), **more)


def test_what_is_not_fit_to_be_used(tmp_path: Path, authority: Authority) -> None:
    good, other = authority.make("good", "good.test"), authority.make("other", "other.test")
    secret = authority.make("secret", "good.test", password=b"hunter2")
    read = authority.make("read", "good.test")
    read.key.chmod(0o644)
    garbage = Made(tmp_path / "garbage.crt", good.key)
    garbage.certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    gone = tmp_path / "gone"
    for pair, said in (
        (Made(good.certificate, other.key), "good.crt: cannot be used: KEY_VALUES_MISMATCH"),
        (Made(gone, good.key), "gone: cannot be used: No such file"),
        (Made(good.certificate, gone), "gone: key file cannot be read: No such file"),
        (Made(good.key, good.key), "good.key: cannot be used"),
        (garbage, "garbage.crt: cannot be used"),
        (secret, "secret.crt: cannot be used"),
        (read, "can be read by others"),
    ):
        with pytest.raises(ConfigError) as caught:
            opened(pair)
        assert said in str(caught.value)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as both:
        opened(Made(gone, good.key), read)
    assert len(both.value.problems) == 2
    for path in (gone, good.key):
        with pytest.raises(ConfigError, match="holds no authorities"):
            opened(good, client_certificates="required", client_ca=path)


def test_one_bad_pair_of_several_changes_nothing(authority: Authority) -> None:
    first, second = authority.make("first", "first.test"), authority.make("second", "second.test")
    tls = opened(first, second)
    before, looked = tls.context, tls.look()
    authority.make("first", "renamed.test")
    second.key.write_text("nonsense")
    assert tls.look() != looked
    with pytest.raises(ConfigError):
        tls.load()
    assert tls.context is before
    assert set(tls.expiry) == {"first.test", "second.test"}
    assert "second.crt" in tls.problem


def test_an_expired_certificate_is_used_and_told(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    tls = opened(authority.make("old", "old.test", ends=datetime.timedelta(days=-1)))
    assert "old.crt has expired" in caplog.text
    assert tls.expiry["old.test"] < SystemClock().now()


async def test_when_certificates_end_is_a_metric(tmp_path: Path, authority: Authority) -> None:
    made = authority.make("first", "first.test", "also.test"), authority.make("second", common_name="no names")
    async with secured(tmp_path, *made) as gateway:
        text = await metrics(gateway)
    for name, each in zip(("first.test", "no names"), made, strict=True):
        end = x509.load_pem_x509_certificate(each.certificate.read_bytes()).not_valid_after_utc.timestamp()
        line = f'sallyport_certificate_expiry_timestamp_seconds{{listener="127.0.0.1:0",name="{name}"}} '
        (found,) = [float(one.removeprefix(line)) for one in text.splitlines() if one.startswith(line)]
        assert found == end


async def test_a_gateway_without_certificates_does_not_start(tmp_path: Path, authority: Authority) -> None:
    made = Made(tmp_path / "gone.crt", authority.make("good", "good.test").key)
    with pytest.raises(ConfigError, match=r"gone\.crt: cannot be used"):
        async with secured(tmp_path, made):
            pass


# -- client certificates ---------------------------------------------------------------------------------------------


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
    """Every request that the gate has seen."""
    from gateway import app

    seen: list[Facts] = []

    class Remembering:
        """A credential that nobody has."""

        name = "nobody's"

        def near(self, facts: Facts) -> None:
            seen.append(facts)

        async def identify(self, facts: Facts) -> None: ...

    gate = app.Gate
    monkeypatch.setattr(
        app, "Gate", lambda *its, credentials, **own: gate(*its, credentials=[Remembering(), *credentials], **own)
    )
    return seen


async def test_a_client_certificate_is_a_fact(tmp_path: Path, authority: Authority, judged: list[Facts]) -> None:
    ann = authority.make(
        "ann", "ann.test", common_name="ann, the first", emails=["ann@good.test"], uris=["spiffe://good.test/ann"]
    )
    parsed = x509.load_pem_x509_certificate(ann.certificate.read_bytes())
    more = {"client_certificates": "required", "client_ca": str(authority.path)}
    async with (
        secured(tmp_path, authority.make("good", "good.test"), **more) as gateway,
        Secure.connected(gateway.port, authority, context=client(authority, shows=ann)) as secure,
    ):
        head = b"X-Client-Cert: forged\r\nX-SSL-Client-S-DN: forged\r\nX_Forwarded_Client_Cert: forged\r\n"
        assert (await secure.ask(request(head=head))).status == 200
        assert (await secure.ask(request(target=b"/public/y"))).status == 200
        assert not any(b"forged" in value for one in gateway.upstream.requests for _, value in one.headers)
    first, second = judged
    certificate = first.certificate
    assert certificate is not None
    assert certificate is second.certificate
    assert certificate.subject == "CN=ann\\, the first,O=Rig"
    assert certificate.issuer == "CN=Rig Authority"
    assert int(certificate.serial, 16) == parsed.serial_number
    assert certificate.dns == ("ann.test",)
    assert certificate.emails == ("ann@good.test",)
    assert certificate.uris == ("spiffe://good.test/ann",)
    assert certificate.not_after == parsed.not_valid_after_utc.timestamp()
    assert len(certificate.fingerprint) == 64


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("asked", "shows", "status"),
    [
        ("required", "good", 200),
        ("required", "nothing", 0),
        ("required", "stranger", 0),
        ("required", "expired", 0),
        ("required", "self", 0),
        ("optional", "good", 200),
        ("optional", "nothing", 200),
        ("optional", "stranger", 0),
        ("optional", "expired", 0),
        ("none", "good", 200),
        ("none", "stranger", 200),
    ],
)
async def test_who_comes_in(
    asked: str,
    shows: str,
    status: int,
    version: ssl.TLSVersion,
    tmp_path: Path,
    authority: Authority,
    judged: list[Facts],
) -> None:
    other = Authority(tmp_path, "Stranger")
    shown = {
        "good": lambda: authority.make("ann", common_name="ann"),
        "nothing": lambda: None,
        "stranger": lambda: other.make("eve", common_name="ann"),
        "expired": lambda: authority.make("old", common_name="ann", ends=datetime.timedelta(hours=-1)),
        "self": lambda: Authority(tmp_path, "Rig Authority").make("fake", common_name="ann"),
    }
    trust = client(authority)  # read before a namesake takes the file's place
    more = {"client_certificates": asked} | ({"client_ca": str(authority.path)} if asked != "none" else {})
    async with secured(tmp_path, authority.make("good", "good.test"), **more) as gateway:
        if (made := shown[shows]()) is not None:
            trust.load_cert_chain(made.certificate, made.key)
        trust.minimum_version = trust.maximum_version = version
        try:
            async with Secure.connected(gateway.port, authority, context=trust) as secure:
                found = (await secure.ask()).status
        except (OSError, EOFError, Truncated):
            found = 0
        assert found == status
        assert len(gateway.upstream.requests) == bool(status)
    certificates = [facts.certificate for facts in judged]
    known = asked != "none" and shows == "good"
    assert [one is not None for one in certificates] == ([known] if status else [])


async def test_authorities_are_read_again_too(tmp_path: Path, authority: Authority) -> None:
    """And a session from before is no way round the new ones."""
    ann = authority.make("ann", common_name="ann")
    ca = tmp_path / "clients.pem"
    ca.write_bytes(authority.path.read_bytes())
    more = {"client_certificates": "required", "client_ca": str(ca)}
    context = client(authority, shows=ann)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with secured(tmp_path, authority.make("good", "good.test"), **more) as gateway:
        async with Secure.connected(gateway.port, authority, context=context) as secure:
            assert (await secure.ask()).status == 200
        ca.write_bytes(Authority(tmp_path, "Others").path.read_bytes())
        async with asyncio.timeout(10):
            while True:
                try:
                    async with Secure.connected(gateway.port, authority, context=context) as secure:
                        assert (await secure.ask()).status == 200
                except (OSError, EOFError, Truncated):
                    break
                await asyncio.sleep(0.05)


# -- with a PROXY header in front ------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", V2])
async def test_a_proxy_header_before_tls(header: bytes, tmp_path: Path, authority: Authority) -> None:
    made = authority.make("good", "good.test")
    trusted = {"trusted_proxies": ["127.0.0.1/32"]}
    async with (
        secured(tmp_path, made, proxy_protocol=True, config=trusted) as gateway,
        Secure.connected(gateway.port, authority, first=header) as secure,
    ):
        assert (await secure.ask()).status == 200
        (one,) = gateway.upstream.requests
        assert one.all("X-Forwarded-For") == [b"203.0.113.9"]
        assert one.all("X-Forwarded-Proto") == [b"https"]


async def test_a_proxy_header_within_tls_is_no_header(tmp_path: Path, authority: Authority) -> None:
    made = authority.make("good", "good.test")
    trusted = {"trusted_proxies": ["127.0.0.1/32"]}
    async with secured(tmp_path, made, config=trusted) as gateway, Secure.connected(gateway.port, authority) as secure:
        assert (await secure.ask(V2 + request())).status == 400
        assert gateway.upstream.requests == []


async def test_stopping_waits_for_what_is_on_its_way_over_tls(tmp_path: Path, authority: Authority) -> None:
    from tests.rig.messages import Request
    from tests.rig.upstream import Line, ok

    made = authority.make("good", "good.test")
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(_: Request, line: Line) -> None:
        asked.set()
        await answer.wait()
        await line.send(ok(b"late"))

    async with secured(tmp_path, made) as gateway:
        gateway.upstream.script = slow
        async with Secure.connected(gateway.port, authority) as secure:
            waiting = asyncio.create_task(secure.ask())
            await asked.wait()
            stopping = asyncio.create_task(gateway.app.wire.stop(10.0))
            async with asyncio.timeout(10):
                while gateway.app.wire.servers:
                    await asyncio.sleep(0.001)
            answer.set()
            assert (await waiting).body == b"late"
            await stopping
