"""Who is asking, and what they have shown.

Assurance levels follow NIST SP 800-63B-4 as far as a gateway can know them: `aal1` is one factor, `aal2` two
different ones, `aal3` two with a key that cannot be exported. `amr` values are those of RFC 8176.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

DEFAULT_TENANT = "default"
NEVER = math.inf
"""A moment that does not come, where moments are seconds since the epoch."""


class Level(IntEnum):
    """An authenticator assurance level; comparable."""

    NONE = 0
    AAL1 = 1
    AAL2 = 2
    AAL3 = 3

    @property
    def acr(self) -> str:
        """The name used in YAML, in tokens (`acr`) and in challenges (`acr_values`): `aal1` …"""
        return f"aal{int(self)}"


@dataclass(frozen=True, slots=True)
class Proof:
    """One thing the user has shown in this session."""

    factor: str
    """`password`, `totp`, `backup_code` …: the name of the factor as in YAML."""
    at: float
    """When, in seconds since the epoch."""
    key: str = ""
    """Of a security key, where its private key lives (RFC 8176): `hwk` in the one device it was made in, `swk` where it
    can be copied to others."""
    verified: bool = False
    """Whether the device made sure who its user is, by a PIN or a finger: alone it is two factors then."""


SECURITY_KEY = "webauthn"
"""The one factor whose device can make sure who its user is, and say so."""

AMR: Mapping[str, str] = {"password": "pwd", "totp": "otp", "sms": "sms", "email": "otp", "backup_code": "kba"}
"""Factor name → RFC 8176 authentication method reference.

A backup code is a look-up secret; RFC 8176 has no word of its own for it, `kba` is the nearest. Nor has it one
for codes by e-mail, which are one-time passwords."""

FIRST_FACTORS = frozenset({"password"})
"""Factors that open a session. Every other one raises it to what it `reaches` when it stands beside one of these."""

TRUSTED_DEVICE = "trusted_device"
"""In the place of a factor: the session was opened in a browser that its user trusts (`mfa.trusted_devices`).

Nothing was shown, so it raises no level and is no authentication method: NIST SP 800-63B-4 knows no such authenticator,
and RFC 8176 has no word for it. Its `Proof.at` is when a second factor was shown in that browser. Rules that allow it
let it stand in for one (`StepUpDemand.trusted`)."""
NO_SECOND_FACTOR = FIRST_FACTORS | {TRUSTED_DEVICE}
"""What is in a session and makes no second factor."""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that somebody signed in with. The secret in its cookie is not here, nor anywhere in clear."""

    id: str
    """Public name, for lists and logs; stays the same for the session's life."""
    version: int
    """Grows with every proof; whatever was derived from the session is keyed by `(id, version)`."""
    created_at: float
    expires_at: float
    """The absolute end, whatever happens in between."""
    last_seen_at: float
    """Touched at most once a minute."""
    proofs: tuple[Proof, ...]
    """The latest proof of each factor, oldest first."""
    address: str
    """Client address at sign-in."""
    agent: str
    """User agent at sign-in, cut to 512 characters."""
    rested: float = 0.0
    """The longest pause between two requests since the last proof, in seconds."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody, as the gate knows them for this request."""

    tenant: str
    subject: str
    """Stable, never reused identifier of the user (the `sub` of tokens)."""
    user: str
    """Canonical user name."""
    email: str = ""
    name: str = ""
    groups: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict)
    session: Session | None = None
    level: Level = Level.NONE
    amr: tuple[str, ...] = ()
    auth_time: float = 0.0
    """When the newest proof was given."""
    required_from: float = NEVER
    """From when on this very person must have a second factor, by an administrator's word; `NEVER`: nobody said so."""
    enrol_by: float = NEVER
    """Until when they have time to set up a second factor that they must have; afterwards nothing else is open to
    them. `NEVER`: they have what they must have."""

    @property
    def session_id(self) -> str:
        """Of their session; empty without one."""
        return self.session.id if self.session is not None else ""


def reaches(proof: Proof) -> Level:
    """The assurance level that `proof` reaches beside a first factor.

    aal3 takes a key that cannot be exported, and a device that knew its user (NIST SP 800-63B-4, 2.3).
    """
    if proof.factor == TRUSTED_DEVICE:
        return Level.NONE
    if proof.factor in FIRST_FACTORS:
        return Level.AAL1
    return Level.AAL3 if proof.key == "hwk" and proof.verified else Level.AAL2


def level_of(proofs: tuple[Proof, ...]) -> Level:
    """The assurance level that `proofs` reach together."""
    shown = [proof for proof in proofs if proof.factor != TRUSTED_DEVICE]
    if not shown:
        return Level.NONE
    if any(proof.factor in FIRST_FACTORS for proof in shown):
        return max(reaches(proof) for proof in shown)
    return Level.AAL1


def amr_of(proofs: tuple[Proof, ...]) -> tuple[str, ...]:
    """RFC 8176 references for `proofs`, with `mfa` where they make two factors."""
    amr = sorted({proof.key or AMR[proof.factor] for proof in proofs if proof.key or proof.factor in AMR})
    if level_of(proofs) >= Level.AAL2:
        amr.append("mfa")
    return tuple(amr)


def proof_as_kept(proof: Proof) -> list[Any]:
    """`proof` as sessions are kept with it, in JSON: `[factor, at]`, and of a key `[factor, at, key, verified]`."""
    kept: list[Any] = [proof.factor, proof.at]
    return [*kept, proof.key, proof.verified] if proof.key else kept


def proof_from(kept: Sequence[Any]) -> Proof:
    """The proof that was kept as `kept`. Raises TypeError, ValueError."""
    factor, at, *of_key = kept
    if not of_key:
        return Proof(str(factor), float(at))
    key, verified = of_key
    return Proof(str(factor), float(at), str(key), verified is True)
