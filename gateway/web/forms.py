"""Forms that only our own pages can send.

Each form carries a token: a MAC over the browser's random cookie, the session and the form's name. A page elsewhere
can
neither read the cookie nor compute the token. (Beside it stands the check of `Origin`, in `guard`.)
"""

from __future__ import annotations

from aiohttp import web

from gateway.core.errors import UserError
from gateway.core.words import say
from gateway.web.caller import CALLER
from gateway.web.desk import DESK


def token(request: web.Request, form: str, session: str = "") -> str:
    """The token of `form`, for this browser and, where it needs somebody signed in, this session."""
    return request.app[DESK].mac.token("form", request[CALLER].browser, session, form)


async def read(request: web.Request, form: str, session: str = "") -> dict[str, str]:
    """The fields of an urlencoded form of ours.

    Raises `UserError`: ERR-CSRF where the token is not this browser's, session's and form's, ERR-FORM for anything
    that no form of ours sends (another content type, a field twice, a file).
    """
    fields = await fields_of(request)
    caller = request[CALLER]
    if caller.new_browser or not request.app[DESK].mac.verify(
        fields.get("csrf", ""), "form", caller.browser, session, form
    ):
        raise UserError(
            "ERR-CSRF",
            say("This page is out of date, or your browser keeps no cookies. Please reload it and try again."),
            403,
        )
    return fields


async def fields_of(request: web.Request) -> dict[str, str]:
    """The fields of an urlencoded form, whoever made it. Raises `UserError` ERR-FORM."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise UserError("ERR-FORM", say("A form was expected."), 415)
    try:
        posted = await request.post()
    except (ValueError, LookupError) as error:  # not UTF-8; or a charset nobody has heard of
        raise UserError("ERR-FORM", say("The form cannot be read."), 400) from error
    fields: dict[str, str] = {}
    for name, value in posted.items():
        if name in fields or not isinstance(value, str):
            raise UserError("ERR-FORM", say("A field came twice."), 400)
        fields[name] = value
    return fields


def remember_browser(request: web.Request, answer: web.Response) -> web.Response:
    """`answer`, telling the browser its random name if it has none yet. For every page with a form."""
    caller = request[CALLER]
    if caller.new_browser:
        answer.headers.add("Set-Cookie", caller.cookies.set(caller.cookies.browser, caller.browser))
    return answer
