"""HTTP/1.1 as narrow as it can be read (RFC 9112, every tolerance left out).

A parser that guesses cannot witness for a gateway: one exact line end, one exact framing, no extensions, no folding.
"""

from __future__ import annotations

import re
from asyncio import IncompleteReadError
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Header = tuple[bytes, bytes]
ReadUntil = Callable[[bytes], Awaitable[bytes]]
ReadExactly = Callable[[int], Awaitable[bytes]]
ReadRest = Callable[[], Awaitable[bytes]]

_TOKEN = rb"[A-Za-z0-9!#$%&'*+\-.^_`|~]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) (HTTP/1\.[01])")
_STATUS_LINE = re.compile(rb"(HTTP/1\.1) ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_HEADER_LINE = re.compile(rb"(" + _TOKEN + rb"): ?([^\x00-\x08\x0a-\x1f\x7f]*)")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")
_CHUNK_LINE = re.compile(rb"(0|[1-9A-Fa-f][0-9A-Fa-f]{0,15})\r\n")


class Violation(Exception):
    """The bytes are not the one clear message they should be."""


class Truncated(Violation):
    """The connection ended inside a message."""


@dataclass(slots=True)
class Head:
    """A request or status line and its headers."""

    raw: bytes
    first: tuple[bytes, bytes, bytes]
    headers: tuple[Header, ...]

    def all(self, name: str) -> list[bytes]:
        """Every value of header `name`, in order."""
        wanted = name.lower().encode("ascii")
        return [value for key, value in self.headers if key.lower() == wanted]

    def one(self, name: str) -> bytes:
        """The only value of header `name`."""
        values = self.all(name)
        if len(values) != 1:
            raise AssertionError(f"{name} should come once: {values}")
        return values[0]

    @property
    def names(self) -> set[str]:
        """Header names in lower case."""
        return {key.decode("ascii").lower() for key, _ in self.headers}


@dataclass(slots=True)
class Request(Head):
    """A request as a service received it."""

    connection: int
    """Number of the TCP connection, from 1."""
    number: int
    """Number of the request on its connection, from 1."""
    body: bytes = b""
    complete: bool = False

    @property
    def method(self) -> bytes:
        """The request method."""
        return self.first[0]

    @property
    def target(self) -> bytes:
        """The request target."""
        return self.first[1]


@dataclass(slots=True)
class Response(Head):
    """An answer as a client received it."""

    body: bytes = b""
    interim: list[int] = field(default_factory=list)
    """Status codes of the 1xx answers before it."""

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.first[1])


def parse_request_head(raw: bytes, connection: int, number: int) -> Request:
    """Parse `raw`, which ends with the empty line. Raises `Violation`."""
    line, headers = _split(raw)
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise Violation(f"request line {line[:200]!r}")
    return Request(raw, (match[1], match[2], match[3]), headers, connection, number)


def parse_response_head(raw: bytes) -> Response:
    """Parse `raw`, which ends with the empty line. Raises `Violation`."""
    line, headers = _split(raw)
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise Violation(f"status line {line[:200]!r}")
    return Response(raw, (match[1], match[2], match[3]), headers)


def _split(raw: bytes) -> tuple[bytes, tuple[Header, ...]]:
    lines = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    headers = []
    for line in lines[1:]:
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise Violation(f"header line {line[:200]!r}")
        headers.append((match[1], match[2].strip(b" \t")))
    return lines[0], tuple(headers)


def framing(head: Head) -> int | None:
    """Length of the body as the headers say; None: chunked; -1: they say nothing. Raises `Violation`."""
    lengths, codings = head.all("Content-Length"), head.all("Transfer-Encoding")
    if len(lengths) + len(codings) > 1:
        raise Violation(f"more than one framing: {lengths} {codings}")
    if codings:
        if codings != [b"chunked"]:
            raise Violation(f"transfer coding {codings}")
        return None
    if not lengths:
        return -1
    if not _LENGTH.fullmatch(lengths[0]):
        raise Violation(f"content length {lengths[0]!r}")
    return int(lengths[0])


async def read_chunk(until: ReadUntil, exactly: ReadExactly) -> bytes:
    """One chunk's data; empty for the last, whose trailer section must be empty. Raises `Violation`."""
    line = await until(b"\r\n")
    match = _CHUNK_LINE.fullmatch(line)
    if match is None:
        raise Violation(f"chunk line {line[:200]!r}")
    data = await exactly(int(match[1], 16))
    if await exactly(2) != b"\r\n":
        raise Violation("a chunk not ended by CRLF" if data else "a trailer section")
    return data


async def read_response(until: ReadUntil, exactly: ReadExactly, rest: ReadRest, method: str) -> Response:
    """One final answer to `method`, interim ones noted. Raises `Violation`, `Truncated`."""
    interim: list[int] = []
    while True:
        try:
            response = parse_response_head(await until(b"\r\n\r\n"))
        except IncompleteReadError as end:
            raise Truncated(f"the connection ended inside a head: {end.partial[:200]!r}") from None
        if response.status >= 200:
            break
        interim.append(response.status)
    response.interim = interim
    try:
        response.body = await _response_body(response, until, exactly, rest, method)
    except IncompleteReadError as end:
        raise Truncated(f"the connection ended inside the body of a {response.status}: {end.partial[-80:]!r}") from None
    return response


async def _response_body(
    response: Response, until: ReadUntil, exactly: ReadExactly, rest: ReadRest, method: str
) -> bytes:
    length = framing(response)
    if method == "HEAD" or response.status in (204, 304):
        return b""
    if length is None:
        chunks = []
        while chunk := await read_chunk(until, exactly):
            chunks.append(chunk)
        return b"".join(chunks)
    if length == -1:
        return await rest()
    return await exactly(length)
