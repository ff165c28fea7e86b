"""The arithmetic of one-time passwords: RFC 6238 (TOTP) over RFC 4226 (HOTP), as authenticator apps speak it.

SHA-1, six digits and thirty seconds are what every app understands; SHA-1's collisions do not matter to HMAC.

*Window.* A code counts in its own step and in the one before and after (±1), for clocks that are a little off and
fingers that are a little slow. A code is thus good for up to 90 seconds. OWASP ASVS 5.0, 6.5.5 asks for 30; NIST SP
800-63B-4, 3.1.4 only asks that the nonce changes every two minutes and that a code counts once. We follow NIST and
RFC 6238 section 5.2 ("at most one time step is allowed as the network delay"), and make up for it with single use.

*Drift.* A code from two to ten steps away is never accepted, but says something kind: the user's clock is off.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from urllib.parse import quote

DIGITS = 6
STEP = 30
"""Seconds for which a code is shown."""
WINDOW = 1
"""Steps before and after the present one that count too."""
DRIFT = 10
"""Steps within which a code that does not count still tells how far the user's clock is off."""
SECRET_BYTES = 20
"""160 bits, as RFC 4226 (section 4, R6) recommends; NIST SP 800-63B-4 asks for at least 112."""


def new_secret() -> bytes:
    """160 random bits."""
    return secrets.token_bytes(SECRET_BYTES)


def base32(secret: bytes) -> str:
    """The spelling of a secret that people type and apps read: RFC 4648 base32 without padding."""
    return base64.b32encode(secret).decode().rstrip("=")


def step_at(now: float) -> int:
    """The time step that `now` (seconds since the epoch) falls into."""
    return int(now) // STEP


def code_at(secret: bytes, step: int) -> str:
    """The six digits of `step` (RFC 4226, section 5.3)."""
    from pyotp import HOTP  # only processes in which somebody answers with a code pay for it

    return HOTP(base32(secret), digits=DIGITS).at(step)


def digits_of(answer: str) -> str:
    """The six digits somebody typed, spaces and dashes forgiven; empty when it cannot be a code."""
    if len(answer) > 32:
        return ""
    typed = "".join(answer.split()).replace("-", "")
    return typed if len(typed) == DIGITS and typed.isascii() and typed.isdigit() else ""


def matching_step(secret: bytes, code: str, step: int, after: int, refused: int = -1) -> int | None:
    """The step within the window around `step` whose code is `code`, or None.

    Only steps after `after` (the last one accepted) count, and not the step `refused`. Every step of the window is
    computed and compared in constant time, whatever the others were.
    """
    matched = None
    for candidate in _near(step, WINDOW):
        same = hmac.compare_digest(code_at(secret, candidate), code)
        if same and candidate > after and candidate != refused:
            matched = candidate
    return matched


def drifted_step(secret: bytes, code: str, step: int) -> int | None:
    """The step outside the window, but at most `DRIFT` away, whose code is `code`; the nearest; None without one."""
    matched = None
    for candidate in sorted(_near(step, DRIFT), key=lambda near: -abs(near - step)):
        same = hmac.compare_digest(code_at(secret, candidate), code)
        if same and abs(candidate - step) > WINDOW:
            matched = candidate
    return matched


def about_minutes(steps: int) -> int:
    """How many whole minutes `steps` are, for a sentence: at least one."""
    return max(1, round(abs(steps) * STEP / 60))


def otpauth(secret: bytes, issuer: str, account: str) -> str:
    """The `otpauth://` URI an authenticator app reads from the QR code (Key Uri Format).

    The format has no way to write a colon inside the issuer or the account: apps cut the label at the first one they
    find, escaped or not. Theirs become spaces.
    """
    issuer, account = (" ".join(part.replace(":", " ").split()) for part in (issuer, account))
    label = f"{quote(issuer, safe='')}:{quote(account, safe='')}" if issuer else quote(account, safe="")
    about = f"&issuer={quote(issuer, safe='')}" if issuer else ""
    return f"otpauth://totp/{label}?secret={base32(secret)}{about}&algorithm=SHA1&digits={DIGITS}&period={STEP}"


def _near(step: int, reach: int) -> range:
    return range(max(0, step - reach), step + reach + 1)
