"""The device cookie: this browser has signed in as this account before.

It only ever makes throttling milder: guesses made without it cannot lock its owner out (OWASP, "Slow down online
guessing attacks with device cookies"). `<when>.<random>.<MAC over account, when, random>`; worth nothing as a proof
of anything.
"""

from __future__ import annotations

from aiohttp import web

from gateway.core.identity import DEFAULT_TENANT
from gateway.crypto.tokens import new_token
from gateway.web.caller import CALLER
from gateway.web.desk import DESK

LIFETIME = 180 * 24 * 3600
"""Seconds after the last sign-in."""


def knows(request: web.Request, account: str) -> bool:
    """Whether this browser has signed in as `account` (canonical name) before."""
    desk, caller = request.app[DESK], request[CALLER]
    when, _, rest = caller.crumbs.get(caller.cookies.device, "").partition(".")
    random, _, mac = rest.partition(".")
    if not when.isdigit() or not 0 <= desk.clock.now() - int(when) <= LIFETIME:
        return False
    return desk.mac.verify(mac, "device", DEFAULT_TENANT, account, when, random)


def cookie(request: web.Request, account: str) -> str:
    """The `Set-Cookie` value that makes this browser known to `account`."""
    desk, cookies = request.app[DESK], request[CALLER].cookies
    when, random = str(int(desk.clock.now())), new_token()
    mac = desk.mac.token("device", DEFAULT_TENANT, account, when, random)
    return cookies.set(cookies.device, f"{when}.{random}.{mac}", LIFETIME)
