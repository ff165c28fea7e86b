"""The cookie of a browser that is trusted: given at a challenge, spent at the next sign-in.

It is `SameSite=Strict`: only forms of our own need it, and what our own pages send is same-site, also where a link of
another site led to them. So nothing that another site begins carries it.
"""

from __future__ import annotations

from contextlib import suppress

from aiohttp import web

from gateway.core.errors import StoreAway, UserError
from gateway.core.identity import Identity, Proof
from gateway.mfa.stepup import Challenge
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.proof import DOUBT, prove


def cookie_of(request: web.Request) -> str:
    """What the browser has, or empty; two of the name are none."""
    caller = request[CALLER]
    return caller.crumbs.get(caller.cookies.trusted, "")


async def offered(request: web.Request, identity: Identity, challenge: Challenge) -> bool:
    """Whether the browser may be trusted after `challenge`: where that would help, and nothing looks strange.

    Whoever has phished a code stands in a strange place; they are not let in for a month.
    """
    desk = request.app[DESK]
    if desk.trusted is None or challenge.demand.trusted <= 0.0:
        return False
    return (await desk.risk(request[CALLER].facts, identity)).value < DOUBT


async def prove_and_trust(
    request: web.Request, identity: Identity, proof: Proof, trusting: bool, answer: web.Response
) -> tuple[Identity, bool]:
    """`prove`, and with `trusting` this browser is trusted from now on; who it is now, and whether it is."""
    desk, caller = request.app[DESK], request[CALLER]
    if desk.trusted is None or not trusting:
        return await prove(request, proof, answer), False
    generation = await desk.trusted.generation(identity.tenant, identity.subject)
    proven = await prove(request, proof, answer)
    value = None
    with suppress(StoreAway):  # it is asked again next time
        value = await desk.trusted.trust(
            proven, generation, replacing=cookie_of(request), browser=caller.browser, place=caller.place
        )
    if value is not None:
        _set(request, answer, value, int(desk.trusted.lifetime))
    return proven, value is not None


async def wished(request: web.Request, identity: Identity, ticket: str, wish: bool) -> bool:
    """Whether a program's `wish` to have this browser trusted can be heard, for the challenge `ticket`.

    Raises `UserError` ERR-MFA-CHALLENGE where that is over.
    """
    if not wish:
        return False
    challenge = await request.app[DESK].stepups.look(ticket, identity, request[CALLER].place)
    return await offered(request, identity, challenge)


async def stand_in(request: web.Request, token: str, identity: Identity, answer: web.Response) -> str:
    """Have a trusted browser stand in for the second factor in the session of `token`, just opened; its token now.

    Whatever comes of it, somebody has signed in. The browser is told its next secret also where the session cannot be
    told, for the old one is spent.
    """
    desk, caller = request.app[DESK], request[CALLER]
    value = cookie_of(request)
    if desk.trusted is None or not value:
        return token
    used = await desk.trusted.use(identity, value, caller.browser, caller.place)
    if used.cookie is not None:
        _set(request, answer, used.cookie, used.left)
    if used.proof is not None:
        with suppress(UserError, StoreAway):  # it is at aal1 then, or over; either is asked for what is missing
            token, _ = await desk.sessions.prove(token, used.proof)
    return token


def _set(request: web.Request, answer: web.Response, value: str, left: int) -> None:
    cookies = request[CALLER].cookies
    answer.headers.add("Set-Cookie", cookies.set(cookies.trusted, value, left if value else 0, strict=True))
