from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.forwarded import UNKNOWN, Hop, TrustedProxies, canonical, hops, network_of

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


# -- RFC 7239 --------------------------------------------------------------------------------------------------------

READS_FORWARDED = TrustedProxies([ipaddress.ip_network("10.0.0.0/8")], header="forwarded")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b"for=192.0.2.60"], [Hop("192.0.2.60", "")]),
        ([b"FOR=192.0.2.60;Proto=HTTPS;by=203.0.113.43"], [Hop("192.0.2.60", "https")]),
        ([b'for="[2001:DB8:cafe::17]:4711"'], [Hop("2001:db8:cafe::17", "")]),
        ([b'for="[::ffff:192.0.2.1]"'], [Hop("192.0.2.1", "")]),
        ([b'for="192.0.2.60:47011";host="a,b;c=d"'], [Hop("192.0.2.60", "")]),
        ([b'for="192.0.2\\.60"'], [Hop("192.0.2.60", "")]),
        ([b"for=1.1.1.1, for=2.2.2.2\t,\tfor=3.3.3.3"], [Hop(f"{n}.{n}.{n}.{n}", "") for n in (3, 2, 1)]),
        ([b"for=1.1.1.1", b"for=2.2.2.2"], [Hop("2.2.2.2", ""), Hop("1.1.1.1", "")]),
        ([b"for=unknown;proto=http"], [Hop(UNKNOWN, "http")]),
        ([b"for=_hidden"], [Hop(UNKNOWN, "")]),
        ([b"by=1.1.1.1;proto=wss"], [Hop(UNKNOWN, "")]),
        ([b"for=192.0.2.60:4711"], [Hop(UNKNOWN, "")]),
        ([b"for=2001:db8::1"], [Hop(UNKNOWN, "")]),
        ([b'for="2001:db8::1"'], [Hop(UNKNOWN, "")]),
        ([b'for="[fe80::1%eth0]"'], [Hop(UNKNOWN, "")]),
        ([b'for="[192.0.2.1]:99999999"'], [Hop(UNKNOWN, "")]),
        ([b"for=1.1.1.1;for=2.2.2.2"], [Hop(UNKNOWN, "")]),
        ([b"for = 1.1.1.1"], [Hop(UNKNOWN, "")]),
        ([b"for=1.1.1.1; proto=http"], [Hop(UNKNOWN, "")]),
        ([b"for=1.1.1.1;"], [Hop(UNKNOWN, "")]),
        ([b"for="], [Hop(UNKNOWN, "")]),
        ([b""], [Hop(UNKNOWN, "")]),
        ([], []),
    ],
)
def test_case_59_elements_from_the_right(values: list[bytes], found: list[Hop]) -> None:
    assert hops(values) == found


@pytest.mark.parametrize(
    "spoof",
    [
        b'for="',
        b'for=9.9.9.9;x="',
        b'for="9.9.9.9',
        b"for=9.9.9.9",
        b",,,",
        b'for=9.9.9.9;x="a\\',
        b'x="a", for=9.9.9.9;proto=https;y="',
        b'"' * 100,
        b"," * 5000,
        b"a" * 9000,
        b"\x00\xff",
    ],
)
@pytest.mark.parametrize(
    "added", [b"for=203.0.113.9", b'for="[2001:db8::9]:1";proto=https', b'host="a.b";for=203.0.113.9']
)
def test_case_59_what_a_client_writes_does_not_reach_what_the_proxy_adds(spoof: bytes, added: bytes) -> None:
    (real,) = hops([added])
    for values in ([spoof + b", " + added], [spoof + b"," + added], [spoof, added]):
        told = READS_FORWARDED.told("10.0.0.1", [(b"Forwarded", value) for value in values], "http")
        assert (told.address, told.scheme) == (real.address, real.scheme or "http")


def test_case_59_the_scheme_is_that_of_the_hop_that_saw_the_client() -> None:
    value = b"for=9.9.9.9;proto=http, for=203.0.113.9;proto=https, for=10.0.0.7;proto=http"
    told = READS_FORWARDED.told("10.0.0.1", [(b"forwarded", value)], "http")
    assert told == ("203.0.113.9", b"9.9.9.9, 203.0.113.9, 10.0.0.7, 10.0.0.1", "https")
    told = READS_FORWARDED.told("10.0.0.1", [(b"X-Forwarded-For", b"9.9.9.9")], "http")
    assert told == ("10.0.0.1", b"10.0.0.1", "http")
    told = READS_FORWARDED.told("10.0.0.1", [(b"Forwarded", b"for=10.0.0.9, for=10.0.0.7")], "http")
    assert told.address == "10.0.0.9"


def test_case_58_a_very_long_chain_of_elements_is_unknown() -> None:
    for values in ([b", ".join([b"for=10.0.0.2"] * 10_000)], [b"for=10.0.0.2"] * 10_000):
        told = READS_FORWARDED.told("10.0.0.1", [(b"Forwarded", value) for value in values], "http")
        assert told.address == UNKNOWN
        assert told.chain.count(b",") <= 64


@given(
    st.lists(st.one_of(st.binary(max_size=80), st.text('for="[1.:],;=\\ ', max_size=40).map(str.encode)), max_size=4)
)
def test_any_bytes_are_hops_or_none(values: list[bytes]) -> None:
    for hop in hops(values):
        assert hop.address == UNKNOWN or canonical(hop.address) == hop.address
        assert hop.scheme in ("", "http", "https")
    added = hops([*values, b"for=203.0.113.9;proto=https"])
    assert added[0] == Hop("203.0.113.9", "https")


@pytest.mark.parametrize(
    ("address", "network"),
    [("203.0.113.9", "203.0.113.9"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"), (UNKNOWN, UNKNOWN)],
)
def test_networks_for_limits(address: str, network: str) -> None:
    assert network_of(address) == network
