"""What every request passes and every answer wears. Outermost first:

1. `dressed`     every answer gets the security headers, and is private unless its handler says otherwise
2. `caught`      every exception becomes an answer; a fault is told to the ledger and to nobody else
3. `introduced`  the wire says who calls; nobody but the wire is heard
4. `challenged`  who is not signed in, or has to prove it again, is told how
5. `counted`     too many requests of one address end here, before a cookie is looked up or a password hashed
6. `same_origin` an unsafe method comes from a page of ours, with a body we are willing to read
7. `owing`       who must have a second factor, and has had the time for it, sets one up before anything else

Where a browser's request comes from: `Sec-Fetch-Site` cannot be forged by a page and wins; without it `Origin` has
to name us. With neither the request is refused: a program that uses the session cookie sends `Origin` itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from traceback import extract_tb
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Event, Kind, Severity
from gateway.core.identity import Level
from gateway.core.page_headers import HEADERS
from gateway.core.rule import StepUpDemand
from gateway.core.words import say, sentences
from gateway.web import callbacks
from gateway.web.answers import challenge, problem, redirect, refusal, wants_page
from gateway.web.caller import CALLER, NobodyHere, NotTheWire, ProofTooOld, introduce
from gateway.web.desk import DESK
from gateway.web.own_limits import EVERYTHING, GUESSES, RULE
from gateway.web.words import wait

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY = 64 * 1024
"""Largest body read, in bytes."""

GUESSING = (
    "login", "verify/", "enrol/", "enrol-key", "enrol-code/", "recover", "api/v1/mfa/verify", "api/v1/mfa/setup/",
    "api/v1/mfa/webauthn/", "api/v1/mfa/recovery", "api/v1/mfa/send", "account/email", "api/v1/email",
)  # fmt: skip

OPEN = frozenset(
    {
        "login", "logout", "language", "enrol-first", "enrol", "enrol-key", "recover", "dialog/words",
        "whoami", "jwks.json", "client.js", "api/openapi.json", "api/docs",
        "api/v1/mfa/status", "api/v1/mfa/methods", "api/v1/mfa/recovery",
        "api/v1/mfa/challenge", "api/v1/mfa/send", "api/v1/mfa/verify", "api/v1/mfa/setup/totp",
    }
)  # fmt: skip
"""What is open to somebody who must set up a second factor first: that, proving it with one that does not count for
it, the way back in, signing out and in, and what is anybody's. Whatever is not named is closed to them."""
OPEN_BELOW = ("enrol/", "enrol-code/", "recover/", "verify/", "static/", "api/v1/mfa/setup/", "api/v1/mfa/webauthn/")

SIGN_IN = say("Please sign in.")

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@web.middleware
async def dressed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """1. The headers every answer wears."""
    answer = await handler(request)
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    answer.headers["Server"] = "sallyport"  # else aiohttp names every version it is made of
    if request.headers.get("Sallyport-Scheme") == "https":
        answer.headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    if answer.headers.setdefault("Cache-Control", "no-store") == "no-store":
        answer.headers["Vary"] = "Accept-Language, Cookie, Authorization"
    return answer


@web.middleware
async def caught(request: web.Request, handler: Handler) -> web.StreamResponse:
    """2. No exception leaves."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _from_aiohttp(request, error)
    except UserError as error:
        if error.status == 401:
            return _nobody(request, error.code, error.detail)
        detail = error.detail
        if error.retry_after > 0 and wants_page(request):
            detail = sentences(detail, wait(error.retry_after, request.app[DESK].clock.now()))
        return refusal(request, error.status, error.code, detail, retry_after=error.retry_after)
    except NotTheWire:
        return problem(request, 400, "ERR-NOT-THE-WIRE", say("This socket is the gateway's own."))
    except StoreAway as error:
        _tell(request, error)
        return refusal(
            request,
            503,
            "ERR-STORE-AWAY",
            say("We cannot look that up right now. Please try again soon."),
            retry_after=5.0,
        )
    except Exception as error:
        _tell(request, error)
        return refusal(request, 500, "ERR-FAULT", say("It has been noted. Please try again later."))


@web.middleware
async def introduced(request: web.Request, handler: Handler) -> web.StreamResponse:
    """3. Who calls."""
    request[CALLER] = introduce(request)
    return await handler(request)


@web.middleware
async def challenged(request: web.Request, handler: Handler) -> web.StreamResponse:
    """4. A way on, for people and for programs."""
    try:
        return await handler(request)
    except NobodyHere:
        return _nobody(request)
    except ProofTooOld as error:
        return await _prove_again(request, error.demand)


@web.middleware
async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """5. How often."""
    desk = request.app[DESK]
    guess = request.method == "POST" and request.path.removeprefix(desk.prefix).startswith(GUESSING)
    spent = desk.spend(GUESSES if guess else EVERYTHING, request[CALLER].facts, None, RULE, None)
    for quota in spent if isinstance(spent, tuple) else await spent:
        if quota.how == "away" and not quota.allowed:
            raise StoreAway("nobody can count")
        if not quota.allowed:
            raise UserError("ERR-THROTTLED", say("That was too often."), 429, max(1.0, quota.retry_after))
    return await handler(request)


@web.middleware
async def same_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """6. Where from, and in what wrapping."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UserError("ERR-ENCODING", say("Compressed bodies are not read here."), 415)
    signed = request.path.startswith(request.app[DESK].prefix + callbacks.PATH)  # in its own way, and no cookie is read
    if request.method not in SAFE and not signed and not _comes_from_us(request):
        raise UserError("ERR-CSRF", say("This request does not come from a page of ours."), 403)
    return await handler(request)


