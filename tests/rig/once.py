"""What SQLAlchemy works out for each database, worked out once for all databases of the tests.

A test has a database of its own, and with it an engine that knows nothing yet: to write down the same tables and the
same statements again is a quarter of what such a test costs. What is sent to the databases is the same.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gateway.store import schema, sqlite

_make = schema.make
_made: dict[str, list[tuple[str, Any]]] = {}
_first: list[AsyncEngine] = []


def remember() -> None:
    """From here on, in this process."""
    schema.make = make
    sqlite.create_async_engine = engine  # type: ignore[attr-defined]


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
    """One that writes as the first one does, and shares what that has written so far."""
    made = create_async_engine(url, **options)
    if not _first:
        _first.append(made)
    first, another = _first[0].sync_engine, made.sync_engine
    another.dialect = another.pool._dialect = first.dialect
    another._compiled_cache = first._compiled_cache
    return made
