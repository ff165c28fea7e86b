"""Who must have a second factor, of which kinds, and until when they have time to set it up.

Three say so, and each counts by itself: the administrators' groups (`mfa.required_groups`), demands of the
configuration (`mfa.require`), and an administrator's word about one person (`users.mfa_required_from`). What an action
asks for is a rule's `step_up`, and not kept here.

- A demand is met by a factor that works: backup codes stand in for one and are none, and what is out of use after too
  many wrong answers counts no more.
- The time that a demand gives (`grace`) begins when somebody is first seen while it holds, whatever they have then, and
  that moment is kept. It is kept by what the demand names: who leaves one of its groups for another, or comes back,
  goes on where they were, and so they do after an edit that names one group more. Signing out, taking a factor away or
  a factor that went out of use change nothing about it.
- The time of an administrator's word is a date, for it is about one person.
- A demand without `grace` is due at once, and nothing is kept of it.

Looking is one question for whoever a demand is about, and none for others; it is asked when a session is looked up, and
what comes of it (`Identity.enrol_by`) is a moment that requests compare with. Whatever changes here is bumped, so that
sessions near at hand are looked up anew.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, String, and_, case, cast, exists, false, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger
from gateway.core.errors import UserError
from gateway.core.events import Event, Kind, Severity
from gateway.core.identity import NEVER, Identity
from gateway.core.words import say
from gateway.mfa.attempts import LIFE
from gateway.store.sql import Records
from gateway.store.tables import demanded, users
from gateway.store.tables import factors as rows

AT_ONCE = 0.0
"""A moment that has passed, whatever the clock says."""
A_DAY = 86_400.0
NOTICE = 3 * A_DAY
"""Seconds before a time that was given ends that somebody is reminded."""
NO_DEVICE = frozenset({"backup_code"})
"""Kinds that stand in for a device, and are none."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Whoever fits everything that is named must have a second factor."""

    groups: frozenset[str] = frozenset()
    """Being in one is enough; empty: not asked about. So with the others."""
    tenants: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    """Canonical names."""
    factors: frozenset[str] = frozenset()
    """Kinds that meet it; empty: any device."""
    grace: float = 0.0
    """Seconds to set one up, from when somebody is first seen."""

    def holds(self, identity: Identity) -> bool:
        """Whether it is about this user. One that names nobody is about nobody."""
        if not (self.groups or self.tenants or self.users):
            return False
        return (
            (not self.groups or not self.groups.isdisjoint(identity.groups))
            and (not self.tenants or identity.tenant in self.tenants)
            and (not self.users or identity.user in self.users)
        )

    def met_by(self, kinds: Collection[str]) -> bool:
        """Whether one of these devices will do."""
        return not self.factors.isdisjoint(kinds) if self.factors else bool(kinds)

    @property
    def names(self) -> tuple[str, ...]:
        """What it names, as it is kept since when somebody knows; the kinds belong to it, for another is demanded."""
        kinds = "".join(f" {kind}" for kind in sorted(self.factors))
        named = (("group", self.groups), ("tenant", self.tenants), ("user", self.users))
        return tuple(f"{what}:{each}{kinds}" for what, some in named for each in sorted(some))


