"""Upgrades: judged like any request, carried only as WebSockets, only when both sides agree (cases 65 to 71, 125)."""

from __future__ import annotations

import asyncio
from asyncio import IncompleteReadError
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from tests.attacks.caller import NESTED, PROBE, Caller
from tests.rig.frames import (
    BINARY,
    CLOSE,
    HANDSHAKE,
    KEY,
    PING,
    TEXT,
    Frame,
    Socket,
    accept,
    agreed,
    echo_frames,
    frame,
    open_socket,
    read_frame,
)
from tests.rig.gateway import Gateway, request
from tests.rig.messages import Request
from tests.rig.upstream import Line, fixed, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGREED = (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: " + accept(KEY))


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def nothing_stays_open(gateway: Gateway) -> AsyncIterator[None]:
    yield
    for client in list(gateway.app.wire.clients):
        client.abort()
    async with asyncio.timeout(10):
        while gateway.app.wire.clients:
            await asyncio.sleep(0.005)


def lines(*said: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in said)


def without(*names: bytes) -> bytes:
    """The handshake without some of its lines."""
    return lines(*(line for line in HANDSHAKE.split(b"\r\n")[:-1] if line.partition(b":")[0] not in names))


async def listens(asked: Request, line: Line) -> None:
    """A service that agrees and says nothing; what came stays in `line.received`."""
    await line.send(agreed(asked.one("Sec-WebSocket-Key")))
    try:
        while (await read_frame(line)).opcode != CLOSE:
            pass
    except IncompleteReadError:
        pass
    line.close()


async def test_case_65_a_protected_path_without_a_session(caller: Caller) -> None:
    answer = await caller.is_denied(caller.request(b"GET", HANDSHAKE, target=b"/admin/ws"))
    assert "upgrade" not in answer.names
    assert await caller.gateway.rejections() == 0


@pytest.mark.parametrize("target", [b"/app/ws", b"/foo/secret/ws", b"/APP/ws", b"/public/../app/ws"])
async def test_case_65_a_stranger(gateway: Gateway, target: bytes) -> None:
    for head in (HANDSHAKE, HANDSHAKE + b"Accept: text/html\r\n", HANDSHAKE + b"Sec-Fetch-Mode: websocket\r\n"):
        answer = await gateway.ask(request(b"GET", target, head, cookie=b"sallyport_session=" + b"x" * 43))
        assert answer.status in (401, 303)
        assert gateway.upstream.requests == []


async def test_the_service_gets_a_handshake_of_ours(caller: Caller) -> None:
    gateway = caller.gateway
    gateway.upstream.script = echo_frames
    more = lines(
        b"Origin: http://good.test",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        b"sec-websocket-protocol: chat",
        b"Sec-WebSocket-Protocol: v2.chat , soap",
        b"Sec_WebSocket_Key: AAAAAAAAAAAAAAAAAAAAAA==",
        b"X-Forwarded-User: root",
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    )
    async with await open_socket(gateway, caller.target, more, cookie=caller.cookie) as socket:
        received = gateway.upstream.only
        assert received.one("Connection") == b"Upgrade"
        assert received.one("Upgrade") == b"websocket"
        assert received.one("Sec-WebSocket-Key") == KEY
        assert received.one("Sec-WebSocket-Version") == b"13"
        assert received.one("Sec-WebSocket-Protocol") == b"chat, v2.chat, soap"
        assert received.one("Origin") == b"http://good.test"
        assert not received.names & {
            "sec-websocket-extensions",
            "sec_websocket_key",
            "http2-settings",
            "content-length",
        }
        assert not received.names & {"transfer-encoding"}
        caller.says_who_we_are(received)
        await socket.send(frame(TEXT, b"hello"))
        assert (await socket.frame()).payload == b"hello"


@pytest.mark.parametrize(
    "head",
    [
        lines(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
        lines(b"Connection: Upgrade", b"Upgrade: h2c"),
        lines(b"Connection: Upgrade", b"Upgrade: h2c, websocket"),
        lines(b"Connection: Upgrade", b"Upgrade: websocket, h2c"),
        without(b"Upgrade") + lines(b"Upgrade: h2c"),
        without(b"Upgrade") + lines(b"Upgrade: websocket, h2c"),
        HANDSHAKE + lines(b"Upgrade: h2c"),
        lines(b"Connection: Upgrade", b"Upgrade: TLS/1.2"),
        without(b"Sec-WebSocket-Version"),
        without(b"Sec-WebSocket-Version") + lines(b"Sec-WebSocket-Version: 8"),
        without(b"Sec-WebSocket-Version") + lines(b"Sec-WebSocket-Version: 13, 8"),
        HANDSHAKE + lines(b"Sec-WebSocket-Version: 13"),
        without(b"Sec-WebSocket-Key"),
        without(b"Sec-WebSocket-Key") + lines(b"Sec-WebSocket-Key:"),
        without(b"Sec-WebSocket-Key") + lines(b"Sec-WebSocket-Key: x"),
        without(b"Sec-WebSocket-Key") + lines(b"Sec-WebSocket-Key: " + KEY[:-4] + b"=" * 4),
        HANDSHAKE + lines(b"Sec-WebSocket-Key: " + KEY),
        without(b"Connection"),
        without(b"Connection") + lines(b"Connection: keep-alive"),
        without(b"Connection") + lines(b"Connection: Upgrade, Sec-WebSocket-Key"),
        without(b"Upgrade") + lines(b"Upgrade: websocket/13"),
        HANDSHAKE + lines(b"Sec-WebSocket-Protocol: a b"),
        HANDSHAKE + lines(b"Content-Length: 0"),
        HANDSHAKE + lines(b"Expect: 100-continue"),
    ],
)
async def test_cases_66_67_anything_else_stays_http(caller: Caller, head: bytes) -> None:
    """The service sees no upgrade, agrees all the same to no avail, and what follows is a request."""
    gateway = caller.gateway
    async with await gateway.connect() as client:
        await client.send(caller.request(b"GET", head) + PROBE)
        first, second = await client.responses("GET", "GET")
    assert (first.status, second.status) == (200, 200)
    assert second.body == b"GET /public/probe 0"
    assert [received.target for received in gateway.upstream.requests] == [caller.target, b"/public/probe"]
    for received in gateway.upstream.requests:
        assert not received.names & {"upgrade", "connection", "http2-settings"}
    gateway.upstream.clear()
    gateway.upstream.script = fixed(b"HTTP/1.1 101 Switching Protocols\r\n" + lines(*AGREED) + b"\r\n")
    answer = await gateway.ask(caller.request(b"GET", head))
    assert answer.status == 502


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"OPTIONS", b"QUERY"])
async def test_case_67_another_method_stays_http(caller: Caller, method: bytes) -> None:
    received = await caller.is_clean(caller.request(method, HANDSHAKE), method.decode())
    assert not received.names & {"upgrade", "connection"}


