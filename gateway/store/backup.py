"""A copy of an SQLite database that is in use.

`VACUUM INTO` reads one snapshot, as any reader does: nobody waits for it, and it waits for nobody. The copy is one file
without a journal, as small as can be. It is written beside its place, checked, made durable, and only then given its
name: a copy with that name is whole.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from gateway.core.errors import ConfigError


def copy(source: Path, target: Path) -> int:
    """Copy `source` to `target`, which only its owner can read; its size in bytes.

    Raises `ConfigError` where there is nothing to copy, where `target` exists, or cannot be written.
    """
    if not source.exists():
        raise ConfigError(f"database {source} does not exist", "check store.records")
    if target.exists():
        raise ConfigError(f"{target} exists", "name a file that does not")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)) as database:
            database.execute("VACUUM INTO ?", (str(unfinished),))
        with closing(sqlite3.connect(unfinished)) as made:
            said = made.execute("PRAGMA integrity_check").fetchone()[0]
        if said != "ok":
            raise ConfigError(f"the copy of database {source} is damaged: {said}", "the database itself may be")
        _make_durable(unfinished)
        os.link(unfinished, target)  # unlike a rename, never over somebody else's file
        _make_durable(target.parent)
    except (OSError, sqlite3.Error) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(f"database {source} cannot be copied to {target}: {said}", "") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return target.stat().st_size


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
