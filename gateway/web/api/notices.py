"""`notices`: what the caller is told beside changes to the security of their account."""

from __future__ import annotations

from aiohttp import web

from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import ChooseNotices, Notices
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import fresh


async def show(request: web.Request, _: Empty) -> Notices:
    """What it is; nothing where nobody is told anything."""
    me, preferences = await request[CALLER].signed_in(), request.app[DESK].preferences
    return Notices(more=preferences is not None and await preferences.more(me))


async def choose(request: web.Request, body: ChooseNotices) -> Notices:
    """Be told more, or no more."""
    me, preferences = await fresh(request), request.app[DESK].preferences
    if preferences is not None:
        await preferences.choose(me, body.more, request[CALLER].place)
    return await show(request, Empty())


ENDPOINTS = (
    Endpoint("GET", "notices", show, "What I am told beside changes to security", answers=Notices),
    Endpoint("POST", "notices", choose, "Be told more, or no more", takes=ChooseNotices, answers=Notices, fresh=True),
)
