from __future__ import annotations

import pytest

from gateway.core.errors import StoreAway
from gateway.core.events import Event, Kind
from gateway.core.telling import tell

DONE = Event(Kind.PASSWORD_CHANGED, user="ann")


class Book:
    """A ledger that fails as it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.kept: list[tuple[str, Event]] = []

    def note(self, event: Event) -> None:
        self.kept.append(("noted", event))

    async def record(self, event: Event) -> None:
        if self.error is not None:
            raise self.error
        self.kept.append(("recorded", event))


async def test_it_is_written_at_once_or_waits() -> None:
    there, full = Book(), Book(StoreAway("disk full"))
    for book in (there, full):
        await tell(book, DONE)
    assert there.kept == [("recorded", DONE)]
    assert full.kept == [("noted", DONE)]


async def test_a_fault_of_ours_is_no_store_that_is_away() -> None:
    broken = Book(ValueError("a fault"))
    with pytest.raises(ValueError, match="a fault"):
        await tell(broken, DONE)
    assert broken.kept == []
