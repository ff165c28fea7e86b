from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from gateway.crypto.masters import derive, framed, key_id


def hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, written out."""
    prk = hmac.digest(salt or bytes(32), ikm, "sha256")
    okm = block = b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes([counter]), "sha256")
        okm += block
    return okm[:length]


def test_the_yardstick_itself_against_rfc_5869() -> None:
    """Test cases 1 and 3 of appendix A."""
    ikm = bytes([0x0B] * 22)
    assert hkdf(ikm, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert hkdf(ikm, b"", b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_keys_are_derived_by_hkdf() -> None:
    master = bytes(range(32))
    assert derive(master, "seal") == hkdf(master, b"", b"sallyport\0seal", 32)
    assert derive(master, "seal") != derive(master, "mac\0device")


def test_a_key_id_tells_keys_apart() -> None:
    assert len(key_id(bytes(32))) == 8
    assert key_id(bytes(32)) != key_id(bytes(31) + b"\1")


@given(st.lists(st.text()), st.lists(st.text()))
def test_two_lists_of_parts_never_look_alike(one: list[str], other: list[str]) -> None:
    assert (framed(*one) == framed(*other)) == (one == other)
