"""For administrators: what second factors somebody has, whether they must have one, and which browsers they trust.

Looking takes that a second factor was shown; changing anything, that it was shown just now. Nobody's factors are added
or taken away from here: that is a recovery, and takes two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import NEVER, Identity
from gateway.core.words import Said, say
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import acting_administrator, administrator
from gateway.web.setups import setups
from gateway.web.words import ago, browser, label, later, moment, span

if TYPE_CHECKING:
    from gateway.identity.users import User

DAY = 86_400
GRACES: Mapping[str, int] = {str(days): days * DAY for days in (0, 1, 7, 14, 30)}
"""Seconds to set one up, by what the form says of it (days)."""
NOTICES = {
    "required": say("It is demanded."),
    "lifted": say("It was taken back."),
    "forgotten": say("That browser is trusted no more."),
    "all-forgotten": say("No browser is trusted any more."),
}
"""By the value of `done`."""
TELLING = ("ERR-USER-UNKNOWN", "ERR-MFA-UNKNOWN", "ERR-MFA-METHOD")
"""Errors that the page itself tells."""


async def show(request: web.Request) -> web.Response:
    """The page; of the person whom the query names, if it does."""
    me, name = await administrator(request), request.query.get("user", "")
    if not name:
        return await _page(request, me, None)
    user = await request.app[DESK].users.find(name, me.tenant)
    if user is None:
        return await _page(request, me, None, name=name, error=_unknown())
    return await _page(request, me, user, notice=NOTICES.get(request.query.get("done", ""), ""))


async def find(request: web.Request) -> web.Response:
    """On to the person whom the form names."""
    me = await administrator(request)
    form = await forms.read(request, "person", me.session_id)
    return redirect(_location(request, form.get("user", "")[:256]))


async def require(request: web.Request) -> web.Response:
    """Demand that they have one."""
    return await _change(request, "required")


async def lift(request: web.Request) -> web.Response:
    """Take that back; what the configuration demands stays."""
    return await _change(request, "lifted")


async def forget(request: web.Request) -> web.Response:
    """Trust one of their browsers no more."""
    return await _change(request, "forgotten")


async def forget_all(request: web.Request) -> web.Response:
    """Trust none of them any more."""
    return await _change(request, "all-forgotten")


async def _change(request: web.Request, done: str) -> web.Response:
    me = await acting_administrator(request)
    form = await forms.read(request, "person", me.session_id)
    desk, user = request.app[DESK], await request.app[DESK].users.find(form.get("user", ""), me.tenant)
    if user is None:
        return await _page(request, me, None, name=form.get("user", ""), error=_unknown())
    try:
        if done == "required":
            await _require(request, me, user, form.get("grace", ""))
        elif done == "lifted":
            await desk.enrolment.demands.lift(user.tenant, user.subject, user=user.name, by=me.user)
        elif desk.trusted is not None:
            device = request.match_info.get("device", "")
            await desk.trusted.revoke(_identity(user), device, by=me.user, place=request[CALLER].place)
    except UserError as error:
        if error.code not in TELLING:
            raise
        return await _page(request, me, user, error=error)
    return redirect(f"{_location(request, user.name)}&done={done}")


async def _require(request: web.Request, me: Identity, user: User, grace: str) -> None:
    desk = request.app[DESK]
    if grace not in GRACES:
        raise UserError("ERR-FORM", say("The form cannot be read."), 400)
    if not setups(request):
        raise UserError("ERR-MFA-METHOD", say("No second factor could be set up here."), 400)
    at = desk.clock.now() + GRACES[grace]
    await desk.enrolment.demands.require(user.tenant, user.subject, user=user.name, at=at, by=me.user)


async def _page(
    request: web.Request,
    me: Identity,
    user: User | None,
    *,
    notice: str = "",
    error: UserError | None = None,
    name: str = "",
) -> web.Response:
    desk, now = request.app[DESK], request.app[DESK].clock.now()
    factors, trusted = [], []
    if user is not None:
        factors = [one for one in await desk.factors.of(user.tenant, user.subject) if one.kind != "backup_code"]
        trusted = await desk.trusted.list(user.tenant, user.subject) if desk.trusted is not None else []
    answer = page(
        request,
        "person.html",
        again=_location(request, user.name) if user is not None else f"{desk.prefix}person",
        status=error.status if error else 200,
        csrf=forms.token(request, "person", me.session_id),
        notice=notice,
        error=error.detail if error else "",
        name=name[:256],
        user=user,
        factors=[
            {"label": label(one.kind, ""), "disabled": one.disabled, "added": ago(one.created_at, now)}
            for one in factors
        ],
        must=await _must(request, user) if user is not None else "",
        demanded=user is not None and user.required_from != NEVER,
        graces=[(days, span(seconds) if seconds else say("none")) for days, seconds in GRACES.items()],
        trusted=[
            {
                "id": one.id,
                "browser": browser(one.agent),
                "address": one.address,
                "added": ago(one.created_at, now),
                "ends": later(one.expires_at, now),
            }
            for one in trusted
        ],
    )
    return forms.remember_browser(request, answer)


async def _must(request: web.Request, user: User) -> Said:
    """Whether they must have one, and how they stand with that."""
    desk, them = request.app[DESK], _identity(user)
    demands = desk.enrolment.demands
    if not demands.on(them):
        return say("No.")
    if not await demands.lacking(them):
        return say("Yes, and they have one that will do.")
    by = await demands.enrol_by(them, begin=False)
    if by == NEVER:
        return say("Yes. Their time to set one up begins when they sign in.")
    if by <= desk.clock.now():
        return say("Yes, and they have none that will do: until they set one up nothing else is open to them.")
    return say("Yes, from {when} on, and they have none that will do yet.", when=moment(by))


def _location(request: web.Request, name: str) -> str:
    return f"{request.app[DESK].prefix}person?user={quote(name, safe='')}"


def _identity(user: User) -> Identity:
    return Identity(user.tenant, user.subject, user.name, groups=user.groups, required_from=user.required_from)


def _unknown() -> UserError:
    return UserError("ERR-USER-UNKNOWN", say("There is no such user."), 404)
