from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.forwarded import UNKNOWN, TrustedProxies, canonical, network_of

NOBODY = TrustedProxies([])
PROXIES = TrustedProxies(
    [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"), ipaddress.ip_network("127.0.0.1/32")]
)


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("203.0.113.9", [b"10.0.0.1"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1", b"203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [b"1.1.1.1, 203.0.113.9, 10.0.0.7"], "203.0.113.9"),
        ("10.0.0.1", [b" 203.0.113.9 ,\t10.0.0.7 "], "203.0.113.9"),
        ("10.0.0.1", [b"10.0.0.9, 10.0.0.7"], "10.0.0.9"),
        ("10.0.0.1", [b"2001:DB8::1"], "2001:db8::1"),
        ("10.0.0.1", [b"::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [b"::ffff:10.0.0.9, 1.1.1.1, ::ffff:10.0.0.8"], "1.1.1.1"),
        ("fd00::1", [b"203.0.113.9"], "203.0.113.9"),
    ],
)
def test_case_57_the_right_most_untrusted_entry_is_the_client(peer: str, chain: list[bytes], client: str) -> None:
    assert PROXIES.client(peer, chain) == client


@pytest.mark.parametrize(
    "entry",
    [
        *rb"a unknown _hidden 203.0.113.9:443 [2001:db8::1] [2001:db8::1]:1 fe80::1%eth0 203.0.113".split(),
        *rb'203.0.113.009 0x7f.1 2130706433 127.1 1.1.1.1/8 ::1::1 for=1.1.1.1 "1.1.1.1" 1.1.1.1;'.split(),
        *(b"", b" ", "١.1.1.1".encode(), b"a" * 10_000),
    ],
    ids=lambda entry: repr(entry)[:30],
)
def test_case_58_what_is_no_address_is_unknown(entry: bytes) -> None:
    assert PROXIES.client("10.0.0.1", [entry]) == UNKNOWN
    assert PROXIES.client("10.0.0.1", [b"1.1.1.1, " + entry]) == UNKNOWN
    assert PROXIES.client("10.0.0.1", [entry + b", 1.1.1.1"]) == "1.1.1.1"


def test_case_58_a_very_long_chain_is_unknown() -> None:
    assert PROXIES.client("10.0.0.1", [b", ".join([b"1.1.1.1"] * 10_000)]) == UNKNOWN
    assert PROXIES.client("10.0.0.1", [b"1.1.1.1"] * 10_000) == UNKNOWN


@given(st.lists(st.ip_addresses(), max_size=5))
def test_case_61_nobody_is_trusted_unless_listed(chain: list[ipaddress.IPv4Address]) -> None:
    claimed = [str(address).encode("ascii") for address in chain]
    assert NOBODY.client("203.0.113.9", claimed) == "203.0.113.9"
    assert NOBODY.client("127.0.0.1", claimed) == "127.0.0.1"
    assert not NOBODY.trusts("127.0.0.1")


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_give_an_address_or_unknown(chain: list[bytes]) -> None:
    found = PROXIES.client("10.0.0.1", chain)
    assert found == UNKNOWN or canonical(found) == found


@given(st.lists(st.ip_addresses(), max_size=4), st.ip_addresses(v=4).filter(lambda address: not address.is_private))
def test_what_a_client_writes_itself_never_names_it(
    written: list[ipaddress.IPv4Address], real: ipaddress.IPv4Address
) -> None:
    """Whatever stands to the left of what our proxy saw has no effect."""
    chain = b", ".join([*(str(address).encode("ascii") for address in written), str(real).encode("ascii")])
    assert PROXIES.client("10.0.0.1", [chain]) == str(real)


def test_unknown_is_trusted_by_nobody() -> None:
    everybody = TrustedProxies([ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")])
    assert not everybody.trusts(UNKNOWN)
    assert everybody.trusts("1.1.1.1")


@pytest.mark.parametrize(
    ("address", "network"),
    [("203.0.113.9", "203.0.113.9"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), (UNKNOWN, UNKNOWN)],
)
def test_networks_for_limits(address: str, network: str) -> None:
    assert network_of(address) == network
