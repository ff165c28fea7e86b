"""Where the counters of a rule's limits are on the shared store, and what they are called.

    sallyport:{l7}:admin/per-user/3f2a9c01/u…      prefix, slot, rule, limit, what the limit says, who is counted

All limits of a rule share a hash tag, so that one script can count a request by all of them or none.
"""

from __future__ import annotations

from hashlib import blake2b

from gateway.core.rule import LimitSpec
from gateway.limits.counted_by import CountedBy, counted_by

SLOTS = 16


class Place:
    """A rule's list of limits, prepared."""

    __slots__ = ("held", "limits", "slot")

    def __init__(self, held: tuple[LimitSpec, ...], slot: int, limits: tuple[tuple[LimitSpec, bytes, CountedBy], ...]):
        self.held = held  # so that its id is not given to another while it is a key
        self.slot = slot
        """What is asked together: limits of one slot on a cluster, else all."""
        self.limits = limits
        """Each with how its counters' names begin, and how they end."""


def place_of(limits: tuple[LimitSpec, ...], rule: str, prefix: bytes, clustered: bool) -> Place:
    """Prepare `limits` of `rule`. Raises ValueError for a limit that the policy should never have let through."""
    slot = slot_of(rule)
    named = [(limit, name_of(limit, rule, prefix), counted_by(limit.key, rule)) for limit in limits]
    return Place(limits, slot if clustered else 0, tuple(named))


def slot_of(rule: str) -> int:
    """The slot of a rule's counters."""
    return blake2b(rule.encode(), digest_size=1).digest()[0] % SLOTS


def name_of(limit: LimitSpec, rule: str, prefix: bytes) -> bytes:
    """How the names of a limit's counters begin; changes with what the limit says."""
    said = repr((limit.key, limit.algorithm, limit.rate, limit.window, limit.burst))
    edition = blake2b(said.encode(), digest_size=4).hexdigest()
    return prefix + f"{{l{slot_of(rule)}}}:{rule}/{limit.name}/{edition}/".encode()
