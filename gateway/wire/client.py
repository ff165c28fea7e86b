"""One TCP connection from a client.

Requests are parsed as they come and answered in the order they came. A connection carries one exchange at a time;
further requests wait, parsed, up to a bound, and past the bound their bytes wait unread. Parser callbacks only
collect; `data_received` acts, so that a fault of ours is never mistaken for a fault of the client's.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import httptools

from gateway.core.reasons import Reason
from gateway.wire import familiar
from gateway.wire.exchange import HIGH_WATER, Exchange
from gateway.wire.request import Caller, Field
from gateway.wire.upgrade import Upgrade, handshake

if TYPE_CHECKING:
    from gateway.core.certificate import Certificate
    from gateway.wire.listener import Listener
    from gateway.wire.wire import Wire

_SLICE = 16_384
_OVERHEAD = 8
"""Most bytes on the wire for one byte of body; a chunk of one byte takes six."""
_FRAMING = (b"content-length", b"transfer-encoding")
_LINE = 16
"""Bytes of a request line beside its target, as good as."""
_INFINITE = float("inf")
_RESET = struct.pack("ii", 1, 0)
"""`SO_LINGER`: on, for no time at all."""


class _TooMuch(Exception):  # noqa: N818
    def __init__(self, reason: Reason) -> None:
        self.reason = reason


class ClientConnection(asyncio.Protocol):
    """A client, for as long as it stays connected."""

    __slots__ = (
        "_backlog",
        "_block",
        "_caller",
        "_current",
        "_draining",
        "_failed",
        "_fields",
        "_head_bytes",
        "_listener",
        "_parser",
        "_parsing",
        "_paused",
        "_queue",
        "_repeating",
        "_switching",
        "_transport",
        "certificate",
        "deadline",
        "now",
        "peer",
        "scheme",
        "trusted",
        "wire",
        "write",
        "write_paused",
    )

    def __init__(self, wire: Wire, listener: Listener, peer: str = "", trusted: bool = False) -> None:
        """`peer`, `trusted`: of the client, where a PROXY header has told it; else of the other end of the socket."""
        self.wire = wire
        self.now = wire.now
        self.peer = peer
        """Canonical address of the other end, or `unknown`."""
        self.trusted = trusted
        """Whether what the other end says of others is believed."""
        self.scheme = listener.scheme
        """What the other end speaks, or what browsers see where TLS ends before us."""
        self.certificate: Certificate | None = None
        """The client's, verified; None where it showed none."""
        self._listener = listener
        self.deadline = _INFINITE
        """Monotonic time after which `sweep` calls `expire`."""
        self.write: Callable[[bytes], None]
        """Sends bytes to the client; the transport's own."""
        self.write_paused: bool = False
        self._parser = httptools.HttpRequestParser(self)
        self._parsing: Exchange | None = None
        self._caller: Caller | None = None
        self._block = b""
        """Header lines as they came, of a request without a body: those of `_caller`. Empty: none are known."""
        self._current: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._backlog: list[bytes] = []
        self._fields: list[Field] = []
        """Header lines being parsed: of a head, or trailers, which end here."""
        self._head_bytes = 0
        """Bytes of a head that is not whole yet; within a body, bytes since its last one."""
        self._paused = False
        self._draining = -1
        """Bytes that may still be thrown away before the connection ends; -1 while it lives."""
        self._repeating = False
        """Whether the parser reads a head of ours instead of one with `Upgrade`."""
        self._switching: Exchange | None = None
        """A handshake, while nobody knows whether what comes behind it is HTTP; it waits in `_backlog`."""
        self._failed: Reason | None = None
        """Why nothing after the queued requests can be understood."""

    # the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        if not self.peer:
            self.peer, self.trusted = self._listener.known(transport.get_extra_info("peername"))
        if self._listener.tls is not None:
            self.certificate = self._listener.tls.certificate_of(transport.get_extra_info("ssl_object"))
        self.deadline = self.now() + self.wire.bounds.head_time
        self.wire.clients.add(self)
        bounds = self.wire.bounds
        if len(self.wire.clients) > bounds.clients or bounds.per_address:
            self.wire.admission.enter(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self not in self.wire.clients:
            return
        self.wire.clients.discard(self)
        if self.wire.bounds.per_address:
            self.wire.admission.leave(self)
        if self.wire.draining and not self.wire.clients:
            self.wire.deserted.set()
        self._queue.clear()
        self._backlog.clear()
        current, self._current = self._current, None
        if current is not None:
            current.abandon()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        if self._draining >= 0:
            self._draining -= len(data)
            if self._draining < 0:
                self._transport.close()
            return
        if self._failed is not None:
            return
        if self._backlog:
            self._backlog.append(data)
            self.pause_reading()
            return
        idle = self._current is None and self._parsing is None and not self._queue and not self.write_paused
        if idle and self._block and data.endswith(self._block):
            line = familiar.REQUEST_LINE.fullmatch(data, 0, len(data) - len(self._block))
            if line is not None and len(line[2]) <= self.wire.bounds.target and self._caller is not None:
                self._start_familiar(familiar.METHODS[line[1]], line[2], self._caller)
                return
        if len(data) <= _SLICE and len(self._queue) < self.wire.bounds.pipeline:
            parser = self._parser
            self._feed(data)
            alone = self._queue[0] if idle and len(self._queue) == 1 and parser is self._parser else None
            self._go_on()
            if alone is not None:
                self._remember(data, alone)
        else:
            self._feed_slices(data)
            self._go_on()

    def pause_writing(self) -> None:
        self.write_paused = True
        self.deadline = self.now() + self.wire.bounds.body_time
        if self._current is not None and self._current.connection is not None:
            self._current.connection.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        current, bounds = self._current, self.wire.bounds
        if current is not None and current.complete:
            self.deadline = _INFINITE
        else:
            self.deadline = self.now() + (bounds.idle_time if current is None else bounds.body_time)
        if current is None:
            self.wire.loop.call_soon(self._go_on_later)
        elif current.connection is not None:
            current.connection.resume_reading()

    # the parser's calls

    def on_message_begin(self) -> None:
        if not self._repeating:
            self._parsing = Exchange(self)
            self._fields = self._parsing.fields

    def on_url(self, piece: bytes) -> None:
        if self._parsing is not None and not self._repeating:
            self._parsing.raw_target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self._parsing
        if exchange is None:
            return
        self._fields = []
        if self._repeating:
            self._repeating = False
            return
        bounds = self.wire.bounds
        if len(exchange.raw_target) > bounds.target:
            raise _TooMuch(Reason.TARGET_TOO_LONG)
        if len(exchange.fields) > bounds.headers:
            raise _TooMuch(Reason.HEAD_TOO_LARGE)
        if self._head_bytes + 2 * _SLICE > bounds.head and _length_of(exchange) > bounds.head:
            raise _TooMuch(Reason.HEAD_TOO_LARGE)
        parser = self._parser
        exchange.method = parser.get_method().decode("ascii")
        exchange.version = parser.get_http_version()
        exchange.close = not parser.should_keep_alive()
        self._queue.append(exchange)
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        if self._parsing is not None:
            self._parsing.receive(body)

    def on_message_complete(self) -> None:
        if self._parsing is not None and not self._parser.should_upgrade():
            self._parsing.complete = True
            self._parsing = None

    # parsing

    def _feed(self, data: bytes | memoryview) -> None:
        """Parse some bytes. What cannot be understood ends the connection after what came before it."""
        before = self._parsing
        body = before.bytes_in if before is not None else 0
        try:
            while True:
                try:
                    self._parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    rest = data[upgrade.args[0] :]
                    if self._may_switch(rest):
                        break
                    data = self._without_upgrade(rest)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._fail(cause.reason if isinstance(cause, _TooMuch) else Reason.FAULT)
            return
        except httptools.HttpParserError:
            self._fail(Reason.BAD_REQUEST)
            return
        parsing = self._parsing
        if parsing is None:
            return
        # The piece in which a head or a body begins may hold other things: it does not count yet.
        going_on = parsing is before and parsing.bytes_in == body
        self._head_bytes = self._head_bytes + len(data) if going_on else 0
        bounds = self.wire.bounds
        if not parsing.method and len(parsing.raw_target) > bounds.target:
            self._fail(Reason.TARGET_TOO_LONG)
        elif self._head_bytes > bounds.head or len(self._fields) > bounds.headers:
            self._fail(Reason.HEAD_TOO_LARGE)
        elif parsing.method:
            parsing.raw_in += len(data)
            if parsing.raw_in > bounds.head + _OVERHEAD * (parsing.bytes_in + _SLICE):
                self._fail(Reason.BAD_REQUEST)  # chunk extensions without end

    def _may_switch(self, rest: bytes | memoryview) -> bool:
        """Whether the head that was parsed is a WebSocket handshake. The `rest` then waits for its answer."""
        offer = handshake(self._parsing) if self._parsing is not None else None
        if offer is None or self._parsing is None:
            return False
        self._queue[-1] = self._switching = Upgrade(self._parsing, offer)
        self._parsing = None
        self._parser = httptools.HttpRequestParser(self)
        self._backlog.append(bytes(rest))
        return True

    def _without_upgrade(self, rest: bytes | memoryview) -> bytes:
        """What to parse instead of the `rest` of the bytes after a head with `Upgrade`.

        It goes on as if it had none. The parser takes such a request for one without a body, and gives up whatever
        follows; so another one starts, with a head that only says how the body is framed.
        """
        self._parser = httptools.HttpRequestParser(self)
        self._repeating = True
        fields = self._parsing.fields if self._parsing is not None else []
        framing = [b"%b: %b\r\n" % field for field in fields if field[0].lower() in _FRAMING]
        return b"".join((b"POST / HTTP/1.1\r\n", *framing, b"\r\n", rest))

    def _feed_slices(self, data: bytes) -> None:
        """Parse a large read piece by piece, so that a long pipeline stays bytes until its turn."""
        view = memoryview(data)
        at = 0
        while at < len(data) and self._failed is None:
            if len(self._queue) >= self.wire.bounds.pipeline or self._switching is not None:
                self._backlog.append(data[at:])
                return
            self._feed(view[at : at + _SLICE])
            at += _SLICE

    def _fail(self, reason: Reason) -> None:
        self._failed = reason
        self._backlog.clear()

    def _go_on(self) -> None:
        """After parsing: begin what can begin, pass on what has come, hold back what is too much."""
        current = self._current
        if current is None:
            if self._queue:
                self._start_next()
            elif self._failed is not None:
                self._answer_failure()
            elif self._parsing is not None:
                self.deadline = min(self.deadline, self._parsing.started + self.wire.bounds.head_time)
        else:
            if self._failed is not None and not current.complete and not self._queue:
                current.reject(self._failed)
                return
            current.received()
            if not self.write_paused:
                self.deadline = _INFINITE if current.complete else self.now() + self.wire.bounds.body_time
            parsing = self._parsing
            if parsing is not None and parsing is not current and parsing.pending > HIGH_WATER:
                self.pause_reading()  # its turn to ask for more comes when it is begun
        if len(self._queue) >= self.wire.bounds.pipeline:
            self.pause_reading()

    def _go_on_later(self) -> None:
        """The same on a later turn: the connection may have ended meanwhile."""
        if self._draining < 0 and not self._transport.is_closing():
            self._go_on()

    def _start_familiar(self, method: str, target: bytes, caller: Caller) -> None:
        """Begin a request whose header lines are those of the one before, byte for byte."""
        exchange = self._current = Exchange(self)
        exchange.method = method
        exchange.raw_target = target
        exchange.fields = caller.fields
        exchange.complete = True
        self.deadline = _INFINITE
        exchange.start()

    def _remember(self, data: bytes, exchange: Exchange) -> None:
        """Keep the header lines of `data`, which was this one exchange, where the next may have the same."""
        caller = self._caller
        plain = exchange.complete and not exchange.bytes_in and not exchange.close and exchange.caller is caller
        if plain and caller is not None and not caller.expects and caller.version == "1.1" and caller.length == 0:
            self._block = familiar.header_block(data)

    def _start_next(self) -> None:
        # Answers that nobody reads must not pile up: the next request waits for the last answer to be on its way.
        while self._queue and self._current is None and not self.write_paused:
            exchange = self._current = self._queue.popleft()
            if not self.write_paused:
                self.deadline = _INFINITE if exchange.complete else self.now() + self.wire.bounds.body_time
            if self._failed is not None and not exchange.complete:
                exchange.request_id = self.wire.next_id()
                exchange.reject(self._failed)
                return
            exchange.start()

    def _answer_failure(self) -> None:
        """Refuse what could not be parsed, with a request id, one event, and the end of the connection."""
        reason = self._failed or Reason.BAD_REQUEST
        exchange = self._current = self._parsing or Exchange(self)
        self._parsing = None
        exchange.request_id = self.wire.next_id()
        exchange.reject(reason)

    # the exchange's calls

    def caller_of(self, exchange: Exchange) -> Caller:
        """What the exchange's fields say; the same as before where they are. Raises `Rejected`."""
        known = self._caller
        if known is not None and known.fields == exchange.fields and known.version == exchange.version:
            return known
        wire = self.wire
        self._block = b""
        self._caller = Caller(
            exchange.version,
            exchange.fields,
            peer=self.peer,
            trusted=self.trusted,
            proxies=wire.proxies,
            scheme=self.scheme,
            strip_cookies=wire.strip_cookies,
            certificate=self.certificate,
        )
        return self._caller

    def pause_reading(self) -> None:
        """Nothing more can be taken for now."""
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """More can be taken."""
        if self._paused and not self._backlog and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def rest(self) -> None:
        """Hear nothing for the second in which nobody should come again: asking at once must not pay."""
        self.pause_reading()
        self.wire.loop.call_later(1.0, self._rested)

    def _rested(self) -> None:
        """Hear again, unless a request has begun meanwhile: it says itself when more may come."""
        if self._current is None and not self._queue:
            self.resume_reading()

    def exchange_finished(self, exchange: Exchange, now: float) -> None:
        """The current exchange has its whole answer, since `now`."""
        self._current = None
        # An answer that began before we were asked to stop could not say that it is the last one here.
        if exchange.close or (self.wire.draining and self.last):
            self._end(exchange)
            return
        if self._backlog and self._switching in (None, exchange):
            self._switching = None
            backlog, self._backlog = self._backlog, []
            for index, data in enumerate(backlog):
                self._feed_slices(data)
                if self._backlog or self._failed is not None:
                    self._backlog += backlog[index + 1 :]
                    break
        if self._queue:
            # Not from within: a pipeline of a thousand must not be a thousand calls deep.
            self.wire.loop.call_soon(self._go_on_later)
        elif self._failed is not None:
            self._answer_failure()
        else:
            self.resume_reading()
            if not self.write_paused:
                bounds = self.wire.bounds
                self.deadline = now + (bounds.idle_time if self._parsing is None else bounds.head_time)

    def _end(self, exchange: Exchange) -> None:
        """Close, once the client has had a chance to read the answer."""
        unread = bool(self._queue or self._backlog or self._paused)
        self._queue.clear()
        self._backlog.clear()
        if exchange.complete and self._failed is None and not unread:
            self.deadline = self.now() + self.wire.bounds.body_time  # for what is still to be read by the client
            self._transport.close()
            return
        self._linger()

    def turn_away(self, answer: bytes) -> None:
        """Say `answer` to whatever is asked, and close."""
        self._transport.write(answer)
        self._linger()

    def _linger(self) -> None:
        """Throw away what still comes, until the client closes as well.

        Closing with unread bytes would reset the connection and take the answer with it (RFC 9112, section 9.6).
        """
        self._draining = self.wire.bounds.drain
        self._parsing = None
        self._fields = []
        self.deadline = self.now() + self.wire.bounds.drain_time
        self._paused = True
        self.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    @property
    def gone(self) -> bool:
        """Whether the connection has ended, or is about to."""
        return self._transport.is_closing()

    @property
    def answering(self) -> Exchange | None:
        """The exchange under way."""
        return self._current

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """From now on the client speaks to `protocol`, which says when it is over (`connection_lost`).

        Returns the transport, and what has come behind the handshake already.
        """
        early = b"".join(self._backlog)
        self._backlog.clear()
        self._switching = None
        self.deadline = _INFINITE
        self._transport.set_protocol(protocol)
        self.resume_reading()
        return self._transport, early

    def abort(self) -> None:
        """Cut the connection so that the client sees a broken answer, not a short one.

        With a reset: an answer without length or chunks ends with its connection, and an orderly end would be its own.
        """
        sock = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def expire(self) -> None:
        """The deadline has passed."""
        self.deadline = _INFINITE
        if self.write_paused or self._transport.is_closing():
            self._transport.abort()  # it does not read; an orderly end would wait for it for ever
        elif self._draining >= 0 or (self._current is None and self._parsing is None):
            self.deadline = self.now() + self.wire.bounds.body_time
            self._transport.close()
        elif self._current is not None:
            self._current.reject(Reason.TIMED_OUT)
        else:
            self._fail(Reason.TIMED_OUT)
            self._answer_failure()

    # for draining, and for others

    @property
    def waiting(self) -> bool:
        """Whether we wait for a request, or for the rest of its head."""
        nothing = self._current is None and not self._queue and not self._backlog and self._failed is None
        return nothing and self._draining < 0 and not self._transport.is_closing()

    @property
    def waiting_since(self) -> float:
        """Monotonic time."""
        bounds = self.wire.bounds
        fresh = self._parsing is not None or self._caller is None
        return self.deadline - (bounds.head_time if fresh else bounds.idle_time)

    @property
    def awaits_answer(self) -> bool:
        """Whether a request waits for its answer to begin."""
        return self._current is not None and not self._current.responded

    @property
    def last(self) -> bool:
        """Whether no further request has come behind the current one."""
        return not self._queue and not self._backlog and self._parsing is None

    @property
    def idle(self) -> bool:
        """Whether no request is on its way here, and nobody is closing."""
        return self.waiting and self._parsing is None

    def fileno(self) -> int:
        """The socket's number."""
        number: int = self._transport.get_extra_info("socket").fileno()
        return number

    def close(self) -> None:
        """End the connection once what was written is sent."""
        self.deadline = self.now() + self.wire.bounds.body_time
        self._transport.close()


def _length_of(exchange: Exchange) -> int:
    """Bytes of a head: request line and header lines."""
    lines = sum(len(name) + len(value) + 4 for name, value in exchange.fields)
    return len(exchange.raw_target) + lines + _LINE
