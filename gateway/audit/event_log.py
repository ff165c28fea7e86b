"""Security events without a database: one line of JSON each, by the logger `sallyport.events`.

They are written by a thread, so that whoever has stopped reading the log holds up no request; what waits meanwhile is
bounded, and what does not fit is counted, by the `Recorder`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from gateway.core.events import Event, Kind, Severity

LEVELS: Final = {
    Severity.INFO: logging.INFO,
    Severity.NOTICE: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ALARM: logging.ERROR,
}

log = logging.getLogger("sallyport.events")


class EventLog:
    """Part of `audit.recorder.Shelf`."""

    async def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log `rows`, in order."""
        await asyncio.to_thread(_write, rows)

    async def enter(self, connection: object, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log `rows`: there is nothing to keep them with."""
        await self.write(rows)

    async def newest(self, tenant: str, limit: int, kind: Kind | None, user: str | None) -> list[Event]:
        """None: they are where the log went."""
        return []


def _write(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        severity = Severity(row["severity"])
        log.log(LEVELS[severity], "%s", _line(row, severity))


def _line(row: Mapping[str, Any], severity: Severity) -> str:
    """A row as JSON: without what is empty, its time and severity in words."""
    about = {name: value for name, value in row.items() if value and name not in ("at", "kind", "severity")}
    time = datetime.fromtimestamp(row["at"], UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return orjson.dumps({"time": time, "event": row["kind"], "severity": severity.name.lower(), **about}).decode()
