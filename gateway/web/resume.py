"""Send on what somebody was sending when they were asked to sign in.

It was kept sealed by the wire, bound to the session or, before there was one, to the browser. Whoever has signed in
since may be somebody else, so it waits here for a press on the button; where it is known who was sending it, nobody
else finds it. The page says what goes where, and nothing of what is in it. Then the browser is sent back to the
original address with a cookie that names the record, and there the wire carries on the kept request.
"""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.events import Kind, Severity
from gateway.core.identity import Identity
from gateway.core.words import say
from gateway.mfa.interrupted import Interrupted
from gateway.web import forms
from gateway.web.answers import page, redirect, refusal
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.return_to import is_safe, safe_path
from gateway.web.words import amount, sent

KIND = b"content-type"

GONE = say(
    "It was sent already, it waited too long and was thrown away, or somebody else was sending it. "
    "Please fill in the form again."
)


async def show(request: web.Request) -> web.Response:
    """What was kept, and whether to send it."""
    identity = await request[CALLER].signed_in()
    ticket = request.match_info["ticket"]
    found = await find(request, ticket, identity)
    if found is None:
        action = (say("Go back there"), safe_path(request.query.get("next")))
        return refusal(request, 404, "ERR-RESUME", GONE, action=action)
    kept, _ = found
    answer = page(
        request,
        "resume.html",
        leads_on=True,
        csrf=forms.token(request, "resume", identity.session_id),
        ticket=ticket,
        what=sent(next((value.decode("latin-1") for name, value in kept.headers if name.lower() == KIND), "")),
        method=kept.method,
        host=kept.host,
        path=path_of(kept).partition("?")[0],
        size=amount(kept.size),
        user=identity.user,
    )
    return forms.remember_browser(request, answer)


async def submit(request: web.Request) -> web.Response:
    """Send it on, or throw it away."""
    desk = request.app[DESK]
    identity = await request[CALLER].signed_in()
    ticket = request.match_info["ticket"]
    form = await forms.read(request, "resume", identity.session_id)
    found = await find(request, ticket, identity)
    if found is None:
        raise UserError("ERR-RESUME", GONE, 404)
    kept, owner = found
    if form.get("drop"):
        await desk.interrupted.claim(ticket, owner)
        return redirect("/")
    return carry_on(request, path_of(kept), ticket)


async def find(request: web.Request, ticket: str, identity: Identity) -> tuple[Interrupted, str] | None:
    """The record and its owner, if it is this session's or this browser's and still there; else that is told."""
    desk, caller, reason = request.app[DESK], request[CALLER], "gone"
    for owner in (f"session:{identity.session_id}", f"browser:{caller.browser}"):
        kept = await desk.interrupted.peek(ticket, owner)
        if kept is not None and is_safe(path_of(kept)) and desk.interrupted.is_for(kept, identity.user):
            return kept, owner
        reason = "not_theirs" if kept is not None else reason
    desk.ledger.note(caller.place.event(Kind.RESUME_REFUSED, Severity.NOTICE, who=identity, detail={"reason": reason}))
    return None


def path_of(kept: Interrupted) -> str:
    """The path and query it was sent to."""
    return kept.target.decode("ascii", "replace")


def carry_on(request: web.Request, target: str, ticket: str) -> web.Response:
    """Send the browser to `target`, where the wire continues what `ticket` names."""
    caller = request[CALLER]
    answer = redirect(target)
    answer.headers.add("Set-Cookie", caller.cookies.set(caller.cookies.resume, quote(ticket, safe=""), 60))
    return answer
