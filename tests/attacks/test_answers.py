"""A, the other direction. Framing of answers: a service that is mad or captured cannot confuse a client."""

from __future__ import annotations

import pytest

from tests.attacks.caller import PROBE, Caller
from tests.attacks.test_framing import SMUGGLED
from tests.rig.gateway import Gateway, answers_until_close, request
from tests.rig.messages import Request, Truncated, Violation
from tests.rig.upstream import Line, fixed, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Evil: yes\r\n\r\nevil"
"""An answer hidden behind another: must never be taken for the answer to the next request."""


def of(case: int, *values: bytes) -> list[object]:
    """Parameters whose ids name the case."""
    return [pytest.param(value, id=f"case-{case}-{value[:50]!r}") for value in values]


async def next_is_its_own(gateway: Gateway) -> None:
    """A request after the odd answer uses another connection, and gets its own answer."""
    odd = gateway.upstream.requests[0].connection
    gateway.upstream.clear()
    assert (await gateway.ask(PROBE)).body == b"GET /public/probe 0"
    assert gateway.upstream.only.connection != odd


@pytest.mark.parametrize(
    "answer",
    of(
        28,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + EVIL,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + EVIL,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5 \x0b\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\r\n Content-Length: 0\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 O\x00K\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 abc OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 000 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 999 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/0.9 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.7 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"hello, this is no HTTP\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000 + EVIL,
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 5_000 + EVIL,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20) + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 " + b"y" * (1 << 20) + b"\r\nContent-Length: 0\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
    ),
)
async def test_what_is_not_one_clear_answer_is_a_bad_gateway(caller: Caller, answer: bytes) -> None:
    gateway = caller.gateway
    gateway.upstream.script = fixed(answer, close=True)
    said = await gateway.ask(caller.request(b"POST", b"Content-Length: 0\r\n"), "POST")
    assert said.status == 502, said.raw
    assert b"evil" not in said.raw + said.body
    assert len(gateway.upstream.requests) == 1
    await next_is_its_own(gateway)


@pytest.mark.parametrize(
    "answer",
    of(
        28,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + EVIL,
        ok(b"hello") + b"x",
        ok(b"hello") + b"\r\n\r\n" + EVIL,
    )
    + of(28, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + EVIL),
)
@pytest.mark.parametrize("later", [False, True], ids=["at-once", "later"])
async def test_extra_bytes_never_reach_a_client(caller: Caller, answer: bytes, later: bool) -> None:
    cut = answer.index(b"hello") + (5 if b"chunked" not in answer else len(b"hello\r\n0\r\n\r\n"))

    async def script(_: Request, line: Line) -> None:
        if later:
            await line.send(answer[:cut])
            await line.send(answer[cut:])
        else:
            await line.send(answer)

    gateway = caller.gateway
    gateway.upstream.script = script
    async with await gateway.connect() as client:
        await client.send(caller.request())
        said = await client.response()
        assert (said.status, said.body) == (200, b"hello")
        line = gateway.upstream.lines[gateway.upstream.only.connection - 1]
        await gateway.upstream.until(line.closed.is_set)
        gateway.upstream.clear()
        await client.send(PROBE)
        assert [each.body for each in await answers_until_close(client)] == [b"GET /public/probe 0"]


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: %d\r\n\r\n%s" % (len(EVIL), EVIL),
        b"\r\n" + EVIL,
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    ],
)
async def test_case_28_an_answer_without_a_body_has_none(caller: Caller, status: bytes, rest: bytes) -> None:
    gateway = caller.gateway
    gateway.upstream.script = fixed(b"HTTP/1.1 " + status + b"\r\n" + rest)
    async with await gateway.connect() as client:
        await client.send(caller.request())
        said = await client.response()
        assert said.status in (502, int(status[:3]))
        gateway.upstream.script = fixed(ok(b"second"))
        await client.send(caller.request(head=b"Connection: close\r\n"))
        assert [each.body for each in await answers_until_close(client)] == [b"second"]
    first, second = gateway.upstream.requests
    assert first.connection != second.connection


@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: %d\r\n\r\n%s" % (len(EVIL), EVIL), b"Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"],
)
async def test_case_28_an_answer_to_head_has_no_body(caller: Caller, rest: bytes) -> None:
    gateway = caller.gateway
    gateway.upstream.script = fixed(b"HTTP/1.1 200 OK\r\n" + rest)
    async with await gateway.connect() as client:
        await client.send(caller.request(b"HEAD"))
        assert (await client.response("HEAD")).status in (200, 502)
        gateway.upstream.script = fixed(ok(b"second"))
        await client.send(caller.request(head=b"Connection: close\r\n"))
        assert [each.body for each in await answers_until_close(client)] == [b"second"]
    first, second = gateway.upstream.requests
    assert first.connection != second.connection


async def test_case_28_a_few_informational_answers_are_swallowed(caller: Caller) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX-Evil: yes\r\n\r\n"
    caller.gateway.upstream.script = fixed(b"HTTP/1.1 100 Continue\r\n\r\n", hints, hints, ok(b"hello"))
    said = await caller.gateway.ask(caller.request())
    assert (said.status, said.body, said.all("X-Evil")) == (200, b"hello", [])


