"""The way back in for somebody who knows the password and has lost every second factor.

Backup codes are the first way, and need none of this. Here are the two others: a link by e-mail, after a delay in which
everybody who could object hears of it; and two administrators, of whom one asks and another one approves. A shell on
the machine is the last (`sallyport user reset`). Its states and what leads from one to the next: `recovery_states`.

- Every arrow is one `UPDATE … WHERE state IN …`: of any number of simultaneous ones a single one changes the row.
- *It never lowers the level.* What it ends in is an account without a factor that must have one from now on
  (`users.mfa_required_from`), no session, no trusted browser, no open question. A rule that needs aal2 stays shut until
  a factor is bound, and that asks for the password anew.
- *It ends by itself.* That nobody has shown a factor since, and that the account is the one that asked, stands in the
  statement that claims it, beside being told at once (`proven`): no way in that forgets to tell leaves it open.
- The links hold 256 random bits; kept are MACs of them under a key that is not in the database. A token that is old,
  used, another's, cut or made up is one error, after the same work.
- The delay begins when the letter that tells of it has been taken over by whoever carries it. Where there was none, or
  it was given up, nobody could object, and nothing is sent.
- The link goes to no address but one that its user had confirmed (`own_address`) before it was asked for, and is dead
  once that is not the account's any more.
- Whoever asks is told the same whether there is such an address or not. Three times a day, one at a time.
- Nobody approves what they have asked for themselves, nor anything about their own account; and whoever asked must
  be an administrator still.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Row, and_, bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger, Settle
from gateway.core.errors import StoreAway, UserError
from gateway.core.events import NOWHERE, Event, Kind, Place, Severity
from gateway.core.identity import Identity
from gateway.core.words import say
from gateway.crypto.mac import Mac
from gateway.crypto.tokens import new_id, new_token
from gateway.mfa.demands import must_have
from gateway.mfa.recovery_states import (
    OPEN,
    Input,
    Recovery,
    State,
    Way,
    address_stands,
    claim,
    every,
    find,
    first,
    good,
    of_person,
    overs,
    recovery,
    this,
)
from gateway.store.sql import Records
from gateway.store.tables import factors, users
from gateway.store.tables import recoveries as rows

_log = logging.getLogger("sallyport")

DAY = 86_400.0
A_DAY = 3
"""Recoveries by e-mail that one person can ask for within a day."""
APPROVAL = DAY
"""Seconds in which another administrator may approve."""
HOUR = 3600.0
KEPT = 30 * DAY
"""Seconds that a recovery can be looked up when it is over."""
AT_ONCE = 100
"""Recoveries that one turn looks at."""
NOBODY = ("", "")
"""Before everybody: where such a turn begins anew."""
LONGEST = 500
"""Characters of a reason."""


GONE = say("This cannot be used, or not any more. If you still need it, ask for it again.")


class Letters(Protocol):
    """Tell somebody that their account is being recovered: `mfa.recovery_letters`.

    `asked` and `ready` put a letter into the outbox in the caller's transaction, with a link that nobody sees but who
    gets it; False where there is nowhere to write to.
    """

    async def asked(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        token: str,
        *,
        at: float,
        due_at: float,
        until: float,
        address: str,
        agent: str,
    ) -> bool:
        """It was asked for; `token` cancels it. `due_at` is when its link will be sent; 0.0: administrators decide."""
        ...

    async def told_at(self, connection: AsyncConnection, tenant: str, subject: str, at: float) -> float:
        """When the letter written `at` that moment was taken over by whoever carries it; `NEVER`: it was not."""
        ...

    async def ready(
        self, connection: AsyncConnection, tenant: str, subject: str, token: str, *, at: float, until: float
    ) -> bool:
        """The delay is over: with `token` it is ended well, until `until`."""
        ...

    async def done(self, connection: AsyncConnection, tenant: str, subject: str, *, at: float) -> None:
        """It is ended well: tell their telephones, which are not theirs any more once this transaction is over."""
        ...


Unbind = Callable[[AsyncConnection, str, str], Awaitable[None]]
"""Unbinds every factor of `(tenant, subject)` in the caller's transaction."""
Revoke = Callable[[AsyncConnection, str, str], Awaitable[object]]
"""Ends every session of `(tenant, subject)`, and what rests on them, in the caller's transaction."""
Changed = tuple[Recovery, Event]
"""What a transaction makes of a recovery, and the event that it keeps."""
_COUNTED = {Kind.RECOVERY_ASKED: "asked", Kind.RECOVERY_READY: "ready"}
"""What these are called in metrics; an end is called by its outcome."""


