"""Who is on the other end, when a proxy of the operator's stands in between.

Nobody is trusted unless listed. From a listed peer, `X-Forwarded-For` is read from the right: the first address that
is not itself a listed proxy is the client. An entry that is no address ends the search as `unknown`: it never lowers
a risk and never lifts a limit. `Forwarded` (RFC 7239) is not read and never passed on; `X-Forwarded-*` decides alone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
UNKNOWN = "unknown"
_LONGEST_CHAIN = 64
_LONGEST_ADDRESS = 45


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


class TrustedProxies:
    """The peers whose `X-Forwarded-*` is believed."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: str) -> bool:
        """Whether `address` (canonical) is a listed proxy."""
        if not self._networks or address == UNKNOWN:
            return False
        ip = ipaddress.ip_address(address)
        return any(ip in network for network in self._networks if network.version == ip.version)

    def client(self, peer: str, chain: Sequence[bytes]) -> str:
        """The client's address: `peer`, or behind trusted proxies the right-most untrusted entry of the chain.

        `chain` holds every `X-Forwarded-For` value in order.
        """
        if not chain or not self.trusts(peer):
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
