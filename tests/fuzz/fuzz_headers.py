"""The header sanitiser: whatever a client sends, a service gets lines that are lines, one host, and nothing of ours.

The input is what follows a request line, up to the end of the head.
"""

from __future__ import annotations

import httptools

from gateway.core.header_names import HOP_BY_HOP, folded, is_ours
from gateway.wire.forwarded import TrustedProxies
from gateway.wire.request import Caller, Rejected
from tests.rig.messages import parse_request_head

_WRITTEN = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
"""Ours, and written by us."""


class _Fields:
    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.done = True


def parsed(data: bytes) -> list[tuple[bytes, bytes]] | None:
    """The header fields as the parser on our wire takes them; None: it refuses them, or they are not whole."""
    found = _Fields()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(b"POST / HTTP/1.1\r\n" + data + b"\r\n\r\n")
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    return found.fields if found.done else None


def one(data: bytes) -> None:
    fields = parsed(data)
    if fields is None:
        return
    try:
        caller = Caller(
            "1.1",
            fields,
            peer="192.0.2.1",
            trusted=False,
            proxies=TrustedProxies(()),
            scheme="http",
            strip_cookies=lambda cookie: cookie,
        )
    except Rejected:
        return
    head = parse_request_head(b"GET / HTTP/1.1\r\n" + caller.block + b"\r\n", 1, 1)
    assert head.one("Host") == caller.authority.raw
    assert head.one("X-Forwarded-For") == b"192.0.2.1"
    assert head.one("X-Forwarded-Proto") == b"http"
    assert head.one("X-Forwarded-Host") == caller.authority.raw
    for name in head.names:
        fold = folded(name.encode())
        assert fold not in HOP_BY_HOP, name
        assert name in _WRITTEN or not is_ours(fold), name
        assert fold not in ("content-length", "transfer-encoding", "expect"), name
    assert len(head.all("Cookie")) <= 1
    assert len(head.all("Authorization")) <= 1
    assert (caller.address, caller.network) == ("192.0.2.1", "192.0.2.1")
    sent = {folded(name) for name, _ in fields}
    assert {folded(name.encode()) for name in head.names} <= sent | _WRITTEN
