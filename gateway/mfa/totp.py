"""A code from an authenticator app. The arithmetic is `otp`'s; here it meets the database.

- A secret is sealed at rest, bound to its own row: copied into another user's row it does not open.
- A step is claimed by one `UPDATE … WHERE last_step < :step`. Of two simultaneous posts, in two browsers or two
  processes, one changes the row; and a code older than the last accepted one is refused although its time is not over
  (NIST SP 800-63B-4, 3.1.4: accepted only once; ASVS 6.5.1).
- A user may have several devices. An answer is tried with each that is in use.
- The clock hint tells that a code is right at another time. For a time to come that would give away a code that works
  later, and make nine more guesses count for each one made. So the step is put out of use with the hint.
- Should the server's own clock have run ahead, codes are refused until it is where it was; never accepted twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import and_, bindparam, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.asked import Asked
from gateway.core.clock import Clock
from gateway.core.identity import Level, Proof
from gateway.core.words import say_n
from gateway.crypto.sealing import Sealer
from gateway.crypto.tokens import new_id
from gateway.mfa import otp
from gateway.mfa.attempts import LIFE
from gateway.mfa.sealed import place_of
from gateway.store.sql import Records
from gateway.store.tables import factors


@dataclass(frozen=True, slots=True)
class _Device:
    id: str
    secret: bytes = field(repr=False)
    last_step: int
    refused_step: int


class Totp:
    """Factor `totp`."""

    name = "totp"

    def __init__(self, records: Records, sealer: Sealer, clock: Clock) -> None:
        self._records = records
        self.sealer = sealer
        self._clock = clock

    async def offer(self, tenant: str, subject: str, level: Level = Level.AAL2) -> bool:
        """Whether this user has a device that is in use. A code can be passed on, so it reaches aal2 at most."""
        if level > Level.AAL2:
            return False
        async with self._records.read() as connection:
            return bool(await connection.scalar(_IN_USE, {"tenant": tenant, "subject": subject}))

    async def check(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        answer: str,
        now: float,
        asked: Asked | None = None,
    ) -> Proof | None:
        """The proof for a code of the present step or its neighbours; its step is claimed."""
        code = otp.digits_of(answer)
        if not code:
            return None
        for device in await self._devices(connection, tenant, subject):
            step = otp.matching_step(
                device.secret, code, otp.step_at(now), after=device.last_step, refused=device.refused_step
            )
            if step is not None and await _claim(connection, tenant, device.id, step, now):
                return Proof(self.name, now)
        return None

    async def hint(self, tenant: str, subject: str, answer: str, now: float) -> str:
        """Says that the user's clock is off, when the code is right for another time within five minutes."""
        code = otp.digits_of(answer)
        if not code:
            return ""
        present = otp.step_at(now)
        async with self._records.read() as connection:
            devices = await self._devices(connection, tenant, subject)
        for device in devices:
            step = otp.drifted_step(device.secret, code, present)
            if step is None:
                continue
            if step > present:
                await self._refuse(tenant, subject, device.id, step)
            return clock_hint(step - present)
        return ""

    async def bind(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        *,
        secret: bytes,
        label: str,
        step: int,
        now: float,
    ) -> str:
        """Add a device that has just shown the code of `step`, which is claimed with it; its factor id."""
        factor_id = new_id()
        await connection.execute(
            insert(factors).values(
                tenant=tenant,
                id=factor_id,
                subject=subject,
                kind=self.name,
                label=label,
                secret=self.sealer.seal(secret, **place_of(tenant, factor_id)),
                last_step=step,
                refused_step=-1,
                failures=0,
                created_at=now,
                last_used_at=now,
            )
        )
        return factor_id

    async def _devices(self, connection: AsyncConnection, tenant: str, subject: str) -> list[_Device]:
        rows = (await connection.execute(_DEVICES, {"tenant": tenant, "subject": subject})).all()
        return [
            _Device(
                row.id,
                self.sealer.unseal(row.secret, **place_of(tenant, row.id)),
                row.last_step,
                row.refused_step,
            )
            for row in rows
        ]

    async def _refuse(self, tenant: str, subject: str, factor_id: str, step: int) -> None:
        async with self._records.begin(tenant, subject) as connection:
            await connection.execute(
                update(factors).where(factors.c.tenant == tenant, factors.c.id == factor_id).values(refused_step=step)
            )


async def _claim(connection: AsyncConnection, tenant: str, factor_id: str, step: int, now: float) -> bool:
    claimed = await connection.execute(
        _CLAIM, {"of_tenant": tenant, "of_id": factor_id, "step": step, "last_used_at": now}
    )
    return claimed.rowcount == 1


def clock_hint(steps: int) -> str:
    """A sentence for somebody whose clock is `steps` time steps ahead (negative: behind)."""
    minutes = otp.about_minutes(steps)
    if steps > 0:
        return say_n(
            "Your device's clock seems to be about {count} minute ahead; set it by the network and try the next code.",
            "Your device's clock seems to be about {count} minutes ahead; set it by the network and try the next code.",
            minutes,
        )
    return say_n(
        "Your device's clock seems to be about {count} minute behind; set it by the network and try the next code.",
        "Your device's clock seems to be about {count} minutes behind; set it by the network and try the next code.",
        minutes,
    )


# Built once: building a statement costs more than running it.
_OF = and_(
    factors.c.tenant == bindparam("tenant"), factors.c.subject == bindparam("subject"), factors.c.kind == Totp.name
)
_IN_USE = select(exists().where(_OF, factors.c.failures < LIFE))
_DEVICES = select(factors.c.id, factors.c.secret, factors.c.last_step, factors.c.refused_step).where(
    _OF, factors.c.failures <= LIFE
)
"""To judge with: this try is counted already."""
_CLAIM = (
    update(factors)
    .where(
        factors.c.tenant == bindparam("of_tenant"),
        factors.c.id == bindparam("of_id"),
        factors.c.last_step < bindparam("step"),
    )
    .values(last_step=bindparam("step"), last_used_at=bindparam("last_used_at"))
)