async def test_case_67_another_version_stays_http(caller: Caller) -> None:
    received = await caller.is_clean(caller.request(b"GET", HANDSHAKE, version=b"HTTP/1.0"))
    assert not received.names & {"upgrade", "connection"}


async def test_case_67_a_handshake_with_a_body_is_a_request_with_a_body(caller: Caller) -> None:
    raw = caller.request(b"GET", HANDSHAKE + b"Content-Length: %d\r\n" % len(NESTED), NESTED)
    answers = await caller.never_desyncs(raw)
    assert answers[0].body == b"GET %b %d" % (caller.target, len(NESTED))


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"no socket here"),
        ok(b"no socket here", *AGREED),
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("cut", [0, 20])
async def test_case_67_a_service_that_does_not_agree(caller: Caller, answer: bytes, cut: int) -> None:
    gateway = caller.gateway

    async def script(asked: Request, line: Line) -> None:
        await line.send(answer if asked.all("Upgrade") else ok(b"GET %b" % asked.target))

    gateway.upstream.script = script
    raw = caller.request(b"GET", HANDSHAKE) + caller.request(b"GET", target=caller.target + b"/second") + PROBE
    async with await gateway.connect() as client:
        await client.send(raw[:-cut] if cut else raw)
        first = await client.response()
        assert first.status == int(answer.rpartition(b"HTTP/1.1 ")[2][:3])
        assert not first.names & {"upgrade", "connection"}
        assert (await client.response()).body == b"GET " + caller.target + b"/second"
        await client.send(raw[len(raw) - cut :])
        assert (await client.response()).body == b"GET /public/probe"
    assert gateway.app.wire.streams.tunnels == set()


