"""Who is counted, as people write it: whatever a limit counts by can be shown, named, and found again by that name."""

from __future__ import annotations

import pytest

from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.limits.counted_by import counted_by
from gateway.limits.spelling import EVERYBODY, Who, parts_of, people_in, spell, user_in, who, without_secrets
from tests.limits.conftest import facts, somebody

ANN = somebody("s-ann", "5f0c", org="acme", team="x" * 200)
SECRET = b"k-7d1f"


def named(tenant: str, subject: str) -> str:
    return {"s-ann": "ann"}.get(subject, subject)


@pytest.mark.parametrize(
    ("key", "asked", "identity", "shown"),
    [
        (("address",), facts("192.0.2.7"), None, "address:192.0.2.7"),
        (("address",), facts("2001:db8::/64"), None, "address:2001:db8::/64"),
        (("user",), facts("192.0.2.7"), None, "address:192.0.2.7"),
        (("user",), facts(), ANN, "user:ann"),
        (("user",), facts(), somebody("s-ann", tenant="acme"), "user:acme/ann"),
        (("user",), facts(), somebody("10.0.0.1"), "user:10.0.0.1"),
        (("session",), facts(), ANN, "session:5f0c"),
        (("route",), facts(), ANN, "route:r"),
        (("claim:org",), facts(), ANN, "claim:acme"),
        (("user", "address"), facts("192.0.2.7"), ANN, "user:ann + address:192.0.2.7"),
        (("route", "claim:org", "session"), facts(), ANN, "route:r + claim:acme + session:5f0c"),
    ],
)
def test_a_counter_is_shown_and_found_again_under_what_was_shown(
    key: tuple[str, ...], asked: Facts, identity: Identity | None, shown: str
) -> None:
    text = counted_by(key, "r")(asked, identity)
    assert spell(text, named) == shown
    subjects = ["s-ann"] if user_in(shown) else []
    if "acme/ann" not in shown:
        assert who(shown, subjects)(text)
    for part in shown.split(" + "):
        if "acme/ann" not in part:
            assert who(part, subjects)(text)
    assert EVERYBODY(text)
    assert not who("address:203.0.113.9")(text)
    assert not who(f"{shown} + address:203.0.113.9", subjects)(text)


def test_a_header_is_never_shown_and_found_by_its_value_or_by_what_is_shown() -> None:
    for value in (SECRET, b"long" * 100):
        text = counted_by(("header:x-api-key",), "r")(facts(headers=[(b"X-Api-Key", value)]), None)
        shown = spell(text)
        assert value.decode() not in shown
        assert shown.startswith("header:#")
        assert len(shown) == len("header:#") + 32
        assert who(f"header:{value.decode()}")(text)
        assert who(shown)(text)
        assert not who("header:another")(text)
        assert without_secrets(f"header:{value.decode()}") == without_secrets(shown) == shown
    assert without_secrets(f"user:ann + header:{SECRET.decode()}").startswith("user:ann + header:#")


def test_a_long_claim_is_shown_by_its_digest_and_found() -> None:
    text = counted_by(("claim:team",), "r")(facts(), ANN)
    assert spell(text).startswith("claim:#")
    assert who(spell(text))(text)
    assert who("claim:" + "x" * 200)(text)


@pytest.mark.parametrize("written", ["2001:DB8:0:0::7", "2001:db8::/64", "2001:db8::1/64", "2001:db8::ffff:ffff"])
def test_an_address_may_be_written_in_any_way(written: str) -> None:
    assert who(f"address:{written}")("a2001:db8::/64")
    assert not who(f"address:{written}")("a2001:db8:0:1::/64")


@pytest.mark.parametrize("text", ["ann", "ann@example.com", "name:ann", "user:", ":", "user:ann + bob"])
def test_what_is_not_a_key_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match="user:NAME"):
        who(text)


@pytest.mark.parametrize("text", ["", "9", "9:x", "1:a1:", "9999999:a", "2:ab3", "²:ab", "x"])
def test_what_nobody_made_is_shown_as_it_is(text: str) -> None:
    assert "".join(parts_of(text)) in text
    assert isinstance(spell(text), str)
    assert people_in(text) == []


def test_by_name_are_found_only_counters_that_can_be_named() -> None:
    assert who("user:s-ann").alone >= {"udefault/s-ann"}
    assert who("header:k").alone >= {"hk"}
    assert who("header:#" + "0" * 32).alone == frozenset()
    assert who("user:a + address:192.0.2.1").alone == EVERYBODY.alone == frozenset()
    assert not EVERYBODY
    assert Who([["a"]])
