"""Every rule, ready to be asked.

Rules stand in an index by host and, under each host, by the literal segments their paths begin with. A request looks
up its own host, the domains above it and "any host", and there its path's own beginnings; the few rules found are
merged back into the order they were written in. Rules that share a beginning and go on with a wildcard are told apart
by a literal segment that has to follow somewhere. So the time a request takes does not grow with the number of rules.

What host, method and path alone decide is remembered, for a bounded number of requests and never for long ones, so
that nobody can fill the memory with paths of their own making.

**Readings.** A service may take `/Admin/x.json` for `/admin/x`. A reading can only add demands: what it is judged by
are the rules whose *paths* it meets (letter case aside), before those of the literal path; a rule that names no path
says nothing about a reading. A reading with another *method* is a different request, and has to be allowed as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import chain
from operator import attrgetter

from gateway.core.clock import Clock
from gateway.core.errors import Problem
from gateway.core.facts import Facts
from gateway.core.rule import Rule
from gateway.policy.criteria import CallerCondition, Condition
from gateway.policy.glob import Glob, segments

REMEMBERED = 4096
"""Requests whose candidates are remembered."""
LONGEST_REMEMBERED = 256
"""Characters of host, method and path together; longer ones are looked up anew."""

_EVERYTHING = Glob("/**")
_ORDER = attrgetter("order")


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A rule and what a request must be to meet it."""

    rule: Rule
    order: int
    hosts: tuple[str, ...] = ()
    """Canonical; `.example.com` stands for every host below it; empty: any host."""
    globs: tuple[Glob, ...] = ()
    """Empty: any path."""
    methods: frozenset[str] | None = None
    conditions: tuple[Condition, ...] = ()
    caller: tuple[CallerCondition, ...] = ()
    access: str = ""
    """Who may enter, in words, for `explain`."""
    administrators: bool = False
    """Whether its demand was raised because only administrators can enter."""

    @property
    def decisive(self) -> bool:
        """Whether a request that meets it need not look further."""
        return self.rule.applies is None and not self.rule.shadow

    @property
    def names_path(self) -> bool:
        """Whether it is about particular paths."""
        return bool(self.globs) and not any(glob.everything for glob in self.globs)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where an entry stands in the index: under one of its paths."""

    order: int
    entry: Entry
    glob: Glob


class _Shelf:
    """Places that share a literal beginning, each list in rule order."""

    __slots__ = ("behind", "open")

    def __init__(self, places: Sequence[_Place]) -> None:
        common = Counter(chain.from_iterable(set(place.glob.literals) for place in places))
        self.open: list[_Place] = []
        """Those with nothing literal to follow."""
        self.behind: dict[str, list[_Place]] = {}
        """By a literal segment that has to follow: of each the one that the fewest others have, too."""
        for place in places:
            rarest = min(place.glob.literals, key=common.__getitem__, default=None)
            (self.open if rarest is None else self.behind.setdefault(rarest, [])).append(place)

    def find(self, parts: Sequence[str]) -> Iterator[list[_Place]]:
        """The lists in which a path of these segments may have its place."""
        if self.open:
            yield self.open
        if self.behind:
            yield from map(self.behind.__getitem__, self.behind.keys() & set(parts))


class _Index:
    """Host → literal beginning of the path → places."""

    def __init__(self, entries: Sequence[Entry], fold: bool = False) -> None:
        hosts: dict[str, dict[tuple[str, ...], list[_Place]]] = {}
        self._deepest = 0
        for entry in entries:
            for glob in entry.globs or (_EVERYTHING,):
                folded = glob.lower() if fold else glob
                self._deepest = max(self._deepest, len(folded.head))
                for host in entry.hosts or ("",):
                    under = hosts.setdefault(host, {})
                    under.setdefault(folded.head, []).append(_Place(entry.order, entry, folded))
        self._hosts = {host: {head: _Shelf(places) for head, places in under.items()} for host, under in hosts.items()}

    def meet(self, host: str, method: str, path: str) -> Iterator[Entry]:
        """Entries whose host, method and path fit, in rule order, each once."""
        parts = segments(path)
        if "." in parts or ".." in parts:
            return  # not canonical: whatever this is, no rule speaks about it
        heads = [tuple(parts[:depth]) for depth in range(min(len(parts), self._deepest) + 1)]
        shelves = [shelf for under in self._under(host) for head in heads if (shelf := under.get(head)) is not None]
        found = [places for shelf in shelves for places in shelf.find(parts)]
        last = None
        for place in found[0] if len(found) == 1 else merge(*found, key=_ORDER):
            entry = place.entry
            if entry is last or (entry.methods is not None and method not in entry.methods):
                continue
            if place.glob.match_rest(parts):
                last = entry
                yield entry

    def _under(self, host: str) -> Iterator[dict[tuple[str, ...], _Shelf]]:
        known = self._hosts
        if host and host[0] != "." and (under := known.get(host)) is not None:
            yield under
        at = host.find(".", 1)
        while at >= 0:
            if (under := known.get(host[at:])) is not None:
                yield under
            at = host.find(".", at + 1)
        if (under := known.get("")) is not None:
            yield under


class _Conditional:
    """Candidates of which some depend on more than host, method and path."""

    __slots__ = ("_entries",)

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self._entries = entries

    def find(self, facts: Facts, now: float) -> tuple[Rule, ...] | None:
        """The candidates; None where the request contradicts itself."""
        found = []
        for entry in self._entries:
            for condition in entry.conditions:
                met = condition.test(facts, now)
                if met is None:
                    return None
                if not met:
                    break
            else:
                found.append(entry.rule)
                if entry.decisive:
                    break
        return tuple(found)


_Known = tuple[Rule, ...] | _Conditional


class Book:
    """One load of the policy. Never changed; a new load makes a new one."""

    def __init__(
        self, entries: Sequence[Entry], *, digest: str, clock: Clock, warnings: tuple[Problem, ...] = ()
    ) -> None:
        self.entries = tuple(entries)
        self.rules = tuple(entry.rule for entry in entries)
        """In the order they were written."""
        self.digest = digest
        """Hash of the files it was made of."""
        self.warnings = warnings
        """What is allowed, but hardly meant."""
        self._clock = clock
        self._index = _Index(entries)
        self._folded = _Index(entries, fold=True)
        self._capitals = any(glob.text != glob.text.lower() for entry in entries for glob in entry.globs)
        self._remembered: dict[tuple[str, str, str], _Known] = {}
        self._remembered_readings: dict[tuple[str, str, str, bool], _Known] = {}

    def find(self, facts: Facts, now: float | None = None) -> tuple[Rule, ...]:
        """The rules that could decide this request, in order, up to the first that does whoever asks.

        Empty: no rule is about it, or it contradicts itself. `now` is for rules that name a time; left out: now.
        """
        key = (facts.host, facts.method, facts.path)
        known = self._remembered.get(key)
        if known is None:
            known = self._meet(key)
        if known.__class__ is tuple:
            return known
        return known.find(facts, self._clock.now() if now is None else now) or ()  # type: ignore[union-attr]

    def find_reading(self, facts: Facts, method: str, path: str, now: float | None = None) -> tuple[Rule, ...]:
        """The rules this request is judged by when a service reads it as `method` and `path`."""
        key = (facts.host, method, path, method == facts.method)
        known = self._remembered_readings.get(key)
        if known is None:
            known = self._meet_reading(key)
        if known.__class__ is tuple:
            # An empty tuple: no rule names this path, which for another method means that nothing allows it.
            return known or (self.find(facts, now) if key[3] else ())
        now = self._clock.now() if now is None else now
        found = known.find(facts, now)  # type: ignore[union-attr]
        if found is None or not key[3]:
            return found or ()
        if found and found[-1].applies is None and not found[-1].shadow:
            return found
        return (*found, *self.find(facts, now))

    def readings(self, facts: Facts) -> tuple[tuple[str, str], ...]:
        """`facts.readings`, and the path in lower case where rules are written in capitals."""
        if self._capitals:
            return (*facts.readings, (facts.method, facts.path.lower()))
        return facts.readings

    def _meet(self, key: tuple[str, str, str]) -> _Known:
        entries = _until_decisive(self._index.meet(*key))
        known = _Conditional(entries) if any(entry.conditions for entry in entries) else _rules(entries)
        if len(key[0]) + len(key[1]) + len(key[2]) <= LONGEST_REMEMBERED:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = known
        return known

    def _meet_reading(self, key: tuple[str, str, str, bool]) -> _Known:
        host, method, path, same_method = key
        met = self._folded.meet(host, method, path.lower())
        entries = _until_decisive(entry for entry in met if entry.names_path or not same_method)
        settled = not entries or (entries[-1].decisive and not any(entry.conditions for entry in entries))
        known = _rules(entries) if settled else _Conditional(entries)
        if len(host) + len(method) + len(path) <= LONGEST_REMEMBERED:
            if len(self._remembered_readings) >= REMEMBERED:
                self._remembered_readings.clear()
            self._remembered_readings[key] = known
        return known


def _rules(entries: tuple[Entry, ...]) -> tuple[Rule, ...]:
    return tuple(entry.rule for entry in entries)


def _until_decisive(entries: Iterator[Entry]) -> tuple[Entry, ...]:
    """`entries` up to the first that decides whatever else the request and its caller are."""
    found = []
    for entry in entries:
        found.append(entry)
        if entry.decisive and not entry.conditions:
            break
    return tuple(found)
