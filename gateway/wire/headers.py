"""Which headers pass, in which direction.

Services fold names: CGI and WSGI turn `-` into `_`, some turn every other sign into `_`. A name is therefore judged
by its folded form, and whatever folds to one of ours is dropped, however it was spelled. Ours are added afterwards,
so nothing a client lists in `Connection` can remove them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from gateway.core.header_names import HOP_BY_HOP, folded, is_ours


class Pass(IntEnum):
    """What happens to a header on its way to the service."""

    ON = 0
    """Passed on as it is."""
    DROP = 1
    """Hop-by-hop, ours, or pretending to be ours."""
    READ = 2
    """Written anew by us from what was read."""


_READ = frozenset("host content-length cookie expect transfer-encoding connection authorization user-agent".split())

_UNREMOVABLE = frozenset(
    "authorization cookie host content-type content-length content-encoding content-disposition content-range "
    "origin referer range accept accept-encoding accept-language user-agent cache-control date".split()
)
"""End-to-end headers that `Connection` cannot name away."""

_REMEMBERED = 4096
_LONGEST_REMEMBERED = 64
_ways: dict[bytes, Pass] = {}


def way(name: bytes) -> Pass:
    """What to do with a request header called `name`; remembered by spelling."""
    known = _ways.get(name)
    if known is None:
        known = _judge(name)
        if len(name) <= _LONGEST_REMEMBERED:  # what clients make us remember stays small
            if len(_ways) >= _REMEMBERED:
                _ways.clear()
            _ways[name] = known
    return known


def _judge(name: bytes) -> Pass:
    fold = folded(name)
    if fold in _READ:
        # A foldable spelling (`Content_Length`) is none of the header and must not become it later on.
        return Pass.READ if name.lower() == fold.encode("ascii") else Pass.DROP
    if fold in HOP_BY_HOP or is_ours(fold):
        return Pass.DROP
    return Pass.ON


def nominated(values: Iterable[bytes]) -> frozenset[bytes]:
    """Names listed in `Connection` that are to be removed, lower case; end-to-end headers cannot be listed away."""
    names = {token.strip().lower() for value in values for token in value.split(b",")}
    return frozenset(name for name in names if name and name.decode("latin-1") not in _UNREMOVABLE)


def without(names: frozenset[str], block: bytes) -> bytes:
    """Header lines, each ended, without those whose folded name is one of `names`."""
    lines = block.splitlines(keepends=True)
    return b"".join([line for line in lines if folded(line.partition(b":")[0]) not in names])


def is_our_cookie(set_cookie: bytes, ours: frozenset[bytes]) -> bool:
    """Whether a service's `Set-Cookie` value would come back to us as one of our cookies.

    Also without a name: browsers send what `=a=b` has set as `a=b` (RFC 6265bis, section 5.7).
    """
    return set_cookie.lstrip(b"= \t").partition(b"=")[0].strip() in ours
