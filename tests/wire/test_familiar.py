"""What is recognised by its bytes has to come out as what is parsed: on warm connections and cold ones alike."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.wire import familiar
from gateway.wire.client import ClientConnection
from tests.rig.client import RawClient
from tests.rig.gateway import Gateway, request
from tests.rig.messages import Request
from tests.rig.upstream import Line, fixed, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")

BLOCK = request(b"GET", b"/public/x", b"Accept: */*\r\n")[len(b"GET /public/x HTTP/1.1") :]


def line(text: bytes) -> bytes:
    return text + BLOCK


async def warm(gateway: Gateway, client: RawClient) -> ClientConnection:
    """Two plain requests: the first is parsed, the second recognised."""
    for _ in range(2):
        await client.send(line(b"GET /public/warm HTTP/1.1"))
        assert (await client.response()).status == 200
    (connection,) = gateway.app.wire.clients
    assert connection._block == BLOCK
    gateway.upstream.clear()
    return connection


def without_id(raw: bytes) -> bytes:
    return re.sub(rb"X-Request-Id: \w+", b"X-Request-Id: -", raw)


async def test_the_service_and_the_client_see_no_difference(gateway: Gateway) -> None:
    seen = set()
    said = set()
    ids = set()
    async with await gateway.connect() as client:
        for _ in range(4):
            await client.send(line(b"GET /public/a?b=c HTTP/1.1"))
            answer = await client.response()
            said.add(without_id(answer.raw))
            ids.add(answer.one("X-Request-Id"))
    for received in gateway.upstream.requests:
        seen.add(without_id(received.raw))
    assert len(gateway.upstream.requests) == 4
    assert len(seen) == len(said) == 1
    assert len(ids) == 4


async def test_other_targets_with_the_same_header_lines(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await warm(gateway, client)
        for target in (b"/public/1", b"/other/2", b"/public/a/../3", b"/public/%2e/4?x=/../y", b"/public/x;y"):
            await client.send(line(b"GET %s HTTP/1.1" % target))
            assert (await client.response()).status == 200
        assert [one.target for one in gateway.upstream.requests] == [
            b"/public/1", b"/public/3", b"/public/4?x=/../y", b"/public/x;y",
        ]  # fmt: skip
        assert gateway.other.only.target == b"/other/2"
        await client.send(line(b"HEAD /public/h HTTP/1.1"))
        assert (await client.response("HEAD")).status == 200
        await client.send(line(b"GET /app/x HTTP/1.1"))
        assert (await client.response()).status == 401


async def test_a_recognised_request_is_judged_like_any_other(gateway: Gateway) -> None:
    """The bytes are the same, the session is not."""
    cookie = await gateway.cookie("bob")
    raw = request(target=b"/app/x", cookie=cookie)
    async with await gateway.connect() as client:
        for _ in range(3):
            await client.send(raw)
            assert (await client.response()).status == 200
        bob = await gateway.app.users.find("bob")
        assert bob is not None
        await gateway.app.sessions.end_all(bob.tenant, bob.subject)
        await client.send(raw)
        assert (await client.response()).status == 401
    assert len(gateway.upstream.requests) == 3


NASTY = [
    b"",
    b"GET",
    b"GET /public/x",
    b"get /public/x HTTP/1.1",
    b"GET  /public/x HTTP/1.1",
    b"GET /public/x  HTTP/1.1",
    b"GET\t/public/x HTTP/1.1",
    b"GET /public/x HTTP/1.0",
    b"GET /public/x HTTP/2.0",
    b"GET /public/x HTTP/1.10",
    b" GET /public/x HTTP/1.1",
    b"\x00GET /public/x HTTP/1.1",
    b"\nGET /public/x HTTP/1.1",
    b"\r\nGET /public/x HTTP/1.1",
    b"GET public/x HTTP/1.1",
    b"GET * HTTP/1.1",
    b"GET http://good.test/public/x HTTP/1.1",
    b"GET http://evil.test/public/x HTTP/1.1",
    b"GET //public/x HTTP/1.1",
    b"GET /public/a b HTTP/1.1",
    b"GET /public/#x HTTP/1.1",
    b"GET /public/\\..\\admin HTTP/1.1",
    b"GET /public/\x80 HTTP/1.1",
    b'GET /public/"<> HTTP/1.1',
    b"GET /public/%00 HTTP/1.1",
    b"GET /public/..%2fadmin HTTP/1.1",
    b"GET /public/" + b"a" * 9000 + b" HTTP/1.1",
    b"POST /public/x HTTP/1.1",
    b"DELETE /public/x HTTP/1.1",
    b"CONNECT good.test:80 HTTP/1.1",
    b"TRACE / HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"GET /public/x HTTP/1.1\r\nX-More: 1",
    b"GET /public/x HTTP/1.1\r\nHost: evil.test",
    b"GET /public/x HTTP/1.1\r\n folded",
    b"GET /public/x HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade",
    b"GET /public/x HTTP/1.1\r\nExpect: nonsense",
    b"GET /public/x HTTP/1.1\r\nConnection: close",
    b"GET /public/x HTTP/1.1\r\nContent-Length: 5",
    b"GET /public/x HTTP/1.1\r\nTransfer-Encoding: chunked",
    b"GET /public/x HTTP/1.1\r\nHost: good.test\r\n\r\nGET /public/y HTTP/1.1",
    b"POST /public/x HTTP/1.1\r\nHost: good.test\r\nContent-Length: 5\r\n\r\nhelloGET /public/y HTTP/1.1",
    b"POST /public/x HTTP/1.1\r\nHost: good.test\r\nContent-Length: 27\r\n\r\nGET /public/y HTTP/1.1",
    b"POST /public/x HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /public/y HTTP/1.1",
]


@pytest.mark.parametrize("start", NASTY)
async def test_whatever_comes_before_the_same_header_lines(gateway: Gateway, start: bytes) -> None:
    """Sent on a warm connection it is answered, and seen by the service, as on a new one."""
    raw = line(start)
    outcomes = []
    for warmed in (False, True):
        gateway.upstream.clear()
        async with await gateway.connect() as client:
            if warmed:
                await warm(gateway, client)
            await client.send(raw)
            for _ in range(20):  # turns of the loop that the gateway shares: it has read this before the next comes
                await asyncio.sleep(0)
            # A last request, so that there is something to read up to; it never arrives where the first one ends it.
            await client.send(request(target=b"/public/last", head=b"Connection: close\r\n"))
            said = await client.read_rest()
        outcomes.append(
            (
                re.findall(rb"HTTP/1\.1 (\d{3})", said),
                [without_id(one.raw) for one in gateway.upstream.requests],
            )
        )
    assert outcomes[0] == outcomes[1]
    await gateway.mark()


@pytest.mark.parametrize("start", [b"GET /public/x HTTP/1.1", b"HEAD /public/x HTTP/1.1"])
async def test_a_request_in_pieces(gateway: Gateway, start: bytes) -> None:
    raw = line(start)
    async with await gateway.connect() as client:
        await warm(gateway, client)
        for cut in (1, len(start) - 1, len(start), len(start) + 2, len(raw) - 1):
            await client.send(raw[:cut], raw[cut:])
            assert (await client.response(start.split()[0].decode())).status == 200
        assert len(gateway.upstream.requests) == 5


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 0\r\nConnection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        b"Connection: close\r\n",
        b"X: " + b"x" * familiar.LONGEST + b"\r\n",
    ],
)
async def test_what_is_not_plain_is_not_remembered(gateway: Gateway, head: bytes) -> None:
    async with await gateway.connect() as client:
        await client.send(request(target=b"/public/x", head=head))
        assert (await client.response()).status == 200
        assert [one._block for one in gateway.app.wire.clients] in ([], [b""])


async def test_another_head_forgets_the_first(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        connection = await warm(gateway, client)
        await client.send(request(target=b"/public/x", head=b"Accept: text/plain\r\n"))
        assert (await client.response()).status == 200
        assert b"text/plain" in connection._block
        await client.send(line(b"GET /public/x HTTP/1.1"))
        assert (await client.response()).status == 200
        accepted = [one.one("Accept") for one in gateway.upstream.requests]
        assert accepted == [b"text/plain", b"*/*"]


# -- answers -----------------------------------------------------------------------------------------------------------


async def asked(gateway: Gateway, client: RawClient) -> bytes:
    await client.send(line(b"GET /public/x HTTP/1.1"))
    return (await client.response()).body


async def test_an_answer_with_the_same_head_has_its_own_body(gateway: Gateway) -> None:
    bodies = iter([b"one", b"two", b"six", b"four", b"ten", b""])

    async def script(_: Request, to: Line) -> None:
        await to.send(ok(next(bodies), b"X-Service: 1"))

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        assert [await asked(gateway, client) for _ in range(6)] == [b"one", b"two", b"six", b"four", b"ten", b""]
    assert len({one.connection for one in gateway.upstream.requests}) == 1


async def test_bytes_after_a_familiar_answer_are_nobodys(gateway: Gateway) -> None:
    """Case 28: the answer goes on, the connection does not."""
    answers = iter(
        [ok(b"one"), ok(b"two"), ok(b"six") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", ok(b"end")]
    )

    async def script(_: Request, to: Line) -> None:
        await to.send(next(answers))

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        assert [await asked(gateway, client) for _ in range(4)] == [b"one", b"two", b"six", b"end"]
    assert len({one.connection for one in gateway.upstream.requests}) == 2


async def test_a_familiar_head_with_less_body_is_waited_for(gateway: Gateway) -> None:
    whole = ok(b"abcdef")
    gateway.upstream.script = fixed(whole)
    async with await gateway.connect() as client:
        assert await asked(gateway, client) == b"abcdef"
        gateway.upstream.script = fixed(whole[:-3], whole[-3:])
        assert await asked(gateway, client) == b"abcdef"
        gateway.upstream.script = fixed(whole[:10], whole[10:])
        assert await asked(gateway, client) == b"abcdef"


@pytest.mark.parametrize(
    "other",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
    ],
)
async def test_a_broken_answer_on_a_warm_connection(gateway: Gateway, other: bytes) -> None:
    gateway.upstream.script = fixed(ok(b"abc"))
    async with await gateway.connect() as client:
        assert await asked(gateway, client) == b"abc"
        assert await asked(gateway, client) == b"abc"
        gateway.upstream.script = fixed(other)
        await client.send(line(b"GET /public/x HTTP/1.1"))
        assert (await client.response()).status == 502


async def test_head_is_never_taken_for_get(gateway: Gateway) -> None:
    gateway.upstream.script = fixed(ok(b"abc"))
    async with await gateway.connect() as client:
        assert await asked(gateway, client) == b"abc"
        gateway.upstream.script = fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        await client.send(line(b"HEAD /public/x HTTP/1.1"))
        answer = await client.response("HEAD")
        assert (answer.status, answer.one("Content-Length")) == (200, b"3")
        gateway.upstream.script = fixed(ok(b"abc"))
        assert await asked(gateway, client) == b"abc"