@web.middleware
async def owing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """7. First things first."""
    desk = request.app[DESK]
    if not _is_open(request.path.removeprefix(desk.prefix)):
        identity = await request[CALLER].identity()
        if identity is not None and desk.clock.now() >= identity.enrol_by:
            return _enrol_first(request)
    return await handler(request)


MIDDLEWARES: tuple[Middleware, ...] = (dressed, caught, introduced, challenged, counted, same_origin, owing)


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_BELOW)


def _enrol_first(request: web.Request) -> web.Response:
    desk = request.app[DESK]
    if wants_page(request):
        back = request.raw_path if request.method in SAFE else desk.prefix + "account"
        return redirect(f"{desk.prefix}enrol-first?next={quote(back, safe='')}")
    return problem(
        request,
        403,
        "ERR-MFA-ENROL",
        say("Your account must have a second factor. Set one up first."),
        more={"enrol": f"{desk.prefix}enrol-first", "challenge": f"{desk.prefix}dialog"},
    )


def _comes_from_us(request: web.Request) -> bool:
    site = request.headers.getall("Sec-Fetch-Site", [])
    origin = request.headers.getall("Origin", [])
    if origin and origin != ["null"] and origin != [request[CALLER].origin]:
        return False
    if site:
        return site == ["same-origin"]
    return origin == [request[CALLER].origin]


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> web.Response:
    words = {
        404: ("ERR-NOT-FOUND", say("No page has this address.")),
        405: ("ERR-METHOD", say("This address does not answer that method.")),
        413: ("ERR-TOO-LARGE", say("At most {size} KiB are read here.", size=BODY // 1024)),
    }
    code, detail = words.get(error.status, ("ERR-BAD-REQUEST", say("The request cannot be read.")))
    answer = refusal(request, error.status, code, detail)
    if "Allow" in error.headers:
        answer.headers["Allow"] = error.headers["Allow"]
    return answer


def _nobody(request: web.Request, code: str = "ERR-SIGN-IN", detail: str = SIGN_IN) -> web.Response:
    if wants_page(request):
        # A POST cannot be repeated by a redirect; its form is on the account page or a step away from it.
        back = request.raw_path if request.method in SAFE else request.app[DESK].prefix + "account"
        return redirect(f"{request.app[DESK].prefix}login?next={quote(back, safe='')}")
    more = {"challenge": f"{request.app[DESK].prefix}dialog"}
    answer = problem(request, 401, code, detail, more=more)
    answer.headers["WWW-Authenticate"] = challenge()
    return answer


async def _prove_again(request: web.Request, demand: StepUpDemand) -> web.Response:
    desk = request.app[DESK]
    if wants_page(request):
        back = request.raw_path if request.method in SAFE else f"{desk.prefix}account?done=confirmed"
        if demand.level < Level.AAL2:
            return redirect(f"{desk.prefix}login?reauth=1&next={quote(back, safe='')}")
        ticket = await desk.stepups.begin(await request[CALLER].signed_in(), demand, return_to=back)
        return redirect(f"{desk.prefix}verify/{ticket}")
    answer = problem(
        request,
        401,
        "ERR-STEP-UP",
        say("A fresh or stronger proof is required."),
        more={
            "acr_values": demand.level.acr,
            "max_age": int(demand.max_age or 0),
            "challenge": f"{desk.prefix}dialog?{_asked(demand)}",
        },
    )
    answer.headers["WWW-Authenticate"] = challenge(demand)
    return answer


def _asked(demand: StepUpDemand) -> str:
    """How the dialog is told: a sign-in, or a second factor."""
    if demand.level < Level.AAL2:
        return "reauth=1"
    age = "" if demand.max_age is None else f"&max_age={int(demand.max_age)}"
    return f"acr_values={demand.level.acr}{age}"


def _tell(request: web.Request, error: Exception) -> None:
    """The kind of error and where it rose, but none of its words: they may quote what a person typed."""
    caller = request.get(CALLER)
    frames = [f"{frame.filename.rpartition('gateway/')[2]}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
    request.app[DESK].ledger.note(
        Event(
            Kind.FAULT,
            Severity.ALARM,
            address=caller.facts.address if caller else "",
            request_id=request.headers.get("Sallyport-Request-Id", ""),
            detail={"room": "web", "error": type(error).__name__, "trace": frames[-6:]},
        )
    )
