"""What a user can prove it with.

Every answer, whatever the factor, passes through `check`: one transaction counts the try, has the factor judge and
claim, and sets the counters back. A factor itself knows nothing of limits, so none can forget them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import and_, bindparam, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.asked import Asked
from gateway.core.clock import Clock
from gateway.core.contracts import Factor
from gateway.core.errors import NotProven, StoreAway, UserError
from gateway.core.identity import Level, Proof
from gateway.core.words import say
from gateway.mfa.attempts import LIFE, Attempts
from gateway.mfa.codes.factor import SentCode
from gateway.store.sql import Records
from gateway.store.tables import backup_codes, users
from gateway.store.tables import factors as rows


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A factor that a user has bound."""

    id: str
    kind: str
    """The factor's name, as in YAML."""
    label: str
    """What the user calls it; may be empty."""
    created_at: float
    last_used_at: float
    """0.0: never."""
    disabled: bool
    """Out of use after too many wrong answers in a row; has to be bound anew."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of an answer."""

    proof: Proof | None = None
    wait: float = 0.0
    """Above 0.0: it was not looked at; seconds until one will be."""
    disabled: tuple[str, ...] = ()
    """Ids of factors that this wrong answer took out of use; told once."""
    guesses: int = 0
    """Wrong answers in a row, this one included, where that is a number their owner is to be told; else 0."""
    hint: str = ""
    why: str = ""
    """Why a wrong answer is wrong, in a word for operators; empty where that is all there is to say."""
    copied: str = ""
    """Id of a factor that there may be a copy of."""


NOTHING = Checked()

Conclude = Callable[[AsyncConnection, Checked], Awaitable[None]]
"""Does what else follows from an answer, in the transaction that judges it."""


