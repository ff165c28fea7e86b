"""Secrets at rest: AES-256-GCM (NIST SP 800-38D) under a key derived from the master key.

A sealed value is bound to its place. Table, column and row are authenticated with it, so a value copied into another
row, by whoever can write the database, does not open there.

    version (1 byte, 0x01) | master key id (8) | nonce (12, random) | ciphertext and tag (16 more than the plain)

Random nonces are safe for 2^32 values under one key; a gateway seals a few for each user.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.core.errors import SallyportError
from gateway.crypto.masters import ID_SIZE, Masters, derive, framed, key_id

VERSION = b"\x01"
NONCE_SIZE = 12
HEAD_SIZE = len(VERSION) + ID_SIZE


class Unsealable(SallyportError):  # noqa: N818 - the state is the name
    """A sealed value does not open: damaged, moved to another place, or sealed with a key that is gone."""


class Sealer:
    """Seals and unseals under the ring's master keys."""

    def __init__(self, masters: Masters) -> None:
        self._keys = {key_id(master): AESGCM(derive(master, "seal")) for master in masters}
        self._current = key_id(masters[0])
        self.ids = frozenset(map(_number, self._keys))
        """Public numbers of the keys that can unseal."""
        self.current = _number(self._current)
        """That of the key that seals."""

    def seal(self, plain: bytes, *, table: str, column: str, row: str) -> bytes:
        """`plain`, readable again only with the same `table`, `column` and `row`; 37 bytes longer."""
        head = VERSION + self._current
        nonce = secrets.token_bytes(NONCE_SIZE)
        return head + nonce + self._keys[self._current].encrypt(nonce, plain, head + framed(table, column, row))

    def unseal(self, sealed: bytes, *, table: str, column: str, row: str) -> bytes:
        """What was sealed there. Raises `Unsealable`."""
        head, nonce, rest = sealed[:HEAD_SIZE], sealed[HEAD_SIZE:][:NONCE_SIZE], sealed[HEAD_SIZE + NONCE_SIZE :]
        key = self._keys.get(head[1:])
        if key is None or head[:1] != VERSION or len(nonce) != NONCE_SIZE:
            raise Unsealable(f"{table}.{column} was sealed with a key that is not in the key folder, or is damaged")
        try:
            return key.decrypt(nonce, rest, head + framed(table, column, row))
        except InvalidTag as error:
            raise Unsealable(f"{table}.{column} is damaged or was moved from another row") from error


def _number(name: bytes) -> int:
    """A key's public name as a whole number that fits a database column (63 bit)."""
    return int.from_bytes(name, "big") >> 1
