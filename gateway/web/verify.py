"""Prove it again: the page of one challenge.

    /admin/ ──► StepUp ──► verify/<ticket> ──right──► the session gets the proof and a new token ──► on they go
                            │  ▲                                                          (a kept POST too)
                            │  └wrong, fewer tries
                            └──no factor that counts──► a fresh sign-in may set one up; an older one signs in again

The challenge itself never enrols (case 113); it names the page that does, and that page asks for its own fresh proof.
"""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

from aiohttp import web

from gateway.core.errors import StoreAway, UserError
from gateway.core.identity import Identity, Level, Proof
from gateway.core.words import say
from gateway.mfa.enrolment import Permit
from gateway.mfa.stepup import Challenge
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER, NobodyHere
from gateway.web.desk import DESK
from gateway.web.methods import METHODS
from gateway.web.proof import UNUSUAL, may_bind_first
from gateway.web.resume import carry_on
from gateway.web.return_to import safe_path
from gateway.web.security_keys import KEY_WORDS, elsewhere
from gateway.web.trusted import offered, prove_and_trust
from gateway.web.words import LOST, said_of, span, wait_words

SECOND_FACTOR = say("This place asks for a second factor.")
KNOWN = say("This place asks for a security key that checks who you are, by your finger, face or PIN.")

RETRY = ("ERR-MFA-INVALID", "ERR-MFA-THROTTLED", "ERR-MFA-DISABLED", "ERR-MFA-METHOD", "ERR-MFA-RESEND")
"""Errors after which the challenge goes on."""


async def show(request: web.Request) -> web.Response:
    """The question."""
    identity = await request[CALLER].signed_in()
    challenge = await request.app[DESK].stepups.look(request.match_info["ticket"], identity)
    if not challenge.offered:
        return await _unready(request, identity, challenge)
    query = request.query
    return await _ask(request, identity, challenge, query.get("method", ""), ticked=query.get("trust") == "yes")


async def submit(request: web.Request) -> web.Response:
    """The answer."""
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.signed_in()
    form = await forms.read(request, "verify", identity.session_id)
    ticket = request.match_info["ticket"]
    challenge = await desk.stepups.look(ticket, identity, caller.place)
    if form.get("then") == "sign-in":
        return await _sign_in_again(request, identity, challenge)
    factor = form.get("factor", "")
    trusting = form.get("trust") == "yes" and await offered(request, identity, challenge)
    try:
        proof = await desk.stepups.answer(ticket, identity, factor, form.get("code", ""), caller.place)
    except UserError as error:
        if error.code not in RETRY:
            raise
        challenge = await desk.stepups.look(ticket, identity)
        if not challenge.offered:
            raise
        return await _ask(request, identity, challenge, factor, error, ticked=trusting)
    return await passed(request, identity, challenge, proof, trusting)


async def passed(
    request: web.Request, identity: Identity, challenge: Challenge, proof: Proof, trusting: bool
) -> web.Response:
    """On they go, by `proof`, which has just ended `challenge`; `trusting`: their browser is trusted from now on."""
    desk = request.app[DESK]
    target = safe_path(challenge.return_to, desk.prefix + "account")
    answer = carry_on(request, target, challenge.resume) if challenge.resume else redirect(target)
    try:
        await prove_and_trust(request, identity, proof, trusting, answer)
    except NobodyHere:
        if not challenge.resume:
            raise
        return await _sign_in_again(request, identity, challenge)
    except StoreAway:  # what was interrupted still waits, and the question leads to it
        with suppress(StoreAway):
            await desk.stepups.reopen(challenge, identity)
        raise
    return answer


async def send(request: web.Request) -> web.Response:
    """A code that answers the question. A page that is loaded again sends nothing again."""
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.signed_in()
    form = await forms.read(request, "verify", identity.session_id)
    ticket, factor = request.match_info["ticket"], form.get("factor", "")
    ticked = form.get("trust") == "yes"  # nothing is trusted by it: it is not to be ticked again after another code
    try:
        await desk.stepups.send(
            ticket, identity, factor, to=form.get("to", ""), language=caller.language, place=caller.place
        )
    except UserError as error:
        if error.code not in RETRY:
            raise
        challenge = await desk.stepups.look(ticket, identity)
        if not challenge.offered:
            raise
        return await _ask(request, identity, challenge, factor, error, ticked=ticked, about_code=False)
    return redirect(_with(request, ticket, factor) + ("&trust=yes" if ticked else ""))


