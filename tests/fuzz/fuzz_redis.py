"""What a Redis says, to the link that asks it: the process lives, answers come in order and are the same however they
were cut, and of a link that is broken nobody waits for more.

An input is where to cut, a line of `--`, and all that the server says. Compiled code reads it: a crash of the
interpreter is a crash of whoever runs this. There is little memory, for a list may say that it has a billion members.
"""

from __future__ import annotations

import asyncio
import resource
from functools import cache
from types import SimpleNamespace
from typing import Any

from redis.exceptions import ResponseError

from gateway.store.redis_link import Link, Lost
from tests.fuzz.memory import Pipe, cut, split

MEMORY = 1 << 29
"""Octets."""
ASKED = 8


class _Taken(Pipe):
    """Of a connection that redis-py has made."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass


@cache
def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


async def said(*pieces: bytes) -> tuple[list[Any], str]:
    """What those who asked were told, and why it is broken."""
    pipe = _Taken()
    made = SimpleNamespace(
        _writer=SimpleNamespace(transport=pipe), _reader=SimpleNamespace(at_eof=lambda: False), _close=lambda: None
    )
    link = Link(made)
    asked = [link.ask((b"GET", b"%d" % number)) for number in range(ASKED)]
    for piece in pieces:
        link.data_received(piece)
    answered = [one for one in asked if one.done()]
    assert answered == asked[: len(answered)], "in order"
    if link.broken:
        assert pipe.aborted
        assert len(answered) == ASKED, "nobody waits"
    link.close()
    told = [one.exception() or one.result() for one in answered]
    for one in asked:
        one.exception()
    assert all(isinstance(one, Lost | ResponseError) for one in told if isinstance(one, Exception))
    return [repr(one) for one in told], link.broken if pipe.aborted and len(answered) == ASKED else ""


_loop = asyncio.new_event_loop()


def one(data: bytes) -> None:
    little_memory()
    places, stream = split(data, 2)
    whole = _loop.run_until_complete(said(stream))
    assert _loop.run_until_complete(said(*cut(stream, places))) == whole
