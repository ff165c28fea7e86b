"""An open WebSocket: two connections, and what comes from one goes to the other.

Each side reads its frames before they go on, takes no more than the other can take, and knows where a frame ends; so
the gateway can ask a client whether it is still there, and can say why it closes. What it says of its own:

    Ping     to a client that was silent for `ping` seconds; as long again, and it is closed
    1001     we are going, or the other side is not there any more
    1002     a frame that must not be; 1007 text that is not UTF-8; 1009 a message above the bound
    1008     whoever opened it may no longer have it open

A socket is a protocol of its own from the 101 on: the HTTP connections it came from look on only to be told of the end.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from gateway.wire import websocket
from gateway.wire.last_words import unread
from gateway.wire.websocket import FrameReader, Violation

if TYPE_CHECKING:
    from gateway.wire.exchange import Exchange
    from gateway.wire.upstream_connection import UpstreamConnection

_INFINITE = float("inf")
_TOKEN = secrets.token_bytes(8)
"""What our pings say, so that their pongs are known."""
_PING = websocket.control(websocket.PING, _TOKEN)


class Tunnel:
    """One open WebSocket."""

    __slots__ = (
        "_asked_at",
        "_connection",
        "_heard_at",
        "_heard_service_at",
        "client",
        "closing",
        "deadline",
        "exchange",
        "service",
        "wire",
    )

    def __init__(self, exchange: Exchange, connection: UpstreamConnection) -> None:
        """`exchange`: the handshake, answered with 101; `connection`: the service's."""
        self.exchange = exchange
        self.wire = exchange.wire
        self._connection = connection
        bounds = self.wire.bounds
        self.client = Side(self, FrameReader(masked=True, text=True, limit=bounds.message, own_pong=_TOKEN))
        self.service = Side(self, FrameReader(masked=False))
        self.client.other, self.service.other = self.service, self.client
        self.deadline = _INFINITE
        """Monotonic time after which both connections are cut."""
        self._heard_at = self._heard_service_at = self.wire.now()
        self._asked_at = _INFINITE
        """When a ping was sent that nothing has answered yet."""
        self.closing = False
        """Whether its end has begun."""

    def open(self, early: bytes) -> None:
        """Take both connections over. `early`: what the service has sent behind its head."""
        client = self.exchange.client
        self.client.transport, sent_early = client.hand_over(self.client)
        self.service.transport = self._connection.hand_over(self.service)
        self.wire.streams.tunnels.add(self)
        if client.write_paused:
            self.client.pause_writing()
        if early:
            self.service.data_received(early)
        if sent_early and not self.closing:
            self.client.data_received(sent_early)

    def sweep(self, now: float) -> None:
        """See who is still there. `now`: monotonic seconds."""
        if self.deadline < now:
            self.client.transport.abort()
            self.service.transport.abort()
            return
        ping = self.wire.bounds.ping
        if self.service.heard:
            self.service.heard = False
            self._heard_service_at = now
        if self.client.heard:
            self.client.heard = False
            self._heard_at = now
            self._asked_at = _INFINITE
        elif self.closing:
            return
        elif not ping:
            if now - max(self._heard_at, self._heard_service_at) >= self.wire.bounds.stream:
                self.end(websocket.GOING_AWAY)
        elif self._asked_at < _INFINITE:
            if now - self._asked_at >= ping:
                self.end(websocket.GOING_AWAY)
        elif now - self._heard_at >= ping and self.service.reader.between and not self.client.stalled:
            self._asked_at = now
            self.client.transport.write(_PING)

    def going_away(self) -> None:
        """We are about to stop: both sides are told, and the client comes back elsewhere.

        Not in the midst of a frame, which would be lost; ask again then.
        """
        if self.client.reader.between and self.service.reader.between:
            self.end(websocket.GOING_AWAY)

    def end(self, code: int) -> None:
        """Close with `code` towards the client."""
        self._end(self.client, code)

    def violated(self, side: Side, violation: Violation) -> None:
        """A side has sent a frame that must not be: it is told so, the other that it is over."""
        if violation.passed:
            side.pass_on(violation.passed)
        self._end(side, violation.code)

    def closed(self) -> None:
        """A side has sent its Close, the other has to answer; whoever does not is not waited for."""
        self._close_within(self.wire.bounds.body_time)

    def lost(self, side: Side) -> None:
        """A side's connection has ended: the other gets what is on its way to it, and its end."""
        if side.other.lost:
            self._over()
            return
        side.other.finish(b"")
        self._close_within(self.wire.bounds.body_time if side.other.stalled else self.wire.bounds.drain_time)

    def stalled(self) -> None:
        """A side does not take what is sent to it."""
        if not self.closing:
            self.deadline = self.wire.now() + self.wire.bounds.body_time

    def moves(self) -> None:
        """A side takes again what is sent to it."""
        if not self.closing and not (self.client.stalled or self.service.stalled):
            self.deadline = _INFINITE

    def _end(self, side: Side, code: int) -> None:
        side.close(code)
        side.other.close(websocket.GOING_AWAY)
        self._close_within(self.wire.bounds.drain_time)

    def _close_within(self, seconds: float) -> None:
        self.closing = True
        self.deadline = min(self.wire.now() + seconds, self.deadline)

    def _over(self) -> None:
        """Both connections have ended: told to those they came from, counted and logged."""
        self.wire.streams.tunnels.discard(self)
        self._connection.connection_lost(None)
        exchange = self.exchange
        exchange.client.connection_lost(None)
        exchange.bytes_in, exchange.bytes_out = self.client.bytes, self.service.bytes
        self.wire.completed(exchange, self.wire.now())


