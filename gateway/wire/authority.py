"""Host and port, in one spelling (RFC 9110, section 7.2; RFC 3986, section 3.2.2)."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

_AUTHORITY = re.compile(
    rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9_])?)\.?)(?::([0-9]{1,5}))?"
)
_PORTS = {"http": 80, "https": 443}


class BadAuthority(ValueError):  # noqa: N818 - the state is the name
    """Not one host with at most one port."""


class Authority(NamedTuple):
    """Where a client thinks it is talking to."""

    host: str
    """Lower case, no trailing dot; an IPv6 address without brackets."""
    port: int
    """0 where it is the scheme's own."""
    raw: bytes
    """`host[:port]` as forwarded."""


def parse(raw: bytes, scheme: str) -> Authority:
    """The canonical authority. Raises `BadAuthority`."""
    match = _AUTHORITY.fullmatch(raw)
    if match is None:
        raise BadAuthority("malformed host")
    literal, name, port_text = match.groups()
    if literal is not None:
        try:
            host = ipaddress.IPv6Address(literal.decode("ascii")).compressed
        except ValueError:
            raise BadAuthority("malformed IPv6 address") from None
        shown = f"[{host}]"
    else:
        host = shown = name.decode("ascii").lower()
        if ".." in host:
            raise BadAuthority("empty label")
    port = int(port_text) if port_text else 0
    if port > 65535 or (port_text and port == 0):
        raise BadAuthority("impossible port")
    if port == _PORTS[scheme]:
        port = 0
    return Authority(host, port, (f"{shown}:{port}" if port else shown).encode("ascii"))
