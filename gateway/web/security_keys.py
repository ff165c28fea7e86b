"""Whether there are security keys, and whether the page that somebody looks at may ask for one.

A key answers pages of one origin only. Under every other host that is served here other factors are offered, and who
has none is told where the key would answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from gateway.core.errors import UserError
from gateway.web.caller import CALLER
from gateway.web.desk import DESK

if TYPE_CHECKING:
    from gateway.mfa.webauthn.security_keys import SecurityKeys


def security_keys(request: web.Request) -> SecurityKeys:
    """Those of the house. Raises `UserError` `ERR-MFA-METHOD` where none are configured, or not for this host."""
    keys, away = request.app[DESK].security_keys, elsewhere(request)
    if keys is None:
        raise not_offered("This method is not in use here.")
    if away:
        raise not_offered(f"Security keys answer at {away} only.")
    return keys


def elsewhere(request: web.Request) -> str:
    """The origin where keys answer, if it is another than this page's; else empty."""
    keys = request.app[DESK].security_keys
    return keys.us.origin if keys is not None and keys.us.origin != request[CALLER].origin else ""


def not_offered(detail: str) -> UserError:
    """`ERR-MFA-METHOD`, in other words."""
    return UserError("ERR-MFA-METHOD", detail, 400)
