"""A. Framing: nobody, on either side, may disagree with us about where a message ends."""

from __future__ import annotations

import asyncio
import resource

import pytest
import uvloop

from tests.attacks.caller import NESTED, PROBE, Caller
from tests.rig.gateway import Gateway, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMUGGLED = b"GET /public/smuggled HTTP/1.1\r\nHost: good.test\r\n\r\n"
"""A nested request that would be let through, so that nothing but correct framing keeps it away."""


def of(case: int, *values: bytes) -> list[object]:
    """Parameters whose ids name the case."""
    return [pytest.param(value, id=f"case-{case}-{value[:40]!r}") for value in values]


@pytest.mark.parametrize(
    "head",
    [
        *of(
            1,
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        ),
        *of(2, b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: 6\r\nX: y\r\nContent-Length: 5\r\n"),
        *of(3, b"Content-Length: 5\r\nContent-Length: 5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: 5,5\r\n"),
        *of(
            4,
            *(
                b"Content-Length: %s\r\n" % value
                for value in (b"+5", b"-5", b"0x5", b"5_0", b"5e0", b"5.0", b"5 0", b"", b"5,", b",5", b"5;", b'"5"')
            ),
        ),
        *of(6, b"Content-Length: 9223372036854775808\r\n", b"Content-Length: 18446744073709551621\r\n"),
        *of(6, b"Content-Length: " + b"1" * 100 + b"\r\n"),
        *of(7, "Content-Length: ٥\r\n".encode(), "Content-Length: ５\r\n".encode()),
        *of(
            8,
            *(
                b"Transfer-Encoding: %s\r\n" % value
                for value in (
                    b"xchunked",
                    b"chunkedchunked",
                    b"chunk",
                    b'"chunked"',
                    b"'chunked'",
                    b",chunked",
                    b"chunked,",
                    b"chunked, identity",
                    b"identity, chunked",
                    b"identity",
                    b"gzip",
                    b"gzip, chunked",
                    b"chunked, chunked",
                    b"chunked;q=1",
                    b"",
                )
            ),
        ),
        *of(9, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        *of(9, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        *of(
            10,
            b"Transfer-Encoding : chunked\r\n",
            b"Transfer-Encoding\t: chunked\r\n",
            b"Transfer-Encoding: \x0bchunked\r\n",
            b"Transfer-Encoding: chunked\x00\r\n",
            b"Transfer-Encoding: chunked\xa0\r\n",
            b"Transfer-Encoding: chunked\x85\r\n",
            b"Transfer-Encoding: \xa0chunked\r\n",
            b"Transfer-Encoding: chunked\x0c\r\n",
        ),
        *of(12, b"Foo: a\r\n Transfer-Encoding: chunked\r\n", b"Foo: a\r\n\tTransfer-Encoding: chunked\r\n"),
        *of(12, b"Transfer-Encoding:\r\n chunked\r\n", b"Content-Length:\r\n 5\r\n", b"Foo: a\r\n \r\n"),
        *of(13, b"Transfer Encoding: chunked\r\n", b"Transfer\\-Encoding: chunked\r\n"),
        *of(13, b"Transf\x82r-Encoding: chunked\r\n"),
        *of(14, b"X: a\nTransfer-Encoding: chunked\r\n", b"X: a\n", b"X: a\rb\r\n", b"X: a\r\r\n", b"X: a\n\n"),
        *of(14, b"X: a\r\n\n", b"X: a\rTransfer-Encoding: chunked\r\n", b"\rX: a\r\n"),
        *of(15, *(b"X: a%cb\r\n" % octet for octet in (*range(9), *range(11, 32), 127) if octet != 13)),
        *of(15, *(b"X%ca: b\r\n" % octet for octet in (0, 1, 9, 11, 31, 127))),
        *of(16, b"no-colon\r\n", b": x\r\n", b":\r\n", b"na me: x\r\n", b"name : x\r\n", b"(x): y\r\n", b'"x": y\r\n'),
        *of(16, b"x[0]: y\r\n", b"{x}: y\r\n", b"x/y: z\r\n", b"x@y: z\r\n", b"x\xe9: y\r\n"),
    ],
)
async def test_ambiguous_heads_are_rejected(caller: Caller, head: bytes) -> None:
    await caller.is_rejected(caller.request(b"POST", head, b"0\r\n\r\n" + SMUGGLED), status=(400, 413))


@pytest.mark.parametrize(
    "line", [*of(11, b" Transfer-Encoding: chunked\r\n", b"\tTransfer-Encoding: chunked\r\n", b" Foo: bar\r\n")]
)
async def test_a_first_header_line_that_begins_with_a_blank_is_rejected(caller: Caller, line: bytes) -> None:
    await caller.is_rejected(caller.request(b"POST", b"", b"0\r\n\r\n", host=line + b"Host: good.test\r\n"))


@pytest.mark.parametrize("end", of(14, b"\n", b"\r", b"\r\r\n", b" \n"))
async def test_a_request_line_not_ended_by_crlf_is_rejected(caller: Caller, end: bytes) -> None:
    raw = caller.request(b"POST", b"Content-Length: 0\r\n").replace(b"\r\n", end, 1)
    await caller.is_rejected(raw + PROBE)


@pytest.mark.parametrize("end", of(14, b"\n\n", b"\n\r\n", b"\r\n\n", b"\r\n\r\r\n", b"\r\n \r\n"))
async def test_a_head_not_ended_by_an_empty_line_is_rejected(caller: Caller, end: bytes) -> None:
    raw = caller.request(b"POST", b"Content-Length: 0\r\n").removesuffix(b"\r\n\r\n") + end
    await caller.is_rejected(raw + PROBE)


async def test_the_loop_is_the_one_of_earnest() -> None:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


async def test_case_5_leading_zeros_are_not_octal(caller: Caller) -> None:
    answers = await caller.never_desyncs(caller.request(b"POST", b"Content-Length: 0000000012\r\n", b"a" * 12))
    if answers[0].status == 200:
        assert caller.gateway.upstream.requests[0].body == b"a" * 12
        assert caller.gateway.upstream.requests[0].all("Content-Length") == [b"12"]


@pytest.mark.parametrize(
    "name", of(13, b"Transfer_Encoding", b"Transfer.Encoding", b"transfer_encoding", b"Transfer~Encoding")
)
async def test_a_foldable_name_is_never_the_header_it_folds_to(caller: Caller, name: bytes) -> None:
    """Case 13: it does not act here, and cannot act behind us."""
    body = b"0\r\n\r\n" + SMUGGLED
    raw = caller.request(b"POST", b"%s: chunked\r\nContent-Length: %d\r\n" % (name, len(body)), body)
    received = await caller.is_clean(raw, "POST")
    assert received.body == body
    assert name.lower() not in received.raw.lower()


@pytest.mark.parametrize("name", of(13, b"Content_Length", b"content_length", b"Content.Length"))
async def test_a_foldable_length_is_never_a_length(caller: Caller, name: bytes) -> None:
    received = await caller.is_clean(caller.request(b"POST", name + b": 50\r\nContent-Length: 2\r\n", b"ab"), "POST")
    assert received.body == b"ab"
    assert name.lower() not in received.raw.lower()


CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "size",
    of(
        17,
        *(b"0x5", b"+5", b"-0", b"-5", b"5_0", b" 5", b"5 ", b"\t5", b"g", b"", b"0" * 16 + b"5", b"f" * 17, b"5\x00"),
        *(b"5\xa0", "５".encode(), b"5,5", b"0x0", b"5.", b"\x0b5", b"fffffffffffffffff"),
    ),
)
async def test_odd_chunk_sizes_are_rejected(caller: Caller, size: bytes) -> None:
    if size == b"0" * 16 + b"5":  # leading zeros are legal; what matters is that nobody disagrees
        await caller.never_desyncs(caller.request(b"POST", CHUNKED, size + b"\r\nhello\r\n0\r\n\r\n"))
        return
    raw = caller.request(b"POST", CHUNKED, size + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED)
    await caller.is_rejected(raw, started=True)


@pytest.mark.parametrize(
    "extension",
    of(
        18,
        *(b";a\rb", b";a\nb", b';a="b', b';a="b\r\n0\r\n\r\n', b";a\x00", b";" + b"a" * 65536, b';a="\n"', b"\n;a"),
    ),
)
async def test_bad_chunk_extensions_never_pass(caller: Caller, extension: bytes) -> None:
    raw = caller.request(b"POST", CHUNKED, b"5%s\r\nhello\r\n0\r\n\r\n" % extension)
    async with await caller.gateway.connect() as client:
        await client.send(raw)
        answer = await client.response("POST")
    assert answer.status in (200, 400, 413, 431)
    for received in caller.gateway.upstream.requests:
        assert b";" not in received.raw  # and a chunk line with an extension would be a violation
        assert not received.complete or received.body == b"hello"


@pytest.mark.parametrize("extension", of(18, b";a=b", b';a="b"', b";a", b";a=b;c=d"))
async def test_chunk_extensions_are_dropped_or_rejected(caller: Caller, extension: bytes) -> None:
    raw = caller.request(b"POST", CHUNKED, b"5%s\r\nhello\r\n0%s\r\n\r\n" % (extension, extension))
    await caller.never_desyncs(raw, method="POST")


@pytest.mark.parametrize(
    "body",
    of(19, b"5\r\nhelloX\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5\r\nhello\rX0\r\n\r\n"),
)
async def test_chunk_data_not_ended_by_crlf_is_rejected(caller: Caller, body: bytes) -> None:
    await caller.is_rejected(caller.request(b"POST", CHUNKED, body), started=True)


@pytest.mark.parametrize("body", of(19, b"5\r\nhello\r\n", b"5\r\nhel", b"5\r\nhello\r\n0\r\n", b"5\r\nhello\r\n0"))
async def test_a_body_without_its_end_is_no_request(caller: Caller, body: bytes) -> None:
    async with await caller.gateway.connect() as client:
        await client.send(caller.request(b"POST", CHUNKED, body))
        client.finish()
        await client.read_rest()
    caller.reached_nobody(started=True)


async def test_case_19_bytes_after_the_last_chunk_are_judged_by_themselves(caller: Caller) -> None:
    raw = caller.request(b"POST", CHUNKED, b"5\r\nhello\r\n0\r\n\r\n")
    answers = await caller.gateway.say(raw + b"X-Rest: y\r\n\r\n" + SMUGGLED)
    assert [answer.status for answer in answers] == [200, 400]
    assert [received.body for received in caller.gateway.upstream.requests] == [b"hello"]
    assert await caller.gateway.rejections() == 1


@pytest.mark.parametrize(
    "trailer",
    of(
        20,
        *(
            b"Content-Length: 9",
            b"Transfer-Encoding: chunked",
            b"Host: evil",
            b"Cookie: evil=1",
            b"Authorization: Bearer evil",
            b"X-Forwarded-User: evil",
            b"Sallyport-Assertion: evil",
            b"X-Evil: evil",
        ),
    ),
)
async def test_trailers_are_dropped(caller: Caller, trailer: bytes) -> None:
    name = trailer.partition(b":")[0]
    head = CHUNKED + b"Trailer: " + name + b"\r\n"
    raw = caller.request(b"POST", head, b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n")
    answers = await caller.never_desyncs(raw, method="POST")
    if answers[0].status != 400:
        received = caller.gateway.upstream.requests[0]
        assert received.body == b"hello"
        assert b"evil" not in received.raw
        assert received.all("Trailer") == []
    assert b"evil" not in caller.gateway.upstream.raw


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"POST", b"PUT", b"PATCH"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_case_22_a_body_that_looks_like_a_request_stays_a_body(
    caller: Caller, method: bytes, chunked: bool
) -> None:
    if chunked:
        raw = caller.request(method, CHUNKED, b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED))
    else:
        raw = caller.request(method, b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED)
    answers = await caller.never_desyncs(raw, method=method.decode("ascii"))
    assert answers[0].status == 200
    assert caller.gateway.upstream.requests[0].body in (SMUGGLED, b"")
    assert len(answers) == 2


async def test_case_23_a_body_held_back_is_asked_for(caller: Caller) -> None:
    async with await caller.gateway.connect() as client:
        await client.send(caller.request(b"POST", b"Expect: 100-continue\r\nContent-Length: 5\r\n"))
        assert await client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        answer = await client.response("POST")
        assert answer.status == 200
        assert answer.interim == []
        assert caller.gateway.upstream.only.body == b"hello"
        await client.send(PROBE)
        assert (await client.response()).body == b"GET /public/probe 0"


async def test_case_23_a_body_nobody_may_send_is_not_asked_for(gateway: Gateway) -> None:
    async with await gateway.connect() as client:
        await client.send(request(b"POST", b"/app/x", b"Expect: 100-continue\r\nContent-Length: 5\r\n"))
        answer = await client.response("POST")
        assert (answer.status, answer.interim) == (401, [])
        await client.send(SMUGGLED)  # is it the body, or the next request? Nobody can know: the connection closes
        assert await client.is_closed()
    assert gateway.upstream.requests == []


@pytest.mark.parametrize(
    "expect", of(23, b"y 100-continue", b"100-continue, y", b"y", b"100-Continue-not", b"100-continue;q=1", b"200-ok")
)
async def test_unknown_expectations_fail(caller: Caller, expect: bytes) -> None:
    raw = caller.request(b"POST", b"Expect: " + expect + b"\r\nContent-Length: %d\r\n" % len(SMUGGLED), SMUGGLED)
    await caller.is_rejected(raw, status=(400, 417))


@pytest.mark.parametrize("expect", of(23, b"100-continue", b"100-Continue"))
async def test_a_body_sent_early_is_the_body(caller: Caller, expect: bytes) -> None:
    raw = caller.request(b"POST", b"Expect: " + expect + b"\r\nContent-Length: %d\r\n" % len(SMUGGLED), SMUGGLED)
    answers = await caller.never_desyncs(raw, method="POST")
    assert answers[0].status == 200
    assert caller.gateway.upstream.requests[0].body == SMUGGLED


@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS"])
async def test_case_23_expecting_without_a_body_is_harmless(caller: Caller, method: bytes) -> None:
    await caller.never_desyncs(caller.request(method, b"Expect: 100-continue\r\n"), method=method.decode("ascii"))


@pytest.mark.parametrize(
    ("version", "status"),
    [
        pytest.param(version, status, id=f"case-25-{version.decode('ascii')}")
        for version, status in (
            (b"HTTP/2.0", (400, 505)),
            (b"HTTP/1.32", (400, 505)),
            (b"HTTP/1.1x", (400, 505)),
            (b"HTTP/1.2", (400, 505)),
            (b"HTTP/0.9", (400, 505)),
            (b"HTTP/3.0", (400, 505)),
            (b"HTTP/01.1", (400, 505)),
            (b"HTTP/1", (400, 505)),
            (b"HTTP/1.", (400, 505)),
            (b"http/1.1", (400, 505)),
            (b"HTTPS/1.1", (400, 505)),
            (b"ICE/1.0", (400, 505)),
            (b"HTTP/1.1 HTTP/1.1", (400, 505)),
            (b"HTTP/1.1 ", (400, 505)),
        )
    ],
)
async def test_other_versions_are_rejected(caller: Caller, version: bytes, status: tuple[int, ...]) -> None:
    await caller.is_rejected(caller.request(version=version), status=status)


@pytest.mark.parametrize("version", [b" HTTP/1.1", b"RTSP/1.0"])
async def test_what_the_parser_takes_for_http_is_http_behind_us(caller: Caller, version: bytes) -> None:
    """Two blanks (RFC 9112, section 3, lets us be lenient) and a cousin's name: the service sees one plain line."""
    answers = await caller.never_desyncs(caller.request(version=version))
    if answers[0].status == 200:
        assert caller.gateway.upstream.requests[0].raw.startswith(b"GET " + caller.target + b" HTTP/1.1\r\n")


async def test_case_25_http_0_9_is_rejected(caller: Caller) -> None:
    await caller.is_rejected(b"GET " + caller.target + b"\r\n\r\n", status=(400, 505))


@pytest.mark.parametrize("head", of(25, b"", b"Connection: keep-alive\r\n"))
async def test_chunked_in_http_1_0_is_rejected(caller: Caller, head: bytes) -> None:
    raw = caller.request(b"POST", CHUNKED + head, b"0\r\n\r\n" + SMUGGLED, version=b"HTTP/1.0")
    await caller.is_rejected(raw, status=(400, 505))


async def test_case_26_a_thousand_pipelined_requests_of_two_users(gateway: Gateway) -> None:
    ann, bob = await gateway.cookie("ann"), await gateway.cookie("bob")
    raw = b"".join(
        request(b"GET", b"/app/%s/%d" % (user, number), cookie=cookie)
        for number in range(500)
        for user, cookie in ((b"ann", ann), (b"bob", bob))
    )
    async with await gateway.connect() as client:
        await client.send(raw)
        for number in range(500):
            for user in (b"ann", b"bob"):
                assert (await client.response()).body == b"GET /app/%s/%d 0" % (user, number)
    assert len(gateway.upstream.requests) == 1000
    for received in gateway.upstream.requests:
        assert received.all("X-Forwarded-User") == [received.target.split(b"/")[2]]


@pytest.mark.parametrize(
    "bad",
    of(
        27,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /public/../%zz HTTP/1.1\r\nHost: good.test\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /public/x HTTP/1.1\r\nHost: good.test\r\nContent-Length: x\r\n\r\n",
    ),
)
async def test_an_invalid_request_after_a_valid_one(caller: Caller, bad: bytes) -> None:
    answers = await caller.gateway.say(caller.request() + bad + SMUGGLED)
    assert answers[0].status == 200
    assert [answer.status in (400, 505) for answer in answers[1:]] == [True]
    assert caller.gateway.upstream.only.target == caller.target
    assert await caller.gateway.rejections() == 1


async def test_case_30_an_endless_request_line_in_single_bytes(caller: Caller) -> None:
    line = b"GET /public/" + b"a" * (1 << 20) + b" HTTP/1.1\r\nHost: good.test\r\n\r\n"
    async with await caller.gateway.connect() as client:
        await client.send(*(line[index : index + 1] for index in range(12_000)), line[12_000:])
        answer = await client.response()
        assert answer.status == 414
        assert await client.is_closed()
    caller.reached_nobody()
    assert await caller.gateway.rejections() == 1


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"".join(b"X-%d: y\r\n" % number for number in range(10_000)), id="case-30-many"),
        pytest.param(b"".join(b"X-%d: y\r\n" % number for number in range(150)), id="case-30-over-a-hundred"),
        pytest.param(b"X: " + b"y" * (1 << 20) + b"\r\n", id="case-30-long-value"),
        pytest.param(b"X" * (1 << 20) + b": y\r\n", id="case-30-long-name"),
    ],
)
async def test_large_heads_are_rejected(caller: Caller, head: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await caller.is_rejected(caller.request(head=head), status=(431,))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


async def test_case_30_a_head_that_never_ends_is_cut(caller: Caller) -> None:
    """Not one of the lines is complete, so only counting bytes can stop it."""
    async with await caller.gateway.connect() as client:
        await client.send(caller.request(head=b"X: ").removesuffix(b"\r\n\r\n"))
        sent = await client.send_until_stalled(b"y" * 4096, 8 << 20)
        assert sent < 8 << 20
        assert (await client.response()).status == 431
        assert await client.is_closed()
    assert await caller.gateway.rejections() == 1


async def test_a_refused_body_is_never_the_next_request(gateway: Gateway) -> None:
    """Case 24 for our own early answers: the body of a request we refuse is not parsed as requests."""
    body = NESTED * 100 + SMUGGLED
    raw = request(b"POST", b"/app/x", b"Content-Length: %d\r\n" % len(body), body)
    async with await gateway.connect() as client:
        await client.send(raw, PROBE)
        assert (await client.response("POST")).status == 401
        rest = await client.read_rest()
    assert [received.target for received in gateway.upstream.requests] in ([], [b"/public/probe"])
    assert rest.count(b"HTTP/1.1 ") <= 1
