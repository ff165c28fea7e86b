"""C. Methods and hosts: default deny holds for every token and every name."""

from __future__ import annotations

import pytest

from tests.attacks.caller import Caller
from tests.rig.gateway import Gateway, request

pytestmark = pytest.mark.asyncio(loop_scope="module")


def of(case: int, *values: bytes) -> list[object]:
    """Parameters whose ids name the case."""
    return [pytest.param(value, id=f"case-{case}-{value[:40]!r}") for value in values]


@pytest.mark.parametrize(
    "method",
    of(
        45,
        *(b"get", b"GeT", b"GET\x00", b'G"ET', b"G\\ET", b"FOO", b"GETT", b"GE", b"POST\x0b", b"", b"GET,POST", b"PRI"),
        *(b"g\xe9t", b"DEBUG", b"X" * 1000, b"_GET", b"GET/"),
    ),
)
async def test_unknown_methods_are_rejected(caller: Caller, method: bytes) -> None:
    for target in (b"/admin", caller.target):
        await caller.gateway.mark()
        await caller.is_rejected(caller.request(method, target=target), status=(400, 405, 501))


@pytest.mark.parametrize(
    "header",
    of(
        46,
        *(b"X-HTTP-Method-Override", b"X-Method-Override", b"X-HTTP-Method", b"x_http_method_override"),
        *(b"X-Http.Method-Override", b"X_METHOD_OVERRIDE"),
    ),
)
async def test_method_overrides_are_stripped(gateway: Gateway, header: bytes) -> None:
    answer = await gateway.ask(request(b"POST", b"/post/x", header + b": DELETE\r\nContent-Length: 0\r\n"), "POST")
    assert answer.status == 200
    assert gateway.upstream.only.method == b"POST"
    assert b"DELETE" not in gateway.upstream.only.raw


@pytest.mark.parametrize(
    "query",
    of(
        46,
        *(b"_method=DELETE", b"_method=delete", b"a=b&_method=DELETE", b"_method=GET&_method=DELETE"),
        *(b"_%6dethod=DELETE", b"_method=%44ELETE", b"a;_method=DELETE", b"_METHOD=DELETE"),
    ),
)
async def test_a_method_in_the_query_is_judged_too(gateway: Gateway, query: bytes) -> None:
    for cookie, status in ((b"", 401), (await gateway.cookie("bob"), 403)):
        raw = request(b"POST", b"/post/x?" + query, b"Content-Length: 0\r\n", cookie=cookie)
        assert (await gateway.ask(raw, "POST")).status == status
    assert gateway.upstream.requests == []


async def test_case_46_a_method_in_the_query_that_needs_nothing_more_passes(gateway: Gateway) -> None:
    raw = request(b"POST", b"/post/x?_method=POST", b"Content-Length: 0\r\n")
    assert (await gateway.ask(raw, "POST")).status == 200
    assert gateway.upstream.only.target == b"/post/x?_method=POST"


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"GET", b"POST", b"DELETE", b"PROPFIND"])
@pytest.mark.parametrize("target", [b"/app/x", b"/admin"])
async def test_case_47_no_method_gets_around_sign_in(gateway: Gateway, method: bytes, target: bytes) -> None:
    answer = await gateway.ask(request(method, target), method.decode("ascii"))
    assert answer.status == 401
    assert gateway.upstream.requests == []


async def test_case_47_head_is_get_and_options_is_not(gateway: Gateway) -> None:
    assert (await gateway.ask(request(b"HEAD", b"/read/x"), "HEAD")).status == 200
    assert (await gateway.ask(request(b"OPTIONS", b"/read/x"), "OPTIONS")).status == 401
    assert [received.method for received in gateway.upstream.requests] == [b"HEAD"]


