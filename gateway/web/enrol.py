"""Set up an authenticator app: start, scan, confirm, save the backup codes, go on.

The code that confirms the new app is itself a proof of it, so the session is raised at once and nobody is asked for
a second code half a minute later.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import Identity, Proof
from gateway.core.words import say
from gateway.mfa.enrolment import Setup
from gateway.web import forms
from gateway.web.answers import page, redirect, told
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import fresh_to_bind, prove
from gateway.web.return_to import safe_path
from gateway.web.security_keys import elsewhere
from gateway.web.words import said_of


async def show(request: web.Request) -> web.Response:
    """What is about to happen."""
    identity = await fresh_to_bind(request)
    desk = request.app[DESK]
    answer = page(
        request,
        "enrol.html",
        csrf=forms.token(request, "enrol", identity.session_id),
        next=safe_path(request.query.get("next"), ""),
        required=desk.clock.now() >= identity.enrol_by,
        key_instead=desk.security_keys is not None and not elsewhere(request),
        sms_instead="sms" in desk.addresses,
        email_instead="email" in desk.addresses,
        user=identity.user,
    )
    return forms.remember_browser(request, answer)


async def begin(request: web.Request) -> web.Response:
    """A new secret, shown as a picture and in letters."""
    identity = await fresh_to_bind(request)
    form = await forms.read(request, "enrol", identity.session_id)
    setup = await request.app[DESK].enrolment.begin_totp(identity)
    return await _scan(request, identity, setup, safe_path(form.get("next"), ""))


async def confirm(request: web.Request) -> web.Response:
    """The first code of the new app. Whoever was allowed to begin may end: scanning a picture takes a while."""
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.signed_in()
    form = await forms.read(request, "enrol", identity.session_id)
    setup_id = request.match_info["setup"]
    after = safe_path(form.get("next"), "")
    try:
        codes = await desk.enrolment.confirm(
            identity, setup_id, form.get("code", ""), label=form.get("label", ""), place=caller.place
        )
    except UserError as error:
        if error.code not in ("ERR-MFA-INVALID", "ERR-MFA-THROTTLED"):
            raise
        setup = await desk.enrolment.look(identity, setup_id)
        return await _scan(request, identity, setup, after, error, form.get("label", ""))
    onward = after or f"{desk.prefix}account?done=added"
    answer = show_codes(request, codes, onward) if codes else redirect(onward)
    await prove(request, Proof("totp", desk.clock.now()), answer)
    return answer


def show_codes(request: web.Request, codes: Sequence[str], after: str, *, replaced: bool = False) -> web.Response:
    """Backup codes, this once. The file is made in the page, so they are kept nowhere."""
    head = told(request, say("Sallyport backup codes")), told(request, say("Each works once."))
    text = "\r\n".join((*head, "", *codes, ""))
    return page(
        request,
        "codes.html",
        codes=codes,
        file="data:text/plain;charset=utf-8," + quote(text),
        next=after,
        replaced=replaced,
    )


async def _scan(
    request: web.Request,
    identity: Identity,
    setup: Setup,
    after: str,
    error: UserError | None = None,
    device: str = "",
) -> web.Response:
    from gateway.mfa.qr import svg  # segno is wanted only here

    problem = said_of(error, request.app[DESK].clock.now())
    answer = page(
        request,
        "setup.html",
        leads_on=True,
        status=error.status if error else 200,
        csrf=forms.token(request, "enrol", identity.session_id),
        setup=setup.id,
        qr="data:image/svg+xml," + quote(svg(setup.uri)),
        secret=" ".join(setup.secret[i : i + 4] for i in range(0, len(setup.secret), 4)),
        uri=setup.uri,
        next=after,
        label=device[:64],
        error=problem,
    )
    return forms.remember_browser(request, answer)
