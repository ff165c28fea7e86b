"""Something to be told to a person, wherever they are reached."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one person. What it says is in no `repr`, for those end in logs."""

    id: str
    """The same at each try, so that whoever got it twice can see that it is one."""
    kind: str
    """What it is about, as in `password_changed`."""
    to: str = field(repr=False)
    """An e-mail address."""
    subject: str = field(repr=False)
    text: str = field(repr=False)
    html: str = field(repr=False)
    at: float = 0.0
    """When it was written, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """Somebody took a message over and answers for it now."""

    reference: str = ""
    """What they call it; may be empty."""
