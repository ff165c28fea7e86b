from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rig.client import PATIENCE
from tests.rig.gateway import Gateway, request, running, still
from tests.rig.messages import Request, Truncated
from tests.rig.upstream import Line, fixed, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODIES = st.one_of(
    st.binary(max_size=300),
    st.integers(0, 200_000).map(lambda size: bytes(range(251)) * (size // 251 + 1)),
)
CUTS = st.lists(st.integers(1, 70_000), max_size=8)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` in pieces of these sizes, and the rest."""
    pieces = []
    for size in sizes:
        if size < len(data):
            pieces.append(data[:size])
            data = data[size:]
    return [*pieces, data] if data else pieces


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@settings(max_examples=150, deadline=None)
@given(body=BODIES, chunks=CUTS, segments=CUTS, length=st.booleans())
async def test_a_request_body_arrives_as_it_was_sent(
    house: Gateway, body: bytes, chunks: list[int], segments: list[int], length: bool
) -> None:
    house.upstream.clear()
    if length:
        raw = request(b"POST", b"/public/x", b"Content-Length: %d\r\n" % len(body), body)
    else:
        raw = request(b"POST", b"/public/x", b"Transfer-Encoding: chunked\r\n", chunked(cut(body, chunks)))
    async with await house.connect() as client:
        await client.send(*cut(raw, segments), request(b"GET", b"/public/next"))
        assert (await client.response("POST")).status == 200
        assert (await client.response()).body == b"GET /public/next 0"
    assert house.upstream.requests[0].body == body
    assert house.upstream.violations == []


@settings(max_examples=150, deadline=None)
@given(body=BODIES, chunks=CUTS, segments=CUTS, framing=st.sampled_from(["length", "chunked", "close"]))
async def test_an_answer_arrives_as_it_was_sent(
    house: Gateway, body: bytes, chunks: list[int], segments: list[int], framing: str
) -> None:
    house.upstream.clear()
    if framing == "length":
        raw = ok(body)
    elif framing == "chunked":
        raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(cut(body, chunks))
    else:
        raw = b"HTTP/1.1 200 OK\r\n\r\n" + body
    house.upstream.script = fixed(*cut(raw, segments), close=framing == "close")
    async with await house.connect() as client:
        await client.send(request(b"GET", b"/public/1"), request(b"GET", b"/public/2"))
        first, second = await client.responses("GET", "GET")
    assert (first.body, second.body) == (body, body)
    assert house.upstream.violations == []


async def test_a_request_in_single_bytes_is_the_same_request(gateway: Gateway) -> None:
    raw = request(
        b"POST", b"/public/x", b"X-A: b\r\nTransfer-Encoding: chunked\r\n", b"5;x=y\r\nhello\r\n0\r\nT: u\r\n\r\n"
    )
    async with await gateway.connect() as client:
        await client.send(*(raw[i : i + 1] for i in range(len(raw))))
        assert (await client.response("POST")).body == b"POST /public/x 5"
    assert gateway.upstream.only.body == b"hello"
    assert gateway.upstream.only.all("X-A") == [b"b"]


@pytest.mark.parametrize(
    ("method", "head", "length"),
    [
        (b"POST", b"Content-Length: 0\r\n", [b"0"]),
        (b"POST", b"", [b"0"]),
        (b"PUT", b"", [b"0"]),
        (b"GET", b"", []),
        (b"DELETE", b"", []),
        (b"HEAD", b"", []),
    ],
)
async def test_no_body_is_said_where_one_is_usual(
    gateway: Gateway, method: bytes, head: bytes, length: list[bytes]
) -> None:
    assert (await gateway.ask(request(method, b"/public/x", head), method.decode("ascii"))).status == 200
    assert gateway.upstream.only.all("Content-Length") == length
    assert gateway.upstream.only.all("Transfer-Encoding") == []


async def test_end_to_end_headers_pass_in_order_and_unchanged(gateway: Gateway) -> None:
    head = (
        b"Accept: text/html\r\nX-A: 1\r\nx-a:2\r\nX-Empty:\r\nX-Latin: caf\xe9\r\nX-Tab: a\tb\r\n"
        b'X-Quoted: "a, b"\r\nIf-None-Match: W/"x"\r\nRange: bytes=0-1\r\nAuthorization: Basic abc\r\n'
    )
    gateway.upstream.script = fixed(
        ok(
            b"",
            b"X-B: 1",
            b"X-B: 2",
            b"Set-Cookie: a=1",
            b"Set-Cookie: b=2",
            b'ETag: "y"',
            b"X-Latin: caf\xe9",
            b"Server: z",
        )
    )
    answer = await gateway.ask(request(b"GET", b"/public/x", head))
    received = gateway.upstream.only
    assert received.all("X-A") == [b"1", b"2"]
    for name, value in (
        ("Accept", b"text/html"),
        ("X-Empty", b""),
        ("X-Latin", b"caf\xe9"),
        ("X-Tab", b"a\tb"),
        ("X-Quoted", b'"a, b"'),
        ("If-None-Match", b'W/"x"'),
        ("Range", b"bytes=0-1"),
        ("Authorization", b"Basic abc"),
    ):
        assert received.all(name) == [value]
    assert answer.all("X-B") == [b"1", b"2"]
    assert answer.all("Set-Cookie") == [b"a=1", b"b=2"]
    assert answer.all("ETag") == [b'"y"']
    assert answer.all("X-Latin") == [b"caf\xe9"]
    assert answer.all("Server") == [b"z"]


async def test_hop_by_hop_headers_of_a_service_stop_here(gateway: Gateway) -> None:
    gateway.upstream.script = fixed(
        ok(
            b"",
            b"Connection: X-Hop, keep-alive",
            b"X-Hop: 1",
            b"Keep-Alive: timeout=5",
            b"Proxy-Authenticate: x",
            b"Upgrade: h2c",
        )
    )
    answer = await gateway.ask(request(b"GET", b"/public/x"))
    assert not answer.names & {"x-hop", "keep-alive", "proxy-authenticate", "upgrade", "connection"}


async def test_trailers_of_a_service_are_dropped(gateway: Gateway) -> None:
    gateway.upstream.script = fixed(
        b"HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX-T: 1\r\nSet-Cookie: a=b\r\n\r\n",
    )
    async with await gateway.connect() as client:
        await client.send(request(b"GET", b"/public/x"), request(b"GET", b"/public/x"))
        first, second = await client.responses("GET", "GET")  # a trailer would be a violation
    assert (first.body, second.body) == (b"hello", b"hello")
    assert first.all("Trailer") == []


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_answers_without_body(gateway: Gateway, status: bytes) -> None:
    gateway.upstream.script = fixed(b"HTTP/1.1 " + status + b'\r\nETag: "x"\r\n\r\n')
    async with await gateway.connect() as client:
        await client.send(request(b"GET", b"/public/x"), request(b"GET", b"/public/x"))
        for answer in await client.responses("GET", "GET"):
            assert answer.status == int(status[:3])
            assert answer.all("ETag") == [b'"x"']
            assert answer.all("Transfer-Encoding") == []
    assert len({received.connection for received in gateway.upstream.requests}) == 1


async def test_head_keeps_the_length_and_has_no_body(gateway: Gateway) -> None:
    gateway.upstream.script = fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    async with await gateway.connect() as client:
        await client.send(request(b"HEAD", b"/public/x"), request(b"HEAD", b"/public/x"))
        for answer in await client.responses("HEAD", "HEAD"):
            assert answer.all("Content-Length") == [b"1000"]


async def test_a_body_that_comes_late_after_head_is_nobodys(gateway: Gateway) -> None:
    """Case 28: on a connection that is used again it would be the answer to the next one, who may be somebody else."""
    gateway.upstream.script = fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    async with await gateway.connect() as client:
        await client.send(request(b"HEAD", b"/public/x"))
        assert (await client.response("HEAD")).status == 200
        gateway.upstream.script = fixed(ok(b"yours"))
        await client.send(request(b"GET", b"/public/x"))
        assert (await client.response()).body == b"yours"
    first, second = gateway.upstream.requests
    assert first.connection != second.connection


@pytest.mark.parametrize("raw", [b"HEAD /%zz HTTP/1.1\r\nHost: good.test\r\n\r\n", b"HEAD /public/x HTTP/1.1\r\n\r\n"])
async def test_a_rejected_head_request_gets_no_body_either(gateway: Gateway, raw: bytes) -> None:
    async with await gateway.connect() as client:
        await client.send(raw)
        assert (await client.response("HEAD")).status == 400
        assert await client.read_rest() == b""


async def test_an_http_1_0_client_is_not_asked_to_continue(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(
            request(b"POST", b"/public/x", b"Expect: 100-continue\r\nContent-Length: 5\r\n", version=b"HTTP/1.0")
        )
        await gateway.upstream.until(lambda: bool(gateway.upstream.requests))
        await client.send(b"hello")
        answer = await client.response("POST")
    assert (answer.status, answer.interim) == (200, [])


async def test_a_form_that_is_kept_is_asked_for(gateway: Gateway) -> None:
    """A browser-like client that waits for 100 before it sends the form that signing in interrupts."""
    head = (
        b"Accept: text/html\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Expect: 100-continue\r\nContent-Length: 3\r\n"
    )
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/app/x", head))
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"a=b")
        answer = await client.response("POST")
    assert answer.status == 303
    assert b"resume=" in answer.one("Location")


async def test_our_own_answer_to_head_has_no_body(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(request(b"HEAD", b"/app/x"), request(b"GET", b"/public/x"))
        first, second = await client.responses("HEAD", "GET")
    assert (first.status, second.status) == (401, 200)


async def test_an_answer_streams_as_it_comes(gateway: Gateway) -> None:
    """No piece waits for the next: what server-sent events need."""
    go_on = asyncio.Event()

    async def script(_: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await go_on.wait()
        await line.send(b"data: 2\n\n")
        line.close()

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        await client.send(request(b"GET", b"/public/sse"))
        async with asyncio.timeout(PATIENCE):
            assert b"\r\n\r\n9\r\ndata: 1\n\n\r\n" in await client.read_until(b"data: 1\n\n\r\n")
        go_on.set()
        assert await client.read_until(b"0\r\n\r\n") == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"


async def test_a_request_streams_as_it_comes(gateway: Gateway) -> None:
    first = asyncio.Event()

    async def on_head(_: Request, line: Line) -> None:
        assert await line.reader.readexactly(5) == b"hello"
        first.set()

    async def no_body(received: Request, line: Line) -> None:
        await line.send(ok())

    gateway.upstream.on_head, gateway.upstream.script = on_head, no_body
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/public/x", b"Content-Length: 10\r\n", b"hello"))
        async with asyncio.timeout(PATIENCE):
            await first.wait()
        gateway.upstream.on_head = None
        await client.send(b"world")
        # The service has taken five bytes behind the recorder's back: it waits for ten more, and gives up.
        client.abort()


SIZE = 96 << 20
BOUND = 64 << 20  # what is on the way is in four buffers of the kernel, which grows them up to 32 MiB each
"""Far more than sockets hold by themselves (some 6 MiB a hop), far less than what is sent."""


async def test_a_service_that_does_not_read_holds_the_client_back(gateway: Gateway) -> None:
    go_on = asyncio.Event()
    total = 0

    async def on_head(_: Request, line: Line) -> None:
        nonlocal total
        await go_on.wait()
        while total < SIZE:
            total += len(await line.reader.read(1 << 20))
        await line.send(ok(b"%d" % total, b"Connection: close"))
        line.close()

    gateway.upstream.on_head = on_head
    before = resident()
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/public/x", b"Content-Length: %d\r\n" % SIZE))
        sent = await client.send_until_stalled(bytes(1 << 16), SIZE)
        assert sent < BOUND
        assert resident() - before < 24 << 20
        go_on.set()
        while sent < SIZE:
            piece = bytes(min(1 << 20, SIZE - sent))
            await client.send(piece)
            sent += len(piece)
        assert (await client.response("POST")).body == b"%d" % SIZE
    assert resident() - before < 24 << 20


async def test_a_client_that_does_not_read_holds_the_service_back(gateway: Gateway) -> None:
    sent = 0

    async def script(_: Request, line: Line) -> None:
        nonlocal sent
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        block = bytes(1 << 16)
        while sent < SIZE:
            await line.send(block)
            sent += len(block)

    gateway.upstream.script = script
    before = resident()
    async with await gateway.connect(buffers=65536) as client:
        await client.send(request(b"GET", b"/public/x"))
        await client.read_until(b"\r\n\r\n")
        await still(lambda: sent)
        assert 0 < sent < BOUND
        assert resident() - before < 24 << 20
        got = 0
        while got < SIZE:
            got += len(await client.read_exactly(min(1 << 18, SIZE - got)))
    assert sent == SIZE


@pytest.mark.parametrize("target", [b"/app/x", b"/public/x"], ids=["our-answers", "a-service's"])
async def test_a_client_that_asks_and_never_listens_is_held_back(gateway: Gateway, target: bytes) -> None:
    """Answers nobody reads must not pile up: the next request begins when the last answer is on its way."""
    before = resident()
    async with await gateway.connect(buffers=65536) as client:
        one = request(b"GET", target)
        raw = one * 1_000
        sent = await client.send_until_stalled(raw, 400 * len(raw), stall=1.0)
        assert sent < 100 * len(raw)
        asked = len(gateway.upstream.requests)
        assert asked < 50_000
        if not asked:  # the recorder beside us, in this process, remembers whatever it was asked
            assert resident() - before < 24 << 20
        whole = sent // len(one)  # where the machine stands still for a second, that was less than usual
        assert whole
        for _ in range(min(2_000, whole)):
            assert (await client.response()).status in (200, 401)


async def test_a_slow_reader_costs_only_itself(gateway: Gateway) -> None:
    async def script(received: Request, line: Line) -> None:
        await line.send(ok(bytes(16 << 20) if received.target == b"/public/large" else b"small"))

    gateway.upstream.script = script
    async with await gateway.connect(buffers=65536) as slow:
        await slow.send(request(b"GET", b"/public/large"))
        await slow.read_until(b"\r\n\r\n")
        for _ in range(10):
            assert (await gateway.ask(request(b"GET", b"/public/small"))).body == b"small"
        assert len(await slow.read_exactly(16 << 20)) == 16 << 20


def resident() -> int:
    """Resident memory of this process, in bytes; what is only garbage is none of it."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway that takes bodies of up to 1,000 bytes, targets of 300, heads of 2,000 and 10 headers."""
    config = {"request": {"body": 1_000, "target": 300, "head": 2_000, "headers": 10}}
    async with running(tmp_path_factory.mktemp("small"), config=config) as gateway:
        yield gateway


@pytest.mark.parametrize("size", [1_000, 1_001, 5_000, 5_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_413_begins_where_it_should(small: Gateway, size: int, framing: str) -> None:
    await small.mark()
    body = b"a" * size
    if framing == "length":
        raw = request(b"POST", b"/public/x", b"Content-Length: %d\r\n" % size, body)
    else:
        raw = request(b"POST", b"/public/x", b"Transfer-Encoding: chunked\r\n", chunked(cut(body, [700] * 8)))
    async with await small.connect() as client:
        await client.send(raw)
        answer = await client.response("POST")
        if size <= 1_000:
            assert answer.status == 200
            assert small.upstream.only.body == body
            return
        assert answer.status == 413
        assert await client.is_closed()
    assert not [received for received in small.upstream.requests if received.complete]
    assert await small.rejections() == 1


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request(b"GET", b"/public/" + b"a" * 292), 200),
        (request(b"GET", b"/public/" + b"a" * 293), 414),
        (request(b"GET", b"/public/x", b"X: y\r\n" * 8), 200),
        (request(b"GET", b"/public/x", b"X: y\r\n" * 9), 431),
        (request(b"GET", b"/public/x", b"X: " + b"y" * 1_800 + b"\r\n"), 200),
        (request(b"GET", b"/public/x", b"X: " + b"y" * 2_000 + b"\r\n"), 431),
        (request(b"GET", b"/public/x", b"X" * 2_000 + b": y\r\n"), 431),
    ],
    ids=["target", "target+1", "headers", "headers+1", "head", "head+", "name+"],
)
@pytest.mark.parametrize("segment", [1, 100, 1_000, 10_000])
async def test_limits_of_a_head(small: Gateway, raw: bytes, status: int, segment: int) -> None:
    """Wherever the segments are cut."""
    await small.mark()
    async with await small.connect() as client:
        await client.send(*(raw[i : i + segment] for i in range(0, len(raw), segment)))
        assert (await client.response()).status == status
        if status != 200:
            assert await client.is_closed()
    assert await small.rejections() == (status != 200)
    assert len(small.upstream.requests) == (status == 200)


async def test_nobody_waits_for_the_rest_of_a_form_that_was_refused(gateway: Gateway) -> None:
    """Whether it turns out to be none, or its client falls silent: the form was to be kept until somebody signs in."""
    form = b"Accept: text/html\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n"
    head = request(b"POST", b"/app/form", form + b"Sec-Fetch-Mode: navigate\r\nExpect: 100-continue\r\n")
    before = asyncio.all_tasks()
    for wrong in (b"zz\r\n", b""):
        async with await gateway.connect() as client:
            await client.send(head)
            assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"  # it is waited for
            await client.send(wrong)
            if not wrong:
                gateway.pass_time(31.0)
            assert (await client.response()).status == (400 if wrong else 408)
    if left := asyncio.all_tasks() - before:
        _, waiting = await asyncio.wait(left, timeout=PATIENCE)
        assert not waiting


async def test_a_pipeline_is_not_a_large_head(small: Gateway) -> None:
    await small.mark()
    async with await small.connect() as client:
        await client.send(request(b"GET", b"/public/x") * 500)
        assert {answer.status for answer in await client.responses(*["GET"] * 500)} == {200}


async def test_a_refused_upload_is_drained_so_that_the_answer_can_be_read(gateway: Gateway) -> None:
    body = bytes(200_000)
    raw = request(b"POST", b"/app/x", b"Content-Length: %d\r\n" % len(body), body)
    async with await gateway.connect() as client:
        await client.send(raw)
        answer = await client.response("POST")
        assert answer.status == 401
    assert gateway.upstream.requests == []


async def test_a_service_that_dies_amid_an_upload(gateway: Gateway) -> None:
    async def on_head(_: Request, line: Line) -> None:
        line.abort()
        raise ConnectionResetError

    gateway.upstream.on_head = on_head
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/public/x", b"Content-Length: 100000\r\n", bytes(50_000)))
        try:
            answer = await client.response("POST")
        except Truncated:
            return
        assert answer.status == 502
