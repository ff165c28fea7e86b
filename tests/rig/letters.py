"""Letters about recoveries, kept instead of sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.identity import NEVER


@dataclass
class Letters:
    """A post that remembers, and can have nobody to write to."""

    asked_: list[tuple[str, str, float, float]] = field(default_factory=list)
    ready_: list[tuple[str, str, float]] = field(default_factory=list)
    done_: list[str] = field(default_factory=list)
    nowhere: bool = False
    late: float = 0.0
    """Seconds until the first one is taken over."""
    unsent: set[str] = field(default_factory=set)
    """Whose first one nobody ever takes over."""
    fails: bool = False

    async def asked(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        token: str,
        *,
        at: float,
        due_at: float,
        until: float,
        address: str,
        agent: str,
    ) -> bool:
        self.asked_.append((subject, token, due_at, until))
        return not self.nowhere

    async def told_at(self, connection: AsyncConnection, tenant: str, subject: str, at: float) -> float:
        return NEVER if subject in self.unsent else at + self.late

    async def ready(
        self, connection: AsyncConnection, tenant: str, subject: str, token: str, *, at: float, until: float
    ) -> bool:
        if self.fails:
            raise RuntimeError("the outbox is full")
        self.ready_.append((subject, token, until))
        return not self.nowhere

    async def done(self, connection: AsyncConnection, tenant: str, subject: str, *, at: float) -> None:
        self.done_.append(subject)
