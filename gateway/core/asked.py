"""What somebody was asked to prove, as a factor sees it that answers one question and no other."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.identity import Level


@dataclass(frozen=True, slots=True)
class Asked:
    """One challenge of one session."""

    session: str
    """Id of the session."""
    ticket: str = field(repr=False)
    level: Level
    """What has to be reached."""
    verified: bool = False
    """Whether the device of a key has to make sure who its user is, also where the level would not need it."""
