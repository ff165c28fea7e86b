from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.store.near import Near


def test_keeps_and_replaces() -> None:
    near: Near[str, int] = Near(4)
    assert near.keep("a", 1) == []
    assert near.keep("a", 2) == []
    assert near.get("a") == 2
    assert len(near) == 1


def test_when_full_the_oldest_go_and_are_handed_back() -> None:
    near: Near[int, str] = Near(16)
    for number in range(16):
        assert near.keep(number, str(number)) == []
    assert near.keep(15, "again") == []
    assert near.keep(16, "16") == ["0", "1", "2"]
    assert list(near) == [*range(3, 15), 15, 16]


@given(st.integers(1, 20), st.lists(st.integers(0, 60), max_size=200))
def test_never_larger_than_its_capacity_and_always_holds_the_newest(capacity: int, keys: list[int]) -> None:
    near: Near[int, int] = Near(capacity)
    for at, key in enumerate(keys):
        gone = near.keep(key, at)
        assert near[key] == at
        assert len(near) <= capacity
        assert at not in gone
