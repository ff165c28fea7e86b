"""A ledger that can be read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.events import Event, Kind


class Remembered:
    """Keeps every event in a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._entered: list[Event] = []
        self._stops = False

    def note(self, event: Event) -> None:
        self.events.append(event)

    async def record(self, event: Event) -> None:
        self._go_on()
        self.events.append(event)

    async def enter(self, connection: AsyncConnection, event: Event) -> None:
        self._go_on()
        assert connection.in_transaction()
        self._entered.append(event)

    def tell(self, event: Event) -> None:
        self._entered.remove(event)
        self.events.append(event)

    def kinds(self) -> list[Kind]:
        return [event.kind for event in self.events]

    def of(self, kind: Kind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """A gateway is stopped in the moment in which an event is to be kept: what is done inside gets that far."""
        self._stops = True
        try:
            with pytest.raises(asyncio.CancelledError):
                yield
        finally:
            self._stops = False

    def _go_on(self) -> None:
        if self._stops:
            raise asyncio.CancelledError
