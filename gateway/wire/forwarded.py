"""Who is on the other end, when a proxy of the operator's stands in between.

Nobody is trusted unless listed. From a listed peer, one of two headers is read, by the operator's choice, and the other
never: `X-Forwarded-For` with `X-Forwarded-Proto`, or `Forwarded` (RFC 7239). A proxy that writes one of them passes the
other on as its client sent it, so reading both would be believing the client.

The chain is read from the right: the first address that is not itself a listed proxy is the client, and what stands to
the left of it, which the client may have written, has no effect. An entry that is no address ends the search as
`unknown`: it never lowers a risk and never lifts a limit. Neither header is passed on as it came; services get
`X-Forwarded-*` of our own making.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Header = Literal["x-forwarded", "forwarded"]
UNKNOWN = "unknown"
_LONGEST_CHAIN = 64
_LONGEST_ADDRESS = 45
_LONGEST_ELEMENT = 512
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rb"(" + _TOKEN + rb")=(?:(" + _TOKEN + rb')|"((?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*)")'
_PAIRS = re.compile(_PAIR)
_ELEMENT = re.compile(_PAIR + rb"(?:;" + _PAIR + rb")*")
_NODE = re.compile(r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])(?::[0-9]{1,5})?")


def canonical(text: str) -> str | None:
    """An IP address in its one spelling (IPv4-mapped IPv6 as IPv4, no zone), or None."""
    return _canonical(text) if len(text) <= _LONGEST_ADDRESS else None


@lru_cache(4096)
def _canonical(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if address.scope_id is not None:
            return None
    return str(address)


@lru_cache(4096)
def network_of(address: str) -> str:
    """What an address counts as in limits: itself for IPv4, its /64 for IPv6 (one subscriber's network)."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))


class Hop(NamedTuple):
    """What one proxy says of whoever it had on the other end."""

    address: str
    """Canonical, or `unknown`."""
    scheme: str
    """`http` or `https`; empty where it does not say."""


def hops(values: Sequence[bytes]) -> list[Hop]:
    """The elements of `Forwarded`, every value in order, from the right: as far as they can be read, 64 at most.

    Each value is read for itself, and each element from its end: a quote that a client has left open cannot swallow
    what a proxy has added.
    """
    found: list[Hop] = []
    for value in reversed(values):
        for element in _elements(value):
            hop = _hop(element)
            found.append(hop or Hop(UNKNOWN, ""))
            if hop is None or len(found) > _LONGEST_CHAIN:
                return found
    return found


def _elements(value: bytes) -> Iterator[bytes]:
    """Elements from the right; the last one is what cannot be an element, if there is such a thing."""
    end = len(value)
    while end >= 0:
        start, element = end, b""
        for _ in range(_LONGEST_CHAIN):
            start = value.rfind(b",", max(0, end - _LONGEST_ELEMENT), start)
            element = value[start + 1 : end].strip(b" \t")
            if start < 0 or _ELEMENT.fullmatch(element):
                break  # a comma within quotes is none: what stands behind it is no element
        yield element[-_LONGEST_ELEMENT:]
        end = start


def _hop(element: bytes) -> Hop | None:
    if not _ELEMENT.fullmatch(element):
        return None
    said: dict[bytes, str] = {}
    for name, token, quoted in _PAIRS.findall(element):
        if name.lower() in said:
            return None
        said[name.lower()] = (token or re.sub(rb"\\(.)", rb"\1", quoted)).decode("latin-1")
    node = _NODE.fullmatch(said.get(b"for", ""))
    scheme = said.get(b"proto", "").lower()
    address = canonical(node[1] or node[2]) if node is not None else None
    return Hop(address or UNKNOWN, scheme if scheme in ("http", "https") else "")


class Told(NamedTuple):
    """What a trusted peer tells of a request."""

    address: str
    """The client's, canonical, or `unknown`."""
    chain: bytes
    """`X-Forwarded-For` for the service: every address as far as told, then the peer's own."""
    scheme: str
    """What the client spoke."""


class TrustedProxies:
    """The peers that are believed, and the header that is."""

    def __init__(self, networks: Sequence[Network], *, unix: bool = False, header: Header = "x-forwarded") -> None:
        """`unix`: whether whoever connects to a Unix socket is one of them."""
        self._networks = tuple(networks)
        self.unix = unix
        self._header = header
        self.names = b"forwarded" if header == "forwarded" else b"x-forwarded-for"
        """The header that names clients."""

    def trusts(self, address: str) -> bool:
        """Whether `address` (canonical) is a listed proxy."""
        if not self._networks or address == UNKNOWN:
            return False
        ip = ipaddress.ip_address(address)
        return any(ip in network for network in self._networks if network.version == ip.version)

    def told(self, peer: str, fields: Sequence[tuple[bytes, bytes]], scheme: str) -> Told:
        """What the header of a trusted `peer` says; `scheme` where it says none."""
        if self._header == "forwarded":
            return self._forwarded(peer, [value for name, value in fields if name.lower() == b"forwarded"], scheme)
        values = [value for name, value in fields if name.lower() == b"x-forwarded-for"]
        # What is no address keeps its place as `unknown`; without it, what a client wrote before would move up.
        chain = [
            canonical(part.strip().decode("latin-1")) or UNKNOWN
            for value in values[-_LONGEST_CHAIN:]
            for part in value.rsplit(b",", _LONGEST_CHAIN)[-_LONGEST_CHAIN:]
        ]
        return Told(self._first(peer, values), _chain(chain, peer), _claimed_scheme(fields, scheme))

    def client(self, peer: str, chain: Sequence[bytes]) -> str:
        """The client's address: `peer`, or behind trusted proxies the right-most untrusted entry of the chain.

        `chain` holds every `X-Forwarded-For` value in order.
        """
        return self._first(peer, chain) if self.trusts(peer) else peer

    def _first(self, peer: str, chain: Sequence[bytes]) -> str:
        if not chain:
            return peer
        entries = b",".join(chain).rsplit(b",", _LONGEST_CHAIN)
        if len(entries) > _LONGEST_CHAIN:
            return UNKNOWN
        for entry in reversed(entries):
            address = canonical(entry.strip().decode("latin-1"))
            if address is None:
                return UNKNOWN
            if not self.trusts(address):
                return address
        return canonical(entries[0].strip().decode("latin-1")) or UNKNOWN

    def _forwarded(self, peer: str, values: Sequence[bytes], scheme: str) -> Told:
        told = hops(values)
        chain = _chain([hop.address for hop in reversed(told)], peer)
        if not told:
            return Told(peer, chain, scheme)
        if len(told) > _LONGEST_CHAIN:
            return Told(UNKNOWN, chain, told[0].scheme or scheme)
        # How the client came is what the proxy says that it came to; the others speak of each other.
        client = next((hop for hop in told if not self.trusts(hop.address)), told[-1])
        return Told(client.address, chain, client.scheme or scheme)


def _chain(addresses: list[str], peer: str) -> bytes:
    return ", ".join((*addresses[-_LONGEST_CHAIN:], peer)).encode()


def _claimed_scheme(fields: Sequence[tuple[bytes, bytes]], scheme: str) -> str:
    """`X-Forwarded-Proto`; the last one, where several were put."""
    for name, value in reversed(fields):
        if name.lower() == b"x-forwarded-proto":
            claimed = value.rsplit(b",", 1)[-1].strip().lower().decode("latin-1")
            return claimed if claimed in ("http", "https") else scheme
    return scheme
