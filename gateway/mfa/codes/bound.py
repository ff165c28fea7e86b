"""The addresses that codes of somebody go to, for a notice that must not go to the mailbox of the account alone.

Those that are out of use as well: after too many wrong answers no code proves anything any more, but the telephone is
still its owner's, and the wrong answers may have been somebody else's, who wants nothing to be heard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import UserError
from gateway.crypto.sealing import Sealer, Unsealable
from gateway.mfa.sealed import place_of
from gateway.store.tables import factors


async def bound_to(
    sealer: Sealer,
    spelled: Mapping[str, Callable[[str], str]],
    connection: AsyncConnection,
    tenant: str,
    subject: str,
    factor_id: str = "",
    but: str = "",
) -> Sequence[tuple[str, str]]:
    """`(channel, address)` of every factor that is bound, or of `factor_id`, and not of `but`; the oldest first.

    `spelled`: by channel that somebody carries, how an address is spelled. One that does not open, or that is refused
    there by a `UserError` (operators may have named its prefix since), is left out: what is told stays told.
    """
    query = (
        select(factors.c.id, factors.c.kind, factors.c.secret)
        .where(factors.c.tenant == tenant, factors.c.subject == subject, factors.c.kind.in_(sorted(spelled)))
        .order_by(factors.c.created_at, factors.c.id)
    )
    if but:
        query = query.where(factors.c.id != but)
    if factor_id:
        query = query.where(factors.c.id == factor_id)
    found: dict[tuple[str, str], None] = {}
    for row in (await connection.execute(query)).all():
        try:
            address = spelled[row.kind](sealer.unseal(row.secret, **place_of(tenant, row.id)).decode())
        except (Unsealable, UserError):
            continue
        found[row.kind, address] = None
    return list(found)
