from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.forwarded import UNKNOWN, canonical
from gateway.wire.proxy_protocol import LONGEST, LONGEST_TEXT, Addressed, BadProxyHeader, parse

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REST = b"GET / HTTP/1.1\r\n\r\n"


def binary(command: int, family: int, block: bytes = b"") -> bytes:
    return SIGNATURE + bytes((command, family)) + struct.pack("!H", len(block)) + block


def tcp4(source: str = "203.0.113.9", tlvs: bytes = b"") -> bytes:
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address("192.0.2.1").packed
    return binary(0x21, 0x11, packed + struct.pack("!HH", 4711, 443) + tlvs)


def tcp6(source: str = "2001:db8::9") -> bytes:
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address("2001:db8::1").packed
    return binary(0x21, 0x21, packed + struct.pack("!HH", 4711, 443))


GOOD = [
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n", "203.0.113.9"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP4 203.0.113.9 192.0.2.1 0 0\r\n", "203.0.113.9"),
    (b"PROXY TCP6 2001:DB8::9 2001:db8::1 4711 443\r\n", "2001:db8::9"),
    (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 443\r\n", "203.0.113.9"),
    (
        b"PROXY TCP6 " + b":".join([b"ffff"] * 8) + b" " + b":".join([b"ffff"] * 8) + b" 65535 65535\r\n",
        ":".join(["ffff"] * 8),
    ),
    (b"PROXY UNKNOWN\r\n", UNKNOWN),
    (b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", UNKNOWN),
    (tcp4(), "203.0.113.9"),
    (tcp6(), "2001:db8::9"),
    (tcp6("::ffff:203.0.113.9"), "203.0.113.9"),
    (tcp4(tlvs=b"\x04\x00\x03abc"), "203.0.113.9"),
    (tcp4(tlvs=bytes(LONGEST - 16 - 12)), "203.0.113.9"),
    (binary(0x20, 0x00), None),
    (binary(0x20, 0x11, bytes(12)), None),
    (binary(0x20, 0xFF, b"x" * 30), None),
    (binary(0x21, 0x00), UNKNOWN),
    (binary(0x21, 0x31, bytes(216)), UNKNOWN),
]

BAD = [
    b"GET / HTTP/1.1\r\nHost: good.test\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\n",
    b"\0",
    b"proxy TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
    b" PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
    b"PROXY  TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
    b"PROXY TCP4  203.0.113.9 192.0.2.1 4711 443\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443 \r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 4711\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443 1\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 04711 443\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 +4711 443\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 443\r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 99999\r\n",
    b"PROXY TCP4 203.0.113.009 192.0.2.1 4711 443\r\n",
    b"PROXY TCP4 3405803785 192.0.2.1 4711 443\r\n",
    b"PROXY TCP4 2001:db8::9 2001:db8::1 4711 443\r\n",
    b"PROXY TCP6 203.0.113.9 192.0.2.1 4711 443\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 4711 443\r\n",
    b"PROXY TCP4 203.0.113.9 good.test 4711 443\r\n",
    b"PROXY TCP4 \xd9\xa1.1.1.1 192.0.2.1 4711 443\r\n",
    b"PROXY UDP4 203.0.113.9 192.0.2.1 4711 443\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\rX\r\n",
    b"PROXY UNKNOWN " + b"x" * LONGEST_TEXT,
    b"PROXY UNKNOWN " + b"x" * (LONGEST_TEXT - 15) + b"\r\n",
    binary(0x11, 0x11, bytes(12)),
    binary(0x31, 0x11, bytes(12)),
    binary(0x22, 0x11, bytes(12)),
    binary(0x2F, 0x11, bytes(12)),
    binary(0x21, 0x11, bytes(11)),
    binary(0x21, 0x21, bytes(35)),
    binary(0x21, 0x31, bytes(215)),
    binary(0x21, 0x12, bytes(12)),
    binary(0x21, 0x22, bytes(36)),
    binary(0x21, 0x10, bytes(12)),
    binary(0x21, 0x41, bytes(36)),
    binary(0x21, 0xFF, bytes(300)),
    SIGNATURE + b"\x21\x11\xff\xff",
    tcp4(tlvs=bytes(LONGEST - 16 - 12 + 1)),
    SIGNATURE[:-1] + b"\r" + b"\x21\x11\x00\x0c" + bytes(12),
]


@pytest.mark.parametrize(("header", "address"), GOOD)
def test_a_whole_header(header: bytes, address: str | None) -> None:
    assert parse(header) == Addressed(address, len(header))
    assert parse(header + REST) == Addressed(address, len(header))
    assert parse(header + header) == Addressed(address, len(header))


@pytest.mark.parametrize("header", [header for header, _ in GOOD])
def test_one_byte_less_is_not_yet_a_header(header: bytes) -> None:
    for cut in range(len(header)):
        assert parse(header[:cut]) is None


@pytest.mark.parametrize("data", BAD)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(BadProxyHeader):
        parse(data)


@pytest.mark.parametrize("data", BAD)
def test_what_is_refused_whole_is_never_taken_in_pieces(data: bytes) -> None:
    for cut in range(len(data)):
        try:
            assert parse(data[:cut]) is None
        except BadProxyHeader:
            return


@given(st.one_of(st.binary(max_size=600), st.sampled_from(GOOD).flatmap(lambda good: _mutated(good[0]))))
def test_any_bytes_give_an_address_a_wait_or_a_refusal(data: bytes) -> None:
    try:
        found = parse(data)
    except BadProxyHeader:
        return
    if found is None:
        assert len(data) < LONGEST
        return
    assert 0 < found.length <= min(len(data), LONGEST)
    assert found.address in (None, UNKNOWN) or canonical(found.address) == found.address
    assert parse(data[: found.length]) == found


def _mutated(header: bytes) -> st.SearchStrategy[bytes]:
    places = st.integers(0, len(header) - 1)
    return st.builds(lambda at, octet: header[:at] + bytes((octet,)) + header[at + 1 :], places, st.integers(0, 255))
