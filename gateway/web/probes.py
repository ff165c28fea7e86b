"""The admin listener: metrics for Prometheus, health for whoever restarts us, readiness for whoever sends traffic.

Nothing else, and nothing that says who is signed in: it is meant for a network that users cannot reach.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import orjson
from aiohttp import web

Metrics = Callable[[], tuple[bytes, str]]
"""The exposition and its content type."""
Readiness = Callable[[], Awaitable[tuple[bool, Mapping[str, str]]]]
"""Whether to send traffic, and the state of each part in a word or a sentence."""


def make_probes(metrics: Metrics, readiness: Readiness) -> web.Application:
    """`/metrics`, `/healthz` (the process turns its loop) and `/readyz` (it can do its work)."""

    async def show_metrics(_: web.Request) -> web.Response:
        body, content_type = metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        ready, parts = await readiness()
        body = orjson.dumps({"ready": ready, **parts}, option=orjson.OPT_APPEND_NEWLINE)
        return web.Response(status=200 if ready else 503, body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    return app
