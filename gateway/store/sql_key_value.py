"""Small things that expire, in the database: for what has to survive a restart or is shared by several processes.

Each method is one SQL statement, so two processes cannot both win.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import bindparam, case, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.errors import StoreAway
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
        async with self._records.read() as connection:
            row = (await connection.execute(_GET, {"of": key, "now": self._clock.now()})).first()
        if row is None:
            return None
        return row.value if row.number is None else b"%d" % row.number

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """As the contract says."""
        async with self._records.begin() as connection:
            await write(connection, key, value, self._clock.now() + ttl)
        await self.wrote()

    async def claim(self, key: str, ttl: float) -> bool:
        """As the contract says."""
        async with self._records.begin() as connection:
            claimed = await claim(connection, key, self._clock.now(), ttl)
        await self.wrote()
        return claimed

    async def take(self, key: str) -> bytes | None:
        """As the contract says."""
        async with self._records.begin() as connection:
            return await take(connection, key, self._clock.now())

    async def drop(self, key: str) -> None:
        """As the contract says."""
        async with self._records.begin() as connection:
            await connection.execute(delete(kept).where(kept.c.key == key))

    async def left(self, key: str) -> float:
        """As the contract says."""
        async with self._records.read() as connection:
            expires_at: float | None = await connection.scalar(_LEFT, {"of": key})
        return max(0.0, expires_at - self._clock.now()) if expires_at is not None else 0.0

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """As the contract says."""
        async with self._records.begin() as connection:
            number = await add(connection, key, amount, self._clock.now(), ttl)
        await self.wrote()
        return number

    async def wrote(self) -> None:
        """Now and then, remove what has expired. Called after every write, also of the functions below.

        Never raises `StoreAway`: what was written is, and somebody else removes the rest.
        """
        self._writes += 1
        if self._writes % SWEEP_EVERY:
            return
        some = select(kept.c.key).where(kept.c.expires_at <= self._clock.now()).limit(SWEEP_AT_MOST)
        with suppress(StoreAway):
            async with self._records.begin() as connection:
                await connection.execute(delete(kept).where(kept.c.key.in_(some)))


async def write(connection: AsyncConnection, key: str, value: bytes, expires_at: float) -> None:
    """Keep `value` until `expires_at`, replacing what was there, in the transaction of somebody else."""
    row = {"key": key, "tenant": _tenant(key), "value": value, "until": expires_at}
    await connection.execute(_PUT[connection.dialect.name], row)


async def add(connection: AsyncConnection, key: str, amount: int, now: float, ttl: float) -> int:
    """`KeyValue.add`, as part of a transaction."""
    row = {"key": key, "tenant": _tenant(key), "more": amount, "now": now, "until": now + ttl}
    number: int = (await connection.execute(_ADD[connection.dialect.name], row)).scalar_one()
    return number


async def take(connection: AsyncConnection, key: str, now: float) -> bytes | None:
    """`KeyValue.take`, as part of a transaction."""
    row = (await connection.execute(_TAKE, {"of": key})).first()
    return row.value if row is not None and row.expires_at > now else None


async def claim(connection: AsyncConnection, key: str, now: float, ttl: float) -> bool:
    """`KeyValue.claim`, as part of a transaction."""
    row = {"key": key, "tenant": _tenant(key), "value": b"", "now": now, "until": now + ttl}
    return (await connection.execute(_CLAIM[connection.dialect.name], row)).first() is not None


def _tenant(key: str) -> str:
    return key.partition("/")[0]


# Statements are built once: building one costs more than running it.

_GET = select(kept.c.value, kept.c.number).where(kept.c.key == bindparam("of"), kept.c.expires_at > bindparam("now"))
_LEFT = select(kept.c.expires_at).where(kept.c.key == bindparam("of"))
_TAKE = delete(kept).where(kept.c.key == bindparam("of")).returning(kept.c.value, kept.c.expires_at)


def _for_both(build: Callable[[Any], Any]) -> dict[str, Any]:
    """An `INSERT` that says `ON CONFLICT`, by dialect: the two spell it alike, and SQLAlchemy keeps them apart."""
    return {"sqlite": build(sqlite.insert(kept)), "postgresql": build(postgresql.insert(kept))}


def _put(insert: Any) -> Any:
    row: dict[str, Any] = {"value": bindparam("value"), "number": None, "expires_at": bindparam("until")}
    written = insert.values(key=bindparam("key"), tenant=bindparam("tenant"), **row)
    return written.on_conflict_do_update(
        index_elements=["key"], set_={name: written.excluded[name] for name in row}
    )  # fmt: skip


def _claim(insert: Any) -> Any:
    row: dict[str, Any] = {"value": bindparam("value"), "number": None, "expires_at": bindparam("until")}
    written = insert.values(key=bindparam("key"), tenant=bindparam("tenant"), **row)
    return written.on_conflict_do_update(
        index_elements=["key"],
        set_={name: written.excluded[name] for name in row},
        where=kept.c.expires_at <= bindparam("now"),
    ).returning(kept.c.key)


def _add(insert: Any) -> Any:
    more: Any = bindparam("more", type_=Number)
    until: Any = bindparam("until")
    written = insert.values(key=bindparam("key"), tenant=bindparam("tenant"), value=None, number=more, expires_at=until)
    expired = kept.c.expires_at <= bindparam("now")
    return written.on_conflict_do_update(
        index_elements=["key"],
        set_={
            "number": case((expired, written.excluded.number), else_=kept.c.number + written.excluded.number),
            "expires_at": case((expired, written.excluded.expires_at), else_=kept.c.expires_at),
        },
    ).returning(kept.c.number)


_PUT, _CLAIM, _ADD = _for_both(_put), _for_both(_claim), _for_both(_add)
