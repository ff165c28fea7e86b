"""The link in a letter that answers a challenge as the code beside it does (`mfa.codes.link`).

    letter ──► verify/link?token=… ──"Continue"──► as after a code: they go on, and what was interrupted once
                        │
                        └──in any other browser, once it is used or old, made up──► one page, which says all of that

Machines that look into mails follow links and send no forms, so following it changes nothing. It counts in the session
that was asked and nowhere else: whoever follows it on their telephone does not let in who is signing in elsewhere. What
is told there is the same for everybody, signed in or not, and leads nowhere: a link that never existed looks like one
that is somebody's.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.words import say
from gateway.mfa.codes import link
from gateway.web import forms
from gateway.web.answers import page, problem, wants_page
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.trusted import offered
from gateway.web.verify import passed
from gateway.web.words import span

FACTOR: Final = "email"
"""Whose letters have it."""
NOTHING: Final = frozenset({"ERR-MFA-CHALLENGE", "ERR-MFA-INVALID", "ERR-MFA-METHOD"})
"""What is all the same to whoever has followed a link."""


async def show(request: web.Request) -> web.Response:
    """A button, where the link is good here. Nothing is counted: nobody guesses 256 bits."""
    desk, identity = request.app[DESK], await request[CALLER].identity()
    token = request.query.get("token", "")
    ticket, secret = link.parted(token)
    if identity is None or identity.session is None or not ticket:
        return _nothing_here(request)
    try:
        challenge = await desk.stepups.look(ticket, identity)
    except UserError as error:
        if error.code not in NOTHING:
            raise
        return _nothing_here(request)
    if not await desk.stepups.is_linked(challenge, identity, FACTOR, secret):
        return _nothing_here(request)
    answer = page(
        request,
        "verify-link.html",
        leads_on=True,
        csrf=forms.token(request, "verify-link", identity.session_id),
        ticket=token,
        trust=span(challenge.demand.trusted) if await offered(request, identity, challenge) else "",
        user=identity.user,
    )
    return forms.remember_browser(request, answer)


async def submit(request: web.Request) -> web.Response:
    """The answer."""
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.identity()
    if identity is None or identity.session is None:
        return _nothing_here(request)
    form = await forms.read(request, "verify-link", identity.session_id)
    ticket, secret = link.parted(form.get("token", ""))
    try:
        challenge = await desk.stepups.look(ticket, identity, caller.place)
        trusting = form.get("trust") == "yes" and await offered(request, identity, challenge)
        proof = await desk.stepups.answer(ticket, identity, FACTOR, secret, caller.place)
    except UserError as error:
        if error.code not in NOTHING:
            raise
        return _nothing_here(request)
    return await passed(request, identity, challenge, proof, trusting)


def _nothing_here(request: web.Request) -> web.Response:
    """What everybody is told whose link does nothing."""
    if wants_page(request):
        return page(request, "verify-link.html", status=410, ticket="")
    detail = say("This link does nothing here. It answers once, in the browser that asked for it.")
    return problem(request, 410, "ERR-MFA-LINK", detail)
