"""What a limit counts by: from `key: [user, route]` in YAML to the text that names one counter.

A part that cannot be told falls back to the nearest thing that can, never to nothing and never to a fresh counter:
`session` → `user` → `address`, and `claim:` → `user`. A header that is absent, empty or comes in two differing
values counts as the caller's `address`, so leaving it out or doubling it buys nothing.

Addresses are the canonical text of `Facts.network` (IPv6 by its /64), never a header a client can write. Every text
begins with a letter for its kind, so that a user called `10.0.0.1` is not a neighbour of that address, and long ones
are replaced by their digest, so that a key costs a bounded amount of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import orjson

from gateway.core.facts import Facts
from gateway.core.identity import Identity

CountedBy = Callable[[Facts, Identity | None], str]
"""Names the counter of one request."""

LONGEST = 128


def counted_by(parts: tuple[str, ...], rule: str) -> CountedBy:
    """How a limit of `rule` with `key: parts` names its counters. Raises ValueError for a part nobody knows."""
    kinds = [_part(part, rule) for part in parts]
    if len(kinds) == 1:
        return kinds[0]

    def combined(facts: Facts, identity: Identity | None) -> str:
        texts = [kind(facts, identity) for kind in kinds]
        # Lengths in front: no two lists of texts read alike.
        return "".join([f"{len(text)}:{text}" for text in texts])

    return combined


def _part(part: str, rule: str) -> CountedBy:
    name, _, argument = part.partition(":")
    if name == "header" and argument:
        return _header(argument.lower().encode("latin-1"))
    if name == "claim" and argument:
        return _claim(argument)
    if part == "route":
        return lambda facts, identity: "r" + rule
    try:
        return {"address": _address, "user": _user, "session": _session}[part]
    except KeyError:
        raise ValueError(f"no limit can be counted by {part!r}") from None


def _address(facts: Facts, identity: Identity | None) -> str:
    return "a" + facts.network


def _user(facts: Facts, identity: Identity | None) -> str:
    return "a" + facts.network if identity is None else f"u{identity.tenant}/{identity.subject}"


def _session(facts: Facts, identity: Identity | None) -> str:
    if identity is None or identity.session is None:
        return _user(facts, identity)
    return f"s{identity.tenant}/{identity.session.id}"


def _claim(name: str) -> CountedBy:
    def claim(facts: Facts, identity: Identity | None) -> str:
        if identity is None or (value := identity.claims.get(name)) is None:
            return _user(facts, identity)
        text = (
            value if isinstance(value, str) else orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS).decode()
        )
        return short(f"c{identity.tenant}/{text}")

    return claim


def _header(name: bytes) -> CountedBy:
    def header(facts: Facts, identity: Identity | None) -> str:
        values = {value.strip() for value in facts.header(name)}
        if len(values) != 1 or not (text := values.pop().decode("latin-1")):
            return _address(facts, identity)
        return short("h" + text)

    return header


def short(text: str) -> str:
    """`text`, or its digest where it is long."""
    return text if len(text) <= LONGEST else digested(text)


def digested(text: str) -> str:
    """The digest of `text`, under the letter of its kind."""
    return text[0] + "#" + blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
