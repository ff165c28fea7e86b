"""Messages in the database; see `notify.outbox` for what becomes of them.

What says who somebody is and what they were told is there while a message waits, and not any longer: when it is settled
its address is masked, marked and sealed (`Addressees`), and of its content the name of the user is left, for events.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.sql import Records
from gateway.store.suppressed_table import is_suppressed
from gateway.store.tables import outbox

HOUR: Final = 3600.0
KEPT: Final = 7 * 86_400.0
"""Seconds that a settled message can be looked up."""
RESTED_ON: Final = "recovery_asked"
"""Kind of message that somebody's recovery rests on (`mfa.recovery_letters`): whether it was sent is known for longer
than a recovery can be open, without the address. Else what failed would be taken for sent, once it is forgotten."""
RESTED: Final = 61 * 86_400.0
"""Seconds of that."""
GIVEN_UP: Final = 86_400.0
"""Seconds after the end of its time that a message which nobody has looked at is given up."""
MOST_WAITING: Final = 50
"""Messages of one kind that may wait for one address; further ones are not kept."""
AT_ONCE: Final = 256
"""Rows that one transaction seals."""
_TOLD = (
    "id",
    "token",
    "tenant",
    "subject",
    "channel",
    "target",
    "kind",
    "content",
    "sealed",
    "tries",
    "created_at",
    "expires_at",
)


_KEPT = (outbox.c.id, outbox.c.tenant, outbox.c.token, outbox.c.channel, outbox.c.target, outbox.c.content)


class Addressees(Protocol):
    """How an address is kept where nothing has to be sent there any more: `mfa.addressees`."""

    def whose(self, channel: str, address: str) -> str:
        """One mark for one address."""
        ...

    def kept(self, tenant: str, token: str, channel: str, address: str) -> Mapping[str, Any]:
        """What stands for it in the row of `tenant` that is called `token`: `target`, `whose`, `address`."""
        ...


class OutboxTable:
    """The table `outbox`; `notify.outbox.Shelf`. Every method raises `StoreAway` where the database does."""

    def __init__(self, records: Records, addressees: Addressees) -> None:
        self._records = records
        self._addressees = addressees

    async def due(self, now: float, most: int, channel: str, codes: bool) -> Sequence[int]:
        """Ids of rows of `channel` to look at, the longest due first: those with a code, or those without."""
        these = and_(outbox.c.channel == channel, outbox.c.sealed.is_not(None) if codes else outbox.c.sealed.is_(None))
        query = select(outbox.c.id).where(_due(now), these).order_by(outbox.c.due_at, outbox.c.id).limit(most)
        async with self._records.read() as connection:
            return list((await connection.scalars(query)).all())

    async def claim(
        self, row: int, now: float, lease: float, per_target: int, per_user: int
    ) -> Mapping[str, Any] | None:
        """The row, ours for `lease` seconds; None where it is somebody else's, or has to wait for a limit.

        Counted and claimed in one transaction about whom it is for. Two people may have one address: on PostgreSQL
        that limit can be passed by as many as are claimed in the same moment. Codes were counted when they were put in:
        they cannot wait.
        """
        async with self._records.read() as connection:
            whose = (
                await connection.execute(select(outbox.c.tenant, outbox.c.subject).where(outbox.c.id == row))
            ).first()
        if whose is None:
            return None
        async with self._records.begin(whose.tenant, whose.subject) as connection:
            this = outbox.c.id == row
            found = (await connection.execute(select(outbox).where(this, _due(now)))).first()
            if found is None:
                return None
            same = outbox.c.kind == found.kind
            whose_too = and_(outbox.c.tenant == found.tenant, outbox.c.subject == found.subject, same)
            wait, whose_mark = 0.0, self._addressees.whose(found.channel, found.target)
            if found.sealed is None:
                wait = max(
                    await _wait(connection, and_(outbox.c.whose == whose_mark, same), row, now, per_target),
                    await _wait(connection, whose_too, row, now, per_user),
                )
            if wait > 0:
                await connection.execute(update(outbox).where(this).values(due_at=now + wait, state="waiting"))
                return None
            claimed = await connection.execute(
                update(outbox)
                .where(this, outbox.c.tries == found.tries, _due(now))
                .values(state="sending", tries=found.tries + 1, due_at=now + lease, whose=whose_mark)
            )
            if claimed.rowcount != 1:
                return None
        return {name: getattr(found, name) for name in _TOLD} | {"tries": found.tries + 1}

    async def settle(
        self, row: int, tries: int, state: str, *, now: float, due_at: float, via: str, reference: str
    ) -> None:
        """What became of try number `tries`; nothing changes where somebody else has begun another.

        Except that a message which was taken over is sent, whatever others think. With its settlement go a code, the
        address in clear, and what was said.
        """
        values: dict[str, Any] = {"state": state, "due_at": due_at, "via": via, "reference": reference}
        if state != "waiting":
            values |= {"settled_at": now, "sealed": None}
        this = [outbox.c.id == row]
        if state != "sent":
            this += [outbox.c.tries == tries, outbox.c.state == "sending"]
        async with self._records.begin() as connection:
            if state != "waiting":
                found = (await connection.execute(select(*_KEPT).where(*this, outbox.c.address.is_(None)))).first()
                values |= self._over(found) if found is not None else {}
            await connection.execute(update(outbox).where(*this).values(values))

    async def sweep(self, now: float) -> int:
        """Remove what was settled a week ago, and give up what nobody looks at; how many were given up.

        Its channel is carried no more, or no gateway ran while it was worth something.
        """
        over = or_(
            outbox.c.expires_at < now - GIVEN_UP,
            and_(outbox.c.sealed.is_not(None), outbox.c.expires_at < now - HOUR),
        )
        unsettled = outbox.c.state.in_(("waiting", "sending"))
        async with self._records.begin() as connection:
            rested, old = outbox.c.kind == RESTED_ON, outbox.c.settled_at < now - KEPT
            await connection.execute(delete(outbox).where(old, ~rested | (outbox.c.settled_at < now - RESTED)))
            await connection.execute(update(outbox).where(old, rested, outbox.c.address != b"").values(address=b""))
            given_up = await connection.execute(
                update(outbox).where(unsettled, over).values(state="failed", settled_at=now, sealed=None)
            )
        while await self._seal_some() == AT_ONCE:
            pass
        return given_up.rowcount

    async def _seal_some(self) -> int:
        """Seal addresses of what was settled without that: given up, or by an older version; how many."""
        bare = and_(outbox.c.settled_at.is_not(None), outbox.c.address.is_(None))
        async with self._records.read(long=True) as connection:
            found = (await connection.execute(select(*_KEPT).where(bare).limit(AT_ONCE))).all()
        if found:
            async with self._records.begin() as connection:
                for row in found:
                    await connection.execute(update(outbox).where(outbox.c.id == row.id, bare).values(self._over(row)))
        return len(found)

    def _over(self, row: Any) -> dict[str, Any]:
        """What is left of a row (`_KEPT`) that is settled."""
        kept = self._addressees.kept(row.tenant, row.token, row.channel, row.target)
        return {**kept, "content": _left(row.content)}

    async def waiting(self) -> int:
        """How many are not settled."""
        query = select(func.count()).select_from(outbox).where(outbox.c.state.in_(("waiting", "sending")))
        async with self._records.read() as connection:
            return await connection.scalar(query) or 0


async def put(
    connection: AsyncConnection,
    *,
    tenant: str,
    subject: str,
    channel: str,
    target: str,
    kind: str,
    content: Mapping[str, Any],
    now: float,
    lifetime: float,
    token: str = "",
    sealed: bytes | None = None,
    whose: str = "",
    kept: Mapping[str, Any] | None = None,
    may: bool = True,
) -> bool:
    """Have a message sent once this transaction is committed.

    False where too many wait for that address already, and where nothing is sent there any more.

    `sealed` is what of it must not be read in the database; it is bound to `token`, which `new_token` makes. `whose`
    marks the address, for `crowded`; else it is marked when it is claimed.

    `kept` (`Addressees.kept`): somebody waits for the answer who must not learn, by how long it takes, whether anything
    is sent there. What is not (`may` is False, or nothing is sent there any more) is then written all the same, and
    given up at once.
    """
    held = await is_suppressed(connection, tenant, channel, target) or not may
    if held and kept is None:
        return False
    there = (
        select(func.count())
        .select_from(outbox)
        .where(outbox.c.target == target, outbox.c.kind == kind, outbox.c.state == "waiting")
    )
    if (await connection.scalar(there) or 0) >= MOST_WAITING:
        return False
    row: dict[str, Any] = {
        "token": token or new_token(), "tenant": tenant, "subject": subject, "channel": channel, "target": target,
        "kind": kind, "content": dict(content), "state": "waiting", "tries": 0, "created_at": now, "due_at": now,
        "expires_at": now + lifetime, "sealed": sealed, "whose": whose, "settled_at": None, "address": None,
    }  # fmt: skip
    if held:
        row |= {"state": "failed", "settled_at": now, "sealed": None, "content": _left(content), **(kept or {})}
    await connection.execute(insert(outbox).values(row))
    return not held


def _left(content: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of it when it is over: whom events are to name."""
    return {"user": str(content.get("user", ""))}


