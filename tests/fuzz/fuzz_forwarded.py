"""Trusted proxies: what stands to the left of an address that nobody vouches for changes nothing; nothing crashes.

The input is a list of `X-Forwarded-For` or `Forwarded` values, one a line.
"""

from __future__ import annotations

from ipaddress import ip_network

from gateway.wire.forwarded import UNKNOWN, Header, TrustedProxies, canonical, network_of

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8:1::/48"))
PEER = "10.0.0.1"
HEADERS: tuple[tuple[Header, bytes, bytes], ...] = (
    ("x-forwarded", b"X-Forwarded-For", b"%b"),
    ("forwarded", b"Forwarded", b"for=%b"),
)


def one(data: bytes) -> None:
    values = [line.strip(b" \t") for line in data.replace(b"\r", b"").replace(b"\0", b"").split(b"\n")]
    for header, name, form in HEADERS:
        proxies = TrustedProxies(TRUSTED, header=header)
        fields = [(name, value) for value in values]
        told = proxies.told(PEER, fields, "http")
        assert told.address == UNKNOWN or canonical(told.address) == told.address, told
        network_of(told.address)
        assert told.scheme in ("http", "https")
        chain = told.chain.decode("ascii").split(", ")
        assert chain[-1] == PEER
        assert len(chain) <= 65
        assert all(entry == UNKNOWN or canonical(entry) == entry for entry in chain), told
        vouched = proxies.told(PEER, [*fields, (name, form % b"198.51.100.7")], "http")
        if data.count(b",") + len(values) < 60:
            assert vouched.address == "198.51.100.7", vouched
        else:
            assert vouched.address in ("198.51.100.7", UNKNOWN), vouched
        same_line = [*fields[:-1], (name, fields[-1][1] + b", " + form % b"198.51.100.7")]
        assert proxies.told(PEER, same_line, "http").address in ("198.51.100.7", UNKNOWN)