class Side(asyncio.Protocol):
    """One end of a tunnel. What it sends is read and passed on to `other`."""

    __slots__ = ("_finished", "bytes", "heard", "lost", "other", "reader", "stalled", "transport", "tunnel")

    def __init__(self, tunnel: Tunnel, reader: FrameReader) -> None:
        self.tunnel = tunnel
        self.reader = reader
        self.other: Side
        self.transport: asyncio.Transport
        self.bytes = 0
        """What has come from it and gone on."""
        self.heard = False
        """Whether anything has come from it since the last sweep."""
        self.stalled = False
        """Whether it does not take what is sent to it."""
        self.lost = False
        self._finished = False
        """Whether it has got all it will get, and what it sends goes nowhere."""

    # the transport's calls

    def data_received(self, data: bytes) -> None:
        self.heard = True
        reader = self.reader
        try:
            passed = reader.feed(data)
        except Violation as violation:
            if not self._finished:
                self.tunnel.violated(self, violation)
            return
        if self._finished:
            if reader.closed:
                self.transport.close()
            return
        if passed:
            self.bytes += len(passed)
            self.other.transport.write(passed)
        if reader.closed:
            self.tunnel.closed()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            for data in unread(self.transport):
                if self._finished:
                    break
                self.data_received(data)
        self.lost = self._finished = True
        self.tunnel.lost(self)

    def pause_writing(self) -> None:
        self.stalled = True
        if not self.other._finished:
            self.other.transport.pause_reading()
        self.tunnel.stalled()

    def resume_writing(self) -> None:
        self.stalled = False
        if not self.other._finished:
            self.other.transport.resume_reading()
        self.tunnel.moves()

    # the tunnel's calls

    def pass_on(self, data: bytes) -> None:
        """Pass on what has come from this side."""
        if not self._finished:
            self.bytes += len(data)
            self.other.transport.write(data)

    def close(self, code: int) -> None:
        """Send a Close with `code`, where a frame can stand and none was sent; then nothing more."""
        if self._finished:
            return
        sender = self.other.reader
        if not sender.between:
            self._finished = True
            self.transport.abort()  # in the midst of a frame nothing can be said, and it is not whole
            return
        mask = secrets.token_bytes(4) if self is self.tunnel.service else None
        self.finish(b"" if sender.closed else websocket.control(websocket.CLOSE, code.to_bytes(2, "big"), mask))

    def finish(self, last: bytes) -> None:
        """Send `last` and the end. What it still sends is read to its end: closing with unread bytes would reset the
        connection, and take the last words with it.
        """
        if self._finished:
            return
        self._finished = True
        if last:
            self.transport.write(last)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self.reader.closed or not (last or self.transport.can_write_eof()):  # TLS cannot end one half
            self.transport.close()
        elif self.other.stalled:
            self.transport.resume_reading()
