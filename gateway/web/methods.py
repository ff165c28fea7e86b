"""How each factor is asked for on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.core.words import say


@dataclass(frozen=True, slots=True)
class Method:
    """Words for one factor."""

    name: str
    label: str
    hint: str
    instead: str
    """Of the link that switches to it."""
    long: bool = False
    """Whether the answer is longer than six digits."""
    touch: bool = False
    """Whether nothing is typed: the browser asks a device."""
    sent: bool = False
    """Whether a code has to be sent first."""


METHODS: Mapping[str, Method] = {
    "webauthn": Method(
        "webauthn",
        say("Security key or passkey"),
        say("Your browser will ask for a security key, or for the finger, face or PIN that opens this device."),
        say("Use my security key or passkey"),
        touch=True,
    ),
    "totp": Method(
        "totp",
        say("Six-digit code"),
        say("Open your authenticator app and type the code it shows now."),
        say("Use my authenticator app"),
    ),
    "sms": Method(
        "sms",
        say("Code from the text message"),
        say("Six digits, good for ten minutes, once."),
        say("Have a code sent to my phone"),
        sent=True,
    ),
    "email": Method(
        "email",
        say("Code from the e-mail"),
        say("Six digits, good for ten minutes, once. Or open the link in the e-mail, in this browser."),
        say("Have a code sent by e-mail"),
        sent=True,
    ),
    "backup_code": Method(
        "backup_code",
        say("Backup code"),
        say("One of the codes you saved when you set up your second factor. Each works once."),
        say("Use a backup code"),
        long=True,
    ),
}
