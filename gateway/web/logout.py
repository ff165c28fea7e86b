"""Sign out of this browser."""

from __future__ import annotations

from aiohttp import web

from gateway.core.events import Kind
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER
from gateway.web.desk import DESK


async def show(request: web.Request) -> web.Response:
    """Ask first: a link, or a picture on somebody's page, must not end a session."""
    identity = await request[CALLER].identity()
    if identity is None or identity.session is None:
        return redirect(request.app[DESK].prefix + "login")
    csrf = forms.token(request, "logout", identity.session.id)
    return forms.remember_browser(request, page(request, "logout.html", csrf=csrf, user=identity.user))


async def submit(request: web.Request) -> web.Response:
    """End the session and forget its cookie."""
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.identity()
    answer = redirect(desk.prefix + "login")
    if identity is not None and identity.session is not None:
        await forms.read(request, "logout", identity.session.id)
        await desk.sessions.end(identity.tenant, identity.subject, identity.session.id)
        desk.ledger.note(caller.place.event(Kind.SIGN_OUT, who=identity))
    for name in (caller.cookies.session, caller.cookies.resume):
        answer.headers.add("Set-Cookie", caller.cookies.set(name, "", 0))
    return answer
