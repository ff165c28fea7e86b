"""What a server says is looked at before the driver believes it.

asyncpg's parser is compiled and takes a server at its word. A length below zero has it read from before its buffer, a
text without an end from behind it, and a word of SCRAM that is not due from nowhere at all: the process dies of it, and
everybody who waits for the gateway with it. A broken proxy or a port that belongs to somebody else by now is enough.
So each message is weighed before it is handed on, whole, and a connection that says nonsense once is not read on: it is
closed, and who waits is told so.

    head    one octet of kind, four of length that count themselves: only kinds we can be answered with, and lengths as
            libpq has them, which takes 30,000 octets for the most where it is no row or text
    body    what the driver reads without looking where it ends: texts, numbers, fields of a row
    SCRAM   a step follows the one before

What is wrong inside a value (a text that is no UTF-8) the driver sees by itself, but goes on with the connection. Here
that ends it too.

Source: PostgreSQL, "Frontend/Backend Protocol", message formats; `VALID_LONG_MESSAGE_TYPE` of libpq.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from struct import Struct, error
from typing import Any, TypeVar

import asyncpg
from asyncpg import protocol
from asyncpg.exceptions import InterfaceError, PostgresError, ProtocolError

LARGEST = 1 << 26
"""Octets of a row at most. PostgreSQL would send a GiB of them; the largest of ours are some KiB."""
USUAL = 30_000
"""Octets of what is neither a row nor a text of the server's."""

_head = Struct(">BI").unpack_from
_int16 = Struct(">h").unpack_from
_int32 = Struct(">i").unpack_from
_HEAD = 5

_SASL, _SASL_CONTINUE, _SASL_FINAL = 10, 11, 12
_SALTED = 5

_T = TypeVar("_T")


class Nonsense(ProtocolError):  # type: ignore[misc]  # noqa: N818 - the state is the name
    """The server has said what no PostgreSQL says."""


class Frames:
    """The messages of one connection, as they come."""

    def __init__(self) -> None:
        self._begun = bytearray()
        """The message that is not whole yet."""
        self._size = 0
        """How many octets it takes to say more about it."""
        self._sasl = 0
        """The last step of SCRAM."""

    def whole(self, data: bytes) -> bytes:
        """As much of what came, `data` last, as is whole messages. Raises `Nonsense`."""
        if self._begun:
            self._begun += data
            if len(self._begun) < self._size:
                return b""
            data = bytes(self._begun)
            self._begun.clear()
        at, end = 0, len(data)
        self._size = _HEAD
        while end - at >= _HEAD:
            kind, length = _head(data, at)
            most, check = _KINDS[kind]
            if not 4 <= length <= most:
                raise Nonsense(_WORDS)
            after = at + 1 + length
            if after > end:
                self._size = after - at
                break
            if check is not None:
                check(self, data, at + _HEAD, after)
            at = after
        if at == end:
            return data
        self._begun += data[at:]
        return data[:at]

    def _row(self, data: bytes, at: int, end: int) -> None:
        try:
            (fields,) = _int16(data, at)
            at += 2
            for _ in range(fields):
                (length,) = _int32(data, at)
                at += 4
                if length > 0:
                    at += length
                elif length < -1:  # which says that there is none
                    raise Nonsense(_WORDS)
        except error:  # behind all there is
            raise Nonsense(_WORDS) from None
        if at != end or fields < 0:
            raise Nonsense(_WORDS)

    def _texts(self, data: bytes, at: int, end: int) -> None:
        """Text after text, and nothing after the last: what an error is made of."""
        if data[at:end] != b"\0" and not data.endswith(b"\0\0", at, end):
            raise Nonsense(_WORDS)

    def _one_text(self, data: bytes, at: int, end: int) -> None:
        if data.find(b"\0", at, end) != end - 1:
            raise Nonsense(_WORDS)

    def _setting(self, data: bytes, at: int, end: int) -> None:
        if data.count(b"\0", at, end) != 2 or data[end - 1]:
            raise Nonsense(_WORDS)

    def _notification(self, data: bytes, at: int, end: int) -> None:
        self._setting(data, at + 4, end)

    def _state(self, data: bytes, at: int, end: int) -> None:
        if end - at != 1 or data[at] not in b"ITE":
            raise Nonsense(_WORDS)

    def _key(self, data: bytes, at: int, end: int) -> None:
        if end - at < 8:
            raise Nonsense(_WORDS)

    def _empty(self, data: bytes, at: int, end: int) -> None:
        if at != end:
            raise Nonsense(_WORDS)

    def _parameters(self, data: bytes, at: int, end: int) -> None:
        if end - at < 2 or end - at != 2 + 4 * _int16(data, at)[0]:
            raise Nonsense(_WORDS)

    def _columns(self, data: bytes, at: int, end: int) -> None:
        if end - at < 2:
            raise Nonsense(_WORDS)
        (columns,) = _int16(data, at)
        at += 2
        for _ in range(columns):
            name = data.find(b"\0", at, end)
            if name < 0:
                raise Nonsense(_WORDS)
            at = name + 19
        if at != end or columns < 0:
            raise Nonsense(_WORDS)

    def _authentication(self, data: bytes, at: int, end: int) -> None:
        if end - at < 4:
            raise Nonsense(_WORDS)
        (step,) = _int32(data, at)
        if step == _SALTED:
            right = end - at == 8
        elif step == _SASL:
            right = data.endswith(b"\0\0", at, end) and not self._sasl
        elif step in (_SASL_CONTINUE, _SASL_FINAL):
            right = self._sasl == step - 1
        else:
            right = True
        if not right:
            raise Nonsense(_WORDS)
        if step in (_SASL, _SASL_CONTINUE, _SASL_FINAL):
            self._sasl = step


