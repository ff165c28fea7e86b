"""Messages in the database; see `notify.outbox` for what becomes of them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.sql import Records
from gateway.store.tables import outbox

HOUR: Final = 3600.0
KEPT: Final = 7 * 86_400.0
"""Seconds that a settled message can be looked up."""
MOST_WAITING: Final = 50
"""Messages of one kind that may wait for one address; further ones are not kept."""
_TOLD = (
    "id",
    "token",
    "tenant",
    "subject",
    "channel",
    "target",
    "kind",
    "content",
    "tries",
    "created_at",
    "expires_at",
)


class OutboxTable:
    """The table `outbox`; `notify.outbox.Shelf`. Every method raises `StoreAway` where the database does."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def due(self, now: float, most: int) -> Sequence[int]:
        """Ids of rows to look at, the longest due first."""
        query = select(outbox.c.id).where(_due(now)).order_by(outbox.c.due_at, outbox.c.id).limit(most)
        async with self._records.read() as connection:
            return list((await connection.scalars(query)).all())

    async def claim(
        self, row: int, now: float, lease: float, per_target: int, per_user: int
    ) -> Mapping[str, Any] | None:
        """The row, ours for `lease` seconds; None where it is somebody else's, or has to wait for a limit.

        Counted and claimed in one transaction about whom it is for. Two people may have one address: on PostgreSQL
        that limit can be passed by as many as are claimed in the same moment.
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
            wait = max(
                await _wait(connection, and_(outbox.c.target == found.target, same), row, now, per_target),
                await _wait(
                    connection,
                    and_(outbox.c.tenant == found.tenant, outbox.c.subject == found.subject, same),
                    row,
                    now,
                    per_user,
                ),
            )
            if wait > 0:
                await connection.execute(update(outbox).where(this).values(due_at=now + wait, state="waiting"))
                return None
            claimed = await connection.execute(
                update(outbox)
                .where(this, outbox.c.tries == found.tries, _due(now))
                .values(state="sending", tries=found.tries + 1, due_at=now + lease)
            )
            if claimed.rowcount != 1:
                return None
        return {name: getattr(found, name) for name in _TOLD} | {"tries": found.tries + 1}

    async def settle(self, row: int, tries: int, state: str, *, now: float, due_at: float, via: str) -> None:
        """What became of try number `tries`; nothing changes where somebody else has begun another.

        Except that a message which was taken over is sent, whatever others think.
        """
        values: dict[str, Any] = {"state": state, "due_at": due_at, "via": via}
        if state != "waiting":
            values["settled_at"] = now
        this = [outbox.c.id == row]
        if state != "sent":
            this += [outbox.c.tries == tries, outbox.c.state == "sending"]
        async with self._records.begin() as connection:
            await connection.execute(update(outbox).where(*this).values(values))

    async def sweep(self, now: float) -> None:
        """Remove what was settled a week ago."""
        async with self._records.begin() as connection:
            await connection.execute(delete(outbox).where(outbox.c.settled_at < now - KEPT))

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
) -> bool:
    """Have a message sent once this transaction is committed; False where too many wait for that address already."""
    there = (
        select(func.count())
        .select_from(outbox)
        .where(outbox.c.target == target, outbox.c.kind == kind, outbox.c.state == "waiting")
    )
    if (await connection.scalar(there) or 0) >= MOST_WAITING:
        return False
    row = {
        "token": secrets.token_hex(16), "tenant": tenant, "subject": subject, "channel": channel, "target": target,
        "kind": kind, "content": dict(content), "state": "waiting", "tries": 0, "created_at": now, "due_at": now,
        "expires_at": now + lifetime,
    }  # fmt: skip
    await connection.execute(insert(outbox).values(row))
    return True


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
