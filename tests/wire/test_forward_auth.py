"""Forward-auth in every dialect: what is asked about, and how the answer is put."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from gateway.core.certificate import Certificate
from gateway.wire import forward_auth
from gateway.wire.forwarded import TrustedProxies
from gateway.wire.request import Caller
from tests.rig.gateway import POLICY, Gateway, request, running
from tests.rig.messages import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")

MORE = """
  - name: added
    match: {hosts: [plus.test]}
    access: authenticated
    headers: {X-Plan: gold}
    limits: [{name: few, key: user, algorithm: token_bucket, rate: 600/m}]
    upstream: app
"""
DIALECTS = ["", "traefik", "caddy", "nginx", "envoy"]
BROWSER = b"Accept: text/html\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = Path(tmp_path_factory.mktemp("forward-auth"))
    async with running(folder, policy=POLICY + MORE, config={"trusted_proxies": ["127.0.0.1/32"]}) as gateway:
        yield gateway


def question(
    dialect: str,
    target: bytes = b"/x",
    method: bytes = b"GET",
    *,
    host: bytes = b"good.test",
    scheme: bytes = b"http",
    head: bytes = b"",
    cookie: bytes = b"",
    drop: str = "",
) -> bytes:
    """What a proxy of this kind sends to ask about a request; `drop`: a header it forgets."""
    path = b"/.sallyport/auth" + (f"/{dialect}".encode() if dialect else b"")
    named = {"X-Forwarded-For": b"192.0.2.7", "X-Forwarded-Proto": scheme}
    asked = b"GET"
    where = b"sallyport:8080"
    if dialect == "envoy":
        path, asked, where = path + target, method, host
    elif dialect == "nginx":
        named |= {"X-Original-URL": scheme + b"://" + host + target, "X-Original-Method": method}
    else:
        named |= {"X-Forwarded-Method": method, "X-Forwarded-Host": host, "X-Forwarded-Uri": target}
    named.pop(drop, None)
    lines = b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in named.items())
    return request(asked, path, lines + head, host=b"Host: %s\r\n" % where, cookie=cookie)


def meaning(dialect: str, answer: Response) -> int:
    """The status an answer stands for."""
    if dialect == "nginx":
        assert answer.status in (200, 401, 403), answer.raw
        return int(answer.one("Sallyport-Status")) if answer.status != 200 else 200
    return answer.status


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_who_it_is_comes_with_the_answer(gateway: Gateway, dialect: str) -> None:
    cookie = await gateway.cookie("ann", "totp")
    answer = await gateway.ask(question(dialect, b"/post/1", b"DELETE", cookie=cookie), "DELETE")
    assert answer.status == 200
    assert answer.one("X-Forwarded-User") == b"ann"
    assert answer.one("X-Forwarded-Groups") == b"admins"
    assert answer.one("Sallyport-Assertion").count(b".") == 2
    assert answer.one("Cache-Control") == b"no-store"
    assert answer.one("X-Request-Id")
    assert answer.body == b""
    assert gateway.upstream.requests == []


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_nobody_has_no_name(gateway: Gateway, dialect: str) -> None:
    answer = await gateway.ask(question(dialect, b"/public/x"))
    assert answer.status == 200
    assert not [name for name in answer.names if name.startswith(("x-forwarded", "remote", "sallyport"))]
    if dialect == "envoy":
        told = answer.one("x-envoy-auth-headers-to-remove").split(b",")
        assert {b"x-forwarded-user", b"x-forwarded-groups", b"remote-user", b"sallyport-assertion"} <= set(told)


async def test_envoy_is_not_told_to_remove_what_it_is_given(gateway: Gateway) -> None:
    answer = await gateway.ask(question("envoy", b"/x", cookie=await gateway.cookie("bob")))
    told = answer.one("x-envoy-auth-headers-to-remove").split(b",")
    assert b"x-forwarded-user" not in told
    assert b"sallyport-assertion" not in told
    assert b"x-forwarded-groups" in told, "bob has none, and must not get a client's"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_limits_and_headers_of_the_rule_come_too(gateway: Gateway, dialect: str) -> None:
    answer = await gateway.ask(question(dialect, b"/", host=b"plus.test", cookie=await gateway.cookie("bob")))
    assert answer.one("X-Plan") == b"gold"
    assert b'"few";r=' in answer.one("RateLimit")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_people_are_sent_to_sign_in_on_their_host(gateway: Gateway, dialect: str) -> None:
    asked = question(dialect, b"/a/b?c=d", scheme=b"https", host=b"good.test:8443", head=BROWSER)
    answer = await gateway.ask(asked)
    where = answer.one("Sallyport-Location" if dialect == "nginx" else "Location")
    assert meaning(dialect, answer) == 303
    assert where == b"https://good.test:8443/.sallyport/login?next=%2Fa%2Fb%3Fc%3Dd"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_people_are_asked_for_a_second_factor(gateway: Gateway, dialect: str) -> None:
    cookie = await gateway.cookie("ann")
    answer = await gateway.ask(question(dialect, b"/admin/x", head=BROWSER, cookie=cookie))
    where = answer.one("Sallyport-Location" if dialect == "nginx" else "Location")
    assert meaning(dialect, answer) == 303
    assert where.startswith(b"http://good.test/.sallyport/verify/")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_programs_are_challenged(gateway: Gateway, dialect: str) -> None:
    answer = await gateway.ask(question(dialect, b"/admin/x", cookie=await gateway.cookie("ann")))
    assert meaning(dialect, answer) == 401
    assert b'error="insufficient_user_authentication"' in answer.one("WWW-Authenticate")
    if dialect != "nginx":
        assert orjson.loads(answer.body)["code"] == "ERR-LEVEL-TOO-LOW"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_no_is_no(gateway: Gateway, dialect: str) -> None:
    cookie = await gateway.cookie("bob")
    for target, host in ((b"/admin/x", b"good.test"), (b"/x", b"nowhere.test"), (b"/.sallyport/login", b"good.test")):
        answer = await gateway.ask(question(dialect, target, host=host, cookie=cookie))
        assert meaning(dialect, answer) == 403
    for target in (b"/a/../b", b"/a/%2e%2e/b", b"/a%2fb", b"/./a", b"/a/."):
        answer = await gateway.ask(question(dialect, target, cookie=cookie))
        assert meaning(dialect, answer) == 400, target
    answer = await gateway.ask(question(dialect, b"/public/x", b"TRACK"))
    assert meaning(dialect, answer) in (400, 405)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_form_goes_back_to_its_page(gateway: Gateway, dialect: str) -> None:
    head = BROWSER + b"Referer: http://good.test/orders/new\r\n"
    answer = await gateway.ask(question(dialect, b"/orders", b"POST", head=head), "POST")
    where = answer.one("Sallyport-Location" if dialect == "nginx" else "Location")
    assert where.endswith(b"?next=%2Forders%2Fnew")
    answer = await gateway.ask(question(dialect, b"/orders", b"POST", head=BROWSER + b"Referer: http://evil/x\r\n"))
    where = answer.one("Sallyport-Location" if dialect == "nginx" else "Location")
    assert where.endswith(b"?next=%2F")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_case_47_a_preflight_carries_nobody(gateway: Gateway, dialect: str) -> None:
    head = b"Access-Control-Request-Method: GET\r\nOrigin: http://good.test\r\n"
    answer = await gateway.ask(question(dialect, b"/x", b"OPTIONS", head=head, cookie=await gateway.cookie("bob")))
    assert answer.status == 200
    assert "x-forwarded-user" not in answer.names


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_case_69_a_page_elsewhere_opens_no_socket(gateway: Gateway, dialect: str) -> None:
    cookie = await gateway.cookie("bob")
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    hop = b"Connection: Upgrade\r\nUpgrade: websocket\r\n" if dialect == "caddy" else b""
    for origin, status in ((b"http://good.test", 200), (b"http://evil.test", 403), (b"null", 403)):
        head = key + hop + b"Origin: %s\r\n" % origin
        answer = await gateway.ask(question(dialect, b"/socket", head=head, cookie=cookie))
        assert meaning(dialect, answer) == status, origin


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_one_connection_asks_for_many(gateway: Gateway, dialect: str) -> None:
    """Also where only the target, or only the cookie, is another one than before."""
    ann, bob = await gateway.cookie("ann", "totp"), await gateway.cookie("bob")
    async with await gateway.connect() as proxy:
        for cookie, target, status in (
            (b"", b"/public/x", 200), (b"", b"/public/x", 200), (b"", b"/x", 401), (bob, b"/x", 200),
            (bob, b"/foo/secret/x", 403), (ann, b"/foo/secret/x", 200), (b"", b"/foo/secret/x", 401),
            (bob, b"/a/../b", 400), (bob, b"/x", 200), (bob, b"/x", 200),
        ):  # fmt: skip
            await proxy.send(question(dialect, target, cookie=cookie))
            answer = await proxy.response()
            assert meaning(dialect, answer) == status, target
            assert (b"bob" in answer.raw) is (cookie == bob and status == 200)


@pytest.mark.parametrize("dialect", ["", "traefik", "caddy", "nginx"])
async def test_a_body_is_not_waited_for(gateway: Gateway, dialect: str) -> None:
    asked = question(dialect, b"/public/x", head=b"Content-Length: 10\r\n")
    async with await gateway.connect() as proxy:
        await proxy.send(asked)
        answer = await proxy.response()
        assert answer.status == 200
        assert answer.one("Connection") == b"close"


async def test_a_head_is_answered_without_a_body(gateway: Gateway) -> None:
    async with await gateway.connect() as proxy:
        for asked in (question("envoy", b"/x", b"HEAD"), question("envoy", b"/x", b"HEAD", head=BROWSER)):
            await proxy.send(asked)
            assert (await proxy.response("HEAD")).status in (401, 303)
        await proxy.send(question("traefik", b"/x", b"HEAD"))
        answer = await proxy.response("GET")
        assert orjson.loads(answer.body)["code"] == "ERR-NO-SESSION", "Traefik asks with GET, whatever it asks about"


async def test_a_fault_is_a_closed_gate(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError("broken")

    cookie = await gateway.cookie("bob")
    monkeypatch.setattr(gateway.app.wire.identity_headers, "_sign", broken)
    gateway.app.wire.identity_headers.forget()
    for dialect in DIALECTS:
        answer = await gateway.ask(question(dialect, b"/x", cookie=cookie))
        assert meaning(dialect, answer) == 503


@pytest.mark.parametrize("path", [b"/.sallyport/auth/other", b"/.sallyport/authx", b"/.sallyport/auth/envoy"])
async def test_an_address_that_is_none_lets_nobody_pass(gateway: Gateway, path: bytes) -> None:
    assert (await gateway.ask(question("caddy").replace(b"/.sallyport/auth/caddy", path))).status >= 400


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_connection_names_is_judged_where_it_is_not_ours_to_remove(gateway: Gateway, dialect: str) -> None:
    """nginx with `proxy_set_header Connection $http_connection` asks with the client's, and passes the headers on."""
    hidden = b"Connection: keep-alive, X-Role, X-HTTP-Method-Override, Sec-WebSocket-Key\r\n"
    cookie = await gateway.cookie("bob")
    for target, method, head, status in (
        (b"/role/x", b"GET", b"X-Role: admin\r\n", 403),
        (b"/post/1", b"POST", b"X-HTTP-Method-Override: DELETE\r\n", 403),
        (b"/x", b"GET", b"Sec-WebSocket-Key: x\r\nOrigin: http://evil.test\r\n", 403),
    ):
        asked = question(dialect, target, method, head=hidden + head, cookie=cookie)
        assert meaning(dialect, await gateway.ask(asked, method.decode())) == status, target


async def test_the_certificate_of_the_connection_is_the_proxys_own() -> None:
    fields = [(b"Host", b"gate"), (b"X-Forwarded-For", b"192.0.2.7"), (b"X-Original-Method", b"GET"),
              (b"X-Original-URL", b"http://good.test/x")]  # fmt: skip
    caller = Caller(
        "1.1",
        fields,
        peer="127.0.0.1",
        trusted=True,
        proxies=TrustedProxies([]),
        scheme="http",
        strip_cookies=lambda cookie: cookie,
        certificate=Certificate("CN=nginx", "CN=ca", "1", "00", (), (), (), 0.0),
    )
    assert caller.certificate is not None
    original = forward_auth._read((b"x-original-method",), False, caller)
    assert (original.certificate, original.authority.host) == (None, "good.test")
