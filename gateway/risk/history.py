"""What is remembered of a user: for each kind of thing (`agents`, `networks`, `countries`) the last `MOST` of them.

A user's history is one JSON object, `{kind: {name: [last seen, level, session, …]}}`, where `level` is the assurance
level of the best proof that taught it and `session` the session it came from, empty once two sessions have.

Learning is where an attacker would begin, for a guessed password is a successful proof too:

- A session does not vouch for itself: what only it has taught, with one factor, is still new to it.
- A proof by two factors vouches for where it was given.
- Once a user has shown two factors, one no longer teaches anything (`Risk.learn`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.core.identity import Identity, Level

MOST: Final = 20

Entry = list[Any]
"""`[last seen, level, session, …]`"""


def known(history: Mapping[str, Any], kind: str, identity: Identity) -> dict[str, Entry]:
    """What of `kind` has been seen of this user, leaving out what the session at hand has only told of itself."""
    session = identity.session.id if identity.session is not None else ""
    return {
        name: entry
        for name, entry in history.get(kind, {}).items()
        if entry[1] >= Level.AAL2 or entry[2] != session or not session
    }


def teach(history: dict[str, Any], kind: str, name: str, identity: Identity, now: float, *more: Any) -> None:
    """Remember that `name` was seen with the proof that `identity` has just given."""
    entries: dict[str, Entry] = history.setdefault(kind, {})
    session = identity.session.id if identity.session is not None else ""
    level = int(identity.level)
    if (before := entries.pop(name, None)) is not None:
        level = max(level, before[1])
        session = session if before[2] == session else ""
    while len(entries) >= MOST:
        del entries[min(entries, key=lambda each: entries[each][0])]
    entries[name] = [now, level, session, *more]


def best_level(history: Mapping[str, Any]) -> int:
    """The highest level of proof that has taught anything."""
    return max((entry[1] for kind in history.values() for entry in kind.values()), default=0)
