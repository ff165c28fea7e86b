"""The telephone numbers of somebody, for a notice that must not go by e-mail alone."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.crypto.sealing import Sealer, Unsealable
from gateway.mfa.attempts import LIFE
from gateway.mfa.sealed import place_of
from gateway.store.tables import factors


async def numbers_of(sealer: Sealer, connection: AsyncConnection, tenant: str, subject: str) -> Sequence[str]:
    """Those that are in use, E.164, oldest first. One that does not open is left out: what is told stays told."""
    query = (
        select(factors.c.id, factors.c.secret)
        .where(factors.c.tenant == tenant, factors.c.subject == subject, factors.c.kind == "sms")
        .where(factors.c.failures < LIFE)
        .order_by(factors.c.created_at, factors.c.id)
    )
    found = []
    for row in (await connection.execute(query)).all():
        try:
            found.append(sealer.unseal(row.secret, **place_of(tenant, row.id)).decode())
        except Unsealable:
            continue
    return found
