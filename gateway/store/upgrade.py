"""Bring a database to the schema of this program, by the files in `migrations`.

Alembic finds the files and puts what they ask for into the SQL of the database. The bookkeeping is ours: `meta` is the
one place that says which version a database has, and it changes in the transaction that changes the tables. On SQLite
and on PostgreSQL both are transactional, so an upgrade that is cut off, by a kill or by a power cut, has not happened.

All steps are one transaction. On PostgreSQL replicas go on meanwhile, and would have to wait for whoever waits for
their locks: so the tables that change are locked first, each within milliseconds or not at all, and an attempt that
fails gives up everything and is made again. What it takes from there is less than a request waits for its answer.
Tables that the same upgrade makes are nobody else's yet.

Only `sallyport db` and a database that is behind bring this module, and Alembic with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, inspect, text, update

from gateway.core.errors import ConfigError
from gateway.store.database import Database, cause
from gateway.store.schema import State, look
from gateway.store.tables import meta

# Its own account of what it does, at level info, is not in our words.
logging.getLogger("alembic").setLevel(logging.WARNING)

FOLDERS = [Path(__file__).parent / "migrations"]
"""Where the files are."""
LOCK = "10ms"
"""For one table, on PostgreSQL."""
ATTEMPTS = 600
PAUSE = 0.05
"""Seconds between two attempts."""

Told = Callable[[str], None]


def steps(schema: int) -> list[ModuleType]:
    """The files that lead from `schema` to the newest there is, in order."""
    files = ScriptDirectory(str(FOLDERS[0]), version_locations=[str(folder) for folder in FOLDERS])
    return [each.module for each in reversed(list(files.walk_revisions())) if int(each.revision) > schema]


async def upgrade(database: Database, told: Told) -> int:
    """Make `database` as new as this program, telling each step; the number of steps it took.

    Raises `ConfigError` for one that cannot be upgraded, which is then as it was.
    """
    for _ in range(ATTEMPTS):
        try:
            async with database.alone() as connection:
                return await connection.run_sync(_upgrade, database.name, told)
        except database.errors as error:
            if getattr(cause(error), "sqlstate", "") != "55P03":  # lock_not_available
                raise _failed(database, error) from error
        await asyncio.sleep(PAUSE)
    raise ConfigError(
        f"{database.name} cannot be upgraded: others keep its tables locked; nothing was changed", "try again later"
    )


def _upgrade(connection: Connection, name: str, told: Told) -> int:
    standing = look(connection)
    standing.check(name)
    if standing.state is not State.BEHIND:
        return 0
    todo = steps(standing.schema)
    _lock(connection, sorted({table for step in todo for table in step.touches}))
    for step in todo:
        told(f"schema {int(step.revision)}: {(step.__doc__ or '').strip().rstrip('.')}")
        with Operations.context(MigrationContext.configure(connection)):
            step.upgrade()
    newest = todo[-1]
    connection.execute(update(meta).where(meta.c.name == "schema").values(number=int(newest.revision)))
    connection.execute(delete(meta).where(meta.c.name == "compatible"))
    connection.execute(insert(meta).values(name="compatible", number=newest.compatible))
    return len(todo)


def _lock(connection: Connection, tables: list[str]) -> None:
    if connection.dialect.name != "postgresql":
        return
    there = set(inspect(connection).get_table_names())
    if tables := [table for table in tables if table in there]:
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK}'"))
        connection.execute(text(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE"))


def _failed(database: Database, error: BaseException) -> ConfigError:
    said = (str(cause(error)) or type(error).__name__).splitlines()[0]
    return ConfigError(
        f"{database.name} cannot be upgraded: {said}; nothing was changed",
        "mend that and try again, or restore a backup",
    )
