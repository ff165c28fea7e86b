"""What a rule can ask of a request or of its caller, each criterion one small function made once.

A criterion about the request answers True, False, or None where the request contradicts itself: a header or a
parameter that came several times and fits only sometimes. Which of the values the service will believe is not ours
to guess, so such a request finds no rule at all.
"""

from __future__ import annotations

import ipaddress
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from gateway.core.facts import Facts
from gateway.core.identity import Identity

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Claims = Mapping[str, tuple[Any, ...]]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Condition:
    """A criterion about the request beyond host, path and method."""

    text: str
    """As in YAML, for `explain`."""
    test: Callable[[Facts, float], bool | None]
    """Whether a request at this time (seconds since the epoch) meets it; None: it contradicts itself."""


@dataclass(frozen=True, slots=True)
class CallerCondition:
    """A criterion about the caller."""

    text: str
    test: Callable[[Facts, Identity | None], bool]


def header(name: str, wanted: tuple[str, ...]) -> Condition:
    """Header `name` was sent, and every value of it is one of `wanted` (`*`: any).

    Sent as `X_Name` for `X-Name` it contradicts itself: some services take the one for the other, some do not.
    """
    field = name.lower().encode("ascii")
    values = frozenset(value.encode("latin-1") for value in wanted)
    everything = b"*" in values

    def test(facts: Facts, now: float) -> bool | None:
        sent = facts.header(field)
        if len(sent) != len([key for key, _ in facts.headers if key.lower() == field]):
            return None
        return _every(sent if everything else [value.strip(b" \t") in values for value in sent], everything)

    return Condition(f"headers.{name.lower()}: {_listed(wanted)}", test)


def query(name: str, wanted: tuple[str, ...]) -> Condition:
    """Query parameter `name` was sent, and every value of it is one of `wanted` (`*`: any)."""
    values = frozenset(wanted)
    everything = "*" in values

    def test(facts: Facts, now: float) -> bool | None:
        if not facts.query:
            return False
        sent = [value for key, value in parse_qsl(facts.query, keep_blank_values=True) if key == name]
        return _every(sent if everything else [value in values for value in sent], everything)

    return Condition(f"query.{name}: {_listed(wanted)}", test)


def _every(fits: list[Any], everything: bool) -> bool | None:
    if not fits:
        return False
    if everything or all(fits):
        return True
    return None if any(fits) else False


def networks(wanted: Iterable[Network]) -> Condition:
    """The client's address lies in one of these networks; `unknown` lies in none."""
    nets = tuple(wanted)

    def test(facts: Facts, now: float) -> bool:
        address = _address(facts.address)
        return address is not None and any(address in net for net in nets)

    return Condition(f"networks: {_listed(map(str, nets))}", test)


@lru_cache(maxsize=4096)
def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def times(days: tuple[str, ...], start: str, end: str, timezone: str) -> Condition:
    """The part of the week from `start` to `end` on `days`; past midnight where `end` is the earlier one.

    Raises ValueError for a time zone nobody knows.
    """
    try:
        zone = zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"`{timezone}` is not a time zone") from None
    on = frozenset(DAYS.index(day) for day in days)
    first, last = _minute(start), _minute(end)

    def within(moment: datetime) -> bool:
        minute = moment.hour * 60 + moment.minute
        if first < last:
            return moment.weekday() in on and first <= minute < last
        yesterday = (moment - timedelta(days=1)).weekday()
        return (moment.weekday() in on and minute >= first) or (yesterday in on and minute < last)

    remembered = (-1, False)

    def test(facts: Facts, now: float) -> bool:
        nonlocal remembered
        this = int(now // 60)
        if remembered[0] != this:
            remembered = (this, within(datetime.fromtimestamp(now, zone)))
        return remembered[1]

    return Condition(f"time: {_listed(days)} {start}-{end} {timezone}", test)


def _minute(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def users(wanted: tuple[str, ...]) -> CallerCondition:
    """The caller is one of these users."""
    names = frozenset(wanted)
    return CallerCondition(f"users: {_listed(wanted)}", lambda facts, who: who is not None and who.user in names)


def groups(wanted: tuple[str, ...]) -> CallerCondition:
    """The caller is in one of these groups."""
    names = frozenset(wanted)
    return CallerCondition(
        f"groups: {_listed(wanted)}", lambda facts, who: who is not None and not names.isdisjoint(who.groups)
    )


def claims(wanted: Claims) -> CallerCondition:
    """Every claim named has one of the values named."""
    text = ", ".join(f"{name}: {_listed(map(str, values))}" for name, values in wanted.items())
    return CallerCondition(f"claims: {text}", lambda facts, who: who is not None and claims_fit(wanted, who))


def claims_fit(wanted: Claims, identity: Identity) -> bool:
    """Whether each claim named has one of its values; a claim that is a list needs one of them in it."""
    return all(_fits(identity.claims.get(name), values) for name, values in wanted.items())


def _fits(claim: Any, values: tuple[Any, ...]) -> bool:
    if isinstance(claim, list | tuple | set | frozenset):
        return any(_fits(part, values) for part in claim if not isinstance(part, list | tuple | set | frozenset))
    # In Python True == 1; a claim `admin: 1` is not `admin: true`.
    return any(type(claim) is type(value) and claim == value for value in values)


def levels(wanted: tuple[str, ...]) -> CallerCondition:
    """The caller's session stands at one of these levels."""
    names = frozenset(wanted)
    return CallerCondition(f"levels: {_listed(wanted)}", lambda facts, who: who is not None and who.level.acr in names)


def _listed(words: Iterable[str]) -> str:
    return "[" + ", ".join(words) + "]"
