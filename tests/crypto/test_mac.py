from __future__ import annotations

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.crypto.mac import PREFIX_SIZE, Mac
from gateway.crypto.masters import derive, framed, key_id

MASTER, OTHER = bytes(range(32)), bytes(range(1, 33))
MAC = Mac([MASTER])


NAME = key_id(MASTER).hex()


def unnamed(purpose: str, *parts: str, master: bytes = MASTER) -> str:
    """A token as it was before tokens named their key."""
    made = hmac.digest(derive(master, "mac\0" + purpose), framed(*parts), "sha256")
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def test_it_is_hmac_sha256_under_the_purposes_own_key_and_names_its_master() -> None:
    message = b"\0\0\0\x10" + NAME.encode() + b"\0\0\0\3ann" + b"\0\0\0\2\xc3\xa9"
    made = hmac.digest(derive(MASTER, "mac\0device"), message, "sha256")
    assert MAC.token("device", "ann", "é") == f"{NAME}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
    assert MAC.token("device", "ann").index(".") + 1 == PREFIX_SIZE


@given(st.lists(st.text(), max_size=3))
def test_what_it_made_it_recognises(parts: list[str]) -> None:
    token = MAC.token("device", *parts)
    assert len(token) == 60
    assert MAC.verify(token, "device", *parts)
    assert not MAC.verify(token, "csrf", *parts)
    assert not MAC.verify(token, "device", *parts, "")
    assert not Mac([OTHER]).verify(token, "device", *parts)


def test_the_name_is_part_of_it() -> None:
    """One spelling: without its name, or under the name of another key of ours, a token is nobody's."""
    both = Mac([MASTER, OTHER])
    token = both.token("device", "ann")
    name, _, made = token.partition(".")
    assert name == NAME
    for other in (made, f"{key_id(OTHER).hex()}.{made}", f"{name.upper()}.{made}", f".{made}", f"{name}.{token}"):
        assert not both.verify(other, "device", "ann"), other


def test_what_was_made_before_tokens_had_names_is_recognised_under_any_key() -> None:
    both = Mac([MASTER, OTHER])
    for master in (MASTER, OTHER):
        assert both.verify(unnamed("device", "ann", master=master), "device", "ann")
        assert not both.verify(unnamed("device", "ann", master=master), "device", "bob")
    assert not both.verify(unnamed("device", "ann", master=bytes(32)), "device", "ann")


def test_keys_change_in_one_step() -> None:
    mac = Mac([OTHER])
    old = mac.token("device", "ann")
    mac.use([MASTER, OTHER])
    assert mac.verify(old, "device", "ann")
    assert mac.token("device", "ann") == MAC.token("device", "ann")
    mac.use([MASTER])
    assert not mac.verify(old, "device", "ann")


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
