"""The counters on the shared store, looked at and taken away: for an operator, not for requests.

Who is looked for by one thing that a limit counts by is found by its name. Everybody else is found by going through
the names of all counters in the slots of the rules asked about (SCAN), a little at a time, which takes some seconds for
a million of them.

What a counter says can only be told with what its limit says. So counters of limits that are not in the policy any
more, or say something else there now, are not shown; nobody counts by them, and they end by themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from gateway.core.rule import LimitSpec
from gateway.limits.leased import terms
from gateway.limits.places import name_of, slot_of
from gateway.limits.shared import spec_of
from gateway.limits.spelling import Who
from gateway.limits.standing import How, Standing

Named = tuple[str, LimitSpec]
"""A rule's name and one of its limits."""
Run = Callable[[Sequence[bytes], Sequence[bytes]], Coroutine[Any, Any, list[int]]]
"""Runs `status.lua`."""
Scan = Callable[[str], AsyncIterator[list[bytes]]]
"""The names of keys like a pattern, some at a time."""
Remove = Callable[[Sequence[bytes]], Coroutine[Any, Any, int]]
"""Takes away keys of one slot; how many were there."""

AT_ONCE = 256
"""Counters of one script."""
NUMBERS = 7
"""What it answers for each."""


class Sought(NamedTuple):
    """A limit, and as the store counts it."""

    rule: str
    limit: LimitSpec
    counted: LimitSpec
    how: How
    """`shared` or `leased`."""
    begins: bytes
    """How the names of its counters begin."""

    def text(self, key: bytes) -> str:
        """Who is counted by the counter `key`."""
        return key[len(self.begins) :].decode("utf-8", "surrogatepass")


Found = tuple[Sought, bytes]
"""A counter that may be there: of which limit, and its name."""


class SharedCounters:
    """Every counter on the shared store."""

    def __init__(self, run: Run, scan: Scan, remove: Remove, *, prefix: str, clustered: bool) -> None:
        self._run = run
        self._scan = scan
        self._remove = remove
        self._prefix = prefix
        self._clustered = clustered

    async def status(self, limits: Sequence[Named], who: Who, most: int) -> list[Standing]:
        """How they stand, of these limits (others than `local` ones) and of `who`, `most` at the most.

        Raises `StoreAway`.
        """
        standings: list[Standing] = []
        seen: set[bytes] = set()
        async for batch in self._find(limits, who):
            new = [(sought, key) for sought, key in batch if key not in seen]
            seen.update(key for _, key in new)
            for at in range(0, len(new), AT_ONCE):
                standings += await self._look(new[at : at + AT_ONCE])
                if len(standings) >= most:
                    return standings[:most]
        return standings

    async def reset(self, limits: Sequence[Named], who: Who) -> int:
        """Take them away; how many there were. Raises `StoreAway`: some may be gone then."""
        gone = 0
        async for batch in self._find(limits, who):
            keys = [key for _, key in batch]
            for at in range(0, len(keys), AT_ONCE):
                gone += await self._remove(keys[at : at + AT_ONCE])
        return gone

    async def _find(self, limits: Sequence[Named], who: Who) -> AsyncIterator[list[Found]]:
        """Counters that may be there, in lists of one slot each where slots are in different places."""
        sought = [self._sought(rule, limit) for rule, limit in limits]
        by_name = [one for one in sought if who.alone and len(one.limit.key) == 1]
        for one in by_name:
            yield [(one, one.begins + text.encode("utf-8", "surrogatepass")) for text in sorted(who.alone)]
        others = [one for one in sought if one not in by_name]
        for pattern, some in self._patterns(others):
            begins = {one.begins: one for one in some}
            async for names in self._scan(pattern):
                found = [(begins[start], name) for name in names if (start := _start(name)) in begins]
                if found := [(one, name) for one, name in found if who(one.text(name))]:
                    yield found

    def _patterns(self, sought: Sequence[Sought]) -> Iterator[tuple[str, Sequence[Sought]]]:
        """What to scan for, and whose counters will be found."""
        if len({one.rule for one in sought}) == 1:
            rule = sought[0].rule
            yield f"{self._prefix}{{l{slot_of(rule)}}}:{rule}/*", sought
        elif self._clustered:
            for slot in sorted({slot_of(one.rule) for one in sought}):
                yield f"{self._prefix}{{l{slot}}}:*", [one for one in sought if slot_of(one.rule) == slot]
        elif sought:
            yield f"{self._prefix}{{l*}}:*", sought

    async def _look(self, batch: Sequence[Found]) -> list[Standing]:
        specs: dict[LimitSpec, int] = {}
        asked = [specs.setdefault(sought.counted, len(specs) + 1) for sought, _ in batch]
        question = {"l": [spec_of(each, each.rate, each.burst) for each in specs], "q": asked}
        numbers = await self._run([key for _, key in batch], (orjson.dumps(question),))
        standings = []
        for at, (sought, key) in enumerate(batch):
            there, allowed, remaining, reset, retry, offences, wait = numbers[at * NUMBERS : (at + 1) * NUMBERS]
            if there:
                standings.append(
                    Standing(
                        sought.rule, sought.limit.name, sought.text(key), bool(allowed), remaining,
                        reset / 1e6, retry / 1e6, offences, wait / 1e6, sought.how, sought.limit.shadow,
                    )
                )  # fmt: skip
        return standings

    def _sought(self, rule: str, limit: LimitSpec) -> Sought:
        agreed = terms(limit) if limit.mode == "leased" else None
        counted = limit if agreed is None else replace(limit, window=agreed.window, burst=agreed.burst)
        how: How = "shared" if agreed is None else "leased"
        return Sought(rule, limit, counted, how, name_of(counted, rule, self._prefix.encode()))


def _start(name: bytes) -> bytes:
    """How the name of a counter begins: with its rule, its limit, and what the limit says."""
    parts = name.split(b"/", 3)
    return name[: len(name) - len(parts[3])] if len(parts) == 4 else b""
