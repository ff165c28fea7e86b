"""One TCP (or Unix) connection to a service.

A connection carries one exchange at a time. Its answer is parsed by llhttp and written anew for the client; what
llhttp cannot make one clear response of is refused, and a connection is only used again after an answer that ended
exactly where it said it would.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import httptools

from gateway.core.header_names import HOP_BY_HOP, folded
from gateway.wire import familiar
from gateway.wire.headers import is_our_cookie
from gateway.wire.last_words import unread
from gateway.wire.retries import UNWELL
from gateway.wire.terms import Terms, kept_to_them
from gateway.wire.upstream_tls import ended_well

if TYPE_CHECKING:
    from gateway.wire.endpoint import Endpoint
    from gateway.wire.exchange import Exchange

_INTERIM = 8
"""Informational answers in a row before a service is called mad."""
_HEADERS = 256
_HEAD = 65_536
_INFINITE = float("inf")
_EVENTS = re.compile(rb"(?i)^content-type:[ \t]*text/event-stream[ \t]*(?:;|\r)", re.MULTILINE)
_UNSAFE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class UpstreamConnection(asyncio.Protocol):
    """One connection to a service. Parser callbacks only collect; `data_received` acts."""

    __slots__ = (
        "_answered",
        "_body",
        "_bytes",
        "_extra",
        "_fields",
        "_interim",
        "_keep_alive",
        "_known",
        "_parser",
        "_reason",
        "_reply",
        "_said",
        "_skip",
        "_switches",
        "_terms",
        "_transport",
        "_until_close",
        "_unwell",
        "deadline",
        "endpoint",
        "exchange",
        "fresh",
        "heard",
        "peer",
        "usable",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.exchange: Exchange | None = None
        self.deadline = _INFINITE
        """Monotonic time after which `sweep` calls `expire`."""
        self.fresh = True
        """Nothing was sent on it before the present exchange: what it does is no stale keep-alive."""
        self.heard = False
        """Whether the service said anything in the present exchange."""
        self.usable = False
        self.peer: tuple[str, int] | None = None
        """Address and port of the other end; None for a Unix socket."""
        self._unwell = False
        """Whether the answer is none, because the exchange is tried again elsewhere."""
        self._parser = httptools.HttpResponseParser(self)
        self._said: list[tuple[bytes, bytes]] = []
        self._terms: Terms | None = None
        self._reply: tuple[bytes, int | None, bool] = b"", None, False
        """What was made of the last answer's header fields; they seldom change within a second."""
        self._known: familiar.Answer | None = None
        self._reset()

    def _reset(self) -> None:
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._reason = b""
        self._bytes = 0
        self._interim = 0
        self._skip = False
        self._switches = False
        """Whether the service has agreed to a protocol that was asked for."""
        self._answered = False
        self._keep_alive = False
        self._until_close = False
        self._extra = False

    # the transport's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True
        name = transport.get_extra_info("peername")
        self.peer = name[:2] if isinstance(name, tuple) else None

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if error is not None and self.exchange is not None:
            for data in unread(self._transport):
                self.data_received(data)
        self.endpoint.lost(self)
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        if self._until_close and error is None and ended_well(self._transport):
            self._answered = True
            if self.endpoint.watched:
                self.endpoint.answered(exchange.status)
            exchange.relay(b"", last=True)
            exchange.finish(None)
        else:
            if self.fresh or self.heard:  # what was kept for long may end just as it is used again
                self.endpoint.failed()
            exchange.upstream_lost(self)

    def eof_received(self) -> bool:
        self.usable = False  # its end is told in the next turn of the loop, and nobody takes it in this one
        if self.exchange is None:
            self.endpoint.dropped(self)
        return False

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:  # a service that speaks unasked
            self.abort()
            return
        known = self._known
        first = not self.heard
        self.heard = True
        if (
            known is not None
            and first
            and len(data) == known.size
            and data.startswith(known.head)
            and exchange.terms is known.terms
            and not exchange.head_only
        ):
            exchange.respond(known.status, known.reason, known.block, known.length, bodiless=False)
            exchange.relay(data[len(known.head) :], last=True)
            self._end(exchange, again=exchange.request_sent)
            return
        broken = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._switches and self.usable:
                exchange.switch(self, data[upgrade.args[0] :])
                return
            broken = True
        except httptools.HttpParserError:
            broken = True
        if not self._answered:
            if not exchange.responded:
                self._bytes += len(data)
                broken = broken or self._bytes > _HEAD
            broken = broken or len(self._fields) > _HEADERS
        if broken and not self._answered:
            self.abort()
            self.endpoint.failed()
            if self._unwell:
                exchange.send_again()
            else:
                exchange.upstream_broke()
            return
        if self._body:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body.clear()
            exchange.relay(body, last=self._answered)
        elif self._answered or exchange.holds_head:
            exchange.relay(b"", last=self._answered)
        if self._answered:
            # A service that answers HEAD with a body after all would send it into somebody else's exchange.
            again = self._keep_alive and not self._extra and not broken and exchange.request_sent
            again = again and not exchange.head_only
            if again and first and not self._interim:
                self._remember(exchange.status, data)
            self._reset()
            self._end(exchange, again=again)
        elif not exchange.client.write_paused:  # what the client leaves unread is no silence of the service's
            self.deadline = exchange.client.now() + (exchange.times or self.endpoint.times).idle

    def _remember(self, status: int, data: bytes) -> None:
        """Keep the head of `data`, which was one whole answer, where it is plain."""
        block, length, _ = self._reply
        if (
            length is None
            or status in (204, 304)
            or status in UNWELL  # each of these may have to be kept from the client
            or self._terms is None
            or not 0 < len(data) - length <= familiar.LONGEST
        ):
            return
        head = data[: len(data) - length]
        if head.endswith(b"\r\n\r\n"):
            self._known = familiar.Answer(head, len(data), status, self._reason, block, length, self._terms)

    def _end(self, exchange: Exchange, *, again: bool) -> None:
        """The exchange has its whole answer. `again`: whether this connection can carry another."""
        self.exchange = None
        if self.endpoint.watched:
            self.endpoint.answered(exchange.status)
        if not (again and self.usable):
            self.usable = False
            self.deadline = exchange.client.now() + self.endpoint.keep  # for what it has not read yet
            self._transport.close()
        exchange.finish(self if self.usable else None)

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.hold_back()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.go_on()

    # the parser's calls

    def on_message_begin(self) -> None:
        if self._answered:
            self._extra = True

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if exchange is None or self._answered:
            return
        status = self._parser.get_status_code()
        if status < 100:
            raise ValueError("not a status")
        if status < 200:
            self._interim += 1
            if self._interim > _INTERIM or len(self._fields) > _HEADERS:
                raise ValueError("a flood of informational answers, or of what they say")
            if status == 101:
                exchange.agree(self._fields)
                self._switches = True
            self._fields.clear()
            self._reason = b""
            self._skip = True
            return
        if status in UNWELL and exchange.may_send_again(str(status)):
            self._unwell = True
            raise ValueError("no answer to pass on")
        version = self._parser.get_http_version()
        if status > 599 or version not in ("1.1", "1.0") or _UNSAFE.search(self._reason):
            raise ValueError("not a final status of HTTP/1")
        fields, self._fields = self._fields, []  # what comes after are trailers, and they end here
        if len(fields) > _HEADERS:
            raise ValueError("too many headers")
        terms = exchange.terms
        if fields != self._said or terms is not self._terms:
            self._reply = reply_lines(fields, terms)
            self._said, self._terms = fields, terms
        block, length, chunked = self._reply
        if chunked and version == "1.0":
            raise ValueError("chunked in HTTP/1.0")
        bodiless = exchange.head_only or status in (204, 304)
        self._until_close = not bodiless and length is None and not chunked
        if length is None and _EVENTS.search(block) is not None:  # which may say nothing for long
            exchange.times = replace(exchange.times or self.endpoint.times, idle=exchange.wire.bounds.stream)
            exchange.events = True
        exchange.respond(status, self._reason, block, length, bodiless=bodiless)
        if exchange.head_only:
            self._answered = True  # llhttp cannot be told that this was HEAD: the head is all there is

    def on_body(self, body: bytes) -> None:
        if self._answered or self.exchange is None:
            self._extra = True
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._skip:
            self._skip = False
        elif not self._answered:
            self._keep_alive = self._parser.should_keep_alive()
            self._answered = True

    # the exchange's calls

    def begin(self, exchange: Exchange, data: bytes, now: float) -> None:
        """Send an exchange's head, and what there is of its body. `now`: monotonic seconds."""
        self.exchange = exchange
        self.heard = False
        self.deadline = now + (exchange.times or self.endpoint.times).response
        self._transport.write(data)

    def send(self, data: bytes) -> None:
        """Send more of the body."""
        exchange = self.exchange
        if exchange is not None and not exchange.client.write_paused:
            self.deadline = exchange.client.now() + (exchange.times or self.endpoint.times).response
        self._transport.write(data)

    def pause_reading(self) -> None:
        """The client cannot take more for now."""
        self._transport.pause_reading()
        self.deadline = _INFINITE  # the client's own stall is bounded elsewhere

    def resume_reading(self) -> None:
        """The client takes more."""
        self._transport.resume_reading()
        exchange = self.exchange
        if exchange is not None:
            self.deadline = exchange.client.now() + (exchange.times or self.endpoint.times).idle

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """From now on the service speaks to `protocol`, which says when it is over (`connection_lost`)."""
        self.exchange = None
        self.usable = False
        self.deadline = _INFINITE
        if self.endpoint.watched:
            self.endpoint.answered(101)
        self._transport.set_protocol(protocol)
        return self._transport

    def abort(self) -> None:
        """Drop the connection; nobody is told."""
        self.usable = False
        self.exchange = None
        self.endpoint.dropped(self)
        self._transport.abort()

    def expire(self) -> None:
        """The deadline has passed."""
        exchange, self.exchange = self.exchange, None
        self.abort()
        if exchange is not None:
            if exchange.request_sent:  # else it may be the client that is slow
                self.endpoint.failed()
            exchange.upstream_late()


