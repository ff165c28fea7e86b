"""Secrets at rest: AES-256-GCM (NIST SP 800-38D) under a key derived from the master key.

A sealed value is bound to its place. Table, column and row are authenticated with it, so a value copied into another
row, by whoever can write the database, does not open there.

    version (1 byte, 0x01) | master key id (8) | nonce (12, random) | ciphertext and tag (16 more than the plain)

Random nonces are safe for 2^32 values under one key; a gateway seals a few for each user.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

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
        self.use(masters)

    def use(self, masters: Masters) -> None:
        """Seal with the first of `masters` from now on, and open what any of them has sealed; in one step."""
        self._held = _Held(key_id(masters[0]), {key_id(master): AESGCM(derive(master, "seal")) for master in masters})

    @property
    def ids(self) -> frozenset[int]:
        """Public numbers of the keys that can unseal."""
        return frozenset(map(number_of, self._held.keys))

    @property
    def current(self) -> int:
        """That of the key that seals."""
        return number_of(self._held.current)

    @property
    def head(self) -> bytes:
        """How everything begins that is sealed now."""
        return VERSION + self._held.current

    def seal(self, plain: bytes, *, table: str, column: str, row: str) -> bytes:
        """`plain`, readable again only with the same `table`, `column` and `row`; 37 bytes longer."""
        held = self._held
        head = VERSION + held.current
        nonce = secrets.token_bytes(NONCE_SIZE)
        return head + nonce + held.keys[held.current].encrypt(nonce, plain, head + framed(table, column, row))

    def unseal(self, sealed: bytes, *, table: str, column: str, row: str) -> bytes:
        """What was sealed there. Raises `Unsealable`."""
        head, nonce, rest = sealed[:HEAD_SIZE], sealed[HEAD_SIZE:][:NONCE_SIZE], sealed[HEAD_SIZE + NONCE_SIZE :]
        key = self._held.keys.get(head[1:])
        if key is None or head[:1] != VERSION or len(nonce) != NONCE_SIZE:
            raise Unsealable(f"{table}.{column} was sealed with a key that is not in the key folder, or is damaged")
        try:
            return key.decrypt(nonce, rest, head + framed(table, column, row))
        except InvalidTag as error:
            raise Unsealable(f"{table}.{column} is damaged or was moved from another row") from error


class _Held(NamedTuple):
    current: bytes
    keys: dict[bytes, AESGCM]


def number_of(name: bytes) -> int:
    """A key's public name as a whole number that fits a database column (63 bit)."""
    return int.from_bytes(name, "big") >> 1
