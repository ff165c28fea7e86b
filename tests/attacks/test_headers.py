"""D. Header spoofing: the service hears about the caller from us alone."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.attacks.caller import Caller
from tests.attacks.test_framing import SMUGGLED
from tests.rig.gateway import AGENT, Gateway, request, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

OURS = (
    b"X-Forwarded-User",
    b"X-Forwarded-Email",
    b"X-Forwarded-Groups",
    b"X-Forwarded-Preferred-Username",
    b"Remote-User",
    b"Remote-Email",
    b"Remote-Groups",
    b"Remote-Name",
    b"Sallyport-Assertion",
    b"Sallyport-Client-Address",
    b"Sallyport-Client-Network",
    b"Sallyport-Scheme",
    b"Sallyport-Host",
    b"Sallyport-Request-Id",
    b"Sallyport-Risk",
    b"X-Request-Id",
    b"X-Real-IP",
    b"X-Auth-Request-User",
    b"Proxy",
)

ROUTING = (
    b"X-Forwarded-Uri",
    b"X-Original-URI",
    b"X-Original-URL",
    b"X-Rewrite-URL",
    b"X-Forwarded-Method",
    b"X-Forwarded-Host",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Port",
    b"X-Forwarded-Prefix",
    b"X-Forwarded-Scheme",
    b"X-Forwarded-Server",
    b"X-Original-Host",
    b"X-Original-Method",
    b"Forwarded",
)


def spellings(name: bytes) -> dict[str, bytes]:
    """One header name as services could fold it."""
    return {
        "as-is": name,
        "lower": name.lower(),
        "upper": name.upper(),
        "underscore": name.replace(b"-", b"_"),
        "dot": name.replace(b"-", b"."),
        "mixed": name.swapcase().replace(b"-", b"_", 1),
        "tilde": name.replace(b"-", b"~"),
    }


def of(case: int, *values: bytes) -> list[object]:
    """Parameters whose ids name the case."""
    return [pytest.param(value, id=f"case-{case}-{value[:40]!r}") for value in values]


@pytest.mark.parametrize("name", of(52, *OURS))
async def test_what_a_client_says_about_itself_is_dropped(caller: Caller, name: bytes) -> None:
    """Cases 52 and 53: every name, in every spelling, twice."""
    head = b"".join(b"%s: evil-7\r\n" % spelling for spelling in spellings(name).values()) + name + b": evil-7\r\n"
    received = await caller.is_clean(caller.request(head=head))
    assert b"evil-7" not in received.raw
    folded = [line.replace("_", "-").replace(".", "-").replace("~", "-") for line in received.names]
    assert folded.count(name.decode("ascii").lower()) <= 1


@pytest.mark.parametrize("name", of(53, *OURS[:9]))
async def test_a_blank_before_the_colon_is_rejected(caller: Caller, name: bytes) -> None:
    await caller.is_rejected(caller.request(head=name + b" : evil-7\r\n"))


@pytest.mark.parametrize("name", of(53, *OURS))
async def test_a_trailer_is_no_header(caller: Caller, name: bytes) -> None:
    body = b"1\r\na\r\n0\r\n" + name + b": evil-7\r\n\r\n"
    raw = caller.request(b"POST", b"Transfer-Encoding: chunked\r\nTrailer: " + name + b"\r\n", body)
    received = await caller.is_clean(raw, "POST")
    assert b"evil-7" not in caller.gateway.upstream.raw
    assert received.body == b"a"


@pytest.mark.parametrize(
    "connection",
    of(
        54,
        b"Connection: X-Forwarded-User, Sallyport-Assertion\r\n",
        b"connection: x-forwarded-user,sallyport-assertion\r\n",
        b"Connection: close, X-Forwarded-User\r\n",
        b"Connection: X-Forwarded-User\r\nConnection: Sallyport-Assertion\r\n",
        b"Connection: keep-alive\r\nConnection: X-Forwarded-User, X-Forwarded-For, X-Request-Id, X-Forwarded-Proto\r\n",
        b"Proxy-Connection: X-Forwarded-User\r\n",
        b"Keep-Alive: X-Forwarded-User\r\n",
    ),
)
async def test_our_headers_cannot_be_named_away(caller: Caller, connection: bytes) -> None:
    received = await caller.is_clean(caller.request(head=connection))
    assert received.all("X-Forwarded-For") == [b"127.0.0.1"]
    assert len(received.all("X-Request-Id")) == 1
    assert received.all("X-Forwarded-Proto") == [b"http"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"case-55-{name.decode('ascii')}")
        for name, value in (
            (b"Authorization", b"Bearer mine"),
            (b"Cookie", b"mine=1"),
            (b"X-Forwarded-For", b"127.0.0.1"),
            (b"Host", b"good.test"),
            (b"Content-Type", b"text/plain"),
            (b"Origin", b"http://good.test"),
            (b"User-Agent", AGENT.encode("ascii")),
        )
    ],
)
@pytest.mark.parametrize("connection", [b"Connection", b"connection", b"CONNECTION"])
async def test_security_headers_cannot_be_named_away(
    gateway: Gateway, name: bytes, value: bytes, connection: bytes
) -> None:
    line = b"" if name in (b"Host", b"X-Forwarded-For", b"User-Agent") else b"%s: %s\r\n" % (name, value)
    head = line + connection + b": close, " + name + b"\r\n"
    assert (await gateway.ask(request(b"GET", b"/public/x", head))).status == 200
    assert gateway.upstream.only.all(name.decode("ascii")) == [value]


async def test_case_55_the_session_cookie_cannot_be_named_away(gateway: Gateway) -> None:
    raw = request(b"GET", b"/app/x", b"Connection: Cookie\r\n", cookie=await gateway.cookie("bob"))
    assert (await gateway.ask(raw)).status == 200
    assert gateway.upstream.only.all("X-Forwarded-User") == [b"bob"]


async def test_other_hop_by_hop_headers_stop_here(caller: Caller) -> None:
    head = (
        b"Connection: X-Hop, keep-alive\r\nX-Hop: evil-7\r\nKeep-Alive: evil-7\r\nTE: trailers\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: evil-7\r\nProxy-Authorization: evil-7\r\nProxy-Connection: evil-7\r\nTrailer: evil-7\r\n"
    )
    received = await caller.is_clean(caller.request(head=head))
    assert b"evil-7" not in received.raw
    assert not received.names & {"te", "upgrade", "keep-alive", "http2-settings", "x-hop", "trailer"}


@pytest.mark.parametrize(
    "head",
    of(
        66,
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nConnection: Upgrade\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    ),
)
@pytest.mark.parametrize("body", [b"", SMUGGLED], ids=["alone", "with-body"])
async def test_no_protocol_is_switched(caller: Caller, head: bytes, body: bytes) -> None:
    """What follows the request is parsed as HTTP and decided like any request."""
    raw = caller.request(b"POST", head + b"Content-Length: %d\r\n" % len(body), body)
    sized = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
    chunks = caller.request(b"POST", head + b"Transfer-Encoding: chunked\r\n", sized + b"0\r\n\r\n")
    for segments in ([raw], [raw[:-20], raw[-20:]], [chunks], [chunks[:-20], chunks[-20:]]):
        await caller.gateway.mark()
        answers = await caller.never_desyncs(*segments, method="POST")
        assert answers[0].status == 200
        assert len(answers) == 2
        received = caller.gateway.upstream.requests[0]
        assert received.body == body
        assert not received.names & {"upgrade", "http2-settings", "connection"}


@pytest.mark.parametrize(
    "framing",
    of(
        66,
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: gzip\r\n",
    ),
)
async def test_an_upgrade_excuses_no_framing(caller: Caller, framing: bytes) -> None:
    head = b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + framing
    await caller.is_rejected(caller.request(b"POST", head, b"0\r\n\r\n" + SMUGGLED))


async def test_case_66_a_pipeline_of_upgrades(gateway: Gateway) -> None:
    raw = request(b"GET", b"/public/x", b"Upgrade: h2c\r\nConnection: Upgrade\r\n")
    async with await gateway.connect() as client:
        await client.send(raw * 400)
        assert {answer.status for answer in await client.responses(*["GET"] * 400)} == {200}
    assert len(gateway.upstream.requests) == 400


@pytest.mark.parametrize("name", of(56, *ROUTING))
@pytest.mark.parametrize("value", [b"/public/x", b"evil.test", b"https"])
async def test_routing_headers_change_no_decision(caller: Caller, name: bytes, value: bytes) -> None:
    head = b"".join(b"%s: %s\r\n" % (spelling, value) for spelling in spellings(name).values())
    await caller.is_denied(caller.request(head=head, target=b"/admin"))
    received = await caller.is_clean(caller.request(head=head.replace(value, b"evil-7")))
    assert b"evil-7" not in received.raw
    assert received.all("X-Forwarded-Proto") == [b"http"]
    assert received.all("X-Forwarded-Host") == [b"good.test"]


@pytest.mark.parametrize(
    "head",
    [
        *of(57, b"X-Forwarded-For: 10.0.0.1\r\n", b"X-Forwarded-For: 10.0.0.1, 127.0.0.1\r\n"),
        *of(57, b"X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n", b"X_Forwarded_For: 10.0.0.1\r\n"),
        *of(58, b"X-Forwarded-For: a\r\n", b"X-Forwarded-For: 1.1.1.1,,\r\n", b"X-Forwarded-For: fe80::1%eth0\r\n"),
        *of(58, b"X-Forwarded-For: unknown\r\n", b"X-Forwarded-For: 1.1.1.1:80\r\n", b"X-Forwarded-For:\r\n"),
        *of(58, b"X-Forwarded-For: " + b"1.1.1.1," * 2_000 + b"\r\n"),
        *of(59, b'Forwarded: for="[::1]";proto=https\r\n', b"Forwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n"),
    ],
)
async def test_an_untrusted_peer_is_its_own_address(caller: Caller, head: bytes) -> None:
    received = await caller.is_clean(caller.request(head=head))  # which looks at X-Forwarded-For
    assert received.all("Forwarded") == []
    assert received.all("X-Forwarded-Proto") == [b"http"]
    assert b"10.0.0." not in received.raw


NETWORK_POLICY = """
rules:
  - name: office
    match: {paths: [/where], networks: [203.0.113.0/24]}
    access: public
    upstream: app
  - name: everything-else
    match: {hosts: [good.test]}
    access: authenticated
    upstream: app
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def behind_proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway that believes proxies in 127.0.0.0/8 and 10.0.0.0/8, and lets one network in."""
    folder = tmp_path_factory.mktemp("proxied")
    config = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}
    async with running(folder, policy=NETWORK_POLICY, config=config) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("head", "address"),
    [
        pytest.param(head, address, id=f"case-{case}-{head[:50]!r}")
        for case, head, address in (
            (57, b"X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
            (57, b"X-Forwarded-For: 1.1.1.1, 203.0.113.9\r\n", "203.0.113.9"),
            (57, b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
            (57, b"X-Forwarded-For: 203.0.113.9, 10.0.0.2\r\n", "203.0.113.9"),
            (57, b"X-Forwarded-For: 203.0.113.9, 1.1.1.1\r\n", "1.1.1.1"),
            (57, b"X-Forwarded-For: 203.0.113.9, 1.1.1.1, 10.0.0.2\r\n", "1.1.1.1"),
            (57, b"X-Forwarded-For: ::ffff:203.0.113.9\r\n", "203.0.113.9"),
            (58, b"X-Forwarded-For: 203.0.113.9, a\r\n", "unknown"),
            (58, b"X-Forwarded-For: 203.0.113.9,,\r\n", "unknown"),
            (58, b"X-Forwarded-For: 203.0.113.9:443\r\n", "unknown"),
            (58, b"X-Forwarded-For: unknown\r\n", "unknown"),
            (58, b"X-Forwarded-For: fe80::1%25eth0\r\n", "unknown"),
            (58, b"X-Forwarded-For: \r\n", "unknown"),
            (58, b"X-Forwarded-For: " + b"203.0.113.9," * 2_000 + b"10.0.0.1\r\n", "unknown"),
            (59, b"Forwarded: for=203.0.113.9\r\n", "127.0.0.1"),
            (59, b"Forwarded: for=203.0.113.9\r\nX-Forwarded-For: 1.1.1.1\r\n", "1.1.1.1"),
            (56, b"X-Real-IP: 203.0.113.9\r\n", "127.0.0.1"),
            (56, b"X_Forwarded_For: 203.0.113.9\r\n", "127.0.0.1"),
            (56, b"X-Client-IP: 203.0.113.9\r\nTrue-Client-IP: 203.0.113.9\r\n", "127.0.0.1"),
        )
    ],
)
async def test_behind_a_trusted_proxy(behind_proxy: Gateway, head: bytes, address: str) -> None:
    await behind_proxy.mark()
    answer = await behind_proxy.ask(request(b"GET", b"/where", head))
    assert answer.status == (200 if address.startswith("203.0.113.") else 401)
    if answer.status == 200:
        chain = behind_proxy.upstream.only.one("X-Forwarded-For")
        assert chain.endswith(b"127.0.0.1")
        assert b"203.0.113.9" in chain
        assert behind_proxy.upstream.only.all("Forwarded") == []
    else:
        assert behind_proxy.upstream.requests == []
    assert behind_proxy.upstream.violations == []


async def test_case_58_what_a_client_wrote_does_not_move_up(behind_proxy: Gateway) -> None:
    """A proxy that writes what is no address (`ip:port`) must not make the entry before it the client."""
    await behind_proxy.mark()
    cookie = await behind_proxy.cookie("bob")
    for value, chain in (
        (b"10.9.9.9, 1.1.1.1:80", b"10.9.9.9, unknown, 127.0.0.1"),
        (b"10.9.9.9,", b"10.9.9.9, unknown, 127.0.0.1"),
        (b"a, 1.1.1.1", b"unknown, 1.1.1.1, 127.0.0.1"),
        (b"1.1.1.1, 2001:DB8::1", b"1.1.1.1, 2001:db8::1, 127.0.0.1"),
    ):
        raw = request(b"GET", b"/app/x", b"X-Forwarded-For: " + value + b"\r\n", cookie=cookie)
        assert (await behind_proxy.ask(raw)).status == 200
        assert behind_proxy.upstream.requests[-1].all("X-Forwarded-For") == [chain]


async def test_case_58_a_broken_chain_is_not_an_error(behind_proxy: Gateway) -> None:
    await behind_proxy.mark()
    cookie = await behind_proxy.cookie("bob")
    for value in (b"a", b",,,", b"unknown", b"1.1.1.1:80", b"\xff\xfe", b"::1%0", b"[::1]", b"," * 5000):
        raw = request(b"GET", b"/app/x", b"X-Forwarded-For: " + value + b"\r\n", cookie=cookie)
        assert (await behind_proxy.ask(raw)).status == 200
        received = behind_proxy.upstream.requests[-1]
        assert received.one("X-Forwarded-For").split(b", ")[-1] == b"127.0.0.1"
        assert set(received.one("X-Forwarded-For")) <= set(b"0123456789abcdef.:, unknow")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(head, status, id=f"case-60-{head!r}")
        for head, status in (
            (b"X-Role: user\r\n", 200),
            (b"X-Role: admin\r\n", 403),
            (b"x-role: admin\r\n", 403),
            (b"X-Role: user\r\nX-Role: admin\r\n", 403),
            (b"X-Role: admin\r\nX-Role: user\r\n", 403),
            (b"X_Role: admin\r\n", 403),
            (b"X-Role: user\r\nX_Role: admin\r\n", 403),
        )
    ],
)
async def test_a_rule_looks_at_every_value(gateway: Gateway, head: bytes, status: int) -> None:
    answer = await gateway.ask(request(b"GET", b"/role/x", head, cookie=await gateway.cookie("bob")))
    assert answer.status == status
    assert len(gateway.upstream.requests) == (status == 200)


async def test_case_60_two_credentials_are_none(caller: Caller) -> None:
    for first in (b" Bearer one", b""):
        head = b"Authorization:" + first + b"\r\nauthorization: Bearer two\r\n"
        await caller.gateway.mark()
        await caller.is_rejected(caller.request(head=head))


async def test_case_60_two_session_cookies_are_none(gateway: Gateway) -> None:
    ann, bob = await gateway.cookie("ann"), await gateway.cookie("bob")
    for first, second in ((ann, bob), (bob, ann), (bob, b"sallyport=x"), (b"sallyport=", bob)):
        for raw in (
            request(b"GET", b"/app/x", b"Cookie: " + second + b"\r\n", cookie=first),
            request(b"GET", b"/app/x", cookie=first + b"; " + second),
            request(b"GET", b"/app/x", cookie=first + b";" + second),
        ):
            assert (await gateway.ask(raw)).status == 401
    assert gateway.upstream.requests == []


@pytest.mark.parametrize(
    "cookie",
    of(79, b"sallyport=x", b"sallyport=", b"sallyport", b"sallyport=" + b"a" * 8192, b"sallyport=\xff\xfe", b"=x"),
)
async def test_a_damaged_session_cookie_is_no_session(gateway: Gateway, cookie: bytes) -> None:
    assert (await gateway.ask(request(b"GET", b"/app/x", cookie=cookie))).status == 401
    assert (await gateway.ask(request(b"GET", b"/public/x", cookie=cookie))).status == 200
    assert not gateway.upstream.only.names & {"x-forwarded-user", "sallyport-assertion"}


async def test_our_cookies_stay_here(gateway: Gateway) -> None:
    """A service that logs or echoes cookies must not learn a session."""
    session = await gateway.cookie("bob")
    for cookie in (b"a=1; " + session + b"; b=2", session + b"; a=1; b=2", b"a=1; b=2; " + session):
        assert (await gateway.ask(request(b"GET", b"/app/x", cookie=cookie))).status == 200
        received = gateway.upstream.requests[-1]
        assert received.all("Cookie") == [b"a=1; b=2"]
        assert session.partition(b"=")[2] not in received.raw
    assert (await gateway.ask(request(b"GET", b"/app/x", cookie=session))).status == 200
    assert gateway.upstream.requests[-1].all("Cookie") == []


@pytest.mark.parametrize("name", ["browser", "device", "resume", "trusted", "language"])
async def test_none_of_our_cookies_goes_to_a_service_or_comes_from_one(gateway: Gateway, name: str) -> None:
    from tests.rig.upstream import fixed, ok

    gateway.upstream.script = fixed(
        ok(b"", f"Set-Cookie: sallyport-{name}=evil; Path=/".encode(), b"Set-Cookie: mine=1")
    )
    answer = await gateway.ask(request(b"GET", b"/public/x", cookie=f"a=1; sallyport-{name}=tr".encode()))
    assert gateway.upstream.requests[-1].all("Cookie") == [b"a=1"]
    assert answer.all("Set-Cookie") == [b"mine=1"]


async def test_a_service_cannot_set_our_cookies(gateway: Gateway) -> None:
    from tests.rig.upstream import fixed, ok

    gateway.upstream.script = fixed(
        ok(b"", b"Set-Cookie: sallyport=evil; Path=/", b"Set-Cookie: mine=1", b"set-cookie:sallyport-device=evil")
    )
    answer = await gateway.ask(request(b"GET", b"/public/x"))
    assert answer.all("Set-Cookie") == [b"mine=1"]


async def test_case_61_nobody_is_trusted_by_default(gateway: Gateway) -> None:
    assert gateway.app.settings.trusted_proxies == ()


@pytest.mark.parametrize("network", [b"0.0.0.0/0", b"::/0"])
async def test_case_61_trusting_everybody_is_told(network: bytes, tmp_path: object) -> None:
    """It has to be written out, and is answered with a refusal that says why."""
    from pathlib import Path

    from gateway import settings
    from gateway.core.errors import ConfigError

    assert isinstance(tmp_path, Path)
    file = tmp_path / "config.yaml"
    file.write_text(f"upstreams: {{app: {{url: 'http://127.0.0.1:1'}}}}\ntrusted_proxies: ['{network.decode()}']\n")
    with pytest.raises(ConfigError, match="everybody"):
        settings.load(file, {})


@pytest.mark.parametrize(
    "agent", of(62, b"kube-probe/1.27", b"ELB-HealthChecker/2.0", b"GoogleHC/1.0", b"Prometheus/2.0", b"Amazon-Route53")
)
@pytest.mark.parametrize(
    "target",
    [b"/app/x", b"/ping", b"/ready", b"/readyz", b"/health", b"/metrics", b"/livez", b"/oauth2/auth", b"/admin"],
)
async def test_a_health_check_is_nobody_special(gateway: Gateway, agent: bytes, target: bytes) -> None:
    raw = b"GET " + target + b" HTTP/1.1\r\nHost: good.test\r\nUser-Agent: " + agent + b"\r\n\r\n"
    assert (await gateway.ask(raw)).status == 401
    assert gateway.upstream.requests == []
