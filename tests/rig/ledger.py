"""A ledger that can be read."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.events import Event, Kind


class Remembered:
    """Keeps every event in a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._entered: list[Event] = []

    def note(self, event: Event) -> None:
        self.events.append(event)

    async def record(self, event: Event) -> None:
        self.events.append(event)

    async def enter(self, connection: AsyncConnection, event: Event) -> None:
        assert connection.in_transaction()
        self._entered.append(event)

    def tell(self, event: Event) -> None:
        self._entered.remove(event)
        self.events.append(event)

    def kinds(self) -> list[Kind]:
        return [event.kind for event in self.events]

    def of(self, kind: Kind) -> list[Event]:
        return [event for event in self.events if event.kind is kind]
