"""Who has few backup codes left, or codes that end soon, is reminded once a month.

It is looked at by every replica; the one that claims somebody's month tells them, by an event that becomes a notice.
Who has been reminded is passed over in the question itself, so a look costs one read where there is nothing new.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import and_, func, or_, select

from gateway.core.clock import Clock
from gateway.core.contracts import KeyValue, Ledger, key
from gateway.core.events import Event, Kind, Severity
from gateway.mfa.backup_codes import FEW
from gateway.store.sql import Records
from gateway.store.tables import backup_codes, factors, kept, users

MONTH: Final = 30 * 86_400.0
SOON: Final = 14 * 86_400.0
"""Seconds before codes end that somebody is reminded."""
EVERY: Final = 3600.0
"""Seconds between two looks."""
AT_ONCE: Final = 100
KIND: Final = "reminder"


class Reminders:
    """Looks, and tells."""

    def __init__(self, records: Records, claims: KeyValue, clock: Clock, ledger: Ledger) -> None:
        """`claims` are in the same records."""
        self._records = records
        self._claims = claims
        self._clock = clock
        self._ledger = ledger
        self._looked_at = float("-inf")

    async def turn(self) -> int:
        """Look, where it is time to; how many were told. Raises `StoreAway`."""
        if self._clock.monotonic() - self._looked_at < EVERY:
            return 0
        self._looked_at = self._clock.monotonic()
        return await self.look()

    async def look(self) -> int:
        """Remind whoever has to be; of how many. Raises `StoreAway`."""
        now = self._clock.now()
        good = and_(
            backup_codes.c.tenant == users.c.tenant,
            backup_codes.c.subject == users.c.subject,
            backup_codes.c.used_at.is_(None),
            backup_codes.c.expires_at > now,
        )
        told = and_(kept.c.key == users.c.tenant + f"/{KIND}/" + users.c.subject, kept.c.expires_at > now)
        left, ends = func.count(backup_codes.c.id), func.min(backup_codes.c.expires_at)
        query = (
            select(users.c.tenant, users.c.subject, users.c.name, left, ends)
            .join(factors, and_(factors.c.tenant == users.c.tenant, factors.c.subject == users.c.subject))
            .outerjoin(backup_codes, good)
            .outerjoin(kept, told)
            .where(factors.c.kind == "backup_code", users.c.email != "", users.c.disabled.is_(False))
            .where(users.c.quiet.is_(False), kept.c.key.is_(None))
            .group_by(users.c.tenant, users.c.subject, users.c.name)
            .having(or_(left <= FEW, ends < now + SOON))
            .limit(AT_ONCE)
        )
        async with self._records.read(long=True) as connection:
            found = (await connection.execute(query)).all()
        count = 0
        for tenant, subject, name, codes, _ in found:
            if await self._claims.claim(key(tenant, KIND, subject), MONTH):
                detail = {"left": codes}
                await self._ledger.record(Event(Kind.BACKUP_CODES_FEW, Severity.INFO, tenant, name, detail=detail))
                count += 1
        return count