_WORDS = "what it says is no answer of PostgreSQL's"
_TOLD = (PostgresError, InterfaceError, OSError)
"""What the driver raises where the connection is still what it was, or known to be none any more."""

_Check = Callable[[Frames, bytes, int, int], None]
_ANSWERS: dict[str, tuple[int, _Check | None]] = {
    "R": (USUAL, Frames._authentication),
    "K": (USUAL, Frames._key),
    "S": (USUAL, Frames._setting),
    "Z": (USUAL, Frames._state),
    "v": (USUAL, None),
    "1": (USUAL, Frames._empty),
    "2": (USUAL, Frames._empty),
    "3": (USUAL, Frames._empty),
    "n": (USUAL, Frames._empty),
    "s": (USUAL, Frames._empty),
    "I": (USUAL, Frames._empty),
    "C": (USUAL, Frames._one_text),
    "t": (4 + 2 + 4 * 0x7FFF, Frames._parameters),
    "T": (LARGEST, Frames._columns),
    "D": (LARGEST, Frames._row),
    "E": (LARGEST, Frames._texts),
    "N": (LARGEST, Frames._texts),
    "A": (LARGEST, Frames._notification),
}
"""Everything but what COPY and function calls are answered with, which we do not use."""
_KINDS = [_ANSWERS.get(chr(kind), (0, None)) for kind in range(256)]


class Protocol(protocol.Protocol):  # type: ignore[misc]
    """The driver's, with a look at what it is given."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._frames = Frames()
        self._said: Nonsense | None = None

    def data_received(self, data: bytes) -> None:
        """As asyncio says it."""
        if self._said is not None:
            return
        try:
            if whole := self._frames.whole(bytes(data)):
                super().data_received(whole)
        except Nonsense as error:
            self._give_up(error)
        except Exception as error:  # an answer nobody asked for
            self._give_up(Nonsense(_WORDS), error)

    async def prepare(self, *given: Any, **named: Any) -> Any:
        """As the driver has it. So are the others; each raises `Nonsense` for an answer that is."""
        return await self._sensible(super().prepare(*given, **named))

    async def bind_execute(self, *given: Any, **named: Any) -> Any:  # noqa: D102
        return await self._sensible(super().bind_execute(*given, **named))

    async def bind_execute_many(self, *given: Any, **named: Any) -> Any:  # noqa: D102
        return await self._sensible(super().bind_execute_many(*given, **named))

    async def query(self, *given: Any, **named: Any) -> Any:  # noqa: D102
        return await self._sensible(super().query(*given, **named))

    async def _sensible(self, answer: Awaitable[_T]) -> _T:
        try:
            return await answer
        except Exception as error:
            if self._said is None and not isinstance(error, _TOLD):
                self._give_up(Nonsense(_WORDS), error)
            if self._said is not None:
                raise self._said from self._said.__cause__
            raise

    def _give_up(self, said: Nonsense, cause: Exception | None = None) -> None:
        said.__cause__ = cause
        self._said = said
        with contextlib.suppress(Exception):  # the driver's own words, where it was in the middle of some
            self.connection_lost(said)
        self.abort()


# It is looked up there for each new connection. The handshake has answers already, so later would be too late.
# asyncpg 0.32 does not check by itself; `tests/store/test_postgresql_frames.py` says when a newer one does.
asyncpg.protocol.Protocol = Protocol
