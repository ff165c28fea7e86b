"""The switch at the foot of a page: which language somebody wants.

It changes nothing but words, so it asks for no token: that the form comes from a page of ours is seen by its origin
(`guard`). The choice is a cookie; of somebody who is signed in it is kept, for what is written to them.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.languages import LANGUAGES
from gateway.core.words import say
from gateway.web import forms
from gateway.web.answers import redirect
from gateway.web.caller import CALLER
from gateway.web.desk import DESK
from gateway.web.return_to import safe_path

LIFETIME: Final = 365 * 86_400
"""Seconds that a browser keeps it."""


async def choose(request: web.Request) -> web.Response:
    """Speak that language from now on, and show the page again. Raises `UserError` ERR-FORM."""
    form = await forms.fields_of(request)
    language = form.get("language", "")
    if language not in LANGUAGES:
        raise UserError("ERR-FORM", say("This language is not spoken here."), 400)
    desk, caller = request.app[DESK], request[CALLER]
    identity = await caller.identity()
    if identity is not None:
        await desk.users.speak(identity.tenant, identity.subject, language)
    answer = redirect(safe_path(form.get("next"), f"{desk.prefix}account"))
    answer.headers.add("Set-Cookie", caller.cookies.set(caller.cookies.language, language, LIFETIME))
    return answer
