"""When the gate says "not yet": how to get to yes, and how what was interrupted goes on afterwards.

People are sent to a page of ours; programs and scripts get a challenge, and send again themselves. What a browser was
sending is kept sealed; its sender comes back with a GET and a cookie that names it, and the service gets the request
as it was, once. What has not reached a service, because there was none to be had, is given back and waits again.

What a page of another site made a browser send is not kept: browsers do not send our cookies with it, so that it
arrives as nobody's, and to send it again as somebody's would undo that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

from gateway.core.decision import Allow, SignIn, StepUp, Throttle, Verdict
from gateway.core.eager import aside
from gateway.core.errors import SallyportError, UserError
from gateway.core.facts import Facts
from gateway.core.reasons import Reason
from gateway.core.words import say
from gateway.limits.headers import ratelimit_headers
from gateway.wire import answers, request
from gateway.wire.origin import comes_from_us

if TYPE_CHECKING:
    from gateway.mfa.interrupted import Interrupted, InterruptedRequests
    from gateway.wire.exchange import Exchange

_log = logging.getLogger(__name__)

_FRAMING = (b"content-length", b"transfer-encoding")
_LEFT_OUT = (b"cookie", b"expect", b"connection")
_WAY = (b"x-forwarded-for", b"x-forwarded-proto", b"forwarded")
_OF_THIS_SITE = (b"same-origin", b"same-site", b"none")
"""`Sec-Fetch-Site` of requests with which a browser sends our cookies, whatever their method."""
THROWN_AWAY = 67_108_864
"""Bytes of a body that is too large to be kept and still read: a browser that sends reads no answer meanwhile."""
WORDS = {"ERR-INTERRUPTED-TOO-LARGE": "large", "ERR-INTERRUPTED-BUSY": "busy"}
"""How pages are told why something could not be kept (`lost`); `elsewhere`: a page of another site sent it."""


async def answer(exchange: Exchange, facts: Facts, verdict: Verdict) -> None:
    """Say no, or how to get to yes."""
    decision = verdict.decision
    navigation = answers.is_navigation(facts)
    page = answers.page_for(exchange.wire.error_page, facts)
    if isinstance(decision, SignIn | StepUp):
        wire = exchange.wire
        if not navigation or wire.desk is None:
            prefix = wire.prefix if wire.desk is not None else ""
            exchange.reply(*answers.unauthorized(decision, exchange.request_id, prefix))
            return
        await aside()
        if isinstance(decision, SignIn):
            await _to_sign_in(exchange, facts, verdict, decision)
        else:
            await _to_step_up(exchange, facts, verdict, decision)
    elif answers.owes_factor(decision):
        await _to_enrolment(exchange, facts, verdict)
    elif isinstance(decision, Throttle):
        await _waits_again(exchange)
        status, headers, body = answers.denied(decision, exchange.request_id, page)
        exchange.reply(status, [*headers, *ratelimit_headers(verdict.quotas)], body)
    elif not isinstance(decision, Allow):
        if decision.status >= 500:
            await _waits_again(exchange)
        exchange.reply(*answers.denied(decision, exchange.request_id, page))


async def _waits_again(exchange: Exchange) -> None:
    """What is refused for now may go on later."""
    if exchange.resumed is not None:
        exchange.begun = True
        await asyncio.shield(exchange.wire.owe(left(exchange)))


async def _to_sign_in(exchange: Exchange, facts: Facts, verdict: Verdict, decision: SignIn) -> None:
    wire = exchange.wire
    cookies = []
    ticket = lost = ""
    if exchange.method == "POST":
        browser, made = wire.browser_of(facts.cookie)
        whose = wire.whose(facts, verdict.identity)
        ticket, lost = await _keep(exchange, facts, verdict, f"browser:{browser}", whose)
        if ticket and made:
            cookies.append(wire.cookies.set(wire.cookies.browser, browser))
    location = answers.login_location(wire.prefix, _comes_back_to(exchange, facts, ticket), decision, ticket, lost)
    exchange.reply(*answers.see_other(location, cookies))


async def _to_step_up(exchange: Exchange, facts: Facts, verdict: Verdict, decision: StepUp) -> None:
    identity = verdict.identity
    stepups = exchange.wire.stepups
    if identity is None or identity.session is None or stepups is None:
        raise RuntimeError("a step-up for nobody")
    ticket = lost = ""
    if exchange.method == "POST":
        owner, whose = f"session:{identity.session.id}", f"user:{identity.user}"
        ticket, lost = await _keep(exchange, facts, verdict, owner, whose)
    challenge = await stepups.begin(
        identity, decision.demand, return_to=_comes_back_to(exchange, facts, ticket), resume=ticket
    )
    said = f"?lost={lost}" if lost else ""
    exchange.reply(*answers.see_other(f"{exchange.wire.prefix}verify/{challenge}{said}"))


async def _to_enrolment(exchange: Exchange, facts: Facts, verdict: Verdict) -> None:
    wire, identity = exchange.wire, verdict.identity
    if not answers.is_navigation(facts) or wire.desk is None:
        exchange.reply(*answers.enrol_first(exchange.request_id, wire.prefix if wire.desk is not None else ""))
        return
    await aside()
    ticket = lost = ""
    if exchange.method == "POST" and identity is not None and identity.session is not None:
        owner, whose = f"session:{identity.session.id}", f"user:{identity.user}"
        ticket, lost = await _keep(exchange, facts, verdict, owner, whose)
    back = _comes_back_to(exchange, facts, ticket)
    exchange.reply(*answers.see_other(answers.enrol_location(wire.prefix, back, ticket, lost)))


def _comes_back_to(exchange: Exchange, facts: Facts, ticket: str) -> str:
    """Where the browser goes on: the target, or for a request that could not be kept the page it came from."""
    if ticket or exchange.method in ("GET", "HEAD"):
        return facts.target.decode("ascii")
    return answers.referred(facts, f"{exchange.wire.scheme}://{_authority(exchange)}")


def _sent_from_here(facts: Facts, verdict: Verdict) -> bool:
    """Whether the page that sends this is of our site, or no browser's at all."""
    if site := facts.header(b"sec-fetch-site"):
        return len(site) == 1 and site[0] in _OF_THIS_SITE
    return comes_from_us(facts, verdict.rule.origins if verdict.rule is not None else frozenset())


