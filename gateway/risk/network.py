"""Is this where they usually come from?

Addresses change within a network every day, so what is compared is the network around them: /24 of IPv4 and /48 of
IPv6 as "theirs", /16 and /32 as "nearby", which is often the same provider.

    never seen           1.0
    nearby               0.5
    a network of theirs  0.0
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Final

from gateway.core.clock import Clock
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.risk.history import known, teach

THEIRS: Final = {4: 24, 6: 48}
NEARBY: Final = {4: 16, 6: 32}
"""Prefix lengths."""


def around(address: str, prefixes: Mapping[int, int]) -> str:
    """The network around `address` (an address, or a network in it), or an empty text where it is none."""
    try:
        host = ipaddress.ip_address(address.partition("/")[0])
    except ValueError:
        return ""
    return str(ipaddress.ip_network((host, prefixes[host.version]), strict=False))


class NetworkSignal:
    """New network."""

    name = "network"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def weigh(self, facts: Facts, identity: Identity, history: Mapping[str, Any]) -> float | None:
        """See the top of the file; None where the address is unknown or there is nothing to compare with."""
        seen = known(history, "networks", identity)
        here = around(facts.address, THEIRS)
        if not seen or not here:
            return None
        if here in seen:
            return 0.0
        nearby = around(here, NEARBY)
        return 0.5 if any(around(network, NEARBY) == nearby for network in seen) else 1.0

    def learn(self, facts: Facts, identity: Identity, history: dict[str, Any]) -> None:
        """Remember the network."""
        if here := around(facts.address, THEIRS):
            teach(history, "networks", here, identity, self._clock.now())
