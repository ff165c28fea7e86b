"""`mfa/webauthn/…`: security keys and passkeys, for pages and programs that ask the browser themselves."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from gateway.core.words import say
from gateway.web.answers import json
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import Confirmed, KeyAnswer, KeyAsk, KeyQuestion, NewKey, Proven, moment
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import fresh_to_bind, prove
from gateway.web.security_keys import not_offered, security_keys
from gateway.web.trusted import prove_and_trust, wished


async def register_begin(request: web.Request, _: Empty) -> KeyQuestion:
    """What to ask a new key."""
    me = await fresh_to_bind(request)
    return KeyQuestion(public_key=await security_keys(request).binding.begin(me))


async def register_complete(request: web.Request, body: NewKey) -> web.Response:
    """Its answer: the key counts from now on, and is proven."""
    caller = request[CALLER]
    me = await caller.signed_in()
    proof, codes = await security_keys(request).binding.complete(
        me, _text(body.credential), label=body.label, place=caller.place
    )
    answer = json(Confirmed(backup_codes=list(codes)).model_dump(mode="json"))
    await prove(request, proof, answer)
    return answer


async def authenticate_begin(request: web.Request, body: KeyAsk) -> KeyQuestion:
    """What to ask a key that is set up."""
    me, keys = await request[CALLER].signed_in(), security_keys(request)
    challenge = await request.app[DESK].stepups.look(body.challenge, me)
    if keys.factor.name not in challenge.offered or me.session is None:
        raise not_offered(say("This method does not answer this question."))
    return KeyQuestion(public_key=await keys.factor.ask(me.tenant, me.subject, challenge.asked(me.session.id)))


async def authenticate_complete(request: web.Request, body: KeyAnswer) -> web.Response:
    """Its answer."""
    desk, caller = request.app[DESK], request[CALLER]
    me, keys = await caller.signed_in(), security_keys(request)
    trusting = await wished(request, me, body.challenge, body.trust)
    proof = await desk.stepups.answer(body.challenge, me, keys.factor.name, _text(body.credential), caller.place)
    answer = web.Response(content_type="application/json")
    now, trusted = await prove_and_trust(request, me, proof, trusting, answer)
    proven = Proven(acr=now.level.acr, amr=list(now.amr), auth_time=moment(now.auth_time), trusted=trusted)
    answer.body = json(proven.model_dump(mode="json")).body
    return answer


def _text(credential: dict[str, Any]) -> str:
    """`credential` as JSON; nothing, which is none, where it is deeper than JSON of ours may be."""
    try:
        return orjson.dumps(credential).decode()
    except orjson.JSONEncodeError:
        return ""


_METHOD = (400, "ERR-MFA-METHOD")
_INVALID = (400, "ERR-MFA-INVALID")

ENDPOINTS = (
    Endpoint(
        "POST",
        "mfa/webauthn/register/begin",
        register_begin,
        "Begin a security key",
        answers=KeyQuestion,
        status=201,
        fresh=True,
        codes=(_METHOD, (403, "ERR-MFA-UNUSUAL"), (409, "ERR-MFA-TOO-MANY")),
    ),
    Endpoint(
        "POST",
        "mfa/webauthn/register/complete",
        register_complete,
        "Set it up with its answer",
        takes=NewKey,
        answers=Confirmed,
        codes=(
            _METHOD,
            _INVALID,
            (403, "ERR-MFA-KEY-REFUSED"),
            (403, "ERR-MFA-STEP-UP"),
            (409, "ERR-MFA-KEY-KNOWN"),
            (409, "ERR-MFA-TOO-MANY"),
            (410, "ERR-MFA-SETUP"),
        ),
    ),
    Endpoint(
        "POST",
        "mfa/webauthn/authenticate/begin",
        authenticate_begin,
        "Ask a security key",
        takes=KeyAsk,
        answers=KeyQuestion,
        status=201,
        codes=(_METHOD, (410, "ERR-MFA-CHALLENGE")),
    ),
    Endpoint(
        "POST",
        "mfa/webauthn/authenticate/complete",
        authenticate_complete,
        "Answer a challenge with a security key",
        takes=KeyAnswer,
        answers=Proven,
        codes=(
            _METHOD,
            _INVALID,
            (403, "ERR-MFA-DISABLED"),
            (410, "ERR-MFA-CHALLENGE"),
            (429, "ERR-MFA-THROTTLED"),
        ),
    ),
)
