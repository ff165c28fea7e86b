"""`sallyport db`: the database, its schema, and a copy of it.

An SQLite database that is behind is upgraded by the gateway itself when it starts. On PostgreSQL, where several
replicas of two versions may run, somebody says when: `db upgrade`, before the first replica of the new version starts.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.commands.common import add_config, add_json, as_json

if TYPE_CHECKING:
    from gateway.store.database import Database
    from gateway.store.place import Place


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `db` to the command line."""
    parser = subparsers.add_parser(
        "db",
        help="look at the database, upgrade it, copy it",
        description="The database of users, sessions, factors and events (store.records).",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    looking = actions.add_parser(
        "status",
        help="show which schema it has; exit 1: it is behind this version",
        description="Show which schema the database has, and whether this version can work with it. Changes nothing. "
        "Exit 0: it can. Exit 1: the database is behind; run `sallyport db upgrade`. Exit 2: it cannot be used.",
    )
    add_config(looking)
    add_json(looking)

    upgrading = actions.add_parser(
        "upgrade",
        help="bring it to the schema of this version, while gateways go on",
        description="Bring the database to the schema of this version; an empty one is made. One transaction: what is "
        "cut off has not happened. Gateways of this version and the one before go on meanwhile.",
    )
    add_config(upgrading)

    copying = actions.add_parser(
        "backup",
        help="copy an SQLite database while it is in use",
        description="Write a consistent copy of an SQLite database to FILE, while gateways go on. The key folder "
        "belongs to it: keep a copy of that as well. For PostgreSQL use pg_dump.",
    )
    copying.add_argument("file", type=Path, metavar="FILE", help="where to; it must not exist yet")
    add_config(copying)


def run(args: argparse.Namespace) -> int:
    """Do it; 0, or 1 where the database is behind. Raises `ConfigError`."""
    import asyncio

    from gateway import settings
    from gateway.core.errors import ConfigError

    records = settings.load(args.config, os.environ).store.records
    if records is None:
        raise ConfigError("`store.records` is none: there is no database", "write store: {records: sqlite:path}")
    place = records.place
    match args.action:
        case "status":
            return asyncio.run(_status(place, args.json))
        case "upgrade":
            return asyncio.run(_upgrade(place))
    _backup(place, args.file)
    return 0


async def _status(place: Place, json: bool) -> int:
    from gateway.store.place import SQLITE
    from gateway.store.schema import Standing, State
    from gateway.store.sql import standing
    from gateway.store.tables import SCHEMA_VERSION

    if place.scheme == SQLITE and not place.path.exists():
        name, found = f"database {place}", Standing(State.EMPTY)
    else:
        async with _connected(place) as database:
            name, found = database.name, await standing(database)
    found.check(name)
    if json:
        print(
            as_json(
                {
                    "database": str(place),
                    "state": str(found.state),
                    "schema": found.schema or None,
                    "compatible": found.compatible or None,
                    "needed": SCHEMA_VERSION,
                }
            )
        )
    elif found.state is State.EMPTY:
        print(f"{name} is empty: it is made at the first start, or by `sallyport db upgrade`")
    elif found.state is State.BEHIND:
        print(f"{name} has schema {found.schema}, this version needs {SCHEMA_VERSION}: run `sallyport db upgrade`")
    elif found.state is State.NEWER:
        print(f"{name} has schema {found.schema} of a newer version, which this one can work with")
    else:
        print(f"{name} has schema {found.schema}: good")
    return 1 if found.state is State.BEHIND else 0


async def _upgrade(place: Place) -> int:
    from gateway.store.schema import State
    from gateway.store.sql import prepare, standing
    from gateway.store.tables import SCHEMA_VERSION

    async with _connected(place) as database:
        before = await standing(database)
        await prepare(database, upgrade=lambda step: print(f"  {step}", flush=True))
        if before.state is State.EMPTY:
            print(f"{database.name} was empty and has schema {SCHEMA_VERSION} now")
        elif before.state is State.BEHIND:
            print(f"{database.name} had schema {before.schema} and has {SCHEMA_VERSION} now")
        else:
            print(f"{database.name} has schema {before.schema}: nothing to do")
    return 0


def _backup(place: Place, target: Path) -> None:
    from gateway.core.errors import ConfigError
    from gateway.store.backup import copy
    from gateway.store.place import SQLITE

    if place.scheme != SQLITE:
        raise ConfigError("this copies SQLite databases only", "use pg_dump --format=custom for PostgreSQL")
    size = copy(place.path, target)
    print(f"copied {place} to {target}: {size:,} bytes, checked")
    print("the key folder belongs to it: what is sealed opens with those keys only")


@asynccontextmanager
async def _connected(place: Place) -> AsyncIterator[Database]:
    from gateway.store.sql import connect

    database = await connect(place)
    try:
        yield database
    finally:
        await database.close()
