from __future__ import annotations

import base64
import hashlib

import pytest

from gateway.crypto.tokens import digest, new_id, new_token


def test_a_token_carries_256_bits_in_base64url() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert {len(base64.urlsafe_b64decode(token + "=")) for token in tokens} == {32}
    assert {len(token) for token in tokens} == {43}


def test_the_digest_is_sha256() -> None:
    assert digest("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4


def test_any_text_has_a_digest() -> None:
    assert digest("\ud800") != digest("?")
    assert digest("é") == hashlib.sha256("é".encode()).digest()


def test_no_name_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["-AAAAAAAAAAAAAAA", "-BBBBBBBBBBBBBBB", "CCCCCCCCCCCCCCCC"])
    monkeypatch.setattr("secrets.token_urlsafe", lambda size: next(drawn))
    assert new_id() == "CCCCCCCCCCCCCCCC"
