"""For administrators: the accounts that are being recovered, asking for one, agreeing to what a colleague asked for.

Everything here takes the second factor, shown just now; looking takes that it was shown. Nobody agrees to what they
asked for, nor to anything about themselves: `mfa.recovery` sees to that, and the page only does not offer it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.events import Place
from gateway.core.identity import Identity
from gateway.core.words import Said, say
from gateway.mfa.recovery import LONGEST
from gateway.mfa.recovery_states import Recovery, State, Way
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import acting_administrator, administrator
from gateway.web.words import ago, later

NOTICES = {
    "asked": say("It is asked for. Another administrator has to agree within a day."),
    "approve": say("It is done: their factors are gone, and they are signed out everywhere."),
    "refuse": say("It was refused."),
}
"""By the value of `done`."""
TELLING = ("ERR-USER-UNKNOWN", "ERR-RECOVERY", "ERR-RECOVERY-OWN", "ERR-RECOVERY-REASON", "ERR-RECOVERY-NOTHING",
           "ERR-RECOVERY-OPEN")  # fmt: skip
"""Errors that the page itself tells."""


async def show(request: web.Request) -> web.Response:
    """The page."""
    me = await administrator(request)
    return await _page(request, me, notice=NOTICES.get(request.query.get("done", ""), ""))


async def ask(request: web.Request) -> web.Response:
    """For somebody's, whom the form names."""
    me = await acting_administrator(request)
    form = await forms.read(request, "recoveries", me.session_id)
    desk = request.app[DESK]
    name, reason = form.get("user", ""), form.get("reason", "")
    try:
        user = await desk.users.find(name, me.tenant)
        if user is None:
            raise UserError("ERR-USER-UNKNOWN", say("There is no such user."), 404)
        await desk.recoveries.ask_for(me, user.subject, reason, request[CALLER].place)
    except UserError as error:
        if error.code not in TELLING:
            raise
        return await _page(request, me, error=error, name=name, reason=reason)
    return redirect(f"{desk.prefix}recoveries?done=asked")


async def approve(request: web.Request) -> web.Response:
    """Agree."""
    return await _decide(request, request.app[DESK].recoveries.approve, "approve")


async def refuse(request: web.Request) -> web.Response:
    """End it."""
    return await _decide(request, request.app[DESK].recoveries.refuse, "refuse")


async def _decide(
    request: web.Request, decide: Callable[[Identity, str, Place], Awaitable[Recovery]], done: str
) -> web.Response:
    me = await acting_administrator(request)
    await forms.read(request, "recoveries", me.session_id)
    try:
        await decide(me, request.match_info["recovery"], request[CALLER].place)
    except UserError as error:
        if error.code not in TELLING:
            raise
        return await _page(request, me, error=error)
    return redirect(f"{request.app[DESK].prefix}recoveries?done={done}")


async def _page(
    request: web.Request,
    me: Identity,
    *,
    notice: str = "",
    error: UserError | None = None,
    name: str = "",
    reason: str = "",
) -> web.Response:
    desk, now = request.app[DESK], request.app[DESK].clock.now()
    answer = page(
        request,
        "recoveries.html",
        status=error.status if error else 200,
        csrf=forms.token(request, "recoveries", me.session_id),
        notice=notice,
        error=error.detail if error else "",
        name=name[:256],
        reason=reason[:LONGEST],
        longest=LONGEST,
        recoveries=[
            {
                "id": one.id,
                "user": one.user,
                "mine": one.asked_by == me.subject,
                "by_email": one.way is Way.EMAIL,
                "reason": one.reason,
                "asked": _asked(one, me, now),
                "state": _state(one, now),
                "ends": say("ends {when}", when=later(one.expires_at, now)),
                "may_approve": one.state is State.PENDING and me.subject not in (one.asked_by, one.subject),
            }
            for one in await desk.recoveries.every(me.tenant)
        ],
    )
    return forms.remember_browser(request, answer)


def _asked(one: Recovery, me: Identity, now: float) -> Said:
    when = ago(one.asked_at, now)
    if one.way is Way.EMAIL:
        return say("asked for {when}", when=when)
    if one.asked_by == me.subject:
        return say("you asked for it {when}", when=when)
    return say("{who} asked for it {when}", who=one.asker, when=when)


def _state(one: Recovery, now: float) -> Said:
    if one.state is State.PENDING:
        return say("waits for another administrator")
    if one.state is State.READY:
        return say("its link was sent")
    return say("its link will be sent {when}", when=later(one.due_at, now))
