"""Forward-auth, attacked: who may ask, what a question may say, and that no way of asking is weaker than another."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.core.events import Event, Kind
from gateway.core.identity import DEFAULT_TENANT
from tests.rig.gateway import Gateway, request, running
from tests.wire.test_forward_auth import BROWSER, DIALECTS, meaning, question

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRICTNESS = {200: 0, 303: 1, 401: 1, 429: 2, 403: 3, 400: 4, 405: 4}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = Path(tmp_path_factory.mktemp("forward-auth"))
    async with running(folder, config={"trusted_proxies": ["127.0.0.1/32"]}) as gateway:
        yield gateway


async def last(gateway: Gateway, kind: Kind) -> Event:
    await gateway.app.recorder.flush()
    return (await gateway.app.recorder.events(DEFAULT_TENANT, limit=1, kind=kind))[0]


async def test_case_56_nobody_but_a_trusted_proxy_is_heard(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        for number, dialect in enumerate(DIALECTS, 1):
            async with await gateway.connect() as client:
                await client.send(question(dialect, b"/public/x"))
                answer = await client.response()
                assert meaning(dialect, answer) == 403
                assert await client.is_closed()
            assert await gateway.rejections() == number
            event = await last(gateway, Kind.REQUEST_REJECTED)
            assert (event.detail["reason"], event.address) == ("untrusted_proxy", "127.0.0.1")
        metrics = gateway.app.metrics.render()[0]
        assert b"sallyport_decisions_total{" not in metrics, "nothing was judged"


UNCLEAR = {
    "x-forwarded-uri": ["", "traefik", "caddy"],
    "x-forwarded-method": ["", "traefik", "caddy"],
    "x-forwarded-host": ["", "traefik", "caddy"],
    "x-forwarded-proto": ["", "traefik", "caddy", "envoy"],
    "x-forwarded-for": DIALECTS,
    "x-original-url": ["nginx"],
    "x-original-method": ["nginx"],
}


@pytest.mark.parametrize(("name", "dialect"), [(name, each) for name, kinds in UNCLEAR.items() for each in kinds])
async def test_a_question_is_whole(gateway: Gateway, name: str, dialect: str) -> None:
    forgotten = {"x-original-url": "X-Original-URL"}.get(name, name.title())
    answer = await gateway.ask(question(dialect, b"/public/x", drop=forgotten))
    assert meaning(dialect, answer) == 400
    event = await last(gateway, Kind.REQUEST_REJECTED)
    assert event.detail["reason"] == "original_unclear"
    assert await gateway.rejections() == 1


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "line",
    [
        b"X-Forwarded-Uri: /admin/x", b"X-Original-URI: /admin/x", b"X-Original-URL: http://good.test/admin/x",
        b"X-Original-URL: http://evil.test/public/x", b"X-Original-URL: good.test/public/x", b"X-Original-URL: x",
        b"X-Original-URL: http://good.test", b"X-Original-URL: http://good.test?/public/x",
        b"X-Forwarded-Host: evil.test", b"X-Forwarded-Host: good.test, evil.test", b"X-Forwarded-Host: ",
        b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: http, https", b"X-Forwarded-Proto: ftp",
        b"X-Forwarded-Method: DELETE", b"X-Original-Method: DELETE", b"Host: evil.test",
    ],
)  # fmt: skip
async def test_a_question_does_not_contradict_itself(gateway: Gateway, dialect: str, line: bytes) -> None:
    """One more header beside those of the proxy: said twice, or said otherwise."""
    answer = await gateway.ask(question(dialect, b"/public/x", head=line + b"\r\n"))
    assert meaning(dialect, answer) == 400
    assert await gateway.rejections() == 1
    assert gateway.upstream.requests == []


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "name",
    ["X-Forwarded-User", "x_forwarded_user", "X-FORWARDED-GROUPS", "X.Forwarded.Email", "Remote-User", "REMOTE_USER",
     "Remote-Name", "Sallyport-Assertion", "Sallyport_Assertion", "Sallyport-Client-Address", "X-Auth-Request-User"],
)  # fmt: skip
async def test_case_53_a_client_that_names_itself_is_refused(gateway: Gateway, dialect: str, name: str) -> None:
    for target, cookie in ((b"/public/x", b""), (b"/x", await gateway.cookie("bob"))):
        head = f"{name}: root\r\n".encode()
        answer = await gateway.ask(question(dialect, target, head=head, cookie=cookie))
        assert meaning(dialect, answer) == 400
        assert b"root" not in answer.raw
    event = await last(gateway, Kind.REQUEST_REJECTED)
    assert (event.detail["reason"], event.detail["header"]) == ("identity_claimed", name)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_case_46_an_overridden_method_is_judged_too(gateway: Gateway, dialect: str) -> None:
    assert (await gateway.ask(question(dialect, b"/post/x", b"POST"))).status == 200
    for name in (b"X-HTTP-Method-Override", b"X-Method-Override", b"x-http-method", b"X_HTTP_Method_Override"):
        answer = await gateway.ask(question(dialect, b"/post/x", b"POST", head=name + b": delete\r\n"))
        assert meaning(dialect, answer) == 401
    answer = await gateway.ask(question(dialect, b"/post/x?_method=DELETE", b"POST"))
    assert meaning(dialect, answer) == 401


@pytest.mark.parametrize("up", [b"/..", b"/%2e%2e", b"/.%2E", b"/./..", b"//..", b"/x/../.."])
@pytest.mark.parametrize(
    "where", [b"/login", b"/../public/x", b"/../../public/x", b"/nginx", b"/../static/sallyport.css"]
)
async def test_case_31_no_path_leads_out_of_the_question(gateway: Gateway, up: bytes, where: bytes) -> None:
    """Envoy appends the client's path to ours: whatever it is, no page and no service answers in the gate's place."""
    for cookie in (b"", await gateway.cookie("ann", "totp")):
        answer = await gateway.ask(question("envoy", up + where, cookie=cookie, head=BROWSER))
        assert answer.status == 400
    assert gateway.upstream.requests == []


@pytest.mark.parametrize(
    ("chain", "address"),
    [(b"192.0.2.9", "192.0.2.9"), (b"10.0.0.1, 192.0.2.9", "192.0.2.9"), (b"192.0.2.9, 127.0.0.1", "192.0.2.9"),
     (b"192.0.2.9, nonsense", "unknown"), (b"192.0.2.9:4711", "unknown"), (b"::ffff:192.0.2.9", "192.0.2.9")],
)  # fmt: skip
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_case_57_clients_are_who_the_last_proxy_saw(
    gateway: Gateway, dialect: str, chain: bytes, address: str
) -> None:
    asked = question(dialect, b"/x", host=b"nowhere.test").replace(b"192.0.2.7", chain)
    assert meaning(dialect, await gateway.ask(asked)) == 403
    event = await last(gateway, Kind.REFUSED)
    assert (event.address, event.detail["path"]) == (address, "/x")


@pytest.mark.parametrize(
    "cookie",
    [b"sallyport=", b"sallyport=short", b"sallyport=" + b"A" * 43, b"sallyport=" + b"A" * 8000,
     b"sallyport=\xff\xfe", b"sallyport={good}; sallyport={good}", b"sallyport={good}; sallyport=" + b"B" * 43],
)  # fmt: skip
async def test_case_79_a_damaged_cookie_is_nobody_in_every_mode(gateway: Gateway, cookie: bytes) -> None:
    good = (await gateway.cookie("bob")).partition(b"=")[2]
    cookie = cookie.replace(b"{good}", good)
    direct = await gateway.ask(request(target=b"/x", cookie=cookie))
    assert direct.status == 401
    for dialect in DIALECTS:
        answer = await gateway.ask(question(dialect, b"/x", cookie=cookie))
        assert meaning(dialect, answer) == 401
        assert answer.one("WWW-Authenticate") == direct.one("WWW-Authenticate")
        if dialect != "nginx":
            different = {b"request_id"}
            said, told = (one.body.split(b",") for one in (direct, answer))
            assert [a for a, b in zip(said, told, strict=True) if a != b and a[1:11] not in different] == []


PIECES = [b"public", b"admin", b"foo", b"secret", b"x", b"healthz", b"read", b"post", b"..", b".", b"", b"%2e%2e",
          b"..;", b"a;b", b"%2f", b"%5c", b"%00", b"%zz", b"ADMIN", b"admin.json", b"%61dmin", b"~", b"%7e",
          b"\xc3\xa9", b"%c3%a9", b"a%20b", b"%252e%252e", b"public.", b"a\\b", b"a#b", b"%ef%bc%8f"]  # fmt: skip
HOSTS = [b"good.test"] * 12 + [b"GOOD.test.", b"good.test:80", b"admin.example.com", b"localhost", b"good.test:8080",
                               b"a@b", b"good.test, b", b"[::1]"]  # fmt: skip
METHODS = [b"GET"] * 4 + [b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"PUT", b"PATCH"]


def generated(count: int) -> list[tuple[bytes, bytes, bytes]]:
    chance = random.Random(20)
    found = []
    for _ in range(count):
        path = b"/" + b"/".join(chance.choices(PIECES, k=chance.randint(1, 3)))
        query = chance.choice([b"", b"", b"", b"?a=b", b"?_method=DELETE", b"?x=/../admin"])
        found.append((chance.choice(METHODS), path + query, chance.choice(HOSTS)))
    return found


async def test_case_42_no_mode_is_weaker_than_another(gateway: Gateway) -> None:
    """The same request, carried by us and asked about: the same answer; stricter only where a path that we would have
    rewritten is handed on as it came."""
    differences, seen = [], set()
    cookies = [b"", await gateway.cookie("bob"), await gateway.cookie("ann", "totp")]
    for number, (method, target, host) in enumerate(generated(1500)):
        cookie = cookies[number % 3]
        dialect = DIALECTS[number % len(DIALECTS)]
        direct = await gateway.ask(request(method, target, host=b"Host: %s\r\n" % host, cookie=cookie), method.decode())
        asked = question(dialect, target, method, host=host, cookie=cookie)
        answer = await gateway.ask(asked, method.decode() if dialect == "envoy" else "GET")
        ours, theirs = STRICTNESS[direct.status], STRICTNESS[meaning(dialect, answer)]
        path = target.partition(b"?")[0]
        rewritten = any(piece in (b".", b"..", b"%2e%2e") for piece in path.split(b"/"))
        stricter = rewritten or b"//" in path
        if (theirs < ours) if stricter else (theirs != ours):
            differences.append((method, target, host, dialect, direct.status, meaning(dialect, answer)))
        if rewritten:
            assert theirs == STRICTNESS[400], target
        seen.add(ours)
    assert differences == []
    assert seen == {0, 1, 3, 4}, "every kind of answer was compared"
