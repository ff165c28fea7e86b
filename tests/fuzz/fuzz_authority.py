"""Hosts: one spelling, which is its own, and nothing in it that begins a port, a path or a user."""

from __future__ import annotations

import ipaddress
import re

from gateway.wire.authority import BadAuthority, parse

_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?")


def one(data: bytes) -> None:
    for scheme in ("http", "https"):
        try:
            found = parse(data, scheme)
        except BadAuthority:
            continue
        assert parse(found.raw, scheme) == found
        assert 0 <= found.port <= 65535
        if ":" in found.host:
            assert str(ipaddress.IPv6Address(found.host)) == found.host
        else:
            assert _NAME.fullmatch(found.host), found
            assert ".." not in found.host
        assert parse(data.upper(), scheme) == parse(data.lower(), scheme) == found
