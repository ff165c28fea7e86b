"""Which address an account has, and whether its user is known to read what is sent there.

What was confirmed is kept as an address (`users.email_confirmed`), not as a mark: whatever changes `users.email`, a
command or somebody with a shell on the database, leaves it unconfirmed by that alone.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.tables import users


def is_confirmed() -> ColumnElement[bool]:
    """Whether the address of a row of `users` is."""
    return and_(users.c.email != "", users.c.email_confirmed == users.c.email)


def confirmed_at(row: Any) -> float:
    """When the address of a row of `users` was confirmed, in seconds since the epoch; 0.0: it is not."""
    return (row.email_confirmed_at or 0.0) if row.email and row.email_confirmed == row.email else 0.0


async def own_address(connection: AsyncConnection, tenant: str, subject: str) -> tuple[str, float]:
    """`(address, confirmed at)` of somebody; an empty address: there is none."""
    columns = (users.c.email, users.c.email_confirmed, users.c.email_confirmed_at)
    query = select(*columns).where(users.c.tenant == tenant, users.c.subject == subject)
    row = (await connection.execute(query)).first()
    return ("", 0.0) if row is None else (row.email, confirmed_at(row))


async def confirm(connection: AsyncConnection, tenant: str, subject: str, address: str, now: float) -> bool:
    """Confirm `address` in the caller's transaction, where it is the one they have; whether it was not before."""
    changed = await connection.execute(
        update(users)
        .where(users.c.tenant == tenant, users.c.subject == subject, users.c.email == address, ~is_confirmed())
        .values(email_confirmed=address, email_confirmed_at=now)
    )
    return changed.rowcount == 1
