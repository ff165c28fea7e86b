"""My account: second factors, backup codes, and where I am signed in."""

from __future__ import annotations

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.identity import NEVER, Identity, Level
from gateway.core.words import say
from gateway.web import forms
from gateway.web.answers import page, redirect
from gateway.web.caller import CALLER, NobodyHere, ProofTooOld
from gateway.web.desk import DESK
from gateway.web.enrol import show_codes
from gateway.web.proof import SECOND_FACTOR, forget_session, fresh
from gateway.web.trusted import cookie_of
from gateway.web.words import ago, browser, day, label, later, span

NOTICES = {
    "added": say("The authenticator app is set up."),
    "added-key": say("The security key is set up."),
    "added-number": say("The phone number is set up."),
    "added-address": say("The e-mail address is set up."),
    "removed": say("It was removed, and every other browser was signed out."),
    "ended": say("That browser was signed out."),
    "ended-others": say("Every other browser was signed out."),
    "notices": say("It is changed."),
    "extended": say("You stay signed in here."),
    "trusted-forgotten": say("That browser is trusted no more."),
    "trusted-all-forgotten": say("No browser is trusted any more."),
    "recovery-stopped": say(
        "It is stopped. If you did not ask for it, somebody else knows your password: have it changed."
    ),
    "confirmed-address": say("Your e-mail address is confirmed."),
    "preferred": say("From now on you are asked for that first."),
    "confirmed": say("Thank you. For the next five minutes you can change things here; please press the button again."),
}
"""By the value of `done`: what a redirect may say, so that no words travel in a URL."""


async def show(request: web.Request) -> web.Response:
    """The page."""
    identity = await request[CALLER].signed_in()
    return await _page(request, identity, notice=NOTICES.get(request.query.get("done", ""), ""))


async def remove_factor(request: web.Request) -> web.Response:
    """Take a factor away."""
    identity = await fresh(request)
    await forms.read(request, "account", identity.session_id)
    try:
        stays = await request.app[DESK].enrolment.remove(identity, request.match_info["factor"], request[CALLER].place)
    except UserError as error:
        return await _page(request, identity, error=error)
    answer = redirect(request.app[DESK].prefix + "account?done=removed")
    if not stays:
        forget_session(request, answer)
    return answer


async def forget_trusted(request: web.Request) -> web.Response:
    """Trust a browser no more."""
    return await _forget(request, request.match_info["device"], "trusted-forgotten")


async def forget_all_trusted(request: web.Request) -> web.Response:
    """Trust none any more."""
    return await _forget(request, "", "trusted-all-forgotten")


async def _forget(request: web.Request, device: str, done: str) -> web.Response:
    identity = await fresh(request)
    await forms.read(request, "account", identity.session_id)
    desk = request.app[DESK]
    if desk.trusted is not None:
        try:
            await desk.trusted.revoke(identity, device, place=request[CALLER].place)
        except UserError as error:
            return await _page(request, identity, error=error)
    return redirect(f"{desk.prefix}account?done={done}")


async def prefer(request: web.Request) -> web.Response:
    """Be asked for one factor first."""
    identity = await request[CALLER].signed_in()
    form = await forms.read(request, "account", identity.session_id)
    desk = request.app[DESK]
    try:
        await desk.factors.prefer(identity.tenant, identity.subject, form.get("factor", ""))
    except UserError as error:
        return await _page(request, identity, error=error)
    return redirect(desk.prefix + "account?done=preferred")


async def new_backup_codes(request: web.Request) -> web.Response:
    """Ten new codes; the old ones die."""
    identity = await fresh(request)
    await forms.read(request, "account", identity.session_id)
    desk = request.app[DESK]
    codes = await desk.enrolment.regenerate_backup_codes(identity, request[CALLER].place)
    return show_codes(request, codes, desk.prefix + "account", replaced=True)


async def end_session(request: web.Request) -> web.Response:
    """Sign one browser out."""
    identity = await fresh(request)
    await forms.read(request, "account", identity.session_id)
    desk = request.app[DESK]
    if not await desk.sessions.end(identity.tenant, identity.subject, request.match_info["session"]):
        raise UserError("ERR-SESSION", say("That browser is signed out already."), 404)
    return redirect(desk.prefix + "account?done=ended")


async def end_others(request: web.Request) -> web.Response:
    """Sign out everywhere but here."""
    identity = await fresh(request)
    await forms.read(request, "account", identity.session_id)
    desk = request.app[DESK]
    await desk.sessions.end_all(identity.tenant, identity.subject, but=identity.session_id)
    return redirect(desk.prefix + "account?done=ended-others")


async def choose_notices(request: web.Request) -> web.Response:
    """Be told more than changes to the security of the account, or no more."""
    identity = await fresh(request)
    fields = await forms.read(request, "account", identity.session_id)
    desk = request.app[DESK]
    if desk.preferences is not None:
        await desk.preferences.choose(identity, fields.get("more") == "yes", request[CALLER].place)
    return redirect(desk.prefix + "account?done=notices")


