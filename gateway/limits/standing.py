"""How one counter stands: what an operator is shown of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

How = Literal["shared", "leased", "local", "away"]


class Standing(NamedTuple):
    """One counter of one limit, as it is now. Nothing is counted for looking at it."""

    rule: str
    limit: str
    key: str
    """Who is counted, as `counted_by` spells it."""
    allowed: bool
    """Whether the next request would be let through."""
    remaining: int
    """How many would be, at once."""
    reset: float
    """Seconds until it is whole again, if nothing more is counted."""
    retry_after: float
    """Seconds until the next would be let through; 0.0 when it would be now."""
    offences: int
    """How often it was run into, as far as that is remembered."""
    wait: float
    """Seconds of `retry_after` that are waited for that reason."""
    how: How = "local"
    """Where it is counted: `shared`, `leased` (what was lent counts as used), `local`, or `away`: here, only because
    the shared store was away."""
    shadow: bool = False
    """Whether it refuses nobody, whatever it says."""
