from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.visible import LONGEST, visible, visible_json
from gateway.core.reasons import Reason
from tests.audit.conftest import NASTY


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_nothing_unprintable_is_left(text: str) -> None:
    """Case 120."""
    kept = visible(text)
    assert kept.isprintable()
    assert len(kept) <= LONGEST
    kept.encode()


def test_what_was_there_can_be_seen() -> None:
    assert visible("a\x1b[2J\r\nb\u202e\U000e0001") == "a\\x1b[2J\\x0d\\x0ab\\u202e\\U000e0001"
    assert visible("größe ✓") == "größe ✓"
    assert visible("") == ""


def test_a_cut_is_marked() -> None:
    assert visible("a" * 512) == "a" * 512
    assert visible("a" * 513) == "a" * 511 + "…"
    assert visible("\x00" * 3, most=9) == "\\x00\\x00…"
    assert visible("\x00" * 2, most=8) == "\\x00\\x00"


@given(st.text(max_size=600))
def test_anything(text: str) -> None:
    kept = visible(text)
    assert kept.isprintable()
    assert len(kept) <= LONGEST


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=700) | st.binary(max_size=600),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.frozensets(st.text()),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), json_like), st.integers(200, 4096))
def test_details_become_small_plain_json(detail: dict, most: int) -> None:
    kept = visible_json(detail, most)
    dumped = json.dumps(kept, ensure_ascii=False)
    assert len(orjson.dumps(kept)) <= most
    assert "\n" not in dumped
    assert json.loads(dumped) == kept


def test_small_details_stay_as_they_are() -> None:
    detail = {"reason": Reason.NOT_ALLOWED, "n": 3, "f": 0.5, "on": True, "no": None, "l": ["a", {"b": 1}]}
    assert visible_json(detail, 4096) == {**detail, "reason": "not_allowed"}


def test_what_is_no_json_becomes_text() -> None:
    class Thing:
        def __str__(self) -> str:
            return "a thing\n"

    kept = visible_json(
        {"t": Thing(), "b": b"\xff\n", "s": {2, 1}, "i": 2**70, "h": 10**5000, "nan": float("nan")}, 4096
    )
    assert kept == {
        "t": "a thing\\x0a",
        "b": "ÿ\\x0a",
        "s": [1, 2],
        "i": str(2**70),
        "h": "huge",
        "nan": "nan",
    }


def test_too_much_is_cut() -> None:
    kept = visible_json({f"key-{number}": "x" * 500 for number in range(30)}, 1000)
    assert set(kept) == {"cut"}
    assert kept["cut"].startswith('{"key-0":"xxx')
