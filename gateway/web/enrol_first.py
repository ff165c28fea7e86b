"""Whoever must have a second factor and has none is led to one: right after signing in, or from wherever they went.

    login ──► enrol-first ──► enrol, enrol-key, … ──► on they go         while there is time: "Later" goes on at once
                ▲      └─ sign in again, where the sign-in is not fresh
    a request ──┘ (once the time is over)

The page itself binds nothing and grants nothing: the pages it leads to ask for their own fresh proof, so that a session
that somebody stole, or left open, is worth no factor (case 113). What was being sent waits, and goes on afterwards; it
moves along when somebody has to sign in once more.
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

from aiohttp import web

from gateway.core.identity import NEVER
from gateway.core.words import say, sentences
from gateway.mfa.enrolment import Permit
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import UNUSUAL, may_bind_first
from gateway.web.return_to import safe_path
from gateway.web.setups import setups
from gateway.web.words import LOST, day, span

ASK = say("Please ask whoever looks after your account.")
SOON = 60.0
"""Seconds that a page may take to be read: who has seven days is told so, and not of six."""


def location(prefix: str, after: str) -> str:
    """The page, for who goes on to `after` then."""
    return f"{prefix}enrol-first?next={quote(after, safe='')}"


async def show(request: web.Request) -> web.Response:
    """What is to be done, and until when."""
    desk, query = request.app[DESK], request.query
    identity = await request[CALLER].signed_in()
    after, resume = safe_path(query.get("next"), ""), query.get("resume", "")
    onward = _onward(desk.prefix, after, resume)
    if identity.enrol_by == NEVER:
        return redirect(onward)
    left = identity.enrol_by - desk.clock.now()
    lacking = await desk.enrolment.demands.lacking(identity)
    kinds = {kind for one in lacking for kind in one.factors}  # whichever of them: they meet the others too
    ways, again, recover = setups(request, kinds), False, False
    instead = ""
    if not await desk.factors.of(identity.tenant, identity.subject):
        if not await may_bind_first(request, identity):
            instead = UNUSUAL
        else:
            again = await desk.enrolment.may_change(identity) is Permit.SIGN_IN_AGAIN
    elif not await desk.factors.usable(identity.tenant, identity.subject):
        recover = desk.recoveries.by_email
        instead = sentences(say("Your second factor is out of use."), "" if recover else ASK)
    if not ways and not instead:
        instead = ASK
    answer = page(
        request,
        "enrol-first.html",
        csrf=forms.token(request, "enrol-first", identity.session_id),
        left=span(left + SOON) if left > 0 else "",
        until=day(identity.enrol_by) if left > 0 else "",
        ways=() if again or instead else ways,
        sign_in_first=again,
        instead=instead,
        recover=recover,
        next=after,
        resume=resume,
        onward=onward,
        lost=LOST.get(query.get("lost", ""), ""),
        user=identity.user,
    )
    return forms.remember_browser(request, answer)


async def submit(request: web.Request) -> web.Response:
    """Sign in again first. What waits for the old session moves to the browser, for the same person only."""
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.signed_in()
    form = await forms.read(request, "enrol-first", identity.session_id)
    said = {"reauth": "1", "next": safe_path(form.get("next"), desk.prefix + "account")}
    if form.get("resume"):
        moved = await desk.interrupted.move(
            form["resume"],
            f"session:{identity.session_id}",
            f"browser:{caller.browser}",
            whose=f"user:{identity.user}",
            network=caller.facts.network,
        )
        said |= {"resume": moved} if moved else {}
    return redirect(f"{desk.prefix}login?{urlencode(said)}")


def _onward(prefix: str, after: str, resume: str) -> str:
    if resume:
        return f"{prefix}resume/{quote(resume, safe='')}?next={quote(after, safe='')}"
    return after or f"{prefix}account"
