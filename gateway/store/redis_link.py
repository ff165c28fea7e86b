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
import os
import ssl
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hiredis
from redis import exceptions
from redis.asyncio import Connection, UnixDomainSocketConnection

from gateway.store.line import DEADLINE, LATE

if TYPE_CHECKING:
    from gateway.store.redis_where import Address, Where

Word = str | bytes | int
"""A piece of a command."""

NAME = "sallyport"
"""What `CLIENT LIST` calls our connections."""
CONNECT = 1.0
"""Seconds until a connection that does not come is given up. Who needs it waits less."""


_NOT_YET = object()
"""What the parser says of an answer that is not whole. It would say False, which may be an answer."""


_T = TypeVar("_T")


class Lost(Exception):  # noqa: N818 - the state is the name
    """The connection is gone, with why."""


class Closed(Lost):
    """We have let go of it ourselves, which says nothing of the server."""


class Link(asyncio.Protocol):
    """An open connection of redis-py, taken over."""

    def __init__(self, connection: Any, deadline: float = DEADLINE) -> None:
        """`deadline`: seconds that a call waits, unless it says otherwise."""
        self.broken = ""
        """Why it is not open any more."""
        self._lost: type[Lost] = Lost
        self._connection = connection
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse, replyError=exceptions.ResponseError, notEnoughData=_NOT_YET
        )
        self._transport = connection._writer.transport
        self._transport.set_protocol(self)
        if self._transport.is_closing() or connection._reader.at_eof():
            self._break("closed by the server")

    def ask(self, command: tuple[Word, ...], seconds: float = 0.0) -> asyncio.Future[Any]:
        """Send it. The answer, or raises `Lost`; an error of the server's is `redis.exceptions.ResponseError`."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self.broken:
            answer.set_exception(self._lost(self.broken))
            return answer
        due = self._loop.time() + (seconds or self._deadline)
        self._waiting.append((answer, due))
        if self._timer is None or due < self._due:
            self._arm(due)
        self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]
        return answer

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._waiting)

    def close(self) -> None:
        """Break it off. Who waits for an answer is told `Closed`."""
        self._break("closed", Closed)

    def data_received(self, data: bytes) -> None:
        """Answers, or the beginning of one."""
        if self.broken:
            return
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOT_YET:
                self.answered(reply)
        except Exception:  # also of what the parser does not call invalid: a list too long for any memory
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

    def _arm(self, due: float, again: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._late, again)

    def _late(self, again: bool) -> None:
        self._timer = None
        if not self._waiting:
            return
        now, due = self._loop.time(), min(due for _, due in self._waiting)
        if due > now:
            self._arm(due)
        elif now - due > LATE and not again:
            self._arm(now + self._deadline, True)
        else:
            self._break(f"no answer within {self._deadline * 1000:g} ms")

    def _break(self, why: str, lost: type[Lost] = Lost) -> None:
        if self.broken:
            return
        self.broken, self._lost = why, lost
        if self._timer is not None:
            self._timer.cancel()
        let_go(self._connection)
        waiting, self._waiting = self._waiting, deque()
        for answer, _ in waiting:
            if not answer.done():
                answer.set_exception(lost(why))


class Node:
    """One server, and the link to it, made when it is needed."""

    def __init__(self, where: Where, address: Address, *, sentinel: bool = False) -> None:
        self.address = address
        self._where = where
        self._sentinel = sentinel
        self._link: Link | None = None
        self._connecting: asyncio.Task[Link] | None = None
        self._over = False

    @property
    def link(self) -> Link | None:
        """The open link, if there is one."""
        link = self._link
        return link if link is not None and not link.broken else None

    @property
    def busy(self) -> bool:
        """Whether somebody waits for it."""
        link = self.link
        return (link is not None and link.busy) or (self._connecting is not None and not self._connecting.done())

    async def reach(self, seconds: float) -> Link:
        """The link, after `seconds` at most; many who ask wait for the same. Raises as `connect` does, and `Closed`.

        Connecting goes on when nobody waits any more: who asks next finds it done.
        """
        if (link := self.link) is not None:
            return link
        if self._over:
            raise Closed("closed")
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.create_task(self._connect(), name=f"connecting to {self.address}")
            self._connecting.add_done_callback(seen)
        return await outcome(self._connecting, seconds, f"no connection to {self.address} in time")

    async def ask(self, *command: Word, seconds: float = 0.0) -> Any:
        """One question, connecting included. Raises `Lost`, or as `connect` does."""
        link = await self.reach(seconds or self._where.deadline)
        return await link.ask(command, seconds)

    def close(self) -> None:
        """Let go of it."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.close()

    async def closed(self) -> None:
        """Let go of it for good, and wait until a connection that was being made is let go of as well."""
        self._over = True
        self.close()
        if self._connecting is not None:
            await asyncio.wait([self._connecting])

    async def _connect(self) -> Link:
        connection = await connect(self._where, self.address, sentinel=self._sentinel)
        self._link = Link(connection, self._where.deadline)
        return self._link


