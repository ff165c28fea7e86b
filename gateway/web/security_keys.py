"""Whether there are security keys, and whether the page that somebody looks at may ask for one.

A key answers pages of one origin only. Under every other host that is served here other factors are offered, and who
has none is told where the key would answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.words import say
from gateway.web.caller import CALLER
from gateway.web.desk import DESK

if TYPE_CHECKING:
    from gateway.mfa.webauthn.security_keys import SecurityKeys

KEY_WORDS = {
    "NotAllowedError": say(
        "Nothing came from a key: it was cancelled, or it took too long. Try again, or use another way."
    ),
    "InvalidStateError": say("This key is set up already. Use another one."),
    "NotSupportedError": say("This key cannot be used here. Try another one."),
    "ConstraintError": say("This key has no PIN and cannot tell who you are. Try another one."),
    "SecurityError": say("This browser does not ask for keys at this address."),
    "AbortError": say("It was cancelled. Try again, or use another way."),
    "other": say("That did not work. Try again, or use another way."),
    "none": say("This browser cannot use security keys. Use another way, or another browser."),
    "follow": say("Follow what your browser says now."),
}
"""What `webauthn.js` says: by the name of a `DOMException` (WebAuthn, sections 5.1.3 and 5.1.4), and of its own."""


def security_keys(request: web.Request) -> SecurityKeys:
    """Those of the house. Raises `UserError` `ERR-MFA-METHOD` where none are configured, or not for this host."""
    keys, away = request.app[DESK].security_keys, elsewhere(request)
    if keys is None:
        raise not_offered(say("This method is not in use here."))
    if away:
        raise not_offered(say("Security keys answer at {address} only.", address=away))
    return keys


def elsewhere(request: web.Request) -> str:
    """The origin where keys answer, if it is another than this page's; else empty."""
    keys = request.app[DESK].security_keys
    return keys.us.origin if keys is not None and keys.us.origin != request[CALLER].origin else ""


def not_offered(detail: str) -> UserError:
    """`ERR-MFA-METHOD`, in other words."""
    return UserError("ERR-MFA-METHOD", detail, 400)
