"""Ten codes on paper, for the day the phone is gone. Each counts once.

- Fifty random bits each, written `xxxxx-xxxxx` in Crockford's base32, whose letters are hard to mistake; read whatever
  the case, the spaces and the dashes, with O for 0 and I or L for 1.
- Only a MAC of each is kept, under a key that is not in the database (NIST SP 800-63B-4, 3.1.2 asks for a salted slow
  hash below 112 bits, for verifiers whose hashes can be searched by whoever steals them: these cannot without the key).
- Used up by one `UPDATE … WHERE used_at IS NULL`: of twenty simultaneous tries one changes the row.
- They are one factor: ten codes share a row in `factors`, with its count of failures. New codes are a new factor, and
  void every old one in the same transaction. After 90 days they are void by themselves.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.asked import Asked
from gateway.core.clock import Clock
from gateway.core.identity import Level, Proof
from gateway.crypto.mac import Mac
from gateway.crypto.tokens import new_id
from gateway.mfa.attempts import LIFE
from gateway.store.sql import Records
from gateway.store.tables import backup_codes, factors

COUNT = 10
LENGTH = 10
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LIFETIME = 90 * 86_400.0
"""Seconds until unused codes are void."""
FEW = 3
"""How many are left when it is time to make new ones."""

_FORGIVE = str.maketrans(
    {"o": "0", "i": "1", "ı": "1", "l": "1", "\u0307": "", "-": "", "–": "", "—": "", "_": "", ".": ""}
)
"""`ı`, and the dot that is left of `İ`: a Turkish keyboard writes them where others write `i` and `I`."""


@dataclass(frozen=True, slots=True)
class Left:
    """What remains of a user's codes."""

    count: int
    expires_at: float
    """When they are void; 0.0 without any."""

    @property
    def few(self) -> bool:
        """Whether it is time to make new ones."""
        return self.count <= FEW


def new_code() -> str:
    """A code as it is shown: `xxxxx-xxxxx`, 50 random bits."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    return f"{letters[:5]}-{letters[5:]}"


def canonical(answer: str) -> str:
    """The ten letters somebody meant; empty when it cannot be a code."""
    if len(answer) > 64:
        return ""
    letters = "".join(answer.split()).lower().translate(_FORGIVE)
    return letters if len(letters) == LENGTH and all(letter in ALPHABET for letter in letters) else ""


class BackupCodes:
    """Factor `backup_code`."""

    name = "backup_code"

    def __init__(self, records: Records, mac: Mac, clock: Clock) -> None:
        self._records = records
        self._mac = mac
        self._clock = clock

    async def offer(self, tenant: str, subject: str, level: Level = Level.AAL2) -> bool:
        """Whether this user has a code left and may still try. A code can be passed on: it reaches aal2 at most."""
        return level <= Level.AAL2 and (await self.left(tenant, subject)).count > 0

    async def left(self, tenant: str, subject: str) -> Left:
        """How many codes still count."""
        async with self._records.read() as connection:
            return await self.left_in(connection, tenant, subject)

    async def left_in(self, connection: AsyncConnection, tenant: str, subject: str) -> Left:
        """The same, as the transaction of `connection` has it."""
        whose = {"of_tenant": tenant, "of_subject": subject, "now": self._clock.now(), "failures": LIFE - 1}
        count, expires_at = (await connection.execute(_LEFT, whose)).one()
        return Left(count, expires_at or 0.0)

    async def check(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        answer: str,
        now: float,
        asked: Asked | None = None,
    ) -> Proof | None:
        """The proof for an unused code, which is used up by it."""
        code = canonical(answer)
        if not code:
            return None
        mine = {"of_tenant": tenant, "of_subject": subject, "now": now}
        rows = (await connection.execute(_USABLE, {**mine, "failures": LIFE})).all()  # this try is counted already
        same = [row.id for row in rows if self._mac.verify(row.digest, "backup_code", tenant, subject, code)]
        if not same:
            return None
        used = await connection.execute(_USE, {**mine, "of_id": same[0]})
        if used.rowcount != 1:
            return None
        await connection.execute(_NOTE_USE, mine)
        return Proof(self.name, now)

    async def hint(self, tenant: str, subject: str, answer: str, now: float) -> str:
        """Nothing to say about a wrong code."""
        return ""

    async def renew(self, connection: AsyncConnection, tenant: str, subject: str, now: float) -> tuple[str, ...]:
        """Ten new codes, shown this once; every old one is void."""
        await self.void(connection, tenant, subject)
        codes: dict[str, str] = {}
        while len(codes) < COUNT:
            codes[secrets.token_urlsafe(12)] = new_code()
        await connection.execute(
            insert(factors).values(
                tenant=tenant,
                id=new_id(),
                subject=subject,
                kind=self.name,
                label="",
                secret=b"",
                last_step=-1,
                refused_step=-1,
                failures=0,
                created_at=now,
                last_used_at=None,
            )
        )
        await connection.execute(
            insert(backup_codes),
            [
                {
                    "tenant": tenant,
                    "id": code_id,
                    "subject": subject,
                    "digest": self._mac.token("backup_code", tenant, subject, canonical(code)),
                    "created_at": now,
                    "expires_at": now + LIFETIME,
                    "used_at": None,
                }
                for code_id, code in codes.items()
            ],
        )
        return tuple(codes.values())

    async def void(self, connection: AsyncConnection, tenant: str, subject: str) -> None:
        """End every code of this user."""
        mine = and_(backup_codes.c.tenant == tenant, backup_codes.c.subject == subject)
        await connection.execute(delete(backup_codes).where(mine))
        await connection.execute(delete(factors).where(_set(tenant, subject)))


def _set(tenant: str, subject: str) -> ColumnElement[bool]:
    return and_(factors.c.tenant == tenant, factors.c.subject == subject, factors.c.kind == BackupCodes.name)


def _unused(tenant: str, subject: str, now: Any) -> ColumnElement[bool]:
    return and_(
        backup_codes.c.tenant == tenant,
        backup_codes.c.subject == subject,
        backup_codes.c.used_at.is_(None),
        backup_codes.c.expires_at > now,
    )


# Built once: building a statement costs more than running it.
_TENANT: Any = bindparam("of_tenant")
_SUBJECT: Any = bindparam("of_subject")
_NOW: Any = bindparam("now", type_=backup_codes.c.expires_at.type)
_IN_USE = and_(
    _unused(_TENANT, _SUBJECT, _NOW),
    select(factors.c.id).where(_set(_TENANT, _SUBJECT), factors.c.failures <= bindparam("failures")).exists(),
)
_LEFT = select(func.count(), func.min(backup_codes.c.expires_at)).where(_IN_USE)
_USABLE = select(backup_codes.c.id, backup_codes.c.digest).where(_IN_USE)
_USE = (
    update(backup_codes)
    .where(_unused(_TENANT, _SUBJECT, _NOW), backup_codes.c.id == bindparam("of_id"))
    .values(used_at=_NOW)
)
_NOTE_USE = update(factors).where(_set(_TENANT, _SUBJECT)).values(last_used_at=_NOW)
