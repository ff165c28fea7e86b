"""What SQLAlchemy works out for each database, worked out once for all databases of the tests.

A test has a database of its own, and with it an engine that knows nothing yet: to write down the same tables and the
same statements again is a quarter of what such a test costs. What is sent to the databases is the same, but for what
SQLAlchemy asks each of them about itself.

On PostgreSQL every connection is a process. Where a test is about something else than the pool (its place is patient),
those of the pool are opened when they are wanted, which saves another quarter: as many as ever work at once.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.store import postgresql, schema, sqlite
from gateway.store.postgresql import PostgreSQL

PATIENT = 5.0
"""Seconds for an answer, in tests about something else: the machine they run on may have a lot to do."""

_make = schema.make
_fill = PostgreSQL.fill
_made: dict[str, list[tuple[str, Any]]] = {}
_first: dict[str, AsyncEngine] = {}


def remember() -> None:
    """From here on, in this process."""
    schema.make = make
    sqlite.create_async_engine = postgresql.create_async_engine = engine  # type: ignore[attr-defined]
    PostgreSQL.fill = fill  # type: ignore[method-assign]


def make(connection: Connection) -> None:
    """What the real one has sent to the first database of this kind."""
    kind = connection.dialect.name
    if kind not in _made:
        sent: list[tuple[str, Any]] = []

        def hear(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
            sent.append((statement, values))

        event.listen(connection, "before_cursor_execute", hear)
        _make(connection)
        event.remove(connection, "before_cursor_execute", hear)
        _made[kind] = sent
        return
    for statement, values in _made[kind]:
        connection.exec_driver_sql(statement, values or None)


def engine(url: str, **options: Any) -> AsyncEngine:
    """One that writes as the first one of its kind does, and shares what that has written so far."""
    kind = make_url(url).get_backend_name()
    first = _first.get(kind)
    if first is None or not getattr(first.dialect, "server_version_info", None):  # it has met no server yet
        _first[kind] = create_async_engine(url, **options)
        return _first[kind]
    made = create_async_engine(url, **options)
    known, another = first.sync_engine, made.sync_engine
    another.dialect.initialize = lambda connection: None  # type: ignore[method-assign]
    another.dialect = another.pool._dialect = known.dialect
    another._compiled_cache = known._compiled_cache
    return made


async def fill(database: PostgreSQL) -> int:
    """Opens one connection of a patient place, and every one of any other."""
    if database.line.deadline != PATIENT:
        return await _fill(database)
    async with database.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        return int(driver.get_server_version().major) if driver is not None else 0