class Demands:
    """What is demanded of everybody."""

    def __init__(self, records: Records, clock: Clock, ledger: Ledger, demands: Sequence[Demand] = ()) -> None:
        self._records = records
        self._clock = clock
        self._ledger = ledger
        self._demands = tuple(demands)

    def on(self, identity: Identity) -> tuple[Demand, ...]:
        """Those that are about this user, over or not; empty: they need not have anything."""
        personal = (Demand(users=frozenset({identity.user})),) if identity.required_from != NEVER else ()
        return (*(one for one in self._demands if one.holds(identity)), *personal)

    async def lacking(self, identity: Identity) -> tuple[Demand, ...]:
        """Those that are about this user and not met, over or not."""
        kinds = await self.kinds(identity)
        return tuple(one for one in self.on(identity) if not one.met_by(kinds))

    async def kinds(self, identity: Identity) -> frozenset[str]:
        """Of the devices that this user has and that work."""
        async with self._records.read() as connection:
            return await devices(connection, identity.tenant, identity.subject)

    async def enrol_by(self, identity: Identity, *, begin: bool = True) -> float:
        """As the contract `Dues` says. Without `begin` no time begins: what has not begun is never due."""
        demands = [one for one in self._demands if one.holds(identity)]
        if not demands and identity.required_from == NEVER:
            return NEVER
        tenant, subject = identity.tenant, identity.subject
        named = {name for one in demands if one.grace > 0 for name in one.names}
        async with self._records.read() as connection:
            kinds = await devices(connection, tenant, subject)
            since = await _since(connection, tenant, subject, named)
        unknown = [one for one in demands if one.grace > 0 and since.keys().isdisjoint(one.names)]
        if unknown and begin:
            since = await self._begin(tenant, subject, unknown, named)
        now = self._clock.now()
        due = NEVER
        for one in demands:
            if not one.met_by(kinds):
                # The clock may have been set back since; nobody gets more time by that.
                known = [min(now, since[name]) + one.grace for name in one.names if name in since]
                due = min([due, *known]) if one.grace > 0 else AT_ONCE
        return due if kinds else min(due, identity.required_from)

    async def require(self, tenant: str, subject: str, *, user: str, at: float, by: str) -> None:
        """Demand of somebody that they have a second factor from `at` on (seconds), whatever was said before.

        `user` and `by` are the canonical names of whom it is said and of who says so. Raises `UserError`
        ERR-USER-UNKNOWN, `StoreAway`.
        """
        detail: dict[str, str | int] = {"by": by, "from": int(at)}
        await self._say(tenant, subject, at, Event(Kind.MFA_REQUIRED, Severity.NOTICE, tenant, user, detail=detail))

    async def lift(self, tenant: str, subject: str, *, user: str, by: str) -> None:
        """Take that word back; what the configuration demands of them stays. Raises likewise."""
        lifted = Event(Kind.MFA_REQUIREMENT_LIFTED, Severity.NOTICE, tenant, user, detail={"by": by})
        await self._say(tenant, subject, None, lifted)

    async def counts(self) -> dict[str, float]:
        """How many people must have a second factor (`required`), and have none that will do: in time (`due`), or not
        any more (`overdue`); for the metrics."""
        now = self._clock.now()
        personal = users.c.mfa_required_from.is_not(None)
        required: list[ColumnElement[bool]] = [personal]
        lacking = [personal & ~_has(frozenset())]
        overdue = [lacking[0] & (users.c.mfa_required_from <= now)]
        for one in self._demands:
            known = select(func.min(demanded.c.since)).where(
                demanded.c.tenant == users.c.tenant,
                demanded.c.subject == users.c.subject,
                demanded.c.demand.in_(one.names),
            )
            lacks = _is_about(one) & ~_has(one.factors)
            required.append(_is_about(one))
            lacking.append(lacks)
            overdue.append(lacks & (known.scalar_subquery() <= now - one.grace) if one.grace > 0 else lacks)
        columns = [func.count(case((or_(*each), 1))) for each in (required, lacking, overdue)]
        query = select(*columns).select_from(users).where(users.c.disabled.is_(False))
        async with self._records.read(long=True) as connection:
            found = (await connection.execute(query)).one()
        return {"required": float(found[0]), "due": float(found[1] - found[2]), "overdue": float(found[2])}

    async def ending(
        self, among: ColumnElement[bool], other: ColumnElement[bool], most: int
    ) -> list[tuple[tuple[str, str, str], float]]:
        """Whose time to set one up is about to end, and when: `((tenant, subject, name), seconds)`, the first first.

        Of users for whom `among` and `other` hold. About to end is what ends within `NOTICE`, or half of what was given
        where that is less; an administrator's word, which may be of any length, a day before.
        """
        now = self._clock.now()
        whom = users.c.tenant, users.c.subject, users.c.name
        personal = users.c.mfa_required_from
        queries = [
            select(*whom, personal).where(personal > now, personal <= now + A_DAY, ~_has(frozenset()), among, other)
        ]
        for one in self._demands:
            due = func.min(demanded.c.since) + one.grace
            mine = and_(demanded.c.tenant == users.c.tenant, demanded.c.subject == users.c.subject)
            queries.append(
                select(*whom, due)
                .join(demanded, and_(mine, demanded.c.demand.in_(one.names)))
                .where(_is_about(one), ~_has(one.factors), among, other)
                .group_by(*whom)
                .having(due > now, due <= now + min(NOTICE, one.grace / 2))
            )
        found: dict[tuple[str, str, str], float] = {}
        async with self._records.read(long=True) as connection:
            for query in queries:
                for tenant, subject, name, at in (await connection.execute(query.limit(most))).all():
                    who = (tenant, subject, name)
                    found[who] = min(at, found.get(who, at))
        return sorted(found.items(), key=lambda each: each[1])

    async def _say(self, tenant: str, subject: str, at: float | None, event: Event) -> None:
        this = (users.c.tenant == tenant, users.c.subject == subject)
        async with self._records.begin(tenant, subject) as connection:
            done = await connection.execute(update(users).where(*this).values(mfa_required_from=at))
            if done.rowcount != 1:
                raise UserError("ERR-USER-UNKNOWN", say("There is no such user."), 404)
            await self._ledger.enter(connection, event)
            await self._records.bump(connection, tenant, subject)
        self._ledger.tell(event)

    async def _begin(
        self, tenant: str, subject: str, demands: Sequence[Demand], named: Collection[str]
    ) -> dict[str, float]:
        """Keep that somebody knows of `demands` from now on, unless they knew; since when they know of all `named`."""
        async with self._records.begin(tenant, subject) as connection:
            since = await _since(connection, tenant, subject, named)
            now = self._clock.now()
            for one in demands:
                if since.keys().isdisjoint(one.names):
                    for name in one.names:
                        await connection.execute(
                            insert(demanded).values(tenant=tenant, subject=subject, demand=name, since=now)
                        )
                        since[name] = now
        return since


