"""What people are told beside changes to the security of their account: sign-ins from new browsers, and reminders.

They may do without. That they do is such a change itself, and told: whoever stole an account would begin with it.
"""

from __future__ import annotations

from sqlalchemy import select, update

from gateway.core.contracts import Ledger
from gateway.core.events import NOWHERE, Kind, Place, Severity
from gateway.core.identity import Identity
from gateway.core.telling import tell
from gateway.store.sql import Records
from gateway.store.tables import users


class Preferences:
    """Keeps whether somebody wants more than that."""

    def __init__(self, records: Records, ledger: Ledger) -> None:
        self._records = records
        self._ledger = ledger

    async def more(self, me: Identity) -> bool:
        """Whether they are told more. Raises `StoreAway`."""
        query = select(users.c.quiet).where(users.c.tenant == me.tenant, users.c.subject == me.subject)
        async with self._records.read() as connection:
            return not await connection.scalar(query)

    async def choose(self, me: Identity, more: bool, place: Place = NOWHERE) -> None:
        """Tell them more from now on, or no more. Raises `StoreAway`."""
        this = users.c.tenant == me.tenant, users.c.subject == me.subject, users.c.quiet == more
        async with self._records.begin(me.tenant, me.subject) as connection:
            changed = (await connection.execute(update(users).where(*this).values(quiet=not more))).rowcount
        if changed:
            await tell(self._ledger, place.event(Kind.NOTICES_CHOSEN, Severity.NOTICE, who=me, detail={"more": more}))
