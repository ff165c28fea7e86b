"""The session cookie of a request.

A header is taken apart once; browsers send the same bytes again and again, so what was found is remembered by them.
Two cookies of our name are nobody's: a sibling host can plant one, and which of the two a parser believes is luck.
On https the name carries `__Host-`, which no sibling host can plant (RFC 6265bis, section 4.1.3.2).
"""

from __future__ import annotations

import re

from gateway.core.cookies import Cookies
from gateway.core.eager import aside
from gateway.core.errors import Broken
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.identity.sessions import Sessions
from gateway.identity.strip import MAX_REMEMBERED_HEADER, REMEMBERED, name_of
from gateway.store.near import Near

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


class SessionCookie:
    """The `Credential` of browsers. `cookies` are the names of one scheme."""

    name = "session"

    def __init__(self, sessions: Sessions, cookies: Cookies) -> None:
        self._sessions = sessions
        self._cookie = cookies.session.encode()
        self._tokens: Near[bytes, str] = Near(REMEMBERED)

    def near(self, facts: Facts) -> Identity | None:
        """Who it is, where that is known without waiting; None says nothing: ask `identify`."""
        token = self._tokens.get(facts.cookie)
        return self._sessions.near(token) if token else None

    async def identify(self, facts: Facts) -> Identity | None:
        """Whose session the cookie names; None without one.

        Raises `Broken` for a cookie that is malformed, doubled, unknown or over; `StoreAway`.
        """
        if not facts.cookie or not (token := self._token(facts.cookie)):
            return None
        identity = self._sessions.near(token)
        if identity is None:
            await aside()
            identity = await self._sessions.find(token)
        if identity is None:
            raise Broken("the session is over or was never there")
        return identity

    async def fresh(self, facts: Facts) -> Identity | None:
        """As `identify`, from the store whatever is near. Raises `Broken`, `StoreAway`."""
        if not facts.cookie or not (token := self._token(facts.cookie)):
            return None
        await aside()
        identity = await self._sessions.read(token)
        if identity is None:
            raise Broken("the session is over or was never there")
        return identity

    async def again(self, identity: Identity, *, fresh: bool = False) -> Identity | None:
        """Whoever holds the session of `identity` now: a proof may have given it another token."""
        return await self._sessions.again(identity, fresh=fresh)

    def token(self, cookie: bytes) -> str:
        """The session token in a `Cookie` header; empty without one. Raises `Broken`."""
        return self._token(cookie)

    def _token(self, cookie: bytes) -> str:
        token = self._tokens.get(cookie)
        if token is None:
            token = self._read(cookie)
            if len(cookie) <= MAX_REMEMBERED_HEADER:
                self._tokens.keep(cookie, token)
        return token

    def _read(self, cookie: bytes) -> str:
        if self._cookie not in cookie:
            return ""
        values = [pair.partition(b"=")[2].strip() for pair in cookie.split(b";") if name_of(pair) == self._cookie]
        if not values:
            return ""
        if len(values) > 1:
            raise Broken("two session cookies")
        token = values[0].decode("latin-1")
        if not _TOKEN.fullmatch(token):
            raise Broken("the session cookie is malformed")
        return token
