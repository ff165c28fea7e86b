"""A WebSocket handshake (RFC 6455, section 4) on its way through the gate.

It is an exchange like any other, judged like any other, until the service answers. Then both sides have agreed, and
the two connections become a tunnel; or they have not, and everything stays HTTP: bytes that came meanwhile are parsed
as requests. Nothing but a well-formed handshake is ever offered to a service as an upgrade, h2c least of all.

Browsers send cookies along from any page and let its script read what comes back, so where a cookie says who asks,
the page must be one of ours (RFC 6455, section 10.2).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.core.decision import Decision, Verdict
from gateway.core.facts import Facts
from gateway.core.reasons import Reason
from gateway.limits.headers import ratelimit_lines
from gateway.wire import websocket
from gateway.wire.exchange import Exchange
from gateway.wire.headers import without
from gateway.wire.origin import refuse_cross_site
from gateway.wire.request import Declined, Field
from gateway.wire.tunnel import Tunnel
from gateway.wire.upstream_connection import UpstreamConnection, reply_lines

_TOKEN = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset(
    "sec-websocket-key sec-websocket-version sec-websocket-protocol sec-websocket-extensions "
    "sec-websocket-accept".split()
)
"""Written anew for either side; without extensions, so that every frame can be read."""


class Handshake(NamedTuple):
    """What a client offers."""

    key: bytes
    protocols: tuple[bytes, ...]
    """Sub-protocols, in its order."""


def handshake(exchange: Exchange) -> Handshake | None:
    """What the client offers, where its request is a WebSocket handshake and nothing else."""
    if exchange.method != "GET" or exchange.version != "1.1" or exchange.close:
        return None
    said = _said(exchange.fields)
    named = _tokens(said.get(b"connection", []))
    keys = said.get(b"sec-websocket-key", [])
    protocols = tuple(_tokens(said.get(b"sec-websocket-protocol", []), lower=False))
    if (
        [value.lower() for value in said.get(b"upgrade", [])] != [b"websocket"]
        or b"upgrade" not in named
        or any(name.startswith(b"sec-websocket-") for name in named)
        or said.get(b"sec-websocket-version") != [b"13"]
        or len(keys) != 1
        or not websocket.is_key(keys[0])
        or not all(_TOKEN.fullmatch(protocol) for protocol in protocols)
        or said.keys() & {b"content-length", b"transfer-encoding", b"expect"}
    ):
        return None
    return Handshake(keys[0], protocols)


class Upgrade(Exchange):
    """A handshake under way, and what becomes of it."""

    resumes = False
    tunnel: Tunnel | None = None

    def __init__(self, parsed: Exchange, offer: Handshake) -> None:
        """`parsed`: the exchange as which its head was read."""
        super().__init__(parsed.client)
        self.offer = offer
        self.started = parsed.started
        self.fields = parsed.fields
        self.raw_target = parsed.raw_target
        self.method = parsed.method
        self.version = parsed.version
        self.complete = True
        self._answer = b""

    def _block(self, facts: Facts, verdict: Verdict) -> bytes:
        if refuse_cross_site(facts, verdict, self.wire.ledger):
            raise Declined(Reason.CROSS_SITE)
        lines = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n"
        offer = lines % self.offer.key
        if self.offer.protocols:
            offer += b"Sec-WebSocket-Protocol: %b\r\n" % b", ".join(self.offer.protocols)
        return without(_OURS, super()._block(facts, verdict)) + offer

    def agree(self, fields: list[Field]) -> None:
        """Whether the service agrees to what was offered, and nothing more: makes our answer of its own.

        Raises ValueError.
        """
        said = _said(fields)
        protocol = said.get(b"sec-websocket-protocol", [])
        if (
            self.upstream is self.wire.desk
            or [value.lower() for value in said.get(b"upgrade", [])] != [b"websocket"]
            or b"upgrade" not in _tokens(said.get(b"connection", []))
            or said.get(b"sec-websocket-accept") != [websocket.accept(self.offer.key)]
            or b"sec-websocket-extensions" in said
            or len(protocol) > 1
            or not set(protocol) <= set(self.offer.protocols)
        ):
            raise ValueError("not the handshake that was asked for")
        block, length, chunked = reply_lines(fields, self.terms)
        if length is not None or chunked:
            raise ValueError("an upgrade with a body")
        lines = [
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
            b"Sec-WebSocket-Accept: %b\r\n" % websocket.accept(self.offer.key),
            *(b"Sec-WebSocket-Protocol: %b\r\n" % each for each in protocol),
            without(_OURS, block),
            ratelimit_lines(self.verdict.quotas) if self.verdict is not None and self.verdict.quotas else b"",
            b"X-Request-Id: %b\r\n\r\n" % self.request_id.encode(),
        ]
        self._answer = b"".join(lines)

    def switch(self, connection: UpstreamConnection, early: bytes) -> None:
        """The handshake is done: answer it, and carry frames from now on."""
        if self.client.gone:  # over TLS it is told to whom the connection belonged when it ended
            self.abandon()
            self.client.abort()
            return
        self.status = 101
        self.responded = self.finished = True  # as HTTP; the tunnel says when all is over
        self.connection = None
        self.upstream_seconds = self.client.now() - self.upstream_started
        self.client.write(self._answer)
        self.tunnel = Tunnel(self, connection)
        self.tunnel.open(early)

    @property
    def over(self) -> bool:
        """Whether nothing goes on any more."""
        return self.finished if self.tunnel is None else self.tunnel.closing

    def cut(self, decision: Decision) -> None:
        """Who asked would not be let through any more: close with 1008, or answer where it is no socket yet."""
        if self.tunnel is not None:
            self.tunnel.end(websocket.POLICY_VIOLATION)
        else:
            super().cut(decision)


def _said(fields: list[Field]) -> dict[bytes, list[bytes]]:
    """Header fields by name, in lower case."""
    said: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        said.setdefault(name.lower(), []).append(value)
    return said


def _tokens(values: list[bytes], *, lower: bool = True) -> list[bytes]:
    """The members of a list, which may stand on several lines."""
    tokens = [token.strip() for value in values for token in value.split(b",")]
    return [token.lower() if lower else token for token in tokens if token]
