"""A session as one value that says nothing, and that nobody else can write.

    14 digits: when it was last seen, in ms    10 digits: the longest pause, in ms    the rest, sealed

The digits change while it lives, so they are outside; they make nobody anybody. What is sealed is bound to the digest
of the session's token (`crypto.sealing`): a value put under another token does not open.
"""

from __future__ import annotations

import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple

import orjson

from gateway.core.identity import Session, proof_as_kept, proof_from
from gateway.crypto.sealing import Sealer, Unsealable

_log = logging.getLogger("sallyport")

HEAD = 24
"""Bytes before the sealed part."""
FORMAT = 1


class Kept(NamedTuple):
    """A session as it is kept."""

    tenant: str
    subject: str
    session: Session
    generation: int
    """`users.generation` when it was opened."""
    digest: bytes
    """SHA-256 of its token."""
    sealed: bytes
    now: float
    """What time it was where it is kept."""


def seal(sealer: Sealer, digest: bytes, tenant: str, subject: str, session: Session, generation: int) -> bytes:
    """The sealed part."""
    plain = orjson.dumps(
        [
            FORMAT,
            tenant,
            subject,
            session.id,
            session.version,
            session.created_at,
            session.expires_at,
            generation,
            [proof_as_kept(proof) for proof in session.proofs],
            session.address,
            session.agent,
        ]
    )
    return sealer.seal(plain, table="sessions", column="value", row=text_of(digest))


def opened(sealer: Sealer, digest: bytes, value: bytes | None, now_ms: int) -> Kept | None:
    """What is kept under `digest`; None for nothing, and for what is not ours: altered, moved, from another key."""
    if value is None:
        return None
    head, sealed = value[:HEAD], value[HEAD:]
    now = now_ms / 1000
    try:
        plain = sealer.unseal(sealed, table="sessions", column="value", row=text_of(digest))
        if plain[:2] != b"[%d" % FORMAT or not head.isdigit():
            raise ValueError("not as we write it")
        _, tenant, subject, id_, version, created_at, expires_at, generation, proofs, address, agent = orjson.loads(
            plain
        )
    except (Unsealable, ValueError) as error:
        _log.warning("a stored session is believed by nobody: %s", error)
        return None
    session = Session(
        id=id_,
        version=version,
        created_at=created_at,
        expires_at=expires_at,
        last_seen_at=min(now, int(head[:14]) / 1000),
        proofs=tuple(proof_from(one) for one in proofs),
        address=address,
        agent=agent,
        rested=int(head[14:]) / 1000,
    )
    return Kept(tenant, subject, session, generation, digest, sealed, now)


def text_of(digest: bytes) -> str:
    """A digest as part of a key: base64url, 43 characters."""
    return urlsafe_b64encode(digest)[:-1].decode("ascii")


def digest_in(text: bytes) -> bytes:
    """The digest that `text_of` wrote. Raises ValueError."""
    return urlsafe_b64decode(text + b"=")
