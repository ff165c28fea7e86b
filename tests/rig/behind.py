"""Behind the gateway's back: SQL on a database that it has open, as with a client of one's own."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

from gateway.store.place import SQLITE, Place, server
from gateway.store.tables import metadata


def behind(place: Place, statement: str) -> list[tuple[Any, ...]]:
    """Run `statement` there, and commit; its rows."""
    if place.scheme == SQLITE:
        with closing(sqlite3.connect(place.path)) as database, database:
            return database.execute(statement).fetchall()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(_on_postgresql(place, statement))).result()


def at_rest(place: Place) -> bytes:
    """All that somebody gets to read who steals the database."""
    if place.scheme == SQLITE:
        return b"".join(path.read_bytes() for path in place.path.parent.glob(f"{place.path.name}*"))
    rows = [row for table in metadata.tables for row in behind(place, f"SELECT * FROM {table}")]
    cells = [cell for row in rows for cell in row]
    return b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


async def _on_postgresql(place: Place, statement: str) -> list[tuple[Any, ...]]:
    import asyncpg

    at = server(place)
    (host, port), *_ = at.hosts
    connection = await asyncpg.connect(
        host=host, port=port, user=at.user, password=at.password or None, database=at.database, ssl=False
    )
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()
