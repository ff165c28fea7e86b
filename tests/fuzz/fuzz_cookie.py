"""Cookies: one session cookie or none, and none of ours goes on to a service.

The input is a `Cookie` header.
"""

from __future__ import annotations

from typing import cast

from gateway.core.cookies import Cookies
from gateway.core.errors import Broken
from gateway.identity.cookie import SessionCookie
from gateway.identity.sessions import Sessions
from gateway.identity.strip import Strip

_STRIP = Strip()
_COOKIES = [Cookies.over("http"), Cookies.over("https")]
_READERS = [(cookies.session.encode(), SessionCookie(cast(Sessions, None), cookies)) for cookies in _COOKIES]
_OURS = {
    name.encode() for cookies in _COOKIES for name in (cookies.session, cookies.browser, cookies.device, cookies.resume)
}


def names(cookie: bytes) -> list[bytes]:
    """The names as RFC 6265 splits them, by code that shares nothing with ours."""
    found = []
    for pair in cookie.split(b";"):
        at = pair.find(b"=")
        found.append((pair if at < 0 else pair[:at]).strip())
    return found


def one(data: bytes) -> None:
    data = data.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
    left = _STRIP(data)
    assert not set(names(left)) & _OURS, left
    assert _STRIP(left) == left
    kept = [name for name in names(data) if name not in _OURS]
    assert names(left) == kept or (not kept and not left), (data, left)
    for name, reader in _READERS:
        count = names(data).count(name)
        try:
            token = reader.token(data)
        except Broken:
            assert count
            continue
        assert (count == 1) == bool(token), (data, token)
        assert not token or (len(token) == 43 and token.isascii())
