"""Set up a security key or a passkey: name it, touch it, save the backup codes, go on.

The page asks the API what to ask the key (`api/v1/mfa/webauthn/register/begin`), the browser asks the key, and the
answer comes back as a form: so it leads on like every other page, and needs no more script than the asking.
"""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import Identity
from gateway.core.words import say
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.enrol import show_codes
from gateway.web.proof import fresh_to_bind, prove
from gateway.web.return_to import safe_path
from gateway.web.security_keys import KEY_WORDS, elsewhere, not_offered, security_keys

AGAIN = ("ERR-MFA-INVALID", "ERR-MFA-KEY-REFUSED", "ERR-MFA-KEY-KNOWN", "ERR-MFA-SETUP")
"""Errors after which another key, or another try, may do."""


async def show(request: web.Request) -> web.Response:
    """What is about to happen."""
    identity = await fresh_to_bind(request)
    if request.app[DESK].security_keys is None:
        raise not_offered(say("This method is not in use here."))
    return await _page(request, identity, safe_path(request.query.get("next"), ""))


async def submit(request: web.Request) -> web.Response:
    """The key's answer. Whoever was allowed to begin may end: finding a key takes a while."""
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.signed_in()
    form = await forms.read(request, "enrol-key", identity.session_id)
    after = safe_path(form.get("next"), "")
    try:
        proof, codes = await security_keys(request).binding.complete(
            identity, form.get("credential", ""), label=form.get("label", ""), place=caller.place
        )
    except UserError as error:
        if error.code not in AGAIN:
            raise
        return await _page(request, identity, after, error, form.get("label", ""))
    onward = after or f"{desk.prefix}account?done=added-key"
    answer = show_codes(request, codes, onward) if codes else redirect(onward)
    await prove(request, proof, answer)
    return answer


async def _page(
    request: web.Request, identity: Identity, after: str, error: UserError | None = None, label: str = ""
) -> web.Response:
    desk, away = request.app[DESK], elsewhere(request)
    answer = page(
        request,
        "enrol-key.html",
        leads_on=True,
        again=f"{desk.prefix}enrol-key?next={quote(after, safe='')}",
        script=not away,
        words=KEY_WORDS,
        status=error.status if error else 200,
        csrf=forms.token(request, "enrol-key", identity.session_id),
        next=after,
        elsewhere=away,
        required=desk.clock.now() >= identity.enrol_by,
        app_instead="totp" in desk.factors.names,
        label=label[:64],
        error=error.detail if error else "",
        user=identity.user,
    )
    return forms.remember_browser(request, answer)
