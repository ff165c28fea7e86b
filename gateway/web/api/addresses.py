"""`addresses…`: those that nothing is sent to, and having them written to again; for administrators."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.words import say
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import AddressItem, AddressList, AddressRelease, moment
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import acting_administrator, administrator

MOST = 100
"""Addresses of one answer."""


async def every(request: web.Request, _: Empty) -> AddressList:
    """The newest, as far as they fit."""
    me, deliveries = await administrator(request), request.app[DESK].deliveries
    found = await deliveries.every(me.tenant, MOST + 1) if deliveries is not None else ()
    return AddressList(addresses=[_item(one) for one in found[:MOST]], more=len(found) > MOST)


async def release(request: web.Request, body: AddressRelease) -> None:
    """Send to one of them again."""
    me, deliveries = await acting_administrator(request), request.app[DESK].deliveries
    if deliveries is None or not await deliveries.release(
        me.tenant, body.channel, body.address, by=me.user, place=request[CALLER].place
    ):
        raise UserError("ERR-ADDRESS-UNKNOWN", say("Nothing keeps us from sending there."), 404)


def _item(one: Any) -> AddressItem:
    return AddressItem(channel=one.channel, address=one.target, why=one.why, at=moment(one.at))


_FORBIDDEN = (403, "ERR-FORBIDDEN")

ENDPOINTS = (
    Endpoint(
        "GET",
        "addresses",
        every,
        "Addresses that nothing is sent to (administrators)",
        answers=AddressList,
        codes=(_FORBIDDEN, (401, "ERR-STEP-UP")),
    ),
    Endpoint(
        "POST",
        "addresses/release",
        release,
        "Send to an address again (administrators)",
        takes=AddressRelease,
        status=204,
        fresh=True,
        codes=(_FORBIDDEN, (404, "ERR-ADDRESS-UNKNOWN")),
    ),
)
