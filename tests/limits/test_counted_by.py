from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.counted_by import LONGEST, counted_by
from tests.limits.conftest import facts, somebody


def test_each_part() -> None:
    here = facts("2001:db8::/64", [(b"x-team", b" red ")])
    ann = somebody("s-ann", "sess-1", plan="gold", seats=3)
    names = {
        part: counted_by((part,), "rule-1")(here, ann)
        for part in ("address", "user", "session", "route", "header:X-Team", "claim:plan", "claim:seats")
    }
    assert names == {
        "address": "a2001:db8::/64",
        "user": "udefault/s-ann",
        "session": "sdefault/sess-1",
        "route": "rrule-1",
        "header:X-Team": "hred",
        "claim:plan": "cdefault/gold",
        "claim:seats": "cdefault/3",
    }


@pytest.mark.parametrize("part", ["user", "session", "claim:plan", "header:x-team"])
def test_what_cannot_be_told_counts_as_the_address(part: str) -> None:
    assert counted_by((part,), "r")(facts("192.0.2.7"), None) == "a192.0.2.7"


def test_nearest_first() -> None:
    ann = somebody("s-ann")
    assert counted_by(("session",), "r")(facts(), ann) == "udefault/s-ann"
    assert counted_by(("claim:plan",), "r")(facts(), ann) == "udefault/s-ann"


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-team", b"red"), (b"x-team", b"blue")],
        [(b"x-team", b"")],
        [(b"x-team", b"  ")],
        [(b"x-team", b""), (b"x-team", b"red")],
    ],
)
def test_a_doubled_or_empty_header_is_no_fresh_counter(headers: list[tuple[bytes, bytes]]) -> None:
    """Case 117."""
    assert counted_by(("header:x-team",), "r")(facts("192.0.2.7", headers), None) == "a192.0.2.7"


def test_the_same_header_twice_is_the_same() -> None:
    """Case 117."""
    name = counted_by(("header:x-team",), "r")
    assert name(facts("1", [(b"x-team", b"red"), (b"x-team", b"red ")]), None) == "hred"


def test_long_values_cost_no_more_than_short_ones() -> None:
    name = counted_by(("header:x-team",), "r")
    one = name(facts("1", [(b"x-team", b"a" * 8000 + b"1")]), None)
    two = name(facts("1", [(b"x-team", b"a" * 8000 + b"2")]), None)
    assert one != two
    assert len(one) <= LONGEST


def test_kinds_and_tenants_never_meet() -> None:
    user = counted_by(("user",), "r")
    assert user(facts("192.0.2.1"), None) != user(facts("x"), somebody("192.0.2.1"))
    assert user(facts(), somebody("s", tenant="a")) != user(facts(), somebody("s", tenant="b"))


@given(st.lists(st.text(max_size=6), min_size=2, max_size=2), st.lists(st.text(max_size=6), min_size=2, max_size=2))
def test_combinations_are_told_apart(one: list[str], two: list[str]) -> None:
    name = counted_by(("claim:a", "claim:b"), "r")
    same = name(facts(), somebody(a=one[0], b=one[1])) == name(facts(), somebody(a=two[0], b=two[1]))
    assert same is (one == two)


@pytest.mark.parametrize("part", ["", "ip", "header:", "claim:", "header", "cookie:x"])
def test_unknown_parts(part: str) -> None:
    with pytest.raises(ValueError, match="counted by"):
        counted_by((part,), "r")
