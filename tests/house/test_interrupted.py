"""What a browser was sending goes on once, byte for byte, for who was sending it; or not at all, and they are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.core.contracts import KeyValue
from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from gateway.risk.agent import AgentSignal
from tests.house.visitor import Visitor, as_json, location
from tests.rig.client import PATIENCE
from tests.rig.gateway import PASSWORD, Gateway, running
from tests.rig.messages import Request, Response
from tests.rig.upstream import Line, RecordingUpstream
from tests.wire.services_at import settled, until

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
KIND = f"multipart/form-data; boundary={BOUNDARY}"
FILE = bytes(at * 31 % 256 for at in range(700_001))
FILES = (
    b'--%b\r\nContent-Disposition: form-data; name="f"; filename="a.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n%b\r\n--%b--\r\n" % (BOUNDARY.encode(), FILE, BOUNDARY.encode())
)
HERE = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Site": "same-origin"}


@pytest_asyncio.fixture
async def mine(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as gateway:
        await gateway.sign_in("bob")
        await gateway.sign_in("ann")
        yield gateway


def visit(gateway: Gateway) -> Visitor:
    return Visitor(gateway.app.ports[0])


async def interrupted(visitor: Visitor, body: bytes, kind: str = KIND, path: str = "/app/pay", **more: str) -> str:
    """Where a browser is sent that was sending `body`."""
    return location(await visitor.send("POST", path, body, Content_Type=kind, **{**HERE, **more}))


async def sign_in(visitor: Visitor, login: str, user: str = "bob") -> str:
    return location(await visitor.fill(await visitor.get(login), "login", username=user, password=PASSWORD))


async def send_on(visitor: Visitor, onward: str) -> None:
    """Press the button: the browser is on its way back, with the cookie."""
    assert location(await visitor.fill(await visitor.get(onward), "resume/")).startswith("/app/pay")


async def refusals(gateway: Gateway) -> Counter[tuple[str, str]]:
    """Who was told that it did not go on, and why."""
    await gateway.app.recorder.flush()
    told: Counter[tuple[str, str]] = Counter()
    for event in await gateway.app.recorder.events(DEFAULT_TENANT, kind=Kind.RESUME_REFUSED):
        told[event.user, event.detail["reason"]] += event.detail.get("count", 1)
    return told


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (KIND, FILES),
        ("text/plain", b"a=b\r\nc=\xff\x00\r\n"),
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"a=" + b"%2E" * 43_690 + b"x"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_whatever_a_form_sends(mine: Gateway, kind: str, body: bytes, chunked: bool) -> None:
    bob = visit(mine)
    more = {"Content_Encoding": "identity", "X_Own": "1", "X_Hop": "2", "Connection": "close, X-Hop"}
    raw = body
    if chunked:
        pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
        raw = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        more |= {"Transfer_Encoding": "chunked"}
    bob.more = {}
    answer = await _post(bob, raw, kind, more, chunked)
    await mine.restart()
    bob.port = mine.app.ports[0]
    await send_on(bob, await sign_in(bob, location(answer)))
    assert mine.upstream.requests == []
    assert (await bob.get("/app/pay")).status == 200
    once = mine.upstream.only
    assert (once.method, once.body) == (b"POST", body)
    assert (once.one("Content-Type").decode(), once.all("X-Own")) == (kind, [b"1"])
    assert once.all("X-Hop") == []  # named by `Connection`: no service saw it then, and none does now
    assert once.all("Content-Length") == [b"%d" % len(body)]
    assert once.one("X-Forwarded-User") == b"bob"
    assert mine.upstream.violations == []


async def _post(visitor: Visitor, raw: bytes, kind: str, more: dict[str, str], chunked: bool):  # type: ignore[no-untyped-def]
    if not chunked:
        return await visitor.send("POST", "/app/pay", raw, Content_Type=kind, **HERE, **more)
    visitor.more = {"Origin": visitor.origin}
    answer = await visitor.send("POST ", "/app/pay", raw, Content_Type=kind, **HERE, **more)
    visitor.more = {}
    return answer


@pytest.mark.parametrize(("kind", "body"), [(KIND, FILES), ("application/x-www-form-urlencoded", b"a=%00&b=%ff")])
async def test_a_second_factor_in_between(mine: Gateway, kind: str, body: bytes) -> None:
    """Files too, and over a restart: it goes on with the right answer, at the very address it was sent to."""
    anna = visit(mine)
    await mine.app.users.add("anna", PASSWORD, groups=("admins",))
    await anna.sign_in("anna")
    phone, _ = await anna.enrol(mine.clock)
    mine.pass_time(60)
    await anna.fill(await anna.get("logout"), "logout")
    await anna.sign_in("anna")
    verify = await interrupted(anna, body, kind, path="/admin/pay?a=1")
    assert verify.startswith("/.sallyport/verify/")
    page = await anna.get(verify)
    assert (await anna.fill(page, "verify/", code=phone.wrong)).status == 400
    await mine.restart()
    anna.port = mine.app.ports[0]
    assert (await anna.get("/admin/pay?a=1")).status == 303, "it does not go on before"
    assert mine.upstream.requests == []
    assert location(await anna.fill(page, "verify/", code=phone.code)) == "/admin/pay?a=1"
    for _ in range(2):
        assert (await anna.get("/admin/pay?a=1")).status == 200
    once, again = mine.upstream.requests
    assert (once.method, once.target, once.body) == (b"POST", b"/admin/pay?a=1", body)
    assert (once.one("Content-Type").decode(), once.one("X-Forwarded-User")) == (kind, b"anna")
    assert (again.method, again.body) == (b"GET", b"")
    assert mine.upstream.violations == []


async def test_twenty_tabs_that_come_back_at_once_send_one(mine: Gateway) -> None:
    bob = visit(mine)
    await send_on(bob, await sign_in(bob, await interrupted(bob, FILES)))
    cookies = dict(bob.cookies)
    tabs = [visit(mine) for _ in range(20)]
    for tab in tabs:
        tab.cookies = dict(cookies)
    answers = await asyncio.gather(*(tab.get("/app/pay") for tab in tabs))
    assert {answer.status for answer in answers} == {200}
    methods = sorted(one.method for one in mine.upstream.requests)
    assert methods == [b"GET"] * 19 + [b"POST"]
    assert next(one.body for one in mine.upstream.requests if one.method == b"POST") == FILES


async def test_not_after_its_time(mine: Gateway) -> None:
    bob = visit(mine)
    onward = await sign_in(bob, await interrupted(bob, FILES))
    mine.pass_time(601)
    assert (await bob.get(onward)).status == 404
    assert await refusals(mine) == {("bob", "gone"): 1}


async def test_nobody_else_sends_it_in_the_same_browser(mine: Gateway) -> None:
    """A session that has run out on a shared desk: its browser knows whose it was, and nobody else goes on with it."""
    bob = visit(mine)
    await mine.app.users.add("carol", PASSWORD)
    await bob.sign_in("bob")
    mine.pass_time(3601)
    onward = await sign_in(bob, login := await interrupted(bob, b"a=1", "application/x-www-form-urlencoded"), "carol")
    assert (await bob.get(onward)).status == 404
    ticket = onward.partition("resume/")[2].partition("?")[0]
    bob.cookies["sallyport-resume"] = ticket  # nor by hand
    assert (await bob.get("/app/pay")).status == 200
    assert [one.method for one in mine.upstream.requests] == [b"GET"]
    assert await refusals(mine) == {("carol", "not_theirs"): 2}
    await sign_in(bob, login.replace("login?", "login?reauth=1&"), "bob")
    await send_on(bob, onward)
    assert (await bob.get("/app/pay")).status == 200
    assert mine.upstream.requests[-1].body == b"a=1"


async def test_it_goes_on_where_it_was_going_and_nowhere_else(mine: Gateway) -> None:
    bob = visit(mine)
    await send_on(bob, await sign_in(bob, await interrupted(bob, b"a=1", "application/x-www-form-urlencoded")))
    cookies = dict(bob.cookies)
    for path, host in (("/app/other", "good.test"), ("/app/pay?a=2", "good.test"), ("/app/pay", "good.test:81")):
        bob.cookies = dict(cookies)
        assert (await bob.get(path, Host=host)).status == 200
    assert [(one.method, one.body) for one in mine.upstream.requests] == [(b"GET", b"")] * 3
    assert await refusals(mine) == {}, "another page, opened meanwhile"
    bob.cookies = dict(cookies)
    assert (await bob.get("/app/pay")).status == 200
    assert (mine.upstream.requests[-1].method, mine.upstream.requests[-1].body) == (b"POST", b"a=1")


async def test_somebody_elses_browser_has_nothing(mine: Gateway) -> None:
    bob, eve = visit(mine), visit(mine)
    onward = await sign_in(bob, await interrupted(bob, FILES))
    await eve.sign_in("bob")  # the same user, elsewhere
    assert (await eve.get(onward)).status == 404
    eve.cookies["sallyport-resume"] = onward.partition("resume/")[2].partition("?")[0]
    for mode in ("navigate", "no-cors"):  # a picture in that page brings the cookie too
        assert (await eve.get("/app/pay", Sec_Fetch_Mode=mode)).status == 200
    assert await refusals(mine) == {("bob", "gone"): 2}


@pytest.mark.parametrize(
    "more",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://good.test"},
        {"Sec_Fetch_Site": "", "Origin": "http://evil.test"},
        {"Sec_Fetch_Site": "", "Origin": "null"},
    ],
)
async def test_what_a_page_elsewhere_made_a_browser_send_is_not_kept(mine: Gateway, more: dict[str, str]) -> None:
    """Without our cookies it is nobody's; sent again after the sign-in it would be a forged request of somebody's."""
    bob = visit(mine)
    if not more["Sec_Fetch_Site"]:
        more = {"Origin": more["Origin"]}
        answer = await bob.send("POST", "/app/pay", b"to=eve", Content_Type="text/plain", **more)
    else:
        answer = await bob.send("POST", "/app/pay", b"to=eve", Content_Type="text/plain", **{**HERE, **more})
    assert location(answer) == "/.sallyport/login?next=%2F&lost=elsewhere"
    assert "A page of another site" in (await bob.get(location(answer))).body.decode()


async def test_too_large_is_told_politely(tmp_path: Path) -> None:
    async with running(tmp_path, config={"interrupted": {"body": "2k"}}) as gateway:
        bob = visit(gateway)
        login = await interrupted(bob, b"x" * 3_000_000, Referer="http://good.test/app/form")
        assert login == "/.sallyport/login?next=%2Fapp%2Fform&lost=large"
        assert "too large to be kept" in (await bob.get(login)).body.decode()
        raw = b"%x\r\n%b\r\n0\r\n\r\n" % (3_000, b"x" * 3_000)
        answer = await _post(bob, raw, KIND, {"Transfer_Encoding": "chunked"}, True)
        assert location(answer).endswith("&lost=large")
        assert gateway.upstream.requests == []


async def test_a_service_that_is_not_there_gets_it_later(mine: Gateway) -> None:
    bob = visit(mine)
    await send_on(bob, await sign_in(bob, await interrupted(bob, FILES)))
    port = mine.upstream.port
    await mine.upstream.stop()
    refused = await bob.get("/app/pay")
    assert refused.status == 502
    (onward,) = [part.split(b'"')[0] for part in refused.body.split(b'href="') if b"resume/" in part.split(b'"')[0]]
    await mine.upstream.start(port=port)
    await send_on(bob, onward.decode())
    assert (await bob.get("/app/pay")).status == 200
    assert mine.upstream.only.body == FILES
    assert b"sallyport_interrupted_total" in (text := mine.app.metrics.render()[0])
    for outcome in ("kept", "given_back", "resumed"):
        assert f'sallyport_interrupted_total{{outcome="{outcome}"}} 1.0'.encode() in text


SELDOM = """
rules:
  - name: pay
    match: {paths: [/app/**]}
    access: authenticated
    limits: [{name: few, key: user, rate: 1/m}]
    upstream: app
"""


async def test_what_comes_too_often_goes_on_later(tmp_path: Path) -> None:
    """It waits again: who was counted out in the moment of coming back has lost nothing."""
    async with running(tmp_path, policy=SELDOM) as gateway:
        await gateway.app.users.add("bob", PASSWORD)
        bob = visit(gateway)
        onward = await sign_in(bob, await interrupted(bob, FILES))
        assert (await bob.get("/app/")).status == 200
        await send_on(bob, onward)
        assert (await bob.get("/app/pay")).status == 429
        gateway.pass_time(61)
        await send_on(bob, onward)
        assert (await bob.get("/app/pay")).status == 200
        assert [one.method for one in gateway.upstream.requests] == [b"GET", b"POST"]
        assert gateway.upstream.requests[-1].body == FILES
        assert b'sallyport_interrupted_total{outcome="given_back"} 1.0' in gateway.app.metrics.render()[0]


class Slow:
    """A store whose `name` is done at once, and told of later."""

    def __init__(self, kv: KeyValue, name: str) -> None:
        self._kv = kv
        self._name = name
        self.done = asyncio.Event()
        self.told = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        does = getattr(self._kv, name)
        return does if name != self._name else partial(self._slowly, does)

    async def _slowly(self, does: Callable[..., Awaitable[Any]], *said: Any) -> Any:
        if self._name == "put":
            self.done.set()
            await self.told.wait()
            return await does(*said)
        found = await does(*said)
        self.done.set()
        await self.told.wait()
        return found


@pytest.mark.parametrize("when", ["it is taken out", "there is no service", "it came too often"])
async def test_who_leaves_just_then_has_lost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A page that is loaded again, or closed, while what it sent is on its way out of the store or back into it."""
    async with running(tmp_path, policy=SELDOM) as gateway:
        await gateway.app.users.add("bob", PASSWORD)
        bob = visit(gateway)
        onward = await sign_in(bob, await interrupted(bob, FILES))
        if when == "it came too often":
            assert (await bob.get("/app/")).status == 200
            gateway.upstream.clear()
        await send_on(bob, onward)
        port = gateway.upstream.port
        if when == "there is no service":
            await gateway.upstream.stop()
        shelf = gateway.app.wire.interrupted
        assert shelf is not None
        slow = Slow(shelf._kv, "take" if when == "it is taken out" else "put")
        with monkeypatch.context() as patched:
            patched.setattr(shelf, "_kv", slow)
            coming = asyncio.create_task(bob.get("/app/pay"))
            await asyncio.wait_for(slow.done.wait(), PATIENCE)
            before = set(gateway.app.wire.clients)
            coming.cancel()
            await until(lambda: not before & gateway.app.wire.clients)
            slow.told.set()
            await settled(gateway)
        assert gateway.upstream.requests == []
        if when == "there is no service":
            await gateway.upstream.start(port=port)
        gateway.pass_time(61)
        await send_on(bob, onward)
        assert (await bob.get("/app/pay")).status == 200
        assert gateway.upstream.only.body == FILES


@pytest.mark.parametrize("when", ["it is taken out", "it waits for a connection"])
async def test_a_stop_whose_time_is_up_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Whoever is cut off with what they sent out of the store, and sent to nobody yet, sends it on after the start."""
    service = RecordingUpstream()
    await service.start()
    app = {"url": f"http://127.0.0.1:{service.port}", "connections": 1}
    config = {"upstreams": {"app": app, "other": {"url": app["url"]}}}
    async with running(tmp_path, config=config) as gateway:
        await gateway.app.users.add("bob", PASSWORD)
        bob, other = visit(gateway), visit(gateway)
        onward = await sign_in(bob, await interrupted(bob, FILES))
        await send_on(bob, onward)
        other.cookies = dict(bob.cookies)
        shelf = gateway.app.wire.interrupted
        assert shelf is not None
        slow = Slow(shelf._kv, "take")
        taken: list[asyncio.Task[Response]] = []
        with monkeypatch.context() as patched:
            if when == "it is taken out":
                patched.setattr(shelf, "_kv", slow)
            else:
                service.script = hold
                taken.append(asyncio.create_task(other.get("/app/")))
                await service.came(1)
            coming = asyncio.create_task(bob.get("/app/pay"))
            if when == "it is taken out":
                await asyncio.wait_for(slow.done.wait(), PATIENCE)
            else:
                await until(lambda: bool(gateway.app.wire.upstreams["app"].waiting))
            stopping = asyncio.create_task(gateway.restart(grace=0.0))
            await until(lambda: not gateway.app.wire.clients)
            slow.told.set()
            await stopping
        await asyncio.gather(coming, *taken, return_exceptions=True)
        assert [each.target for each in service.requests] == [b"/app/"] * len(taken)
        service.clear()
        bob.port = gateway.app.ports[0]
        await send_on(bob, onward)
        assert (await bob.get("/app/pay")).status == 200
        assert service.only.body == FILES
    await service.stop()


async def hold(_: Request, line: Line) -> None:
    """Answer nothing."""
    await line.closed.wait()


async def test_a_fault_of_ours_loses_nothing(mine: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = visit(mine)
    onward = await sign_in(bob, await interrupted(bob, FILES))
    await send_on(bob, onward)

    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patched:
        patched.setattr(AgentSignal, "weigh", broken)
        bob.agent += " another"  # so that it is weighed
        assert (await bob.get("/app/pay")).status == 500
    assert mine.upstream.requests == []
    await send_on(bob, onward)
    assert (await bob.get("/app/pay")).status == 200
    assert mine.upstream.only.body == FILES


async def test_a_slow_service_holds_it_back(tmp_path: Path) -> None:
    """More than sockets hold: it is read from where it is kept no faster than the service takes it."""
    async with running(tmp_path, config={"interrupted": {"body": "16M"}}) as gateway:
        await gateway.sign_in("bob")
        bob = visit(gateway)
        body = FILE * 22
        await send_on(bob, await sign_in(bob, await interrupted(bob, body)))
        go_on = asyncio.Event()
        on_head = gateway.upstream.on_head

        async def slow(_: Request, line: Line) -> None:
            await go_on.wait()

        gateway.upstream.on_head = slow
        coming = asyncio.create_task(bob.get("/app/pay"))
        async with asyncio.timeout(10):
            while not any(c.answering is not None and c.answering.held for c in gateway.app.wire.clients):
                await asyncio.sleep(0)
        waiting = [c.answering for c in gateway.app.wire.clients if c.answering is not None]
        assert not waiting[0].complete
        go_on.set()
        assert (await coming).status == 200
        gateway.upstream.on_head = on_head
        assert gateway.upstream.only.body == body


async def test_a_part_that_is_gone_ends_it_without_its_end(mine: Gateway) -> None:
    from sqlalchemy import delete

    from gateway.store.tables import kept

    bob = visit(mine)
    await send_on(bob, await sign_in(bob, await interrupted(bob, FILES)))
    async with mine.app.records.begin() as connection:
        await connection.execute(delete(kept).where(kept.c.key.like("%/interrupted/%/3")))
    assert (await bob.get("/app/pay")).status == 503
    assert not mine.upstream.only.complete  # what it has is no whole request


async def test_scripts_are_told_where_to_ask(mine: Gateway) -> None:
    """Nothing is kept for them, and their answer changes nothing: they send again themselves."""
    bob = visit(mine)
    script = {"Sec_Fetch_Mode": "cors", "Accept": "application/json"}
    answer = await bob.send("PUT", "/admin/x", b"", Content_Length="0", **script)
    assert answer.status == 401
    assert as_json(answer)["challenge"] == "/.sallyport/dialog?acr_values=aal2&factors=totp"
    assert (await bob.send("DELETE", "/app/x", **script)).status == 401
    plain = await bob.get("/app/x", **script)
    assert as_json(plain)["challenge"] == "/.sallyport/dialog"
    assert plain.all("Access-Control-Allow-Origin") == []


async def test_so_is_whoever_opens_a_socket(mine: Gateway) -> None:
    """Not signed in, and with one factor too few."""
    ann = visit(mine)
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Accept": "*/*", "Origin": ann.origin}
    handshake |= {"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec_WebSocket_Version": "13"}
    socket = await ann.get("/app/ws", **handshake)
    assert (socket.status, as_json(socket)["challenge"]) == (401, "/.sallyport/dialog")
    assert socket.one("WWW-Authenticate").startswith(b"Bearer")
    await ann.sign_in("ann")
    socket = await ann.get("/admin/ws", **handshake)
    assert (socket.status, as_json(socket)["code"]) == (401, "ERR-LEVEL-TOO-LOW")
    assert as_json(socket)["challenge"] == "/.sallyport/dialog?acr_values=aal2&factors=totp"
    assert b'error="insufficient_user_authentication"' in socket.one("WWW-Authenticate")
    assert b'acr_values="aal2"' in socket.one("WWW-Authenticate")
    assert mine.upstream.requests == []


async def test_the_script_and_its_last_page(mine: Gateway) -> None:
    bob = visit(mine)
    script = await bob.get("client.js")
    assert script.one("Content-Type").startswith(b"text/javascript")
    assert script.one("Cache-Control") == b"public, max-age=300"
    assert b"immutable" in (await bob.get("client.js?v=1")).one("Cache-Control")
    await bob.sign_in("bob")
    page = await bob.get("dialog/done")
    assert b"script-src http://good.test/.sallyport/static/done.js;" in page.one("Content-Security-Policy")
    assert page.body.count(b"<script") == 1
    assert location(await bob.get("dialog")) == "/.sallyport/dialog/done"
    assert location(await bob.get("dialog?acr_values=aal2&max_age=60")).startswith("/.sallyport/verify/")
