"""A link that does the same as the code it comes with, for who reads the letter in the browser that asked.

    <public_url>/.sallyport/verify/link?token=<ticket of the challenge>.<secret of its own>

It proves what the code proves and nothing beside: it is an answer to that one challenge, given in that one session. In
any other browser it is worth nothing, for there a click would prove that somebody reads the mail, and let in whoever is
signing in elsewhere: the very one who has phished the password and waits. So it has both names, and the ticket leads
nowhere without the session's secret (`mfa.stepup`).

The secret is not the code in disguise: 256 bits, kept as a MAC beside the code's, in the same row. Whichever of the two
is used claims that row, and a newer code is written over it; so they end together, and of both at once one counts.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.crypto.tokens import new_token

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_TOKEN: Final = re.compile(r"([0-9]{1,2}-[A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})", re.ASCII)


def draw() -> str:
    """A new secret: 256 random bits."""
    return new_token()


def is_secret(answer: str) -> bool:
    """Whether `answer` has the shape of a secret; nothing that is a code has."""
    return _SECRET.fullmatch(answer) is not None


def joined(ticket: str, secret: str) -> str:
    """The token of a link."""
    return f"{ticket}.{secret}"


def parted(token: str) -> tuple[str, str]:
    """Ticket and secret of a link's `token`; both empty where it is none."""
    found = _TOKEN.fullmatch(token)
    return (found[1], found[2]) if found is not None else ("", "")
