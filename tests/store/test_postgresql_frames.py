"""What a PostgreSQL says is whole, and makes sense, before the driver has it.

`tests/fuzz/fuzz_postgresql.py` tries what nobody thought of.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from struct import pack

import pytest

from gateway.store.postgresql_frames import LARGEST, ROUNDS, USUAL, Frames, Nonsense
from tests.fuzz.__main__ import HERE
from tests.fuzz.fuzz_postgresql import pieces_of
from tests.house.process import ROOT
from tests.rig.postgres_talk import Talk

CORPUS = HERE / "corpus" / "postgresql"


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + pack(">i", 4 + len(body)) + body


def head(kind: str, length: int) -> bytes:
    """Of one whose body is still to come."""
    return kind.encode() + pack(">I", length & 0xFFFFFFFF)


def said(name: str) -> list[bytes]:
    """The pieces of an input of the fuzzer's."""
    return pieces_of((CORPUS / name).read_bytes())


def salted(step: int, rest: bytes = b"") -> bytes:
    """A message of SCRAM."""
    return message("R", pack(">i", step) + rest)


FIRST, SECOND, THIRD = salted(10, b"SCRAM-SHA-256\0\0"), salted(11, b"r=ab,s=eA==,i=4096"), salted(12, b"v=eA==")


@pytest.mark.parametrize("name", ["rows", "errors", "notices", "not-let-in"])
def test_wherever_it_is_cut_whole_messages_come_out_and_all_of_them(name: str) -> None:
    stream = b"".join(said(name))
    ends = set(_ends(stream))
    for cut in range(len(stream) + 1):
        frames = Frames()
        first = frames.whole(stream[:cut])
        assert first == stream[: max(end for end in ends if end <= cut)]
        assert first + frames.whole(stream[cut:]) == stream
    frames = Frames()
    assert b"".join(frames.whole(bytes([octet])) for octet in stream) == stream


def _ends(stream: bytes) -> Iterator[int]:
    at = 0
    yield at
    while at < len(stream):
        at += 1 + int.from_bytes(stream[at + 1 : at + 5])
        yield at


SENSE_AND_NONSENSE = {
    "no such kind": (head("Z", 5), head("z", 5)),
    "an answer to COPY": (head("D", 6), head("d", 6)),
    "a length that does not count itself": (head("1", 4), head("1", 3)),
    "a length below zero": (head("D", 6), head("D", -(1 << 30))),
    "a length just below zero": (head("C", 5), head("C", -1)),
    "a row that never ends": (head("D", LARGEST), head("D", LARGEST + 1)),
    "a setting that never ends": (head("S", USUAL), head("S", USUAL + 1)),
    "a state and more": (head("Z", 5), head("Z", 6)),
    "half a key": (head("K", 12), head("K", 8)),
    "an error without an end": (message("E", b"SERROR\0\0"), message("E", b"SERROR\0")),
    "an error whose last word has none": (message("E", b"\0"), message("E", b"M")),
    "a setting without a value": (message("S", b"a\0b\0"), message("S", b"ab\0")),
    "a setting whose value has no end": (message("S", b"a\0\0"), message("S", b"a\0b\0c")),
    "news without a word": (message("A", b"\0\0\0\1a\0b\0"), message("A", b"\0\0\0\0a\0")),
    "half a salt": (salted(5, b"salt"), salted(5, b"sal")),
    "ways to sign in without an end": (FIRST, salted(10, b"SCRAM-SHA-256\0")),
    "SCRAM from its middle": (FIRST + SECOND, SECOND),
    "SCRAM from its end": (FIRST + SECOND + THIRD, FIRST + THIRD),
    "SCRAM that ends twice": (FIRST + SECOND + THIRD, FIRST + SECOND + THIRD * 2),
    "SCRAM that begins twice": (FIRST, FIRST * 2),
    "too much work": (
        FIRST + salted(11, b"r=ab,s=eA==,i=%d" % ROUNDS),
        FIRST + salted(11, b"r=ab,s=eA==,i=%d" % (ROUNDS + 1)),
    ),
    "too much work, and little": (
        FIRST + salted(11, b"r=ab,s=eA==,i=9"),
        FIRST + salted(11, b"r=ab,s=eA==,i=1000000000=,i=9"),
    ),
    "no end of work": (FIRST + salted(11, b"r=ab,s=eA==,i=9"), FIRST + salted(11, b"r=ab,s=eA==,i=99999999999")),
}


@pytest.mark.parametrize(("sense", "nonsense"), SENSE_AND_NONSENSE.values(), ids=SENSE_AND_NONSENSE)
def test_nonsense_is_told_from_sense(sense: bytes, nonsense: bytes) -> None:
    Frames().whole(sense)
    with pytest.raises(Nonsense):
        Frames().whole(nonsense)


@pytest.mark.parametrize("name", ["row-of-less-than-nothing", "no-utf-8", "field-of-less-than-nothing"])
async def test_who_asked_is_told_and_the_connection_is_not_read_on(name: str) -> None:
    talk = Talk()
    await talk.say(*said(name))
    assert isinstance(talk.told[0], Nonsense)
    assert talk.wire.gone
    assert not talk.got
    talk.protocol.data_received(b"".join(said("rows")))
    await talk.end()
    assert not talk.got


async def test_an_answer_that_nobody_asked_for_ends_it() -> None:
    talk = Talk()
    await talk.say(*said("nobody-asked"))
    assert len(talk.got) == 1
    assert talk.wire.gone
    await talk.end()


async def test_an_error_of_the_servers_ends_nothing() -> None:
    talk = Talk()
    await talk.say(*said("errors"))
    assert [getattr(error, "sqlstate", "") for error in talk.told[:2]] == ["42P01", "23505"]
    assert talk.got == ["BEGIN", talk.got[-1]]
    assert not talk.wire.gone
    await talk.end()


ALONE = """\
import asyncio, resource
from asyncpg.protocol.protocol import Protocol
from tests.store.test_postgresql_frames import Talk, said

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

async def main():
    await Talk(Protocol).say(*said("row-of-less-than-nothing"))

asyncio.run(main())
"""


def test_the_driver_alone_dies_of_it() -> None:
    """Where this fails, asyncpg looks at lengths by itself: then `postgresql_frames` may go, if the fuzzer agrees."""
    ended = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT), ended.stderr.decode()
