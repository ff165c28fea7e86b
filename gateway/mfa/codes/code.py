"""A code that was sent: six digits, good once, for ten minutes, for one question; and the link that came with it.

- Drawn with `secrets`: all million codes are as likely as each other (NIST SP 800-63B-4, 3.1.3.2: six digits at least).
- Only a MAC of it is kept, under a key that is not in the database. It covers everything the code is bound to: tenant,
  user, session, question, factor, address and end. A row that was copied or changed recognises no code.
- There is one place for each session and factor. A new code is written over the old one, which is void by that; and a
  code that was sent for one question does not answer another (ASVS 5.0, 6.6.2).
- It is claimed by removing the very row that was looked at: of twenty right answers at once one does.
- The link that does the same (`link`) has a MAC of its own in that row, for a purpose of its own: it lives, ends and is
  claimed with the code.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.contracts import key
from gateway.crypto.mac import Mac
from gateway.crypto.tokens import digest
from gateway.store.sql_key_value import write
from gateway.store.tables import kept

DIGITS: Final = 6
LIFETIME: Final = 600.0
"""Seconds (NIST SP 800-63B-4, 3.1.3.2, and ASVS 5.0, 6.5.5: ten minutes at most)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a code answers, and nothing else."""

    tenant: str
    subject: str
    session: str
    """Id of the session that asked for it."""
    factor: str
    """`sms`, `email`; a setup has a place of its own: `sms-setup`."""
    ticket: str
    """Of the challenge, or of the setup."""

    @property
    def place(self) -> str:
        """Where its code is kept: one for each session and factor."""
        return key(self.tenant, "sent-code", self.subject, self.session, self.factor)

    def __repr__(self) -> str:
        return f"<Question {self.factor}>"


@dataclass(frozen=True, slots=True)
class Live:
    """A code that counts."""

    id: str
    """Of the factor, or whatever else it was sent for."""
    expires_at: float
    _mac: str
    _link: str
    """MAC of the link; empty: there is none."""
    _row: bytes
    """As it is kept; to be claimed."""

    def __repr__(self) -> str:
        return f"<Live {self.id}>"


def draw() -> str:
    """Six random digits."""
    return f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"


async def keep(
    connection: AsyncConnection,
    mac: Mac,
    question: Question,
    factor_id: str,
    code: str,
    now: float,
    *,
    link: str = "",
) -> float:
    """Keep `code`, and void the one before; until when it counts. `link`: the secret that does the same, if any."""
    expires_at = now + LIFETIME
    row = {
        "for": digest(question.ticket).hex(),
        "id": factor_id,
        "expires_at": expires_at,
        "mac": mac.token("sent-code", *_bound(question, factor_id, expires_at), code),
    }
    if link:
        row["link"] = mac.token("sent-link", *_bound(question, factor_id, expires_at), link)
    await write(connection, question.place, orjson.dumps(row), expires_at)
    return expires_at


async def live(connection: AsyncConnection, question: Question, now: float) -> Live | None:
    """The code that was sent for `question` and still counts, if there is one."""
    row: bytes | None = await connection.scalar(select(kept.c.value).where(kept.c.key == question.place))
    if row is None:
        return None
    found: dict[str, Any] = orjson.loads(row)
    if found["for"] != digest(question.ticket).hex() or found["expires_at"] <= now:
        return None
    return Live(found["id"], found["expires_at"], found["mac"], found.get("link", ""), row)


def is_right(mac: Mac, question: Question, sent: Live, code: str) -> bool:
    """Whether `code` is the one."""
    return mac.verify(sent._mac, "sent-code", *_bound(question, sent.id, sent.expires_at), code)


def is_link(mac: Mac, question: Question, sent: Live, secret: str) -> bool:
    """Whether `secret` is that of the link which came with it."""
    return bool(sent._link) and mac.verify(sent._link, "sent-link", *_bound(question, sent.id, sent.expires_at), secret)


async def claim(connection: AsyncConnection, question: Question, sent: Live) -> bool:
    """Use it up; True for exactly one caller, once the transaction is committed."""
    gone = await connection.execute(delete(kept).where(kept.c.key == question.place, kept.c.value == sent._row))
    return gone.rowcount == 1


def _bound(question: Question, factor_id: str, expires_at: float) -> tuple[str, ...]:
    return (
        question.tenant,
        question.subject,
        question.session,
        question.factor,
        question.ticket,
        factor_id,
        repr(expires_at),
    )
