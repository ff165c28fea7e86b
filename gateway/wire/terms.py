"""What the answer of a service may say to the client.

A service sets none of our cookies. And what is made for somebody who is known is kept by nobody but them: a cache in
front of us would hand it to whoever asks next, with no question to the gate. Caches decide by headers, and some by the
looks of an address (`/account.css`), so an answer that leaves it open, or says the opposite, is told here (RFC 9111,
section 5.2.2).
"""

from __future__ import annotations

from typing import NamedTuple

_SHARED = (b"public", b"s-maxage", b"proxy-revalidate", b"must-understand")
_KEPT_TO_THEM = (b"private", b"no-store")


class Terms(NamedTuple):
    """The terms of one kind of answer."""

    cookies: frozenset[bytes]
    """Names that it may not set."""
    personal: bool
    """Whether it is for somebody in particular."""


def kept_to_them(cache_control: list[bytes], vary: list[bytes]) -> bytes:
    """The lines `Cache-Control` and `Vary` of an answer for somebody, from the values the service gave."""
    values = [] if any(b'"' in value for value in cache_control) else cache_control  # a list in a list: not worth it
    directives = [part.strip() for value in values for part in value.split(b",") if part.strip()]
    if not any(directive.lower() in _KEPT_TO_THEM for directive in directives):
        left = [one for one in directives if one.partition(b"=")[0].strip().lower() not in (*_SHARED, b"private")]
        directives = [*left, b"private"]
    varies = [part.strip() for value in vary for part in value.split(b",") if part.strip()]
    said = [part.lower() for part in varies]
    if b"*" not in said:
        varies += [name for name in (b"Cookie", b"Authorization") if name.lower() not in said]
    return b"Cache-Control: %b\r\nVary: %b\r\n" % (b", ".join(directives), b", ".join(varies))
