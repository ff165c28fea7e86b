"""Which tables a database has, and whether this program can work with them.

`meta` says it: `schema` is the version of the tables, `compatible` the oldest version whose programs can work with
them. Tables only ever grow, by tables and by columns with a default, so a program goes on beside the next version's
tables until they say otherwise. That is what lets replicas be replaced one after the other:

    schema == ours                     good
    schema > ours, compatible <= ours  newer: good as well
    schema > ours, compatible > ours   too new
    schema < ours                      behind: has to be upgraded first
    tables, but no `schema`            another program's
    columns of ours are missing        half of an upgrade, or of a backup

Making, looking and upgrading are each one transaction that only one process has at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, insert, select, text

from gateway.core.errors import ConfigError
from gateway.store.tables import COMPATIBLE, SCHEMA_VERSION, meta, metadata

_COLUMNS = {
    "sqlite": "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c"
    " WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'",
    "postgresql": "SELECT t.relname, c.attname FROM pg_class t JOIN pg_attribute c ON c.attrelid = t.oid"
    " WHERE t.relnamespace = current_schema()::regnamespace AND t.relkind IN ('r', 'p')"
    " AND c.attnum > 0 AND NOT c.attisdropped",
}


class State(StrEnum):
    """Where a database stands, as this program sees it."""

    EMPTY = "empty"
    GOOD = "good"
    NEWER = "newer"
    BEHIND = "behind"
    TOO_NEW = "too new"
    FOREIGN = "another program's"
    HALF = "half migrated"


@dataclass(frozen=True, slots=True)
class Standing:
    """What was found in a database."""

    state: State
    schema: int = 0
    compatible: int = 0
    missing: tuple[str, ...] = ()
    """`table.column` of ours that are not there."""

    def check(self, name: str) -> None:
        """Raises `ConfigError` where this program must leave it alone: `name` is the database's."""
        if self.state is State.FOREIGN:
            raise ConfigError(
                f"{name} belongs to another program", "point store.records elsewhere, or give it a schema of its own"
            )
        if self.state is State.TOO_NEW:
            raise ConfigError(
                f"{name} was made by a newer version of Sallyport"
                f" (its schema is {self.schema}, this version knows up to {SCHEMA_VERSION})",
                "run the newer version, or restore a backup from before the upgrade",
            )
        if self.state is State.HALF:
            raise ConfigError(
                f"{name} is half migrated: {', '.join(self.missing[:3])}{' …' if len(self.missing) > 3 else ''} missing"
                f" from schema {self.schema}",
                "restore a backup",
            )


def look(connection: Connection) -> Standing:
    """What is there; changes nothing."""
    there = _columns(connection)
    if not there:
        return Standing(State.EMPTY)
    found: dict[str, int] = {}
    if {("meta", "name"), ("meta", "number")} <= there:
        wanted = select(meta.c.name, meta.c.number).where(meta.c.name.in_(("schema", "compatible")))
        found = {row.name: row.number for row in connection.execute(wanted)}
    schema = found.get("schema")
    if schema is None:
        return Standing(State.FOREIGN)
    compatible = found.get("compatible", schema)
    if schema < SCHEMA_VERSION:
        return Standing(State.BEHIND, schema, compatible)
    if compatible > SCHEMA_VERSION:
        return Standing(State.TOO_NEW, schema, compatible)
    # Asked after what `meta` says, for somebody may be upgrading: what it promises was there before it said so.
    there = _columns(connection)
    ours = {(table.name, column.name) for table in metadata.tables.values() for column in table.columns}
    missing = tuple(sorted(f"{table}.{column}" for table, column in ours - there))
    if missing:
        return Standing(State.HALF, schema, compatible, missing)
    return Standing(State.GOOD if schema == SCHEMA_VERSION else State.NEWER, schema, compatible)


def _columns(connection: Connection) -> set[tuple[str, str]]:
    return {(table, column) for table, column in connection.execute(text(_COLUMNS[connection.dialect.name]))}


def make(connection: Connection) -> None:
    """Every table, whole, in an empty database."""
    metadata.create_all(connection, checkfirst=False)
    rows = {"schema": SCHEMA_VERSION, "compatible": COMPATIBLE, "revision": 0}
    connection.execute(insert(meta), [{"name": name, "number": number} for name, number in rows.items()])
