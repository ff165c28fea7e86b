from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind
from gateway.core.identity import Identity, Level, Proof
from gateway.identity.local import LocalUsers
from gateway.identity.sessions import Sessions
from gateway.identity.users import User
from gateway.store.sql import Records
from tests.identity.conftest import PASSWORD
from tests.rig.ledger import Remembered

HOUR = 3600.0


@pytest.fixture
async def ann(people: LocalUsers) -> User:
    return await people.add("ann", PASSWORD, email="ann@example.com", display_name="Ann", groups=["admins"])


@pytest.fixture
async def bob(people: LocalUsers) -> User:
    return await people.add("bob", PASSWORD)


class Browser:
    """Signs in with a password and steps up with a code, at the clock's time."""

    def __init__(self, sessions: Sessions, clock: ManualClock) -> None:
        self.sessions = sessions
        self.clock = clock

    async def sign_in(self, user: User, replacing: str | None = None) -> tuple[str, Identity]:
        proof = Proof("password", self.clock.now())
        return await self.sessions.open(user, proof, address="192.0.2.1", agent="test", replacing=replacing)

    async def step_up(self, token: str, factor: str = "totp") -> tuple[str, Identity]:
        return await self.sessions.prove(token, Proof(factor, self.clock.now()))


@pytest.fixture
def browser(sessions: Sessions, clock: ManualClock) -> Browser:
    return Browser(sessions, clock)


async def elsewhere(records: Records, clock: ManualClock) -> Sessions:
    """A second process on the same database."""
    other = await Records.open(f"sqlite:{records._path}", clock=clock)
    return Sessions(other, clock, Remembered(), idle=HOUR, absolute=24 * HOUR, per_user=5)


async def test_signing_in_makes_an_identity(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock
) -> None:
    token, identity = await browser.sign_in(ann)
    assert (identity.user, identity.subject, identity.email, identity.name) == (
        "ann",
        ann.subject,
        "ann@example.com",
        "Ann",
    )
    assert identity.groups == {"admins"}
    assert (identity.level, identity.amr, identity.auth_time) == (Level.AAL1, ("pwd",), clock.now())
    assert identity.session is not None
    assert identity.session.version == 1
    assert identity.session.expires_at == clock.now() + 24 * HOUR
    assert len(token) == 43
    assert await sessions.find(token) == identity


async def test_what_is_near_is_one_object_and_asks_no_store(
    sessions: Sessions, browser: Browser, ann: User, records: Records
) -> None:
    token, _ = await browser.sign_in(ann)
    assert sessions.near(token) is None
    found = await sessions.find(token)
    await records.close()
    assert sessions.near(token) is found
    assert await sessions.find(token) is found


async def test_only_a_digest_of_the_token_is_on_disk(
    sessions: Sessions, browser: Browser, ann: User, tmp_path: Path
) -> None:
    """ASVS 7.2.3 and 78: what is in the database signs nobody in."""
    token, identity = await browser.sign_in(ann)
    written = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
    assert identity.session is not None
    assert identity.session.id.encode() in written
    assert token.encode() not in written


async def test_a_proof_changes_the_token_and_the_old_one_is_dead_at_once(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock
) -> None:
    """Case 78."""
    token, before = await browser.sign_in(ann)
    await sessions.find(token)
    clock.advance(60)
    fresh, after = await browser.step_up(token)
    assert sessions.near(token) is None
    assert await sessions.find(token) is None
    assert fresh != token
    assert await sessions.find(fresh) == after
    assert before.session is not None
    assert after.session is not None
    assert after.session.id == before.session.id
    assert after.session.version == 2
    assert (after.level, after.amr) == (Level.AAL2, ("otp", "pwd", "mfa"))
    assert after.auth_time == clock.now()
    assert after.session.expires_at == before.session.expires_at


async def test_the_latest_proof_of_each_factor_is_kept(browser: Browser, ann: User, clock: ManualClock) -> None:
    token, _ = await browser.sign_in(ann)
    start = clock.now()
    for _ in range(3):
        clock.advance(10)
        token, identity = await browser.step_up(token)
    assert identity.session is not None
    assert identity.session.proofs == (Proof("password", start), Proof("totp", start + 30))
    assert identity.session.version == 4


async def test_one_token_is_exchanged_once_in_twenty_parallel_tries(
    sessions: Sessions, browser: Browser, ann: User
) -> None:
    token, _ = await browser.sign_in(ann)
    await sessions.find(token)
    answers = await asyncio.gather(*(browser.step_up(token) for _ in range(20)), return_exceptions=True)
    winners = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(winners) == 1
    assert all(isinstance(a, UserError) and a.code == "ERR-SESSION-ENDED" for a in answers if a not in winners)
    fresh, identity = winners[0]
    assert await sessions.find(fresh) == identity
    assert await sessions.find(token) is None


