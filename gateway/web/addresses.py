"""For administrators: addresses that nothing is sent to, for they bounce or their owner has complained, and having them
written to again once that is mended.
"""

from __future__ import annotations

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import Identity
from gateway.core.words import say
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.api.addresses import MOST
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import acting_administrator, administrator
from gateway.web.words import ago

NOTICES = {"released": say("Messages are sent there again.")}
"""By the value of `done`."""
WHY = {"bounced": say("it takes nothing"), "complained": say("its owner has complained")}


async def show(request: web.Request) -> web.Response:
    """The page."""
    me = await administrator(request)
    return await _page(request, me, notice=NOTICES.get(request.query.get("done", ""), ""))


async def release(request: web.Request) -> web.Response:
    """Send to one of them again."""
    me = await acting_administrator(request)
    form = await forms.read(request, "addresses", me.session_id)
    deliveries, channel = request.app[DESK].deliveries, form.get("channel", "")
    if deliveries is None or not await deliveries.release(
        me.tenant, channel, form.get("address", ""), by=me.user, place=request[CALLER].place
    ):
        error = UserError("ERR-ADDRESS-UNKNOWN", say("Nothing keeps us from sending there."), 404)
        return await _page(request, me, error=error)
    return redirect(f"{request.app[DESK].prefix}addresses?done=released")


async def _page(
    request: web.Request, me: Identity, *, notice: str = "", error: UserError | None = None
) -> web.Response:
    desk, now = request.app[DESK], request.app[DESK].clock.now()
    found = await desk.deliveries.every(me.tenant, MOST + 1) if desk.deliveries is not None else ()
    answer = page(
        request,
        "addresses.html",
        again=f"{desk.prefix}addresses",
        status=error.status if error else 200,
        csrf=forms.token(request, "addresses", me.session_id),
        notice=notice,
        error=error.detail if error else "",
        addresses=[
            {"channel": one.channel, "address": one.target, "why": WHY.get(one.why, one.why), "at": ago(one.at, now)}
            for one in found[:MOST]
        ],
        more=MOST if len(found) > MOST else 0,
    )
    return forms.remember_browser(request, answer)
