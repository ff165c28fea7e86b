"""What a PostgreSQL says, to the driver behind our look at it: the process lives, nobody is left waiting for a
connection that is closed, and what the driver was given is whole messages, whatever pieces they came in.

An input is what the server says, in pieces separated by a line of `--`; each is said as soon as everything before is
understood. One that begins with `=` is messages without their lengths, between lines of `-`: so that what is wrong may
be deeper inside. `NONCE` stands for what the client has made up. A crash of the interpreter is a crash of whoever runs
this.
"""

from __future__ import annotations

import asyncio
from struct import Struct

from gateway.store.postgresql_frames import Frames, Nonsense
from tests.rig.postgres_talk import NONCE, Talk

_size = Struct(">i").unpack_from


def pieces_of(data: bytes) -> list[bytes]:
    """What is said, piece by piece."""
    return [with_lengths(piece[1:]) if piece.startswith(b"=") else piece for piece in data.split(b"\n--\n")]


def with_lengths(messages: bytes) -> bytes:
    return b"".join(
        one[:1] + (3 + len(one.replace(b"NONCE", b"." * NONCE))).to_bytes(4) + one[1:]
        for one in messages.split(b"\n-\n")
        if one
    )


def whole(data: bytes) -> int:
    """How many octets of it are whole messages."""
    at = 0
    while at + 5 <= len(data) and (after := at + 1 + _size(data, at + 1)[0]) <= len(data):
        assert after >= at + 5
        at = after
    return at


def framed(data: bytes, cuts: bytes) -> None:
    """What is handed on of a stream is its beginning, in whole messages, and all of them where nothing is wrong."""
    frames, handed, at = Frames(), b"", 0
    try:
        for size in (*cuts, len(data)):
            handed += frames.whole(data[at : at + size])
            at += size
    except Nonsense:
        assert handed == data[: whole(handed)]
        return
    assert handed == data[: whole(data)]


async def talk(pieces: list[bytes]) -> None:
    one = Talk()
    try:
        await one.say(*pieces)
        if one.wire.gone:
            assert one.asking.done(), "who asks is told"
    finally:
        await one.end()
    assert one.asking.done()
    if not one.asking.cancelled():
        one.asking.result()


_loop = asyncio.new_event_loop()


def one(data: bytes) -> None:
    pieces = pieces_of(data)
    framed(b"".join(pieces), data[:16])
    _loop.run_until_complete(talk(pieces))