class _Secure(Connection):
    """Over TLS, begun on a connection that is there already: whatever ends it, there is something to let go of at once.
    asyncio, whose handshake is given up when it is just done, and redis-py, whose server refuses it, would only begin
    the farewell, and keep nothing to end it by."""

    def __init__(self, tls: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls

    async def disconnect(self, *_: Any, **__: Any) -> None:
        """At once."""
        let_go(self)

    async def _connect(self) -> None:
        await super()._connect()  # type: ignore[no-untyped-call]
        writer: Any = self._writer
        await writer.start_tls(self._tls, server_hostname=self.host, ssl_handshake_timeout=0.9 * CONNECT)


async def connect(where: Where, address: Address, *, sentinel: bool = False) -> Any:
    """A new connection of redis-py, signed in. Raises what redis-py raises, `Lost`, `OSError`, `TimeoutError`."""
    username = where.sentinel_username if sentinel else where.username
    password = where.sentinel_password if sentinel else where.password
    options: dict[str, Any] = {
        "username": username or None,
        "password": password or None,
        "db": 0 if sentinel else where.database,
        "protocol": 2,
        "client_name": None if sentinel else NAME,
        "driver_info": None,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT,
    }
    if address.path:
        connection: Any = UnixDomainSocketConnection(path=address.path, **options)
    elif where.tls:
        connection = _Secure(tls_of(where), host=address.host, port=address.port, **options)
    else:
        connection = Connection(host=address.host, port=address.port, **options)
    try:
        async with asyncio.timeout(CONNECT):
            await connection.connect()
    except BaseException as error:
        let_go(connection)
        if isinstance(error, Exception) and not isinstance(error, (OSError, exceptions.RedisError)):
            raise Lost("its answer makes no sense") from error  # whatever the parser stumbled over
        raise
    return connection


def let_go(connection: Any) -> None:
    """End a connection of redis-py at once, without the farewells of TLS that nobody would wait for."""
    if connection._writer is not None:
        connection._writer.transport.abort()
    connection._close()


def tls_of(where: Where) -> ssl.SSLContext:
    """What we believe and what we show; read again when a file has changed. Raises `OSError`, `ssl.SSLError` too."""
    files = (where.ca, where.certificate, where.key)
    return _tls(files, tuple(file.stat().st_mtime_ns if file is not None else 0 for file in files))


@lru_cache(maxsize=4)
def _tls(files: tuple[Path | None, Path | None, Path | None], _: tuple[int, ...]) -> ssl.SSLContext:
    ca, certificate, key = files
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key, password=lambda: "")
    return context


def seen(task: asyncio.Future[Any]) -> None:
    """Somebody has looked at how it ended; else asyncio would say that nobody did."""
    if not task.cancelled():
        task.exception()


async def outcome(task: asyncio.Task[_T], seconds: float, late: str = "") -> _T:
    """What a task answers for which several wait, within `seconds`; it goes on, whoever stops waiting.

    Raises what it does, `TimeoutError` with `late`, and `Closed` where it was ended: that must not look like the end of
    those who wait, or nobody would tell them anything.
    """
    await asyncio.wait([task], timeout=seconds)
    if not task.done():
        raise TimeoutError(late)
    if task.cancelled():
        raise Closed("closed")
    return task.result()


async def ended(task: asyncio.Task[Any] | None) -> None:
    """Cancel it, and wait until it has let go of what it had."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])


def why(error: BaseException) -> str:
    """What went wrong, in a few words without secrets."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not good: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {(cause.reason or 'no reason given').lower().replace('_', ' ')}"
        if isinstance(cause, OSError) and cause.errno and cause.strerror and not isinstance(cause, TimeoutError):
            return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror
        if isinstance(cause, ConnectionAbortedError):
            return "no TLS handshake in time"
        cause = cause.__cause__ or cause.__context__
    text = str(error).split("\n")[0][:200]
    return text or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