class Recoveries:
    """The recoveries of everybody. Every method raises `StoreAway` where the records do."""

    def __init__(
        self,
        records: Records,
        clock: Clock,
        ledger: Ledger,
        mac: Mac,
        *,
        unbind: Unbind,
        revoke: Revoke,
        letters: Letters | None = None,
        by_email: bool = False,
        delay: float = DAY,
        expires: float = 7 * DAY,
        administrators: Collection[str] = ("admins",),
        count: Callable[[str, str], None] = lambda way, outcome: None,
    ) -> None:
        """`delay` until the link is sent, `expires` how long it then counts, in seconds; `administrators` are groups.

        `count(way, outcome)` is called with `asked`, `ready`, `failed`, and the word that each ends by.
        """
        self.by_email = by_email and letters is not None
        self.delay = delay
        self.expires = expires
        self._records = records
        self._clock = clock
        self._ledger = ledger
        self._mac = mac
        self._unbind = unbind
        self._revoke = revoke
        self._letters = letters
        self._administrators = frozenset(administrators)
        self._count = count
        self._looked = NOBODY
        """At whom last, where there were more: those whose letter never left stay due, and nobody waits behind them."""
        self._swept_at = clock.now()

    # --- asking -----------------------------------------------------------------------------------------------------

    async def ask(self, identity: Identity, place: Place = NOWHERE) -> Recovery:
        """Begin one for `identity`, who has just shown the password; or the one that is open already.

        Raises `UserError`: ERR-RECOVERY-OFF where the operator does not allow it, ERR-RECOVERY-NOTHING for somebody
        without any factor, ERR-RECOVERY-THROTTLED.
        """
        if not self.by_email:
            raise off()
        tenant, subject, now = identity.tenant, identity.subject, self._clock.now()
        async with self._records.begin(tenant, subject) as connection:
            ended = await self._settle(connection, tenant, subject, now)
            open_one = await first(connection, of_person(tenant, subject), rows.c.state.in_(OPEN))
            if open_one is None:
                await self._demand_some(connection, tenant, subject)
                await _throttle(connection, tenant, subject, now)
                begun = await self._insert(
                    connection, tenant, subject, Way.EMAIL, State.WAITING, now, now + self.delay,
                    now + self.delay + self.expires, place=place,
                )  # fmt: skip
                ended.append(await self._enter(connection, begun, _asked(begun, identity, place)))
        self._tell(ended)
        return begun if open_one is None else recovery(open_one)

    async def ask_for(self, administrator: Identity, subject: str, reason: str, place: Place = NOWHERE) -> Recovery:
        """Have `administrator` ask for the recovery of `subject`, for another one to approve.

        Raises `UserError`: ERR-RECOVERY-OWN for their own account, ERR-RECOVERY-REASON without a reason,
        ERR-RECOVERY-NOTHING for somebody without any factor, ERR-RECOVERY-OPEN where one is open, ERR-USER-UNKNOWN.
        """
        tenant, now = administrator.tenant, self._clock.now()
        if subject == administrator.subject:
            raise _own()
        why = " ".join("".join(letter if letter.isprintable() else " " for letter in reason[: 4 * LONGEST]).split())
        if not why or len(why) > LONGEST:
            raise UserError("ERR-RECOVERY-REASON", say("Say why, in up to {most} characters.", most=LONGEST), 400)
        async with self._records.begin(tenant, subject) as connection:
            ended = await self._settle(connection, tenant, subject, now)
            if await first(connection, of_person(tenant, subject), rows.c.state.in_(OPEN)) is not None:
                raise UserError("ERR-RECOVERY-OPEN", say("There is one open for this account. Refuse it first."), 409)
            await self._demand_some(connection, tenant, subject)
            begun = await self._insert(
                connection, tenant, subject, Way.ADMINISTRATORS, State.PENDING, now, now, now + APPROVAL,
                asked_by=administrator.subject, reason=why, place=place,
            )  # fmt: skip
            ended.append(await self._enter(connection, begun, _asked(begun, administrator, place)))
        self._tell(ended)
        return begun

    # --- the ways to `done` -----------------------------------------------------------------------------------------

    async def look(self, identity: Identity, token: str, place: Place = NOWHERE) -> Recovery:
        """The recovery whose link `identity` has followed. Raises `UserError` ERR-RECOVERY for any other, alike."""
        tenant, subject = identity.tenant, identity.subject
        async with self._records.read() as connection:
            row = await self._linked(connection, tenant, subject, token)
            if row is not None:
                row = await first(connection, *self._usable(row, self._clock.now()))
        if row is None:
            raise self._failed(Way.EMAIL, "link", identity, place)
        return recovery(row)

    async def use(
        self, identity: Identity, token: str, place: Place = NOWHERE, *, settle: Settle | None = None
    ) -> Recovery:
        """End it well: `identity`, signed in afresh, has followed the link and said yes. Exactly one caller gets there.

        Afterwards they have no factor, must have one, and are signed in nowhere. `settle` does in the same transaction
        what comes after that: what it raises leaves the link as good as it was. Raises `UserError` ERR-RECOVERY.
        """
        tenant, subject, now = identity.tenant, identity.subject, self._clock.now()
        done, changed = None, list[Changed]()
        async with self._records.begin(tenant, subject) as connection:
            row = await self._linked(connection, tenant, subject, token)
            if row is not None:
                done = await claim(connection, Input.USED, *self._usable(row, now), now=now, link=None)
            if done is not None:
                await self._recover(connection, tenant, subject, now)
                changed.append(await self._enter(connection, done, _done(done, identity.user, place)))
                if settle is not None:
                    await settle(connection)
        if done is None:
            raise self._failed(Way.EMAIL, "link", identity, place)
        self._tell(changed)
        return done

    async def approve(self, administrator: Identity, recovery_id: str, place: Place = NOWHERE) -> Recovery:
        """Have a second administrator say yes. Exactly one caller gets there; the effect is that of `use`.

        Raises `UserError`: ERR-RECOVERY-OWN for whoever asked and for the account's owner, ERR-RECOVERY.
        """
        tenant, me, now = administrator.tenant, administrator.subject, self._clock.now()
        row = await self._row(tenant, recovery_id)
        if row is not None and me in (row.asked_by, row.subject):
            raise _own()
        done, changed = None, list[Changed]()
        if row is not None:
            async with self._records.begin(tenant, row.subject) as connection:
                if await self._administrates(connection, tenant, row.asked_by):
                    done = await claim(
                        connection, Input.APPROVED, this(row), *good(now), rows.c.asked_by != me,
                        rows.c.subject != me, now=now, by=administrator.user,
                    )  # fmt: skip
                if done is not None:
                    await self._recover(connection, tenant, row.subject, now)
                    changed.append(await self._enter(connection, done, _done(done, administrator.user, place)))
        if done is None:
            raise self._failed(Way.ADMINISTRATORS, "approval", administrator, place)
        self._tell(changed)
        return done

    # --- the ways to `ended` ----------------------------------------------------------------------------------------

    async def refuse(self, administrator: Identity, recovery_id: str, place: Place = NOWHERE) -> Recovery:
        """Have an administrator end it, whichever way it is. Raises `UserError` ERR-RECOVERY."""
        row = await self._row(administrator.tenant, recovery_id)
        if row is not None:
            async with self._records.begin(row.tenant, row.subject) as connection:
                ended = await claim(connection, Input.REFUSED, this(row), now=self._clock.now(), by=administrator.user)
                changed = await self._enter_end(connection, ended, administrator.user, place)
            self._tell(changed)
            if ended is not None:
                return ended
        raise self._failed(Way.ADMINISTRATORS, "refusal", administrator, place)

    async def look_cancel(self, token: str, place: Place = NOWHERE) -> Recovery:
        """The open recovery that `token` of its first letter could end. Raises `UserError` ERR-RECOVERY."""
        row = await self._cancellable(token)
        if row is None:
            raise self._failed(Way.EMAIL, "cancel", None, place)
        return recovery(row)

    async def cancel(self, token: str, place: Place = NOWHERE) -> Recovery:
        """End it. Whoever has the letter may, without signing in. Raises `UserError` ERR-RECOVERY."""
        row = await self._cancellable(token)
        if row is not None:
            async with self._records.begin(row.tenant, row.subject) as connection:
                ended = await claim(connection, Input.CANCELLED, this(row), now=self._clock.now())
                changed = await self._enter_end(connection, ended, "", place)
            self._tell(changed)
            if ended is not None:
                return ended
        raise self._failed(Way.EMAIL, "cancel", None, place)

    async def proven(self, identity: Identity, place: Place = NOWHERE) -> bool:
        """A second factor was shown: nothing is lost. Whether there was one open."""
        async with self._records.read() as connection:
            if not await connection.scalar(_IS_OPEN, {"tenant": identity.tenant, "subject": identity.subject}):
                return False
        mine = and_(of_person(identity.tenant, identity.subject), rows.c.state.in_(OPEN))
        async with self._records.begin(identity.tenant, identity.subject) as connection:
            ended = await claim(connection, Input.PROVEN, mine, now=self._clock.now())
            changed = await self._enter_end(connection, ended, "", place)
        self._tell(changed)
        return ended is not None

    async def turn(self) -> int:
        """Send the links that are due, end what is over; how many recoveries were looked at. Called every few seconds.

        Every replica may: each step is claimed. Where e-mail is not allowed any more, nothing becomes due.
        """
        now = self._clock.now()
        due = and_(rows.c.state == State.WAITING, rows.c.due_at <= now)
        look_at = or_(due if self.by_email else rows.c.id == "", *(when for _, when in overs(now)))
        tenant, subject = self._looked
        further = or_(rows.c.tenant > tenant, and_(rows.c.tenant == tenant, rows.c.subject > subject))
        query = select(rows.c.tenant, rows.c.subject).where(rows.c.state.in_(OPEN), look_at, further).distinct()
        async with self._records.read(long=True) as connection:
            whose = (await connection.execute(query.order_by(*query.selected_columns).limit(AT_ONCE))).all()
        self._looked = tuple(whose[-1]) if len(whose) == AT_ONCE else NOBODY
        for tenant, subject in whose:
            try:
                async with self._records.begin(tenant, subject) as connection:
                    settled = await self._settle(connection, tenant, subject, now)
                self._tell(settled)
            except StoreAway:
                raise
            except Exception:  # of one person, and nobody else's recovery stands still for it; it is tried again
                _log.exception("the recovery of %s/%s could not go on", tenant, subject)
        await self._sweep(now)
        return len(whose)

    async def _sweep(self, now: float) -> None:
        """Remove what was over a month ago, once an hour."""
        if now - self._swept_at < HOUR:
            return
        self._swept_at = now
        async with self._records.begin() as connection:
            await connection.execute(delete(rows).where(rows.c.settled_at < now - KEPT))

    # --- looking ----------------------------------------------------------------------------------------------------

    async def every(self, tenant: str, *, over: bool = False) -> Sequence[Recovery]:
        """Those that are open, the newest first; with `over` also those of the last weeks."""
        return await every(self._records, tenant, over=over)

    async def find(self, tenant: str, recovery_id: str) -> Recovery | None:
        """One of them, open or over."""
        return await find(self._records, tenant, recovery_id)

    async def of(self, identity: Identity) -> Recovery | None:
        """The one that is open for somebody."""
        async with self._records.read() as connection:
            row = await first(
                connection,
                of_person(identity.tenant, identity.subject),
                rows.c.state.in_(OPEN),
                *good(self._clock.now()),
            )
        return None if row is None else recovery(row)

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _insert(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        way: Way,
        state: State,
        now: float,
        due_at: float,
        expires_at: float,
        *,
        place: Place,
        asked_by: str = "",
        reason: str = "",
    ) -> Recovery:
        generation = await connection.scalar(
            select(users.c.generation).where(
                users.c.tenant == tenant, users.c.subject == subject, users.c.disabled.is_(False)
            )
        )
        if generation is None:
            raise UserError("ERR-USER-UNKNOWN", say("There is no such user, or nobody may sign in as them."), 404)
        recovery_id, secret = new_id(), new_token()
        cancel = self._mac.token("recovery-cancel", recovery_id, secret)
        await connection.execute(
            insert(rows).values(
                tenant=tenant,
                id=recovery_id,
                subject=subject,
                way=way,
                state=state,
                outcome="",
                reason=reason,
                generation=generation,
                asked_at=now,
                asked_by=asked_by,
                due_at=due_at,
                expires_at=expires_at,
                cancel=cancel,
                link=None,
                settled_at=None,
                settled_by="",
            )
        )
        row = await first(connection, rows.c.tenant == tenant, rows.c.id == recovery_id)
        if row is None:
            raise AssertionError
        begun = recovery(row)
        told = self._letters is not None and await self._letters.asked(
            connection, begun.tenant, begun.subject, f"{recovery_id}.{secret}",
            at=now, due_at=due_at if way is Way.EMAIL else 0.0, until=expires_at, address=place.address,
            agent=place.agent,
        )  # fmt: skip
        # Said in either case: how long it takes tells nobody whether there is an address.
        await connection.execute(update(rows).where(this(row)).values(cancel=cancel if told else ""))
        return begun

    async def _settle(self, connection: AsyncConnection, tenant: str, subject: str, now: float) -> list[Changed]:
        """Do what time, or somebody else, has made due with what is open for one person; what has changed."""
        changed = await self._due(connection, tenant, subject, now)
        return [await self._enter(connection, one, _settled(one, "", NOWHERE)) for one in changed]

    async def _due(self, connection: AsyncConnection, tenant: str, subject: str, now: float) -> list[Recovery]:
        mine, changed = of_person(tenant, subject), []
        for given, when in overs(now):
            if (ended := await claim(connection, given, mine, when, now=now)) is not None:
                changed.append(ended)
        row = await first(connection, mine, rows.c.state == State.WAITING, rows.c.due_at <= now)
        if row is None or not self.by_email or self._letters is None:
            return changed
        if row.cancel:
            told_at = await self._letters.told_at(connection, tenant, subject, row.asked_at)
            if now < told_at + row.due_at - row.asked_at:
                return changed  # the delay is one in which they know
        secret = new_token()
        ready = await claim(
            connection, Input.DUE, this(row), now=now,
            link=self._mac.token("recovery-link", tenant, subject, row.id, secret), expires_at=now + self.expires,
        )  # fmt: skip
        if ready is None:
            return changed
        sent = (
            row.cancel
            and await first(connection, this(row), address_stands()) is not None
            and await self._letters.ready(
                connection, tenant, subject, f"{row.id}.{secret}", at=now, until=ready.expires_at
            )
        )
        if not sent:  # nobody was told before, or can be told now
            ready = await claim(connection, Input.UNREACHABLE, this(row), now=now, link=None)
        return [*changed, *([ready] if ready is not None else [])]

    async def _recover(self, connection: AsyncConnection, tenant: str, subject: str, now: float) -> None:
        if self._letters is not None:
            await self._letters.done(connection, tenant, subject, at=now)
        await self._unbind(connection, tenant, subject)
        await self._revoke(connection, tenant, subject)
        await must_have(connection, tenant, subject, now)
        await self._records.bump(connection, tenant, subject)

    async def _demand_some(self, connection: AsyncConnection, tenant: str, subject: str) -> None:
        some = exists().where(factors.c.tenant == tenant, factors.c.subject == subject)
        if not await connection.scalar(select(some)):
            raise UserError("ERR-RECOVERY-NOTHING", say("This account has no second factor that could be lost."), 409)

    async def _administrates(self, connection: AsyncConnection, tenant: str, subject: str) -> bool:
        query = select(users.c.groups).where(
            users.c.tenant == tenant, users.c.subject == subject, users.c.disabled.is_(False)
        )
        groups = await connection.scalar(query)
        return groups is not None and not self._administrators.isdisjoint(groups)

    async def _linked(self, connection: AsyncConnection, tenant: str, subject: str, token: str) -> Row[Any] | None:
        recovery_id, _, secret = token.partition(".")
        row = await first(connection, of_person(tenant, subject), rows.c.id == recovery_id)
        kept = row.link if row is not None and row.link is not None else self._mac.token("recovery-link", "nobody")
        mine = self._mac.verify(kept, "recovery-link", tenant, subject, recovery_id, secret)
        return row if mine else None

    async def _cancellable(self, token: str) -> Row[Any] | None:
        recovery_id, _, secret = token.partition(".")
        async with self._records.read() as connection:
            row = await first(connection, rows.c.id == recovery_id)
        kept = row.cancel if row is not None and row.cancel else self._mac.token("recovery-cancel", "nobody")
        mine = self._mac.verify(kept, "recovery-cancel", recovery_id, secret)
        return row if mine and row is not None and row.state in OPEN else None

    async def _row(self, tenant: str, recovery_id: str) -> Row[Any] | None:
        async with self._records.read() as connection:
            return await first(connection, rows.c.tenant == tenant, rows.c.id == recovery_id)

    def _usable(self, row: Row[Any], now: float) -> tuple[ColumnElement[bool], ...]:
        """What a link has to be beside right: of this row, as it was when the link was looked at, and still good."""
        return this(row), rows.c.link == row.link, rows.c.state == State.READY, *good(now)

    # --- telling ----------------------------------------------------------------------------------------------------

    async def _enter(self, connection: AsyncConnection, one: Recovery, event: Event) -> Changed:
        """Keep the event of what this transaction has made of `one`: both are kept, or neither is."""
        await self._ledger.enter(connection, event)
        return one, event

    async def _enter_end(
        self, connection: AsyncConnection, one: Recovery | None, by: str, place: Place
    ) -> Sequence[Changed]:
        return () if one is None else [await self._enter(connection, one, _settled(one, by, place))]

    def _tell(self, changed: Sequence[Changed]) -> None:
        """What was entered is committed."""
        for one, event in changed:
            self._count(one.way, _COUNTED.get(event.kind) or one.outcome)
            self._ledger.tell(event)

    def _failed(self, way: Way, what: str, who: Identity | None, place: Place) -> UserError:
        """The one error of what cannot be used, and its one event."""
        self._count(way, "failed")
        self._ledger.note(place.event(Kind.RECOVERY_FAILED, Severity.WARNING, who=who, detail={"what": what}))
        return UserError("ERR-RECOVERY", GONE, 410)