async def _ask(
    request: web.Request,
    identity: Identity,
    challenge: Challenge,
    wanted: str,
    error: UserError | None = None,
    *,
    ticked: bool = False,
    about_code: bool = True,
) -> web.Response:
    away = elsewhere(request)
    ways = [METHODS[name] for name in challenge.offered if name in METHODS and not (away and METHODS[name].touch)]
    method = next((one for one in ways if one.name == wanted), ways[0] if ways else None)
    problem = said_of(error, request.app[DESK].clock.now())
    standing = await request.app[DESK].stepups.standing(challenge, identity, method.name) if method else None
    answer = page(
        request,
        "verify.html",
        leads_on=True,
        again=_with(request, challenge.ticket, method.name if method else ""),
        script=method is not None and method.touch,
        words=KEY_WORDS,
        status=error.status if error else 200,
        csrf=forms.token(request, "verify", identity.session_id),
        ticket=challenge.ticket,
        method=method,
        standing=standing,
        again_in=wait_words(standing.again_in) if standing and standing.again_in > 0 else "",
        about_code=about_code,
        elsewhere=away if "webauthn" in challenge.offered else "",
        there=away + safe_path(challenge.return_to, request.app[DESK].prefix + "account"),
        others=[one for one in ways if one is not method],
        recover=request.app[DESK].recoveries.by_email,
        error=problem,
        trust=span(challenge.demand.trusted) if await offered(request, identity, challenge) else "",
        ticked=ticked,
        why=KNOWN if challenge.demand.verified or challenge.demand.level >= Level.AAL3 else SECOND_FACTOR,
        lost=LOST.get(request.query.get("lost", ""), ""),
        user=identity.user,
    )
    if error is not None and error.retry_after > 0:
        answer.headers["Retry-After"] = str(int(error.retry_after) + 1)
    return forms.remember_browser(request, answer)


async def _unready(request: web.Request, identity: Identity, challenge: Challenge) -> web.Response:
    desk = request.app[DESK]
    reach = {"totp": Level.AAL2, "webauthn": Level.AAL3, **dict.fromkeys(desk.addresses, Level.AAL2)}
    kinds = [
        kind
        for kind in desk.factors.names
        if kind in reach and reach[kind] >= challenge.demand.level and challenge.demand.counts(kind)
    ]
    has_some = bool(await desk.factors.of(identity.tenant, identity.subject))
    permit, unusual = None, False
    if kinds and not has_some:
        unusual = not await may_bind_first(request, identity)
        permit = None if unusual else await desk.enrolment.may_change(identity)
    # Who has a factor that does not count here proves it with that one, before they add one that does.
    may = permit is Permit.YES or bool(await desk.factors.usable(identity.tenant, identity.subject))
    after = safe_path(challenge.return_to, desk.prefix + "account")
    if challenge.resume:
        after = f"{desk.prefix}resume/{quote(challenge.resume, safe='')}?next={quote(after, safe='')}"
    to_add = f"?next={quote(after, safe='')}" if may else ""
    answer = page(
        request,
        "unready.html",
        csrf=forms.token(request, "verify", identity.session_id),
        ticket=challenge.ticket,
        enrol=f"{desk.prefix}enrol{to_add}" if to_add and "totp" in kinds else "",
        enrol_sms=f"{desk.prefix}enrol-code/sms{to_add}" if to_add and "sms" in kinds else "",
        enrol_email=f"{desk.prefix}enrol-code/email{to_add}" if to_add and "email" in kinds else "",
        enrol_key=f"{desk.prefix}enrol-key{to_add}" if to_add and "webauthn" in kinds else "",
        sign_in_first=permit is Permit.SIGN_IN_AGAIN,
        unusual=UNUSUAL if unusual else "",
        recover=has_some and desk.recoveries.by_email,
        lost=LOST.get(request.query.get("lost", ""), ""),
        user=identity.user,
    )
    return forms.remember_browser(request, answer)


async def _sign_in_again(request: web.Request, identity: Identity, challenge: Challenge) -> web.Response:
    """The new session meets a challenge of its own; what was interrupted moves from the old session to the browser."""
    desk = request.app[DESK]
    after = safe_path(challenge.return_to, desk.prefix + "account")
    location = f"{desk.prefix}login?reauth=1&next={quote(after, safe='')}"
    if challenge.resume:
        caller = request[CALLER]
        moved = await desk.interrupted.move(
            challenge.resume,
            f"session:{identity.session_id}",
            f"browser:{caller.browser}",
            whose=f"user:{identity.user}",
            network=caller.facts.network,
        )
        if moved:
            location += f"&resume={quote(moved, safe='')}"
    return redirect(location)


def _with(request: web.Request, ticket: str, factor: str) -> str:
    """The question, to be answered with `factor`."""
    return f"{request.app[DESK].prefix}verify/{quote(ticket, safe='')}?method={quote(factor, safe='')}"