async def test_two_processes_do_not_both_exchange_a_token(
    sessions: Sessions, browser: Browser, ann: User, records: Records, clock: ManualClock
) -> None:
    token, _ = await browser.sign_in(ann)
    other = await elsewhere(records, clock)
    proof = Proof("totp", clock.now())
    tries = [which.prove(token, proof) for which in (sessions, other) * 5]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
    await other._records.close()


async def test_signing_in_again_ends_the_session_before(
    sessions: Sessions, browser: Browser, ann: User, bob: User, ledger: Remembered
) -> None:
    """Case 78: also when somebody else signs in on the same browser."""
    token, first = await browser.sign_in(ann)
    await sessions.find(token)
    _, second = await browser.sign_in(bob, replacing=token)
    assert await sessions.find(token) is None
    assert first.session is not None
    assert second.session is not None
    assert [s.id for s in await sessions.list("default", ann.subject)] == []
    assert [s.id for s in await sessions.list("default", bob.subject)] == [second.session.id]
    ended = [event for event in ledger.events if event.kind is Kind.SESSION_ENDED]
    assert [(event.user, event.session, event.detail) for event in ended] == [
        ("ann", first.session.id, {"why": "replaced"})
    ]


async def test_never_more_sessions_than_allowed_under_fifty_parallel_sign_ins(
    sessions: Sessions, browser: Browser, ann: User
) -> None:
    """Case 85."""
    opened = await asyncio.gather(*(browser.sign_in(ann) for _ in range(50)))
    alive = [token for token, _ in opened if await sessions.find(token) is not None]
    assert len(alive) == 5
    assert len(await sessions.list("default", ann.subject)) == 5


async def test_the_oldest_session_goes_first(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock
) -> None:
    tokens = []
    for _ in range(6):
        tokens.append((await browser.sign_in(ann))[0])
        clock.advance(1)
    assert [await sessions.find(token) is not None for token in tokens] == [False, True, True, True, True, True]


async def test_idle_sessions_end(sessions: Sessions, browser: Browser, ann: User, clock: ManualClock) -> None:
    """Case 82."""
    token, _ = await browser.sign_in(ann)
    for _ in range(3):
        clock.advance(HOUR - 1)
        assert await sessions.find(token) is not None
    clock.advance(HOUR)
    assert sessions.near(token) is None
    assert await sessions.find(token) is None
    with pytest.raises(UserError, match="ERR-SESSION-ENDED"):
        await browser.step_up(token)


async def test_idle_is_measured_over_what_is_not_written_yet(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock
) -> None:
    token, _ = await browser.sign_in(ann)
    await sessions.find(token)
    clock.advance(50)
    sessions.near(token)
    await browser.sign_in(ann)  # makes it forget what is near of ann
    clock.advance(HOUR - 20)
    assert await sessions.find(token) is not None


async def test_every_session_ends_some_day(sessions: Sessions, browser: Browser, ann: User, clock: ManualClock) -> None:
    token, _ = await browser.sign_in(ann)
    for _ in range(47):
        clock.advance(1800)
        token, _ = await browser.step_up(token)
        assert await sessions.find(token) is not None
    clock.advance(1800)
    assert sessions.near(token) is None
    assert await sessions.find(token) is None


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 400 * 86400.0])
@pytest.mark.parametrize("forget", [False, True])
async def test_setting_the_clock_neither_ends_nor_revives(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, jump: float, forget: bool
) -> None:
    """Case 82."""
    alive, _ = await browser.sign_in(ann)
    await sessions.find(alive)
    over, _ = await browser.sign_in(ann)
    clock.advance(HOUR / 2)
    await sessions.find(alive)
    clock.advance(HOUR / 2 + 1)
    assert await sessions.find(over) is None
    clock.jump(jump)
    if forget:
        sessions._forget("", "")
    assert await sessions.find(alive) is not None
    assert await sessions.find(over) is None
    clock.advance(HOUR)
    assert await sessions.find(alive) is None


async def test_a_clock_set_back_over_a_restart_gives_no_more_than_a_whole_idle_time(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, records: Records
) -> None:
    token, _ = await browser.sign_in(ann)
    clock.jump(-HOUR)
    again = await elsewhere(records, clock)
    await again.refresh()
    assert await again.find(token) is not None
    clock.advance(HOUR)
    assert await again.find(token) is None
    await again._records.close()


async def test_sessions_survive_a_restart(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, records: Records
) -> None:
    token, identity = await browser.sign_in(ann)
    await sessions.find(token)
    clock.advance(30)
    sessions.near(token)
    await sessions.close()
    await records.close()
    clock.advance(HOUR - 1)
    again = await elsewhere(records, clock)
    found = await again.find(token)
    assert found is not None
    assert found.session is not None
    assert identity.session is not None
    assert found.session.id == identity.session.id
    await again._records.close()