def new_token() -> str:
    """What others will know a message by."""
    return secrets.token_hex(16)


async def crowded(
    connection: AsyncConnection, *, tenant: str, subject: str, whose: str, kind: str, now: float, most: tuple[int, int]
) -> float:
    """Seconds until one more of `kind` may be put in; 0.0: now. `most`: to one address, to one person, in an hour.

    `whose` is the mark of the address, with which all of that kind are put in.

    What failed does not count: whoever waits for a code that could not be sent asks for another.
    """
    mine = and_(outbox.c.tenant == tenant, outbox.c.subject == subject)
    wait = 0.0
    for these, many in ((outbox.c.whose == whose, most[0]), (mine, most[1])):
        query = (
            select(outbox.c.created_at)
            .where(these, outbox.c.kind == kind, outbox.c.state != "failed", outbox.c.created_at > now - HOUR)
            .order_by(outbox.c.created_at.desc())
            .limit(many)
        )
        times = (await connection.scalars(query)).all()
        if len(times) == many:
            wait = max(wait, 1.0, times[-1] + HOUR - now)
    return wait


def _due(now: float) -> ColumnElement[bool]:
    return and_(or_(outbox.c.state == "waiting", outbox.c.state == "sending"), outbox.c.due_at <= now)


async def _wait(connection: AsyncConnection, like: ColumnElement[bool], row: int, now: float, most: int) -> float:
    """Seconds until one more of those `like` it may go; 0.0: now."""
    gone = or_(
        and_(outbox.c.state == "sent", outbox.c.settled_at > now - HOUR),
        and_(outbox.c.state == "sending", outbox.c.due_at > now),
    )
    query = (
        select(outbox.c.settled_at)
        .where(like, outbox.c.id != row, gone)
        .order_by(outbox.c.settled_at.desc().nulls_first())
        .limit(most)
    )
    times = (await connection.scalars(query)).all()
    if len(times) < most:
        return 0.0
    oldest = times[-1]
    return max(1.0, oldest + HOUR - now) if oldest is not None else 60.0
