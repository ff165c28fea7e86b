"""Bytes that were parsed before mean the same again.

On a connection that is kept open a client sends the same header lines with every request, and a service the same head
with every answer of the same second. What llhttp has once accepted, at the beginning of a message and whole, it would
accept again with the same result; so the same bytes are recognised by comparing them, and the result is taken again.

Only what is plain is recognised: a request without a body whose target is made of nothing but URL characters; an
answer that names its length and arrives in one piece. The parser is not fed then and stays where it was, at the
beginning of a message. Everything else goes to it, as the first message of each connection does.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.wire.terms import Terms

LONGEST = 8192
"""Bytes of the longest head worth remembering."""

REQUEST_LINE = re.compile(rb"(GET|HEAD) (/[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*) HTTP/1\.1")
"""A request line that cannot be read in two ways (RFC 9112, section 3; RFC 3986, section 3.3)."""

METHODS = {b"GET": "GET", b"HEAD": "HEAD"}


class Answer(NamedTuple):
    """A head that was parsed, and what came of it."""

    head: bytes
    size: int
    """Bytes of the whole answer, body included."""
    status: int
    reason: bytes
    block: bytes
    """Its header lines that pass."""
    length: int
    terms: Terms
    """What it could say."""


def header_block(data: bytes) -> bytes:
    """What follows the request line in `data`, which is one whole request without a body; empty if it is not plain."""
    line = REQUEST_LINE.match(data)
    if line is None or len(data) > LONGEST or not data.endswith(b"\r\n\r\n"):
        return b""
    block = data[line.end() :]
    return block if block.startswith(b"\r\n") else b""
