"""Fresh proof, before anything about an account changes.

Whoever finds an unlocked screen must not be able to add a factor of their own, take one away or throw the owner out.
One rule for all of it, the one that `mfa/enrolment` keeps: shown within the last minutes, the second factor where there
is one, else the password (ASVS 5.0, 7.5.1 and 7.5.2).
"""

from __future__ import annotations

from contextlib import suppress

from aiohttp import web

from gateway.core.errors import StoreAway, UserError
from gateway.core.identity import NO_SECOND_FACTOR, Identity, Level, Proof
from gateway.core.rule import StepUpDemand
from gateway.core.words import say
from gateway.mfa.enrolment import Permit
from gateway.web.caller import CALLER, NobodyHere, ProofTooOld
from gateway.web.desk import DESK

FRESH = 300.0
"""Seconds."""

DOUBT = 0.5
"""Risk score from which on nobody binds a first factor; where policies usually ask for a second one."""
UNUSUAL = say(
    "This sign-in looks unusual, so nothing can be set up from here. Use a browser or a network "
    "that you have signed in from before, or ask whoever looks after your account."
)

SECOND_FACTOR = StepUpDemand(Level.AAL2, max_age=FRESH)
DEMANDS = {Permit.SIGN_IN_AGAIN: StepUpDemand(Level.AAL1, max_age=FRESH), Permit.STEP_UP: SECOND_FACTOR}


async def fresh(request: web.Request) -> Identity:
    """Who is signed in, freshly proven. Raises `NobodyHere`, `ProofTooOld`.

    A second factor shown elsewhere does not count from a place that looks like somebody else's: a session stolen
    within minutes of its owner's proof would be enough to bind a factor of the thief's.
    """
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.signed_in()
    permit = await desk.enrolment.may_change(identity)
    if permit is not Permit.YES:
        raise ProofTooOld(DEMANDS[permit])
    if identity.level >= Level.AAL2:
        risk = await desk.risk(caller.facts, identity)
        given_here = risk.answered_at is None or desk.clock.now() - risk.answered_at <= FRESH
        if risk.value >= DOUBT and not given_here:
            raise ProofTooOld(SECOND_FACTOR)
    return identity


async def administrator(request: web.Request) -> Identity:
    """Who is signed in with two factors and may look at what is everybody's.

    Raises `NobodyHere`, `UserError` ERR-FORBIDDEN, `ProofTooOld` where there was no second factor.
    """
    identity = await request[CALLER].signed_in()
    if not request.app[DESK].enrolment.administers(identity):
        raise UserError("ERR-FORBIDDEN", say("This is for administrators."), 403)
    if identity.level < Level.AAL2:
        raise ProofTooOld(SECOND_FACTOR)
    return identity


async def acting_administrator(request: web.Request) -> Identity:
    """An `administrator` who has just proven it again, and may change what is somebody else's. Raises likewise."""
    await administrator(request)
    return await fresh(request)


async def may_bind_first(request: web.Request, identity: Identity) -> bool:
    """Whether somebody without any factor may bind their first one from where they are.

    The password is all there is to go by, and it may be stolen: from a place that looks like somebody else's, the
    thief would bind a factor of their own and with it answer every later question about how strange they are.
    """
    desk = request.app[DESK]
    if await desk.factors.of(identity.tenant, identity.subject):
        return True  # the factor that is there is asked for instead
    return (await desk.risk(request[CALLER].facts, identity)).value < DOUBT


async def fresh_to_bind(request: web.Request) -> Identity:
    """`fresh`, and in a place to be trusted with it. Raises `UserError` ERR-MFA-UNUSUAL too."""
    identity = await fresh(request)
    if not await may_bind_first(request, identity):
        raise UserError("ERR-MFA-UNUSUAL", UNUSUAL, 403)
    return identity


def forget_session(request: web.Request, answer: web.Response) -> None:
    """Have the browser forget a session that is over."""
    cookies = request[CALLER].cookies
    answer.headers.add("Set-Cookie", cookies.set(cookies.session, "", 0))


async def prove(request: web.Request, proof: Proof, answer: web.Response) -> Identity:
    """Put `proof` into the session, whose new token goes with `answer`. Raises `NobodyHere` if it has just ended."""
    desk, caller = request.app[DESK], request[CALLER]
    try:
        token, identity = await desk.sessions.prove(caller.token, proof)
    except UserError as error:
        raise NobodyHere("the session has just ended") from error
    answer.headers.add("Set-Cookie", caller.cookies.set(caller.cookies.session, token))
    # It is proven, and the token that the browser had is none any more: nothing may keep the new one from it.
    with suppress(StoreAway):  # this place stays as strange as it was
        await desk.learn(caller.facts, identity)
    if proof.factor not in NO_SECOND_FACTOR:
        with suppress(StoreAway):  # a recovery that is not told sees by itself that a factor was shown
            await desk.recoveries.proven(identity, caller.place)
    return identity
