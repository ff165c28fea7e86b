"""People whose passwords are kept here: the embedded default.

`verify` does the same work for somebody unknown, somebody disabled and a wrong password: one look into the database and
one argon2 comparison, so that its time tells nothing (OWASP ASVS 6.3.8).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger
from gateway.core.errors import UserError
from gateway.core.events import Event, Kind, Severity
from gateway.core.identity import DEFAULT_TENANT, NEVER
from gateway.core.words import say
from gateway.identity.passwords import Passwords, check_strength
from gateway.identity.session_rows import revoke
from gateway.identity.users import User, canonical, check_details
from gateway.store.own_address import confirm, confirmed_at, own_address
from gateway.store.sql import Records
from gateway.store.tables import users


class LocalUsers:
    """Users in table `users`. Every method raises `StoreAway` where the database does."""

    def __init__(self, records: Records, passwords: Passwords, clock: Clock, ledger: Ledger) -> None:
        self._records = records
        self._passwords = passwords
        self._clock = clock
        self._ledger = ledger

    def demand_room(self) -> None:
        """Raises `UserError` ERR-BUSY where `verify` would, before anything is done for it."""
        self._passwords.demand_room()

    async def verify(self, name: str, password: str, tenant: str = DEFAULT_TENANT) -> User | None:
        """The user, when the password is theirs and they are not disabled. Raises `UserError` ERR-BUSY."""
        row = await self._row(name, tenant)
        hashed = row.password if row is not None and not row.disabled else None
        if not await self._passwords.verify(hashed, password) or row is None or hashed is None:
            return None
        if self._passwords.outdated(hashed):
            await self._replace_hash(row, await self._passwords.hash(password))
        return _user(row)

    async def find(self, name: str, tenant: str = DEFAULT_TENANT) -> User | None:
        """The user of that name, in any spelling; None also for what cannot be a name."""
        row = await self._row(name, tenant)
        return None if row is None else _user(row)

    async def get(self, subject: str, tenant: str = DEFAULT_TENANT) -> User | None:
        """The user with that subject."""
        async with self._records.read() as connection:
            row = (
                await connection.execute(select(users).where(users.c.tenant == tenant, users.c.subject == subject))
            ).first()
        return None if row is None else _user(row)

    async def all(self, tenant: str = DEFAULT_TENANT) -> list[User]:
        """Everybody, by name."""
        async with self._records.read(long=True) as connection:
            rows = await connection.execute(select(users).where(users.c.tenant == tenant).order_by(users.c.name))
            return [_user(row) for row in rows]

    async def add(
        self,
        name: str,
        password: str,
        *,
        email: str = "",
        email_confirmed: bool = False,
        display_name: str = "",
        groups: Collection[str] = (),
        tenant: str = DEFAULT_TENANT,
    ) -> User:
        """Make an account. `email_confirmed`: it is known already that they read what is sent to `email`.

        Raises `UserError`: ERR-USER-NAME, ERR-USER-EMAIL, ERR-USER-DISPLAY-NAME, ERR-USER-GROUP, ERR-PASSWORD-WEAK,
        ERR-USER-EXISTS.
        """
        now, confirmed = self._clock.now(), email_confirmed and bool(email)
        user = User(
            tenant=tenant,
            subject=secrets.token_hex(16),
            name=canonical(name),
            email=email,
            display_name=display_name,
            groups=frozenset(groups),
            disabled=False,
            created_at=now,
            email_confirmed_at=now if confirmed else 0.0,
        )
        check_details(user.email, user.display_name, user.groups)
        check_strength(password, user.name)
        row = {
            "tenant": user.tenant,
            "subject": user.subject,
            "name": user.name,
            "email": user.email,
            "email_confirmed": user.email if confirmed else "",
            "email_confirmed_at": now if confirmed else None,
            "display_name": user.display_name,
            "groups": sorted(user.groups),
            "password": await self._passwords.hash(password),
            "disabled": user.disabled,
            "created_at": user.created_at,
        }
        told = {"email_confirmed": True} if confirmed else {}
        added = _event(Kind.USER_ADDED, user, groups=sorted(user.groups), **told)
        try:
            async with self._records.begin(tenant, user.subject) as connection:
                await connection.execute(insert(users).values(row))
                await self._ledger.enter(connection, added)
                await self._records.bump(connection, tenant, user.subject)
        except IntegrityError as error:
            raise UserError("ERR-USER-EXISTS", say("There is a user {user} already.", user=user.name), 409) from error
        self._ledger.tell(added)
        return user

    async def disable(self, name: str, tenant: str = DEFAULT_TENANT) -> User:
        """Let them in no more, and end all their sessions at once. Raises `UserError` ERR-USER-UNKNOWN."""
        return await self._change(name, tenant, {"disabled": True}, Kind.USER_DISABLED, end_sessions=True)

    async def enable(self, name: str, tenant: str = DEFAULT_TENANT) -> User:
        """Let them sign in again; sessions do not come back. Raises `UserError` ERR-USER-UNKNOWN."""
        return await self._change(name, tenant, {"disabled": False}, Kind.USER_ENABLED)

    async def set_password(self, name: str, password: str, tenant: str = DEFAULT_TENANT) -> User:
        """Give them another password, and end all their sessions at once.

        Raises `UserError` ERR-USER-UNKNOWN, ERR-PASSWORD-WEAK.
        """
        user = await self.find(name, tenant)
        if user is None:
            raise _unknown(name)
        check_strength(password, user.name)
        hashed = await self._passwords.hash(password)
        return await self._change(name, tenant, {"password": hashed}, Kind.PASSWORD_CHANGED, end_sessions=True)

    async def set_email(
        self,
        name: str,
        email: str,
        *,
        confirmed: bool = False,
        by: str = "",
        moving: Callable[[AsyncConnection, str, str], Awaitable[None]] | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> User:
        """Write to them at `email` from now on; empty: nowhere. Another address is not confirmed, unless `confirmed`.

        `moving(connection, tenant, subject)` tells the one they had, in the transaction that takes it away. Raises
        `UserError` ERR-USER-UNKNOWN, ERR-USER-EMAIL.
        """
        check_details(email, "", frozenset())
        known = await self._row(name, tenant)
        if known is None:
            raise _unknown(name)
        subject, new = known.subject, False
        this = (users.c.tenant == tenant, users.c.subject == subject)
        async with self._records.begin(tenant, subject) as connection:
            before, _ = await own_address(connection, tenant, subject)
            if before != email:
                if moving is not None:
                    await moving(connection, tenant, subject)
                changed = {"email": email, "email_confirmed": "", "email_confirmed_at": None}
                await connection.execute(update(users).where(*this).values(changed))
            if confirmed:
                new = await confirm(connection, tenant, subject, email, self._clock.now())
            user = _user((await connection.execute(select(users).where(*this))).one())
            said, event = {"by": by} if by else {}, None
            if before != email:
                event = _event(Kind.ADDRESS_CHANGED, user, **said, **({"email_confirmed": True} if new else {}))
            elif new:
                event = _event(Kind.ADDRESS_CONFIRMED, user, **said)
            if event is not None:
                await self._ledger.enter(connection, event)
            await self._records.bump(connection, tenant, subject)
        if event is not None:
            self._ledger.tell(event)
        return user

    async def speak(self, tenant: str, subject: str, language: str) -> None:
        """Write to them in `language` from now on."""
        async with self._records.begin(tenant, subject) as connection:
            await connection.execute(_SPEAK, {"of_tenant": tenant, "of_subject": subject, "language": language})

    async def _change(
        self, name: str, tenant: str, values: dict[str, Any], kind: Kind, *, end_sessions: bool = False
    ) -> User:
        known = await self._row(name, tenant)
        if known is None:
            raise _unknown(name)
        this = (users.c.tenant == tenant, users.c.subject == known.subject)
        async with self._records.begin(tenant, known.subject) as connection:
            row = (await connection.execute(update(users).where(*this).values(values).returning(users))).first()
            if row is None:
                raise _unknown(name)
            user = _user(row)
            if end_sessions:
                _, generation = await revoke(connection, tenant, row.subject)
                user = replace(user, generation=generation)
            event = _event(kind, user)
            await self._ledger.enter(connection, event)
            await self._records.bump(connection, tenant, row.subject)
        self._ledger.tell(event)
        return user

    async def _row(self, name: str, tenant: str) -> Row[Any] | None:
        async with self._records.read() as connection:
            return (await connection.execute(_BY_NAME, {"tenant": tenant, "name": _spelled(name)})).first()

    async def _replace_hash(self, row: Row[Any], hashed: str) -> None:
        """Only if nobody has set another password meanwhile."""
        this = (users.c.tenant == row.tenant, users.c.subject == row.subject, users.c.password == row.password)
        async with self._records.begin(row.tenant, row.subject) as connection:
            await connection.execute(update(users).where(*this).values(password=hashed))


def _event(kind: Kind, user: User, **detail: Any) -> Event:
    return Event(kind, Severity.NOTICE, user.tenant, user.name, detail=detail)


# Built once: building a statement costs more than running it.
_BY_NAME = select(users).where(users.c.tenant == bindparam("tenant"), users.c.name == bindparam("name"))
_SPEAK = (
    update(users)
    .where(users.c.tenant == bindparam("of_tenant"), users.c.subject == bindparam("of_subject"))
    .values(language=bindparam("language"))
)


def _spelled(name: str) -> str:
    """Canonical, or a name nobody has."""
    try:
        return canonical(name)
    except UserError:
        return ""


def _unknown(name: str) -> UserError:
    spelled = _spelled(name)
    said = say("There is no user {user}.", user=spelled) if spelled else say("There is no user of that name.")
    return UserError("ERR-USER-UNKNOWN", said, 404)


def _user(row: Row[Any]) -> User:
    return User(
        tenant=row.tenant,
        subject=row.subject,
        name=row.name,
        email=row.email,
        display_name=row.display_name,
        groups=frozenset(row.groups),
        disabled=row.disabled,
        created_at=row.created_at,
        required_from=NEVER if row.mfa_required_from is None else row.mfa_required_from,
        language=row.language,
        email_confirmed_at=confirmed_at(row),
        generation=row.generation,
    )
