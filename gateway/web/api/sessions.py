"""`sessions…`: where the caller is signed in; `users/{user}/sessions…`: where somebody else is, for administrators.

An administrator is told the truth about who exists; nobody else gets that far. What they end is an event that names
them.
"""

from __future__ import annotations

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import Identity, Session, amr_of, level_of
from gateway.core.words import say
from gateway.identity.users import User
from gateway.web.answers import json
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import Ended, Invalidate, SessionItem, SessionList, Stats, moment
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import acting_administrator, administrator, forget_session, fresh


async def every(request: web.Request, _: Empty) -> SessionList:
    """All of them."""
    me = await request[CALLER].signed_in()
    sessions = await request.app[DESK].sessions.list(me.tenant, me.subject)
    return SessionList(sessions=[_item(one, me) for one in sessions])


async def stats(request: web.Request, _: Empty) -> Stats:
    """Numbers about everybody's, for administrators with a second factor."""
    await administrator(request)
    return Stats(sessions=await request.app[DESK].sessions.stats())


async def end(request: web.Request, _: Empty) -> None:
    """Sign one browser out."""
    me = await fresh(request)
    if not await request.app[DESK].sessions.end(me.tenant, me.subject, request.match_info["id"]):
        raise UserError("ERR-SESSION", say("You have no such session."), 404)


async def extend(request: web.Request, _: Empty) -> SessionItem:
    """Start the idle time of this session anew; its absolute end stays."""
    caller = request[CALLER]
    me = await caller.signed_in()
    if request.match_info["id"] not in ("current", me.session_id):
        raise UserError("ERR-SESSION", say("Only the session of this request can be extended."), 404)
    extended = await request.app[DESK].sessions.extend(caller.token)
    if extended.session is None:
        raise UserError("ERR-SESSION", say("This session is over."), 404)
    return _item(extended.session, extended)


async def invalidate_all(request: web.Request, body: Invalidate) -> web.Response:
    """Sign out everywhere, or everywhere else."""
    me = await fresh(request)
    ended = await request.app[DESK].sessions.end_all(
        me.tenant, me.subject, but=me.session_id if body.keep_current else ""
    )
    answer = json(Ended(ended=ended).model_dump(mode="json"))
    if not body.keep_current:
        forget_session(request, answer)
    return answer


async def every_of(request: web.Request, _: Empty) -> SessionList:
    """All of somebody's."""
    me = await administrator(request)
    user = await _user(request, me)
    sessions = await request.app[DESK].sessions.list(user.tenant, user.subject)
    return SessionList(sessions=[_item(one, me) for one in sessions])


async def end_of(request: web.Request, _: Empty) -> None:
    """Sign somebody out of one browser."""
    me = await acting_administrator(request)
    user = await _user(request, me)
    session = request.match_info["id"]
    if not await request.app[DESK].sessions.end(user.tenant, user.subject, session, by=me.user):
        raise UserError("ERR-SESSION", say("They have no such session."), 404)


async def invalidate_all_of(request: web.Request, _: Empty) -> Ended:
    """Sign somebody out everywhere."""
    me = await acting_administrator(request)
    user = await _user(request, me)
    return Ended(ended=await request.app[DESK].sessions.end_all(user.tenant, user.subject, by=me.user))


async def _user(request: web.Request, me: Identity) -> User:
    """Whom the path names, among those of the administrator's own tenant."""
    user = await request.app[DESK].users.find(request.match_info["user"], me.tenant)
    if user is None:
        raise UserError("ERR-USER-UNKNOWN", say("There is no such user."), 404)
    return user


def _item(one: Session, me: Identity) -> SessionItem:
    return SessionItem(
        id=one.id,
        current=one.id == me.session_id,
        created_at=moment(one.created_at),
        expires_at=moment(one.expires_at),
        last_seen_at=moment(one.last_seen_at),
        address=one.address,
        agent=one.agent,
        acr=level_of(one.proofs).acr,
        amr=list(amr_of(one.proofs)),
    )


_UNKNOWN = (404, "ERR-SESSION")
_FORBIDDEN = (403, "ERR-FORBIDDEN")
_WHO = (404, "ERR-USER-UNKNOWN")

ENDPOINTS = (
    Endpoint("GET", "sessions", every, "Where I am signed in", answers=SessionList),
    Endpoint(
        "GET",
        "sessions/stats",
        stats,
        "Numbers about all sessions (administrators)",
        answers=Stats,
        codes=(_FORBIDDEN,),
    ),
    Endpoint("DELETE", "sessions/{id}", end, "End one of my sessions", status=204, fresh=True, codes=(_UNKNOWN,)),
    Endpoint(
        "POST",
        "sessions/{id}/extend",
        extend,
        "Start the idle time of this session (`current`) anew",
        answers=SessionItem,
        codes=(_UNKNOWN,),
    ),
    Endpoint(
        "POST",
        "sessions/invalidate-all",
        invalidate_all,
        "End all my sessions, or all others",
        takes=Invalidate,
        answers=Ended,
        fresh=True,
    ),
    Endpoint(
        "GET",
        "users/{user}/sessions",
        every_of,
        "Where somebody is signed in (administrators)",
        answers=SessionList,
        codes=(_FORBIDDEN, _WHO),
    ),
    Endpoint(
        "DELETE",
        "users/{user}/sessions/{id}",
        end_of,
        "End one of somebody's sessions (administrators)",
        status=204,
        fresh=True,
        codes=(_FORBIDDEN, _WHO, _UNKNOWN),
    ),
    Endpoint(
        "POST",
        "users/{user}/sessions/invalidate-all",
        invalidate_all_of,
        "End all of somebody's sessions (administrators)",
        answers=Ended,
        fresh=True,
        codes=(_FORBIDDEN, _WHO),
    ),
)
