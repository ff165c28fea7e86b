"""Who is signed in: sessions in the database, and near at hand.

- The cookie holds a random token; only its SHA-256 is stored. A proof (signing in, stepping up) gives the session a new
  token and the next version; the old token is dead in the same transaction (OWASP ASVS 7.2.4).
- A request costs one `dict.get`: an `Identity` is built once for each (session, version) and kept near by its token.
  Whatever changes a user's sessions, here or in another process, makes this process forget what it keeps of them.
- Being served writes nothing. That a session was seen is noted in memory and written at most once a minute.
- Time is counted from the wall clock at start by the monotonic clock: setting the machine's clock, by an hour or by a
  year, neither ends a session nor brings one back. After a restart, having been seen in the future counts as now.
- A database that cannot be reached is forgiven for a few seconds; after that nobody is known until it is back, because
  nobody could be told that a session was ended.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger
from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Event, Kind, Severity
from gateway.core.identity import Identity, Proof, Session, amr_of, level_of
from gateway.crypto.tokens import digest, new_token
from gateway.identity.users import User
from gateway.store.near import Near
from gateway.store.sql import Records
from gateway.store.tables import sessions, users

KEPT_NEAR = 10_000
TOUCH_EVERY = 60.0
"""Seconds between two writes of when a session was last seen; less when sessions idle out fast."""
SWEEP_EVERY = 60.0
GRACE = 10.0
"""Seconds without an answer from the database for which what is near is still believed."""
MAX_AGENT = 512


class _Near:
    """A session at hand. Times are monotonic."""

    __slots__ = ("expires_at", "identity", "seen_at", "written_at")

    def __init__(self, identity: Identity, seen_at: float, expires_at: float) -> None:
        self.identity = identity
        self.seen_at = seen_at
        self.written_at = seen_at
        self.expires_at = expires_at


class Sessions:
    """Opens, finds, proves and ends sessions.

    `idle` and `absolute` in seconds; `per_user` at most, the oldest ends when one more is opened. Every async method
    raises `StoreAway` where the database does.
    """

    def __init__(
        self, records: Records, clock: Clock, ledger: Ledger, *, idle: float, absolute: float, per_user: int
    ) -> None:
        self._records = records
        self._clock = clock
        self._ledger = ledger
        self._idle = idle
        self._absolute = absolute
        self._per_user = per_user
        self._touch_every = min(TOUCH_EVERY, idle / 10)
        self._monotonic = clock.monotonic
        self._epoch = clock.now() - clock.monotonic()
        self._near: Near[str, _Near] = Near(KEPT_NEAR)
        self._tokens_of: dict[tuple[str, str], set[str]] = {}
        self._unknown: Near[str, None] = Near(KEPT_NEAR)
        self._touched: dict[str, float] = {}  # session id → last seen, not written yet; own epoch's seconds
        self._to_write: list[_Near] = []
        self._forgettings = 0
        self._foreign: int | None = None
        self._fresh_at = clock.monotonic()
        self._sweep_at = clock.monotonic()
        records.listen(self._forget)

    # --- the request path -------------------------------------------------------------------------------------------

    def near(self, token: str) -> Identity | None:
        """Who holds `token`, if that is known without asking the database; counts as being seen."""
        entry = self._near.get(token)
        if entry is None:
            return None
        now = self._monotonic()
        if now >= entry.expires_at or now - entry.seen_at >= self._idle:
            return None
        if now - entry.written_at >= self._touch_every:
            entry.written_at = now
            self._to_write.append(entry)
        entry.seen_at = now
        return entry.identity

    async def find(self, token: str) -> Identity | None:
        """Who holds `token`; None for one that is unknown, over, or of a user who is disabled."""
        if (identity := self.near(token)) is not None or token in self._unknown:
            return identity
        return await self.read(token)

    async def read(self, token: str) -> Identity | None:
        """As `find`, from the database whatever is near."""
        before = self._forgettings
        async with self._records.read() as connection:
            row = (await connection.execute(_with_user().where(sessions.c.digest == digest(token)))).first()
        if row is None or not self._is_alive(row):
            self._unknown.keep(token, None)
            return None
        identity = self._identity(row)
        if before == self._forgettings:  # else it may have been ended while we were reading
            self._keep(token, identity, self._last_seen(row))
            return self.near(token)
        return identity

    async def again(self, identity: Identity) -> Identity | None:
        """The holder of a session that was known before, whatever its token is now; counts as being seen.

        None once it is over.
        """
        session = identity.session
        if session is None:
            return None
        for token in self._tokens_of.get((identity.tenant, identity.subject), ()):
            known = self._near.get(token)
            if known is None or known.identity.session is None or known.identity.session.id != session.id:
                continue
            if (near := self.near(token)) is not None:
                return near
        this = (sessions.c.tenant == identity.tenant, sessions.c.id == session.id)
        async with self._records.read() as connection:
            row = (await connection.execute(_with_user().where(*this))).first()
        if row is None or not self._is_alive(row):
            return None
        if self._monotonic() - self._last_seen(row) >= self._touch_every:
            self._touched[row.id] = self._now()
        return self._identity(row)

    # --- changes ----------------------------------------------------------------------------------------------------

    async def open(
        self, user: User, proof: Proof, *, address: str, agent: str, replacing: str | None = None
    ) -> tuple[str, Identity]:
        """Begin a session for somebody who has just shown `proof`; returns its token and their identity.

        The session of token `replacing`, whosever it was, ends with it. Raises `UserError` ERR-SIGN-IN where the user
        was disabled or removed meanwhile.
        """
        token, now = new_token(), self._now()
        session = {
            "tenant": user.tenant,
            "id": secrets.token_urlsafe(12),
            "subject": user.subject,
            "digest": digest(token),
            "version": 1,
            "created_at": now,
            "expires_at": now + self._absolute,
            "last_seen_at": now,
            "proofs": [[proof.factor, proof.at]],
            "address": address,
            "agent": agent[:MAX_AGENT],
        }
        mine = (sessions.c.tenant == user.tenant, sessions.c.subject == user.subject)
        async with self._records.begin() as connection:
            ended = []
            if replacing is not None:
                rows = await connection.execute(
                    delete(sessions).where(sessions.c.digest == digest(replacing)).returning(*_WHOSE)
                )
                ended += [(gone, "replaced") for gone in rows]
            await connection.execute(delete(sessions).where(*mine, self._is_long_over()))
            oldest = (
                select(sessions.c.id)
                .where(*mine)
                .order_by(sessions.c.created_at.desc(), sessions.c.id)
                .offset(self._per_user - 1)
                .limit(1_000_000)
            )
            rows = await connection.execute(delete(sessions).where(*mine, sessions.c.id.in_(oldest)).returning(*_WHOSE))
            ended += [(gone, "too_many") for gone in rows]
            who = (await connection.execute(select(users).where(*_is_user(user.tenant, user.subject)))).first()
            if who is None or who.disabled:
                raise UserError("ERR-SIGN-IN", "The user name or password is not right.", 401)
            await connection.execute(insert(sessions).values(session))
            for gone, _ in ended:
                await self._records.bump(connection, gone.tenant, gone.subject)
            await self._records.bump(connection, user.tenant, user.subject)
            identity = self._identity(await _row(connection, token))
        for gone, why in ended:
            await self._tell_ended(gone.tenant, gone.subject, gone.id, why)
        return token, identity

    async def prove(self, token: str, proof: Proof) -> tuple[str, Identity]:
        """Add a proof to the session of `token`: a new token, the next version. Exactly one caller gets it.

        Raises `UserError` ERR-SESSION-ENDED where the session is over, or its token was already exchanged.
        """
        fresh, now = new_token(), self._now()
        async with self._records.begin() as connection:
            row = (await connection.execute(_with_user().where(sessions.c.digest == digest(token)))).first()
            if row is None or not self._is_alive(row):
                raise _ended()
            others = [[factor, at] for factor, at in row.proofs if factor != proof.factor]
            exchanged = await connection.execute(
                update(sessions)
                .where(sessions.c.digest == digest(token), sessions.c.version == row.version)
                .values(
                    digest=digest(fresh),
                    version=row.version + 1,
                    last_seen_at=now,
                    proofs=[*others, [proof.factor, proof.at]],
                )
            )
            if exchanged.rowcount != 1:
                raise _ended()
            await self._records.bump(connection, row.tenant, row.subject)
            identity = self._identity(await _row(connection, fresh))
        return fresh, identity

    async def extend(self, token: str) -> Identity:
        """Begin the idle time anew, durably; the absolute end stays. Raises `UserError` ERR-SESSION-ENDED."""
        identity = await self.find(token)
        if identity is None or identity.session is None:
            raise _ended()
        now = self._now()
        async with self._records.begin() as connection:
            touched = await connection.execute(
                update(sessions).where(sessions.c.digest == digest(token)).values(last_seen_at=now)
            )
            if touched.rowcount != 1:
                raise _ended()
        return replace(identity, session=replace(identity.session, last_seen_at=now))

    async def end(self, tenant: str, subject: str, session_id: str) -> bool:
        """End one session of this user; False where they have no such session."""
        this = (sessions.c.tenant == tenant, sessions.c.subject == subject, sessions.c.id == session_id)
        async with self._records.begin() as connection:
            ended = (await connection.execute(delete(sessions).where(*this))).rowcount > 0
            if ended:
                await self._records.bump(connection, tenant, subject)
        if ended:
            await self._tell_ended(tenant, subject, session_id, "ended")
        return ended

    async def end_all(self, tenant: str, subject: str, *, but: str = "") -> int:
        """End every session of this user, except the one with id `but`; returns how many."""
        async with self._records.begin() as connection:
            count = await drop_sessions(connection, tenant, subject, but=but)
            await self._records.bump(connection, tenant, subject)
        if count:
            name = await self._name_of(tenant, subject)
            self._ledger.note(Event(Kind.SESSIONS_ENDED, Severity.NOTICE, tenant, name, but, detail={"count": count}))
        return count

    # --- looking ----------------------------------------------------------------------------------------------------

    async def list(self, tenant: str, subject: str) -> list[Session]:
        """Every live session of this user, the newest first."""
        query = select(sessions).where(sessions.c.tenant == tenant, sessions.c.subject == subject)
        async with self._records.read() as connection:
            rows = (await connection.execute(query.order_by(sessions.c.created_at.desc()))).all()
        seen = {
            entry.identity.session.id: entry.seen_at + self._epoch
            for token in self._tokens_of.get((tenant, subject), ())
            if (entry := self._near.get(token)) is not None and entry.identity.session is not None
        }
        return [
            replace(self._session(row), last_seen_at=max(row.last_seen_at, seen.get(row.id, 0.0)))
            for row in rows
            if self._is_alive(row, seen.get(row.id, 0.0))
        ]

    async def stats(self) -> dict[str, int]:
        """`sessions` alive, `users` who have one, `near` at hand in this process."""
        whose = sessions.c.tenant + "/" + sessions.c.subject
        query = select(func.count(), func.count(whose.distinct())).where(~self._is_over(self._now()))
        async with self._records.read() as connection:
            count, people = (await connection.execute(query)).one()
        return {"sessions": count, "users": people, "near": len(self._near)}

    # --- every second -----------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Notice what other processes changed, write what is due, remove what is over. Call it every second.

        Raises `StoreAway`; after ten seconds of it, nothing near is believed any more.
        """
        try:
            foreign = await self._records.revision() - self._records.own_revisions
        except StoreAway:
            if self._monotonic() - self._fresh_at >= GRACE:
                self._forget("", "")
            raise
        self._fresh_at = self._monotonic()
        if foreign != self._foreign:  # the first time, too: something may have changed before we began to watch
            self._foreign = foreign
            self._forget("", "")
        await self._write_touched()
        if self._fresh_at >= self._sweep_at:
            self._sweep_at = self._fresh_at + SWEEP_EVERY
            await self._sweep()

    async def close(self) -> None:
        """Write when every session was last seen, so that a restart keeps who was active."""
        self._to_write.extend(self._near.values())
        await self._write_touched()

    async def _write_touched(self) -> None:
        due, self._to_write = self._to_write, []
        for entry in due:
            self._note_seen(entry)
        if not self._touched:
            return
        touched = dict(self._touched)
        statement = (
            update(sessions)
            .where(sessions.c.id == bindparam("session"), sessions.c.last_seen_at < bindparam("seen"))
            .values(last_seen_at=bindparam("seen"))
        )
        async with self._records.begin() as connection:
            await connection.execute(statement, [{"session": id_, "seen": seen} for id_, seen in touched.items()])
        for id_, seen in touched.items():
            if self._touched.get(id_) == seen:
                del self._touched[id_]

    async def _sweep(self) -> None:
        now = self._now()
        from_the_future = (
            sessions.c.last_seen_at > now + SWEEP_EVERY
        )  # the clock was set back while we were not running
        async with self._records.begin() as connection:
            await connection.execute(delete(sessions).where(self._is_long_over()))
            await connection.execute(update(sessions).where(from_the_future).values(last_seen_at=now))

    # --- what is near -----------------------------------------------------------------------------------------------

    def _keep(self, token: str, identity: Identity, seen_at: float) -> None:
        if identity.session is None:
            return
        self._drop(token)
        entry = _Near(identity, seen_at, identity.session.expires_at - self._epoch)
        for gone in self._near.keep(token, entry):
            self._note_seen(gone)
        self._tokens_of.setdefault((identity.tenant, identity.subject), set()).add(token)
        self._unknown.pop(token, None)
        if len(self._tokens_of) > 2 * KEPT_NEAR:
            self._tokens_of = _by_subject(self._near)

    def _drop(self, token: str) -> None:
        if (entry := self._near.pop(token, None)) is not None:
            self._note_seen(entry)

    def _forget(self, tenant: str, subject: str) -> None:
        """Believe nothing near of this user any more; of nobody, where the subject is empty."""
        self._forgettings += 1
        if subject:
            for token in self._tokens_of.pop((tenant, subject), ()):
                self._drop(token)
            return
        for token in list(self._near):
            self._drop(token)
        self._tokens_of.clear()
        self._unknown.clear()

    def _note_seen(self, entry: _Near) -> None:
        if entry.identity.session is not None:
            self._touched[entry.identity.session.id] = entry.seen_at + self._epoch

    # --- time -------------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        """The wall clock as it was at start, plus the time that has passed."""
        return self._epoch + self._monotonic()

    def _last_seen(self, row: Row[Any]) -> float:
        """Monotonic; from memory where that knows better than the row."""
        return float(min(self._now(), max(row.last_seen_at, self._touched.get(row.id, 0.0)))) - self._epoch

    def _is_alive(self, row: Row[Any], seen_at: float = 0.0) -> bool:
        now = self._now()
        seen = max(row.last_seen_at, seen_at, self._touched.get(row.id, 0.0))
        return bool(now < self._expires_at(row) and now - seen < self._idle)

    def _expires_at(self, row: Row[Any]) -> float:
        """Also after the operator has made sessions shorter."""
        return float(min(row.expires_at, row.created_at + self._absolute))

    def _is_over(self, now: float) -> ColumnElement[bool]:
        return (sessions.c.expires_at <= now) | (sessions.c.last_seen_at <= now - self._idle)

    def _is_long_over(self) -> ColumnElement[bool]:
        """Over by more than the database may lag behind what this process has seen."""
        return self._is_over(self._now() - 2 * self._touch_every - GRACE)

    # --- rows -------------------------------------------------------------------------------------------------------

    def _session(self, row: Row[Any]) -> Session:
        return Session(
            id=row.id,
            version=row.version,
            created_at=row.created_at,
            expires_at=self._expires_at(row),
            last_seen_at=row.last_seen_at,
            proofs=_proofs(row.proofs),
            address=row.address,
            agent=row.agent,
        )

    def _identity(self, row: Row[Any]) -> Identity:
        session = self._session(row)
        return Identity(
            tenant=row.tenant,
            subject=row.subject,
            user=row.name,
            email=row.email,
            name=row.display_name,
            groups=frozenset(row.groups),
            session=session,
            level=level_of(session.proofs),
            amr=amr_of(session.proofs),
            auth_time=max((proof.at for proof in session.proofs), default=0.0),
        )

    async def _name_of(self, tenant: str, subject: str) -> str:
        async with self._records.read() as connection:
            query = select(users.c.name).where(*_is_user(tenant, subject))
            return (await connection.execute(query)).scalar() or ""

    async def _tell_ended(self, tenant: str, subject: str, session_id: str, why: str) -> None:
        name = await self._name_of(tenant, subject)
        self._ledger.note(Event(Kind.SESSION_ENDED, Severity.INFO, tenant, name, session_id, detail={"why": why}))


