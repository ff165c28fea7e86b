"""Where a database is, as the configuration says it; nothing here tells its password to anybody.

A URL names the place. What does not belong into one, a password or the files of TLS, may stand beside it.

    sqlite:/var/lib/sallyport/sallyport.db
    postgresql://user:password@db-1.example,db-2.example:5433/sallyport?sslmode=verify-full
    postgresql://user@/sallyport?host=/run/postgresql

Of several hosts the one that takes writes is used. TLS verifies, always: the only modes are `disable` and those that
look at the server's certificate; `require`, which in libpq believes anybody, means `verify-full` here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from gateway.store.line import DEADLINE

SQLITE, POSTGRESQL = "sqlite", "postgresql"
PORT = 5432
MODES = ("disable", "require", "verify-ca", "verify-full")

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.%A-Za-z0-9_-]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Place:
    """A database and what it takes to reach it. As text: without password."""

    url: str = field(repr=False)
    password: str = field(default="", repr=False)
    """Instead of one in the URL."""
    ca: Path | None = None
    """PEM: authorities that may have signed the server's certificate; the system's, where there is none."""
    certificate: Path | None = None
    """PEM: ours, with its `key`, for a server that asks."""
    key: Path | None = None
    deadline: float = DEADLINE
    """Seconds that a request waits for it at most."""

    @property
    def scheme(self) -> str:
        """`sqlite`, `postgresql`, or something else."""
        return self.url.partition(":")[0]

    @property
    def path(self) -> Path:
        """The file of an SQLite database."""
        return Path(self.url.partition(":")[2].removeprefix("//"))

    @property
    def in_clear(self) -> bool:
        """Whether what is said to the database can be heard on a network."""
        return self.scheme == POSTGRESQL and (at := server(self)).mode == "disable" and at.remote

    def __str__(self) -> str:
        if self.scheme == SQLITE:
            return str(self.path)
        try:
            return str(server(self))
        except ValueError:
            return self.scheme


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL database, taken apart."""

    hosts: tuple[tuple[str, int], ...]
    """Names or addresses and ports; a host that begins with a slash is the folder of a Unix socket."""
    database: str
    user: str
    password: str = field(repr=False)
    mode: str
    """One of `MODES`."""

    @property
    def remote(self) -> bool:
        """Whether what is said may be heard on a network."""
        return any(host not in ("localhost", "127.0.0.1", "::1") and host[:1] != "/" for host, _ in self.hosts)

    def __str__(self) -> str:
        return (
            f"{self.database} at {', '.join(host if host[:1] == '/' else _at(host, port) for host, port in self.hosts)}"
        )


def server(place: Place) -> Server:
    """Take a `postgresql://` URL apart. Raises `ValueError`, in words that hold nothing of the URL."""
    scheme, _, rest = place.url.partition("://")
    if scheme != POSTGRESQL or not rest:
        raise ValueError("not a place for records; write postgresql://user:password@host:port/database")
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    login, at, where = authority.rpartition("@")
    if (not at and "@" in path) or "#" in before:
        raise ValueError("the URL cannot be read; write `/`, `#`, `?` and `@` of a password as %2F, %23, %3F, %40")
    user, _, password = login.partition(":")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    if asked.keys() - {"sslmode", "host", "port"}:  # not told: it may be the rest of a password
        raise ValueError(
            "after its `?` the URL may hold sslmode, and host and port of a socket; a `?` of a password is written %3F"
        )
    if not slash or not path or "/" in path:
        raise ValueError("the URL names no database; write postgresql://user:password@host:port/database")
    if not user:
        raise ValueError("the URL names no user; write postgresql://user:password@host:port/database")
    if password and place.password:
        raise ValueError("write the password either into `url` or as `password`")
    secured = place.ca is not None or place.certificate is not None
    mode = asked.get("sslmode", "verify-full" if secured else "disable")
    if mode not in MODES:
        raise ValueError(f"sslmode is one of {', '.join(MODES)}")
    if mode == "disable" and secured:
        raise ValueError("`sslmode=disable` does without `ca` and `certificate`")
    folder = asked.get("host", "")
    port = asked.get("port", str(PORT))
    if not re.fullmatch("[0-9]{1,5}", port) or ("port" in asked and not folder):
        raise ValueError("`port` in the URL is a number, and goes with `host`")
    if bool(folder) == bool(where) or (folder and not folder.startswith("/")):
        raise ValueError("the URL names no host; write user@host:port, or user@/database?host=/folder/of/the/socket")
    return Server(
        hosts=((folder, int(port)),) if folder else tuple(map(_host, where.split(","))),
        database=unquote(path),
        user=unquote(user),
        password=unquote(password) or place.password,
        mode="verify-full" if mode == "require" else mode,
    )


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found[3] or PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError("the URL has a host that cannot be read; write host:port, several with commas")
    return found[1] or found[2], port


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
