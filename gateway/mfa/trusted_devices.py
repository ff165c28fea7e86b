"""Browsers that their user trusts: a second factor was shown there, and need not be for a while.

The cookie is `<series>.<token>`: the series stays, the token is good for one sign-in and is exchanged there for the
next. Both are random and kept as SHA-256, so the database opens nothing. A copy of the cookie betrays itself: of a
thief and the owner one signs in first, and the other one comes with a token that is spent. Then the browser is trusted
no more, whatever sessions were opened with it end, and it is an alarm: the second of the two knew the password too.
(After B. Jaspan, "Improved Persistent Login Cookie Best Practice", 2006.)

```text
what comes                                           what happens
a series that is not known, another person's, over   nothing: the second factor is asked for
the token                                            spent, exchanged for the next; it may stand in
the token before, from the very browser that spent   the same next token once more
  it, within `GRACE`
any other token of the series                        the series goes, its sessions end, alarm
the token, once more than `SESSIONS` can be          the series goes, its sessions end: else whoever signs in often
  remembered                                           enough has one that nobody knows of any more
```

A browser that is trusted anew comes with its cookie too. A spent one betrays the copy then as well; else the thief
would keep what they have opened, for the series that it belongs to goes with the old cookie.

*The grace* is for two tabs that sign in at once, a button pressed twice, an answer that never arrived: the browser has
no other token then, and did nothing wrong. It is 30 seconds, about as long as somebody waits before trying again, and
for the browser alone whose random name (the cookie of our forms) came with the first use, wherever its network has gone
meanwhile. All of them get one and the same token, made from the spent one and a random salt, so it does not matter
which answer the browser keeps, and two parallel uses never make two tokens that are good. Nothing slips through: a
thief who copied every cookie and is as quick holds the owner's token then, and one of the two comes with a spent one
next time.

What makes it void, at once and wherever sessions are kept, is `users.generation`: a new password, a disabled account, a
factor removed or reset, every session ended. The generation is compared in the transaction that spends the token.
Where one alone is trusted no more, the sessions opened with it end in the transaction that forgets which they were.

It is `lifetime` after the second factor was shown, however often the browser is used: nothing prolongs it.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger
from gateway.core.errors import UserError
from gateway.core.events import NOWHERE, Event, Kind, Place, Severity
from gateway.core.identity import TRUSTED_DEVICE, Identity, Proof
from gateway.core.words import say
from gateway.crypto.tokens import digest, new_id, new_token
from gateway.store.sql import Records
from gateway.store.tables import trusted_devices as rows
from gateway.store.tables import users

GRACE = 30.0
"""Seconds for which the browser that spent a token may come with it again."""
SKEW = 60.0
"""Seconds that a device may seem to have been trusted in the future, after the clock was corrected."""
SESSIONS = 500
"""Sessions of one device that are remembered; with one more it is trusted no more, and all of them end."""
MAX_AGENT = 512


@dataclass(frozen=True, slots=True)
class Trusted:
    """A browser that its user trusts."""

    id: str
    created_at: float
    expires_at: float
    last_used_at: float
    """0.0: never."""
    address: str
    """Where it was last used, or trusted."""
    agent: str
    here: bool
    """Whether it is the one that asks."""


@dataclass(frozen=True, slots=True)
class Used:
    """What became of a cookie at sign-in."""

    cookie: str | None = field(default=None, repr=False)
    """For the browser to keep instead; empty: none any more; None: whatever it has."""
    left: int = 0
    """Seconds that the new one is good for."""
    proof: Proof | None = None
    """For the session, where it may stand in."""


NOTHING = Used()
GONE = Used("")

EndSessions = Callable[[AsyncConnection, str, str, Sequence[str]], Awaitable[Sequence[str]]]
"""Ends sessions of `(tenant, subject)` by their ids, in the caller's transaction, which then bumps; those that were."""


