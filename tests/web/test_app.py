"""How the front desk is served."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from gateway.web.app import make_runner


async def test_who_goes_away_does_not_stop_what_they_began(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), list[str]()

    async def change(request: web.Request) -> web.Response:
        begun.set()
        try:
            while request.transport is not None:
                await asyncio.sleep(0.001)
            ended.append("done")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return web.Response()

    app = web.Application()
    app.router.add_post("/", change)
    runner = make_runner(app)
    await runner.setup()
    site = web.UnixSite(runner, str(tmp_path / "desk.sock"))
    await site.start()
    try:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_unix_connection(tmp_path / "desk.sock")
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            await begun.wait()
            writer.transport.abort()
            while not ended:
                await asyncio.sleep(0.001)
    finally:
        await runner.cleanup()
    assert ended == ["done"]
