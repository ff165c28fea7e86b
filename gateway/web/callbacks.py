"""Where providers tell what became of messages.

They come from anywhere, without cookie or `Origin`, and show who they are by a signature over all they say. A sender we
do not have, a signature that is none, a time long gone and a message we do not know are answered alike, so that nobody
learns which of them it was. Who tells before we have written down what they call the message is told 403 as well, and
tries again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from gateway.core.errors import Broken, UserError
from gateway.web.caller import CALLER
from gateway.web.desk import DESK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.message import Report

PATH: Final = "callbacks/"
"""Below the prefix; then the sender's name."""


async def take(request: web.Request) -> web.StreamResponse:
    """POST callbacks/{sender}."""
    desk, name = request.app[DESK], request.match_info["sender"]
    callback = desk.callbacks.get(name)
    body = await request.read()
    told: Sequence[Report] | None = None
    if callback is not None:
        try:
            told = await callback.read(request.headers, body)
        except Broken:
            told = None
    if desk.deliveries is None or told is None:
        if desk.deliveries is not None:
            desk.deliveries.refused(name if callback is not None else "", request[CALLER].place)
        raise _refused()
    if "unknown" in [await desk.deliveries.report(name, each, request[CALLER].place) for each in told]:
        raise _refused()
    return web.Response(status=204)


def _refused() -> UserError:
    return UserError("ERR-CALLBACK", "This is not from a sender of ours, about a message it has.", 403)
