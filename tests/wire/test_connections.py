from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from gateway.wire.exchange import Exchange
from tests.rig.gateway import Gateway, answers_until_close, request, running
from tests.rig.messages import Request
from tests.rig.ports import free_port
from tests.rig.upstream import Line, RecordingUpstream, fixed, ok
from tests.wire.services_at import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def get(target: bytes = b"/public/x", head: bytes = b"", version: bytes = b"HTTP/1.1") -> bytes:
    return request(b"GET", target, head, version=version)


# -- towards the service -----------------------------------------------------------------------------------------------


async def test_connections_to_a_service_are_used_again(gateway: Gateway) -> None:
    for number in range(5):
        assert (await gateway.ask(get(b"/public/%d" % number))).status == 200
    assert len({received.connection for received in gateway.upstream.requests}) == 1


async def test_requests_at_once_have_connections_of_their_own(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(received: Request, line: Line) -> None:
        await go_on.wait()
        await line.send(ok(received.target))

    gateway.upstream.script = script
    asked = [asyncio.create_task(gateway.ask(get(b"/public/%d" % number))) for number in range(8)]
    await gateway.upstream.came(8)
    go_on.set()
    answers = await asyncio.gather(*asked)
    assert [answer.body for answer in answers] == [b"/public/%d" % number for number in range(8)]
    assert len({received.connection for received in gateway.upstream.requests}) == 8


async def test_a_rule_names_its_service(gateway: Gateway) -> None:
    assert (await gateway.ask(get(b"/other/x"))).body == b"GET /other/x 0"
    assert gateway.upstream.requests == []
    assert gateway.other.only.target == b"/other/x"


async def test_one_client_connection_may_ask_several_services(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(get(b"/other/1"), get(b"/public/2"), get(b"/other/3"))
        assert [answer.body for answer in await client.responses("GET", "GET", "GET")] == [
            b"GET /other/1 0",
            b"GET /public/2 0",
            b"GET /other/3 0",
        ]


@pytest.mark.parametrize("head", [b"Connection: close", b"connection: CLOSE", b"Connection: foo, close"])
async def test_a_service_that_closes_is_not_asked_on_that_connection_again(gateway: Gateway, head: bytes) -> None:
    gateway.upstream.script = fixed(ok(b"bye", head))
    answer = await gateway.ask(get())
    assert answer.body == b"bye"
    assert answer.all("Connection") == []  # between us and the service; the client's connection goes on
    assert (await gateway.ask(get())).body == b"bye"
    first, second = gateway.upstream.requests
    assert first.connection != second.connection


async def test_an_http_1_0_service_is_not_asked_again_either(gateway: Gateway) -> None:
    gateway.upstream.script = fixed(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert (await gateway.ask(get())).body == b"hi"
    assert (await gateway.ask(get())).body == b"hi"
    first, second = gateway.upstream.requests
    assert first.connection != second.connection


def stale(method: bytes) -> tuple[list[Request], object]:
    """A script that hangs up, without a word, on a connection that was used before."""
    seen: list[Request] = []

    async def script(received: Request, line: Line) -> None:
        seen.append(received)
        if received.number > 1:
            line.close()
        else:
            await line.send(ok(b"fresh"))

    return seen, script


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
async def test_a_stale_connection_is_retried_for_safe_requests(gateway: Gateway, method: bytes) -> None:
    seen, script = stale(method)
    gateway.upstream.script = script  # type: ignore[assignment]
    await drop_connections(gateway)
    assert (await gateway.ask(get())).body == b"fresh"
    answer = await gateway.ask(request(method, b"/public/x"), method.decode("ascii"))
    assert answer.status == 200
    assert [received.method for received in seen] == [b"GET", method, method]
    assert seen[1].connection == seen[0].connection
    assert seen[2].connection != seen[0].connection
    assert seen[1].raw.split(b"\r\n", 1)[1] == seen[2].raw.split(b"\r\n", 1)[1]


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH"])
async def test_a_stale_connection_is_not_retried_for_requests_that_do_something(
    gateway: Gateway, method: bytes
) -> None:
    seen, script = stale(method)
    gateway.upstream.script = script  # type: ignore[assignment]
    await drop_connections(gateway)
    assert (await gateway.ask(get())).body == b"fresh"
    answer = await gateway.ask(request(method, b"/public/x", b"Content-Length: 2\r\n", b"ab"), method.decode("ascii"))
    assert answer.status == 502
    assert [received.method for received in seen] == [b"GET", method]


async def test_a_safe_request_is_tried_twice_at_most(gateway: Gateway) -> None:
    await drop_connections(gateway)
    assert (await gateway.ask(get())).status == 200

    async def hang_up(_: Request, line: Line) -> None:
        line.close()

    gateway.upstream.script = hang_up
    assert (await gateway.ask(get())).status == 502
    assert len(gateway.upstream.requests) == 3


async def test_a_get_with_a_body_is_not_sent_twice(gateway: Gateway) -> None:
    seen, script = stale(b"GET")
    gateway.upstream.script = script  # type: ignore[assignment]
    await drop_connections(gateway)
    assert (await gateway.ask(get())).body == b"fresh"
    for head, body in ((b"Content-Length: 2\r\n", b"ab"), (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n")):
        answer = await gateway.ask(request(b"GET", b"/public/x", head, body))
        assert answer.status in (200, 502)
    for received in seen:
        assert received.complete


async def drop_connections(gateway: Gateway) -> None:
    """Let every connection to the service go."""
    for line in gateway.upstream.lines:
        line.close()
    await gateway.upstream.until(lambda: all(line.closed.is_set() for line in gateway.upstream.lines))


async def test_a_service_that_speaks_unasked_is_hung_up_on(gateway: Gateway) -> None:
    assert (await gateway.ask(get())).status == 200
    line = gateway.upstream.lines[gateway.upstream.only.connection - 1]
    await line.send(ok(b"nobody asked"))
    await gateway.upstream.until(line.closed.is_set)
    assert (await gateway.ask(get())).body == b"GET /public/x 0"


@pytest_asyncio.fixture(loop_scope="module")
async def narrow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway whose first service may have two connections, and whose second is not there."""
    upstream = RecordingUpstream()
    await upstream.start(free_port())
    config = {
        "upstreams": {
            "app": {"url": f"http://127.0.0.1:{upstream.port}", "connections": 2, "queue": {"length": 0}},
            "other": {"url": f"http://127.0.0.1:{free_port()}"},
        }
    }
    async with running(tmp_path_factory.mktemp("narrow"), config=config) as gateway:
        gateway.upstream = upstream
        yield gateway
    await upstream.stop()


async def test_a_service_that_is_not_there(narrow: Gateway) -> None:
    answer = await narrow.ask(get(b"/other/x"))
    assert answer.status == 502
    assert b"ERR-UPSTREAM-UNREACHABLE" in answer.body
    async with await narrow.connect() as client:
        await client.send(get(b"/other/x"), get())
        assert [each.status for each in await client.responses("GET", "GET")] == [502, 200]


async def test_a_service_has_no_more_connections_than_it_may(narrow: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(received: Request, line: Line) -> None:
        await go_on.wait()
        await line.send(ok(received.target))

    narrow.upstream.script = script
    asked = [asyncio.create_task(narrow.ask(get())) for _ in range(2)]
    await narrow.upstream.came(2)
    answer = await narrow.ask(get())
    assert answer.status == 503
    assert b"ERR-UPSTREAM-BUSY" in answer.body
    assert answer.one("Retry-After") == b"1"
    go_on.set()
    assert [each.status for each in await asyncio.gather(*asked)] == [200, 200]
    assert (await narrow.ask(get())).status == 200


async def test_a_service_that_comes_back_is_found(narrow: Gateway) -> None:
    assert (await narrow.ask(get())).status == 200
    port = narrow.upstream.port
    await narrow.upstream.stop()
    assert (await narrow.ask(get())).status == 502
    narrow.upstream.clear()
    await narrow.upstream.start(port)
    assert (await narrow.ask(get())).status == 200


# -- towards the client ------------------------------------------------------------------------------------------------


async def test_a_client_connection_is_kept(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        for number in range(20):
            await client.send(get(b"/public/%d" % number))
            assert (await client.response()).body == b"GET /public/%d 0" % number


@pytest.mark.parametrize(
    ("version", "head", "closes"),
    [
        (b"HTTP/1.1", b"", False),
        (b"HTTP/1.1", b"Connection: keep-alive\r\n", False),
        (b"HTTP/1.1", b"Connection: close\r\n", True),
        (b"HTTP/1.1", b"Connection: x, Close\r\n", True),
        (b"HTTP/1.0", b"", True),
        (b"HTTP/1.0", b"Connection: close\r\n", True),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", False),
    ],
)
async def test_who_closes_when(gateway: Gateway, version: bytes, head: bytes, closes: bool) -> None:
    async with await gateway.connect() as client:
        await client.send(get(head=head, version=version))
        answer = await client.response()
        assert answer.body == b"GET /public/x 0"
        assert (b"close" in b"".join(answer.all("Connection"))) == (closes and version == b"HTTP/1.1") or closes
        if closes:
            assert await client.is_closed()
        else:
            await client.send(get(b"/public/again"))
            assert (await client.response()).body == b"GET /public/again 0"


async def test_nothing_after_close_is_answered(gateway: Gateway) -> None:
    answers = await gateway.say(get(b"/public/1") + get(b"/public/2", b"Connection: close\r\n") + get(b"/public/3"))
    assert [answer.body for answer in answers] == [b"GET /public/1 0", b"GET /public/2 0"]
    assert [received.target for received in gateway.upstream.requests] == [b"/public/1", b"/public/2"]


async def test_what_comes_after_close_does_not_cost_the_answer(gateway: Gateway) -> None:
    """Closing with unread bytes would reset the connection, and take an answer with it that is not read yet."""
    body = bytes(300_000)
    gateway.upstream.script = fixed(ok(body))
    async with await gateway.connect(buffers=65536) as client:
        await client.send(get(head=b"Connection: close\r\n"))
        await gateway.upstream.came(1)
        await client.send(get() * 1_000)
        assert (await client.response()).body == body


async def test_an_http_1_0_client_gets_no_chunks(gateway: Gateway) -> None:
    gateway.upstream.script = fixed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    for head in (b"", b"Connection: keep-alive\r\n"):
        async with await gateway.connect() as client:
            await client.send(get(head=head, version=b"HTTP/1.0"))
            answer = await client.response()
            assert answer.body == b"hello"
            assert answer.all("Transfer-Encoding") == []


async def test_a_thousand_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    """Every seventh is refused by us, at once; it still waits its turn."""
    targets = [b"/app/%d" % n if n % 7 == 0 else b"/public/%d" % n for n in range(1_000)]
    async with await gateway.connect() as client:
        await client.send(b"".join(get(target) for target in targets))
        for target in targets:
            answer = await client.response()
            if target.startswith(b"/app/"):
                assert answer.status == 401
            else:
                assert answer.body == b"GET %s 0" % target
    assert len({received.connection for received in gateway.upstream.requests}) == 1


async def test_a_pipeline_waits_for_the_slow_one(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(received: Request, line: Line) -> None:
        if received.target == b"/public/slow":
            await go_on.wait()
        await line.send(ok(received.target))

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        await client.send(get(b"/public/slow") + get(b"/public/fast"))
        await gateway.upstream.came(1)
        await client.send(get(b"/public/last"))
        assert [received.target for received in gateway.upstream.requests] == [b"/public/slow"]
        go_on.set()
        answers = await client.responses("GET", "GET", "GET")
    assert [answer.body for answer in answers] == [b"/public/slow", b"/public/fast", b"/public/last"]


async def test_a_pipeline_without_end_is_held_back(gateway: Gateway) -> None:
    """While the first is on its way, the rest stays in the sockets, not in our memory."""
    go_on = asyncio.Event()

    async def script(received: Request, line: Line) -> None:
        await go_on.wait()
        await line.send(ok())

    gateway.upstream.script = script
    async with await gateway.connect(buffers=65536) as client:
        sent = await client.send_until_stalled(get() * 100, 64 << 20)
        assert sent < 16 << 20
        assert len(gateway.upstream.requests) == 1
    await gateway.upstream.until(lambda: True)
    go_on.set()


async def test_a_pipeline_that_grows_by_each_answer_is_held_back(gateway: Gateway) -> None:
    """Each request waits for a connection of its own; what is let in then is not parsed before its turn."""

    async def script(received: Request, line: Line) -> None:
        await go_on.acquire()
        await line.send(ok(b"", b"Connection: close"))
        line.close()

    go_on = asyncio.Semaphore(0)
    gateway.upstream.script = script
    piece = b"GET /public/x HTTP/1.1\r\nHost: good.test\r\n\r\n" * 300
    async with await gateway.connect() as client:
        await client.send(piece)
        for answered in range(1, 11):
            await gateway.upstream.came(answered)
            go_on.release()
            assert (await client.response()).status == 200
            await client.send(piece)
        await gateway.upstream.came(11)
        assert sum(isinstance(each, Exchange) for each in gc.get_objects()) < 2 * 300
    for held_back in list(gateway.app.wire.clients):
        held_back.abort()  # it is not listened to, and the next of its requests would come to the test after this one
    await until(lambda: not gateway.app.wire.clients)
    go_on.release()


async def test_a_body_behind_a_slow_request_stays_in_the_sockets(gateway: Gateway) -> None:
    go_on = asyncio.Event()

    async def script(received: Request, line: Line) -> None:
        await go_on.wait()
        await line.send(ok(b"%d" % len(received.body)))

    gateway.upstream.script = script
    size = 48 << 20
    async with await gateway.connect(buffers=65536) as client:
        await client.send(get(), request(b"POST", b"/public/y", b"Content-Length: %d\r\n" % size))
        sent = await client.send_until_stalled(b"x" * 65536, size)
        assert sent < 16 << 20
        go_on.set()
        assert (await client.response()).body == b"0"
        rest = asyncio.create_task(
            client.send(*[b"x" * 65536] * ((size - sent) // 65536), b"x" * ((size - sent) % 65536))
        )
        assert (await client.response("POST")).body == b"%d" % size
        await rest


async def test_bodies_in_a_pipeline(gateway: Gateway) -> None:
    raw = b"".join(
        request(b"POST", b"/public/%d" % n, b"Content-Length: %d\r\n" % n, b"x" * n)
        if n % 2
        else request(
            b"POST",
            b"/public/%d" % n,
            b"Transfer-Encoding: chunked\r\n",
            b"%x\r\n%s\r\n0\r\n\r\n" % (n + 1, b"y" * (n + 1)),
        )
        for n in range(100)
    )
    async with await gateway.connect() as client:
        await client.send(raw)
        for n in range(100):
            assert (await client.response("POST")).body == b"POST /public/%d %d" % (n, n if n % 2 else n + 1)


@pytest.mark.parametrize("moment", ["asked", "answering"])
async def test_a_client_that_leaves_frees_the_service(gateway: Gateway, moment: str) -> None:
    begun = asyncio.Event()
    gone = asyncio.Event()

    async def script(_: Request, line: Line) -> None:
        if moment == "answering":
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello")
        begun.set()
        with contextlib.suppress(ConnectionError):
            assert await line.reader.read(1) == b""
        gone.set()

    gateway.upstream.script = script
    async with await gateway.connect() as client:
        await client.send(get())
        await begun.wait()
        client.abort()
        async with asyncio.timeout(10):
            await gone.wait()


async def test_a_client_that_leaves_amid_its_body_leaves_no_whole_request(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/public/x", b"Content-Length: 10\r\n", b"hello"))
        await gateway.upstream.until(lambda: bool(gateway.upstream.requests))
        client.abort()
    line = gateway.upstream.lines[gateway.upstream.only.connection - 1]
    await gateway.upstream.until(line.closed.is_set)
    assert not gateway.upstream.only.complete


async def test_a_client_that_leaves_costs_the_others_nothing(gateway: Gateway) -> None:
    for _ in range(20):
        client = await gateway.connect()
        await client.send(get() * 3)
        client.abort()
    assert (await gateway.ask(get(b"/public/after"))).body == b"GET /public/after 0"


async def test_answers_until_close_sees_every_answer(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(get(b"/public/1") + get(b"/public/2", b"Connection: close\r\n"))
        assert len(await answers_until_close(client)) == 2
