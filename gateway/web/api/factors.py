"""`mfa/…`: the caller's second factors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import NEVER, Proof
from gateway.mfa.enrolment import Permit
from gateway.web.answers import json
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import BackupCodes, Confirm, Confirmed, Method, Methods, MfaStatus, TotpSetup, moment
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import end_what_rested_on_it, fresh, fresh_to_bind, prove
from gateway.web.words import label

if TYPE_CHECKING:
    from gateway.mfa.factors import Enrolled

_MAY_CHANGE = {Permit.YES: "yes", Permit.SIGN_IN_AGAIN: "sign_in_again", Permit.STEP_UP: "step_up"}


async def standing(request: web.Request, _: Empty) -> MfaStatus:
    """Where the caller stands."""
    desk, me = request.app[DESK], await request[CALLER].signed_in()
    usable, status = await desk.factors.usable(me.tenant, me.subject), await desk.enrolment.status(me)
    return MfaStatus.model_validate(
        {
            "enrolled": bool(usable),
            "required": status.required,
            "enrol_by": moment(me.enrol_by) if me.enrol_by != NEVER else None,
            "factors": list(usable),
            "backup_codes_left": status.backup_codes_left,
            "backup_codes_expire_at": moment(status.backup_codes_expire_at) if status.backup_codes_left else None,
            "hint": status.hint,
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
    raise UserError("ERR-MFA-UNKNOWN", "You have no such method.", 404)


async def remove(request: web.Request, _: Empty) -> web.Response:
    """Take one away."""
    me = await fresh(request)
    await request.app[DESK].enrolment.remove(me, request.match_info["id"], **request[CALLER].place)
    answer = web.Response(status=204)
    await end_what_rested_on_it(request, me, answer)
    return answer


async def disable(request: web.Request, _: Empty) -> web.Response:
    """Take all away."""
    me = await fresh(request)
    await request.app[DESK].enrolment.disable(me, **request[CALLER].place)
    answer = web.Response(status=204)
    await end_what_rested_on_it(request, me, answer)
    return answer


async def setup_totp(request: web.Request, _: Empty) -> TotpSetup:
    """A new secret."""
    setup = await request.app[DESK].enrolment.begin_totp(await fresh_to_bind(request))
    return TotpSetup(id=setup.id, secret=setup.secret, uri=setup.uri)


async def setup_verify(request: web.Request, body: Confirm) -> web.Response:
    """The first code: the factor counts from now on, and is proven."""
    desk, caller = request.app[DESK], request[CALLER]
    me = await caller.signed_in()
    codes = await desk.enrolment.confirm(
        me,
        request.match_info["id"],
        body.code,
        label=body.label,
        **caller.place,
    )
    answer = json(Confirmed(backup_codes=list(codes)).model_dump(mode="json"))
    await prove(request, Proof("totp", desk.clock.now()), answer)
    return answer


async def regenerate(request: web.Request, _: Empty) -> BackupCodes:
    """Ten new codes."""
    me = await fresh(request)
    codes = await request.app[DESK].enrolment.regenerate_backup_codes(me, **request[CALLER].place)
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


_UNKNOWN = (404, "ERR-MFA-UNKNOWN")
_REQUIRED = (403, "ERR-MFA-REQUIRED")

ENDPOINTS = (
    Endpoint("GET", "mfa/status", standing, "Where I stand", answers=MfaStatus),
    Endpoint("GET", "mfa/methods", methods, "My second factors", answers=Methods),
    Endpoint("GET", "mfa/methods/{id}", method, "One of my second factors", answers=Method, codes=(_UNKNOWN,)),
    Endpoint(
        "DELETE", "mfa/methods/{id}", remove, "Remove a factor", status=204, fresh=True, codes=(_UNKNOWN, _REQUIRED)
    ),
    Endpoint("POST", "mfa/disable", disable, "Remove all my factors", status=204, fresh=True, codes=(_REQUIRED,)),
    Endpoint(
        "POST",
        "mfa/setup/totp",
        setup_totp,
        "Begin an authenticator app",
        answers=TotpSetup,
        status=201,
        fresh=True,
        codes=((403, "ERR-MFA-UNUSUAL"), (409, "ERR-MFA-TOO-MANY")),
    ),
    Endpoint(
        "POST",
        "mfa/setup/{id}/verify",
        setup_verify,
        "Confirm it with its first code",
        takes=Confirm,
        answers=Confirmed,
        codes=((400, "ERR-MFA-INVALID"), (410, "ERR-MFA-SETUP"), (429, "ERR-MFA-THROTTLED")),
    ),
    Endpoint(
        "POST",
        "mfa/backup-codes/regenerate",
        regenerate,
        "Replace my backup codes",
        answers=BackupCodes,
        fresh=True,
        codes=((409, "ERR-MFA-NO-DEVICE"),),
    ),
)
