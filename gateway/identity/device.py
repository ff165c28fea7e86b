"""A cookie that says: somebody signed in as this user from this browser before.

It proves nothing and opens nothing. It only gives its owner a sign-in counter of their own, so that a stranger who
guesses at their account cannot keep them out. It names nobody: without the key it cannot be told whose it is.
"""

from __future__ import annotations

import re

from gateway.core.clock import Clock
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.crypto.mac import Mac
from gateway.identity.strip import name_of
from gateway.store.near import Near

LIFETIME = 365 * 86400
"""Seconds a browser is remembered from its last sign-in on; the cookie's `Max-Age`."""

REMEMBERED = 4096
"""Cookie headers whose device is remembered."""

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


class KnownBrowser:
    """Whether a request comes from a browser that its user has signed in with before."""

    def __init__(self, device: DeviceCookie, cookie: str) -> None:
        """`cookie` is the name of the cookie."""
        self._device = device
        self._cookie = cookie.encode()
        self._known: Near[tuple[bytes, str], bool] = Near(REMEMBERED)

    def __call__(self, facts: Facts, identity: Identity | None) -> bool:
        """Nobody's browser is known; two cookies of the name are none."""
        if identity is None or self._cookie not in facts.cookie:
            return False
        asked = facts.cookie, identity.user
        known = self._known.get(asked)
        if known is None:
            values = [
                pair.partition(b"=")[2].strip() for pair in facts.cookie.split(b";") if name_of(pair) == self._cookie
            ]
            known = len(values) == 1 and self._device.is_known(values[0].decode("latin-1"), identity.user)
            self._known.keep(asked, known)
        return known
