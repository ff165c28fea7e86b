from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text

from gateway.audit import recorder as module
from gateway.audit.recorder import Recorder
from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.core.events import Event, Kind, Severity
from gateway.store.event_table import EventTable
from gateway.store.sql import Records
from gateway.store.tables import events
from tests.audit.conftest import NASTY


async def count(records: Records) -> int:
    async with records.read() as connection:
        return await connection.scalar(select(func.count()).select_from(events))


def rejected(address: str = "192.0.2.1", reason: str = "bad_request", **more: str) -> Event:
    return Event(Kind.REQUEST_REJECTED, Severity.NOTICE, address=address, detail={"reason": reason}, **more)


async def test_noted_events_are_written_together_and_read_back(recorder: Recorder, records: Records) -> None:
    event = Event(
        Kind.SIGN_IN_FAILED,
        Severity.WARNING,
        user="ann",
        session="s1",
        address="192.0.2.1",
        agent="curl/8",
        request_id="r-1",
        rule="admin",
        detail={"tries": 3, "factor": "password"},
        at=123.5,
    )
    recorder.note(event)
    recorder.note(Event(Kind.SIGN_IN, user="bob"))
    assert await count(records) == 0
    await recorder.flush()
    assert await recorder.events("default", limit=10, user="ann") == [event]
    assert [kept.user for kept in await recorder.events("default", limit=10)] == ["bob", "ann"]
    assert (await recorder.events("default", limit=1, kind=Kind.SIGN_IN))[0].at == 1_700_000_000.0
    assert await recorder.events("other", limit=10) == []


async def test_recorded_events_are_there_at_once_and_what_was_noted_before_them_too(
    recorder: Recorder, records: Records, clock: ManualClock, tmp_path: Path
) -> None:
    recorder.note(Event(Kind.SIGN_IN, user="ann"))
    await recorder.record(Event(Kind.FACTOR_ENROLLED, user="ann"))
    other = await Records.open(f"sqlite:{tmp_path}/data/sallyport.db", clock=clock)
    try:
        kept = await Recorder(EventTable(other), clock).events("default", limit=10)
        assert [event.kind for event in kept] == [Kind.FACTOR_ENROLLED, Kind.SIGN_IN]
    finally:
        await other.close()


class Counting(EventTable):
    """Counts its transactions, and can be away."""

    away = False
    times = 0

    async def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.times += 1
        await asyncio.sleep(0)  # others come meanwhile
        if self.away:
            raise StoreAway("away")
        await super().write(rows)


