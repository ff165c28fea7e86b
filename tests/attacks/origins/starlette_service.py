"""Starlette; runs under uvicorn."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def admin(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"admin\n{request.scope['path']}")


async def other(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"other\n{request.scope['path']}")


app = Starlette(routes=[Route("/admin", admin), Route("/admin/{rest:path}", admin), Route("/{rest:path}", other)])
