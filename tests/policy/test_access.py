from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.access import admits, only_through, spoken
from gateway.policy.schema import Who
from tests.policy.conftest import somebody


def who(said: dict[str, Any]) -> Who:
    return Who.model_validate(said)


@pytest.mark.parametrize(
    ("said", "enters"),
    [
        ({"groups": ["staff"]}, True),
        ({"groups": ["admins", "staff"]}, True),
        ({"groups": ["admins"]}, False),
        ({"users": ["bob"]}, True),
        ({"users": ["BOB "]}, True),
        ({"users": ["eve"]}, False),
        ({"users": ["bob"], "groups": ["admins"]}, False),  # every key has to hold
        ({"any": [{"users": ["eve"]}, {"groups": ["staff"]}]}, True),
        ({"any": [{"users": ["eve"]}, {"groups": ["admins"]}]}, False),
        ({"all": [{"users": ["bob"]}, {"groups": ["staff"]}]}, True),
        ({"all": [{"users": ["bob"]}, {"groups": ["admins"]}]}, False),
        ({"not": {"groups": ["staff"]}}, False),
        ({"not": {"groups": ["admins"]}}, True),
        ({"groups": ["staff"], "not": {"users": ["bob"]}}, False),
        ({"claims": {"dept": "hr"}}, True),
        ({"claims": {"dept": ["it", "hr"], "level": 3}}, True),
        ({"claims": {"dept": "hr", "other": "x"}}, False),
    ],
)
def test_who_enters(said: dict[str, Any], enters: bool) -> None:
    bob = somebody("bob", groups=["staff"], claims={"dept": "hr", "level": 3})
    assert admits(who(said))(bob) is enters


@pytest.mark.parametrize(
    ("said", "only"),
    [
        ({"groups": ["admins"]}, True),
        ({"groups": ["admins", "owners"]}, True),
        ({"groups": ["admins", "staff"]}, False),
        ({"groups": ["admins"], "users": ["ann"]}, True),
        ({"users": ["ann"]}, False),
        ({"any": [{"groups": ["admins"]}, {"groups": ["owners"]}]}, True),
        ({"any": [{"groups": ["admins"]}, {"users": ["bob"]}]}, False),
        ({"all": [{"groups": ["staff"]}, {"groups": ["admins"]}]}, True),
        ({"not": {"groups": ["admins"]}}, False),
    ],
)
def test_whether_it_takes_an_administrator(said: dict[str, Any], only: bool) -> None:
    assert only_through(who(said), {"admins", "owners"}) is only


def test_in_words() -> None:
    assert spoken("public") == "public"
    said = {"any": [{"groups": ["a", "b"]}, {"not": {"users": ["eve"]}}]}
    assert spoken(who(said)) == "any: [{groups: [a, b]}, {not: {users: [eve]}}]"
