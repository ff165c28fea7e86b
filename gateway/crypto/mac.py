"""Recognise what we said ourselves: HMAC-SHA-256 (RFC 2104) under a key derived for each purpose.

What is made for one purpose is worth nothing for another, and `("ab", "c")` differs from `("a", "bc")`.

A token names the master key it was made under, so that it can be told what an old key is still needed for:

    1a2b3c4d5e6f7081.9b4…  public name of the key (16 hexadecimal digits) | MAC (base64url, 43 characters)

The name is part of what is authenticated: without it, or with another, the token is nobody's. Tokens made before they
had names are the 43 characters alone, and recognised under any of our keys.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode

from gateway.crypto.masters import Masters, derive, framed, key_id

PREFIX_SIZE = 17
"""Characters before the MAC."""


class Mac:
    """Authenticates short texts under the ring's master keys."""

    def __init__(self, masters: Masters) -> None:
        self.use(masters)

    def use(self, masters: Masters) -> None:
        """Make tokens with the first of `masters` from now on, and recognise those of all of them; in one step."""
        self._keys = _Keys(masters)

    def token(self, purpose: str, *parts: str) -> str:
        """60 characters that only this key ring can make."""
        name, key = next(iter(self._keys[purpose].items()))
        return f"{name}.{_mac(key, name, *parts)}"

    def verify(self, token: str, purpose: str, *parts: str) -> bool:
        """Whether `token` was made for this purpose and these parts, under this master key or an older one."""
        keys = self._keys[purpose]
        name, named, given = token.rpartition(".")
        if named:
            return name in keys and _same(_mac(keys[name], name, *parts), given)
        good = False
        for key in keys.values():
            good |= _same(_mac(key, *parts), given)
        return good


class _Keys(dict[str, dict[str, bytes]]):
    """By purpose, then by the public name of their master key, the current one first; derived when first asked for."""

    def __init__(self, masters: Masters) -> None:
        self._masters = {key_id(master).hex(): master for master in masters}

    def __missing__(self, purpose: str) -> dict[str, bytes]:
        made = {name: derive(master, "mac\0" + purpose) for name, master in self._masters.items()}
        self[purpose] = made
        return made


def _mac(key: bytes, *parts: str) -> str:
    return urlsafe_b64encode(hmac.digest(key, framed(*parts), "sha256")).rstrip(b"=").decode()


def _same(made: str, given: str) -> bool:
    return hmac.compare_digest(made.encode(), given.encode("utf-8", "surrogatepass"))
