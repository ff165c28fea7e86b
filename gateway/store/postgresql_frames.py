"""What a server says is looked at before the driver believes it.

asyncpg's parser is compiled and takes a server at its word. A length below zero has it read from before its buffer, a
text without an end from behind it, and a word of SCRAM that is not due from nowhere at all: the process dies of it, and
everybody who waits for the gateway with it. A broken proxy or a port that belongs to somebody else by now is enough.
So each message is weighed before it is handed on, whole, and a connection that says nonsense once is not read on: it is
closed, and who waits is told so.

    head    one octet of kind, four of length that count themselves: only kinds we can be answered with, and lengths as
            libpq has them, which takes 30,000 octets for the most where it is no row or text
    body    what the driver reads out of the stream piece by piece: texts, and numbers
    SCRAM   a step follows the one before, and asks for no more work than somebody would want done

What is wrong inside a value (a text that is no UTF-8) the driver sees by itself, but goes on with the connection. Here
that ends it too.

Source: PostgreSQL, "Frontend/Backend Protocol", message formats; `VALID_LONG_MESSAGE_TYPE` of libpq.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from struct import Struct
from typing import Any, TypeVar

import asyncpg
from asyncpg import protocol
from asyncpg.exceptions import InterfaceError, PostgresError, ProtocolError

LARGEST = 1 << 26
"""Octets of a row at most. PostgreSQL would send a GiB of them; the largest of ours are some KiB."""
USUAL = 30_000
"""Octets of what is neither a row nor a text of the server's."""

_head = Struct(">BI").unpack_from
_int32 = Struct(">i").unpack_from
_HEAD = 5

ROUNDS = 1_000_000
"""Of hashing a password, at most: each takes the driver a microsecond, and everybody else waits. The server's own
`scram_iterations` are 4096."""
_salting = re.compile(rb"r=[^,]+,s=[^,]+,i=([0-9]{1,7})").fullmatch

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
            least, most, check = _KINDS[kind]
            if not least <= length <= most:
                raise Nonsense(NONSENSE)
            after = at + 1 + length
            if after > end:
                self._size = after - at
                break
            if check is not None and not check(self, data, at + _HEAD, after):
                raise Nonsense(NONSENSE)
            at = after
        if at == end:
            return data
        self._begun += data[at:]
        return data[:at]

    def _texts(self, data: bytes, at: int, end: int) -> bool:
        """Text after text, and an octet of zero for the end of them: so is an error."""
        return data[at:end] == b"\0" or data.endswith(b"\0\0", at, end)

    def _two_texts(self, data: bytes, at: int, end: int) -> bool:
        return data.count(b"\0", at, end) == 2 and data[end - 1] == 0

    def _notification(self, data: bytes, at: int, end: int) -> bool:
        return self._two_texts(data, at + 4, end)

    def _authentication(self, data: bytes, at: int, end: int) -> bool:
        (step,) = _int32(data, at)
        if step == _SALTED:
            return end - at == 8
        if step not in (_SASL, _SASL_CONTINUE, _SASL_FINAL):
            return True
        before, self._sasl = self._sasl, step
        if step == _SASL:
            return data.endswith(b"\0\0", at, end) and not before
        if step == _SASL_CONTINUE:
            salting = _salting(data, at + 4, end)
            return before == _SASL and salting is not None and int(salting[1]) <= ROUNDS
        return before == _SASL_CONTINUE


NONSENSE = "what it says is no answer of PostgreSQL's"
_TOLD = (PostgresError, InterfaceError, OSError)
"""What the driver raises where the connection is still what it was, or known to be none any more."""

_Check = Callable[[Frames, bytes, int, int], bool]
_ANSWERS: dict[str, tuple[int, int, _Check | None]] = {
    "R": (8, USUAL, Frames._authentication),
    "K": (12, USUAL, None),
    "S": (6, USUAL, Frames._two_texts),
    "Z": (5, 5, None),
    "v": (12, USUAL, None),
    **dict.fromkeys("123nsI", (4, 4, None)),
    "C": (5, USUAL, None),
    "t": (6, 6 + 4 * 0x7FFF, None),
    "T": (6, LARGEST, None),
    "D": (6, LARGEST, None),
    "E": (5, LARGEST, Frames._texts),
    "N": (5, LARGEST, Frames._texts),
    "A": (10, LARGEST, Frames._notification),
}
"""The length that each has at least and at most, and how its body is looked at. Answers to COPY and to function calls
are not among them: we do neither. Rows and what describes them are left to the driver, which takes each of these out of
the stream first, and then knows where it ends."""
_KINDS = [_ANSWERS.get(chr(kind), (0, -1, None)) for kind in range(256)]


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
            self._give_up(Nonsense(NONSENSE), error)

    async def prepare(self, *given: Any, **named: Any) -> Any:
        """As the driver has it. So are the others; each raises `Nonsense` for an answer that is."""
        return await self.sensible(super().prepare(*given, **named))

    async def bind_execute(self, *given: Any, **named: Any) -> Any:  # noqa: D102
        return await self.sensible(super().bind_execute(*given, **named))

    async def bind_execute_many(self, *given: Any, **named: Any) -> Any:  # noqa: D102
        return await self.sensible(super().bind_execute_many(*given, **named))

    async def query(self, *given: Any, **named: Any) -> Any:  # noqa: D102
        return await self.sensible(super().query(*given, **named))

    async def sensible(self, answer: Awaitable[_T]) -> _T:
        """`answer`. Raises `Nonsense` where the driver stumbles over it, and ends the connection."""
        try:
            return await answer
        except Exception as error:
            if self._said is None and not isinstance(error, _TOLD):
                self._give_up(Nonsense(NONSENSE), error)
            if self._said is not None:
                raise self._said from self._said.__cause__
            raise

    def _give_up(self, said: Nonsense, cause: Exception | None = None) -> None:
        said.__cause__ = cause
        self._said = said
        for _ in range(2):  # it words what happened for whoever waits; where it fails at that, it says just this
            with contextlib.suppress(Exception):
                self.connection_lost(said)
        self.abort()


# It is looked up there for each new connection. The handshake has answers already, so later would be too late.
# asyncpg 0.32 does not check by itself; `tests/store/test_postgresql_frames.py` says when a newer one does.
asyncpg.protocol.Protocol = Protocol