_WHOSE = (sessions.c.tenant, sessions.c.subject, sessions.c.id)


async def drop_sessions(connection: AsyncConnection, tenant: str, subject: str, *, but: str = "") -> int:
    """Delete this user's sessions, except the one with id `but`, in the caller's transaction, which then bumps."""
    whose = (sessions.c.tenant == tenant, sessions.c.subject == subject, sessions.c.id != but)
    return (await connection.execute(delete(sessions).where(*whose))).rowcount


async def _row(connection: AsyncConnection, token: str) -> Row[Any]:
    row: Row[Any] = (await connection.execute(_with_user().where(sessions.c.digest == digest(token)))).one()
    return row


def _with_user() -> Select[Any]:
    """Sessions of users who may sign in, with what an identity needs to know of them."""
    return (
        select(sessions, users.c.name, users.c.email, users.c.display_name, users.c.groups)
        .join(users, (users.c.tenant == sessions.c.tenant) & (users.c.subject == sessions.c.subject))
        .where(users.c.disabled.is_(False))
    )


def _is_user(tenant: str, subject: str) -> tuple[Any, Any]:
    return users.c.tenant == tenant, users.c.subject == subject


def _ended() -> UserError:
    return UserError("ERR-SESSION-ENDED", "This session is over; sign in again.", 401)


def _by_subject(near: Near[str, _Near]) -> dict[tuple[str, str], set[str]]:
    tokens: dict[tuple[str, str], set[str]] = {}
    for token, entry in near.items():
        tokens.setdefault((entry.identity.tenant, entry.identity.subject), set()).add(token)
    return tokens


def _proofs(stored: Any) -> tuple[Proof, ...]:
    try:
        return tuple(Proof(str(factor), float(at)) for factor, at in stored)
    except (TypeError, ValueError) as error:
        raise StoreAway("a stored session makes no sense") from error
