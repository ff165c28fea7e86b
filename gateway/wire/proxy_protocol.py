"""The PROXY protocol, versions 1 and 2: who really connected, told by a proxy before the first byte of its client.

After https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt. Nothing is guessed: a listener that is told to
expect a header takes nothing else, for "must not try to guess whether the header is present" is the protocol's own
first rule. Destination, ports and TLVs are stepped over: nothing here believes them.

A proxy that cannot say who connected (`UNKNOWN`, unspecified) still speaks for somebody: nobody gets the proxy's own
address by that, nor its word on others. Only a proxy that speaks for itself (`LOCAL`) is itself.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from gateway.core.errors import SallyportError
from gateway.wire.forwarded import UNKNOWN, canonical

LONGEST_TEXT = 107
"""Bytes of a version 1 header at most, line end included (section 2.1)."""
LONGEST = 536
"""Bytes of any header: what a proxy can send in one segment of the smallest size (section 2); further TLVs are
refused."""

_TEXT = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = 16
"""Bytes of version 2 before the addresses."""
_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES = {0x11: (4, 12), 0x21: (16, 36)}
"""TCP over IPv4 and IPv6: bytes of the source, and of both addresses with their ports."""
_UNSPECIFIED, _UNIX_STREAM, _UNIX_BYTES = 0x00, 0x31, 216
_PORT = rb"(?:0|[1-9][0-9]{0,4})"
_LINE = re.compile(rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|TCP([46]) (\S+) (\S+) (" + _PORT + rb") (" + _PORT + rb"))\r\n")


class BadProxyHeader(SallyportError):  # noqa: N818 - the state is the name
    """What came first is no PROXY header."""


class Addressed(NamedTuple):
    """A whole header."""

    address: str | None
    """Of the client, canonical, or `unknown`; None: the proxy speaks for itself, so it is the peer's own."""
    length: int
    """Bytes of the header; what follows is the client's."""


def parse(data: bytes) -> Addressed | None:
    """The header that `data` begins with; None while it is not whole. Raises `BadProxyHeader`.

    While it is not whole, every byte of `data` belongs to it.
    """
    if data.startswith(_TEXT[: len(data)]):
        return _text(data)
    if data.startswith(_SIGNATURE[: len(data)]):
        return _binary(data)
    raise BadProxyHeader


def _text(data: bytes) -> Addressed | None:
    end = data.find(b"\r\n", 0, LONGEST_TEXT) + 2
    if end < 2:
        if len(data) >= LONGEST_TEXT or b"\n" in data:
            raise BadProxyHeader
        return None
    line = _LINE.fullmatch(data, 0, end)
    if line is None:
        raise BadProxyHeader
    version, source, destination, *ports = line.groups()
    if version is None:
        return Addressed(UNKNOWN, end)
    if any(int(port) > 65535 for port in ports) or not _is(version, destination) or not _is(version, source):
        raise BadProxyHeader
    return Addressed(canonical(source.decode("latin-1")), end)


def _is(version: bytes, address: bytes) -> bool:
    """Whether it is an address of that version of IP, without a zone."""
    try:
        found = ipaddress.ip_address(address.decode("ascii"))
    except ValueError:
        return False
    return found.version == int(version) and b"%" not in address


def _binary(data: bytes) -> Addressed | None:
    if len(data) < _FIXED:
        return None
    command, family = data[12], data[13]
    length = _FIXED + int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY) or length > LONGEST:
        raise BadProxyHeader
    if command == _LOCAL:
        return Addressed(None, length) if len(data) >= length else None
    if family == _UNSPECIFIED or (family == _UNIX_STREAM and length >= _FIXED + _UNIX_BYTES):
        return Addressed(UNKNOWN, length) if len(data) >= length else None
    size, needed = _ADDRESSES.get(family, (0, LONGEST))
    if not size or length < _FIXED + needed:
        raise BadProxyHeader
    if len(data) < length:
        return None
    return Addressed(canonical(str(ipaddress.ip_address(data[_FIXED : _FIXED + size]))), length)
