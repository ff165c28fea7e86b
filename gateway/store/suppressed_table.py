"""Addresses that nothing is sent to: they bounce, or their owner does not want it. See `audit.deliveries`.

Rows keep an address as it was written to, and are found by the mailbox behind it (`core.mailbox`), as limits count:

    complained     ann+news@ and Ann@ are written to no more, nor is ann@: it is their owner who does not want it
    bounced        in capitals it bounces as well; but a host that knows no `+` bounces ann+anything@ where ann@ takes
                   mail. Any stranger can have a code sent there, and must not silence a mailbox by that: of what
                   bounced with a `+`, only this one is left alone

A row without a mark was written by an older version while replicas were replaced: those few are marked when asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.mailbox import mailbox
from gateway.store.sql import Records
from gateway.store.tables import suppressed


class Suppressed(NamedTuple):
    """One of them."""

    channel: str
    target: str
    why: str
    """`bounced`, `complained`."""
    at: float


async def is_suppressed(connection: AsyncConnection, tenant: str, channel: str, target: str) -> bool:
    """Whether nothing is to be sent to `target`."""
    return bool(await _found(connection, tenant, channel, target))


async def suppress(connection: AsyncConnection, tenant: str, one: Suppressed) -> bool:
    """Send nothing there from now on; False where that was so already."""
    marked = mark(one.target, one.why)
    there = await _found(connection, tenant, one.channel, one.target)
    if {marked, mailbox(one.target)} & set(there.values()):
        return False
    if one.target in there:  # it has bounced, and now there is a complaint, which says more
        await connection.execute(delete(suppressed).where(_these(tenant, one.channel, [one.target])))
    values: dict[str, Any] = {"tenant": tenant, **one._asdict(), "mailbox": marked}
    await connection.execute(insert(suppressed).values(values))
    return True


async def every(records: Records, tenant: str, most: int | None = None) -> Sequence[Suppressed]:
    """All of them, or so many, the newest first. Raises `StoreAway`."""
    columns = (suppressed.c.channel, suppressed.c.target, suppressed.c.why, suppressed.c.at)
    query = (
        select(*columns)
        .where(suppressed.c.tenant == tenant)
        .order_by(suppressed.c.at.desc(), suppressed.c.target)
        .limit(most)
    )
    async with records.read(long=True) as connection:
        return [Suppressed(*row) for row in (await connection.execute(query)).all()]


async def release(connection: AsyncConnection, tenant: str, channel: str, target: str) -> bool:
    """Send there again, by whatever spelling; False where nothing kept us."""
    there = await _found(connection, tenant, channel, target)
    return bool((await connection.execute(delete(suppressed).where(_these(tenant, channel, list(there))))).rowcount)


def mark(target: str, why: str) -> str:
    """By what a row is found."""
    return target.casefold() if why == "bounced" else mailbox(target)


async def _found(connection: AsyncConnection, tenant: str, channel: str, target: str) -> Mapping[str, str]:
    """What keeps us from sending to `target`: addresses as they were written to, with their marks."""
    marks = {mailbox(target), target.casefold()}
    query = select(suppressed.c.target, suppressed.c.why, suppressed.c.mailbox).where(
        suppressed.c.tenant == tenant, suppressed.c.channel == channel, suppressed.c.mailbox.in_(["", *sorted(marks)])
    )
    there = {row.target: row.mailbox or mark(row.target, row.why) for row in await connection.execute(query)}
    return {address: marked for address, marked in there.items() if marked in marks}


def _these(tenant: str, channel: str, targets: Sequence[str]) -> ColumnElement[bool]:
    return and_(suppressed.c.tenant == tenant, suppressed.c.channel == channel, suppressed.c.target.in_(targets))
