"""The Cookie header as the service behind us may see it: without ours, which are nobody else's to hold.

Browsers send the same bytes again and again, so what is left of a header is remembered by them.
"""

from __future__ import annotations

from gateway.core.cookies import Cookies
from gateway.store.near import Near

REMEMBERED = 10_000
MAX_REMEMBERED_HEADER = 4096
"""Longer headers are taken apart each time: what is remembered stays small."""

_OURS = Cookies.over("http").names | Cookies.over("https").names


class Strip:
    """Takes cookies of ours, of either scheme, out of Cookie headers."""

    def __init__(self) -> None:
        self._known: Near[bytes, bytes] = Near(REMEMBERED)

    def __call__(self, cookie: bytes) -> bytes:
        """What is left of the header; empty when nothing is."""
        if b"sallyport" not in cookie:
            return cookie
        stripped = self._known.get(cookie)
        if stripped is None:
            stripped = b";".join([pair for pair in cookie.split(b";") if name_of(pair) not in _OURS]).lstrip(b" ")
            if len(cookie) <= MAX_REMEMBERED_HEADER:
                self._known.keep(cookie, stripped)
        return stripped


def name_of(pair: bytes) -> bytes:
    """The name in `name=value`."""
    return pair.partition(b"=")[0].strip()
