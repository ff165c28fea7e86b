"""WebSocket frames (RFC 6455, section 5), read as they pass: nothing is kept, nothing is joined.

A reader is given the bytes of one direction as they come and gives back what may go on. It copies no payload; what it
holds is the head of a frame that is not whole yet, or one control frame, 139 bytes at most. So it always knows whether
a frame of our own may be put in between, and a pong to a ping of ours never reaches the service.

No extension is ever agreed upon, so every reserved bit is a mistake and no payload is compressed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from codecs import utf_8_decode
from typing import Final

CLOSE, PING, PONG = 8, 9, 10

GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
INVALID_PAYLOAD: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
"""RFC 6455, section 7.4.1."""

_TEXT = 1
_FINAL = 0x80
_RESERVED = 0x70
_LONGEST_CONTROL = 125
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")


class Violation(Exception):  # noqa: N818 - the state is the name
    """A frame that must not be. `code`: why, for a Close; `passed`: the bytes before it that may go on."""

    def __init__(self, code: int, passed: bytes) -> None:
        super().__init__(code)
        self.code = code
        self.passed = passed


class FrameReader:
    """Reads the frames of one direction."""

    __slots__ = (
        "_checks",
        "_final",
        "_held",
        "_left",
        "_limit",
        "_mask",
        "_masked",
        "_open",
        "_own_pong",
        "_rest",
        "_size",
        "_text",
        "closed",
        "over",
    )

    def __init__(self, *, masked: bool, text: bool = False, limit: int = 0, own_pong: bytes | None = None) -> None:
        """`masked`: whether frames are, as a client's must be and a service's must not. `text`: whether text is checked
        for being UTF-8. `limit`: bytes of the largest message, 0 for any. `own_pong`: payload of pongs that are ours.
        """
        self._masked = masked
        self._checks = text
        self._limit = limit
        self._own_pong = own_pong
        self._held = b""
        """The beginning of a frame that cannot be judged yet."""
        self._left = 0
        """Bytes of payload still to come in the present data frame."""
        self._open = False
        """Whether a message has begun whose final frame is still to come."""
        self._size = 0
        """Bytes of the present message."""
        self._text = False
        self._final = True
        self._mask = b""
        self._rest = b""
        """The beginning of a character whose end is still to come."""
        self.closed = False
        """Whether a Close has passed."""
        self.over = False
        """Whether nothing more is read: after a Close, or a violation."""

    @property
    def between(self) -> bool:
        """Whether what was given back so far ends where a frame does."""
        return not self._left

    def feed(self, data: bytes) -> bytes:
        """Read some bytes; those that may go on. Raises `Violation`, after which it reads nothing more."""
        left = self._left
        if left >= len(data) and left and not self._text:
            self._left = left - len(data)
            return data
        return self._frames(self._held + data if self._held else data)

    def _frames(self, data: bytes) -> bytes:
        if self.over:
            return b""
        end = len(data)
        at = 0
        """Of the next byte to read."""
        frame = 0
        """Where the present frame began, if in `data`."""
        begun = not self._left
        pieces: list[bytes] = []
        """What goes on of the bytes before `kept`."""
        kept = 0
        self._held = b""
        try:
            while at < end:
                if self._left:
                    size = min(self._left, end - at)
                    self._left -= size
                    if self._text:
                        self._check(data[at : at + size])
                    at += size
                    continue
                frame, begun = at, True
                if end - at < 2:
                    break
                head = data[at]
                length = data[at + 1] & 0x7F
                opcode = head & 0x0F
                if head & _RESERVED or (data[at + 1] >= _FINAL) is not self._masked:
                    raise _Wrong(PROTOCOL_ERROR)
                if opcode >= CLOSE:
                    if opcode > PONG or not head & _FINAL or length > _LONGEST_CONTROL:
                        raise _Wrong(PROTOCOL_ERROR)
                    size = 2 + 4 * self._masked + length
                    if end - at < size:
                        break
                    payload = data[at + size - length : at + size]
                    if self._masked:
                        payload = unmasked(payload, data[at + 2 : at + 6])
                    if opcode == CLOSE:
                        _check_close(payload)
                        self.closed = self.over = True
                        end = at = at + size
                    elif opcode == PONG and payload == self._own_pong:
                        pieces.append(data[kept:at])
                        kept = at = at + size
                    else:
                        at += size
                    continue
                size = 2 + 4 * self._masked + (0 if length < 126 else 2 if length == 126 else 8)
                if opcode > 2 or (opcode == 0) is not self._open:
                    raise _Wrong(PROTOCOL_ERROR)
                if end - at < size:
                    break
                if length == 126:
                    length = int.from_bytes(data[at + 2 : at + 4], "big")
                    if length < 126:
                        raise _Wrong(PROTOCOL_ERROR)
                elif length == 127:
                    length = int.from_bytes(data[at + 2 : at + 10], "big")
                    if not 0xFFFF < length < 1 << 63:
                        raise _Wrong(PROTOCOL_ERROR)
                self._begin(opcode, bool(head & _FINAL), length)
                if self._masked:
                    self._mask = data[at + size - 4 : at + size]
                at += size
        except _Wrong as wrong:
            pieces.append(data[kept : max(kept, frame)] if begun else b"")
            self._left = 0 if begun else 1
            self.over = True
            raise Violation(wrong.code, b"".join(pieces)) from None
        if at < end:
            self._held = data[at:]
        if not kept:
            return data if at == len(data) else data[:at]
        pieces.append(data[kept:at])
        return b"".join(pieces)

    def _begin(self, opcode: int, final: bool, length: int) -> None:
        """A data frame begins."""
        if opcode:
            self._size = 0
            self._text = self._checks and opcode == _TEXT
        self._size += length
        if 0 < self._limit < self._size:
            raise _Wrong(TOO_BIG)
        self._left = length
        self._open = not final
        self._final = final
        if self._text and not length:
            self._check(b"")

    def _check(self, piece: bytes) -> None:
        """Whether a piece of text, whose bytes are no longer counted in `_left`, is UTF-8."""
        mask = self._mask
        last = self._final and not self._left
        if piece:
            plain = unmasked(piece, mask) if self._masked else piece
            turn = len(piece) & 3
            self._mask = mask[turn:] + mask[:turn]
            if plain.isascii() and not self._rest:
                self._text = not last
                return
        else:
            plain = b""
        plain = self._rest + plain
        try:
            used = utf_8_decode(plain, "strict", last)[1]
        except UnicodeDecodeError:
            raise _Wrong(INVALID_PAYLOAD) from None
        self._rest = plain[used:]
        self._text = not last


class _Wrong(Exception):  # noqa: N818
    def __init__(self, code: int) -> None:
        self.code = code


def _check_close(payload: bytes) -> None:
    """What a Close says: nothing, or a code that may be sent and a reason in UTF-8 (RFC 6455, section 5.5.1)."""
    if not payload:
        return
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise _Wrong(PROTOCOL_ERROR)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise _Wrong(INVALID_PAYLOAD) from None


def unmasked(payload: bytes, mask: bytes) -> bytes:
    """`payload` with `mask` (four bytes) taken off, or put on: one operation on two long numbers."""
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def control(opcode: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """A control frame; masked where `mask` (four bytes) is given, as everything towards a service must be."""
    if mask is None:
        return bytes((_FINAL | opcode, len(payload))) + payload
    return bytes((_FINAL | opcode, _FINAL | len(payload))) + mask + unmasked(payload, mask)


def is_key(value: bytes) -> bool:
    """Whether this is a `Sec-WebSocket-Key`: sixteen bytes in base64."""
    return _KEY.fullmatch(value) is not None


def accept(key: bytes) -> bytes:
    """The `Sec-WebSocket-Accept` that answers `key` (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
