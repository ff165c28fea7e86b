"""A question that is asked once.

A ceremony has a challenge of 256 bit, kept for five minutes under the session and what it is for: a challenge of the
session's, or setting up a key. Whoever answers takes it away in the same step, right or wrong, so no answer is judged
twice and none in another session, for another challenge or after its time. A new ceremony for the same thing replaces
the one before: there are as many as a session has open questions, and one more.
"""

from __future__ import annotations

import secrets
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import key
from gateway.crypto.mac import Mac
from gateway.crypto.tokens import digest
from gateway.mfa.webauthn.base64url import decode, encode
from gateway.store.sql_key_value import SqlKeyValue, take

LIFETIME = 300.0
"""Seconds (section 15.1: 300 to 600 are recommended)."""
REGISTER = "register"
AUTHENTICATE = "authenticate"


class Ceremonies:
    """Opens and claims them."""

    def __init__(self, kv: SqlKeyValue, clock: Clock, mac: Mac) -> None:
        self._kv = kv
        self._clock = clock
        self._mac = mac

    async def open(self, kind: str, tenant: str, subject: str, session: str, what: str = "", **more: Any) -> bytes:
        """A fresh challenge; `more` comes back with it."""
        challenge = secrets.token_bytes(32)
        place = _place(kind, tenant, subject, session, what)
        kept = orjson.dumps(
            {**more, "challenge": encode(challenge), "expires_at": self._clock.now() + LIFETIME},
            option=orjson.OPT_SORT_KEYS,
        )
        sealed = {"kept": kept.decode(), "mac": self._mac.token("webauthn", place, kept.decode())}
        await self._kv.put(place, orjson.dumps(sealed), LIFETIME)
        return challenge

    async def claim(
        self,
        kind: str,
        tenant: str,
        subject: str,
        session: str,
        what: str = "",
        *,
        connection: AsyncConnection | None = None,
    ) -> tuple[bytes, dict[str, Any]] | None:
        """The challenge and what it was opened with, to one caller; None where none is open.

        With `connection`, in its transaction.
        """
        place = _place(kind, tenant, subject, session, what)
        value = await (take(connection, place, self._clock.now()) if connection is not None else self._kv.take(place))
        if value is None:
            return None
        sealed = orjson.loads(value)
        if not self._mac.verify(sealed["mac"], "webauthn", place, sealed["kept"]):
            return None
        kept = orjson.loads(sealed["kept"])
        if kept["expires_at"] <= self._clock.now():
            return None
        return decode(kept["challenge"]), kept


def _place(kind: str, tenant: str, subject: str, session: str, what: str) -> str:
    return key(tenant, f"webauthn-{kind}", subject, session, digest(what).hex())
