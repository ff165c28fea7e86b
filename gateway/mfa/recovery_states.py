"""A recovery as it is kept, and the one statement that leads it on.

It is open or over. What may happen to it is this table and nothing else:

```text
state     input         next    who
waiting   due           ready   the delay is over: the link is drawn and sent, once
ready     used          done    its owner, signed in afresh with the password, has followed the link and said yes
pending   approved      done    another administrator
(open)    cancelled     ended   whoever has the link of the first letter
(open)    proven        ended   a second factor was shown, or bound: it is not lost
(open)    void          ended   another password, a disabled account, everything ended: `users.generation` is another;
                                or the link is out, and the address that it went to is not the account's any more
(open)    refused       ended   an administrator; whoever asked may take it back like that
(open)    expired       ended   nobody has gone on in time
(open)    unreachable   ended   there is nowhere to send the link to: no address, or none that was confirmed
done      (any)         done    ERR-RECOVERY
ended     (any)         ended   ERR-RECOVERY
```

Every arrow is one `UPDATE … WHERE state IN …`, so of any number of simultaneous ones a single one changes the row. What
a recovery has to be beside in that state (of the same account still, not proven meanwhile, in time) stands in the same
statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.own_address import is_confirmed
from gateway.store.sql import Records
from gateway.store.tables import factors, users
from gateway.store.tables import recoveries as rows

MOST = 200
"""Recoveries that are listed."""


class Way(StrEnum):
    """Who opens it."""

    EMAIL = "email"
    ADMINISTRATORS = "administrators"


class State(StrEnum):
    """Of a recovery."""

    WAITING = "waiting"
    READY = "ready"
    PENDING = "pending"
    DONE = "done"
    ENDED = "ended"


class Input(StrEnum):
    """What may happen to it; of one that is over, what did."""

    DUE = "due"
    USED = "used"
    APPROVED = "approved"
    CANCELLED = "cancelled"
    PROVEN = "proven"
    VOID = "void"
    REFUSED = "refused"
    EXPIRED = "expired"
    UNREACHABLE = "unreachable"


OPEN = (State.WAITING, State.READY, State.PENDING)
ENDINGS = (Input.CANCELLED, Input.PROVEN, Input.VOID, Input.REFUSED, Input.EXPIRED, Input.UNREACHABLE)

NEXT: Mapping[tuple[State, Input], State] = {
    (State.WAITING, Input.DUE): State.READY,
    (State.READY, Input.USED): State.DONE,
    (State.PENDING, Input.APPROVED): State.DONE,
    **{(state, ending): State.ENDED for state in OPEN for ending in ENDINGS},
}
"""`(state, input)` → next state; what is not here changes nothing and is ERR-RECOVERY."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """One of them, without its tokens."""

    tenant: str
    id: str
    subject: str
    user: str
    """Canonical name."""
    way: Way
    state: State
    outcome: str
    """The `Input` that it ended by; empty while it is open."""
    reason: str
    """An administrator's words."""
    asked_at: float
    asked_by: str
    """Subject of the administrator; empty: the user."""
    asker: str
    """Canonical name of who asked."""
    due_at: float
    """When the link is sent; of the other way when it was asked for."""
    expires_at: float
    settled_at: float
    """0.0 while it is open."""
    settled_by: str
    """Canonical name of the administrator who approved or refused; may be empty."""


def overs(now: float) -> tuple[tuple[Input, ColumnElement[bool]], ...]:
    """What ends a recovery without anybody saying so, the weightiest reason first."""
    return (
        (Input.PROVEN, _factor_seen()),
        (Input.VOID, or_(~_same_account(), and_(rows.c.state == State.READY, ~address_stands()))),
        (Input.EXPIRED, rows.c.expires_at <= now),
    )


def good(now: float) -> tuple[ColumnElement[bool], ...]:
    """That none of these is so."""
    return (
        ~_factor_seen(),
        _same_account(),
        or_(rows.c.state != State.READY, address_stands()),
        rows.c.expires_at > now,
    )


def _factor_seen() -> ColumnElement[bool]:
    """Whether a factor was shown or bound since it was asked for."""
    return (
        select(factors.c.id)
        .where(
            factors.c.tenant == rows.c.tenant,
            factors.c.subject == rows.c.subject,
            or_(factors.c.last_used_at >= rows.c.asked_at, factors.c.created_at >= rows.c.asked_at),
        )
        .correlate(rows)
        .exists()
    )


