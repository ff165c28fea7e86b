"""Frames are read as they pass: cut anywhere, whole or in pieces, and what must not be is found."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.websocket import PONG, FrameReader, Violation, accept, control, is_key, unmasked
from tests.rig.frames import BINARY, CLOSE, KEY, MASK, PING, TEXT, frame

OURS = b"our-ping"
LIMIT = 1000


def reader(*, masked: bool = True, limit: int = LIMIT) -> FrameReader:
    return FrameReader(masked=masked, text=masked, limit=limit, own_pong=OURS)


def fed(source: FrameReader, data: bytes, cuts: list[int]) -> tuple[bytes, int]:
    """What goes on of `data`, cut at `cuts`, and the code it ends with; 0 for none."""
    passed = b""
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        if cut <= at:
            continue
        try:
            passed += source.feed(data[at:cut])
        except Violation as violation:
            return passed + violation.passed, violation.code
        at = cut
    return passed, 0


messages = st.lists(
    st.one_of(
        st.tuples(st.just(TEXT), st.text(max_size=60).map(str.encode)),
        st.tuples(st.just(BINARY), st.binary(max_size=200)),
        st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125)),
        st.tuples(st.just(PONG), st.just(OURS)),
    ),
    max_size=6,
)
cuts = st.lists(st.integers(0, 1500), max_size=12)


@given(messages, st.lists(st.integers(1, 40), min_size=1, max_size=5), cuts, st.booleans())
def test_good_frames_go_on_as_they_came(
    said: list[tuple[int, bytes]], sizes: list[int], cuts: list[int], masked: bool
) -> None:
    mask = MASK if masked else None
    sent = expected = b""
    for opcode, payload in said:
        if opcode >= CLOSE:
            spelled = frame(opcode, payload, mask=mask)
        else:
            pieces = [payload[at : at + sizes[0]] for at in range(0, len(payload), sizes[0])] or [b""]
            spelled = b""
            for index, piece in enumerate(pieces):
                last = index == len(pieces) - 1
                spelled += frame(opcode if index == 0 else 0, piece, final=last, mask=mask)
        sent += spelled
        expected += b"" if (opcode, payload) == (PONG, OURS) else spelled
    source = reader(masked=masked)
    assert fed(source, sent, cuts) == (expected, 0)
    assert source.between
    assert not source.closed


@given(st.binary(max_size=80), st.lists(st.integers(0, 120), max_size=6), st.integers(1, 30))
def test_text_is_what_python_calls_utf8(payload: bytes, cuts: list[int], size: int) -> None:
    try:
        payload.decode()
        expected = 0
    except UnicodeDecodeError:
        expected = 1007
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    spelled = b"".join(frame(0 if at else TEXT, piece, final=at == len(pieces) - 1) for at, piece in enumerate(pieces))
    assert fed(reader(), spelled, cuts)[1] == expected
    assert fed(reader(), b"".join((spelled, frame(PING))), cuts)[1] == expected


@given(st.binary(max_size=300), cuts)
def test_any_bytes_do_no_harm_and_mean_the_same_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    whole = reader()
    passed, code = fed(whole, data, [])
    pieces = reader()
    again, code_again = fed(pieces, data, cuts)
    assert code == code_again
    assert again.startswith(passed)
    assert code or again == passed


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x", mask=None), 1002),
        (frame(TEXT, b"x", reserved=0x40), 1002),
        (frame(TEXT, b"x", reserved=0x20), 1002),
        (frame(BINARY, b"x", reserved=0x10), 1002),
        (frame(3, b"x"), 1002),
        (frame(7, b"x"), 1002),
        (frame(11, b"x"), 1002),
        (frame(15), 1002),
        (frame(PING, bytes(126)), 1002),
        (frame(PING, b"x", final=False), 1002),
        (frame(CLOSE, b"", final=False), 1002),
        (frame(CLOSE, b"\x03"), 1002),
        (frame(CLOSE, (999).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (1005).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (1006).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (1015).to_bytes(2, "big")), 1002),
        (frame(CLOSE, (5000).to_bytes(2, "big")), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
        (frame(0, b"a continuation of nothing"), 1002),
        (frame(TEXT, b"x", final=False) + frame(TEXT, b"y"), 1002),
        (frame(BINARY, bytes(LIMIT + 1)), 1009),
        (frame(BINARY, bytes(LIMIT), final=False) + frame(0, b"x"), 1009),
        (b"\x82\xff" + (1 << 63).to_bytes(8, "big") + MASK, 1002),
        (b"\x82\xff" + ((1 << 63) - 1).to_bytes(8, "big") + MASK, 1009),
        (b"\x82\xff" + (5).to_bytes(8, "big") + MASK + b"short", 1002),
        (b"\x82\xfe" + (125).to_bytes(2, "big") + MASK + bytes(125), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(TEXT, b"\xc0\xae"), 1007),
        (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
        (frame(TEXT, b"\xe2\x82"), 1007),
        (frame(TEXT, b"\xe2\x82", final=False) + frame(0, b"x"), 1007),
        (frame(TEXT, b"\xe2\x82", final=False) + frame(0, b""), 1007),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 10_000])
def test_case_71_what_must_not_be(data: bytes, code: int, size: int) -> None:
    good = frame(TEXT, "gut 🙂".encode()) + frame(BINARY, b"\xff")
    source = reader()
    passed, found = fed(source, good + data, list(range(0, len(good + data), size)))
    assert found == code
    assert passed.startswith(good)
    assert source.feed(frame(TEXT, b"more")) == b"" or not source.between


def test_a_mistake_is_found_before_its_frame_is_whole() -> None:
    source = reader(limit=0)
    head = frame(TEXT, bytes(10_000))[:8]
    assert source.feed(head) == head
    with pytest.raises(Violation) as raised:
        source.feed(unmasked(b"good\xff and so on", MASK))
    assert raised.value.code == 1007
    assert not source.between


def test_a_character_may_be_cut_by_frames_and_control_frames_stand_between() -> None:
    source = reader()
    euro = "€".encode()
    data = (
        frame(TEXT, euro[:1], final=False)
        + frame(PING, b"\xff")
        + frame(0, euro[1:2], final=False)
        + frame(0, euro[2:])
    )
    assert fed(source, data, list(range(len(data)))) == (data, 0)


def test_nothing_is_kept_of_a_message() -> None:
    source = FrameReader(masked=True)
    size = 64 * 1024 * 1024
    block = random.Random(1).randbytes(65_536)
    tracemalloc.start()
    try:
        source.feed(b"\x82\xff" + size.to_bytes(8, "big") + MASK)
        for _ in range(size // len(block)):
            assert source.feed(block) is block
        assert tracemalloc.get_traced_memory()[1] < 65_536
    finally:
        tracemalloc.stop()
    assert source.between


def test_after_a_close_nothing_goes_on() -> None:
    source = reader()
    last = frame(CLOSE, b"\x03\xe8bye")
    assert source.feed(last + frame(TEXT, b"more")) == last
    assert source.closed
    assert source.feed(frame(TEXT, b"more")) == b""


def test_what_we_say_ourselves() -> None:
    assert control(PING, b"hi") == frame(PING, b"hi", mask=None)
    assert control(CLOSE, b"\x03\xf0", MASK) == frame(CLOSE, b"\x03\xf0")
    assert accept(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3


@pytest.mark.parametrize("key", [b"", b"x", KEY[:-1], KEY + b"=", b"dGhlIHNhbXBsZSBub25jZR==", KEY.replace(b"G", b"-")])
def test_a_key_is_sixteen_bytes(key: bytes) -> None:
    assert is_key(KEY)
    assert not is_key(key)
