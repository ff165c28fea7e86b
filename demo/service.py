"""A service that knows nothing of the gateway: `python -m demo.service --listen 127.0.0.1:9000`.

It answers under `/`, `/admin/` and `/public/` alike, so that one service shows what three rules do with the same
request. It is what `make run` protects, and what tests and benches put upstream: it says exactly what arrived, takes
bodies of any size and gives them of any size, in flat memory.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import itertools
import json
import logging
import signal
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from urllib.parse import parse_qsl
from weakref import WeakKeyDictionary

import uvloop
from aiohttp import WSMsgType, web

from demo import pages

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PREFIXES = ("/", "/admin/", "/public/")
CHUNK = 256 * 1024
MAX_SUBMISSIONS = 10_000
_LARGEST_HEAD = 1 << 20


class Connections:
    """Numbers every TCP connection, and every request on it, from 1."""

    def __init__(self) -> None:
        self._numbers: WeakKeyDictionary[asyncio.BaseTransport, tuple[int, Iterator[int]]] = WeakKeyDictionary()
        self._next = itertools.count(1)

    def place(self, request: web.Request) -> tuple[int, int]:
        """`(connection, request)` of a request that is being answered."""
        transport = request.transport
        if transport is None:
            return 0, 0
        entry = self._numbers.get(transport)
        if entry is None:
            entry = self._numbers[transport] = next(self._next), itertools.count(1)
        connection, requests = entry
        return connection, next(requests)


class Submissions:
    """How often each form arrived. The page puts a fresh id into every form it shows."""

    def __init__(self) -> None:
        self._arrived: OrderedDict[str, int] = OrderedDict()

    def count(self, submission: str) -> int:
        """Count one arrival; returns how many there have been."""
        self._arrived[submission] = self._arrived.get(submission, 0) + 1
        while len(self._arrived) > MAX_SUBMISSIONS:
            self._arrived.popitem(last=False)
        return self._arrived[submission]


CONNECTIONS = web.AppKey("connections", Connections)
SUBMISSIONS = web.AppKey("submissions", Submissions)
PLACE = web.RequestKey("place", tuple[int, int])


async def index(request: web.Request) -> web.StreamResponse:
    """Who you are, as the gateway told this service, and links to try."""
    return _html(pages.index(request.path, request.raw_headers))


async def echo(request: web.Request) -> web.StreamResponse:
    """The request as it was received."""
    connection, number = request[PLACE]
    received = {
        "method": request.method,
        "target": request.raw_path,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.raw_headers],
        "body": base64.b64encode(await request.read()).decode(),
        "connection": connection,
        "request": number,
    }
    return web.json_response(received, dumps=lambda value: json.dumps(value, indent=1) + "\n")


async def websocket(request: web.Request) -> web.StreamResponse:
    """Echo every message, as text or as bytes."""
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events, one a second, until the client goes."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    for number in itertools.count(1):
        event = json.dumps({"number": number, "time": round(time.time(), 3)})
        try:
            await response.write(f"id: {number}\nevent: tick\ndata: {event}\n\n".encode())
        except ConnectionError:
            break
        await asyncio.sleep(1)
    return response


async def stream(request: web.Request) -> web.StreamResponse:
    """So many bytes: the same 256 KiB block again and again."""
    left = int(request.match_info["count"])
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = left
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    block = bytes(range(256)) * (CHUNK // 256)
    while left:
        part = block[: min(left, CHUNK)]
        await response.write(part)
        left -= len(part)
    await response.write_eof()
    return response


async def slow(request: web.Request) -> web.StreamResponse:
    """Answer after so many seconds."""
    seconds = float(request.match_info["seconds"])
    await asyncio.sleep(seconds)
    return web.json_response({"slept": seconds})


async def status(request: web.Request) -> web.StreamResponse:
    """Answer with this status."""
    code = int(request.match_info["code"])
    if code in (204, 205, 304):
        return web.Response(status=code)
    location = {"Location": "echo"} if code in (301, 302, 303, 307, 308) else None
    return web.json_response({"status": code}, status=code, headers=location)


async def upload(request: web.Request) -> web.StreamResponse:
    """Count and hash a body of any size without keeping it."""
    count, digest = 0, hashlib.sha256()
    async for part in request.content.iter_any():
        count += len(part)
        digest.update(part)
    return web.json_response({"bytes": count, "sha256": digest.hexdigest()})


async def form(request: web.Request) -> web.StreamResponse:
    """A form; what it sends is shown as it arrived, and how often it has."""
    if request.method != "POST":
        return _html(pages.form(request.path))
    body = await request.read()
    fields = parse_qsl(body.decode(errors="replace"), keep_blank_values=True)
    arrived = request.app[SUBMISSIONS].count(dict(fields).get("submission", ""))
    return _html(pages.received(request.path, fields, body, arrived, request.raw_headers))


async def app(request: web.Request) -> web.StreamResponse:
    """A small single-page application."""
    return _html(pages.app())


ROUTES: dict[str, Handler] = {
    "": index,
    "echo{rest:(/.*)?}": echo,
    "ws": websocket,
    "sse": events,
    r"bytes/{count:\d{1,15}}": stream,
    r"slow/{seconds:\d{1,4}(\.\d+)?}": slow,
    r"status/{code:[2-5]\d\d}": status,
    "upload": upload,
    "form": form,
    "app": app,
}


def application() -> web.Application:
    """The service as an aiohttp application without a limit on bodies."""

    @web.middleware
    async def placed(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[PLACE] = request.app[CONNECTIONS].place(request)
        return await handler(request)

    app = web.Application(client_max_size=0, middlewares=[placed])
    app[CONNECTIONS] = Connections()
    app[SUBMISSIONS] = Submissions()
    for prefix in PREFIXES:
        for path, handler in ROUTES.items():
            app.router.add_route("*", prefix + path, handler)
    return app


async def start(host: str, port: int) -> web.AppRunner:
    """Listen; port 0 takes a free one (`runner.addresses`). Bodies arrive as sent: codings are left alone."""
    runner = web.AppRunner(
        application(),
        access_log=None,
        auto_decompress=False,
        shutdown_timeout=0.5,
        max_line_size=_LARGEST_HEAD,
        max_field_size=_LARGEST_HEAD,
        max_headers=1_000,
    )
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


async def _serve(host: str, port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = await start(host, port)
    bound = runner.addresses[0]
    print(f"demo service on http://{bound[0]}:{bound[1]}", flush=True)
    await stop.wait()
    await runner.cleanup()


def _html(text: str) -> web.Response:
    return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def main() -> int:
    """Serve until SIGINT or SIGTERM; 1 when the address cannot be taken."""
    parser = argparse.ArgumentParser(prog="python -m demo.service", description="A service to stand behind the gate.")
    parser.add_argument("--listen", type=_address, default="127.0.0.1:9000", metavar="HOST:PORT")
    host, port = parser.parse_args().listen
    logging.basicConfig(level=logging.WARNING)
    try:
        uvloop.run(_serve(host, port))
    except OSError as error:
        print(f"demo service: cannot listen on {host}:{port}: {error.strerror or error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
