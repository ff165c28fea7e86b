"""Speak to the services behind us: compact JWS with ES256 (RFC 7515, RFC 7518 section 3.4), checked with a JWK set.

A signing key is one PEM file whose name says from when on it signs, so that the name and the key cannot disagree:

    signing-20261121T010300Z-1a2b3c4d.pem

A key's life, by the clock and by nothing else, the same in every process that reads the folder:

    file appears          it is published, so that services have fetched it before they need it
    its time has come     it signs, until a later key's time has come
    successor's time + longest assertion + GRACE     it is published no more; the next rotation removes the file
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicNumbers,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, Problem
from gateway.crypto.files import read_private, write_private

GRACE = 300.0
"""Seconds a replaced key stays published after its last assertion has expired, for clocks that differ."""

NAME = re.compile(r"signing-(\d{8}T\d{6}Z)-[0-9a-f]{8}\.pem")
STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key pair. `repr` shows no secret."""

    kid: str
    """JWK thumbprint, RFC 7638."""
    not_before: float
    """From when on it signs, seconds since the epoch."""
    path: Path
    private: EllipticCurvePrivateKey
    jwk: Mapping[str, str]
    header: str
    """The head of every JWS it signs, encoded."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a key is doing at some moment."""

    key: SigningKey
    status: str
    """`next`, `signing`, `published` or `retired`."""
    until: float
    """When that changes; 0.0 where nothing is planned."""


class Signer:
    """Signs with the current key of a folder. Reads the folder when made, and again in `refresh`."""

    def __init__(self, folder: Path, clock: Clock, assertion_lifetime: float) -> None:
        self._folder = folder
        self._clock = clock
        self._keep = assertion_lifetime + GRACE
        self._names: list[str] = []
        self._keys: list[SigningKey] = []
        self._current: SigningKey | None = None
        self._told: SigningKey | None = None
        """The one that signed when `refresh` was asked last."""
        self._switch_at = 0.0
        self.refresh()

    def sign(self, claims: Mapping[str, Any]) -> str:
        """The claims as a compact JWS with `kid` and `typ: JWT`. Raises `ConfigError` where the folder has no key."""
        now = self._clock.now()
        key = self._current
        if key is None or now >= self._switch_at:
            key = self._choose(now)
        message = f"{key.header}.{_base64url(orjson.dumps(claims))}"
        r, s = decode_dss_signature(key.private.sign(message.encode(), ECDSA(SHA256())))
        return f"{message}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    @property
    def kid(self) -> str:
        """Of the key that signs now. Raises `ConfigError` where the folder has no key."""
        return self._choose(self._clock.now()).kid

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys a service has to know now, as a JWK set (RFC 7517)."""
        return {"keys": [dict(standing.key.jwk) for standing in self.standings() if standing.status != "retired"]}

    def standings(self) -> list[Standing]:
        """Every key in the folder and what it is doing now, oldest first."""
        now = self._clock.now()
        current = self._choose(now)
        standings = []
        for key, successor in zip(self._keys, [*self._keys[1:], None], strict=True):
            ends = successor.not_before if successor else 0.0
            if key is current:
                standings.append(Standing(key, "signing", ends))
            elif key.not_before > now:
                standings.append(Standing(key, "next", key.not_before))
            elif ends + self._keep > now:
                standings.append(Standing(key, "published", ends + self._keep))
            else:
                standings.append(Standing(key, "retired", 0.0))
        return standings

    def refresh(self) -> bool:
        """Read the folder again when its signing keys have changed; returns whether they had, or another signs now.

        Raises `ConfigError` for a key that is unsafe, damaged or of another kind; the keys known so far stay in use.
        """
        names = sorted(path.name for path in self._folder.glob("signing-*.pem"))
        if names == self._names:
            told, self._told = self._told, self._choose(self._clock.now()) if self._keys else None
            return self._told is not told
        self._keys = sorted(
            (load(self._folder / name) for name in names), key=lambda key: (key.not_before, key.path.name)
        )
        self._names = names
        self._current = None
        self._told = self._choose(self._clock.now()) if self._keys else None
        return True

    def _choose(self, now: float) -> SigningKey:
        """The newest key whose time has come. A clock set back must not silence us: then it is the oldest one."""
        if not self._keys:
            raise ConfigError(f"key folder {self._folder} holds no signing key", "run: sallyport key rotate")
        self._current, self._switch_at = self._keys[0], float("inf")
        for key in self._keys[1:]:
            if key.not_before > now:
                self._switch_at = key.not_before
                break
            self._current = key
        return self._current


def load(path: Path) -> SigningKey:
    """Read one signing key. Raises `ConfigError`."""
    named = NAME.fullmatch(path.name)
    if not named:
        raise ConfigError(
            [Problem("is not named as a signing key", str(path), suggestion="signing-20261121T010300Z-1a2b3c4d.pem")]
        )
    try:
        private = load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            [Problem("is damaged or not a PEM private key", str(path), suggestion="restore it from a backup")]
        ) from error
    if not isinstance(private, EllipticCurvePrivateKey) or not isinstance(private.curve, SECP256R1):
        raise ConfigError([Problem("is not a P-256 key, which ES256 needs", str(path))])
    not_before = datetime.strptime(named[1], STAMP).replace(tzinfo=UTC).timestamp()
    jwk = public_jwk(private.public_key().public_numbers())
    header = _base64url(orjson.dumps({"alg": "ES256", "typ": "JWT", "kid": jwk["kid"]}))
    return SigningKey(jwk["kid"], not_before, path, private, jwk, header)


def make(folder: Path, not_before: float) -> SigningKey:
    """Generate a key that signs from `not_before` on, a whole second, and put it into the folder."""
    private = generate_private_key(SECP256R1())
    kid = thumbprint(private.public_key().public_numbers())
    stamp = datetime.fromtimestamp(not_before, UTC).strftime(STAMP)
    path = folder / f"signing-{stamp}-{sha256(kid.encode()).hexdigest()[:8]}.pem"
    write_private(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return load(path)


def public_jwk(numbers: EllipticCurvePublicNumbers) -> dict[str, str]:
    """A P-256 public key as a JWK (RFC 7518, section 6.2) with `kid`, `use` and `alg`."""
    return {**_members(numbers), "kid": thumbprint(numbers), "use": "sig", "alg": "ES256"}


def thumbprint(numbers: EllipticCurvePublicNumbers) -> str:
    """The key's JWK thumbprint (RFC 7638): base64url SHA-256 of its required members."""
    return _base64url(sha256(orjson.dumps(_members(numbers), option=orjson.OPT_SORT_KEYS)).digest())


def _members(numbers: EllipticCurvePublicNumbers) -> dict[str, str]:
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": _base64url(numbers.x.to_bytes(32, "big")),
        "y": _base64url(numbers.y.to_bytes(32, "big")),
    }


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
