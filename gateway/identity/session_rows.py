"""Sessions in the database: table `sessions`, each change one transaction.

Time is counted from the wall clock at start by the monotonic clock: setting the machine's clock, by an hour or by a
year, neither ends a session nor brings one back. After a restart, having been seen in the future counts as now.

What has changed is told by the revision of the database (`store.sql`), so there is nothing of its own to notice here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import Stays
from gateway.core.errors import StoreAway
from gateway.core.identity import Proof, Session, proof_as_kept, proof_from
from gateway.crypto.tokens import digest, new_token
from gateway.identity.session_store import (
    Ended,
    Found,
    Lifetimes,
    Opening,
    Seen,
    Terms,
    Watcher,
    gone,
    identity_of,
    person_of,
    proven,
    too_many,
)
from gateway.store.sql import Records
from gateway.store.tables import sessions, users

SWEEP_EVERY = 60.0
STEP = 65_536
"""A generation is raised by so much at most; it has 31 bits."""
_WHOSE = (sessions.c.tenant, sessions.c.subject, sessions.c.id)


class SessionRows:
    """A `SessionStore` in the database."""

    shared = False

    def __init__(self, records: Records, clock: Clock, terms: Terms) -> None:
        self._records = records
        self._terms = terms
        self._monotonic = clock.monotonic
        self._epoch = clock.now() - clock.monotonic()
        self._sweep_at = clock.monotonic()

    # --- changes ----------------------------------------------------------------------------------------------------

    async def open(
        self, new: Opening, *, replacing: bytes | None, connection: Any = None
    ) -> tuple[str, Found, Sequence[Ended]]:
        """As the contract says."""
        if connection is not None:
            return await self._open(connection, new, replacing)
        async with self._records.begin(new.tenant, new.subject) as own:
            return await self._open(own, new, replacing)

    async def _open(
        self, connection: AsyncConnection, new: Opening, replacing: bytes | None
    ) -> tuple[str, Found, Sequence[Ended]]:
        token, now, life = new_token(), self._now(), self._terms.of(new.tenant)
        mine = {"of_tenant": new.tenant, "of_subject": new.subject}
        row = {
            "tenant": new.tenant,
            "id": new.id,
            "subject": new.subject,
            "digest": digest(token),
            "version": 1,
            "created_at": now,
            "expires_at": now + life.absolute,
            "last_seen_at": now,
            "proofs": [proof_as_kept(new.proof)],
            "address": new.address,
            "agent": new.agent,
            "rested": 0.0,
        }
        ended: list[Ended] = []
        if replacing is not None:
            rows = await connection.execute(delete(sessions).where(sessions.c.digest == replacing).returning(*_WHOSE))
            ended += [Ended(*row, "replaced") for row in rows]
        idle = life.idle + life.lag + self._terms.grace
        over = {"now": now, "began": now - life.absolute, "seen": now - idle}
        await connection.execute(_END_OVER, {**mine, **over})
        count = await connection.scalar(_COUNT, mine) or 0
        if count >= life.per_user:
            if self._terms.refuse:
                raise too_many(life.per_user)
            rows = await connection.execute(_END_OLDEST, {**mine, "but": life.per_user - 1})
            ended += [Ended(*row, "too_many") for row in rows]
        who = (await connection.execute(_WHO, mine)).first()
        if who is None or who.disabled or who.generation != new.generation:
            raise gone()
        await connection.execute(_OPEN, row)
        for one in ended:
            await self._records.bump(connection, one.tenant, one.subject)
        await self._records.bump(connection, new.tenant, new.subject)
        return token, self._found(await _row(connection, digest(token))), ended

    async def prove(self, digest_: bytes, proof: Proof) -> tuple[str, Found] | None:
        """As the contract says."""
        token = new_token()
        async with self._records.begin() as connection:
            row = (await connection.execute(_BY_DIGEST, {"of": digest_})).first()
            if row is None:
                return None
            values = {
                "digest": digest(token),
                "version": row.version + 1,
                "last_seen_at": self._now(),
                "proofs": [proof_as_kept(one) for one in proven(_proofs(row.proofs), proof)],
                "rested": 0.0,
            }
            exchanged = await connection.execute(_PROVE, {"of": digest_, "before": row.version, **values})
            if exchanged.rowcount != 1:
                return None
            await self._records.bump(connection, row.tenant, row.subject)
        return token, self._found(SimpleNamespace(**{**row._mapping, **values}))

    async def extend(self, seen: Seen) -> float | None:
        """As the contract says."""
        now = self._now()
        values = {"last_seen_at": now, "rested": seen.rested}
        statement = update(sessions).where(sessions.c.digest == seen.digest).values(values)
        async with self._records.begin() as connection:
            return now if (await connection.execute(statement)).rowcount == 1 else None

    async def touch(self, seen: Sequence[Seen]) -> None:
        """As the contract says."""
        if not seen:
            return
        now = self._now()
        statement = (
            update(sessions)
            .where(
                sessions.c.digest == bindparam("of"),
                (sessions.c.last_seen_at < bindparam("seen")) | (sessions.c.rested < bindparam("pause")),
            )
            .values(
                last_seen_at=_larger(sessions.c.last_seen_at, bindparam("seen")),
                rested=_larger(sessions.c.rested, bindparam("pause")),
            )
        )
        # In one order, so that two processes that have seen the same sessions do not wait for each other in a circle.
        in_order = sorted(seen, key=lambda one: one.digest)
        values = [{"of": one.digest, "seen": now - one.ago, "pause": one.rested} for one in in_order]
        async with self._records.begin() as connection:
            await connection.execute(statement, values)

    async def end(self, tenant: str, subject: str, session_id: str) -> bool:
        """As the contract says."""
        this = (*_whose(tenant, subject), sessions.c.id == session_id)
        async with self._records.begin(tenant, subject) as connection:
            ended = (await connection.execute(delete(sessions).where(*this))).rowcount > 0
            if ended:
                await self._records.bump(connection, tenant, subject)
        return ended

    async def end_in(self, connection: Any, tenant: str, subject: str, ids: Sequence[str]) -> Sequence[str]:
        """As the contract says."""
        these = delete(sessions).where(*_whose(tenant, subject), sessions.c.id.in_(ids)).returning(sessions.c.id)
        return [one for (one,) in await connection.execute(these)]

    async def end_all(self, tenant: str, subject: str, *, but: str, first: Stays | None = None) -> int | None:
        """As the contract says."""
        async with self._records.begin(tenant, subject) as connection:
            if first is not None and not await first(connection):
                but = ""
            count, _ = await revoke(connection, tenant, subject, but=but)
            await self._records.bump(connection, tenant, subject)
        return count

    async def refresh(self) -> None:
        """Remove what is over, once a minute."""
        now = self._monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_EVERY
        wall = self._now()
        from_the_future = sessions.c.last_seen_at > wall + SWEEP_EVERY  # the clock was set back while we did not run
        async with self._records.begin() as connection:
            await connection.execute(delete(sessions).where(self._is_over(wall, lag=True)))
            await connection.execute(update(sessions).where(from_the_future).values(last_seen_at=wall))

    # --- looking ----------------------------------------------------------------------------------------------------

    async def find(self, digest: bytes) -> Found | None:
        """As the contract says."""
        async with self._records.read() as connection:
            row = (await connection.execute(_BY_DIGEST, {"of": digest})).first()
        return None if row is None else self._found(row)

    async def again(self, tenant: str, subject: str, session_id: str) -> Found | None:
        """As the contract says."""
        query = _with_user().where(*_whose(tenant, subject), sessions.c.id == session_id)
        async with self._records.read() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else self._found(row)

    async def list(self, tenant: str, subject: str) -> Sequence[Found]:
        """As the contract says."""
        query = _with_user().where(*_whose(tenant, subject)).order_by(sessions.c.created_at.desc())
        async with self._records.read() as connection:
            return [self._found(row) for row in (await connection.execute(query)).all()]

    async def count(self) -> tuple[int, int]:
        """As the contract says."""
        whose = sessions.c.tenant + "/" + sessions.c.subject
        query = select(func.count(), func.count(whose.distinct())).where(~self._is_over(self._now()))
        async with self._records.read(long=True) as connection:
            count, people = (await connection.execute(query)).one()
        return count, people

    def place(self, digest: bytes) -> int:
        """All are in one."""
        return 0

    def watch(self, watcher: Watcher) -> None:
        """Whoever listens to the database hears of everything."""

    # --- rows -------------------------------------------------------------------------------------------------------

    def _found(self, row: Any) -> Found:
        """`row`: what `_with_user` selects, by name."""
        now = self._now()
        expires_at = min(row.expires_at, row.created_at + self._terms.of(row.tenant).absolute)
        session = Session(
            id=row.id,
            version=row.version,
            created_at=row.created_at,
            expires_at=expires_at,  # also after the operator has made sessions shorter
            last_seen_at=row.last_seen_at,
            proofs=_proofs(row.proofs),
            address=row.address,
            agent=row.agent,
            rested=row.rested,
        )
        return Found(
            identity_of(row.tenant, row.subject, person_of(row), session),
            row.digest,
            pause=max(0.0, now - row.last_seen_at),
            left=expires_at - now,
            generation=row.generation,
        )

    def _now(self) -> float:
        """The wall clock as it was at start, plus the time that has passed."""
        return self._epoch + self._monotonic()

    def _is_over(self, now: float, *, lag: bool = False) -> ColumnElement[bool]:
        """`lag`: by more than what is written may be behind."""

        def idle(life: Lifetimes) -> float:
            return life.idle + (life.lag + self._terms.grace if lag else 0.0)

        def absolute(life: Lifetimes) -> float:
            return life.absolute

        ended: ColumnElement[bool] = (sessions.c.expires_at <= now) | (
            sessions.c.created_at + self._by_tenant(absolute) <= now
        )
        idled: ColumnElement[bool] = sessions.c.last_seen_at + self._by_tenant(idle) <= now
        return ended | idled

    def _by_tenant(self, of: Callable[[Lifetimes], float]) -> Any:
        """A lifetime, for each row that of its tenant."""
        terms = self._terms
        if not terms.tenants:
            return of(terms.default)
        whens = [(sessions.c.tenant == tenant, of(life)) for tenant, life in terms.tenants.items()]
        return case(*whens, else_=of(terms.default))


async def revoke(connection: AsyncConnection, tenant: str, subject: str, *, but: str = "") -> tuple[int, int]:
    """End every session of this user, wherever it is kept, in the caller's transaction, which then bumps.

    Rows go, except the one with id `but`; and what was opened before carries another `users.generation` than is
    returned, beside how many rows went.
    """
    whose = (*_whose(tenant, subject), sessions.c.id != but)
    count = (await connection.execute(delete(sessions).where(*whose))).rowcount
    # By chance, so that records from a backup do not come to the same number again on another way.
    higher = users.c.generation + 1 + secrets.randbelow(STEP)
    raised = update(users).where(*_is_user(tenant, subject)).values(generation=higher)
    generation = await connection.scalar(raised.returning(users.c.generation))
    return count, generation or 0


async def _row(connection: AsyncConnection, digest_: bytes) -> Row[Any]:
    row: Row[Any] = (await connection.execute(_BY_DIGEST, {"of": digest_})).one()
    return row


def _with_user() -> Select[Any]:
    """Sessions of users who may sign in, with what an identity needs to know of them."""
    return (
        select(
            sessions,
            users.c.name,
            users.c.email,
            users.c.display_name,
            users.c.groups,
            users.c.generation,
            users.c.mfa_required_from,
        )
        .join(users, (users.c.tenant == sessions.c.tenant) & (users.c.subject == sessions.c.subject))
        .where(users.c.disabled.is_(False))
    )


# Built once: building a statement costs more than running it.
_MINE = (sessions.c.tenant == bindparam("of_tenant"), sessions.c.subject == bindparam("of_subject"))
_COUNT = select(func.count()).select_from(sessions).where(*_MINE)
_END_OVER = delete(sessions).where(
    *_MINE,
    (sessions.c.expires_at <= bindparam("now"))
    | (sessions.c.created_at <= bindparam("began"))
    | (sessions.c.last_seen_at <= bindparam("seen")),
)
_END_OLDEST = (
    delete(sessions)
    .where(
        *_MINE,
        sessions.c.id.in_(
            select(sessions.c.id)
            .where(*_MINE)
            .order_by(sessions.c.created_at.desc(), sessions.c.id)
            .offset(bindparam("but"))
            .limit(1_000_000)
        ),
    )
    .returning(*_WHOSE)
)
_WHO = select(users.c.disabled, users.c.generation).where(
    users.c.tenant == bindparam("of_tenant"), users.c.subject == bindparam("of_subject")
)
_OPEN = insert(sessions)
_BY_DIGEST = _with_user().where(sessions.c.digest == bindparam("of"))
_PROVE = (
    update(sessions)
    .where(sessions.c.digest == bindparam("of"), sessions.c.version == bindparam("before"))
    .values(
        {
            name: bindparam(name, type_=sessions.c[name].type)
            for name in ("digest", "version", "last_seen_at", "proofs", "rested")
        }
    )
)


def _whose(tenant: str, subject: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return sessions.c.tenant == tenant, sessions.c.subject == subject


def _is_user(tenant: str, subject: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return users.c.tenant == tenant, users.c.subject == subject


def _larger(column: Any, value: Any) -> Any:
    return case((column < value, value), else_=column)


def _proofs(stored: Any) -> tuple[Proof, ...]:
    try:
        return tuple(proof_from(one) for one in stored)
    except (TypeError, ValueError) as error:
        raise StoreAway("a stored session makes no sense") from error
