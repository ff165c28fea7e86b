"""WebSocket frames: the same goes on however they are cut, nothing is changed, and little is held back.

The input has two parts: masked and where to cut, and the frames.
"""

from __future__ import annotations

import codecs

from gateway.wire.websocket import FrameReader, Violation
from tests.fuzz.memory import cut, split

HELD = 139


def read(pieces: list[bytes], masked: bool, limit: int) -> tuple[bytes, int, bool]:
    """What goes on, the code of a violation or 0, and whether a Close has passed."""
    reader = FrameReader(masked=masked, text=True, limit=limit)
    passed = b""
    given = 0
    for piece in pieces:
        given += len(piece)
        try:
            passed += reader.feed(piece)
        except Violation as violation:
            assert reader.feed(b"\x81\x00") == b""
            return passed + violation.passed, violation.code, reader.closed
        assert reader.over or given - len(passed) <= HELD, (given, len(passed))
    return passed, 0, reader.closed


def is_right(frames: bytes, masked: bool) -> bool:
    """Whether `frames` are frames as RFC 6455 has them, the last of them perhaps cut; written from its section 5."""
    message: bytearray | None = None
    text = False
    at = 0
    while at + 2 <= len(frames):
        first, second = frames[at], frames[at + 1]
        final, opcode, length = bool(first & 0x80), first & 0x0F, second & 0x7F
        at += 2
        if first & 0x70 or bool(second & 0x80) is not masked or opcode not in (0, 1, 2, 8, 9, 10):
            return False
        if opcode >= 8 and (not final or length > 125):
            return False
        if (opcode in (1, 2) and message is not None) or (opcode == 0 and message is None):
            return False
        if length >= 126:
            size = 2 if length == 126 else 8
            if at + size > len(frames):
                return True
            length = int.from_bytes(frames[at : at + size], "big")
            at += size
            if length < (126 if size == 2 else 65536) or length >= 1 << 63:
                return False
        mask = frames[at : at + 4] if masked else bytes(4)
        at += 4 * masked
        payload = bytes(octet ^ mask[place % 4] for place, octet in enumerate(frames[at : at + length]))
        whole = at + length <= len(frames)
        at += length
        if opcode == 8:
            return not whole or (is_right_close(payload) and at == len(frames))
        if opcode >= 8:
            continue
        if opcode:
            message, text = bytearray(), opcode == 1
        assert message is not None
        message += payload
        if text:
            try:
                codecs.getincrementaldecoder("utf-8")().decode(bytes(message), final and whole)
            except UnicodeDecodeError:
                return False
        if final:
            message = None
    return True


def is_right_close(payload: bytes) -> bool:
    """RFC 6455, sections 5.5.1 and 7.4; codes of the IANA registry."""
    if not payload:
        return True
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in (*range(1000, 1004), *range(1007, 1015)) or 3000 <= code < 5000):
        return False
    try:
        payload[2:].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def one(data: bytes) -> None:
    places, frames = split(data, 2)
    masked = not places.startswith(b"U")
    limit = 64 if b"L" in places[:2] else 0
    whole = read([frames], masked, limit)
    assert frames.startswith(whole[0]), whole
    assert whole[1] in (0, 1002, 1007, 1009)
    if not whole[1]:
        assert is_right(whole[0], masked), whole
    elif whole[1] != 1009:
        assert not is_right(frames, masked), whole
    for pieces in (cut(frames, places), [frames[at : at + 1] for at in range(len(frames))]):
        passed, code, closed = read(pieces, masked, limit)
        assert (code, closed) == whole[1:], (whole, passed, code)
        if not code:
            assert passed == whole[0]
        else:
            assert frames.startswith(passed), (whole, passed)