class Factors:
    """The factors of every user. `built` maps names to factors, the preferred first."""

    def __init__(self, records: Records, built: Mapping[str, Factor], clock: Clock) -> None:
        self._records = records
        self._built = dict(built)
        self._clock = clock
        self.names = tuple(built)
        self.attempts = Attempts(records, clock)

    def sent(self, name: str) -> SentCode | None:
        """The factor `name`, where its answer is sent first; else None."""
        found = self._built.get(name)
        return found if isinstance(found, SentCode) else None

    async def addresses(self, tenant: str, subject: str) -> dict[str, str]:
        """Where codes of this user can be sent, masked, by the id of the factor."""
        found: dict[str, str] = {}
        for factor in self._built.values():
            if isinstance(factor, SentCode):
                found |= await factor.addresses(tenant, subject)
        return found

    async def counts(self) -> dict[str, float]:
        """How many factors are enrolled, by kind; for the metrics."""
        async with self._records.read(long=True) as connection:
            found = (await connection.execute(select(rows.c.kind, func.count()).group_by(rows.c.kind))).all()
        return {kind: float(count) for kind, count in found}

    async def adoption(self) -> tuple[int, dict[str, float]]:
        """How many people may sign in, and how many could answer now with each factor; `any`: with one at least.

        What is out of use, or no longer offered here, is not counted, nor is a set of backup codes that are used up.
        """
        codes = exists().where(
            backup_codes.c.tenant == rows.c.tenant,
            backup_codes.c.subject == rows.c.subject,
            backup_codes.c.used_at.is_(None),
            backup_codes.c.expires_at > self._clock.now(),
        )
        able = (
            select(rows.c.tenant, rows.c.subject, rows.c.kind)
            .join(users, and_(users.c.tenant == rows.c.tenant, users.c.subject == rows.c.subject))
            .where(users.c.disabled.is_(False), rows.c.failures < LIFE, rows.c.kind.in_(self.names))
            .where(or_(rows.c.kind != "backup_code", codes))
            .distinct()
            .subquery()
        )
        by_kind = select(able.c.kind, func.count()).group_by(able.c.kind)
        anybody = select(able.c.tenant, able.c.subject).distinct().subquery()
        async with self._records.read(long=True) as connection:
            everybody = await connection.scalar(select(func.count()).where(users.c.disabled.is_(False)))
            found = {kind: float(count) for kind, count in (await connection.execute(by_kind)).all()}
            any_of_them = await connection.scalar(select(func.count()).select_from(anybody))
        return everybody or 0, {**dict.fromkeys(self.names, 0.0), **found, "any": float(any_of_them or 0)}

    async def of(self, tenant: str, subject: str) -> list[Enrolled]:
        """Everything this user has bound, oldest first, out of use or not."""
        query = (
            select(rows.c.id, rows.c.kind, rows.c.label, rows.c.created_at, rows.c.last_used_at, rows.c.failures)
            .where(rows.c.tenant == tenant, rows.c.subject == subject)
            .order_by(rows.c.created_at, rows.c.id)
        )
        async with self._records.read() as connection:
            found = (await connection.execute(query)).all()
        return [
            Enrolled(one.id, one.kind, one.label, one.created_at, one.last_used_at or 0.0, one.failures >= LIFE)
            for one in found
        ]

    async def can(self, tenant: str, subject: str, factor: str, level: Level = Level.AAL2) -> bool:
        """Whether `factor` is among what is `usable`, for who asks for no more than that."""
        return factor in self._built and await self._built[factor].offer(tenant, subject, level)

    async def usable(self, tenant: str, subject: str, level: Level = Level.AAL2) -> tuple[str, ...]:
        """Names of the factors this user could reach `level` with now: the one they prefer first, then the one used
        last, then as the operator has them.

        Backup codes come last always: there are ten of them, and each is good once.
        """
        async with self._records.read() as connection:
            found = (await connection.execute(_IN_USE, {"tenant": tenant, "subject": subject})).all()
        last = {kind: used or 0.0 for kind, used, _ in found}
        first = found[0].preferred_factor if found else ""
        names = [name for name in self._built if name in last and await self._built[name].offer(tenant, subject, level)]
        return tuple(sorted(names, key=lambda name: (name == "backup_code", name != first, -last[name])))

    async def preferred(self, tenant: str, subject: str) -> str:
        """The factor that this user wants to be asked for first; empty: the one used last."""
        mine = (users.c.tenant == tenant, users.c.subject == subject)
        async with self._records.read() as connection:
            return await connection.scalar(select(users.c.preferred_factor).where(*mine)) or ""

    async def prefer(self, tenant: str, subject: str, factor: str) -> None:
        """Have `factor` asked for first; empty: none in particular.

        Raises `UserError` ERR-MFA-METHOD for one that they do not have, or that always comes last.
        """
        bound = {one.kind for one in await self.of(tenant, subject)}
        if factor and (factor == "backup_code" or factor not in bound or factor not in self._built):
            raise UserError("ERR-MFA-METHOD", say("You cannot be asked for this first."), 400)
        mine = (users.c.tenant == tenant, users.c.subject == subject)
        async with self._records.begin(tenant, subject) as connection:
            await connection.execute(update(users).where(*mine).values(preferred_factor=factor))

    async def check(
        self,
        tenant: str,
        subject: str,
        factor: str,
        answer: str,
        *,
        hint: bool = False,
        asked: Asked | None = None,
        conclude: Conclude | None = None,
    ) -> Checked:
        """Count a try of `factor`, and judge `answer` to `asked` if it is admitted; with `conclude`, all or nothing.

        `hint`: whether a wrong answer may be told more about. Raises `KeyError` for a factor that is not built in, and
        `StoreAway`, after which there was no try.
        """
        judge, now = self._built[factor], self._clock.now()
        proof: Proof | None = None
        try:
            async with self._records.begin(tenant, subject) as connection:
                counted = await self.attempts.count(connection, tenant, subject, factor)
                if counted.wait > 0:
                    return Checked(wait=counted.wait)
                checked = Checked(disabled=counted.last_of, guesses=counted.guesses)
                try:
                    if counted.lives:
                        proof = await judge.check(connection, tenant, subject, answer, now, asked)
                except NotProven as error:
                    checked = replace(checked, why=error.why, copied=error.copied)
                if proof is not None:
                    await self.attempts.succeeded(connection, tenant, subject, factor, counted.lives)
                    checked = Checked(proof)
                if conclude is not None:
                    await conclude(connection, checked)
        except StoreAway:
            raise
        except Exception:  # of ours, and nobody is to try without end because of it
            await self.attempts.admit(tenant, subject, factor)
            raise
        if proof is None and hint and counted.lives:
            checked = replace(checked, hint=await judge.hint(tenant, subject, answer, now))
        return checked


_IN_USE = (  # built once: building a statement costs more than running it
    select(rows.c.kind, func.max(rows.c.last_used_at), users.c.preferred_factor)
    .join(users, and_(users.c.tenant == rows.c.tenant, users.c.subject == rows.c.subject))
    .where(rows.c.tenant == bindparam("tenant"), rows.c.subject == bindparam("subject"), rows.c.failures < LIFE)
    .group_by(rows.c.kind, users.c.preferred_factor)
)
