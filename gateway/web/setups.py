"""Where each kind of second factor is set up, and what it is called there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from aiohttp import web

from gateway.core.words import say
from gateway.web.desk import DESK


@dataclass(frozen=True, slots=True)
class SetUp:
    """A page that sets something up."""

    page: str
    """Below our prefix."""
    label: str
    needs: str
    """What one needs for it."""


SETUPS: Mapping[str, SetUp] = {
    "webauthn": SetUp(
        "enrol-key",
        say("Security key or passkey"),
        say("A key that you plug in or hold to your phone, or a device that opens with your finger, face or PIN."),
    ),
    "totp": SetUp("enrol", say("Authenticator app"), say("An app on your phone that shows six-digit codes.")),
    "sms": SetUp(
        "enrol-code/sms", say("Text messages"), say("A mobile phone that codes are sent to. The others are safer.")
    ),
    "email": SetUp("enrol-code/email", say("E-mail"), say("An address that codes are sent to. The others are safer.")),
}
"""By kind."""


def setups(request: web.Request, kinds: Collection[str] = ()) -> tuple[SetUp, ...]:
    """Those that are offered here, in the operator's order; of `kinds` only, if there are any."""
    names = request.app[DESK].factors.names
    return tuple(SETUPS[name] for name in names if name in SETUPS and (not kinds or name in kinds))