async def test_ending_a_session_ends_it_at_once(
    sessions: Sessions, browser: Browser, ann: User, bob: User, ledger: Remembered
) -> None:
    """Case 81."""
    token, identity = await browser.sign_in(ann)
    other, _ = await browser.sign_in(ann)
    await sessions.find(token)
    await sessions.find(other)
    assert identity.session is not None
    assert await sessions.end("default", bob.subject, identity.session.id) is False
    assert sessions.near(token) is not None
    assert await sessions.end("default", ann.subject, identity.session.id) is True
    assert sessions.near(token) is None
    assert await sessions.find(token) is None
    assert await sessions.find(other) is not None
    assert await sessions.end("default", ann.subject, identity.session.id) is False
    assert ledger.kinds().count(Kind.SESSION_ENDED) == 1


async def test_ending_all_but_one(sessions: Sessions, browser: Browser, ann: User, bob: User) -> None:
    tokens = [(await browser.sign_in(ann))[0] for _ in range(3)]
    mine, identity = await browser.sign_in(ann)
    theirs, _ = await browser.sign_in(bob)
    for token in (*tokens, mine, theirs):
        await sessions.find(token)
    assert identity.session is not None
    assert await sessions.end_all("default", ann.subject, but=identity.session.id) == 3
    assert [await sessions.find(token) for token in tokens] == [None] * 3
    assert await sessions.find(mine) is not None
    assert sessions.near(theirs) is not None


@pytest.mark.parametrize("how", ["disable", "password"])
async def test_a_disabled_user_and_a_changed_password_end_every_session_at_once(
    sessions: Sessions, browser: Browser, ann: User, people: LocalUsers, how: str
) -> None:
    """Case 81: in this process without waiting for anything."""
    token, _ = await browser.sign_in(ann)
    assert await sessions.find(token) is not None
    if how == "disable":
        await people.disable("ann")
    else:
        await people.set_password("ann", "another horse battery")
    assert sessions.near(token) is None
    assert await sessions.find(token) is None
    if how == "disable":
        await people.enable("ann")
        assert await sessions.find(token) is None


async def test_nobody_disabled_can_begin_a_session(browser: Browser, ann: User, people: LocalUsers) -> None:
    await people.disable("ann")
    with pytest.raises(UserError, match="ERR-SIGN-IN"):
        await browser.sign_in(ann)


async def test_what_another_process_changes_is_seen_by_the_next_refresh(
    sessions: Sessions, browser: Browser, ann: User, records: Records, clock: ManualClock
) -> None:
    """Case 81, on every replica within a second."""
    token, _ = await browser.sign_in(ann)
    other = await elsewhere(records, clock)
    await other.refresh()
    assert await other.find(token) is not None
    await other.refresh()
    assert other.near(token) is not None
    await sessions.end_all("default", ann.subject)
    await other.refresh()
    assert other.near(token) is None
    assert await other.find(token) is None
    await other._records.close()


async def test_a_change_before_the_first_refresh_is_not_missed(
    sessions: Sessions, browser: Browser, ann: User, records: Records, clock: ManualClock
) -> None:
    token, _ = await browser.sign_in(ann)
    other = await elsewhere(records, clock)
    assert await other.find(token) is not None
    await sessions.end_all("default", ann.subject)
    await other.refresh()
    assert other.near(token) is None
    await other._records.close()


async def test_own_changes_leave_the_others_near(sessions: Sessions, browser: Browser, ann: User, bob: User) -> None:
    theirs, _ = await browser.sign_in(bob)
    await sessions.refresh()
    await sessions.find(theirs)
    await browser.sign_in(ann)
    await sessions.refresh()
    assert sessions.near(theirs) is not None


async def test_a_session_ended_while_it_is_being_read_does_not_stay_near(
    sessions: Sessions, browser: Browser, ann: User
) -> None:
    token, identity = await browser.sign_in(ann)
    assert identity.session is not None
    reading = [asyncio.create_task(sessions.find(token)) for _ in range(3)]
    await asyncio.gather(sessions.end("default", ann.subject, identity.session.id), *reading)
    assert sessions.near(token) is None
    assert await sessions.find(token) is None


async def test_a_cancelled_end_leaves_nothing_near(sessions: Sessions, browser: Browser, ann: User) -> None:
    """Whether it was committed is not known then; what is near must not be believed."""
    token, identity = await browser.sign_in(ann)
    assert identity.session is not None
    for turns in range(60):
        await sessions.find(token)
        ending = asyncio.create_task(sessions.end("default", ann.subject, identity.session.id))
        for _ in range(turns):
            await asyncio.sleep(0)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        near = sessions.near(token)
        sessions._forget("", "")
        if near is not None:
            assert await sessions.find(token) is not None


