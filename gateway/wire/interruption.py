"""When the gate says "not yet": how to get to yes, and how what was interrupted goes on afterwards.

People are sent to a page of ours, programs get a challenge. A form that had to wait is kept sealed; its sender comes
back with a GET and a cookie that names it, and the service gets the request as it was, once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.core.decision import Allow, SignIn, StepUp, Throttle, Verdict
from gateway.core.eager import aside
from gateway.core.errors import UserError
from gateway.core.facts import Facts
from gateway.limits.headers import ratelimit_headers
from gateway.wire import answers, request

if TYPE_CHECKING:
    from gateway.mfa.interrupted import Interrupted
    from gateway.wire.exchange import Exchange

_FORM = b"application/x-www-form-urlencoded"
_FRAMING = (b"content-length", b"transfer-encoding")
_WAY = (b"x-forwarded-for", b"x-forwarded-proto", b"forwarded")


async def answer(exchange: Exchange, facts: Facts, verdict: Verdict) -> None:
    """Say no, or how to get to yes."""
    decision = verdict.decision
    navigation = answers.is_navigation(facts)
    page = exchange.wire.error_page if navigation else None
    if isinstance(decision, SignIn | StepUp):
        if not navigation or exchange.wire.desk is None:
            exchange.reply(*answers.unauthorized(decision, exchange.request_id))
            return
        await aside()
        if isinstance(decision, SignIn):
            await _to_sign_in(exchange, facts, decision)
        else:
            await _to_step_up(exchange, facts, verdict, decision)
    elif isinstance(decision, Throttle):
        status, headers, body = answers.denied(decision, exchange.request_id, page)
        exchange.reply(status, [*headers, *ratelimit_headers(verdict.quotas)], body)
    elif not isinstance(decision, Allow):
        exchange.reply(*answers.denied(decision, exchange.request_id, page))


async def _to_sign_in(exchange: Exchange, facts: Facts, decision: SignIn) -> None:
    wire = exchange.wire
    cookies = []
    ticket = ""
    if _is_form(exchange, facts):
        browser, made = wire.browser_of(facts.cookie)
        ticket = await _keep(exchange, facts, f"browser:{browser}")
        if made:
            cookies.append(wire.cookies.set(wire.cookies.browser, browser))
    location = answers.login_location(wire.prefix, _comes_back_to(exchange, facts, ticket), decision, ticket)
    exchange.reply(*answers.see_other(location, cookies))


async def _to_step_up(exchange: Exchange, facts: Facts, verdict: Verdict, decision: StepUp) -> None:
    identity = verdict.identity
    stepups = exchange.wire.stepups
    if identity is None or identity.session is None or stepups is None:
        raise RuntimeError("a step-up for nobody")
    ticket = await _keep(exchange, facts, f"session:{identity.session.id}") if _is_form(exchange, facts) else ""
    challenge = await stepups.begin(
        identity, decision.demand, return_to=_comes_back_to(exchange, facts, ticket), resume=ticket
    )
    exchange.reply(*answers.see_other(f"{exchange.wire.prefix}verify/{challenge}"))


def _is_form(exchange: Exchange, facts: Facts) -> bool:
    """Whether this is a form a browser sent, small enough to be kept."""
    kind = facts.header(b"content-type")
    return (
        exchange.method == "POST"
        and len(kind) == 1
        and kind[0].partition(b";")[0].strip().lower() == _FORM
        and exchange.length <= exchange.wire.bounds.interrupted
    )


def _comes_back_to(exchange: Exchange, facts: Facts, ticket: str) -> str:
    """Where the browser goes on: the target, or for a request that could not be kept the page it came from."""
    if ticket or exchange.method in ("GET", "HEAD"):
        return facts.target.decode("ascii")
    return answers.referred(facts, f"{exchange.wire.scheme}://{_authority(exchange)}")


async def _keep(exchange: Exchange, facts: Facts, owner: str) -> str:
    """Seal the request until its sender has proven who they are; its ticket, or empty where it is too large."""
    from gateway.mfa.interrupted import Interrupted  # brings cryptography, which only sign-in needs

    interrupted = exchange.wire.interrupted
    body = await _whole_body(exchange, exchange.wire.bounds.interrupted)
    if body is None or interrupted is None:
        return ""
    kept = exchange.resumed or Interrupted(
        facts.method,
        _authority(exchange),
        facts.target,
        tuple(field for field in exchange.fields if field[0].lower() not in (b"cookie", b"expect", b"connection")),
        body,
    )
    try:
        return await interrupted.keep(owner, kept)
    except UserError:
        return ""


async def resume(exchange: Exchange, facts: Facts) -> Facts:
    """Become the kept request, when this is the browser coming back to where it was interrupted.

    After the proof the browser is sent (303) to the address it was posting to, with a cookie that names what was
    kept. The service gets the request as it was; the browser holds nothing that a reload could send again, and
    neither the proof nor its form ever travels to the service. Returns the facts of the request as it was; a
    ticket that is used up, expired or somebody else's leaves this an ordinary request.
    """
    await aside()
    wire = exchange.wire
    interrupted = wire.interrupted
    ticket = wire.resume_ticket(facts.cookie)
    if ticket is None or interrupted is None:
        return facts
    for owner in await wire.owners_of(facts):
        kept = await interrupted.peek(ticket, owner)
        if kept is None:
            continue
        if (kept.host, kept.target) != (_authority(exchange), facts.target):
            return facts  # another page, opened meanwhile
        kept = await interrupted.claim(ticket, owner)
        if kept is not None:
            return _as_it_was(exchange, facts, kept)
    return facts


def _as_it_was(exchange: Exchange, facts: Facts, kept: Interrupted) -> Facts:
    """Become the kept request, with the cookies and the way of now: the session is another one since, and what
    a trusted proxy said of the client then may no longer be so."""
    exchange.resumed = kept
    exchange.method = kept.method
    way = [field for field in exchange.fields if field[0].lower() in _WAY]
    exchange.fields = [field for field in kept.headers if field[0].lower() not in (*_WAY, *_FRAMING)] + way
    if facts.cookie:
        exchange.fields.append((b"Cookie", facts.cookie))
    exchange.caller = exchange.client.caller_of(exchange)
    exchange.facts = request.read(kept.method, kept.target, exchange.caller, exchange.request_id)
    exchange.length = len(kept.body)
    exchange.chunks = [kept.body] if kept.body else []
    exchange.pending = len(kept.body)
    return exchange.facts


def _authority(exchange: Exchange) -> str:
    return exchange.caller.authority.raw.decode() if exchange.caller is not None else ""


async def _whole_body(exchange: Exchange, limit: int) -> bytes | None:
    """The body, once it has arrived; None where it is larger than `limit` bytes."""
    exchange.invite_body()
    while not exchange.complete and exchange.pending <= limit:
        exchange.waiter = asyncio.get_running_loop().create_future()
        exchange.client.resume_reading()
        await exchange.waiter
    if exchange.pending > limit:
        return None
    body = b"".join(exchange.chunks)
    exchange.chunks = [body] if body else []
    return body
