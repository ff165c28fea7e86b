"""A person, and what they may be called.

However a name is typed (`core.user_names`) it is one name: one account, one set of counters, one subject in the audit
trail. What is left must be letters, digits and a few signs. `@` is a sign like any other: `bob@realm` is somebody else.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from gateway.core.errors import UserError
from gateway.core.identity import NEVER
from gateway.core.user_names import folded
from gateway.core.words import say

MAX_NAME = 64
MAX_TEXT = 256

_SIGNS = frozenset("._-@+'")
_GROUP = re.compile(r"[^\s,;\"\\\x00-\x1f\x7f]{1,64}")
_EMAIL = re.compile(r"[^\s@,;<>\"\\\x00-\x1f\x7f]{1,64}@[^\s@,;<>\"\\\x00-\x1f\x7f]{1,190}")


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with an account here."""

    tenant: str
    subject: str
    """Stable and never given to anybody else."""
    name: str
    """Canonical."""
    email: str
    display_name: str
    groups: frozenset[str]
    disabled: bool
    created_at: float
    required_from: float = NEVER
    """From when on they must have a second factor, by an administrator's word; `NEVER`: nobody said so."""
    language: str = ""
    """What they are written to in; empty: not known yet."""
    email_confirmed_at: float = 0.0
    """When it was confirmed that they read what is sent to `email`; 0.0: it was not."""
    generation: int = 0
    """`users.generation` when this was read: whatever ends everything of theirs raises it."""


def canonical(name: str) -> str:
    """The one spelling of a user name; `canonical(canonical(x)) == canonical(x)`.

    Raises `UserError` ERR-USER-NAME for what cannot be one: empty, longer than 64, with spaces or control characters.
    """
    spelled = folded(name) if len(name) <= MAX_TEXT else ""
    if not spelled or len(spelled) > MAX_NAME or not spelled[0].isalnum() or not all(map(_may_be_in_name, spelled)):
        raise UserError("ERR-USER-NAME", say("A user name is 1 to 64 letters, digits and . _ - @ + ' without spaces."))
    return spelled


def canonical_email(text: str) -> str:
    """The one spelling of an e-mail address: what is before the `@` belongs to its host, which has no case.

    Raises `UserError` ERR-EMAIL-INVALID.
    """
    text = text.strip()
    if not _EMAIL.fullmatch(text) or not text.isprintable():
        raise UserError("ERR-EMAIL-INVALID", say("That is not an e-mail address."))
    local, _, host = text.partition("@")
    return f"{local}@{host.lower()}"


def check_details(email: str, display_name: str, groups: frozenset[str]) -> None:
    """Raise `UserError` for details that could not travel in a header or a comma-separated list."""
    if email and not _EMAIL.fullmatch(email):
        raise UserError("ERR-USER-EMAIL", say("That is not an e-mail address."))
    if len(display_name) > MAX_TEXT or not display_name.isprintable():
        raise UserError("ERR-USER-DISPLAY-NAME", say("A display name is at most 256 printable characters."))
    for group in groups:
        if not _GROUP.fullmatch(group):
            raise UserError("ERR-USER-GROUP", say("A group is 1 to 64 characters without spaces, commas and quotes."))


def _may_be_in_name(character: str) -> bool:
    return character in _SIGNS or unicodedata.category(character)[0] in "LMN"
