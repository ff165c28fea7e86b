"""The gate behind a real nginx and a real Caddy, with the configurations of docs/deploy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
import pytest_asyncio

from gateway.app import App
from tests.deploy import proxies
from tests.house.process import until
from tests.house.visitor import Visitor, location
from tests.rig.client import RawClient
from tests.rig.gateway import PASSWORD, Gateway, running
from tests.rig.messages import Response
from tests.rig.upstream import RecordingUpstream, fixed

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = """
rules:
  - {name: public, match: {paths: [/public/**]}, access: public, upstream: app}
  - name: busy
    match: {paths: [/busy]}
    access: public
    limits: [{name: few, key: address, algorithm: sliding_window, rate: 2/m}]
    upstream: app
  - {name: nobody, match: {paths: [/nobody/**]}, access: {groups: [nobody]}, upstream: app}
  - {name: admin, match: {paths: [/admin/**]}, access: {groups: [admins]}, step_up: {level: aal2}, upstream: app,
     audience: app-admin}
  - {name: rest, access: authenticated, upstream: app}
"""
_numbers = count(1)

SPOOFS = {
    "X-Forwarded-User": "root",
    "X-Forwarded-Email": "root@evil.test",
    "X-Forwarded-Groups": "admins",
    "X-Forwarded-Preferred-Username": "root",
    "Remote-User": "root",
    "Remote-Groups": "admins",
    "Sallyport-Assertion": "e30.e30.e30",
}


class Site(NamedTuple):
    """A proxy, the gate it asks, and the service behind it."""

    port: int
    gateway: Gateway
    service: RecordingUpstream

    def visitor(self) -> Visitor:
        return Visitor(self.port, origin=proxies.ORIGIN)

    async def user(self, *groups: str) -> str:
        name = f"user{next(_numbers)}"
        await self.gateway.app.users.add(name, PASSWORD, email=f"{name}@good.test", groups=groups)
        return name


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["nginx", "caddy"])
async def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = Path(tmp_path_factory.mktemp(request.param))
    config = {"trusted_proxies": ["127.0.0.1/32"], "public_url": proxies.ORIGIN}
    async with AsyncExitStack() as ending:
        gateway = await ending.enter_async_context(running(folder, policy=POLICY, config=config))
        service = gateway.upstream
        proxy = getattr(proxies, request.param)
        port = await ending.enter_async_context(proxy(folder, gateway.port, service.port))
        yield Site(port, gateway, service)


@pytest.fixture
def site(shared: Site) -> Site:
    shared.service.clear()
    return shared


async def served(site: Site, answer: Response) -> dict[str, bytes]:
    """The headers the service got with the one request that reached it."""
    assert answer.status == 200, (answer.raw, answer.body)
    got = {name.decode().lower(): value for name, value in site.service.only.headers}
    site.service.clear()
    return got


async def test_sign_in_and_back_where_the_user_was(site: Site) -> None:
    name, visitor = await site.user("staff"), site.visitor()
    asked = await visitor.get("/reports/2026?page=2&sort=a%20b")
    there = location(asked)
    assert there == f"{proxies.ORIGIN}/.sallyport/login?next=%2Freports%2F2026%3Fpage%3D2%26sort%3Da%2520b"
    assert site.service.requests == []

    page = await visitor.get(there.removeprefix(proxies.ORIGIN))
    signed_in = await visitor.fill(page, "login", username=name, password=PASSWORD)
    assert location(signed_in) == "/reports/2026?page=2&sort=a%20b"

    got = await served(site, await visitor.get(location(signed_in)))
    assert got["x-forwarded-user"] == name.encode()
    assert got["x-forwarded-email"] == f"{name}@good.test".encode()
    assert got["x-forwarded-groups"] == b"staff"
    assert got["sallyport-assertion"].count(b".") == 2
    assert b"sallyport" not in got.get("cookie", b"").replace(b"sallyport-", b""), "the session stays with us"

    out = await visitor.fill(await visitor.get("logout"), "logout")
    assert out.status == 303
    assert "/.sallyport/login" in location(await visitor.get("/reports/2026"))
    assert site.service.requests == []


async def test_a_second_factor_and_back(site: Site) -> None:
    name, visitor = await site.user("admins"), site.visitor()
    first = location(await visitor.get("/admin/users?all=1"))
    page = await visitor.get(first.removeprefix(proxies.ORIGIN))
    assert (await visitor.fill(page, "login", username=name, password=PASSWORD)).status == 303
    phone, _ = await visitor.enrol(site.gateway.clock)
    site.gateway.clock.advance(3600 * 3)  # the proof of enrolling is worth nothing any more
    visitor.cookies.pop("sallyport", None)
    assert (await visitor.sign_in(name)).status == 303

    asked = location(await visitor.get("/admin/users?all=1"))
    assert asked.startswith(f"{proxies.ORIGIN}/.sallyport/verify/")
    question = await visitor.get(asked.removeprefix(proxies.ORIGIN))
    proven = await visitor.fill(question, "verify/", code=phone.code)
    assert location(proven) == "/admin/users?all=1"
    got = await served(site, await visitor.get(location(proven)))
    assert got["x-forwarded-groups"] == b"admins"


async def test_a_form_lands_on_its_page_again(site: Site) -> None:
    visitor = site.visitor()
    answer = await visitor.post("/orders", {"a": "1"}, Referer=f"{proxies.ORIGIN}/orders/new")
    assert location(answer) == f"{proxies.ORIGIN}/.sallyport/login?next=%2Forders%2Fnew"
    assert site.service.requests == []


async def test_programs_get_a_challenge(site: Site) -> None:
    answer = await site.visitor().get("/reports", Accept="application/json")
    assert answer.status == 401
    assert answer.one("WWW-Authenticate").startswith(b"Bearer")
    assert site.service.requests == []


async def test_a_body_reaches_the_service_whole(site: Site) -> None:
    visitor = site.visitor()
    body = bytes(range(256)) * 400
    answer = await visitor.send("PUT", "/public/file", body, Content_Length=str(len(body)))
    assert answer.status == 200
    assert site.service.only.body == body


@pytest.mark.parametrize("path", ["/public/x", "/reports"])
@pytest.mark.parametrize("spoof", [*SPOOFS, "all"])
async def test_case_52_no_client_says_who_it_is(site: Site, path: str, spoof: str) -> None:
    visitor = site.visitor()
    if path == "/reports":
        name = await site.user()
        await visitor.sign_in(name)
    told = SPOOFS if spoof == "all" else {spoof: SPOOFS[spoof]}
    answer = await visitor.get(path, **{name.replace("-", "_"): value for name, value in told.items()})
    for received in site.service.requests:
        assert b"root" not in received.raw
        assert b"admins" not in received.raw
        assert b"e30.e30" not in received.raw
    assert answer.status in (200, 400)


@pytest.mark.parametrize("spelled", ["X_Forwarded_User", "x.forwarded.user", "REMOTE_USER", "Sallyport_Assertion"])
async def test_case_53_in_no_spelling(site: Site, spelled: str) -> None:
    async with await RawClient.connect(site.port) as client:
        await client.send(f"GET /public/x HTTP/1.1\r\nHost: {proxies.HOST}\r\n{spelled}: root\r\n\r\n".encode())
        answer = await client.response()
    assert answer.status in (200, 400)
    assert not any(b"root" in received.raw for received in site.service.requests)


@pytest.mark.parametrize("listed", ["X-Forwarded-User, Sallyport-Assertion", "close, x-forwarded-user"])
async def test_case_54_nobody_lists_our_headers_away(site: Site, listed: str) -> None:
    visitor = site.visitor()
    name = await site.user()
    await visitor.sign_in(name)
    answer = await visitor.get("/reports", Connection=listed)
    if answer.status == 200:
        assert site.service.only.one("X-Forwarded-User") == name.encode()
    else:
        assert answer.status == 400
        assert site.service.requests == []


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-Uri: /public/x", "X-Original-URI: /public/x", "X-Original-URL: http://app.example.com/public/x",
     "X-Rewrite-URL: /public/x", "X-Forwarded-Method: OPTIONS", "X-Original-Method: OPTIONS",
     "X-Forwarded-Host: other.example.com"],
)  # fmt: skip
async def test_case_56_a_client_cannot_say_what_is_asked_about(site: Site, header: str) -> None:
    async with await RawClient.connect(site.port) as client:
        await client.send(f"GET /reports HTTP/1.1\r\nHost: {proxies.HOST}\r\n{header}\r\n\r\n".encode())
        answer = await client.response()
    assert answer.status in (400, 401)
    assert site.service.requests == []


@pytest.mark.parametrize("target", ["/public/../admin/x", "/public/%2e%2e/admin/x", "/public/..%2fadmin/x",
                                    "/public/..;/admin/x", "//admin/x", "/public/%252e%252e/admin/x"])  # fmt: skip
async def test_case_31_no_way_round_by_spelling(site: Site, target: str) -> None:
    async with await RawClient.connect(site.port) as client:
        await client.send(f"GET {target} HTTP/1.1\r\nHost: {proxies.HOST}\r\n\r\n".encode())
        answer = await client.response()
    assert answer.status in (400, 401, 403)
    assert site.service.requests == []


@pytest.mark.parametrize("target", ["/.sallyport/auth/nginx", "/.sallyport/auth/caddy", "/.sallyport/auth",
                                    "/.sallyport/auth/traefik", "/.sallyport/auth/envoy/public/x"])  # fmt: skip
async def test_nobody_outside_asks(site: Site, target: str) -> None:
    async with await RawClient.connect(site.port) as client:
        named = "X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /public/x\r\nX-Original-Method: GET\r\n"
        await client.send(f"GET {target} HTTP/1.1\r\nHost: {proxies.HOST}\r\n{named}\r\n".encode())
        answer = await client.response()
    assert answer.status == 404
    assert b"Sallyport" not in answer.raw


async def test_too_often_and_never(site: Site) -> None:
    answers = [await site.visitor().get("/busy") for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert int(answers[2].one("Retry-After")) > 0
    visitor = site.visitor()
    await visitor.sign_in(await site.user())
    site.service.clear()
    assert (await visitor.get("/nobody/x")).status == 403
    assert site.service.requests == []


async def test_the_log_has_the_request_that_was_judged(site: Site) -> None:
    answer = await site.visitor().get("/public/logged?secret=1")
    request_id = site.service.only.one("X-Request-Id").decode()
    assert answer.status == 200
    log = Path(site.gateway.app.settings.log.access)
    await until(lambda: log.exists() and request_id.encode() in log.read_bytes())
    lines = [orjson.loads(line) for line in log.read_bytes().splitlines()]
    line = next(line for line in lines if line["request_id"] == request_id)
    assert (line["method"], line["host"], line["path"]) == ("GET", proxies.HOST, "/public/logged")
    assert (line["status"], line["answer"], line["rule"], line["upstream"]) == (200, "allow", "public", "")
    assert line["forward_auth"] in ("nginx", "caddy")
    assert line["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("sent", "got"),
    [("a=1; sallyport=x; b=2", b"a=1; b=2"), ("sallyport=x; b=2", b"b=2"), ("a=1; sallyport=x", b"a=1;"),
     ("a=1; __Host-sallyport=x; b=2", b"a=1; b=2"), ("xsallyport=1; b=2", b"xsallyport=1; b=2")],
)  # fmt: skip
async def test_the_service_does_not_get_the_session(site: Site, sent: str, got: bytes) -> None:
    visitor = site.visitor()
    assert (await visitor.get("/public/x", Cookie=sent)).status == 200
    assert site.service.only.one("Cookie").rstrip() == got


@pytest.mark.parametrize(("origin", "opens"), [(proxies.ORIGIN, True), ("http://evil.test", False), ("null", False)])
async def test_case_69_a_socket_opens_for_our_own_pages(site: Site, origin: str, opens: bool) -> None:
    visitor = site.visitor()
    await visitor.sign_in(await site.user())
    agreed = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    site.service.script = fixed(agreed + b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", close=True)
    lines = [
        "GET /socket HTTP/1.1", f"Host: {proxies.HOST}", f"Origin: {origin}", "Connection: Upgrade",
        "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Cookie: sallyport={visitor.cookies['sallyport']}", "", "",
    ]  # fmt: skip
    async with await RawClient.connect(site.port) as client:
        await client.send("\r\n".join(lines).encode())
        head = await client.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101" if opens else b"HTTP/1.1 403")
    assert len(site.service.requests) == opens


async def test_without_sallyport_nobody_passes(site: Site) -> None:
    app = site.gateway.app
    await app.stop(grace=0.0)
    site.service.clear()
    try:
        for path in ("/public/x", "/reports", "/.sallyport/login"):
            assert (await site.visitor().get(path)).status in (500, 502)
        assert site.service.requests == []
    finally:
        site.gateway.app = App(app.settings, clock=site.gateway.clock)
        await site.gateway.app.start()
