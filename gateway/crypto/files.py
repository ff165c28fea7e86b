"""Key files: written so that they are whole or absent, read only when nobody else can read them."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from gateway.core.errors import ConfigError, Problem


def write_private(path: Path, data: bytes) -> None:
    """Write `data` to `path`, mode 0600: to a file beside it, flushed to the disk, then renamed.

    Raises `ConfigError` where the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            os.write(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError([Problem(f"key file cannot be written: {error.strerror}", str(path))]) from error


def read_private(path: Path) -> bytes:
    """What is in `path`. Raises `ConfigError` where it cannot be read, or others can read it.

    As PostgreSQL does with its server key: a file of our own must have mode 0600 or less; one that belongs to root,
    as a mounted secret does, may be readable by its group.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            mounted = status.st_uid == 0 and os.geteuid() != 0
            if stat.S_IMODE(status.st_mode) & (0o027 if mounted else 0o077):
                raise ConfigError([Problem(f"key file {path} can be read by others", suggestion=f"chmod 600 {path}")])
            return os.read(descriptor, 65536)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigError([Problem(f"key file cannot be read: {error.strerror}", str(path))]) from error
