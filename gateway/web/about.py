"""What we tell about ourselves and about you: the keys of assertions, the caller as the gate sees it, our files."""

from __future__ import annotations

from aiohttp import web

from gateway.web import pages
from gateway.web.answers import json
from gateway.web.caller import CALLER
from gateway.web.desk import DESK


async def whoami(request: web.Request) -> web.Response:
    """The caller as the gate sees it. Nobody is an answer too: `{"authenticated": false}`."""
    caller = request[CALLER]
    identity = await caller.identity()
    place = {"address": caller.facts.address, "network": caller.facts.network, "agent": caller.facts.agent}
    if identity is None or identity.session is None:
        return json({"authenticated": False, **place})
    return json(
        {
            "authenticated": True,
            "tenant": identity.tenant,
            "sub": identity.subject,
            "user": identity.user,
            "email": identity.email,
            "name": identity.name,
            "groups": sorted(identity.groups),
            "acr": identity.level.acr,
            "amr": list(identity.amr),
            "auth_time": int(identity.auth_time),
            "session": {
                "id": identity.session.id,
                "created_at": int(identity.session.created_at),
                "expires_at": int(identity.session.expires_at),
            },
            **place,
        }
    )


async def jwks(request: web.Request) -> web.Response:
    """RFC 7517. Public, and safe to keep for less time than a key is published before it signs."""
    answer = json(request.app[DESK].jwks(), content_type="application/jwk-set+json")
    answer.headers["Cache-Control"] = "public, max-age=60"
    return answer


async def client(request: web.Request) -> web.Response:
    """The script for single-page applications, at an address that stays."""
    return _file(request, "client.js")


async def static(request: web.Request) -> web.Response:
    """One of our own files. Its URL carries a hash of the content, so it may be kept for ever."""
    return _file(request, request.match_info["name"])


def _file(request: web.Request, name: str) -> web.Response:
    file = pages.static_files().get(name)
    if file is None:
        raise web.HTTPNotFound
    content_type, body = file
    answer = web.Response(body=body, content_type=content_type, charset="utf-8")
    kept = "v" in request.query
    answer.headers["Cache-Control"] = "public, max-age=31536000, immutable" if kept else "public, max-age=300"
    return answer
