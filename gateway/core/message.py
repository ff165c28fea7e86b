"""Something to be told to a person, wherever they are reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one person. What it says is in no `repr`, for those end in logs."""

    id: str
    """The same at each try, so that whoever got it twice can see that it is one."""
    kind: str
    """What it is about, as in `password_changed`."""
    to: str = field(repr=False)
    """An e-mail address, or a phone number (E.164)."""
    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)
    at: float = 0.0
    """When it was written, in seconds since the epoch."""
    useful: float = 0.0
    """Seconds from now on after which it is of no use any more; 0.0: it always is."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Somebody took a message over and answers for it now."""

    reference: str = ""
    """What they call it, and will call it when they tell what became of it; may be empty."""


Outcome = Literal["delivered", "undelivered", "bounced", "complained"]
"""`bounced`: the address takes nothing, now and later. `complained`: its owner calls it unwanted."""


@dataclass(frozen=True, slots=True)
class Report:
    """What whoever took a message over tells of it later."""

    reference: str
    """What they call the message, as in `Receipt`."""
    outcome: Outcome
    key: str
    """The same each time this is told, and for nothing else."""
