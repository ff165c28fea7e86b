"""Sending a request once more: which, after what, and how many of all.

A request is sent again only while nobody can have noticed the first time: its method is idempotent (RFC 9110, section
9.2.2), all of it is still at hand, and not a byte of an answer has gone to the client. Whatever the method, one whose
connection could not even be made goes to the next endpoint. Retries are paid from a budget, for a service in trouble
is not helped by twice the requests (sre.google/sre-book/addressing-cascading-failures).
"""

from __future__ import annotations

from dataclasses import dataclass

IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PROPFIND", "REPORT", "SEARCH", "QUERY"))
"""Methods whose second sending changes nothing more than the first did."""

CONNECT, RESET = "connect", "reset"
UNWELL = frozenset((502, 503, 504))
"""Answers by which a service says that it is not itself to be blamed, or not able to."""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, and after what, a request is sent again."""

    attempts: int = 2
    """Tries in all, the first one included."""
    budget: float = 0.2
    """Retries for each request, over time."""
    on: frozenset[str] = frozenset((CONNECT, RESET))
    """`connect`, `reset`, `502`, `503`, `504`."""


class Budget:
    """Retries that may still be made."""

    RESERVE = 10.0
    """As many are granted at once; so the first failure of a service nobody has asked before is no special case."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = self.RESERVE

    def earn(self) -> None:
        """A request was sent."""
        if self._left < self.RESERVE:
            self._left += self._share

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
