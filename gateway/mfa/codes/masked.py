"""Addresses as their owners recognise them, and nobody else can use them.

How long the hidden part is cannot be seen. Country codes are those of ITU-T E.164 (one digit, two, or three): no
library is needed to tell where one ends.
"""

from __future__ import annotations

from typing import Final

HIDDEN: Final = "*** **"
_ONE: Final = frozenset("17")
_TWO: Final = frozenset(
    "20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86 "
    "90 91 92 93 94 95 98".split()
)


def masked_number(number: str) -> str:
    """`+905321234512` → `+90 *** ** 12`; an E.164 number with its plus."""
    digits = number.removeprefix("+")
    size = 1 if digits[:1] in _ONE else 2 if digits[:2] in _TWO else 3
    return f"+{digits[:size]} {HIDDEN} {digits[size:][-2:]}"


def masked_email(address: str) -> str:
    """`ann@example.org` → `a***@example.org`."""
    local, _, host = address.rpartition("@")
    return f"{local[:1]}***@{host}"
