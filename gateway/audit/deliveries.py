"""What providers tell of messages they took over: kept beside each, counted, and told where it is bad news.

    sent ──▶ delivered
     │ └───▶ undelivered
     └─────▶ bounced, complained     the address is sent nothing any more, until an administrator has it otherwise

Who tells has shown who they are before (`Callback`). They are believed about a message they have, and of it only what
became of it: the address is the one we wrote to, not one they name. A thing is believed once: it is claimed in the
transaction that keeps it, so a copy of an old bounce cannot undo what an administrator has mended since.

Where a message went is sealed once it has gone; it is unsealed for this, and kept in clear from then on: whoever is to
mend it has to read it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from sqlalchemy import select, update

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger, key
from gateway.core.events import NOWHERE, Event, Kind, Place, Severity
from gateway.core.message import Outcome, Report
from gateway.core.telling import tell
from gateway.store.sql import Records
from gateway.store.sql_key_value import claim
from gateway.store.suppressed_table import Suppressed, every, release, suppress
from gateway.store.tables import outbox

REMEMBERED: Final = 8 * 86_400.0
"""Seconds that what was told is recognised: longer than a message can be looked up."""
AFTER: Final[Mapping[Outcome, tuple[str, ...]]] = {
    "delivered": ("",),
    "undelivered": ("",),
    "bounced": ("", "delivered", "undelivered"),
    "complained": ("", "delivered", "undelivered", "bounced"),
}
"""By outcome: after which others it can come."""

Became = Literal["kept", "repeated", "unknown"]
Count = Callable[[str, str], None]
Opened = Callable[[str, str, bytes], str]
"""The address sealed in the row (tenant, token); empty where it does not open."""


def uncounted(sender: str, what: str) -> None:
    """For who counts nothing."""


class Deliveries:
    """Keeps what providers tell."""

    def __init__(
        self,
        records: Records,
        clock: Clock,
        ledger: Ledger,
        count: Count = lambda sender, what: None,
        *,
        opened: Opened = lambda tenant, token, sealed: "",
    ) -> None:
        """`count` is told `(sender, what)`: an outcome, `repeated`, `unknown`, `refused`."""
        self._opened = opened
        self._records = records
        self._clock = clock
        self._ledger = ledger
        self._count = count

    async def report(self, sender: str, told: Report, place: Place = NOWHERE) -> Became:
        """Keep it. `unknown`: that sender has no such message, any more or yet. Raises `StoreAway`."""
        now, suppressed = self._clock.now(), False
        async with self._records.begin() as connection:
            query = select(outbox).where(outbox.c.via == sender, outbox.c.reference == told.reference)
            row = (await connection.execute(query.order_by(outbox.c.id.desc()))).first() if told.reference else None
            became: Became = "unknown"
            if row is not None:
                mine = key(row.tenant, "callback", sender, told.key)
                became = "kept" if await claim(connection, mine, now, REMEMBERED) else "repeated"
            if row is not None and became == "kept":
                this = outbox.c.id == row.id, outbox.c.delivery.in_(AFTER[told.outcome])
                await connection.execute(update(outbox).where(*this).values(delivery=told.outcome))
                if told.outcome in ("bounced", "complained") and (target := self._target(row)):
                    one = Suppressed(row.channel, target, told.outcome, now)
                    suppressed = await suppress(connection, row.tenant, one)
        self._count(sender, told.outcome if became == "kept" else became)
        if row is not None and became == "kept" and told.outcome != "delivered":
            self._tell(row, sender, told.outcome, suppressed)
        if became == "unknown":
            self._tell_refused(sender, "message", place)
        return became

    def refused(self, sender: str, place: Place = NOWHERE) -> None:
        """Somebody pretends to be `sender` (empty: one we do not have)."""
        self._count(sender or "none", "refused")
        self._tell_refused(sender, "signature" if sender else "sender", place)

    def _tell_refused(self, sender: str, reason: str, place: Place) -> None:
        detail = {"reason": reason} | ({"sender": sender} if sender else {})
        self._ledger.note(place.event(Kind.CALLBACK_REFUSED, Severity.NOTICE, detail=detail))

    async def every(self, tenant: str, most: int) -> Sequence[Suppressed]:
        """Addresses that nothing is sent to, the newest first. Raises `StoreAway`."""
        return await every(self._records, tenant, most)

    async def release(self, tenant: str, channel: str, target: str, *, by: str, place: Place = NOWHERE) -> bool:
        """Send to an address again; False where nothing kept us. Raises `StoreAway`."""
        async with self._records.begin() as connection:
            released = await release(connection, tenant, channel, target)
        if released:
            await tell(
                self._ledger, place.event(Kind.ADDRESS_RELEASED, tenant=tenant, detail={"channel": channel, "by": by})
            )
        return released

    def _target(self, row: Any) -> str:
        """Where it went; empty where nobody can tell any more."""
        return row.target if row.address is None else self._opened(row.tenant, row.token, row.address)

    def _tell(self, row: Any, sender: str, outcome: Outcome, suppressed: bool) -> None:
        user = str(row.content.get("user", ""))
        detail = {"sender": sender, "channel": row.channel, "kind": row.kind, "outcome": outcome}
        self._ledger.note(Event(Kind.MESSAGE_UNDELIVERED, Severity.NOTICE, row.tenant, user, detail=detail))
        if suppressed:
            self._ledger.note(Event(Kind.ADDRESS_SUPPRESSED, Severity.WARNING, row.tenant, user, detail=detail))
