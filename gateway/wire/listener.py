"""One place where clients come in.

Plain HTTP is accepted by the loop. What has to be said before it, a PROXY header or a TLS handshake, is heard on the
bare socket of each connection: a header is looked at in the kernel's buffer, and exactly its bytes are taken out, so
that whoever reads next, TLS or the parser, finds the client's first byte. TLS is begun with the certificates of that
moment: new ones count from the next handshake on, and no connection notices.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.errors import ConfigError
from gateway.core.reasons import Reason
from gateway.wire import proxy_protocol
from gateway.wire.client import ClientConnection
from gateway.wire.forwarded import UNKNOWN, canonical
from gateway.wire.proxy_protocol import BadProxyHeader

if TYPE_CHECKING:
    from gateway.wire.tls import ServerTls
    from gateway.wire.wire import Wire

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""
AT_ONCE = 64
"""Connections accepted in one turn of the loop."""
REST = 1.0
"""Seconds without accepting after the machine had no room for a connection."""

_log = logging.getLogger(__name__)


class Where(NamedTuple):
    """An address to listen on: one of a host with its port, the path of a Unix socket, a descriptor that is open."""

    host: str = ""
    """`::` means IPv4 as well."""
    port: int = 0
    path: str = ""
    descriptor: int = -1
    """Of a socket that somebody else has bound: systemd, or the process that started us."""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        if self.descriptor >= 0:
            return f"fd:{self.descriptor}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bind(where: Where, *, mode: int = 0o660, share: bool = False) -> list[socket.socket]:
    """Bound sockets that do not listen yet. `mode`: of a Unix socket; `share`: with other processes (SO_REUSEPORT).

    A name may have several addresses. Raises `ConfigError`.
    """
    made: list[socket.socket] = []
    try:
        if where.descriptor >= 0:
            made.append(socket.socket(fileno=where.descriptor))
        elif where.path:
            made.append(_unix(where.path, mode))
        else:
            for family, address in _addresses(where):
                made.append(_tcp(family, address, dual=where.host == "::", share=share))
    except OSError as error:
        for sock in made:
            sock.close()
        busy = "another program uses it; end that, or " if error.errno == errno.EADDRINUSE else ""
        raise ConfigError(
            f"cannot listen on {where}: {error.strerror or error}", f"{busy}change `listen` in the configuration"
        ) from None
    for sock in made:
        sock.setblocking(False)
    return made


def _addresses(where: Where) -> Iterator[tuple[int, tuple[object, ...]]]:
    found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    yield from dict.fromkeys((family, address) for family, _, _, _, address in found)


def _tcp(family: int, address: tuple[object, ...], *, dual: bool, share: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:  # said in any case: the machine's own default differs
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix(path: str, mode: int) -> socket.socket:
    """Bound, and with its mode before it listens: nobody can connect in between."""
    if Path(path).is_socket():
        Path(path).unlink()  # a killed gateway left it behind
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        Path(path).chmod(mode)
    except BaseException:
        sock.close()
        raise
    return sock


def inherited() -> list[Where]:
    """The sockets that systemd has opened for us (sd_listen_fds(3)). Raises `ConfigError` where there are none."""
    passed = os.environ.get("LISTEN_FDS", "") if os.environ.get("LISTEN_PID") == str(os.getpid()) else ""
    if not passed.isdecimal() or int(passed) < 1:
        raise ConfigError("systemd passes no socket on", "start the gateway by a .socket unit, or change `listen`")
    return [Where(descriptor=3 + number) for number in range(int(passed))]


class Listener:
    """Sockets that clients of one kind come in by."""

    def __init__(
        self, wire: Wire, where: Where, sockets: list[socket.socket], *, tls: ServerTls | None, proxy_protocol: bool
    ) -> None:
        """`sockets`: as `bind` makes them."""
        self.where = where
        self.sockets = sockets
        self.tls = tls
        self.scheme = "https" if tls is not None else wire.scheme
        self._wire = wire
        self._proxy_protocol = proxy_protocol
        self._servers: list[asyncio.Server] = []
        self._bare: list[socket.socket] = []
        """Those we accept from ourselves."""
        self._arriving: dict[asyncio.Task[None], float] = {}
        self._unmet: set[socket.socket] = set()
        """Accepted, by a task that has not taken its first step: one that is cancelled before it never will."""

    async def open(self) -> None:
        """Listen."""
        loop = self._wire.loop
        for sock in self.sockets:
            sock.listen(BACKLOG)
            if self.tls is not None or self._proxy_protocol:
                self._bare.append(sock)
                loop.add_reader(sock, self._accept, sock)
            elif sock.family == socket.AF_UNIX:
                self._servers.append(await loop.create_unix_server(self._connection, sock=sock, backlog=BACKLOG))
            else:
                self._servers.append(await loop.create_server(self._connection, sock=sock, backlog=BACKLOG))

    @property
    def port(self) -> int:
        """The port; 0 for a Unix socket."""
        name = self.sockets[0].getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    @property
    def passed_on(self) -> bool:
        """Whether others opened its sockets, and keep them open when we have gone."""
        return self.where.descriptor >= 0

    @property
    def arriving(self) -> bool:
        """Whether somebody has connected who has not been let in or turned away yet."""
        return bool(self._arriving)

    def close(self) -> None:
        """Accept nobody more."""
        for server in self._servers:
            server.close()
        while self._bare:
            sock = self._bare.pop()
            self._wire.loop.remove_reader(sock)
            sock.close()

    def sweep(self, now: float) -> None:
        """Turn away whoever takes too long to say who they are. `now`: monotonic seconds."""
        for task, deadline in list(self._arriving.items()):
            if deadline < now:
                task.cancel()

    def known(self, name: object) -> tuple[str, bool]:
        """The other end of a socket, by its name: its canonical address, and whether its word on others is believed."""
        if not isinstance(name, tuple):
            return UNKNOWN, self._wire.proxies.unix
        address = canonical(name[0].partition("%")[0]) or UNKNOWN  # a link-local one is ours to see on one link only
        return address, self._wire.proxies.trusts(address)

    def _connection(self) -> ClientConnection:
        return ClientConnection(self._wire, self)

    # what comes before HTTP

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                sock, name = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.error("%s: nobody is accepted for a second: %s", self.where, error)
                self._wire.loop.remove_reader(listening)
                self._wire.loop.call_later(REST, self._accept_again, listening)
                return
            sock.setblocking(False)
            task = self._wire.spawn(self._welcome(sock, name))
            self._arriving[task] = self._wire.now() + self._wire.bounds.head_time
            self._unmet.add(sock)
            task.add_done_callback(partial(self._arrived, sock))
            if len(self._arriving) > self._wire.bounds.clients:
                oldest = next(iter(self._arriving))  # a handshake takes a moment, unless somebody means it to
                del self._arriving[oldest]
                oldest.cancel()

    def _arrived(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._arriving.pop(task, None)
        if sock in self._unmet:
            self._unmet.remove(sock)
            sock.close()

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._bare:
            self._wire.loop.add_reader(listening, self._accept, listening)

    async def _welcome(self, sock: socket.socket, name: object) -> None:
        """Hear what comes before HTTP, then hand the connection to the parser."""
        self._unmet.discard(sock)
        peer, trusted = "", False
        try:
            if self._proxy_protocol:
                peer, trusted = await self._introduced(sock, *self.known(name))
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError | BadProxyHeader):
                raise
            return
        secure = self.tls.context if self.tls is not None else None
        client = ClientConnection(self._wire, self, peer, trusted)
        try:
            # From here on the transport closes the socket, whatever happens.
            await self._wire.loop.connect_accepted_socket(lambda: client, sock, ssl=secure)
        except OSError as error:  # what TLS refuses is one
            _log.debug("%s: %s did not come in: %s", self.where, name, error)
        except asyncio.CancelledError:
            client.connection_lost(None)  # who came in just as we gave up on them is closed, but never told so
            raise

    async def _introduced(self, sock: socket.socket, proxy: str, trusted: bool) -> tuple[str, bool]:
        """The client's address as the proxy tells it, and whether that is a trusted proxy's again.

        Raises `BadProxyHeader`, OSError.
        """
        try:
            if not trusted:
                raise BadProxyHeader
            told = await self._header(sock)
        except BadProxyHeader:
            self._wire.turned_away(proxy, Reason.BAD_PROXY_HEADER, listener=str(self.where), trusted=trusted)
            raise
        if told is None:
            return proxy, trusted
        return told, self._wire.proxies.trusts(told)

    async def _header(self, sock: socket.socket) -> str | None:
        """Take the PROXY header out of the socket, not a byte more. Raises `BadProxyHeader`, OSError."""
        head = b""
        while True:
            await self._readable(sock)
            seen = sock.recv(proxy_protocol.LONGEST - len(head), socket.MSG_PEEK)
            if not seen:
                raise ConnectionResetError("nothing was said")
            found = proxy_protocol.parse(head + seen)
            head += sock.recv(len(seen) if found is None else found.length - len(head))
            if found is not None:
                return found.address

    async def _readable(self, sock: socket.socket) -> None:
        ready = asyncio.Event()
        self._wire.loop.add_reader(sock, ready.set)
        try:
            await ready.wait()
        finally:
            self._wire.loop.remove_reader(sock)
