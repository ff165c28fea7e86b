"""Addresses that nothing is sent to: they bounce, or their owner does not want it. See `audit.deliveries`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

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
    query = select(func.count()).select_from(suppressed).where(_this(tenant, channel, target))
    return bool(await connection.scalar(query))


async def suppress(connection: AsyncConnection, tenant: str, one: Suppressed) -> bool:
    """Send nothing there from now on; False where that was so already."""
    if await is_suppressed(connection, tenant, one.channel, one.target):
        return False
    values: dict[str, Any] = {"tenant": tenant, **one._asdict()}
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
    """Send there again; False where nothing kept us."""
    return bool((await connection.execute(delete(suppressed).where(_this(tenant, channel, target)))).rowcount)


def _this(tenant: str, channel: str, target: str) -> ColumnElement[bool]:
    return and_(suppressed.c.tenant == tenant, suppressed.c.channel == channel, suppressed.c.target == target)
