"""Sessions in the database: what holds there alone."""

from __future__ import annotations

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.identity.sessions import Sessions
from gateway.identity.users import User
from gateway.store.place import SQLITE, Place
from gateway.store.sql import Records
from tests.identity.conftest import Browser, over
from tests.rig.behind import at_rest, behind
from tests.rig.sessions import HOUR, Stores

pytestmark = over("sqlite", "postgresql")


async def test_only_a_digest_of_the_token_is_on_disk(
    sessions: Sessions, browser: Browser, ann: User, place: Place
) -> None:
    """ASVS 7.2.3 and 78: what is in the database signs nobody in."""
    token, identity = await browser.sign_in(ann)
    written = at_rest(place)
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
    behind(records.place, "ALTER TABLE meta RENAME TO lost")
    behind(records.place, "ALTER TABLE sessions RENAME TO lost_too")
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
    if garbage == "not json" and records.place.scheme != SQLITE:
        pytest.skip("PostgreSQL takes no JSON that is none")
    behind(records.place, f"UPDATE sessions SET proofs = '{garbage}'")
    with pytest.raises(StoreAway):
        await sessions.find(token)


async def test_what_is_over_is_swept_away(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, records: Records
) -> None:
    await browser.sign_in(ann)
    clock.advance(2 * HOUR)
    await sessions.refresh()
    assert behind(records.place, "SELECT count(*) FROM sessions") == [(0,)]
