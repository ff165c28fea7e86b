"""`limits…`: how limits stand, and having them begin anew; for administrators."""

from __future__ import annotations

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.telling import tell
from gateway.limits.spelling import Who, people_in, spell, user_in, who, without_secrets
from gateway.limits.standing import Standing
from gateway.limits.standings import reset_event
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.api.models import LimitItem, LimitList, LimitReset, WereReset
from gateway.web.caller import CALLER
from gateway.web.desk import DESK, Desk
from gateway.web.proof import acting_administrator, administrator

MOST = 100
"""Counters of one answer."""


async def every(request: web.Request, _: Empty) -> LimitList:
    """Those asked about, as far as they fit."""
    await administrator(request)
    desk, asked = request.app[DESK], request.query
    whom = await _who(desk, asked.get("key", ""))
    found, asked_shared = await desk.standings.status(asked.get("rule", ""), asked.get("limit", ""), whom, MOST + 1)
    names = await _names(desk, found[:MOST])
    items = [_item(one, spell(one.key, lambda *person: names.get(person, person[1]))) for one in found[:MOST]]
    return LimitList(limits=items, more=len(found) > MOST, shared_away=not asked_shared)


async def reset(request: web.Request, body: LimitReset) -> WereReset:
    """Have them begin anew, everywhere."""
    me = await acting_administrator(request)
    desk, caller = request.app[DESK], request[CALLER]
    gone = await desk.standings.reset(body.rule, body.limit, await _who(desk, body.key))
    said = without_secrets(body.key)
    event = reset_event(
        body.rule, body.limit, said, gone, body.reason, me.user, "api",
        tenant=me.tenant, user=me.user, place=caller.place
    )  # fmt: skip
    await tell(desk.ledger, event)
    return WereReset(counters=gone)


async def _who(desk: Desk, key: str) -> Who:
    user = await desk.users.find(name) if (name := user_in(key)) else None
    try:
        return who(key, [user.subject] if user is not None else [])
    except ValueError as error:
        raise UserError("ERR-LIMIT-KEY", f"This is not a key: {error}.", 400) from None


async def _names(desk: Desk, standings: list[Standing]) -> dict[tuple[str, str], str]:
    """Names by tenant and subject, of all who are counted there and known."""
    names = {}
    for tenant, subject in {person for one in standings for person in people_in(one.key)}:
        if (user := await desk.users.get(subject, tenant)) is not None:
            names[tenant, subject] = user.name
    return names


def _item(one: Standing, key: str) -> LimitItem:
    return LimitItem(
        rule=one.rule, limit=one.limit, key=key, counted=one.how, shadow=one.shadow, allowed=one.allowed,
        remaining=one.remaining, reset=one.reset, retry_after=one.retry_after, offences=one.offences, wait=one.wait,
    )  # fmt: skip


_CODES = ((403, "ERR-FORBIDDEN"), (404, "ERR-LIMIT-UNKNOWN"), (400, "ERR-LIMIT-KEY"), (401, "ERR-STEP-UP"))

ENDPOINTS = (
    Endpoint(
        "GET",
        "limits",
        every,
        "How limits stand (administrators)",
        query=(
            ("rule", "Only of this rule."),
            ("limit", "Only of limits of this name."),
            ("key", "Only counters of `user:NAME`, `address:IP`, `session:ID`, `header:VALUE`, `claim:VALUE`."),
        ),
        answers=LimitList,
        codes=_CODES,
    ),
    Endpoint(
        "POST",
        "limits/reset",
        reset,
        "Have limits begin anew (administrators)",
        takes=LimitReset,
        answers=WereReset,
        fresh=True,
        codes=_CODES[:3],
    ),
)
