"""`mfa/trusted-devices…`: the browsers that the caller trusts. Where none can be trusted the list is empty."""

from __future__ import annotations

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import Identity
from gateway.core.words import say
from gateway.identity.users import User
from gateway.mfa.trusted_devices import Trusted
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import Forgotten, TrustedDevice, TrustedDeviceList, moment
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import acting_administrator, administrator, fresh
from gateway.web.trusted import cookie_of


async def every(request: web.Request, _: Empty) -> TrustedDeviceList:
    """All of them."""
    return TrustedDeviceList(trusted_devices=[_item(one) for one in await _mine(request)])


async def one(request: web.Request, _: Empty) -> TrustedDevice:
    """One of them."""
    for each in await _mine(request):
        if each.id == request.match_info["id"]:
            return _item(each)
    raise _unknown()


async def forget(request: web.Request, _: Empty) -> None:
    """Trust it no more."""
    me = await fresh(request)
    desk = request.app[DESK]
    if desk.trusted is None:
        raise _unknown()
    await desk.trusted.revoke(me, request.match_info["id"], place=request[CALLER].place)


async def forget_all(request: web.Request, _: Empty) -> Forgotten:
    """Trust none any more."""
    me = await fresh(request)
    desk = request.app[DESK]
    count = await desk.trusted.revoke(me, place=request[CALLER].place) if desk.trusted is not None else 0
    return Forgotten(forgotten=count)


async def every_of(request: web.Request, _: Empty) -> TrustedDeviceList:
    """All of somebody's."""
    user = await _user(request, await administrator(request))
    trusted = request.app[DESK].trusted
    found = [] if trusted is None else await trusted.list(user.tenant, user.subject)
    return TrustedDeviceList(trusted_devices=[_item(each) for each in found])


async def forget_of(request: web.Request, _: Empty) -> None:
    """Trust one of somebody's no more."""
    if not await _forget(request, request.match_info["id"]):
        raise _unknown()


async def forget_all_of(request: web.Request, _: Empty) -> Forgotten:
    """Trust none of somebody's any more."""
    return Forgotten(forgotten=await _forget(request))


async def _forget(request: web.Request, device: str = "") -> int:
    me = await acting_administrator(request)
    user = await _user(request, me)
    trusted = request.app[DESK].trusted
    if trusted is None:
        return 0
    whose = Identity(user.tenant, user.subject, user.name)
    return await trusted.revoke(whose, device, by=me.user, place=request[CALLER].place)


async def _user(request: web.Request, me: Identity) -> User:
    """Whom the path names, among those of the administrator's own tenant."""
    user = await request.app[DESK].users.find(request.match_info["user"], me.tenant)
    if user is None:
        raise UserError("ERR-USER-UNKNOWN", say("There is no such user."), 404)
    return user


async def _mine(request: web.Request) -> list[Trusted]:
    desk, me = request.app[DESK], await request[CALLER].signed_in()
    if desk.trusted is None:
        return []
    return await desk.trusted.list(me.tenant, me.subject, cookie_of(request))


def _item(one: Trusted) -> TrustedDevice:
    return TrustedDevice(
        id=one.id,
        current=one.here,
        created_at=moment(one.created_at),
        expires_at=moment(one.expires_at),
        last_used_at=moment(one.last_used_at) if one.last_used_at else None,
        address=one.address,
        agent=one.agent,
    )


def _unknown() -> UserError:
    return UserError("ERR-MFA-UNKNOWN", say("You trust no such browser."), 404)


_UNKNOWN = (404, "ERR-MFA-UNKNOWN")
_FORBIDDEN = (403, "ERR-FORBIDDEN")
_WHO = (404, "ERR-USER-UNKNOWN")

ENDPOINTS = (
    Endpoint("GET", "mfa/trusted-devices", every, "Browsers that I trust", answers=TrustedDeviceList),
    Endpoint("GET", "mfa/trusted-devices/{id}", one, "One of them", answers=TrustedDevice, codes=(_UNKNOWN,)),
    Endpoint(
        "DELETE", "mfa/trusted-devices/{id}", forget, "Trust it no more", status=204, fresh=True, codes=(_UNKNOWN,)
    ),
    Endpoint("DELETE", "mfa/trusted-devices", forget_all, "Trust none any more", answers=Forgotten, fresh=True),
    Endpoint(
        "GET",
        "users/{user}/trusted-devices",
        every_of,
        "Browsers that somebody trusts (administrators)",
        answers=TrustedDeviceList,
        codes=(_FORBIDDEN, _WHO),
    ),
    Endpoint(
        "DELETE",
        "users/{user}/trusted-devices/{id}",
        forget_of,
        "Trust one of somebody's browsers no more (administrators)",
        status=204,
        fresh=True,
        codes=(_FORBIDDEN, _WHO, _UNKNOWN),
    ),
    Endpoint(
        "DELETE",
        "users/{user}/trusted-devices",
        forget_all_of,
        "Trust none of somebody's browsers any more (administrators)",
        answers=Forgotten,
        fresh=True,
        codes=(_FORBIDDEN, _WHO),
    ),
)
