from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from gateway.mfa.attempts import LIFE, RUN, WAIT, Run, after_try
from gateway.store.tables import users
from tests.mfa.conftest import Room

ANN = ("default", "s-ann")


@given(st.lists(st.floats(min_value=0.0, max_value=2000.0), max_size=60))
def test_no_fifteen_minutes_hold_more_than_five_tries(gaps: list[float]) -> None:
    run: Run | None = None
    now, admitted = 1_700_000_000.0, []
    for gap in gaps:
        now += gap
        run, wait = after_try(run, now)
        if wait == 0.0:
            admitted.append(now)
        else:
            assert 0.0 < wait <= 3600.0
    for first in admitted:
        assert sum(first <= at < first + WAIT for at in admitted) <= RUN


@given(st.lists(st.floats(min_value=-1e6, max_value=1e6), max_size=30))
def test_a_clock_that_jumps_never_shuts_anybody_out_for_longer_than_an_hour(jumps: list[float]) -> None:
    run: Run | None = None
    now = 1_700_000_000.0
    for jump in jumps:
        now += jump
        run, wait = after_try(run, now)
        assert wait <= 3600.0


def test_waits_grow_to_an_hour_and_a_wait_that_is_told_is_kept() -> None:
    run: Run | None = None
    now, waits = 1_700_000_000.0, []
    for _ in range(5):
        for _ in range(RUN):
            run, wait = after_try(run, now)
            assert wait == 0.0
        run, wait = after_try(run, now)
        waits.append(wait)
        assert after_try(run, now + wait - 1)[1] == 1.0
        now += wait
    assert waits == [900.0, 1800.0, 3600.0, 3600.0, 3600.0]


async def test_methods_and_users_have_runs_of_their_own_that_survive_a_restart(room: Room, replica: Room) -> None:
    for _ in range(RUN):
        assert (await room.factors.attempts.admit(*ANN, "totp")).wait == 0.0
    assert (await replica.factors.attempts.admit(*ANN, "totp")).wait == 900.0
    assert (await replica.factors.attempts.admit(*ANN, "backup_code")).wait == 0.0
    assert (await replica.factors.attempts.admit("default", "s-bob", "totp")).wait == 0.0
    async with room.records.begin() as connection:  # somebody of the same subject, elsewhere
        await connection.execute(
            insert(users).values(
                tenant="other", subject="s-ann", name="ann", email="", display_name="", groups=[], password="",
                disabled=False, created_at=0.0,
            )
        )  # fmt: skip
    assert (await replica.factors.attempts.admit("other", "s-ann", "totp")).wait == 0.0
    room.clock.advance(899.0)
    assert (await room.factors.attempts.admit(*ANN, "totp")).wait == 1.0
    room.clock.advance(1.0)
    assert (await room.factors.attempts.admit(*ANN, "totp")).wait == 0.0


async def test_a_hundred_at_once_in_two_processes_are_five(room: Room, replica: Room) -> None:
    tries = await asyncio.gather(
        *(one.factors.attempts.admit(*ANN, "totp") for one in (room, replica) for _ in range(50))
    )
    assert sum(one.wait == 0.0 for one in tries) == RUN


async def test_success_sets_both_counters_back(room: Room) -> None:
    await room.bind()
    for _ in range(RUN):
        counted = await room.factors.attempts.admit(*ANN, "totp")
    assert [tried for _, tried in counted.lives] == [RUN]
    async with room.records.begin(*ANN) as connection:
        await room.factors.attempts.succeeded(connection, *ANN, "totp", counted.lives)
    again = await room.factors.attempts.admit(*ANN, "totp")
    assert again.wait == 0.0
    assert [tried for _, tried in again.lives] == [1]


async def test_a_life_ends_at_a_hundred_and_waiting_does_not_help(room: Room) -> None:
    await room.bind()
    for number in range(1, LIFE + 1):
        counted = await room.factors.attempts.admit(*ANN, "totp")
        assert counted.wait == 0.0
        assert [tried for _, tried in counted.lives] == [number]
        assert bool(counted.last_of) == (number == LIFE)
        room.clock.advance(3600.0)
    for _ in range(3):
        room.clock.advance(365 * 86400.0)
        assert (await room.factors.attempts.admit(*ANN, "totp")).lives == ()