class TrustedDevices:
    """The trusted browsers of every user. Every method raises `StoreAway` where a store does."""

    def __init__(
        self,
        records: Records,
        clock: Clock,
        ledger: Ledger,
        end: EndSessions,
        *,
        lifetime: float = 30 * 86400.0,
        most: int = 10,
        count: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        """`lifetime` in seconds, `most` for each user; `count(outcome)` is called for each use: `used`, `repeated`,
        `void`, `stolen`.
        """
        self.lifetime = lifetime
        self._records = records
        self._clock = clock
        self._ledger = ledger
        self._end = end
        self._most = most
        self._count = count

    async def generation(self, tenant: str, subject: str) -> int:
        """What `trust` wants to know; to be read before the proof it rests on is put into the session."""
        async with self._records.read() as connection:
            return await _generation(connection, tenant, subject)

    async def trust(
        self, identity: Identity, generation: int, *, replacing: str = "", browser: str = "", place: Place = NOWHERE
    ) -> str | None:
        """Trust the browser in which `identity` has just shown a second factor; its cookie.

        None where everything of theirs was made void since `generation` was read. `replacing` is the cookie the
        browser had, `browser` its random name: a browser is trusted once. One more than may be, and the one that was
        trusted first goes.
        """
        tenant, subject, now = identity.tenant, identity.subject, self._clock.now()
        series, token, device = new_token(), new_token(), new_id()
        mine = _of(tenant, subject)
        async with self._records.begin() as connection:
            await connection.execute(delete(rows).where(rows.c.expires_at <= now))
        async with self._records.begin(tenant, subject) as connection:
            if generation < 0 or await _generation(connection, tenant, subject) != generation:
                return None
            old = (await connection.execute(select(rows).where(mine, rows.c.series == _series(replacing)))).first()
            told, named = digest(replacing.partition(".")[2]), digest(browser)
            alarm: Event | None = None
            ended: Sequence[str] = ()
            good = old is not None and old.generation == generation and self._good(old, now)
            if old is not None and good and _is_copy(old, told, named, now):
                ended = await self._end_sessions(connection, identity, old.sessions)
                alarm = await self._alarm(connection, identity, old, place)
            await connection.execute(
                delete(rows).where(mine, (rows.c.series == _series(replacing)) | (rows.c.generation != generation))
            )
            newest = select(rows.c.id).where(mine).order_by(rows.c.created_at.desc(), rows.c.id)
            oldest = newest.offset(self._most - 1).limit(1_000_000)
            await connection.execute(delete(rows).where(mine, rows.c.id.in_(oldest)))
            await connection.execute(
                insert(rows).values(
                    tenant=tenant,
                    id=device,
                    subject=subject,
                    series=digest(series),
                    digest=digest(token),
                    generation=generation,
                    created_at=now,
                    expires_at=now + self.lifetime,
                    address=place.address,
                    agent=place.agent[:MAX_AGENT],
                    sessions=[],
                )
            )
            added = _event(Kind.TRUSTED_DEVICE_ADDED, identity, device, Severity.NOTICE, place)
            await self._ledger.enter(connection, added)
        if alarm is not None:
            self._tell_stolen(identity, alarm, ended)
        self._ledger.tell(added)
        return f"{series}.{token}"

    async def use(self, identity: Identity, cookie: str, browser: str, place: Place = NOWHERE) -> Used:
        """Spend the token in `cookie` for the session of `identity`, who has just shown the password; the table above.

        `browser` is the browser's random name.
        """
        series, _, token = cookie.partition(".")
        tenant, subject, now = identity.tenant, identity.subject, self._clock.now()
        session = identity.session_id
        this = and_(_of(tenant, subject), rows.c.series == digest(series))
        next_token = ""
        ended: Sequence[str] = ()
        async with self._records.begin(tenant, subject) as connection:
            row = (await connection.execute(select(rows).where(this).with_for_update())).first()
            if row is None:
                self._count("void")
                return NOTHING if await _exists(connection, series) else GONE
            if not self._good(row, now) or row.generation != await _generation(connection, tenant, subject):
                await connection.execute(delete(rows).where(this))
                self._count("void")
                return GONE
            told, named = digest(token), digest(browser)
            values: dict[str, Any] = {
                "last_used_at": now,
                "address": place.address,
                "agent": place.agent[:MAX_AGENT],
                "sessions": [*row.sessions, session],
            }
            stolen, worn = _is_copy(row, told, named, now), len(row.sessions) >= SESSIONS
            if hmac.compare_digest(told, row.digest):
                salt = secrets.token_bytes(32)
                next_token = _next(token, salt)
                values |= {"digest": digest(next_token), "spent": told, "salt": salt}
                values |= {"spent_at": now, "spent_by": named}
            elif not stolen:
                next_token = _next(token, row.salt)
            changed = delete(rows).where(this) if stolen or worn else update(rows).where(this).values(values)
            await connection.execute(changed.where(rows.c.digest == row.digest))
            if stolen or worn:
                ended = await self._end_sessions(connection, identity, row.sessions)
            alarm = await self._alarm(connection, identity, row, place) if stolen else None
        if alarm is not None:
            self._tell_stolen(identity, alarm, ended)
            return GONE
        if worn:
            self._count("void")
            self._tell_ended(identity, ended)
            return GONE
        self._count("used" if "spent" in values else "repeated")
        self._ledger.note(_event(Kind.TRUSTED_DEVICE_USED, identity, row.id, Severity.INFO, place))
        left = max(1, int(self._until(row) - now))
        return Used(f"{series}.{next_token}", left, Proof(TRUSTED_DEVICE, row.created_at))

    async def list(self, tenant: str, subject: str, cookie: str = "") -> list[Trusted]:
        """Those that a user trusts, the newest first; `cookie` is what the browser that asks has."""
        query = (
            select(rows)
            .join(users, and_(users.c.tenant == rows.c.tenant, users.c.subject == rows.c.subject))
            .where(_of(tenant, subject), rows.c.generation == users.c.generation)
            .order_by(rows.c.created_at.desc(), rows.c.id)
        )
        async with self._records.read() as connection:
            found = (await connection.execute(query)).all()
        here, now = _series(cookie), self._clock.now()
        return [
            Trusted(
                row.id,
                row.created_at,
                self._until(row),
                row.last_used_at or 0.0,
                row.address,
                row.agent,
                row.series == here,
            )
            for row in found
            if self._good(row, now)
        ]

    async def revoke(self, identity: Identity, device: str = "", *, by: str = "", place: Place = NOWHERE) -> int:
        """Trust one no more, or none; sessions that were opened with it end, but for the one of `identity`.

        `by` is the name of the administrator who does it, where it is not the user. Returns how many. Raises
        `UserError` ERR-MFA-UNKNOWN for one that is not theirs.
        """
        mine = _of(identity.tenant, identity.subject)
        these = mine & (rows.c.id == device) if device else mine
        async with self._records.begin(identity.tenant, identity.subject) as connection:
            gone = (await connection.execute(delete(rows).where(these).returning(rows.c.id, rows.c.sessions))).all()
            opened = [session for row in gone for session in row.sessions]
            ended = await self._end_sessions(connection, identity, opened)
            revoked = [_event(Kind.TRUSTED_DEVICE_REVOKED, identity, row.id, Severity.NOTICE, place) for row in gone]
            if by:
                revoked = [replace(event, detail={**event.detail, "by": by}) for event in revoked]
            for event in revoked:
                await self._ledger.enter(connection, event)
        if device and not gone:
            raise UserError("ERR-MFA-UNKNOWN", say("You trust no such browser."), 404)
        self._tell_ended(identity, ended)
        for event in revoked:
            self._ledger.tell(event)
        return len(gone)

    async def count(self) -> int:
        """How many there are, of everybody; for the metrics."""
        good = and_(rows.c.expires_at > self._clock.now(), rows.c.generation == users.c.generation)
        query = (
            select(func.count())
            .select_from(rows)
            .join(users, and_(users.c.tenant == rows.c.tenant, users.c.subject == rows.c.subject))
            .where(good)
        )
        async with self._records.read(long=True) as connection:
            return await connection.scalar(query) or 0

    async def _end_sessions(
        self, connection: AsyncConnection, identity: Identity, sessions: Sequence[str]
    ) -> Sequence[str]:
        """All of them but the one that asks, in the transaction that takes the trust away."""
        here = identity.session_id
        others = [session for session in sessions if session != here]
        ended = await self._end(connection, identity.tenant, identity.subject, others) if others else ()
        if ended:
            await self._records.bump(connection, identity.tenant, identity.subject)
        return ended

    async def _alarm(self, connection: AsyncConnection, identity: Identity, row: Row[Any], place: Place) -> Event:
        """That there is a copy of its cookie; kept with what takes the trust away."""
        last = {"last_address": row.address, "last_used_at": row.last_used_at}
        alarm = _event(Kind.TRUSTED_DEVICE_STOLEN, identity, row.id, Severity.ALARM, place)
        alarm = replace(alarm, detail={**alarm.detail, **last})
        await self._ledger.enter(connection, alarm)
        return alarm

    def _tell_stolen(self, identity: Identity, alarm: Event, ended: Sequence[str]) -> None:
        self._count("stolen")
        self._tell_ended(identity, ended)
        self._ledger.tell(alarm)

    def _tell_ended(self, identity: Identity, sessions: Sequence[str]) -> None:
        for session in sessions:
            detail = {"why": "ended"}
            self._ledger.note(
                Event(Kind.SESSION_ENDED, Severity.INFO, identity.tenant, identity.user, session, detail=detail)
            )

    def _until(self, row: Row[Any]) -> float:
        """Also after the operator has made it shorter."""
        return min(float(row.expires_at), float(row.created_at) + self.lifetime)

    def _good(self, row: Row[Any], now: float) -> bool:
        return bool(row.created_at - SKEW <= now < self._until(row))


def _is_copy(row: Row[Any], told: bytes, named: bytes, now: float) -> bool:
    """Whether somebody else has spent the token, or it never was one."""
    return not hmac.compare_digest(told, row.digest) and not _again(row, told, named, now)


def _again(row: Row[Any], told: bytes, named: bytes, now: float) -> bool:
    """Whether it is the browser that spent the token a moment ago."""
    if row.spent is None or row.salt is None or not hmac.compare_digest(told, row.spent):
        return False
    return hmac.compare_digest(named, row.spent_by) and abs(now - row.spent_at) <= GRACE


def _next(token: str, salt: bytes) -> str:
    """The token after `token`: whoever has only the token, or only the database, cannot make it."""
    made = hmac.new(token.encode(), b"sallyport trusted device\0" + salt, sha256).digest()
    return base64.urlsafe_b64encode(made).decode().rstrip("=")


def _series(cookie: str) -> bytes:
    return digest(cookie.partition(".")[0])


def _of(tenant: str, subject: str) -> ColumnElement[bool]:
    return and_(rows.c.tenant == tenant, rows.c.subject == subject)


async def _exists(connection: AsyncConnection, series: str) -> bool:
    """Whether it is somebody's: two people may share a browser, and one of them trusts it."""
    return await connection.scalar(select(rows.c.id).where(rows.c.series == digest(series))) is not None


async def _generation(connection: AsyncConnection, tenant: str, subject: str) -> int:
    """Of nobody any more it is one that nothing has."""
    query = select(users.c.generation).where(
        users.c.tenant == tenant, users.c.subject == subject, users.c.disabled.is_(False)
    )
    number: int | None = await connection.scalar(query)
    return -1 if number is None else number


def _event(kind: Kind, identity: Identity, device: str, severity: Severity, place: Place) -> Event:
    return place.event(kind, severity, who=identity, detail={"device": device})
