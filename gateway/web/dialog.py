"""Sign in or prove it again in a window of its own, for a script that waits in another one (`client.js`).

    401 with `challenge` ──► dialog?acr_values=… ──► login, verify/<ticket> ──► dialog/done ──► the script goes on

Whoever must set up a second factor first is led to that by the same address, as from everywhere (`guard`).

What is asked for stands in the address, and the question is put when the page is opened: nothing is kept for an answer
that nobody follows. Whoever writes such an address by hand is asked for a proof that any rule could ask for. The last
page tells the other windows of this origin who is signed in now, so that a script goes on for the same person only; it
is a page with a script of ours, and with nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from aiohttp import web

from gateway.core.identity import Level
from gateway.core.page_headers import HEADERS
from gateway.core.rule import StepUpDemand
from gateway.core.words import say
from gateway.web.answers import json, language_of, page, redirect, told
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.methods import METHODS
from gateway.web.pages import with_last_word

LEVELS = {level.acr: level for level in Level}


async def show(request: web.Request) -> web.Response:
    """The question, or on to whatever has to come before it."""
    desk, query = request.app[DESK], request.query
    identity = await request[CALLER].identity()
    demand = _demand(query)
    done = f"{desk.prefix}dialog/done"
    if identity is None or identity.session is None:
        return redirect(f"{desk.prefix}login?next={quote(request.raw_path if demand else done, safe='')}")
    if "reauth" in query:
        after = request.raw_path.replace("reauth=1&", "", 1) if demand else done
        return redirect(f"{desk.prefix}login?reauth=1&next={quote(after, safe='')}")
    if demand is None:
        return redirect(done)
    ticket = await desk.stepups.begin(identity, demand, return_to=done)
    return redirect(f"{desk.prefix}verify/{ticket}")


async def words(request: web.Request) -> web.Response:
    """What the script says before it opens the window, in the caller's language: so it has no words of its own."""
    identity = await request[CALLER].identity()
    if identity is None:
        text = say("Please sign in to go on. A window opens for it.")
    elif request.app[DESK].clock.now() >= identity.enrol_by:
        text = say("Your account must have a second factor before you go on. A window opens in which you set one up.")
    else:
        text = say("Please confirm that it is you. A window opens for it.")
    said = {"text": text, "continue": say("Continue"), "cancel": say("Cancel")}
    return json({"language": language_of(request), **{name: told(request, one) for name, one in said.items()}})


async def done(request: web.Request) -> web.Response:
    """It is proven, or somebody has come here by themselves; the script finds out by asking again."""
    identity = await request[CALLER].signed_in()
    answer = page(request, "done.html", user=identity.user, subject=f"{identity.tenant}/{identity.subject}")
    policy = HEADERS["Content-Security-Policy"]
    policy = with_last_word(policy, request[CALLER].origin, request.app[DESK].prefix)
    answer.headers["Content-Security-Policy"] = policy
    return answer


def _demand(query: Mapping[str, str]) -> StepUpDemand | None:
    """What the address asks for; None: only that somebody is signed in. What makes no sense there asks for more."""
    if "acr_values" not in query:
        return None
    age = query.get("max_age", "")
    return StepUpDemand(
        LEVELS.get(query["acr_values"], Level.AAL2),
        frozenset(name for name in query.get("factors", "").split(",") if name in METHODS),
        float(age) if age.isascii() and age.isdigit() and len(age) < 10 else None,
        verified="user_verification" in query,
    )
