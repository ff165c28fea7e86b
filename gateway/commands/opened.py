"""The database and its ledger, opened for one command beside a gateway that may be running."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.audit.recorder import Recorder
    from gateway.settings import Settings
    from gateway.store.sql import Records


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Records, Recorder]]:
    """Raises `ConfigError` where there is no database, or none that is fit to be used."""
    from gateway.audit.recorder import Recorder
    from gateway.core.clock import SystemClock
    from gateway.core.errors import ConfigError
    from gateway.store.event_table import EventTable
    from gateway.store.sql import Records

    if settings.store.records is None:
        raise ConfigError("`store.records` is none: there are no users", "write store: {records: sqlite:path}")
    clock = SystemClock()
    records = await Records.open(settings.store.records.place, clock=clock)
    try:
        with records.patient():
            notices = None
            if settings.notify.email:  # they are written here, and sent by a gateway that runs
                from gateway.post import make_notices

                notices = make_notices(settings)
            recorder = Recorder(EventTable(records, notices), clock)
            yield records, recorder
            await recorder.close()
    finally:
        await records.close()
