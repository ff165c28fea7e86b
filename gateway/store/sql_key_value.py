"""Small things that expire, in the database: for what has to survive a restart or is shared by several processes.

Each method is one SQL statement, so two processes cannot both win.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, delete, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.store.sql import Records
from gateway.store.tables import Number, kept

SWEEP_EVERY = 256
"""Writes between two looks for expired rows."""
SWEEP_AT_MOST = 1024
"""Rows removed by one look."""


class SqlKeyValue:
    """A `KeyValue` on table `kept`. Every method raises `StoreAway` where the database does."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        self._writes = 0

    async def get(self, key: str) -> bytes | None:
        """The value, or a counter's digits."""
        query = select(kept.c.value, kept.c.number).where(kept.c.key == key, kept.c.expires_at > self._clock.now())
        async with self._records.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        return row.value if row.number is None else b"%d" % row.number

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """As the contract says."""
        async with self._records.begin() as connection:
            await write(connection, key, value, self._clock.now() + ttl)
        await self._sweep()

    async def claim(self, key: str, ttl: float) -> bool:
        """As the contract says."""
        async with self._records.begin() as connection:
            claimed = await claim(connection, key, self._clock.now(), ttl)
        await self._sweep()
        return claimed

    async def take(self, key: str) -> bytes | None:
        """As the contract says."""
        statement = delete(kept).where(kept.c.key == key).returning(kept.c.value, kept.c.expires_at)
        async with self._records.begin() as connection:
            row = (await connection.execute(statement)).first()
        return row.value if row is not None and row.expires_at > self._clock.now() else None

    async def drop(self, key: str) -> None:
        """As the contract says."""
        async with self._records.begin() as connection:
            await connection.execute(delete(kept).where(kept.c.key == key))

    async def left(self, key: str) -> float:
        """As the contract says."""
        async with self._records.read() as connection:
            expires_at: float | None = await connection.scalar(select(kept.c.expires_at).where(kept.c.key == key))
        return max(0.0, expires_at - self._clock.now()) if expires_at is not None else 0.0

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """As the contract says."""
        now = self._clock.now()
        expired = kept.c.expires_at <= now
        more = literal(amount, Number)
        async with self._records.begin() as connection:
            statement = (
                _insert(connection)
                .values(key=key, tenant=_tenant(key), value=None, number=amount, expires_at=now + ttl)
                .on_conflict_do_update(
                    index_elements=["key"],
                    set_={
                        "number": case((expired, more), else_=kept.c.number + more),
                        "expires_at": case((expired, now + ttl), else_=kept.c.expires_at),
                    },
                )
                .returning(kept.c.number)
            )
            number: int = (await connection.execute(statement)).scalar_one()
        await self._sweep()
        return number

    async def _sweep(self) -> None:
        self._writes += 1
        if self._writes % SWEEP_EVERY:
            return
        some = select(kept.c.key).where(kept.c.expires_at <= self._clock.now()).limit(SWEEP_AT_MOST)
        async with self._records.begin() as connection:
            await connection.execute(delete(kept).where(kept.c.key.in_(some)))


async def write(connection: AsyncConnection, key: str, value: bytes, expires_at: float) -> None:
    """Keep `value` until `expires_at`, replacing what was there, in the transaction of somebody else."""
    row = {"value": value, "number": None, "expires_at": expires_at}
    statement = _insert(connection).values(key=key, tenant=_tenant(key), **row)
    await connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_=row))


async def claim(connection: AsyncConnection, key: str, now: float, ttl: float) -> bool:
    """`KeyValue.claim`, as part of a transaction."""
    row = {"value": b"", "number": None, "expires_at": now + ttl}
    statement = (
        _insert(connection)
        .values(key=key, tenant=_tenant(key), **row)
        .on_conflict_do_update(index_elements=["key"], set_=row, where=kept.c.expires_at <= now)
        .returning(kept.c.key)
    )
    return (await connection.execute(statement)).first() is not None


def _insert(connection: AsyncConnection) -> Any:
    """`INSERT` into `kept` that may say `ON CONFLICT`: the two spell it alike, and SQLAlchemy keeps them apart."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(kept)


def _tenant(key: str) -> str:
    return key.partition("/")[0]
