"""What is kept of a key: one row of `factors`, sealed like the secret of an app.

A public key is no secret. Sealed it cannot be exchanged for another by whoever can only write to the database, nor its
counter be set back.

The row's id is made from the credential id, so that the same credential cannot be set up twice, by the same person or
by another: the primary key of the table says so, in one step.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, and_, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.crypto.sealing import Sealer
from gateway.mfa.sealed import place_of
from gateway.mfa.webauthn.base64url import decode, encode
from gateway.store.tables import factors

KIND = "webauthn"
EVER = 2**31 - 1
"""Nobody answers wrong so often."""


@dataclass(frozen=True, slots=True)
class Key:
    """One credential (credential record, section 4)."""

    credential: bytes
    """Its id, chosen by the authenticator: 1 … 1023 bytes."""
    public_key: bytes
    """COSE_Key."""
    count: int
    """The highest signature counter seen; 0: the authenticator has none."""
    backup_eligible: bool
    """Whether the private key can be copied to other devices. Never changes."""
    backed_up: bool
    """Whether it was, when it was last used."""
    aaguid: str
    """Model of the authenticator, as UUID; zeros where it does not say."""
    attested: bool
    """Whether the maker's certificate vouches for the model."""
    transports: tuple[str, ...] = ()
    """How browsers reach it: `usb`, `nfc`, `internal` …"""

    @property
    def id(self) -> str:
        """Of its row: 32 characters, the same for the same credential."""
        return id_of(self.credential)

    def packed(self) -> bytes:
        """As it is sealed."""
        return orjson.dumps(
            {
                "credential": encode(self.credential),
                "public_key": encode(self.public_key),
                "count": self.count,
                "backup_eligible": self.backup_eligible,
                "backed_up": self.backed_up,
                "aaguid": self.aaguid,
                "attested": self.attested,
                "transports": list(self.transports),
            }
        )


def unpacked(plain: bytes) -> Key:
    """The key that was packed."""
    kept: dict[str, Any] = orjson.loads(plain)
    return Key(
        **{
            **kept,
            "credential": decode(kept["credential"]),
            "public_key": decode(kept["public_key"]),
            "transports": tuple(kept["transports"]),
        }
    )


def id_of(credential: bytes) -> str:
    """The id of the row of a credential."""
    return urlsafe_b64encode(hashlib.sha256(credential).digest()[:24]).decode()


def handle_of(tenant: str, subject: str) -> bytes:
    """The user handle (32 bytes): tells nobody who somebody is, and is the same for all their keys."""
    return hashlib.sha256(b"webauthn\0" + tenant.encode() + b"\0" + subject.encode()).digest()


async def keys_of(
    connection: AsyncConnection, sealer: Sealer, tenant: str, subject: str, *, below: int = EVER
) -> list[Key]:
    """The keys of somebody, oldest first: those with fewer wrong answers in a row than `below`, or all."""
    rows = (await connection.execute(_KEYS, {"tenant": tenant, "subject": subject, "below": below})).all()
    return [unpacked(sealer.unseal(row.secret, **place_of(tenant, row.id))) for row in rows]


def of(tenant: str, subject: str) -> ColumnElement[bool]:
    """Rows of somebody's keys."""
    return and_(factors.c.tenant == tenant, factors.c.subject == subject, factors.c.kind == KIND)


# Built once: building a statement costs more than running it.
_TENANT: Any = bindparam("tenant")
_SUBJECT: Any = bindparam("subject")
_KEYS = (
    select(factors.c.id, factors.c.secret)
    .where(of(_TENANT, _SUBJECT), factors.c.failures < bindparam("below"))
    .order_by(factors.c.created_at, factors.c.id)
)
