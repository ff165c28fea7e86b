"""What `Records` needs of a database: SQLite and PostgreSQL answer it each in its own way."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import orjson
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.core.errors import StoreAway
from gateway.store.line import Line


class Database(Protocol):
    """An open database; what is in it is not its concern."""

    name: str
    """As messages call it, `database …`; never with a password."""
    engine: AsyncEngine
    line: Line
    refuses: str
    """Why it took nothing (full, read-only), until somebody has seen that it does again; empty where it does."""

    def write(self, tenant: str, subject: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction: see `Records.begin`."""
        ...

    def read(self, *, long: bool = False, apart: bool = False) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read with: see `Records.read`. `apart`: do not stand in line with the others."""
        ...

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What is raised where nothing makes `StoreAway` of it."""
        ...

    def alone(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that makes or changes tables: one at a time, of all processes. It may take its time.

        Raises any of `errors`, and says nothing to the line.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


def to_json(value: Any) -> str:
    """JSON as it is stored."""
    return orjson.dumps(value).decode()


def from_json(stored: str) -> Any:
    """Raises `StoreAway` for what is no JSON."""
    try:
        return orjson.loads(stored)
    except ValueError as error:
        raise StoreAway("database: a stored value makes no sense") from error


def cause(error: BaseException) -> BaseException:
    """What the driver said, without SQLAlchemy's wrapping (which would repeat the statement)."""
    if isinstance(error, StatementError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return error
