"""Chunked bodies: what comes out is what went in, however it was cut on its way, or it is refused.

The input has three parts: where to cut, sizes of chunks, and a body; the body is also sent as if it were chunks.
"""

from __future__ import annotations

import re

from tests.fuzz.memory import Conversation, cut, house, split

HEAD = b"POST /x HTTP/1.1\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n"
_SIZE = re.compile(rb"([0-9A-Fa-f]+)[^\r\n]*\r\n")


def decoded(stream: bytes) -> bytes | None:
    """The body in a stream of chunks, extensions and trailers stepped over; None: it is not whole, or not right."""
    body = b""
    while (size := _SIZE.match(stream)) is not None:
        length, stream = int(size[1], 16), stream[size.end() :]
        if not length:
            return body
        if len(stream) < length + 2 or stream[length : length + 2] != b"\r\n":
            return None
        body, stream = body + stream[:length], stream[length + 2 :]
    return None


def one(data: bytes) -> None:
    places, sizes, body = split(data, 3)

    async def well_framed(talk: Conversation) -> None:
        chunks = [piece for piece in cut(body, sizes) if piece]
        stream = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        await talk.say(*cut(HEAD + stream, places))
        (came,), began = await talk.came()
        assert (came.body, came.target, began) == (body, b"/x", False)

    async def as_it_is(talk: Conversation) -> None:
        await talk.say(*cut(HEAD + body, places))
        came, _ = await talk.came()
        assert len(came) <= 1
        for request in came:
            assert request.body == decoded(body)

    house().run(well_framed)
    house().run(as_it_is)