async def must_have(connection: AsyncConnection, tenant: str, subject: str, at: float) -> None:
    """Demand, in the caller's transaction, which then bumps, that somebody has a second factor from `at` on.

    Where that was demanded already, the earlier moment stands.
    """
    this = (users.c.tenant == tenant, users.c.subject == subject)
    later = users.c.mfa_required_from.is_(None) | (users.c.mfa_required_from > at)
    await connection.execute(update(users).where(*this, later).values(mfa_required_from=at))


async def devices(connection: AsyncConnection, tenant: str, subject: str) -> frozenset[str]:
    """Kinds of devices that somebody has and that work."""
    working = (rows.c.failures < LIFE, rows.c.kind.not_in(NO_DEVICE))
    query = select(rows.c.kind).where(rows.c.tenant == tenant, rows.c.subject == subject, *working).distinct()
    return frozenset((await connection.scalars(query)).all())


def _is_about(demand: Demand) -> ColumnElement[bool]:
    """`Demand.holds`, of a row of `users`."""
    fits: list[ColumnElement[bool]] = []
    if demand.groups:
        text = cast(users.c.groups, String)  # a list in JSON; `replace` tells upper from lower case everywhere
        fits.append(or_(*(func.replace(text, json.dumps(group), "") != text for group in sorted(demand.groups))))
    if demand.tenants:
        fits.append(users.c.tenant.in_(sorted(demand.tenants)))
    if demand.users:
        fits.append(users.c.name.in_(sorted(demand.users)))
    return and_(*fits) if fits else false()


def _has(kinds: Collection[str]) -> ColumnElement[bool]:
    """Whether the user of a row has a device that works, of one of `kinds` if there are any."""
    will_do = rows.c.kind.in_(sorted(kinds)) if kinds else rows.c.kind.not_in(NO_DEVICE)
    return exists().where(
        rows.c.tenant == users.c.tenant, rows.c.subject == users.c.subject, rows.c.failures < LIFE, will_do
    )


async def _since(connection: AsyncConnection, tenant: str, subject: str, named: Collection[str]) -> dict[str, float]:
    """Of `named`, what somebody knows of, and since when."""
    if not named:
        return {}
    query = select(demanded.c.demand, demanded.c.since).where(
        demanded.c.tenant == tenant, demanded.c.subject == subject, demanded.c.demand.in_(named)
    )
    return dict((await connection.execute(query)).tuples().all())
