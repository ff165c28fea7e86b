"""Get back in: somebody who knows the password and cannot use any second factor.

    verify/<ticket> ──"none of these"──► recover ──► a letter at once, with a link that cancels
                                            │                              │
                                            ▼ after the delay              ▼
                        a letter with a link ──► recover/link       recover/cancel

Both asking and following the link take a password that was shown within the last minutes; a link followed by nobody
leads to the sign-in, and says nothing of whether it is any good. Cancelling takes the letter alone. What a link does is
done by a form on its page: machines that look into mails follow links, and send no forms.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from aiohttp import web

from gateway.core.identity import FIRST_FACTORS, Identity, Level, Proof
from gateway.core.rule import StepUpDemand
from gateway.mfa.enrolment import SKEW
from gateway.mfa.recovery import off
from gateway.mfa.recovery_states import Recovery, State
from gateway.web import enrol_first, forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER, ProofTooOld
from gateway.web.desk import DESK
from gateway.web.proof import FRESH
from gateway.web.words import moment, span


async def show(request: web.Request) -> web.Response:
    """What is about to happen, or is happening already."""
    desk, identity = request.app[DESK], await freshly(request)
    _allowed(request)
    open_one = await desk.recoveries.of(identity)
    answer = page(
        request,
        "recover.html",
        csrf=forms.token(request, "recover", identity.session_id),
        begun=open_one is not None,
        decided_by_others=open_one is not None and open_one.state is State.PENDING,
        sent=open_one is not None and open_one.state is State.READY,
        due=moment(open_one.due_at) if open_one is not None else "",
        delay=span(desk.recoveries.delay),
        expires=span(desk.recoveries.expires),
        codes="backup_code" in desk.factors.names,
        user=identity.user,
    )
    return forms.remember_browser(request, answer)


async def ask(request: web.Request) -> web.Response:
    """Begin. What is answered does not depend on whether there is an address."""
    desk, identity = request.app[DESK], await freshly(request)
    await forms.read(request, "recover", identity.session_id)
    await desk.recoveries.ask(identity, request[CALLER].place)
    return redirect(f"{desk.prefix}recover")


async def show_link(request: web.Request) -> web.Response:
    """The page behind the link of the second letter."""
    desk, identity = request.app[DESK], await freshly(request)
    token = request.query.get("token", "")
    await desk.recoveries.look(identity, token, request[CALLER].place)
    csrf = forms.token(request, "recover-link", identity.session_id)
    answer = page(request, "recover-link.html", csrf=csrf, ticket=token, user=identity.user)
    return forms.remember_browser(request, answer)


async def use_link(request: web.Request) -> web.Response:
    """Unbind everything, sign out everywhere, and go on to a new factor, in a session that begins with this.

    It begins in the same step: nobody stands before a link that is used up and is signed in nowhere.
    """
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.signed_in()
    form = await forms.read(request, "recover-link", identity.session_id)
    token = form.get("token", "")
    shown = _password(request, identity)
    if shown is None:
        back = f"{desk.prefix}recover/link?token={quote(token, safe='')}"
        return redirect(f"{desk.prefix}login?reauth=1&next={quote(back, safe='')}")
    opened = ""

    async def sign_in(connection: Any) -> None:
        nonlocal opened
        opened = await desk.sessions.open_in(
            connection, identity.tenant, identity.subject, shown, address=caller.facts.address, agent=caller.facts.agent
        )

    await desk.recoveries.use(identity, token, caller.place, settle=sign_in)
    answer = redirect(enrol_first.location(desk.prefix, f"{desk.prefix}account"))
    answer.headers.add("Set-Cookie", caller.cookies.set(caller.cookies.session, opened))
    return answer


async def show_cancel(request: web.Request) -> web.Response:
    """The page behind the link of the first letter."""
    token = request.query.get("token", "")
    found = await request.app[DESK].recoveries.look_cancel(token, request[CALLER].place)
    return _cancel_page(request, found, token)


async def cancel(request: web.Request) -> web.Response:
    """End it."""
    form = await forms.read(request, "recover-cancel")
    ended = await request.app[DESK].recoveries.cancel(form.get("token", ""), request[CALLER].place)
    return _cancel_page(request, ended, "")


def _cancel_page(request: web.Request, one: Recovery, token: str) -> web.Response:
    """`token` is empty once it is cancelled."""
    csrf = forms.token(request, "recover-cancel")
    answer = page(
        request,
        "recover-cancel.html",
        csrf=csrf,
        ticket=token,
        asked=moment(one.asked_at),
        by_administrators=bool(one.asked_by),
        user=one.user,
    )
    return forms.remember_browser(request, answer)


async def freshly(request: web.Request) -> Identity:
    """Who is signed in, with a password shown just now. Raises `NobodyHere`, `ProofTooOld`."""
    identity = await request[CALLER].signed_in()
    if _password(request, identity) is None:
        raise ProofTooOld(StepUpDemand(Level.AAL1, max_age=FRESH))
    return identity


def _password(request: web.Request, identity: Identity) -> Proof | None:
    """The first factor of the session, where it was shown just now."""
    now = request.app[DESK].clock.now()
    proofs = identity.session.proofs if identity.session is not None else ()
    return next((one for one in proofs if one.factor in FIRST_FACTORS and -SKEW <= now - one.at <= FRESH), None)


def _allowed(request: web.Request) -> None:
    if not request.app[DESK].recoveries.by_email:
        raise off()
