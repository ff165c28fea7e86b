"""The aiohttp application, put together."""

from __future__ import annotations

from aiohttp import web

from gateway.core.cookies import Cookies
from gateway.identity.cookie import SessionCookie
from gateway.web.caller import CREDENTIALS
from gateway.web.desk import DESK, Desk
from gateway.web.guard import BODY, MIDDLEWARES
from gateway.web.routes import routes


def make_app(desk: Desk) -> web.Application:
    """The front desk. Frozen once it runs; everything it knows comes with `desk`."""
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=BODY)
    app[DESK] = desk
    app[CREDENTIALS] = {scheme: SessionCookie(desk.sessions, Cookies.over(scheme)) for scheme in ("http", "https")}
    app.add_routes(routes(desk.prefix))
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """How it is served: on a socket that only the wire knows.

    The wire has parsed and bounded the head already and writes the access log; compressed bodies are refused, so
    nothing is ever unpacked here. Who goes away does not stop what they began: it is done or not done, and told.
    """
    return web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        max_line_size=16 * 1024,
        max_field_size=64 * 1024,
        keepalive_timeout=600.0,
        handle_signals=False,
        handler_cancellation=False,
        shutdown_timeout=5.0,
    )
