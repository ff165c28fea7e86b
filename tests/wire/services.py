"""How services behind a gateway read a target: models, written from their documentation, none of them ours.

Each takes an origin-form target and gives the path it would route by. They exist so that the gateway's own
normalisation can be compared with something that shares no code with it.
"""

from __future__ import annotations

from collections.abc import Callable
from posixpath import normpath
from urllib.parse import unquote


def nginx(target: str) -> str:
    """`$uri`: the query cut, decoded once, slashes merged, dots resolved (ngx_http_parse_complex_uri)."""
    return resolved(unquote(target.partition("?")[0]))


def decode_last(target: str) -> str:
    """Dots resolved first, decoded afterwards (a router on raw paths with a decoding file handler)."""
    return unquote(resolved(target.partition("?")[0]))


def decode_twice(target: str) -> str:
    """A framework behind a web server: each of them decodes, and resolves."""
    return nginx(unquote(nginx(target)))


def starlette(target: str) -> str:
    """ASGI `path`: decoded once, nothing resolved."""
    return unquote(target.partition("?")[0])


def express(target: str) -> str:
    """Express: letter case and a final slash do not matter."""
    return unquote(target.partition("?")[0]).lower().rstrip("/") or "/"


def tomcat(target: str) -> str:
    """Tomcat: `;parameters` cut from every segment, then decoded, then resolved."""
    raw = "/".join(part.partition(";")[0] for part in target.partition("?")[0].split("/"))
    return resolved(unquote(raw))


def windows(target: str) -> str:
    """A Windows file system: backslash is a slash, case and trailing blanks and dots do not matter."""
    path = resolved(unquote(target.partition("?")[0]).replace("\\", "/"))
    return "/".join(part.rstrip(" .") for part in path.lower().split("/")) or "/"


def c_string(target: str) -> str:
    """A handler in C: the path ends at NUL."""
    return nginx(target).partition("\0")[0]


def resolved(path: str) -> str:
    """Slashes merged and dot segments resolved, by Python's own routine."""
    found = normpath("/" + path.lstrip("/"))
    return found + "/" if path.endswith("/") and found != "/" else found


SERVICES: tuple[Callable[[str], str], ...] = (
    nginx,
    decode_last,
    decode_twice,
    starlette,
    express,
    tomcat,
    windows,
    c_string,
)
