"""Random secrets that are handed out once and only ever stored as digests.

A token carries 256 random bits, so a plain SHA-256 of it cannot be searched: slow hashes are for what people choose.
"""

from __future__ import annotations

import secrets
from hashlib import sha256


def new_token() -> str:
    """256 random bits, base64url: 43 characters."""
    return secrets.token_urlsafe(32)


def new_id() -> str:
    """The name of something: 96 random bits, base64url, 16 characters, none that a command line takes for an option."""
    while (name := secrets.token_urlsafe(12)).startswith("-"):
        pass
    return name


def digest(token: str) -> bytes:
    """What a token is stored as: 32 bytes, SHA-256. Any text is accepted; no text but the token has this digest."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
