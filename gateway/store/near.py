"""A dict that stays small.

It forgets the oldest eighth at once instead of keeping an order of use: reading is then a plain `dict.get`, which is
what the request path pays for.
"""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Near(dict[K, V]):
    """At most `capacity` entries; read it like any dict, write it with `keep`."""

    __slots__ = ("capacity",)

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def keep(self, key: K, value: V) -> list[V]:
        """Remember `value`; returns the values that had to go to make room, oldest first."""
        gone: list[V] = []
        if len(self) >= self.capacity and key not in self:
            gone = [self.pop(old) for old in list(islice(self, self.capacity // 8 + 1))]
        self[key] = value
        return gone