def _same_account() -> ColumnElement[bool]:
    return (
        select(users.c.subject)
        .where(
            users.c.tenant == rows.c.tenant,
            users.c.subject == rows.c.subject,
            users.c.disabled.is_(False),
            users.c.generation == rows.c.generation,
        )
        .correlate(rows)
        .exists()
    )


def address_stands() -> ColumnElement[bool]:
    """Whether the account's address was confirmed when it was asked for, and is the account's still.

    What is confirmed later does not count, be it the same address: whoever does that has a second factor, or an
    operator who helps, and asks again.
    """
    return (
        select(users.c.subject)
        .where(
            users.c.tenant == rows.c.tenant,
            users.c.subject == rows.c.subject,
            is_confirmed(),
            users.c.email_confirmed_at <= rows.c.asked_at,
        )
        .correlate(rows)
        .exists()
    )


async def claim(
    connection: AsyncConnection, given: Input, *where: ColumnElement[bool], now: float, by: str = "", **values: Any
) -> Recovery | None:
    """Follow the arrow that `given` is, from wherever the table has it; None where no row was there to follow it."""
    before = [state for state, each in NEXT if each is given]
    (after,) = {NEXT[state, given] for state in before}
    if after not in OPEN:
        values |= {"outcome": str(given), "settled_at": now, "settled_by": by}
    changed = update(rows).where(rows.c.state.in_(before), *where).values(state=after, **values)
    row = (await connection.execute(changed.returning(rows.c.tenant, rows.c.id))).first()
    if row is None:
        return None
    now_is = await first(connection, this(row))
    return None if now_is is None else recovery(now_is)


async def every(records: Records, tenant: str, *, over: bool = False) -> Sequence[Recovery]:
    """Those of a tenant that are open, or with `over` all that are kept; the newest first, `MOST` at most."""
    wanted = [rows.c.tenant == tenant] if over else [rows.c.tenant == tenant, rows.c.state.in_(OPEN)]
    query = told().where(*wanted).order_by(rows.c.asked_at.desc(), rows.c.id).limit(MOST)
    async with records.read(long=True) as connection:
        return [recovery(row) for row in await connection.execute(query)]


async def find(records: Records, tenant: str, recovery_id: str) -> Recovery | None:
    """One of them, open or over."""
    async with records.read() as connection:
        row = await first(connection, rows.c.tenant == tenant, rows.c.id == recovery_id)
    return None if row is None else recovery(row)


def told() -> Any:
    """Recoveries with the names of who they are about and who asked."""
    asker = users.alias("asker")
    return (
        select(rows, users.c.name.label("user"), asker.c.name.label("asker"))
        .join(users, and_(users.c.tenant == rows.c.tenant, users.c.subject == rows.c.subject))
        .outerjoin(asker, and_(asker.c.tenant == rows.c.tenant, asker.c.subject == rows.c.asked_by))
    )


async def first(connection: AsyncConnection, *where: ColumnElement[bool]) -> Row[Any] | None:
    """One of `told`."""
    row: Row[Any] | None = (await connection.execute(told().where(*where))).first()
    return row


def of_person(tenant: str, subject: str) -> ColumnElement[bool]:
    """Whether it is about them."""
    return and_(rows.c.tenant == tenant, rows.c.subject == subject)


def this(row: Row[Any]) -> ColumnElement[bool]:
    """Whether it is this one."""
    return and_(rows.c.tenant == row.tenant, rows.c.id == row.id)


def recovery(row: Row[Any]) -> Recovery:
    """What a row of `told` says."""
    return Recovery(
        tenant=row.tenant,
        id=row.id,
        subject=row.subject,
        user=row.user,
        way=Way(row.way),
        state=State(row.state),
        outcome=row.outcome,
        reason=row.reason,
        asked_at=row.asked_at,
        asked_by=row.asked_by,
        asker=(row.asker or "") if row.asked_by else row.user,
        due_at=row.due_at,
        expires_at=row.expires_at,
        settled_at=row.settled_at or 0.0,
        settled_by=row.settled_by,
    )
