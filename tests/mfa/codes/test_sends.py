from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from gateway.core.clock import ManualClock
from gateway.crypto.mac import Mac
from gateway.mfa.codes import sends
from gateway.mfa.codes.sends import DAILY, DAY, GAP, HOUR, HOURLY, STRANGERS, address_waits, user_waits
from gateway.store.sql import Records
from gateway.store.tables import code_sends
from tests.mfa.codes.conftest import BOTH

NOW = 1_700_000_000.0


def test_the_wait_doubles_with_every_code() -> None:
    times: list[float] = []
    now, waits = NOW, []
    for _ in range(HOURLY - 1):
        times.append(now)
        waits.append(user_waits(times, now))
        now += waits[-1]
        assert user_waits(times, now) == 0.0
        assert user_waits(times, now - 0.01) > 0.0
    assert waits == [30.0, 60.0, 120.0, 240.0]
    times.append(now)
    assert user_waits(times, now) == HOUR - (now - NOW)  # the sixth waits until the first is an hour old


@given(st.lists(st.floats(0, 4000), min_size=1, max_size=200))
def test_no_hour_ever_holds_more_than_five(pauses: list[float]) -> None:
    now, times = NOW, []
    for pause in pauses:
        now += pause
        if user_waits(times, now) == 0.0:
            times.append(now)
    for at in times:
        assert sum(at <= other < at + HOUR - 0.001 for other in times) <= HOURLY
    assert all(later - earlier >= GAP - 0.001 for earlier, later in itertools.pairwise(times))


@given(st.lists(st.tuples(st.floats(0, 20_000), st.booleans()), min_size=1, max_size=200))
def test_no_day_ever_holds_more_than_ten_to_one_address(wishes: list[tuple[float, bool]]) -> None:
    now, sent = NOW, []
    for pause, bound in wishes:
        now += pause
        if address_waits(sent, now, bound=bound) == 0.0:
            sent.append((now, bound))
    for at, _ in sent:
        day = [owned for other, owned in sent if at <= other < at + DAY - 0.001]
        assert len(day) <= DAILY
        assert day.count(False) <= STRANGERS


def test_strangers_leave_room_for_the_owner() -> None:
    sent = [(NOW, False)] * STRANGERS
    assert address_waits(sent, NOW + 1, bound=False) == DAY - 1
    assert address_waits(sent, NOW + 1, bound=True) == 0.0


def test_a_clock_that_was_set_back_makes_nobody_wait_for_it() -> None:
    assert user_waits([NOW + 5000], NOW) == GAP
    assert address_waits([(NOW + 5000, True)] * DAILY, NOW, bound=True) == DAY


@BOTH
async def test_what_counts_no_more_is_removed(records: Records, clock: ManualClock) -> None:
    mac = Mac([b"m" * 32])
    about = {"tenant": "default", "subject": "s-ann", "factor": "sms", "address": "+905321234512", "bound": True}

    async def count() -> sends.Counted:
        async with records.begin("default", "s-ann") as connection:
            return await sends.count(connection, mac, now=clock.now(), **about)  # type: ignore[arg-type]

    async def rows() -> int:
        async with records.begin() as connection:
            await sends.sweep(connection, clock.now())
        async with records.read() as connection:
            return await connection.scalar(select(func.count()).select_from(code_sends)) or 0

    assert await count() == sends.Counted()
    assert await count() == sends.Counted(GAP, "user")
    assert await rows() == 2
    clock.advance(HOUR)
    assert await rows() == 1
    clock.advance(DAY)
    assert await rows() == 0


@BOTH
async def test_addresses_are_not_kept_in_clear(records: Records) -> None:
    async with records.begin("default", "s-ann") as connection:
        await sends.count(
            connection, Mac([b"m" * 32]), tenant="default", subject="s-ann", factor="email",
            address="ann@example.org", bound=True, now=NOW,
        )  # fmt: skip
    async with records.read() as connection:
        kept = (await connection.execute(select(code_sends))).all()
    assert len(kept) == 2
    assert "ann@" not in str(kept)
    assert pytest.approx(NOW) == kept[0].sent[0][0]


@BOTH
async def test_who_counts_while_another_one_does_sees_what_they_have_sent(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ann has read how often it was, and not yet written, when bob asks: he waits for her."""
    now = NOW + DAILY * HOUR

    async def count(subject: str, at: float) -> sends.Counted:
        async with records.begin("default", subject) as connection:
            return await sends.count(
                connection, Mac([b"m" * 32]), tenant="default", subject=subject, factor="email",
                address="ann@example.org", bound=True, now=at,
            )  # fmt: skip

    for number in range(DAILY - 1):
        assert await count("s-ann", NOW + number * HOUR) == sends.Counted()
    write, bob = sends._write, asyncio.Event()

    async def meanwhile(connection: Any, whose: tuple[str, str], *what: Any) -> None:
        if "s-ann" in whose[1]:
            bob.set()
            await asyncio.wait([bobs], timeout=0.2)
        await write(connection, whose, *what)

    async def after_her() -> sends.Counted:
        await bob.wait()
        return await count("s-bob", now)

    bobs = asyncio.create_task(after_her())
    monkeypatch.setattr(sends, "_write", meanwhile)
    assert await count("s-ann", now) == sends.Counted()
    assert (await bobs).whose == "address"
