"""Have codes sent: type a number or an e-mail address, get a code there, type the code, save the backup codes, go on.

    enrol-code/sms ──► a code goes out ──► enrol-code/sms/<setup> ──right──► bound, and proven
                                            │  ▲
                                            └wrong, or another one, please

Each step answers a form with a redirect, so that a page which is loaded again sends nothing again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import Identity
from gateway.core.words import say
from gateway.mfa.codes.binding import Addresses
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.enrol import show_codes
from gateway.web.proof import fresh_to_bind, prove
from gateway.web.return_to import safe_path
from gateway.web.security_keys import elsewhere, not_offered
from gateway.web.words import said_of, wait_words

OTHER_ADDRESS = (
    "ERR-PHONE-INVALID",
    "ERR-PHONE-REFUSED",
    "ERR-EMAIL-INVALID",
    "ERR-UNREACHABLE",
    "ERR-MFA-ADDRESS-KNOWN",
    "ERR-MFA-TOO-MANY",
    "ERR-MFA-RESEND",
)
"""Errors after which another address, or another time, may do."""
OTHER_CODE = ("ERR-MFA-INVALID", "ERR-MFA-THROTTLED", "ERR-MFA-RESEND")


@dataclass(frozen=True, slots=True)
class Words:
    """What a page says of one factor."""

    title: str
    label: str
    hint: str
    type: str
    """Of the field, in HTML; its `autocomplete` too."""
    placeholder: str
    better: str
    """What people have to know before they choose it (NIST SP 800-63B-4, 3.2.9)."""
    done: str
    """For the account page."""


WORDS: Mapping[str, Words] = {
    "sms": Words(
        say("Add a phone number"),
        say("Phone number"),
        say("Of a mobile phone, with its country. We send a code to it, and later ones when you are asked."),
        "tel",
        "+90 532 123 45 67",
        say("Text messages can be read on their way, and a number can be taken over. Something else is safer:"),
        "added-number",
    ),
    "email": Words(
        say("Add an e-mail address"),
        say("E-mail address"),
        say("We send a code to it, and later ones when you are asked."),
        "email",
        "ann@example.org",
        say("A mailbox opens with a password, often on the very device that asks. Something else is safer:"),
        "added-address",
    ),
}


async def show(request: web.Request) -> web.Response:
    """Where to?"""
    _addresses(request)
    return await _where(request, await fresh_to_bind(request), safe_path(request.query.get("next"), ""))


async def begin(request: web.Request) -> web.Response:
    """A code on its way."""
    addresses = _addresses(request)
    identity = await fresh_to_bind(request)
    form = await forms.read(request, "enrol-code", identity.session_id)
    after, typed = safe_path(form.get("next"), ""), form.get("address", "")
    try:
        setup = await addresses.begin(identity, typed, language=request[CALLER].language, place=request[CALLER].place)
    except UserError as error:
        if error.code not in OTHER_ADDRESS:
            raise
        return await _where(request, identity, after, error, typed)
    return redirect(_of(request, setup.id, after))


async def look(request: web.Request) -> web.Response:
    """What came?"""
    return await _which(request, await request[CALLER].signed_in(), safe_path(request.query.get("next"), ""))


async def again(request: web.Request) -> web.Response:
    """Another code."""
    identity = await request[CALLER].signed_in()
    form = await forms.read(request, "enrol-code", identity.session_id)
    setup_id, after = request.match_info["setup"], safe_path(form.get("next"), "")
    try:
        await _addresses(request).again(
            identity, setup_id, language=request[CALLER].language, place=request[CALLER].place
        )
    except UserError as error:
        if error.code not in OTHER_CODE:
            raise
        return await _which(request, identity, after, error, about_code=False)
    return redirect(_of(request, setup_id, after))


async def confirm(request: web.Request) -> web.Response:
    """The code. Whoever was allowed to begin may end: a message takes a while."""
    desk, identity = request.app[DESK], await request[CALLER].signed_in()
    form = await forms.read(request, "enrol-code", identity.session_id)
    after = safe_path(form.get("next"), "")
    try:
        proof, codes = await _addresses(request).confirm(
            identity, request.match_info["setup"], form.get("code", ""), place=request[CALLER].place
        )
    except UserError as error:
        if error.code not in OTHER_CODE:
            raise
        return await _which(request, identity, after, error)
    onward = after or f"{desk.prefix}account?done={WORDS[proof.factor].done}"
    answer = show_codes(request, codes, onward) if codes else redirect(onward)
    await prove(request, proof, answer)
    return answer


async def _where(
    request: web.Request, identity: Identity, after: str, error: UserError | None = None, typed: str = ""
) -> web.Response:
    desk, factor = request.app[DESK], request.match_info["factor"]
    answer = page(
        request,
        "enrol-code.html",
        again=f"{desk.prefix}enrol-code/{factor}" + (f"?next={quote(after, safe='')}" if after else ""),
        status=error.status if error else 200,
        csrf=forms.token(request, "enrol-code", identity.session_id),
        factor=factor,
        words=WORDS[factor],
        next=after,
        typed=typed[:320] or (identity.email if factor == "email" and error is None else ""),
        required=desk.clock.now() >= identity.enrol_by,
        app_instead="totp" in desk.factors.names,
        key_instead=desk.security_keys is not None and not elsewhere(request),
        error=said_of(error, request.app[DESK].clock.now()),
        user=identity.user,
    )
    return forms.remember_browser(request, answer)


async def _which(
    request: web.Request,
    identity: Identity,
    after: str,
    error: UserError | None = None,
    *,
    about_code: bool = True,
) -> web.Response:
    setup = await _addresses(request).look(identity, request.match_info["setup"])
    factor = request.match_info["factor"]
    answer = page(
        request,
        "enrol-code-sent.html",
        leads_on=True,
        again=_of(request, setup.id, after),
        status=error.status if error else 200,
        csrf=forms.token(request, "enrol-code", identity.session_id),
        factor=factor,
        words=WORDS[factor],
        setup=setup.id,
        to=setup.masked,
        again_in=wait_words(setup.again_in) if setup.again_in > 0 else "",
        next=after,
        error=said_of(error, request.app[DESK].clock.now()),
        about_code=about_code,
    )
    if error is not None and error.retry_after > 0:
        answer.headers["Retry-After"] = str(int(error.retry_after) + 1)
    return forms.remember_browser(request, answer)


def _addresses(request: web.Request) -> Addresses:
    """Who binds them. Raises `UserError` `ERR-MFA-METHOD` where the operator offers no such factor."""
    found = request.app[DESK].addresses.get(request.match_info["factor"])
    if found is None:
        raise not_offered(say("This method is not in use here."))
    return found


def _of(request: web.Request, setup_id: str, after: str) -> str:
    path = f"{request.app[DESK].prefix}enrol-code/{request.match_info['factor']}/{quote(setup_id, safe='')}"
    return path + (f"?next={quote(after, safe='')}" if after else "")
