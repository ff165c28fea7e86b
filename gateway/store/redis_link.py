"""One connection to a Redis server, and many calls on it at once.

redis-py connects: TCP, Unix sockets, TLS, AUTH, SELECT. Then the transport is ours, for its client takes a connection
of a pool for each call and costs some 60 µs of processor time with it, where this costs five. Commands are written
as they come and answered in order, so a call is its place in a queue.

    open ── an answer is late, makes no sense, or the connection ends ──▶ broken, for ever

Everybody who waits hears why. A broken link is never mended: an answer that comes late would be taken for another
call's.

All calls have the same time, so the first in the queue is the first to be late: one timer, none for a call. As in
`line`, a timer that fires late itself proves nothing, and is set once more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hiredis
from redis import exceptions
from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection

from gateway.store.line import LATE

if TYPE_CHECKING:
    from gateway.store.redis_where import Address, Where

Word = str | bytes | int
"""A piece of a command."""

NAME = "sallyport"
"""What `CLIENT LIST` calls our connections."""
CONNECT = 1.0
"""Seconds until a connection that does not come is given up. Who needs it waits less."""


class Lost(Exception):  # noqa: N818 - the state is the name
    """The connection is gone, with why."""


class Link(asyncio.Protocol):
    """An open connection. `ended` is called once, with why, when it breaks without being closed."""

    def __init__(self, connection: Any, deadline: float, ended: Callable[[str], None] | None = None) -> None:
        self.broken = ""
        """Why it is not open any more."""
        self._connection = connection
        self._deadline = deadline
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._reader = hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=exceptions.ResponseError)
        self._transport = connection._writer.transport
        self._transport.set_protocol(self)
        if self._transport.is_closing() or connection._reader.at_eof():
            self._break("closed by the server")

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._waiting

    def ask(self, command: tuple[Word, ...]) -> asyncio.Future[Any]:
        """Send it. The answer, or raises `Lost`; an error of the server's is `redis.exceptions.ResponseError`."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.broken:
            answer.set_exception(Lost(self.broken))
            return answer
        due = self._loop.time() + self._deadline
        self._waiting.append((answer, due))
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._late, False)
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]
        return answer

    def close(self) -> None:
        """Break it off; nobody is told."""
        self._ended = None
        self._break("closed")

    def data_received(self, data: bytes) -> None:
        """Answers, or the beginning of one."""
        if self.broken:
            return
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self.answered(reply)
        except exceptions.InvalidResponse:
            self._break("its answer makes no sense")

    def answered(self, reply: Any) -> None:
        """One whole answer."""
        if not self._waiting:
            self._break("an answer nobody asked for")
            return
        answer, _ = self._waiting.popleft()
        if answer.done():  # whoever asked does not wait any more
            return
        if isinstance(reply, Exception):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

    def eof_received(self) -> None:
        """The server will say no more."""
        self._break("closed by the server")

    def connection_lost(self, error: Exception | None) -> None:
        """As asyncio says it."""
        self._break(f"connection lost: {error}" if error else "closed by the server")

    def _late(self, again: bool) -> None:
        self._timer = None
        if not self._waiting:
            return
        now, (_, due) = self._loop.time(), self._waiting[0]
        if due > now:
            self._timer = self._loop.call_at(due, self._late, False)
        elif now - due > LATE and not again:
            self._timer = self._loop.call_at(now + self._deadline, self._late, True)
        else:
            self._break(f"no answer within {self._deadline * 1000:g} ms")

    def _break(self, why: str) -> None:
        if self.broken:
            return
        self.broken = why
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        self._connection._close()
        waiting, self._waiting = self._waiting, deque()
        for answer, _ in waiting:
            if not answer.done():
                answer.set_exception(Lost(why))
        if self._ended is not None:
            self._ended(why)


async def connect(where: Where, address: Address, *, seconds: float = CONNECT, sentinel: bool = False) -> Any:
    """A new connection, signed in. Raises what redis-py raises, `OSError`, `TimeoutError`."""
    username = where.sentinel_username if sentinel else where.username
    password = where.sentinel_password if sentinel else where.password
    options: dict[str, Any] = {
        "username": username or None,
        "password": password or None,
        "db": 0 if sentinel else where.database,
        "protocol": 2,
        "client_name": NAME,
        "driver_info": None,
        "socket_timeout": None,
        "socket_connect_timeout": seconds,
    }
    if address.path:
        connection: Any = UnixDomainSocketConnection(path=address.path, **options)
    elif where.tls:
        files: dict[str, Any] = {
            name: str(path) if path is not None else None
            for name, path in (
                ("ssl_ca_certs", where.ca),
                ("ssl_certfile", where.certificate),
                ("ssl_keyfile", where.key),
            )
        }
        connection = SSLConnection(host=address.host, port=address.port, **files, **options)
    else:
        connection = Connection(host=address.host, port=address.port, **options)
    try:
        async with asyncio.timeout(seconds):
            await connection.connect()
    except BaseException:
        connection._close()
        raise
    return connection
