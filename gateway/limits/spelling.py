"""Who is counted, as people write it.

    user:ann                                  one who is known, by name
    address:192.0.2.7    address:2001:db8::/64
    session:5f0c…        route:admin          claim:acme
    header:#9f86d081…                         a header's value may be a key to something: it is never shown
    user:ann + address:192.0.2.7              a limit that counts by both

`counted_by` makes the texts that this reads. Whoever knows a header's value may name it, as `header:VALUE`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Sequence

from gateway.core.identity import DEFAULT_TENANT
from gateway.limits.counted_by import digested, short

KINDS = {"a": "address", "u": "user", "s": "session", "h": "header", "c": "claim", "r": "route"}
LETTERS = {word: letter for letter, word in KINDS.items()}
AND = " + "

Name = Callable[[str, str], str]
"""What somebody is called, by tenant and subject; the subject where nobody knows."""


class Who:
    """Which counters are meant: those that count by each of what was named, alone or together with more.

    `named` holds for each the texts it may stand for. Nothing named: every counter.
    """

    __slots__ = ("named",)

    def __init__(self, named: Sequence[Collection[str]] = ()) -> None:
        self.named = tuple(frozenset(each) for each in named)

    def __bool__(self) -> bool:
        return bool(self.named)

    def __call__(self, text: str) -> bool:
        """Whether the counter `text` is meant."""
        for each in self.named:  # most are not, and a substring tells
            if not any(one in text or one[0] == "h" for one in each):
                return False
        parts = {_canonical(part) for part in parts_of(text)}
        return all(not parts.isdisjoint(each) for each in self.named)

    @property
    def alone(self) -> frozenset[str]:
        """The counters meant of a limit that counts by one thing only; none where they cannot be told by name."""
        if len(self.named) != 1 or all(each.startswith("h#") for each in self.named[0]):
            return frozenset()
        return self.named[0]


EVERYBODY = Who()


def who(text: str, subjects: Collection[str] = ()) -> Who:
    """Who is meant by `text`; `subjects` are those of the user it names. Raises ValueError with a sentence."""
    return Who([_candidates(part.strip(), subjects) for part in text.split(AND.strip())]) if text else EVERYBODY


def without_secrets(text: str) -> str:
    """What names somebody, as it may be kept: values of headers by their digest."""
    parts = [part.strip() for part in text.split(AND.strip())]
    kept = [
        "header:" + digested("h" + part[7:])[1:] if part.startswith("header:") and part[7:8] != "#" else part
        for part in parts
    ]
    return AND.join(kept)


def user_in(text: str) -> str:
    """The name of the user that `text` names; empty where it names none."""
    for part in text.split(AND.strip()):
        kind, _, value = part.strip().partition(":")
        if kind == "user":
            return value
    return ""


def spell(text: str, name: Name = lambda tenant, subject: subject) -> str:
    """`text`, which names a counter, for people."""
    return AND.join(_spell(part, name) for part in parts_of(text))


def people_in(text: str) -> list[tuple[str, str]]:
    """Tenant and subject of everybody that a counter counts."""
    return [_tenant(part[1:]) for part in parts_of(text) if part.startswith("u")]


def parts_of(text: str) -> tuple[str, ...]:
    """What the counter `text` counts by, part for part."""
    parts, rest = [], text
    while "0" <= rest[:1] <= "9":
        length, _, rest = rest.partition(":")
        if not length.isdecimal() or int(length) > len(rest):
            return (text,)
        parts.append(rest[: int(length)])
        rest = rest[int(length) :]
    return (text,) if rest else tuple(parts)


def _spell(part: str, name: Name) -> str:
    kind, value = KINDS.get(part[:1], ""), part[1:]
    if kind == "header":
        value = _canonical(part)[1:]
    elif kind in ("user", "session", "claim") and not value.startswith("#"):
        tenant, value = _tenant(value)
        if kind == "user":
            value = name(tenant, value)
        if tenant != DEFAULT_TENANT:
            value = f"{tenant}/{value}"
    return f"{kind}:{value}" if kind else part


def _candidates(part: str, subjects: Collection[str]) -> list[str]:
    kind, colon, value = part.partition(":")
    letter = LETTERS.get(kind)
    if not colon or letter is None or not value:
        raise ValueError("a key is written user:NAME, address:IP, session:ID, header:VALUE, claim:VALUE or route:RULE")
    if kind == "address":
        return [letter + _network(value)]
    if kind == "header":
        # As it is kept, and as it is shown.
        return [letter + value] if value.startswith("#") else [short(letter + value), digested(letter + value)]
    if kind == "route" or value.startswith("#"):
        return [letter + value]
    found = [f"{letter}{DEFAULT_TENANT}/{each}" for each in (*subjects, value)] if kind == "user" else []
    return [*found, short(f"{letter}{DEFAULT_TENANT}/{value}"), short(letter + value)]


def _network(value: str) -> str:
    """As `Facts.network` is written: IPv4 by itself, IPv6 by its /64."""
    try:
        address = ipaddress.ip_interface(value).ip
    except ValueError:
        return value
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _canonical(part: str) -> str:
    """Headers by their digest."""
    return digested(part) if part.startswith("h") and not part.startswith("h#") else part


def _tenant(value: str) -> tuple[str, str]:
    tenant, slash, rest = value.partition("/")
    return (tenant, rest) if slash else (DEFAULT_TENANT, value)
