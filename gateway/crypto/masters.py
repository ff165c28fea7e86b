"""The master keys: 32 random bytes each, never used themselves, only to derive a key per purpose (HKDF, RFC 5869).

A master key is one file whose name says from when on it is current, so that the name and the key cannot disagree:

    master-20261121T010300Z-1a2b3c4d.key     32 random bytes in base64url

A key's life, by the clock, the same in every process that reads the folder:

    file appears          `next`: it opens what it sealed, so that every replica can before any of them seals with it
    its time has come     `current`: it seals, until a later key's time has come
    successor's time      `old`: what it sealed yesterday still opens; the file goes once nothing needs it, by
                          `sallyport key retire`
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, Problem
from gateway.crypto.files import read_private, write_private

ID_SIZE = 8
SIZE = 32
NAME = re.compile(r"master-(\d{8}T\d{6}Z)-[0-9a-f]{8}\.key")
STAMP = "%Y%m%dT%H%M%SZ"

Masters = Sequence[bytes]
"""Master keys, the current one first; never empty."""


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


@dataclass(frozen=True, slots=True)
class Master:
    """One master key. `repr` shows no secret."""

    id: bytes
    """Its public name, `key_id`."""
    not_before: float
    """From when on it seals, seconds since the epoch."""
    path: Path
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MasterStanding:
    """What a master key is doing at some moment."""

    key: Master
    status: str
    """`next`, `current` or `old`."""
    replaced_at: float
    """When its successor's time comes, or came; 0.0 without one."""


class MasterKeys:
    """The master keys of a folder. Reads it when made, and again in `refresh`."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Raises `ConfigError` for keys that are unsafe, damaged, or not there."""
        self._folder = folder
        self._clock = clock
        self._names: list[str] = []
        self._keys: list[Master] = []
        self._told: Master | None = None
        """The one that was current when `refresh` was asked last."""
        self.refresh()

    @property
    def current(self) -> Master:
        """The newest key whose time has come. A clock set back must not silence us: then it is the oldest one."""
        now = self._clock.now()
        return next((key for key in reversed(self._keys) if key.not_before <= now), self._keys[0])

    @property
    def secrets(self) -> Masters:
        """Every key, the current one first."""
        current = self.current
        return [current.secret, *(key.secret for key in reversed(self._keys) if key is not current)]

    def standings(self) -> list[MasterStanding]:
        """Every key in the folder and what it is doing now, oldest first."""
        at = self._keys.index(self.current)
        standings = []
        for index, key in enumerate(self._keys):
            replaced_at = self._keys[index + 1].not_before if index + 1 < len(self._keys) else 0.0
            status = "current" if index == at else "old" if index < at else "next"
            standings.append(MasterStanding(key, status, replaced_at))
        return standings

    def refresh(self) -> bool:
        """Read the folder again when its master keys have changed; returns whether they had, or another seals now.

        Raises `ConfigError` for a key that is unsafe or damaged, or when all are gone; those known so far stay in use.
        """
        names = sorted(path.name for path in self._folder.glob("master-*.key"))
        if not names:
            raise ConfigError(f"key folder {self._folder} holds no master key", "restore it from a backup")
        changed = names != self._names
        if changed:
            self._keys = sorted(
                (load(self._folder / name) for name in names), key=lambda key: (key.not_before, key.path.name)
            )
            self._names = names
        told, self._told = self._told, self.current
        return changed or told is not self._told


def load(path: Path) -> Master:
    """Read one master key. Raises `ConfigError`."""
    named = NAME.fullmatch(path.name)
    if not named:
        raise ConfigError(
            [Problem("is not named as a master key", str(path), suggestion="master-20261121T010300Z-1a2b3c4d.key")]
        )
    try:
        secret = urlsafe_b64decode(read_private(path).strip())
        not_before = datetime.strptime(named[1], STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError:
        secret, not_before = b"", 0.0
    if len(secret) != SIZE:
        raise ConfigError(
            [Problem("is damaged: not 32 bytes in base64url", str(path), suggestion="restore it from a backup")]
        )
    return Master(key_id(secret), not_before, path, secret)


def make(folder: Path, not_before: float) -> Master:
    """Draw a key that seals from `not_before` on, a whole second, and put it into the folder."""
    secret = secrets.token_bytes(SIZE)
    stamp = datetime.fromtimestamp(not_before, UTC).strftime(STAMP)
    path = folder / f"master-{stamp}-{key_id(secret).hex()[:8]}.key"
    write_private(path, urlsafe_b64encode(secret) + b"\n")
    return load(path)
