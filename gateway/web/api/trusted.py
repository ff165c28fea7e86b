"""`mfa/trusted-devices…`: the browsers that the caller trusts. Where none can be trusted the list is empty."""

from __future__ import annotations

from aiohttp import web

from gateway.core.errors import UserError
from gateway.mfa.trusted_devices import Trusted
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import Forgotten, TrustedDevice, TrustedDeviceList, moment
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import fresh
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
    await desk.trusted.revoke(me, request.match_info["id"], **request[CALLER].place)


async def forget_all(request: web.Request, _: Empty) -> Forgotten:
    """Trust none any more."""
    me = await fresh(request)
    desk = request.app[DESK]
    count = await desk.trusted.revoke(me, **request[CALLER].place) if desk.trusted is not None else 0
    return Forgotten(forgotten=count)


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
    return UserError("ERR-MFA-UNKNOWN", "You trust no such browser.", 404)


_UNKNOWN = (404, "ERR-MFA-UNKNOWN")

ENDPOINTS = (
    Endpoint("GET", "mfa/trusted-devices", every, "Browsers that I trust", answers=TrustedDeviceList),
    Endpoint("GET", "mfa/trusted-devices/{id}", one, "One of them", answers=TrustedDevice, codes=(_UNKNOWN,)),
    Endpoint(
        "DELETE", "mfa/trusted-devices/{id}", forget, "Trust it no more", status=204, fresh=True, codes=(_UNKNOWN,)
    ),
    Endpoint("DELETE", "mfa/trusted-devices", forget_all, "Trust none any more", answers=Forgotten, fresh=True),
)
