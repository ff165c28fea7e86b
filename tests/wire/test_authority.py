from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.authority import BadAuthority, parse


@pytest.mark.parametrize(
    ("raw", "host", "port", "shown"),
    [
        (b"good.test", "good.test", 0, b"good.test"),
        (b"Admin.Example.COM", "admin.example.com", 0, b"admin.example.com"),
        (b"admin.example.com.", "admin.example.com", 0, b"admin.example.com"),
        (b"good.test:80", "good.test", 0, b"good.test"),
        (b"good.test:0080", "good.test", 0, b"good.test"),
        (b"good.test:443", "good.test", 443, b"good.test:443"),
        (b"good.test.:8080", "good.test", 8080, b"good.test:8080"),
        (b"[::1]", "::1", 0, b"[::1]"),
        (b"[2001:DB8:0::1]:8080", "2001:db8::1", 8080, b"[2001:db8::1]:8080"),
        (b"127.0.0.1", "127.0.0.1", 0, b"127.0.0.1"),
        (b"my_service", "my_service", 0, b"my_service"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example", 0, b"xn--bcher-kva.example"),
    ],
)
def test_one_spelling(raw: bytes, host: str, port: int, shown: bytes) -> None:
    assert parse(raw, "http") == (host, port, shown)


def test_the_port_of_https() -> None:
    assert parse(b"good.test:443", "https") == ("good.test", 0, b"good.test")
    assert parse(b"good.test:80", "https") == ("good.test", 80, b"good.test:80")


@pytest.mark.parametrize(
    "raw",
    [
        *rb"a@b a:80:80 a/b /a a?b a#b a\b a%2e a%00 .a a..b . .. a: :80 a:x a:-1 a:99999 a:65536 a:0".split(),
        *rb"a.. a...:80 [::1 ::1] ::1 [] [x] [::1]x [::1]: [1.1.1.1] [fe80::1%25eth0] [fe80::1%eth0]".split(),
        *rb"a,b -a 0-. a-. <a> a;b a=b *.a * {a} a'b !a $a a&b a|b".split(),
        *(b"", b" ", b"a b", b"a, b", b"a\x00", b"a\t", b" a", b"a ", "é".encode(), b"\xff"),
        *(b"a" * 300, b"a:" + b"1" * 400),
    ],
    ids=lambda raw: repr(raw)[:30],
)
def test_case_48_what_is_not_one_host_is_refused(raw: bytes) -> None:
    with pytest.raises(BadAuthority):
        parse(raw, "http")


@given(st.binary(max_size=40) | st.text("ab.:[]0123456789-_A", max_size=20).map(str.encode))
def test_parsing_again_changes_nothing(raw: bytes) -> None:
    try:
        found = parse(raw, "http")
    except BadAuthority:
        return
    assert parse(found.raw, "http") == found
    assert found.host == found.host.lower()
    assert not set(found.raw) - set(b"abcdefghijklmnopqrstuvwxyz0123456789.-_:[]")
