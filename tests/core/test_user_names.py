"""A name is one name wherever it is typed: case 102, and for what is written about somebody."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gateway.core.errors import UserError
from gateway.core.user_names import folded
from gateway.identity.users import canonical
from gateway.policy.schema import User

POLICY = TypeAdapter(User)


@given(st.text(min_size=1, max_size=40))
@example("ΐάννης")  # folding takes the letter apart, and only normalising again puts it together
@example("ǰan")
@example("b\u200bob")
@example("bo\ufe0fb")
@example("İpek")
@example("IŞIK")
def test_a_policy_speaks_of_whoever_signs_in_by_that_name(typed: str) -> None:
    """`not: {users: […]}` about a name that nobody has lets everybody in."""
    try:
        name = canonical(typed)
    except UserError:
        return
    assert POLICY.validate_python(typed) == name == folded(name)


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("IRMAK", "irmak"),
        ("Irmak", "irmak"),
        ("ırmak", "ırmak"),
        ("İrmak", "i\u0307rmak"),
        ("I\u0307RMAK", "i\u0307rmak"),
        ("i\u0307rmak", "i\u0307rmak"),
    ],
)
def test_turkish_letters_are_three_by_one_rule(typed: str, name: str) -> None:
    """Whatever language the machine, the browser or the page speaks: never two accounts for one name by one of them."""
    assert canonical(typed) == POLICY.validate_python(typed) == name
