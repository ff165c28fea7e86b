"""`mfa/recovery`: get back in. `recoveries…`, `users/{user}/recovery`: two administrators recover somebody.

What ends in an account without factors is a link in a mail, which is for browsers (`web/recover`), or a second
administrator here.
"""

from __future__ import annotations

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.words import say
from gateway.mfa.recovery_states import Recovery
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import RecoveryAsk, RecoveryBegun, RecoveryItem, RecoveryList, moment
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import acting_administrator, administrator
from gateway.web.recover import freshly


async def ask(request: web.Request, _: Empty) -> RecoveryBegun:
    """For oneself, by e-mail."""
    begun = await request.app[DESK].recoveries.ask(await freshly(request), request[CALLER].place)
    return RecoveryBegun(asked_at=moment(begun.asked_at), due_at=moment(begun.due_at))


async def every(request: web.Request, _: Empty) -> RecoveryList:
    """Those that are open, or all that are known."""
    me = await administrator(request)
    found = await request.app[DESK].recoveries.every(me.tenant, over=request.query.get("all") == "true")
    return RecoveryList(recoveries=[_item(one) for one in found])


async def one(request: web.Request, _: Empty) -> RecoveryItem:
    """One of them."""
    me = await administrator(request)
    found = await request.app[DESK].recoveries.find(me.tenant, request.match_info["id"])
    if found is None:
        raise UserError("ERR-RECOVERY", say("There is no such recovery."), 404)
    return _item(found)


async def ask_for(request: web.Request, body: RecoveryAsk) -> RecoveryItem:
    """For somebody else."""
    me = await acting_administrator(request)
    desk = request.app[DESK]
    user = await desk.users.find(request.match_info["user"], me.tenant)
    if user is None:
        raise UserError("ERR-USER-UNKNOWN", say("There is no such user."), 404)
    return _item(await desk.recoveries.ask_for(me, user.subject, body.reason, request[CALLER].place))


async def approve(request: web.Request, _: Empty) -> RecoveryItem:
    """Agree to what another administrator asked for."""
    me = await acting_administrator(request)
    return _item(await request.app[DESK].recoveries.approve(me, request.match_info["id"], request[CALLER].place))


async def refuse(request: web.Request, _: Empty) -> RecoveryItem:
    """End it."""
    me = await acting_administrator(request)
    return _item(await request.app[DESK].recoveries.refuse(me, request.match_info["id"], request[CALLER].place))


def _item(one: Recovery) -> RecoveryItem:
    return RecoveryItem(
        id=one.id,
        user=one.user,
        way=one.way.value,
        state=one.state.value,
        outcome=one.outcome,
        reason=one.reason,
        asked_at=moment(one.asked_at),
        asked_by=one.asker,
        due_at=moment(one.due_at),
        expires_at=moment(one.expires_at),
        settled_at=moment(one.settled_at) if one.settled_at else None,
        settled_by=one.settled_by,
    )


_FORBIDDEN = (403, "ERR-FORBIDDEN")
_GONE = (410, "ERR-RECOVERY")
_OWN = (403, "ERR-RECOVERY-OWN")
_NOTHING = (409, "ERR-RECOVERY-NOTHING")

ENDPOINTS = (
    Endpoint(
        "POST",
        "mfa/recovery",
        ask,
        "I have lost every factor: begin, by e-mail",
        answers=RecoveryBegun,
        status=202,
        fresh=True,
        codes=((404, "ERR-RECOVERY-OFF"), _NOTHING, (429, "ERR-RECOVERY-THROTTLED")),
    ),
    Endpoint(
        "GET",
        "recoveries",
        every,
        "Accounts being recovered (administrators)",
        query=(("all", "`true`: those that are over too."),),
        answers=RecoveryList,
        codes=(_FORBIDDEN, (401, "ERR-STEP-UP")),
    ),
    Endpoint(
        "GET",
        "recoveries/{id}",
        one,
        "One of them (administrators)",
        answers=RecoveryItem,
        codes=(_FORBIDDEN, (401, "ERR-STEP-UP"), (404, "ERR-RECOVERY")),
    ),
    Endpoint(
        "POST",
        "users/{user}/recovery",
        ask_for,
        "Ask for somebody's recovery; another one has to agree (administrators)",
        takes=RecoveryAsk,
        answers=RecoveryItem,
        status=201,
        fresh=True,
        codes=(
            _FORBIDDEN, _OWN, (400, "ERR-RECOVERY-REASON"), (404, "ERR-USER-UNKNOWN"), _NOTHING,
            (409, "ERR-RECOVERY-OPEN"),
        ),
    ),
    Endpoint(
        "POST",
        "recoveries/{id}/approve",
        approve,
        "Agree to a recovery that another one asked for (administrators)",
        answers=RecoveryItem,
        fresh=True,
        codes=(_FORBIDDEN, _OWN, _GONE),
    ),
    Endpoint(
        "POST",
        "recoveries/{id}/refuse",
        refuse,
        "End a recovery (administrators)",
        answers=RecoveryItem,
        fresh=True,
        codes=(_FORBIDDEN, _GONE),
    ),
)  # fmt: skip
