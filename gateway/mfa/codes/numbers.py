"""The telephone numbers of somebody, for a notice that must not go by e-mail alone.

Those that are out of use as well: after too many wrong answers no code proves anything any more, but the telephone is
still its owner's, and the wrong answers may have been somebody else's, who wants nothing to be heard.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import UserError
from gateway.crypto.sealing import Sealer, Unsealable
from gateway.mfa.sealed import place_of
from gateway.store.tables import factors


async def numbers_of(
    sealer: Sealer, spelled: Callable[[str], str], connection: AsyncConnection, tenant: str, subject: str
) -> Sequence[str]:
    """Those that are bound, E.164, oldest first.

    One that does not open, or that `spelled` refuses by a `UserError` (operators may have named its prefix since), is
    left out: what is told stays told.
    """
    query = (
        select(factors.c.id, factors.c.secret)
        .where(factors.c.tenant == tenant, factors.c.subject == subject, factors.c.kind == "sms")
        .order_by(factors.c.created_at, factors.c.id)
    )
    found: dict[str, None] = {}
    for row in (await connection.execute(query)).all():
        try:
            found[spelled(sealer.unseal(row.secret, **place_of(tenant, row.id)).decode())] = None
        except (Unsealable, UserError):
            continue
    return list(found)