async def extend(request: web.Request) -> web.Response:
    """Begin the idle time of this browser anew."""
    caller = request[CALLER]
    identity = await caller.signed_in()
    await forms.read(request, "account", identity.session_id)
    try:
        await request.app[DESK].sessions.extend(caller.token)
    except UserError as error:
        raise NobodyHere("the session has just ended") from error
    return redirect(request.app[DESK].prefix + "account?done=extended")


async def stop_recovery(request: web.Request) -> web.Response:
    """Nothing is lost: whoever can press this has shown a second factor."""
    identity = await fresh(request)
    await forms.read(request, "account", identity.session_id)
    desk, caller = request.app[DESK], request[CALLER]
    if identity.level < Level.AAL2:
        raise ProofTooOld(SECOND_FACTOR)
    await desk.recoveries.proven(identity, caller.place)
    return redirect(desk.prefix + "account?done=recovery-stopped")


async def _page(
    request: web.Request, identity: Identity, *, notice: str = "", error: UserError | None = None
) -> web.Response:
    desk = request.app[DESK]
    now = desk.clock.now()
    status = await desk.enrolment.status(identity)
    addresses = await desk.factors.addresses(identity.tenant, identity.subject)
    sessions = await desk.sessions.list(identity.tenant, identity.subject)
    trusted = []
    if desk.trusted is not None:
        trusted = await desk.trusted.list(identity.tenant, identity.subject, cookie_of(request))
    answer = page(
        request,
        "account.html",
        again=f"{desk.prefix}account",
        status=error.status if error else 200,
        csrf=forms.token(request, "account", identity.session_id),
        notice=notice,
        error=error.detail if error else "",
        me=identity,
        unconfirmed=desk.own_address is not None
        and bool(identity.email)
        and not (await desk.own_address.standing(identity)).confirmed_at,
        recovering=await desk.recoveries.of(identity) is not None,
        administers=desk.enrolment.administers(identity),
        hears=desk.deliveries is not None,
        two_factors=identity.level >= Level.AAL2,
        confirmed=ago(identity.auth_time, now),
        required=status.required,
        enrol_by=day(identity.enrol_by) if identity.enrol_by != NEVER else "",
        factors=[
            {
                "id": one.id,
                "label": label(one.kind, one.label or addresses.get(one.id, "")),
                "sent": {"sms": say("text message"), "email": say("e-mail")}.get(one.kind, ""),
                "key": one.kind == "webauthn",
                "disabled": one.disabled,
                "added": ago(one.created_at, now),
                "used": ago(one.last_used_at, now) if one.last_used_at else "",
            }
            for one in status.enrolled
            if one.kind != "backup_code"
        ],
        ways=await _ways(request, identity),
        can_add="totp" in desk.factors.names,
        can_add_key=desk.security_keys is not None,
        can_add_number="sms" in desk.addresses,
        can_add_address="email" in desk.addresses,
        can_renew="backup_code" in desk.factors.names,
        left=status.backup_codes_left,
        until=day(status.backup_codes_expire_at) if status.backup_codes_left else "",
        hint=status.hint,
        trusted=[
            {
                "id": one.id,
                "here": one.here,
                "browser": browser(one.agent),
                "address": one.address,
                "added": ago(one.created_at, now),
                "used": ago(one.last_used_at, now) if one.last_used_at else "",
                "ends": later(one.expires_at, now),
            }
            for one in trusted
        ],
        told=desk.preferences is not None,
        told_more=desk.preferences is not None and await desk.preferences.more(identity),
        idle=span(desk.sessions.terms.of(identity.tenant).idle),
        sessions=[
            {
                "id": one.id,
                "here": one.id == identity.session_id,
                "browser": browser(one.agent),
                "address": one.address,
                "since": ago(one.created_at, now),
                "seen": ago(one.last_seen_at, now),
                "ends": later(one.expires_at, now),
            }
            for one in sorted(sessions, key=lambda one: (one.id != identity.session_id, -one.last_seen_at))
        ],
    )
    return forms.remember_browser(request, answer)


async def _ways(request: web.Request, identity: Identity) -> list[tuple[str, str, bool]]:
    """Factors to be asked for first: name, what people call it, whether it is; where there is something to choose."""
    desk = request.app[DESK]
    usable = [one for one in await desk.factors.usable(identity.tenant, identity.subject) if one != "backup_code"]
    if len(usable) < 2:
        return []
    preferred = await desk.factors.preferred(identity.tenant, identity.subject)
    ways = [(one, label(one, ""), one == preferred) for one in desk.factors.names if one in usable]
    return [("", say("The one I used last"), preferred not in usable), *ways]
