"""Sign in with a name and a password.

An unknown name, a wrong password and a disabled user get the same answer: status, body, headers and, within the
noise of one password hash, time. Throttling counts by the name typed, whether or not there is such a user.

Whoever has as many sessions as they may (`sessions.when_full: refuse`) is told so, having shown the password; which
ones those are is not told to a browser that nobody is signed in with.

After success the person goes to `next`. Something they were sending when they were asked (`resume`) waits behind
one more page, for whoever signs in now need not be who filled in that form.
"""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote, urlencode

from aiohttp import web

from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind, Severity
from gateway.core.identity import NEVER, Identity, Proof
from gateway.core.words import say, sentences
from gateway.identity.device import LIFETIME as DEVICE_LIFETIME
from gateway.identity.users import User, canonical
from gateway.web import enrol_first, forms
from gateway.web.answers import challenge, page, redirect
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.return_to import safe_path
from gateway.web.trusted import stand_in
from gateway.web.words import LOST, wait

WRONG = say("The user name or the password is not right.")


async def show(request: web.Request) -> web.Response:
    """The form; or straight on, for somebody who is signed in and only lost their way."""
    query = request.query
    after, resume, reauth = safe_path(query.get("next"), ""), query.get("resume", ""), "reauth" in query
    lost = LOST.get(query.get("lost", ""), "")
    if (after or resume) and not reauth and await request[CALLER].identity() is not None:
        return redirect(onward(request, after, resume))
    return _form(request, after, resume, reauth=reauth, lost=lost)


async def submit(request: web.Request) -> web.Response:
    """Check, open a session, go on."""
    desk, caller = request.app[DESK], request[CALLER]
    form = await forms.read(request, "login")
    after, resume = safe_path(form.get("next"), ""), form.get("resume", "")
    typed, password = form.get("username", ""), form.get("password", "")
    try:
        account = canonical(typed)
    except UserError:
        account = "-"  # No user has this name, so whatever cannot be a name shares one counter.
    known = desk.device.is_known(caller.crumbs.get(caller.cookies.device, ""), account)

    desk.users.demand_room()
    seconds = await desk.throttle.admit(account, caller.facts.network, known)
    if seconds > 0:
        _tell(request, Kind.SIGN_IN_THROTTLED, Severity.WARNING, await _known_name(request, account))
        answer = _form(
            request,
            after,
            resume,
            typed,
            sentences(say("Too many tries."), wait(seconds, desk.clock.now())),
            429,
        )
        answer.headers["Retry-After"] = str(int(seconds) + 1)
        return answer

    try:
        user = await desk.users.verify(typed, password)
    except UserError:  # the room went to somebody else meanwhile: nobody has looked at it
        await desk.throttle.withdrawn(account, caller.facts.network, known)
        raise
    try:
        opened = await _open(request, user) if user is not None else None
    except UserError as error:  # the password was right; there is no room for them
        await desk.throttle.succeeded(account, caller.facts.network, known)
        _tell(request, Kind.SESSION_LIMIT, Severity.NOTICE, account)
        again = _again(request, after, resume)
        return page(request, "full.html", status=error.status, detail=error.detail, again=again)
    if user is None or opened is None:
        _tell(request, Kind.SIGN_IN_FAILED, Severity.NOTICE, await _known_name(request, account))
        answer = _form(request, after, resume, typed, WRONG, 401)
        answer.headers["WWW-Authenticate"] = challenge()
        return answer

    token, identity = opened  # from here on they are signed in, whatever cannot be remembered of it
    with suppress(StoreAway):
        await desk.throttle.succeeded(account, caller.facts.network, known)
    with suppress(StoreAway):
        await desk.learn(caller.facts, identity)
    _tell(request, Kind.SIGN_IN, Severity.INFO, account, identity, {} if known else {"new_browser": True})

    after = onward(request, after, resume)
    if identity.enrol_by != NEVER:
        after = enrol_first.location(desk.prefix, after)
    if not user.language or (known and caller.chosen and caller.chosen != user.language):
        with suppress(StoreAway):
            await desk.users.speak(user.tenant, user.subject, caller.language)
    answer = redirect(after)
    token = await stand_in(request, token, identity, answer)
    answer.headers.add("Set-Cookie", caller.cookies.set(caller.cookies.session, token))
    device = caller.cookies.set(caller.cookies.device, desk.device.make(account), DEVICE_LIFETIME)
    answer.headers.add("Set-Cookie", device)
    return answer


async def _open(request: web.Request, user: User) -> tuple[str, Identity] | None:
    """A session in the place of the one this browser had; None for somebody disabled a moment ago.

    Raises `UserError` ERR-SESSION-LIMIT.
    """
    desk, caller = request.app[DESK], request[CALLER]
    proof = Proof("password", desk.clock.now())
    try:
        return await desk.sessions.open(
            user, proof, address=caller.facts.address, agent=caller.facts.agent, replacing=caller.token or None
        )
    except UserError as error:
        if error.code == "ERR-SESSION-LIMIT":
            raise
        return None


def _again(request: web.Request, after: str, resume: str) -> str:
    """Back to the form, on the same way."""
    way = (("next", after), ("resume", resume))
    return f"{request.app[DESK].prefix}login?{urlencode([one for one in way if one[1]])}"


async def _known_name(request: web.Request, account: str) -> str:
    """For the ledger: people type their password where the name belongs, so only names that exist are written down."""
    return account if await request.app[DESK].users.find(account) is not None else ""


def onward(request: web.Request, after: str, resume: str) -> str:
    """Where to go after signing in: to `after`, past the page that offers to send on what was interrupted."""
    if resume:
        return f"{request.app[DESK].prefix}resume/{quote(resume, safe='')}?next={quote(after, safe='')}"
    return after or "/"


def _form(
    request: web.Request,
    after: str,
    resume: str,
    username: str = "",
    error: str = "",
    status: int = 200,
    *,
    reauth: bool = False,
    lost: str = "",
) -> web.Response:
    answer = page(
        request,
        "login.html",
        leads_on=True,
        again=_again(request, after, resume),
        status=status,
        csrf=forms.token(request, "login"),
        next=after,
        resume=resume,
        username=username[:256],
        error=error,
        reauth=reauth,
        lost=lost,
    )
    return forms.remember_browser(request, answer)


def _tell(
    request: web.Request,
    kind: Kind,
    severity: Severity,
    account: str,
    identity: Identity | None = None,
    detail: dict[str, bool] | None = None,
) -> None:
    request.app[DESK].ledger.note(
        request[CALLER].place.event(kind, severity, who=identity, user=account, detail=detail)
    )