async def test_seen_is_written_at_most_once_a_minute(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, records: Records
) -> None:
    token, identity = await browser.sign_in(ann)
    await sessions.refresh()
    await sessions.find(token)
    start = clock.now()

    def written() -> float:
        with sqlite3.connect(records._path) as database:
            seen: float = database.execute("SELECT last_seen_at FROM sessions").fetchone()[0]
        database.close()
        return seen - start

    seen = []
    for _ in range(13):
        clock.advance(10)
        sessions.near(token)
        await sessions.refresh()
        seen.append(written())
    assert seen == [0, 0, 0, 0, 0, 60, 60, 60, 60, 60, 60, 120, 120]
    (listed,) = await sessions.list("default", ann.subject)
    assert listed.last_seen_at == start + 130
    assert identity.session is not None
    assert listed.created_at == identity.session.created_at


async def test_extending_begins_the_idle_time_anew_but_moves_no_end(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, records: Records
) -> None:
    token, identity = await browser.sign_in(ann)
    clock.advance(HOUR - 1)
    extended = await sessions.extend(token)
    assert extended.session is not None
    assert identity.session is not None
    assert extended.session.last_seen_at == clock.now()
    assert extended.session.expires_at == identity.session.expires_at
    assert extended.session.version == identity.session.version
    again = await elsewhere(records, clock)  # durable: a process that dies now has written it
    clock.advance(HOUR - 1)
    assert await again.find(token) is not None
    await again._records.close()
    clock.advance(2 * HOUR)
    with pytest.raises(UserError, match="ERR-SESSION-ENDED"):
        await sessions.extend(token)


async def test_stats_and_sweep(
    sessions: Sessions, browser: Browser, ann: User, bob: User, clock: ManualClock, records: Records
) -> None:
    await browser.sign_in(ann)
    await browser.sign_in(ann)
    token, _ = await browser.sign_in(bob)
    await sessions.find(token)
    assert await sessions.stats() == {"sessions": 3, "users": 2, "near": 1}
    clock.advance(HOUR)
    assert await sessions.stats() == {"sessions": 0, "users": 0, "near": 1}
    clock.advance(HOUR)
    await sessions.refresh()
    with sqlite3.connect(records._path) as database:
        assert database.execute("SELECT count(*) FROM sessions").fetchone()[0] == 0
    database.close()


async def test_shorter_sessions_in_the_config_hold_for_old_sessions_too(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, records: Records
) -> None:
    token, _ = await browser.sign_in(ann)
    shorter = Sessions(records, clock, Remembered(), idle=HOUR, absolute=600.0, per_user=5)
    assert await shorter.find(token) is not None
    clock.advance(600)
    assert shorter.near(token) is None
    assert await shorter.find(token) is None
    assert await sessions.find(token) is not None


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


async def test_what_is_near_is_bounded(sessions: Sessions, browser: Browser, ann: User, clock: ManualClock) -> None:
    sessions._near.capacity = 8
    sessions._unknown.capacity = 8
    for number in range(40):
        await sessions.find(f"{number:043}")
    assert len(sessions._unknown) <= 8
    sessions._per_user = 40
    for _ in range(20):
        token, _ = await browser.sign_in(ann)
        await sessions.find(token)
    assert len(sessions._near) <= 8
    clock.advance(10)
    assert await sessions.find(token) is not None


async def test_who_has_something_open_is_known_again_by_session_whatever_its_token(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock
) -> None:
    token, before = await browser.sign_in(ann)
    fresh, _ = await browser.step_up(token)
    again = await sessions.again(before)
    assert again is not None
    assert (again.session and again.session.version, again.level) == (2, Level.AAL2)
    near = await sessions.find(fresh)
    assert await sessions.again(before) is near
    assert before.session is not None
    await sessions.end(before.tenant, before.subject, before.session.id)
    assert await sessions.again(before) is None


async def test_what_is_open_counts_as_being_seen_and_is_seldom_written(
    sessions: Sessions, browser: Browser, ann: User, people: LocalUsers, clock: ManualClock
) -> None:
    _, before = await browser.sign_in(ann)
    for _ in range(90):
        clock.advance(120)
        assert await sessions.again(before) is not None
        assert len(sessions._touched) == 1
        clock.advance(2)
        assert await sessions.again(before) is not None
        await sessions.refresh()
        assert sessions._touched == {}
        await sessions.again(before)
        assert sessions._touched == {}
    await people.disable("ann")
    assert await sessions.again(before) is None
