"""Where a browser's request comes from, as far as it says so (RFC 6454)."""

from __future__ import annotations

from gateway.core.facts import Facts
from gateway.wire import authority
from gateway.wire.authority import BadAuthority


def comes_from_us(facts: Facts, also: frozenset[bytes]) -> bool:
    """Whether the page that asks is of the site it asks or of one of `also`, or no browser's at all."""
    origins = facts.header(b"origin")
    if not origins:
        return True
    if len(origins) == 1 and origins[0].lower() in also:
        return True
    scheme, separator, named = origins[0].partition(b"://")
    if len(origins) > 1 or not separator or scheme.lower() != facts.scheme.encode():
        return False
    try:
        where = authority.parse(named, facts.scheme)
    except BadAuthority:
        return False
    return (where.host, where.port) == (facts.host, facts.port)
