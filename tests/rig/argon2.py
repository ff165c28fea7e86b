"""What argon2 costs the tests: the least there is, but where a password is looked at as it is made for people.

A hash of other parameters than today's is replaced at the next sign-in. So whatever gateways with processes of their
own are to find is made `as_shipped`, or they would begin with that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gateway.identity import passwords

_SHIPPED = passwords.MEMORY_KIB, passwords.PASSES
_LEAST = 8, 1


def cheap() -> None:
    """From here on, in this process."""
    _cost(*_LEAST)


@contextmanager
def as_shipped() -> Iterator[None]:
    """Passwords cost what they cost people."""
    before = passwords.MEMORY_KIB, passwords.PASSES
    _cost(*_SHIPPED)
    try:
        yield
    finally:
        _cost(*before)


def _cost(memory: int, passes: int) -> None:
    passwords.MEMORY_KIB, passwords.PASSES, passwords._made = memory, passes, None
