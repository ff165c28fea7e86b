"""Three things that somebody is glad to hear in time, by e-mail, each before it locks them out:

    few backup codes are left, or they end soon                                 once a month
    an account must have a second factor soon, and has none that will do        once before each such moment
    a single device is all there is, and nothing would be left without it       once in a quarter

It is looked at by every replica; the one that claims somebody's turn tells them, by an event that becomes a notice. Who
does without notices that are not about a change is told none of it. Who has been reminded is passed over in the
question itself, so a look costs a few reads where there is nothing new.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger, key
from gateway.core.events import Event, Kind, Severity
from gateway.mfa.attempts import LIFE
from gateway.mfa.backup_codes import FEW
from gateway.mfa.demands import NO_DEVICE, Demands
from gateway.store.own_address import is_confirmed
from gateway.store.sql import Records
from gateway.store.sql_key_value import SqlKeyValue, claim
from gateway.store.tables import backup_codes, factors, kept, users

DAY: Final = 86_400.0
MONTH: Final = 30 * DAY
QUARTER: Final = 90 * DAY
SOON: Final = 14 * DAY
"""Seconds before codes end that somebody is reminded."""
SETTLED: Final = 7 * DAY
"""Seconds that a single device has been there before anybody is told that it is the only one."""
EVERY: Final = 3600.0
"""Seconds between two looks."""
AT_ONCE: Final = 100
CODES, DUE, SINGLE = "reminder", "reminder-due", "reminder-single"
"""Kinds of claims."""


class Reminders:
    """Looks, and tells."""

    def __init__(
        self,
        records: Records,
        claims: SqlKeyValue,
        clock: Clock,
        ledger: Ledger,
        demands: Demands,
        *,
        by_email: bool = False,
    ) -> None:
        """`claims` are in the same records. `by_email`: whether an address that is confirmed gets somebody back in who
        has lost their device.
        """
        self._records = records
        self._claims = claims
        self._clock = clock
        self._ledger = ledger
        self._demands = demands
        self._by_email = by_email
        self._looked_at = float("-inf")

    async def turn(self) -> int:
        """Look, where it is time to; how many were told. Raises `StoreAway`."""
        if self._clock.monotonic() - self._looked_at < EVERY:
            return 0
        self._looked_at = self._clock.monotonic()
        return await self.look()

    async def look(self) -> int:
        """Remind whoever has to be; of how many. Raises `StoreAway`."""
        return await self._of_codes() + await self._of_what_is_due() + await self._of_single_ones()

    async def _of_codes(self) -> int:
        now = self._clock.now()
        left, ends = func.count(backup_codes.c.id), func.min(backup_codes.c.expires_at)
        query = (
            select(users.c.tenant, users.c.subject, users.c.name, left, ends)
            .join(factors, and_(factors.c.tenant == users.c.tenant, factors.c.subject == users.c.subject))
            .outerjoin(backup_codes, _good(now))
            .where(factors.c.kind == "backup_code", _reached(), ~_told(CODES, now))
            .group_by(users.c.tenant, users.c.subject, users.c.name)
            .having(or_(left <= FEW, ends < now + SOON))
            .limit(AT_ONCE)
        )
        async with self._records.read(long=True) as connection:
            found = (await connection.execute(query)).all()
        return sum(
            [await self._tell(Kind.BACKUP_CODES_FEW, row, CODES, MONTH, {"left": codes}) for *row, codes, _ in found]
        )

    async def _of_what_is_due(self) -> int:
        now, count = self._clock.now(), 0
        for (tenant, subject, name), due in await self._demands.ending(_reached(), ~_told(DUE, now), AT_ONCE):
            detail = {"until": int(due)}
            count += await self._tell(Kind.MFA_DUE, (tenant, subject, name), DUE, due - now + DAY, detail)
        return count

    async def _of_single_ones(self) -> int:
        now = self._clock.now()
        device = and_(
            factors.c.tenant == users.c.tenant,
            factors.c.subject == users.c.subject,
            factors.c.kind.not_in(NO_DEVICE),
            factors.c.failures < LIFE,
        )
        codes = exists().where(
            factors.c.tenant == users.c.tenant, factors.c.subject == users.c.subject, factors.c.kind.in_(NO_DEVICE)
        )
        back_in = [~is_confirmed()] if self._by_email else []
        query = (
            select(users.c.tenant, users.c.subject, users.c.name)
            .join(factors, device)
            .where(_reached(), ~_told(SINGLE, now), ~codes.correlate(users), *back_in)
            .group_by(users.c.tenant, users.c.subject, users.c.name)
            .having(func.count(factors.c.id) == 1, func.max(factors.c.created_at) <= now - SETTLED)
            .limit(AT_ONCE)
        )
        async with self._records.read(long=True) as connection:
            found = (await connection.execute(query)).all()
        return sum([await self._tell(Kind.FACTOR_SINGLE, row, SINGLE, QUARTER, {}) for row in found])

    async def _tell(self, kind: Kind, whom: Any, of: str, lasts: float, detail: dict[str, Any]) -> bool:
        """Tell `(tenant, subject, name)`, unless another replica has. Who stops half way has not claimed it either."""
        tenant, subject, name = whom
        event = Event(kind, Severity.INFO, tenant, name, detail=detail)
        async with self._records.begin() as connection:
            mine = await claim(connection, key(tenant, of, subject), self._clock.now(), lasts)
            if mine:
                await self._ledger.enter(connection, event)
        if mine:
            self._ledger.tell(event)
            await self._claims.wrote()
        return mine


def _reached() -> ColumnElement[bool]:
    """Whether a user can be reminded, and wants to be."""
    return and_(users.c.email != "", users.c.disabled.is_(False), users.c.quiet.is_(False))


def _told(claim: str, now: float) -> ColumnElement[bool]:
    """Whether a user was."""
    return exists().where(kept.c.key == users.c.tenant + f"/{claim}/" + users.c.subject, kept.c.expires_at > now)


def _good(now: float) -> ColumnElement[bool]:
    """Whether a backup code of a user counts."""
    return and_(
        backup_codes.c.tenant == users.c.tenant,
        backup_codes.c.subject == users.c.subject,
        backup_codes.c.used_at.is_(None),
        backup_codes.c.expires_at > now,
    )