async def test_case_67_frames_after_a_refusal_are_no_request(caller: Caller) -> None:
    gateway = caller.gateway
    async with await gateway.connect() as client:
        await client.send(caller.request(b"GET", HANDSHAKE) + frame(TEXT, NESTED))
        assert (await client.response()).status == 200
        assert (await client.response()).status == 400
        assert await client.is_closed()
    assert len(gateway.upstream.requests) == 1


async def test_each_request_of_a_pipeline_is_judged_and_answered_in_order(caller: Caller) -> None:
    gateway = caller.gateway

    async def script(asked: Request, line: Line) -> None:
        if asked.all("Upgrade") and asked.target.endswith(b"/yes"):
            await echo_frames(asked, line)
        else:
            await line.send(ok(asked.target))

    gateway.upstream.script = script
    upgrade = caller.request(b"GET", HANDSHAKE)
    accepted = caller.request(b"GET", HANDSHAKE, target=caller.target + b"/yes")
    hidden = caller.request(b"GET", HANDSHAKE, target=b"/admin/ws")
    async with Socket(await gateway.connect()) as socket:
        client = socket.client
        plain = caller.request()
        await client.send(plain + upgrade + plain + hidden + upgrade + accepted + frame(TEXT, NESTED))
        statuses = [(await client.response()).status for _ in range(5)]
        assert statuses == [200, 200, 200, 403 if caller.user else 401, 200]
        assert (await client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await socket.frame() == Frame(TEXT, NESTED)
    assert not [each for each in gateway.upstream.requests if each.target.startswith(b"/admin")]


async def test_a_handshake_may_come_byte_by_byte(caller: Caller) -> None:
    gateway = caller.gateway
    gateway.upstream.script = echo_frames
    raw = caller.request(b"GET", HANDSHAKE)
    async with Socket(await gateway.connect()) as socket:
        await socket.send(*(raw[at : at + 1] for at in range(len(raw))))
        assert (await socket.client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        said = frame(TEXT, "dribbled ✓".encode()) + frame(PING, b"x") + frame(BINARY, bytes(200))
        await socket.send(*(said[at : at + 1] for at in range(len(said))))
        assert [(await socket.frame()).payload for _ in range(3)] == ["dribbled ✓".encode(), b"x", bytes(200)]


async def test_bytes_behind_an_unanswered_handshake_are_held_back(caller: Caller) -> None:
    gateway = caller.gateway
    goes_on = asyncio.Event()

    async def script(asked: Request, line: Line) -> None:
        if asked.all("Upgrade"):
            await goes_on.wait()
        await line.send(ok(b"x"))

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        await client.send(caller.request(b"GET", HANDSHAKE))
        sent = await client.send_until_stalled(PROBE.replace(b"close", b"keep-alive") * 100, 50_000_000)
        assert sent < 30_000_000
        (held,) = gateway.app.wire.clients
        assert sum(map(len, held._backlog)) < 1_000_000
        assert len(gateway.upstream.requests) == 1
        goes_on.set()
        for _ in range(50):
            assert (await client.response()).status == 200


@pytest.mark.parametrize(
    "said",
    [
        AGREED[:2],
        (*AGREED[:2], b"Sec-WebSocket-Accept: " + accept(KEY + b"x")),
        (*AGREED, AGREED[2]),
        AGREED[1:],
        (AGREED[0], AGREED[2]),
        (b"Upgrade: h2c", *AGREED[1:]),
        (b"Upgrade: websocket, h2c", *AGREED[1:]),
        (*AGREED, b"Upgrade: websocket"),
        (*AGREED, b"Sec-WebSocket-Extensions: permessage-deflate"),
        (*AGREED, b"Sec-WebSocket-Protocol: other"),
        (*AGREED, b"Sec-WebSocket-Protocol: chat, soap"),
        (*AGREED, b"Sec-WebSocket-Protocol: chat", b"Sec-WebSocket-Protocol: chat"),
        (*AGREED, b"Content-Length: 5"),
        (*AGREED, b"Transfer-Encoding: chunked"),
    ],
)
async def test_case_68_a_service_that_agrees_to_something_else(caller: Caller, said: tuple[bytes, ...]) -> None:
    gateway = caller.gateway
    head = HANDSHAKE + b"Sec-WebSocket-Protocol: chat, soap\r\n"
    gateway.upstream.script = fixed(b"HTTP/1.1 101 Switching Protocols\r\n" + lines(*said) + b"\r\n\x81\x05hello")
    async with await gateway.connect() as client:
        await client.send(caller.request(b"GET", head))
        assert (await client.response()).status == 502
        await gateway.upstream.lines[-1].closed.wait()
        gateway.upstream.clear()
        await client.send(PROBE)
        assert (await client.response()).body == b"GET /public/probe 0"


async def test_case_68_nobody_asked(caller: Caller) -> None:
    caller.gateway.upstream.script = fixed(b"HTTP/1.1 101 Switching Protocols\r\n" + lines(*AGREED) + b"\r\n")
    assert (await caller.gateway.ask(caller.request())).status == 502


async def test_what_a_service_says_with_its_101(caller: Caller) -> None:
    gateway = caller.gateway
    session = next(iter(gateway.app.wire.our_cookies)).decode()
    said = (b"Sec-WebSocket-Protocol: soap", b"X-Served-By: a", b"Set-Cookie: theirs=1", b"Keep-Alive: x")

    async def script(asked: Request, line: Line) -> None:
        await line.send(agreed(KEY, *said, f"Set-Cookie: {session}=stolen".encode(), b"X-Request-Id: theirs"))
        await line.reader.read()

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        await client.send(caller.request(b"GET", HANDSHAKE + b"Sec-WebSocket-Protocol: chat,soap\r\n"))
        head = await client.read_until(b"\r\n\r\n")
    got = head.split(b"\r\n")[1:-2]
    told = [] if b"Cache-Control: private" not in got else [b"Cache-Control: private", b"Vary: Cookie, Authorization"]
    assert sorted(line for line in got if not line.startswith(b"X-Request-Id")) == sorted(
        [*AGREED, b"Sec-WebSocket-Protocol: soap", b"X-Served-By: a", b"Set-Cookie: theirs=1", *told]
    )
    assert b"X-Request-Id: theirs" not in got


ORIGINS = [
    b"https://evil.test",
    b"null",
    b"http://good.test.evil.test",
    b"http://evilgood.test",
    b"https://good.test",
    b"http://good.test:8080",
    b"http://good.test@evil.test",
    b"http://good.test/",
    b"file://",
    b"",
    b"good.test",
    b"http://good.test, http://evil.test",
    b"http://good.test\r\nOrigin: http://evil.test",
    b"http://good.test\r\nOrigin: http://good.test",
]


@pytest.mark.parametrize("origin", ORIGINS)
async def test_case_69_a_page_of_another_site(caller: Caller, origin: bytes) -> None:
    gateway = caller.gateway
    gateway.upstream.script = echo_frames
    head = HANDSHAKE + b"Origin: " + origin + b"\r\n"
    if not caller.user:  # there is nobody in whose name it could be
        async with await open_socket(gateway, caller.target, head.removeprefix(HANDSHAKE)):
            return
    before = len(await gateway.app.recorder.events(DEFAULT_TENANT, limit=10_000, kind=Kind.REFUSED))
    answer = await gateway.ask(caller.request(b"GET", head))
    assert answer.status == 403
    assert b'"code":"ERR-CROSS-SITE"' in answer.body
    caller.reached_nobody()
    await gateway.app.recorder.flush()
    events = await gateway.app.recorder.events(DEFAULT_TENANT, limit=10_000, kind=Kind.REFUSED)
    assert len(events) == before + 1
    assert (events[0].detail["reason"], events[0].user) == ("cross_site", caller.user)


@pytest.mark.parametrize("origin", [b"http://good.test", b"HTTP://GOOD.test", b"http://good.test:80"])
async def test_case_69_a_page_of_ours_and_no_page_at_all(caller: Caller, origin: bytes) -> None:
    caller.gateway.upstream.script = echo_frames
    for head in (b"Origin: " + origin + b"\r\n", b""):
        async with await open_socket(caller.gateway, caller.target, head, cookie=caller.cookie) as socket:
            await socket.send(frame(TEXT, b"x"))
            assert (await socket.frame()).payload == b"x"


async def test_our_own_pages_take_no_socket(caller: Caller) -> None:
    answer = await caller.gateway.ask(caller.request(b"GET", HANDSHAKE, target=b"/.sallyport/whoami"))
    assert answer.status in (200, 401)
    assert not answer.names & {"upgrade"}


VIOLATIONS = [
    (frame(TEXT, b"x", mask=None), 1002),
    (frame(TEXT, b"x", reserved=0x40), 1002),
    (frame(BINARY, b"x\x9c" + b"\0" * 100, reserved=0x40), 1002),
    (frame(PING, bytes(126)), 1002),
    (frame(PING, b"x", final=False), 1002),
    (frame(3, b"x"), 1002),
    (frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), 1002),
    (frame(TEXT, b"\xff\xfe"), 1007),
    (frame(TEXT, b"\xe2\x82", final=False) + frame(0, b"x"), 1007),
    (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    (b"\x82\xff" + (1 << 63).to_bytes(8, "big") + b"mask", 1002),
    (b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"mask", 1009),
    (frame(CLOSE, b"\x01"), 1002),
]


@pytest.mark.parametrize(("bad", "code"), VIOLATIONS)
@pytest.mark.parametrize("dribbled", [False, True])
async def test_cases_71_125_frames_that_must_not_be(caller: Caller, bad: bytes, code: int, dribbled: bool) -> None:
    gateway = caller.gateway
    gateway.upstream.script = listens
    async with await open_socket(gateway, caller.target, cookie=caller.cookie) as socket:
        line = gateway.upstream.lines[-1]
        good = frame(TEXT, b"good")
        said = good + bad
        await socket.send(*([said[at : at + 1] for at in range(len(said))] if dribbled else [said]))
        assert await socket.closes() == code
        await line.closed.wait()
    came = bytes(line.received).partition(b"\r\n\r\n")[2]
    assert came.startswith(good)
    rest = came.removeprefix(good)
    if not (dribbled and code == 1007) and bad[:1] != b"\x01":
        assert len(rest) == 8, rest  # a Close of ours
        assert rest[:2] == b"\x88\x82"


async def test_a_frame_that_is_bad_in_the_midst_is_never_whole_at_the_service(caller: Caller) -> None:
    gateway = caller.gateway
    gateway.upstream.script = listens
    async with await open_socket(gateway, caller.target, cookie=caller.cookie) as socket:
        line = gateway.upstream.lines[-1]
        said = frame(TEXT, b"a" * 100 + b"\xff" + b"a" * 900)
        await socket.send(said[:50])
        await gateway.heard(socket.client)
        await socket.send(said[50:])
        assert await socket.closes() == 1007
        await line.closed.wait()
    assert bytes(line.received).partition(b"\r\n\r\n")[2] == said[:50]


@pytest.mark.parametrize(
    "bad", [frame(TEXT, b"x"), frame(TEXT, b"x", mask=None, reserved=0x40), b"HTTP/1.1 200 OK\r\n\r\n", b"\x8f\x00"]
)
async def test_a_service_that_breaks_the_protocol(caller: Caller, bad: bytes) -> None:
    gateway = caller.gateway
    told: asyncio.Queue[Frame] = asyncio.Queue()

    async def script(asked: Request, line: Line) -> None:
        await line.send(agreed(KEY) + frame(TEXT, b"good", mask=None) + bad)
        told.put_nowait(await read_frame(line))
        line.close()

    gateway.upstream.script = script
    async with await open_socket(gateway, caller.target, cookie=caller.cookie) as socket:
        assert (await socket.frame()).payload == b"good"
        assert await socket.closes() == 1001
        assert (await told.get()).code == 1002
