from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.audit.recorder import Recorder
from gateway.core.clock import ManualClock
from gateway.store.event_table import EventTable
from gateway.store.sql import Records

NASTY = {
    "line breaks": 'a\r\nSet-Cookie: x\n{"status":200}',
    "terminal": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "json": '"},{"user":"root","x":"\\',
    "del and nul": "a\x00b\x7fc",
    "separators": "a\u2028b\u2029c\u0085d",
    "turned around": "\u202egnp.exe\u2066",
    "surrogate": "\ud800\udfff",
    "not latin": "größe ✓ 日本",
    "huge": "A" * 1024 * 1024,
    "huge and bad": "\x1b" * 1024 * 1024,
}
"""Case 120."""


@pytest.fixture
async def recorder(records: Records, clock: ManualClock) -> AsyncIterator[Recorder]:
    recorder = Recorder(EventTable(records), clock)
    yield recorder
    await recorder.close()