async def test_case_47_a_preflight_carries_no_identity(caller: Caller) -> None:
    head = (
        b"Origin: http://evil.test\r\nAccess-Control-Request-Method: DELETE\r\n"
        b"X-Forwarded-User: evil\r\nSallyport-Assertion: evil\r\nRemote-User: evil\r\n"
    )
    assert (await caller.gateway.ask(caller.request(b"OPTIONS", head), "OPTIONS")).status == 200
    received = caller.gateway.upstream.only
    assert b"evil\r\n" not in received.raw
    assert not received.names & {"x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "sallyport-assertion"}
    assert received.all("Origin") == [b"http://evil.test"]


@pytest.mark.parametrize(
    "host",
    of(
        48,
        *(b"Host: good.test\r\nHost: good.test\r\n", b"Host: good.test\r\nHost: other.test\r\n", b"", b"Host:\r\n"),
        *(b"Host: good.test\r\nhost: other.test\r\n", b"Host: good.test, other.test\r\n", b"Host: a@good.test\r\n"),
        *(b"Host: good.test:80:80\r\n", b"Host: good.test/x\r\n", b"Host: good test\r\n", b"Host: good.test\x00\r\n"),
        *(
            "Host: göod.test\r\n".encode(),
            b"Host: good.test\xff\r\n",
            b"Host: good.test:\r\n",
            b"Host: good.test:x\r\n",
        ),
        *(b"Host: good.test:99999\r\n", b"Host: good.test#\r\n", b"Host: good.test?\r\n", b"Host: good.test\\x\r\n"),
        *(b"Host: http://good.test\r\n", b"Host: [good.test]\r\n", b"Host: [::1\r\n", b"Host: ..good.test\r\n"),
        *(b"Host: good..test\r\n", b"Host: good.test:-1\r\n", b"Host: good.test:+80\r\n", b"Host: good.test:8_0\r\n"),
        *(b"Host: %67ood.test\r\n", b"Host: good.test;x\r\n", b"Host : good.test\r\n", b" Host: good.test\r\n"),
        *(b"Host: good.test\r\nX: y\r\n Host: other\r\n", b"Host: " + b"a" * 2000 + b"\r\n", b"Host: *.test\r\n"),
        *(b"Host: good.test:\xd9\xa8\xd9\xa0\r\n", b"H\xc3\xb6st: good.test\r\n", b"Host_: good.test\r\n"),
    ),
)
async def test_a_host_that_is_not_one_host_is_rejected(caller: Caller, host: bytes) -> None:
    await caller.is_rejected(caller.request(host=host))


@pytest.mark.parametrize(
    ("host", "forwarded"),
    [
        pytest.param(host, forwarded, id=f"case-49-{host.decode('ascii')}")
        for host, forwarded in (
            (b"admin.example.com", b"admin.example.com"),
            (b"Admin.Example.COM", b"admin.example.com"),
            (b"admin.example.com.", b"admin.example.com"),
            (b"admin.example.com:80", b"admin.example.com"),
            (b"ADMIN.example.com.:80", b"admin.example.com"),
            (b"admin.example.com:443", b"admin.example.com:443"),
        )
    ],
)
async def test_one_host_has_one_rule_however_spelled(gateway: Gateway, host: bytes, forwarded: bytes) -> None:
    line = b"Host: " + host + b"\r\n"
    for cookie, status in ((b"", 401), (await gateway.cookie("bob"), 403)):
        assert (await gateway.ask(request(b"GET", b"/public/x", host=line, cookie=cookie))).status == status
    assert gateway.upstream.requests == []
    cookie = await gateway.cookie("ann", "totp")
    assert (await gateway.ask(request(b"GET", b"/public/x", host=line, cookie=cookie))).status == 200
    assert gateway.upstream.only.all("Host") == [forwarded]
    assert gateway.upstream.only.all("X-Forwarded-Host") == [forwarded]


@pytest.mark.parametrize(
    "host",
    of(
        50,
        *(b"localhost", b"127.0.0.1", b"[::1]", b"app", b"other", b"good.test.evil.test", b"evilgood.test", b"test"),
        *(b"0.0.0.0", b"metadata.google.internal", b"169.254.169.254", b"x.admin.example.com", b"good.test_"),
    ),
)
async def test_an_unknown_host_is_refused(caller: Caller, host: bytes) -> None:
    for target in (b"/public/x", b"/healthz", b"/", b"/admin"):
        answer = await caller.gateway.ask(caller.request(target=target, host=b"Host: " + host + b"\r\n"))
        assert answer.status == 403
    caller.reached_nobody()


async def test_case_51_every_request_of_a_connection_is_decided_afresh(caller: Caller) -> None:
    async with await caller.gateway.connect() as client:
        for target, host, status in (
            (caller.target, b"good.test", 200),
            (caller.target, b"admin.example.com", 403 if caller.user else 401),
            (caller.target, b"unknown.test", 403),
            (b"/admin", b"good.test", 403 if caller.user else 401),
            (caller.target, b"good.test", 200),
        ):
            await client.send(caller.request(target=target, host=b"Host: " + host + b"\r\n"))
            assert (await client.response()).status == status
    assert [received.target for received in caller.gateway.upstream.requests] == [caller.target] * 2


async def test_case_51_the_session_of_one_request_is_not_the_next_ones(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(request(b"GET", b"/app/1", cookie=await gateway.cookie("bob")), request(b"GET", b"/app/2"))
        assert [answer.status for answer in await client.responses("GET", "GET")] == [200, 401]
    assert gateway.upstream.only.target == b"/app/1"