async def _keep(exchange: Exchange, facts: Facts, verdict: Verdict, owner: str, whose: str) -> tuple[str, str]:
    """Seal the request until its sender has proven who they are: its ticket, or why there is none."""
    from gateway.mfa.interrupted import Interrupted  # brings cryptography, which only sign-in needs

    wire = exchange.wire
    interrupted = wire.interrupted
    if interrupted is None:
        return "", ""
    ticket = lost = ""
    try:
        if exchange.resumed is not None:
            kept = replace(exchange.resumed, whose=exchange.resumed.whose or whose)
            exchange.begun = kept.large > 0  # its parts move one by one: there is no way back
            ticket = await interrupted.keep_again(kept, *exchange.resumed_by, owner, facts.network)
            exchange.begun = True
        elif not _sent_from_here(facts, verdict):
            lost = "elsewhere"
        elif exchange.length > wire.bounds.interrupted:
            lost = "large"
        else:
            head = tuple(one for one in facts.headers if one[0].lower() not in _LEFT_OUT)
            kept = Interrupted(facts.method, _authority(exchange), facts.target, head, b"", whose)
            async with aclosing(_pieces(exchange)) as pieces:
                ticket = await interrupted.keep(owner, kept, pieces, network=facts.network)
    except UserError as error:
        lost = WORDS.get(error.code, "busy")
    wire.metrics.interrupted("kept" if ticket else lost)
    if not ticket and exchange.resumed is None:
        await _throw_away(exchange)
    return ticket, lost


async def _pieces(exchange: Exchange) -> AsyncGenerator[bytes]:
    """The body, as it arrives."""
    exchange.invite_body()
    while True:
        if exchange.finished:
            raise asyncio.CancelledError  # it did not arrive, and its sender was told so
        if exchange.chunks:
            piece = b"".join(exchange.chunks)
            exchange.chunks.clear()
            exchange.pending = 0
            yield piece
        elif exchange.complete:
            return
        else:
            exchange.waiter = asyncio.get_running_loop().create_future()
            exchange.client.resume_reading()
            await exchange.waiter


