"""Security events in the database: written in batches, asked for newest first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.events import Event, Kind, Severity
from gateway.store.sql import Records
from gateway.store.tables import events

Also = Callable[[AsyncConnection, Sequence[Mapping[str, Any]]], Awaitable[None]]
"""Called in the transaction that keeps the rows."""


class EventTable:
    """The table `events`; part of `audit.recorder.Shelf`."""

    def __init__(self, records: Records, also: Also | None = None) -> None:
        """`also` writes what follows from events: both are kept, or neither is."""
        self._records = records
        self._also = also

    async def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep `rows`, all of them or none. Raises `StoreAway`."""
        async with self._records.begin() as connection:
            await self.enter(connection, rows)

    async def enter(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep `rows` with whatever else `connection` commits."""
        await connection.execute(_KEEP, rows)
        if self._also is not None:
            await self._also(connection, rows)

    async def newest(self, tenant: str, limit: int, kind: Kind | None, user: str | None) -> list[Event]:
        """The newest events of `tenant`, newest first, of one kind and one user if asked. Raises `StoreAway`."""
        query = select(events).where(events.c.tenant == tenant).order_by(events.c.at.desc(), events.c.id.desc())
        if kind is not None:
            query = query.where(events.c.kind == str(kind))
        if user is not None:
            query = query.where(events.c.user == user)
        async with self._records.read(long=True) as connection:
            rows = (await connection.execute(query.limit(limit))).mappings().all()
        return [_event(row) for row in rows]


_KEEP = insert(events)


def _event(row: Any) -> Event:
    return Event(
        kind=Kind(row["kind"]),
        severity=Severity(row["severity"]),
        **{
            name: row[name]
            for name in ("tenant", "user", "session", "address", "agent", "request_id", "rule", "detail", "at")
        },
    )
