"""`mfa/…`: the caller's second factors."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import NEVER, Proof
from gateway.core.words import say
from gateway.mfa.enrolment import Permit
from gateway.web.answers import json, told
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import (
    BackupCodes,
    CodeSetup,
    Confirm,
    Confirmed,
    Method,
    Methods,
    MfaStatus,
    NewAddress,
    NewNumber,
    Preference,
    TotpSetup,
    moment,
)
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import forget_session, fresh, fresh_to_bind, prove
from gateway.web.security_keys import not_offered
from gateway.web.words import label

if TYPE_CHECKING:
    from gateway.mfa.codes.binding import Addresses, Setup
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
            "preferred": await desk.factors.preferred(me.tenant, me.subject),
            "backup_codes_left": status.backup_codes_left,
            "backup_codes_expire_at": moment(status.backup_codes_expire_at) if status.backup_codes_left else None,
            "hint": told(request, status.hint),
            "acr": me.level.acr,
            "amr": list(me.amr),
            "auth_time": moment(me.auth_time),
            "may_change": _MAY_CHANGE[await desk.enrolment.may_change(me)],
        }
    )


async def prefer(request: web.Request, body: Preference) -> None:
    """Be asked for one of them first."""
    me = await request[CALLER].signed_in()
    await request.app[DESK].factors.prefer(me.tenant, me.subject, body.factor)


async def methods(request: web.Request, _: Empty) -> Methods:
    """All of them."""
    me = await request[CALLER].signed_in()
    factors = request.app[DESK].factors
    addresses = await factors.addresses(me.tenant, me.subject)
    return Methods(methods=[_method(request, one, addresses) for one in await factors.of(me.tenant, me.subject)])


async def method(request: web.Request, _: Empty) -> Method:
    """One of them."""
    me = await request[CALLER].signed_in()
    factors = request.app[DESK].factors
    for one in await factors.of(me.tenant, me.subject):
        if one.id == request.match_info["id"]:
            return _method(request, one, await factors.addresses(me.tenant, me.subject))
    raise UserError("ERR-MFA-UNKNOWN", say("You have no such method."), 404)


async def remove(request: web.Request, _: Empty) -> web.Response:
    """Take one away."""
    me = await fresh(request)
    answer = web.Response(status=204)
    if not await request.app[DESK].enrolment.remove(me, request.match_info["id"], request[CALLER].place):
        forget_session(request, answer)
    return answer


async def disable(request: web.Request, _: Empty) -> web.Response:
    """Take all away."""
    me = await fresh(request)
    await request.app[DESK].enrolment.disable(me, request[CALLER].place)
    answer = web.Response(status=204)
    forget_session(request, answer)
    return answer


async def setup_totp(request: web.Request, _: Empty) -> TotpSetup:
    """A new secret."""
    setup = await request.app[DESK].enrolment.begin_totp(await fresh_to_bind(request))
    return TotpSetup(id=setup.id, secret=setup.secret, uri=setup.uri)


async def setup_sms(request: web.Request, body: NewNumber) -> CodeSetup:
    """A code to a number."""
    return await _begin(request, "sms", body.number)


async def setup_email(request: web.Request, body: NewAddress) -> CodeSetup:
    """A code to an e-mail address."""
    return await _begin(request, "email", body.address)


async def setup_send(request: web.Request, _: Empty) -> CodeSetup:
    """Another code."""
    me, setup_id = await request[CALLER].signed_in(), request.match_info["id"]
    addresses = _addresses(request, setup_id)
    if addresses is None:
        raise UserError("ERR-MFA-SETUP", say("This setup is no longer open. Start it again."), 410)
    return _code_setup(
        await addresses.again(me, setup_id, language=request[CALLER].language, place=request[CALLER].place)
    )


async def setup_verify(request: web.Request, body: Confirm) -> web.Response:
    """The first code: the factor counts from now on, and is proven."""
    desk, caller = request.app[DESK], request[CALLER]
    me, setup_id = await caller.signed_in(), request.match_info["id"]
    addresses = _addresses(request, setup_id)
    if addresses is not None:
        proof, codes = await addresses.confirm(me, setup_id, body.code, label=body.label, place=caller.place)
    else:
        codes = await desk.enrolment.confirm(me, setup_id, body.code, label=body.label, place=caller.place)
        proof = Proof("totp", desk.clock.now())
    answer = json(Confirmed(backup_codes=list(codes)).model_dump(mode="json"))
    await prove(request, proof, answer)
    return answer


async def regenerate(request: web.Request, _: Empty) -> BackupCodes:
    """Ten new codes."""
    me = await fresh(request)
    codes = await request.app[DESK].enrolment.regenerate_backup_codes(me, request[CALLER].place)
    return BackupCodes(backup_codes=list(codes))


async def _begin(request: web.Request, factor: str, typed: str) -> CodeSetup:
    me = await fresh_to_bind(request)
    addresses = request.app[DESK].addresses.get(factor)
    if addresses is None:
        raise not_offered(say("This method is not in use here."))
    return _code_setup(await addresses.begin(me, typed, language=request[CALLER].language, place=request[CALLER].place))


def _addresses(request: web.Request, setup_id: str) -> Addresses | None:
    return next((one for one in request.app[DESK].addresses.values() if one.owns(setup_id)), None)


def _code_setup(setup: Setup) -> CodeSetup:
    return CodeSetup(id=setup.id, to=setup.masked, again_in=ceil(setup.again_in))


def _method(request: web.Request, one: Enrolled, addresses: Mapping[str, str]) -> Method:
    return Method(
        id=one.id,
        kind=one.kind,
        label=told(request, label(one.kind, one.label or addresses.get(one.id, ""))),
        created_at=moment(one.created_at),
        last_used_at=moment(one.last_used_at) if one.last_used_at else None,
        disabled=one.disabled,
    )


_UNKNOWN = (404, "ERR-MFA-UNKNOWN")
_METHOD = (400, "ERR-MFA-METHOD")
_SENT = (
    (400, "ERR-UNREACHABLE"),
    (403, "ERR-MFA-UNUSUAL"),
    (409, "ERR-MFA-ADDRESS-KNOWN"),
    (409, "ERR-MFA-TOO-MANY"),
    (429, "ERR-MFA-RESEND"),
)
_REQUIRED = (403, "ERR-MFA-REQUIRED")

ENDPOINTS = (
    Endpoint("GET", "mfa/status", standing, "Where I stand", answers=MfaStatus),
    Endpoint(
        "POST",
        "mfa/preference",
        prefer,
        "Be asked for one of them first",
        takes=Preference,
        status=204,
        codes=((400, "ERR-MFA-METHOD"),),
    ),
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
        "mfa/setup/sms",
        setup_sms,
        "Begin a phone number: a code is sent there",
        takes=NewNumber,
        answers=CodeSetup,
        status=201,
        fresh=True,
        codes=(_METHOD, (400, "ERR-PHONE-INVALID"), (400, "ERR-PHONE-REFUSED"), *_SENT),
    ),
    Endpoint(
        "POST",
        "mfa/setup/email",
        setup_email,
        "Begin an e-mail address: a code is sent there",
        takes=NewAddress,
        answers=CodeSetup,
        status=201,
        fresh=True,
        codes=(_METHOD, (400, "ERR-EMAIL-INVALID"), *_SENT),
    ),
    Endpoint(
        "POST",
        "mfa/setup/{id}/send",
        setup_send,
        "Have another code sent",
        answers=CodeSetup,
        codes=((410, "ERR-MFA-SETUP"), (429, "ERR-MFA-RESEND")),
    ),
    Endpoint(
        "POST",
        "mfa/setup/{id}/verify",
        setup_verify,
        "Confirm it with its first code",
        takes=Confirm,
        answers=Confirmed,
        codes=(
            (400, "ERR-MFA-INVALID"),
            (403, "ERR-MFA-STEP-UP"),
            (409, "ERR-MFA-ADDRESS-KNOWN"),
            (409, "ERR-MFA-TOO-MANY"),
            (410, "ERR-MFA-SETUP"),
            (429, "ERR-MFA-THROTTLED"),
        ),
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
