"""Where a Redis is, and who we are there: one URL, or a URL and what does not belong into one.

    redis://host:6379/0                          one server; rediss:// with TLS; unix:///run/redis.sock
    redis+sentinel://one:26379,two:26379/name    the master that Sentinels call `name`; rediss+sentinel://
    redis+cluster://one:6379,two:6379            a cluster, known from any of its nodes; rediss+cluster://

Nothing here needs the library: settings are read, and refused, without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from gateway.store.line import DEADLINE

Kind = Literal["standalone", "sentinel", "cluster"]

PORT = 6379
SENTINEL_PORT = 26379
PREFIX = "sallyport:"
EXAMPLES = "redis://host:6379, redis+sentinel://host:26379,other:26379/name or redis+cluster://host:6379,other:6379"

_SCHEMES: Mapping[str, tuple[Kind, bool]] = {
    "redis": ("standalone", False),
    "rediss": ("standalone", True),
    "unix": ("standalone", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Where:
    """A Redis. Shows itself without secrets."""

    scheme: str
    addresses: tuple[Address, ...]
    """One server, or the Sentinels, or some nodes of the cluster."""
    master: str = ""
    """What Sentinels call it."""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    ca: Path | None = None
    """PEM: who signs the servers' certificates; None: who the system trusts."""
    certificate: Path | None = None
    """PEM: ours, where the server asks for one."""
    key: Path | None = None
    prefix: str = PREFIX
    """What each of our keys and channels begins with."""
    deadline: float = DEADLINE
    """Seconds that a request waits for it at most."""

    @property
    def kind(self) -> Kind:
        """How it is laid out."""
        return _SCHEMES[self.scheme][0]

    @property
    def tls(self) -> bool:
        """Whether it is spoken to with TLS."""
        return _SCHEMES[self.scheme][1]

    def __str__(self) -> str:
        places = ",".join(map(str, self.addresses))
        master = f"/{self.master}" if self.master else ""
        return f"{self.scheme}://{places}{master}{f'/{self.database}' if self.database else ''}"

    @classmethod
    def parse(cls, url: str) -> Where:
        """What `url` says. Raises ValueError with a sentence that repeats nothing secret."""
        scheme, found, _ = url.partition("://")
        if not found or scheme not in _SCHEMES:
            raise ValueError(f"not the URL of a Redis; write {EXAMPLES}")
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError(f"not a URL; write {EXAMPLES}") from None
        if parts.fragment:
            raise ValueError("a `#` in a URL is written %23")
        login, _, places = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        where = cls(scheme, (), username=unquote(username), password=unquote(password))
        if scheme == "unix":
            return _unix(where, places, unquote(parts.path), parts.query)
        if parts.query:
            raise ValueError("a URL of a Redis has no `?`; passwords that hold one write %3F")
        default = SENTINEL_PORT if where.kind == "sentinel" else PORT
        addresses = tuple(_address(place, default) for place in places.split(","))
        if where.kind == "standalone" and len(addresses) > 1:
            raise ValueError(f"several hosts are {scheme}+sentinel:// or {scheme}+cluster://")
        path = [unquote(part) for part in parts.path.split("/")[1:]]
        if path and not path[-1]:
            path.pop()
        master = ""
        if where.kind == "sentinel":
            if not path:
                raise ValueError(f"the name of the master is missing, as in {scheme}://host:26379/mymaster")
            master = path.pop(0)
        if len(path) > 1:
            raise ValueError("too many `/` in the URL of a Redis")
        database = _database(path[0]) if path else 0
        if database and where.kind == "cluster":
            raise ValueError("a cluster has no databases but 0")
        return replace(where, addresses=addresses, master=master, database=database)


def _unix(where: Where, host: str, path: str, query: str) -> Where:
    asked = dict(parse_qsl(query, keep_blank_values=True))
    if host or not path.startswith("/") or len(path) < 2 or asked.keys() - {"db"}:
        raise ValueError("a Unix socket is written unix:///run/redis.sock, or with a database unix:///run/x.sock?db=1")
    return replace(where, addresses=(Address(path=path),), database=_database(asked.get("db", "0")))


def _address(place: str, default: int) -> Address:
    found = _PLACE.fullmatch(place)
    if found is None or not 0 < int(found[3] or default) < 65536:
        raise ValueError(f"the hosts are not host:port; write {EXAMPLES}")
    return Address(found[1] or found[2], int(found[3] or default))


def _database(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text):
        raise ValueError("the database of a Redis is a number, as in redis://host:6379/1")
    return int(text)
