"""`mfa/challenge`, `mfa/verify`: prove it again, for programs."""

from __future__ import annotations

from math import ceil

from aiohttp import web

from gateway.core.identity import Level
from gateway.core.rule import StepUpDemand
from gateway.web.answers import json
from gateway.web.api.endpoint import Endpoint
from gateway.web.api.models import Answer, Ask, Asked, Proven, Send, SendTo, Sent, moment
from gateway.web.caller import CALLER
from gateway.web.desk import DESK, Desk
from gateway.web.return_to import safe_path
from gateway.web.trusted import prove_and_trust, wished

_LEVELS = {level.acr: level for level in Level}


async def challenge(request: web.Request, body: Ask) -> Asked:
    """Ask."""
    desk, me = request.app[DESK], await request[CALLER].signed_in()
    demand = StepUpDemand(
        _LEVELS[body.acr_values],
        frozenset(body.factors),
        body.max_age,
        _trustable(desk, body),
        body.user_verification is not None,
    )
    after = safe_path(body.return_to, desk.prefix + "account")
    asked = await desk.stepups.look(await desk.stepups.begin(me, demand, return_to=after), me)
    targets = [
        SendTo(factor=name, id=one.id, to=one.masked)
        for name in asked.offered
        if (standing := await desk.stepups.standing(asked, me, name)) is not None
        for one in standing.targets
    ]
    return Asked(
        challenge=asked.ticket,
        offered=list(asked.offered),
        send_to=targets,
        expires_at=moment(asked.expires_at),
        verify_uri=f"{desk.prefix}verify/{asked.ticket}",
    )


def _trustable(desk: Desk, asked: Ask) -> float:
    """How long the browser may be trusted afterwards, in seconds: as after a rule that asks for the same."""
    plain = asked.acr_values == Level.AAL2.acr and not asked.factors and asked.max_age is None
    plain = plain and asked.user_verification is None
    return desk.trusted.lifetime if plain and desk.trusted is not None else 0.0


async def send(request: web.Request, body: Send) -> Sent:
    """Have a code sent."""
    desk, caller = request.app[DESK], request[CALLER]
    me = await caller.signed_in()
    sending = await desk.stepups.send(
        body.challenge, me, body.factor, to=body.id, language=caller.language, place=caller.place
    )
    return Sent(to=sending.masked, again_in=ceil(sending.again_in))


async def verify(request: web.Request, body: Answer) -> web.Response:
    """Answer."""
    desk, caller = request.app[DESK], request[CALLER]
    me = await caller.signed_in()
    trusting = await wished(request, me, body.challenge, body.trust)
    proof = await desk.stepups.answer(
        body.challenge,
        me,
        body.factor,
        body.code,
        caller.place,
    )
    answer = web.Response(content_type="application/json")
    now, trusted = await prove_and_trust(request, me, proof, trusting, answer)
    proven = Proven(acr=now.level.acr, amr=list(now.amr), auth_time=moment(now.auth_time), trusted=trusted)
    answer.body = json(proven.model_dump(mode="json")).body
    return answer


ENDPOINTS = (
    Endpoint("POST", "mfa/challenge", challenge, "Ask for a challenge", takes=Ask, answers=Asked, status=201),
    Endpoint(
        "POST",
        "mfa/send",
        send,
        "Have a code sent that answers a challenge",
        takes=Send,
        answers=Sent,
        codes=(
            (400, "ERR-MFA-METHOD"),
            (403, "ERR-MFA-DISABLED"),
            (410, "ERR-MFA-CHALLENGE"),
            (429, "ERR-MFA-RESEND"),
        ),
    ),
    Endpoint(
        "POST",
        "mfa/verify",
        verify,
        "Answer a challenge",
        takes=Answer,
        answers=Proven,
        codes=(
            (400, "ERR-MFA-INVALID"),
            (400, "ERR-MFA-METHOD"),
            (403, "ERR-MFA-DISABLED"),
            (410, "ERR-MFA-CHALLENGE"),
            (429, "ERR-MFA-THROTTLED"),
        ),
    ),
)
