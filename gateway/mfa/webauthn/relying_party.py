"""Who we are to a key, and which keys we take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.core.asked import Asked
from gateway.core.identity import Level
from gateway.mfa.webauthn.key import Key

ALGORITHMS = (-7, -8, -257)
"""COSE algorithms that are offered, the preferred first: ES256, EdDSA (Ed25519), RS256."""


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """The operator's words, as the ceremonies read them."""

    name: str
    """Shown by the browser."""
    origin: str
    """The one origin whose pages may ask, as browsers write it."""
    user_verification: str = "preferred"
    """`required`, `preferred` or `discouraged`: whether the device has to know its user."""
    backup_eligible: bool = True
    """Whether keys are taken that can be copied to other devices."""
    aaguids: frozenset[str] | None = None
    """Models that are taken, where they show who made them; None: any, without asking."""
    roots: Sequence[bytes] = ()
    """PEM certificates of the makers, one each."""

    @property
    def id(self) -> str:
        """The RP ID: a host, without scheme and port."""
        return urlsplit(self.origin).hostname or ""

    def takes(self, key: Key) -> bool:
        """Whether `key` counts under what the operator says today, whenever it was set up."""
        if key.backup_eligible and not self.backup_eligible:
            return False
        return self.aaguids is None or (key.attested and key.aaguid in self.aaguids)

    def reaches(self, key: Key, level: Level) -> bool:
        """Whether `key` counts and could reach `level`: aal3 only with a private key that cannot be copied."""
        return self.takes(key) and (level < Level.AAL3 or not key.backup_eligible)

    def verification(self, asked: Asked) -> str:
        """`user_verification` for the question `asked`: what a rule wants goes first, and aal3 is nothing without."""
        return "required" if asked.verified or asked.level >= Level.AAL3 else self.user_verification