@pytest.mark.parametrize(
    "answer",
    of(
        29,
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ),
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "in-pieces"])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"], ids=["1.1", "1.0"])
async def test_a_cut_answer_is_never_a_whole_one(caller: Caller, answer: bytes, at_once: bool, version: bytes) -> None:
    pieces = [answer] if at_once else [answer[i : i + 7] for i in range(0, len(answer), 7)]
    caller.gateway.upstream.script = fixed(*pieces, close=True)
    async with await caller.gateway.connect() as client:
        await client.send(caller.request(version=version))
        try:
            said = await client.response()
        except (Truncated, Violation):
            return
        whole = client.reset is False and said.status == 200
        assert not whole, said.raw + said.body
        assert said.status in (200, 502)


async def test_case_29_a_reset_ends_an_answer_without_length_visibly(caller: Caller) -> None:
    async def script(_: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await line.send(b"more")
        line.abort()

    caller.gateway.upstream.script = script
    async with await caller.gateway.connect() as client:
        await client.send(caller.request())
        try:
            said = await client.response()
        except Truncated:
            return
        assert said.status == 502


async def test_an_answer_that_ends_with_its_connection_is_whole(caller: Caller) -> None:
    caller.gateway.upstream.script = fixed(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello ", b"world", close=True)
    said = await caller.gateway.ask(caller.request())
    assert (said.status, said.body) == (200, b"hello world")


@pytest.mark.parametrize("close", [False, True], ids=["stays-open", "closes"])
@pytest.mark.parametrize("size", [0, 1_000, 400_000, 4_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_case_24_an_early_answer(caller: Caller, close: bool, size: int, chunked: bool) -> None:
    """The service answers at the head; what it was still sent is no request to anybody."""
    gateway = caller.gateway
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"

    async def on_head(received: Request, line: Line) -> None:
        if received.target != b"/public/probe":
            await line.send(early)
            if close:
                line.close()

    async def script(received: Request, line: Line) -> None:
        if received.target == b"/public/probe":
            await line.send(ok(b"GET /public/probe 0"))

    gateway.upstream.on_head, gateway.upstream.script = on_head, script
    body = SMUGGLED * (size // len(SMUGGLED))
    if chunked:
        head, body = (
            b"Transfer-Encoding: chunked\r\n",
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n",
        )
    else:
        head = b"Content-Length: %d\r\n" % len(body)
    async with await gateway.connect() as client:
        await client.send(caller.request(b"POST", head, body), PROBE)
        first = await client.response("POST")
        assert (first.status, first.body) == (413, b"big")
        try:
            rest = await answers_until_close(client)
        except Truncated:
            rest = []
    assert [each.body for each in rest] in ([], [b"GET /public/probe 0"])
    assert not [received.target for received in gateway.upstream.requests if b"smuggled" in received.target]


async def test_case_24_a_body_that_breaks_after_the_answer_began(caller: Caller) -> None:
    """Two answers to one request would be one too many: the connection is cut."""

    async def on_head(_: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")

    caller.gateway.upstream.on_head = on_head
    async with await caller.gateway.connect() as client:
        await client.send(caller.request(b"POST", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n"))
        await client.read_until(b"hello")
        await client.send(b"zz\r\n" + SMUGGLED)
        assert await client.read_rest() == b""
    caller.reached_nobody(started=True)


async def test_case_24_an_early_answer_while_the_body_is_held_back(gateway: Gateway) -> None:
    """0.CL: the service never reads what it was promised. The connection to it is not used again."""

    async def on_head(_: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")

    async def silent(_: Request, __: Line) -> None:
        return

    gateway.upstream.on_head, gateway.upstream.script = on_head, silent
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/public/x", b"Content-Length: %d\r\n" % len(SMUGGLED)))
        answer = await client.response("POST")
        assert (answer.status, answer.body) == (403, b"no")
        await client.send(SMUGGLED, PROBE)  # the body at last
        await client.read_rest()
    first = gateway.upstream.requests[0].connection
    line = gateway.upstream.lines[first - 1]
    await gateway.upstream.until(lambda: line.closed.is_set() or gateway.upstream.requests[0].complete)
    gateway.upstream.on_head = None
    assert not [received for received in gateway.upstream.requests if b"smuggled" in received.target]
    gateway.upstream.clear()
    assert (await gateway.ask(PROBE)).body == b"GET /public/probe 0"


async def test_no_value_of_a_client_splits_an_answer(gateway: Gateway) -> None:
    """Whatever stands in target, host, cookie or referer comes back, if at all, inside one line."""
    evil = b"%0d%0aX-Evil:%20yes%0d%0a%0d%0a"
    browser = b"Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nReferer: http://good.test/" + evil + b"\r\n"
    for target in (b"/app/x?" + evil, b"/.sallyport/login?next=" + evil, b"/app/x?y=%E5%98%8D%E5%98%8AX-Evil:%20yes"):
        answer = await gateway.ask(request(b"GET", target, browser))
        assert "x-evil" not in answer.names
        assert b"\nX-Evil" not in answer.raw
