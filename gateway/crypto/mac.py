"""Recognise what we said ourselves: HMAC-SHA-256 (RFC 2104) under a key derived for each purpose.

What is made for one purpose is worth nothing for another, and `("ab", "c")` differs from `("a", "bc")`.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode

from gateway.crypto.masters import Masters, derive, framed


class Mac:
    """Authenticates short texts under the ring's master keys."""

    def __init__(self, masters: Masters) -> None:
        self._masters = tuple(masters)
        self._keys: dict[str, tuple[bytes, ...]] = {}

    def digest(self, purpose: str, *parts: str) -> bytes:
        """32 bytes that only this key ring can make."""
        return hmac.digest(self._keys_for(purpose)[0], framed(*parts), "sha256")

    def token(self, purpose: str, *parts: str) -> str:
        """The digest as base64url, without padding: 43 characters."""
        return _encode(self.digest(purpose, *parts))

    def verify(self, token: str, purpose: str, *parts: str) -> bool:
        """Whether `token` was made for this purpose and these parts, under this master key or an older one."""
        given, message = token.encode("utf-8", "surrogatepass"), framed(*parts)
        good = False
        for key in self._keys_for(purpose):
            good |= hmac.compare_digest(_encode(hmac.digest(key, message, "sha256")).encode(), given)
        return good

    def _keys_for(self, purpose: str) -> tuple[bytes, ...]:
        keys = self._keys.get(purpose)
        if keys is None:
            keys = self._keys[purpose] = tuple(derive(master, "mac\0" + purpose) for master in self._masters)
        return keys


def _encode(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
