"""WebSocket frames: the same goes on however they are cut, nothing is changed, and little is held back.

The input has two parts: masked and where to cut, and the frames.
"""

from __future__ import annotations

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


def one(data: bytes) -> None:
    places, frames = split(data, 2)
    masked = not places.startswith(b"U")
    limit = 64 if b"L" in places[:2] else 0
    whole = read([frames], masked, limit)
    assert frames.startswith(whole[0]), whole
    assert whole[1] in (0, 1002, 1007, 1009)
    for pieces in (cut(frames, places), [frames[at : at + 1] for at in range(len(frames))]):
        passed, code, closed = read(pieces, masked, limit)
        assert (code, closed) == whole[1:], (whole, passed, code)
        if not code:
            assert passed == whole[0]
        else:
            assert frames.startswith(passed), (whole, passed)
