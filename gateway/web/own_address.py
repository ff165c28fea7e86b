"""Confirm the address of one's account: a code goes there, type the code.

    account ──"Send me a code"──► account/email ──right──► account
                                   │  ▲
                                   └wrong, or another one, please

Each step answers a form with a redirect, so that a page which is loaded again sends nothing again.
"""

from __future__ import annotations

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import Identity
from gateway.mfa.own_address import OwnAddress
from gateway.mfa.recovery import off
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import fresh_to_bind
from gateway.web.words import said_of, wait_words

LATER = ("ERR-MFA-RESEND", "ERR-UNREACHABLE")
"""Errors of a wish to have a code sent, told where it was made."""
AGAIN = ("ERR-MFA-INVALID", "ERR-MFA-THROTTLED")
"""Errors after which another code may do."""


async def send(request: web.Request) -> web.Response:
    """A code on its way."""
    identity = await fresh_to_bind(request)
    await forms.read(request, "account", identity.session_id)
    try:
        await asked_of(request).send(identity, language=request[CALLER].language, place=request[CALLER].place)
    except UserError as error:
        if error.code not in LATER:
            raise
        return await _page(request, identity, error, about_code=False)
    return redirect(f"{request.app[DESK].prefix}account/email")


async def show(request: web.Request) -> web.Response:
    """What came? Where none is on its way, or it is over, the account page says how to have one sent."""
    identity = await request[CALLER].signed_in()
    if not (await asked_of(request).standing(identity)).sent:
        return redirect(f"{request.app[DESK].prefix}account")
    return await _page(request, identity)


async def confirm(request: web.Request) -> web.Response:
    """The code. Whoever was allowed to begin may end: a message takes a while."""
    identity = await request[CALLER].signed_in()
    form = await forms.read(request, "account", identity.session_id)
    try:
        await asked_of(request).confirm(identity, form.get("code", ""), request[CALLER].place)
    except UserError as error:
        if error.code not in AGAIN:
            raise
        return await _page(request, identity, error)
    return redirect(f"{request.app[DESK].prefix}account?done=confirmed-address")


def asked_of(request: web.Request) -> OwnAddress:
    """Who has addresses confirmed. Raises `UserError` ERR-RECOVERY-OFF where nothing rests on it."""
    own = request.app[DESK].own_address
    if own is None:
        raise off()
    return own


async def _page(
    request: web.Request, identity: Identity, error: UserError | None = None, *, about_code: bool = True
) -> web.Response:
    standing = await asked_of(request).standing(identity)
    answer = page(
        request,
        "account-email.html",
        leads_on=True,
        again=f"{request.app[DESK].prefix}account/email",
        status=error.status if error else 200,
        csrf=forms.token(request, "account", identity.session_id),
        to=standing.address if standing.sent else "",
        again_in=wait_words(standing.again_in) if standing.again_in > 0 else "",
        error=said_of(error, request.app[DESK].clock.now()),
        about_code=about_code,
    )
    if error is not None and error.retry_after > 0:
        answer.headers["Retry-After"] = str(int(error.retry_after) + 1)
    return forms.remember_browser(request, answer)
