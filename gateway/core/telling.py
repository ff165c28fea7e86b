"""Tell the ledger of what is done already.

Whoever has changed something is not told that it failed because the ledger could not take the event: it did not fail,
and what they were given with it (backup codes, a session, a cookie) would be lost. The event waits then, as `note` has
it, and whoever listens for alarms hears it at once. What is only allowed once it is written calls `record` itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import StoreAway

if TYPE_CHECKING:
    from gateway.core.contracts import Ledger
    from gateway.core.events import Event


async def tell(ledger: Ledger, event: Event) -> None:
    """Durably, before it returns, where that is possible; else as soon as it is."""
    try:
        await ledger.record(event)
    except StoreAway:
        ledger.note(event)
