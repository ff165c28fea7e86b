"""`mfa/…`: the caller's second factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import Proof
from gateway.mfa.enrolment import Permit
from gateway.web.answers import json
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import BackupCodes, Confirm, Confirmed, Method, Methods, MfaStatus, TotpSetup, moment
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import fresh, prove
from gateway.web.words import label

if TYPE_CHECKING:
    from gateway.mfa.factors import Enrolled

_MAY_CHANGE = {Permit.YES: "yes", Permit.SIGN_IN_AGAIN: "sign_in_again", Permit.STEP_UP: "step_up"}


async def status(request: web.Request, _: Empty) -> MfaStatus:
    """Where the caller stands."""
    desk, me = request.app[DESK], await request[CALLER].signed_in()
    usable = await desk.factors.usable(me.tenant, me.subject)
    return MfaStatus.model_validate(
        {
            "enrolled": bool(usable),
            "required": desk.enrolment.required(me),
            "factors": list(usable),
            "backup_codes_left": await desk.enrolment.backup_codes_left(me),
            "acr": me.level.acr,
            "amr": list(me.amr),
            "auth_time": moment(me.auth_time),
            "may_change": _MAY_CHANGE[await desk.enrolment.may_change(me)],
        }
    )


async def methods(request: web.Request, _: Empty) -> Methods:
    """All of them."""
    me = await request[CALLER].signed_in()
    return Methods(methods=[_method(one) for one in await request.app[DESK].factors.of(me.tenant, me.subject)])


async def method(request: web.Request, _: Empty) -> Method:
    """One of them."""
    me = await request[CALLER].signed_in()
    for one in await request.app[DESK].factors.of(me.tenant, me.subject):
        if one.id == request.match_info["id"]:
            return _method(one)
    raise UserError("ERR-MFA-METHOD-UNKNOWN", "You have no such factor.", 404)


async def remove(request: web.Request, _: Empty) -> None:
    """Take one away."""
    me = await fresh(request)
    await request.app[DESK].enrolment.remove(me, request.match_info["id"])


async def disable(request: web.Request, _: Empty) -> None:
    """Take all away."""
    desk, me = request.app[DESK], await fresh(request)
    for one in await desk.factors.of(me.tenant, me.subject):
        await desk.enrolment.remove(me, one.id)


async def setup_totp(request: web.Request, _: Empty) -> TotpSetup:
    """A new secret."""
    setup = await request.app[DESK].enrolment.begin_totp(await fresh(request))
    return TotpSetup(id=setup.id, secret=setup.secret, uri=setup.uri)


async def setup_verify(request: web.Request, body: Confirm) -> web.Response:
    """The first code: the factor counts from now on, and is proven."""
    desk, caller = request.app[DESK], request[CALLER]
    me = await fresh(request)
    codes = await desk.enrolment.confirm(
        me,
        request.match_info["id"],
        body.code,
        address=caller.facts.address,
        agent=caller.facts.agent,
        request_id=caller.facts.request_id,
    )
    answer = json(Confirmed(backup_codes=list(codes)).model_dump(mode="json"))
    await prove(request, Proof("totp", desk.clock.now()), answer)
    return answer


async def regenerate(request: web.Request, _: Empty) -> BackupCodes:
    """Ten new codes."""
    codes = await request.app[DESK].enrolment.regenerate_backup_codes(await fresh(request))
    return BackupCodes(backup_codes=list(codes))


def _method(one: Enrolled) -> Method:
    return Method(
        id=one.id,
        kind=one.kind,
        label=label(one.kind, one.label),
        created_at=moment(one.created_at),
        last_used_at=moment(one.last_used_at) if one.last_used_at else None,
        disabled=one.disabled,
    )


_UNKNOWN = (404, "ERR-MFA-METHOD-UNKNOWN")
_REQUIRED = (403, "ERR-MFA-REQUIRED")

ENDPOINTS = (
    Endpoint("GET", "mfa/status", status, "Where I stand", answers=MfaStatus),
    Endpoint("GET", "mfa/methods", methods, "My second factors", answers=Methods),
    Endpoint("GET", "mfa/methods/{id}", method, "One of my second factors", answers=Method, codes=(_UNKNOWN,)),
    Endpoint(
        "DELETE", "mfa/methods/{id}", remove, "Remove a factor", status=204, fresh=True, codes=(_UNKNOWN, _REQUIRED)
    ),
    Endpoint("POST", "mfa/disable", disable, "Remove all my factors", status=204, fresh=True, codes=(_REQUIRED,)),
    Endpoint(
        "POST", "mfa/setup/totp", setup_totp, "Begin an authenticator app", answers=TotpSetup, status=201, fresh=True
    ),
    Endpoint(
        "POST",
        "mfa/setup/{id}/verify",
        setup_verify,
        "Confirm it with its first code",
        takes=Confirm,
        answers=Confirmed,
        fresh=True,
        codes=((400, "ERR-MFA-INVALID"), (410, "ERR-MFA-SETUP"), (429, "ERR-MFA-THROTTLED")),
    ),
    Endpoint(
        "POST",
        "mfa/backup-codes/regenerate",
        regenerate,
        "Replace my backup codes",
        answers=BackupCodes,
        fresh=True,
    ),
)
