from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.crypto.mac import Mac
from gateway.crypto.masters import derive

MASTER, OTHER = bytes(range(32)), bytes(range(1, 33))
MAC = Mac([MASTER])


def test_it_is_hmac_sha256_under_the_purposes_own_key() -> None:
    message = b"\0\0\0\3ann" + b"\0\0\0\2\xc3\xa9"
    assert MAC.digest("device", "ann", "é") == hmac.digest(derive(MASTER, "mac\0device"), message, "sha256")


@given(st.lists(st.text(), max_size=3))
def test_what_it_made_it_recognises(parts: list[str]) -> None:
    token = MAC.token("device", *parts)
    assert len(token) == 43
    assert MAC.verify(token, "device", *parts)
    assert not MAC.verify(token, "csrf", *parts)
    assert not MAC.verify(token, "device", *parts, "")
    assert not Mac([OTHER]).verify(token, "device", *parts)


def test_parts_do_not_run_together() -> None:
    assert not MAC.verify(MAC.token("x", "ab", "c"), "x", "a", "bc")


@pytest.mark.parametrize("token", ["", "a", "A" * 43, "é" * 43, "\ud800", "A" * 100_000])
def test_anything_else_is_not_recognised(token: str) -> None:
    assert not MAC.verify(token, "device", "ann")


def test_another_spelling_of_the_same_bytes_is_not_recognised() -> None:
    """base64 has spare bits at its end; only one spelling counts."""
    token = MAC.token("device", "ann")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for bits in range(1, 4):
        assert not MAC.verify(token[:-1] + alphabet[alphabet.index(token[-1]) ^ bits], "device", "ann")
    assert not MAC.verify(token + "=", "device", "ann")


def test_an_older_master_key_is_still_recognised() -> None:
    old, both = Mac([OTHER]), Mac([MASTER, OTHER])
    assert both.verify(old.token("device", "ann"), "device", "ann")
    assert both.token("device", "ann") == MAC.token("device", "ann")
