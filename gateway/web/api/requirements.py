"""`users/{user}/mfa-requirement`: who must have a second factor by an administrator's word; for administrators."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import NEVER, Identity
from gateway.core.words import say
from gateway.identity.users import User
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import Required, Requirement, moment
from gateway.web.desk import DESK
from gateway.web.proof import acting_administrator, administrator
from gateway.web.setups import setups


async def show(request: web.Request, _: Empty) -> Required:
    """What somebody must have, and has."""
    return await _required(request, await _user(request, await administrator(request)))


async def require(request: web.Request, body: Requirement) -> Required:
    """Demand it."""
    me = await acting_administrator(request)
    desk, user = request.app[DESK], await _user(request, me)
    if not setups(request):
        raise UserError("ERR-MFA-METHOD", say("No second factor could be set up here."), 400)
    at = desk.clock.now() + body.grace
    await desk.enrolment.demands.require(user.tenant, user.subject, user=user.name, at=at, by=me.user)
    return await _required(request, replace(user, required_from=at))


async def lift(request: web.Request, _: Empty) -> Required:
    """Take it back; what the configuration demands stays."""
    me = await acting_administrator(request)
    user = await _user(request, me)
    await request.app[DESK].enrolment.demands.lift(user.tenant, user.subject, user=user.name, by=me.user)
    return await _required(request, replace(user, required_from=NEVER))


async def _user(request: web.Request, me: Identity) -> User:
    """Whom the path names, among those of the administrator's own tenant."""
    user = await request.app[DESK].users.find(request.match_info["user"], me.tenant)
    if user is None:
        raise UserError("ERR-USER-UNKNOWN", say("There is no such user."), 404)
    return user


async def _required(request: web.Request, user: User) -> Required:
    demands = request.app[DESK].enrolment.demands
    them = Identity(user.tenant, user.subject, user.name, groups=user.groups, required_from=user.required_from)
    by = await demands.enrol_by(them, begin=False)
    return Required(
        user=user.name,
        required=bool(demands.on(them)),
        required_from=moment(user.required_from) if user.required_from != NEVER else None,
        enrol_by=moment(by) if by != NEVER else None,
        devices=sorted(await demands.kinds(them)),
    )


_FORBIDDEN = (403, "ERR-FORBIDDEN")
_WHO = (404, "ERR-USER-UNKNOWN")

ENDPOINTS = (
    Endpoint(
        "GET",
        "users/{user}/mfa-requirement",
        show,
        "Whether somebody must have a second factor (administrators)",
        answers=Required,
        codes=(_FORBIDDEN, _WHO),
    ),
    Endpoint(
        "POST",
        "users/{user}/mfa-requirement",
        require,
        "Demand a second factor of somebody (administrators)",
        takes=Requirement,
        answers=Required,
        fresh=True,
        codes=(_FORBIDDEN, _WHO, (400, "ERR-MFA-METHOD")),
    ),
    Endpoint(
        "DELETE",
        "users/{user}/mfa-requirement",
        lift,
        "Take that back (administrators)",
        answers=Required,
        fresh=True,
        codes=(_FORBIDDEN, _WHO),
    ),
)
