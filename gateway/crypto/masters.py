"""The master keys: 32 random bytes each, never used themselves, only to derive a key per purpose (HKDF, RFC 5869).

The newest one is current. Older ones stay readable, so that what was sealed yesterday opens today.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ID_SIZE = 8


def key_id(master: bytes) -> bytes:
    """A public name for a master key: 8 bytes that say nothing of it."""
    return sha256(b"sallyport master key id\0" + master).digest()[:ID_SIZE]


def derive(master: bytes, purpose: str) -> bytes:
    """The 32-byte key for one purpose; keys of two purposes tell nothing of each other (RFC 5869, section 3.2)."""
    return HKDF(SHA256(), 32, salt=None, info=b"sallyport\0" + purpose.encode()).derive(master)


def framed(*parts: str) -> bytes:
    """`parts` as bytes with their lengths, so that no two lists of parts look alike."""
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


Masters = Sequence[bytes]
"""Master keys, the current one first; never empty."""
