"""`email…`: the address of the caller's account, and that they read what is sent there."""

from __future__ import annotations

from math import ceil

from aiohttp import web

from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import ConfirmAddress, OwnAddress, moment
from gateway.web.caller import CALLER
from gateway.web.own_address import asked_of
from gateway.web.proof import fresh_to_bind


async def show(request: web.Request, _: Empty) -> OwnAddress:
    """How it stands with it."""
    me = await request[CALLER].signed_in()
    found = await asked_of(request).standing(me)
    return OwnAddress(
        address=found.address,
        confirmed_at=moment(found.confirmed_at) if found.confirmed_at else None,
        sent=found.sent,
        again_in=ceil(found.again_in),
    )


async def send(request: web.Request, _: Empty) -> OwnAddress:
    """A code on its way."""
    me, caller = await fresh_to_bind(request), request[CALLER]
    await asked_of(request).send(me, language=caller.language, place=caller.place)
    return await show(request, Empty())


async def confirm(request: web.Request, body: ConfirmAddress) -> OwnAddress:
    """The code that came. Whoever was allowed to begin may end."""
    caller = request[CALLER]
    me = await caller.signed_in()
    await asked_of(request).confirm(me, body.code, caller.place)
    return await show(request, Empty())


_OFF = (404, "ERR-RECOVERY-OFF")

ENDPOINTS = (
    Endpoint("GET", "email", show, "The address of my account", answers=OwnAddress, codes=(_OFF,)),
    Endpoint(
        "POST",
        "email/send",
        send,
        "Have a code sent there",
        answers=OwnAddress,
        fresh=True,
        codes=(
            _OFF, (400, "ERR-UNREACHABLE"), (403, "ERR-MFA-UNUSUAL"), (409, "ERR-MFA-ADDRESS-KNOWN"),
            (429, "ERR-MFA-RESEND"),
        ),
    ),
    Endpoint(
        "POST",
        "email/confirm",
        confirm,
        "Confirm it with that code",
        takes=ConfirmAddress,
        answers=OwnAddress,
        codes=(_OFF, (400, "ERR-MFA-INVALID"), (429, "ERR-MFA-THROTTLED")),
    ),
)  # fmt: skip
