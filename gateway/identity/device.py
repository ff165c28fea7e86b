"""A cookie that says: somebody signed in as this user from this browser before.

It proves nothing and opens nothing. It only gives its owner a sign-in counter of their own, so that a stranger who
guesses at their account cannot keep them out. It names nobody: without the key it cannot be told whose it is.
"""

from __future__ import annotations

import re

from gateway.core.clock import Clock
from gateway.crypto.mac import Mac

LIFETIME = 365 * 86400
"""Seconds a browser is remembered from its last sign-in on; the cookie's `Max-Age`."""

_SHAPE = re.compile(r"([0-9]{1,12})\.((?:[0-9a-f]{16}\.)?[A-Za-z0-9_-]{43})")


class DeviceCookie:
    """Makes and recognises the cookie's value."""

    def __init__(self, mac: Mac, clock: Clock) -> None:
        self._mac = mac
        self._clock = clock

    def make(self, subject: str) -> str:
        """A value for a browser in which `subject` has just signed in."""
        expires = str(int(self._clock.now()) + LIFETIME)
        return f"{expires}.{self._mac.token('device', subject, expires)}"

    def is_known(self, value: str, subject: str) -> bool:
        """Whether `value` was made for `subject` within the last year. Damaged values are simply not known."""
        shape = _SHAPE.fullmatch(value)
        if not shape or not subject:
            return False
        return self._mac.verify(shape[2], "device", subject, shape[1]) and int(shape[1]) > self._clock.now()