async def _throttle(connection: AsyncConnection, tenant: str, subject: str, now: float) -> None:
    recent = and_(of_person(tenant, subject), rows.c.way == Way.EMAIL, rows.c.asked_at > now - DAY)
    asked, earliest = (
        await connection.execute(select(func.count(), func.min(rows.c.asked_at)).select_from(rows).where(recent))
    ).one()
    if asked >= A_DAY:
        wait = max(1.0, earliest + DAY - now)
        raise UserError("ERR-RECOVERY-THROTTLED", say("That was asked for too often."), 429, wait)


def off() -> UserError:
    """For who asks where the operator does not allow it."""
    return UserError("ERR-RECOVERY-OFF", say("This is not in use here. Ask whoever looks after your account."), 404)


def _own() -> UserError:
    return UserError("ERR-RECOVERY-OWN", say("Another administrator has to do that: this one is yours."), 403)


def _asked(one: Recovery, by: Identity, place: Place) -> Event:
    event = _event(Kind.RECOVERY_ASKED, Severity.ALARM, one, place)
    detail = {**event.detail, **({"by": by.user, "reason": one.reason} if one.asked_by else {})}
    return replace(event, detail=detail, session=by.session_id)


def _done(one: Recovery, by: str, place: Place) -> Event:
    event = _event(Kind.RECOVERED, Severity.ALARM, one, place)
    more = {"by": by, "asked_by": one.asker, "reason": one.reason} if one.asked_by else {}
    return replace(event, detail={**event.detail, **more})


def _settled(one: Recovery, by: str, place: Place) -> Event:
    if one.state is State.READY:
        return _event(Kind.RECOVERY_READY, Severity.WARNING, one, place)
    event = _event(Kind.RECOVERY_ENDED, Severity.NOTICE, one, place)
    more = {"why": one.outcome, **({"by": by} if by else {})}
    return replace(event, detail={**event.detail, **more})


def _event(kind: Kind, severity: Severity, one: Recovery, place: Place) -> Event:
    return place.event(
        kind,
        severity,
        tenant=one.tenant,
        user=one.user,
        detail={"id": one.id, "way": str(one.way)},
    )


_IS_OPEN = select(  # built once: every second factor that is shown asks
    exists().where(rows.c.tenant == bindparam("tenant"), rows.c.subject == bindparam("subject"), rows.c.state.in_(OPEN))
)