_PASS, _DROP, _LENGTH, _CODING, _CONNECTION, _COOKIE, _CACHE, _VARY = range(8)
_KINDS = {
    "content-length": _LENGTH,
    "transfer-encoding": _CODING,
    "connection": _CONNECTION,
    "set-cookie": _COOKIE,
    "cache-control": _CACHE,
    "vary": _VARY,
    "x-request-id": _DROP,
    **dict.fromkeys(HOP_BY_HOP - {"connection", "transfer-encoding"}, _DROP),
}
_kinds: dict[bytes, int] = {}


def reply_lines(fields: list[tuple[bytes, bytes]], terms: Terms) -> tuple[bytes, int | None, bool]:
    """The header lines of an answer that pass, joined, its length if it names one, and whether it is chunked.

    Raises ValueError where the framing is not one clear thing (RFC 9112, section 6.3).
    """
    lines: list[bytes] = []
    length: int | None = None
    chunked = False
    named: list[bytes] = []
    cache_control: list[bytes] = []
    vary: list[bytes] = []
    for field in fields:
        kind = _kinds.get(field[0])
        if kind is None:
            if len(_kinds) >= 4096:
                _kinds.clear()
            kind = _kinds[field[0]] = _KINDS.get(folded(field[0]), _PASS)
        if kind == _PASS:
            lines.append(b"%b: %b\r\n" % field)
        elif kind == _DROP:
            continue
        elif kind == _LENGTH:
            if length is not None:
                raise ValueError("two lengths")
            length = int(field[1])
        elif kind == _CODING:
            if chunked or field[1].lower() != b"chunked":
                raise ValueError("an unknown transfer coding")
            chunked = True
        elif kind == _CONNECTION:
            named.append(field[1])
        elif kind == _CACHE and terms.personal:
            cache_control.append(field[1])
        elif kind == _VARY and terms.personal:
            vary.append(field[1])
        elif kind != _COOKIE or not is_our_cookie(field[1], terms.cookies):
            lines.append(b"%b: %b\r\n" % field)
    if chunked and length is not None:
        raise ValueError("a length and chunks")
    if named:
        names = {token.strip().lower() for value in named for token in value.split(b",")} - {b"close", b"keep-alive"}
        if names:
            lines = [line for line in lines if line.partition(b":")[0].lower() not in names]
    if terms.personal:
        lines.append(kept_to_them(cache_control, vary))
    return b"".join(lines), length, chunked
