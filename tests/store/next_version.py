"""The next version of Sallyport, for the tests: this one, with one more migration. `python next_version.py COMMAND …`.

Its schema is one higher, and has a column more. `DIE` in the environment kills it in the middle of the upgrade;
`NARROW` says that programs of this version cannot work with its tables.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sqlalchemy import Column, Integer, text

from gateway import cli
from gateway.commands import db  # noqa: F401 - imports what is changed below by name, when it runs
from gateway.store import schema, sql, tables, upgrade

NEXT = tables.SCHEMA_VERSION + 1


def become() -> None:
    """From here on, this process is the next version."""
    compatible = NEXT if os.environ.get("NARROW") else tables.SCHEMA_VERSION
    for module in (tables, schema, sql):
        module.SCHEMA_VERSION = NEXT  # type: ignore[attr-defined]
    for module in (tables, schema):
        module.COMPATIBLE = compatible  # type: ignore[attr-defined]
    tables.users.append_column(Column("badges", Integer, nullable=False, server_default=text("0")))
    upgrade.FOLDERS.append(Path(__file__).parent / "next_version")


if __name__ == "__main__":
    become()
    sys.exit(cli.main())
