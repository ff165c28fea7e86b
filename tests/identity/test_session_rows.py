"""Sessions in the database: what holds there alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.identity.sessions import Sessions
from gateway.identity.users import User
from gateway.store.sql import Records
from tests.identity.conftest import Browser
from tests.rig.sessions import HOUR, Stores


async def test_only_a_digest_of_the_token_is_on_disk(
    sessions: Sessions, browser: Browser, ann: User, tmp_path: Path
) -> None:
    """ASVS 7.2.3 and 78: what is in the database signs nobody in."""
    token, identity = await browser.sign_in(ann)
    written = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
    assert identity.session is not None
    assert identity.session.id.encode() in written
    assert token.encode() not in written


async def test_a_clock_set_back_over_a_restart_gives_no_more_than_a_whole_idle_time(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, stores: Stores
) -> None:
    token, _ = await browser.sign_in(ann)
    clock.jump(-HOUR)
    again = await stores.replica()
    await again.refresh()
    assert await again.find(token) is not None
    clock.advance(HOUR)
    assert await again.find(token) is None


async def test_a_store_that_is_away_closes_the_gate_after_a_short_grace(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, records: Records
) -> None:
    """Case 83: never anonymous, never as before for long."""
    token, _ = await browser.sign_in(ann)
    await sessions.refresh()
    await sessions.find(token)
    with sqlite3.connect(records._path) as database:
        database.execute("ALTER TABLE meta RENAME TO lost")
        database.execute("ALTER TABLE sessions RENAME TO lost_too")
    database.close()
    clock.advance(5)
    with pytest.raises(StoreAway):
        await sessions.refresh()
    assert sessions.near(token) is not None
    clock.advance(5)
    with pytest.raises(StoreAway):
        await sessions.refresh()
    assert sessions.near(token) is None
    with pytest.raises(StoreAway):
        await sessions.find(token)


@pytest.mark.parametrize("garbage", ['"text"', "[[1]]", '[["password", "x"]]', "not json", "7"])
async def test_a_store_that_answers_garbage_is_away(
    sessions: Sessions, browser: Browser, ann: User, records: Records, garbage: str
) -> None:
    """Case 83."""
    token, _ = await browser.sign_in(ann)
    with sqlite3.connect(records._path) as database:
        database.execute("UPDATE sessions SET proofs = ?", [garbage])
    database.close()
    with pytest.raises(StoreAway):
        await sessions.find(token)


async def test_what_is_over_is_swept_away(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, records: Records
) -> None:
    await browser.sign_in(ann)
    clock.advance(2 * HOUR)
    await sessions.refresh()
    with sqlite3.connect(records._path) as database:
        assert database.execute("SELECT count(*) FROM sessions").fetchone()[0] == 0
    database.close()
