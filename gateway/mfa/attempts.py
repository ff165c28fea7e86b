"""How often an answer may be tried: two counters, both kept in the database, both raised before anything is checked.

- *A run*, for each user and method: five tries, then a wait. A run ends when nothing was tried for the length of its
  wait, so no fifteen minutes ever hold more than five tries (a window that starts by the clock would let ten through
  at its edge). The wait is 15 minutes and doubles with every run that was used up, to an hour (NIST SP 800-63B-4,
  3.2.2). Another method has a run of its own: whoever is shut out of one can use the other.
- *A life*, for each bound factor: a hundred wrong answers in a row, and it is out of use until it is bound anew.
  Waiting does not help. Five tries in fifteen minutes alone would let a patient guesser win 41 % of the six-digit
  lotteries in a year; a hundred in a life is 0.03 %.

A right answer sets both back. Of every fifth wrong one in a row (`TOLD`) the owner is told: whoever gives it had the
password. It is counted in the life, so that who tries slower than a run is wide is heard of all the same.

Both are raised in a transaction that nothing can come between, so of a hundred guesses in one instant five are checked,
whichever process they reach. An answer is judged in that same transaction: whoever is told what became of a try has
been counted, and of one that was not kept (the process died) nobody is told anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.store.sql import Records
from gateway.store.tables import attempts, factors

RUN = 5
"""Tries in a run."""
WAIT = 900.0
"""Seconds after the last try of a run until the next run begins."""
DOUBLINGS = 2
"""How often the wait doubles: 15 minutes, 30, 60."""
LIFE = 100
"""Wrong answers in a row that take a factor out of use."""
TOLD = RUN
"""Of every so many wrong answers in a row their owner is told: in a run once at most, twenty times in a life."""


@dataclass(frozen=True, slots=True)
class Run:
    """Tries of one user with one method."""

    tries: int
    last_at: float
    """When the last admitted one was, in seconds since the epoch."""
    used_up: int
    """Runs used up since the last right answer."""


def after_try(run: Run | None, now: float) -> tuple[Run, float]:
    """Count one try at `now`: the run afterwards, and 0.0 when it is admitted or the seconds to wait when not."""
    if run is None:
        return Run(1, now, 0), 0.0
    # A clock that was set back must not make anybody wait for what it was set back by.
    last_at = min(run.last_at, now)
    wait = WAIT * 2 ** min(run.used_up, DOUBLINGS)
    if now >= last_at + wait:
        return Run(1, now, run.used_up + (run.tries >= RUN)), 0.0
    if run.tries < RUN:
        return Run(run.tries + 1, now, run.used_up), 0.0
    return Run(run.tries, last_at, run.used_up), last_at + wait - now


@dataclass(frozen=True, slots=True)
class Try:
    """One try, counted."""

    wait: float
    """0.0: check it. Otherwise do not, and say to come back in so many seconds."""
    lives: tuple[tuple[str, int], ...] = ()
    """`(id, tries so far)` of each factor that the answer is for and that is still in use, this try included."""

    @property
    def last_of(self) -> tuple[str, ...]:
        """Factors that are out of use when this try turns out to be wrong."""
        return tuple(factor_id for factor_id, tried in self.lives if tried >= LIFE)

    @property
    def guesses(self) -> int:
        """Wrong answers in a row, when this try turns out to be one and their owner is to be told; else 0.

        Of several factors the one that most were given to counts: each try is told of once, whatever was bound when.
        """
        most = max((tried for _, tried in self.lives), default=0)
        return 0 if most % TOLD or self.last_of else most


class Attempts:
    """The counters of every user."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    async def admit(self, tenant: str, subject: str, method: str) -> Try:
        """`count`, in a transaction of its own. Raises `StoreAway`."""
        async with self._records.begin(tenant, subject) as connection:
            return await self.count(connection, tenant, subject, method)

    async def count(self, connection: AsyncConnection, tenant: str, subject: str, method: str) -> Try:
        """Count one try of `method`, before its answer is looked at."""
        wait = await self._count_run(connection, tenant, subject, method)
        if wait > 0:
            return Try(wait)
        counted = await connection.execute(
            _COUNT_LIVES, {"of_tenant": tenant, "of_subject": subject, "of_method": method}
        )
        found = Try(0.0, tuple((factor_id, tried) for factor_id, tried in counted.tuples() if tried <= LIFE))
        if found.last_of:  # what they must have they may lack from here on
            await self._records.bump(connection, tenant, subject)
        return found

    async def succeeded(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        method: str,
        lives: Sequence[tuple[str, int]] = (),
    ) -> None:
        """Set back what `admit` counted, in the transaction that claims the answer: the run, and the lives."""
        await connection.execute(_END_RUN, {"of_tenant": tenant, "of_subject": subject, "of_method": method})
        if lives:
            await connection.execute(
                _BEGIN_LIVES, {"of_tenant": tenant, "of_ids": [factor_id for factor_id, _ in lives]}
            )
        if any(tried >= LIFE for _, tried in lives):
            await self._records.bump(connection, tenant, subject)

    async def _count_run(self, connection: AsyncConnection, tenant: str, subject: str, method: str) -> float:
        mine = {"of_tenant": tenant, "of_subject": subject, "of_method": method}
        found = (await connection.execute(_RUN, mine)).one_or_none()
        run, wait = after_try(None if found is None else Run(*found), self._clock.now())
        values = {"tries": run.tries, "last_at": run.last_at, "used_up": run.used_up}
        if found is None:
            await connection.execute(_BEGIN_RUN, {"tenant": tenant, "subject": subject, "method": method, **values})
        else:
            await connection.execute(_GO_ON, {**mine, **values})
        return wait


# Built once: building a statement costs more than running it.
_MINE = (
    attempts.c.tenant == bindparam("of_tenant"),
    attempts.c.subject == bindparam("of_subject"),
    attempts.c.method == bindparam("of_method"),
)
_RUN = select(attempts.c.tries, attempts.c.last_at, attempts.c.used_up).where(*_MINE).with_for_update()
_BEGIN_RUN = insert(attempts)
_GO_ON = update(attempts).where(*_MINE).values({name: bindparam(name) for name in ("tries", "last_at", "used_up")})
_END_RUN = delete(attempts).where(*_MINE)
_BEGIN_LIVES = (
    update(factors)
    .where(factors.c.tenant == bindparam("of_tenant"), factors.c.id.in_(bindparam("of_ids", expanding=True)))
    .values(failures=0)
)
_COUNT_LIVES = (
    update(factors)
    .where(
        factors.c.tenant == bindparam("of_tenant"),
        factors.c.subject == bindparam("of_subject"),
        factors.c.kind == bindparam("of_method"),
        factors.c.failures <= LIFE,  # one past the end, so that a spent life is told from a last try
    )
    .values(failures=factors.c.failures + 1)
    .returning(factors.c.id, factors.c.failures)
)
