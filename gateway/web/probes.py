"""The admin listener: metrics for Prometheus, health for whoever restarts us, readiness for whoever sends traffic.

Nothing else, and nothing that says who is signed in: it is meant for a network that users cannot reach. Three answers
need no web framework, and a gateway that only carries requests has none loaded: one parser, one request a connection,
little time and room for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path

import httptools
import orjson

from gateway.core.errors import ConfigError

Metrics = Callable[[str], tuple[bytes, str]]
"""The exposition and its content type, for what `Accept` asks."""
Readiness = Callable[[], tuple[bool, Mapping[str, str]]]
"""Whether to send traffic, and the state of each part in a word or a sentence."""

HEAD = 16 * 1024
"""Bytes of a request's head."""
TIME = 10.0
"""Seconds that a connection may take, from being opened to being closed."""
CONNECTIONS = 64
"""Open at once; further ones are closed."""

Answer = tuple[HTTPStatus, bytes, str]
"""Status, body, content type."""

_TEXT = "text/plain; charset=utf-8"
_log = logging.getLogger(__name__)


class Probes:
    """`/metrics`, `/healthz` (the process turns its loop) and `/readyz` (it can do its work)."""

    def __init__(self, metrics: Metrics, readiness: Readiness) -> None:
        self._metrics = metrics
        self._readiness = readiness
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self.connections: set[_Connection] = set()

    async def listen(self, address: tuple[str, int] | str) -> int:
        """Serve on `(host, port)`, or on the Unix socket of that path; the port. Raises `ConfigError`."""
        loop = asyncio.get_running_loop()
        try:
            if isinstance(address, str):
                self._server = await loop.create_unix_server(lambda: _Connection(self), address)
                self._path = Path(address)
                return 0
            self._server = await loop.create_server(lambda: _Connection(self), *address)
        except OSError as error:
            shown = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
            busy = "another program uses it; end that, or " if error.errno == errno.EADDRINUSE else ""
            raise ConfigError(
                f"cannot listen on {shown}: {error.strerror or error}",
                f"{busy}change `admin_listen` in the configuration",
            ) from None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening, cut what is connected."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)  # aborted transports tell their protocols on the next turn
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def answer(self, method: bytes, target: bytes, accept: str) -> Answer:
        """To one request. Never raises."""
        known = {b"/metrics": lambda: self._show_metrics(accept), b"/healthz": _alive, b"/readyz": self._ready}
        found = known.get(target.partition(b"?")[0])
        if found is None:
            return HTTPStatus.NOT_FOUND, b"not found\n", _TEXT
        if method not in (b"GET", b"HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, b"GET and HEAD only\n", _TEXT
        try:
            return found()
        except Exception:
            _log.exception("a probe failed")
            return HTTPStatus.INTERNAL_SERVER_ERROR, b"failed\n", _TEXT

    def _show_metrics(self, accept: str) -> Answer:
        return HTTPStatus.OK, *self._metrics(accept)

    def _ready(self) -> Answer:
        ready, parts = self._readiness()
        body = orjson.dumps({"ready": ready, **parts}, option=orjson.OPT_APPEND_NEWLINE)
        return HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, body, "application/json"


def _alive() -> Answer:
    return HTTPStatus.OK, b"ok\n", _TEXT


class _Connection(asyncio.Protocol):
    """One request, one answer, the end."""

    def __init__(self, probes: Probes) -> None:
        self._probes = probes
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._accept = b""
        self._received = 0
        self._head = False
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._deadline = asyncio.get_running_loop().call_later(TIME, self.abort)
        self._probes.connections.add(self)
        if len(self._probes.connections) > CONNECTIONS:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Part of asyncio's protocol."""
        self._probes.connections.discard(self)
        self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol. What comes after a head, a body say, is read and thrown away."""
        if self._answered:
            return
        self._received += len(data)
        status = HTTPStatus.BAD_REQUEST
        if self._received > HEAD:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        else:
            with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._parser.feed_data(data)
                if not self._head:
                    return
        method = self._parser.get_method() if self._head else b""
        if self._head:
            answer = self._probes.answer(method, self._target, self._accept.decode("latin-1"))
        else:
            answer = status, b"bad request\n", _TEXT
        self._reply(*answer, head_only=method == b"HEAD")

    def on_url(self, piece: bytes) -> None:
        """Part of httptools' protocol."""
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol."""
        if name.lower() == b"accept":
            self._accept = value

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        self._head = True

    def on_message_begin(self) -> None:
        """Part of httptools' protocol: of a second request nothing is read."""
        if self._head:
            raise ValueError("one request a connection")

    def _reply(self, status: HTTPStatus, body: bytes, content_type: str, *, head_only: bool) -> None:
        self._answered = True
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode() + (b"" if head_only else body))
        # Closing with unread bytes would reset the connection and take the answer with it (RFC 9112, section 9.6).
        self._transport.write_eof()

    def abort(self) -> None:
        """Cut it."""
        self._transport.abort()