async def test_those_who_record_at_once_share_a_transaction(records: Records, clock: ManualClock) -> None:
    shelf, told = Counting(records), list[Event]()
    recorder = Recorder(shelf, clock)
    recorder.subscribe(told.append)
    recorder.note(Event(Kind.SIGN_OUT, user="noted"))
    some = [Event(Kind.SIGN_IN, user=f"u{number}") for number in range(20)]
    first = asyncio.ensure_future(recorder.record(some[0]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.gather(first, *map(recorder.record, some[1:]))
    assert shelf.times == 2
    kept = [event.user for event in await recorder.events("default", limit=100)]
    assert sorted(kept) == sorted(["noted", *(event.user for event in some)])
    assert [event.user for event in told] == ["noted", *(event.user for event in some)]


async def test_of_those_who_share_a_transaction_nobody_is_told_yes_where_it_fails(
    records: Records, clock: ManualClock
) -> None:
    shelf, told = Counting(records), list[Event]()
    recorder = Recorder(shelf, clock)
    recorder.subscribe(told.append)
    shelf.away = True
    asking = [asyncio.ensure_future(recorder.record(Event(Kind.SIGN_IN, user=f"u{number}"))) for number in range(5)]
    await asyncio.sleep(0)
    asking[2].cancel()
    said = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(one) for one in said] == [StoreAway, StoreAway, asyncio.CancelledError, StoreAway, StoreAway]
    assert told == []
    shelf.away = False
    await recorder.record(Event(Kind.SIGN_IN, user="after"))
    assert [event.user for event in await recorder.events("default", limit=100)] == ["after"]


async def test_what_is_entered_is_kept_with_the_rest_or_not_at_all(recorder: Recorder, records: Records) -> None:
    told: list[Event] = []
    recorder.subscribe(told.append)
    event = Event(Kind.STEP_UP_PASSED, user="ann", at=1.0)

    async def fail() -> None:
        async with records.begin() as connection:
            await recorder.enter(connection, event)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await count(records) == 0
    async with records.begin() as connection:
        await recorder.enter(connection, event)
    assert await recorder.events("default") == [event]
    assert told == []
    recorder.tell(event)
    assert told == [event]


async def test_subscribers_are_told_at_once_and_cannot_spoil_it(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("no")

    recorder.subscribe(broken)
    recorder.subscribe(told.append)
    first, second = Event(Kind.SIGN_IN), Event(Kind.SIGN_OUT)
    with caplog.at_level(logging.CRITICAL):
        recorder.note(first)
        assert told == [first]
        await recorder.record(second)
    assert told == [first, second]


async def test_a_flood_becomes_one_row_a_second(recorder: Recorder, records: Records) -> None:
    told: list[Event] = []
    recorder.subscribe(told.append)
    for number in range(5000):
        recorder.note(rejected(request_id=f"r-{number}"))
    recorder.note(rejected(reason="bad_host"))
    recorder.note(rejected(address="192.0.2.2"))
    await recorder.flush()
    kept = await recorder.events("default", limit=10)
    assert sorted((event.address, event.detail["reason"], event.detail.get("count", 1)) for event in kept) == [
        ("192.0.2.1", "bad_host", 1),
        ("192.0.2.1", "bad_request", 5000),
        ("192.0.2.2", "bad_request", 1),
    ]
    assert next(event.request_id for event in kept if event.detail.get("count")) == "r-0"
    assert len(told) == 5002


async def test_a_flood_from_inside_a_64_is_one_sender(recorder: Recorder) -> None:
    for number in range(100):
        recorder.note(rejected(address=f"2001:db8::{number:x}"))
    await recorder.flush()
    assert [event.detail["count"] for event in await recorder.events("default", limit=10)] == [100]


async def test_a_flood_from_everywhere_is_bounded_and_counted(recorder: Recorder) -> None:
    for number in range(20_000):
        recorder.note(rejected(address=f"10.{number // 62500}.{number // 250 % 250}.{number % 250}"))
    recorder.note(Event(Kind.SIGN_IN_FAILED, user="ann"))
    await recorder.flush()
    kept = await recorder.events("default", limit=10_000)
    assert len(kept) == module.FLOOD_ROWS + 2
    assert sum(event.detail.get("count", 1) for event in kept if event.kind is Kind.REQUEST_REJECTED) == 20_000
    many = next(event for event in kept if event.detail.get("addresses") == "many")
    assert (many.address, many.detail["reason"]) == ("", "bad_request")
    assert recorder.dropped == 0


async def test_a_full_queue_drops_and_counts(
    records: Records, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CAPACITY", 10)
    recorder = Recorder(EventTable(records), clock)
    for _ in range(25):
        recorder.note(Event(Kind.SIGN_IN))
    recorder.note(rejected())
    assert recorder.dropped == 15
    await recorder.close()
    assert await count(records) == 11


async def test_events_wait_for_the_store(
    records: Records, clock: ManualClock, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    recorder.subscribe(told.append)
    async with records.begin() as connection:
        await connection.execute(text("ALTER TABLE events RENAME TO away"))
    recorder.note(Event(Kind.SIGN_IN, user="ann"))
    recorder.note(rejected())
    with pytest.raises(StoreAway):
        await recorder.flush()
    with pytest.raises(StoreAway):
        await recorder.record(Event(Kind.FACTOR_REMOVED))
    assert len(told) == 2
    recorder.note(Event(Kind.SIGN_OUT, user="ann"))
    async with records.begin() as connection:
        await connection.execute(text("ALTER TABLE away RENAME TO events"))
    await recorder.flush()
    kept = await recorder.events("default", limit=10)
    assert sorted(event.kind for event in kept) == [Kind.REQUEST_REJECTED, Kind.SIGN_IN, Kind.SIGN_OUT]
    assert recorder.dropped == 0


async def test_what_cannot_be_written_at_the_end_is_counted(
    records: Records, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(EventTable(records), clock)
    async with records.begin() as connection:
        await connection.execute(text("DROP TABLE events"))
    recorder.note(Event(Kind.SIGN_IN))
    await recorder.close()
    assert recorder.dropped == 1
    assert "1 events are lost" in caplog.text


async def test_the_task_writes_by_itself_and_outlives_a_store_that_is_away(
    records: Records, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.001)
    recorder = Recorder(EventTable(records), clock)
    recorder.start()
    recorder.start()
    try:
        async with records.begin() as connection:
            await connection.execute(text("ALTER TABLE events RENAME TO away"))
        recorder.note(Event(Kind.SIGN_IN))
        async with asyncio.timeout(5):
            while "events wait for the store" not in caplog.text:
                await asyncio.sleep(0)
        async with records.begin() as connection:
            await connection.execute(text("ALTER TABLE away RENAME TO events"))
        async with asyncio.timeout(5):
            while not await count(records):
                await asyncio.sleep(0)
    finally:
        await recorder.close()
    assert await count(records) == 1


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
async def test_whatever_strangers_send_is_one_small_record(recorder: Recorder, text: str) -> None:
    """Case 120, in every field."""
    recorder.note(
        Event(
            Kind.SIGN_IN_FAILED,
            tenant="default",
            user=text,
            session=text,
            address=text,
            agent=text,
            request_id=text,
            rule=text,
            detail={"name": text, text: text, "list": [text, {text: text}]},
        )
    )
    await recorder.flush()
    (kept,) = await recorder.events("default", limit=10)
    fields = (kept.user, kept.session, kept.address, kept.agent, kept.request_id, kept.rule)
    assert all(field.isprintable() and len(field) <= 512 for field in fields)
    assert sum(map(len, fields)) + len(repr(kept.detail)) < 6000
    assert recorder.dropped == 0


async def test_details_that_break_are_counted_not_raised(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError("no")

    recorder.note(Event(Kind.SIGN_IN, detail={"bad": Bad()}))
    assert recorder.dropped == 1
    assert "could not be kept" in caplog.text