async def _throw_away(exchange: Exchange) -> None:
    """Read what nobody wants, within reason: the answer is not read before."""
    unsent = exchange.caller is not None and exchange.caller.expects and not exchange.bytes_in
    if exchange.complete or unsent or exchange.length > THROWN_AWAY:
        return
    async with aclosing(_pieces(exchange)) as pieces:
        async for _ in pieces:
            if exchange.bytes_in > THROWN_AWAY:
                return


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
    user, owners = await wire.owners_of(facts)
    for owner in owners:
        kept = await interrupted.peek(ticket, owner)
        if kept is None:
            continue
        if (kept.host, kept.target) != (_authority(exchange), facts.target):
            return facts  # another page, opened meanwhile
        if not interrupted.is_for(kept, user):
            wire.did_not_go_on(facts, user, "not_theirs")
            return facts
        await asyncio.shield(wire.owe(_claim(exchange, interrupted, ticket, owner)))
        if exchange.resumed is not None:
            return _as_it_was(exchange, facts, exchange.resumed)
    if answers.is_navigation(facts):  # what its page loads carries the cookie too
        wire.did_not_go_on(facts, user, "gone")
    return facts


async def _claim(exchange: Exchange, interrupted: InterruptedRequests, ticket: str, owner: str) -> None:
    """Take out what was kept; should the client leave in the midst of it, it waits again."""
    kept = await interrupted.claim(ticket, owner)
    if kept is not None:
        exchange.resumed, exchange.resumed_by = kept, (ticket, owner)
        if exchange.finished:
            await left(exchange)


def _as_it_was(exchange: Exchange, facts: Facts, kept: Interrupted) -> Facts:
    """Become the kept request, with the cookies and the way of now: the session is another one since, and what
    a trusted proxy said of the client then may no longer be so."""
    exchange.method = kept.method
    way = [field for field in exchange.fields if field[0].lower() in _WAY]
    exchange.fields = [field for field in kept.headers if field[0].lower() not in (*_WAY, *_FRAMING)] + way
    if facts.cookie:
        exchange.fields.append((b"Cookie", facts.cookie))
    exchange.caller = exchange.client.caller_of(exchange)
    exchange.facts = request.read(kept.method, kept.target, exchange.caller, exchange.request_id)
    exchange.length = kept.size
    exchange.chunks = [kept.body] if kept.body else []
    exchange.pending = len(kept.body)
    return exchange.facts


async def carry(exchange: Exchange) -> None:
    """Bring the body of a resumed request to its service, a part at a time, as fast as that takes it."""
    interrupted, kept = exchange.wire.interrupted, exchange.resumed
    if interrupted is None or kept is None:
        return
    try:
        async with aclosing(interrupted.read(kept, *exchange.resumed_by)) as pieces:
            async for piece in pieces:
                while exchange.held and not exchange.finished:
                    exchange.waiter = asyncio.get_running_loop().create_future()
                    await exchange.waiter
                if exchange.finished:
                    return
                exchange.chunks.append(piece)
                exchange.pending += len(piece)
                exchange.received()
        exchange.complete = True
        exchange.received()
    except SallyportError as error:  # away, or lost: what the service has of it never gets its end
        _log.error("request %s: %s", exchange.request_id, error)
        exchange.fault(type(error).__name__)


async def not_sent(exchange: Exchange, reason: Reason, retry_after: float) -> None:
    """There is no service to be had for a resumed request: it waits again, and its sender is told so."""
    action = None
    try:
        if await _give_back(exchange):
            ticket = quote(exchange.resumed_by[0], safe="")
            action = say("Try to send it again"), f"{exchange.wire.prefix}resume/{ticket}"
    except SallyportError as error:
        _log.error("request %s: %s", exchange.request_id, error)
    except Exception:
        _log.exception("request %s: not given back", exchange.request_id)
    exchange.answer_refusal(reason, retry_after, action)


async def left(exchange: Exchange) -> None:
    """The client of a resumed request is gone before it went anywhere: it waits again."""
    try:
        await _give_back(exchange)
    except SallyportError as error:
        _log.error("request %s: %s", exchange.request_id, error)


async def _give_back(exchange: Exchange) -> bool:
    interrupted, kept = exchange.wire.interrupted, exchange.resumed
    if interrupted is None or kept is None or not await interrupted.give_back(kept, *exchange.resumed_by):
        return False
    exchange.wire.metrics.interrupted("given_back")
    return True


def _authority(exchange: Exchange) -> str:
    return exchange.caller.authority.raw.decode() if exchange.caller is not None else ""
