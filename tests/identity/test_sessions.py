"""What holds of sessions wherever they are kept."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind
from gateway.core.identity import NEVER, Level, Proof
from gateway.identity.local import LocalUsers
from gateway.identity.session_rows import revoke
from gateway.identity.session_store import Lifetimes
from gateway.identity.sessions import Sessions
from gateway.identity.users import User
from gateway.mfa.demands import Demand, Demands
from gateway.store.sql import Records
from gateway.store.tables import users
from tests.identity.conftest import PASSWORD, Browser, over
from tests.rig.ledger import Remembered
from tests.rig.sessions import HOUR, TERMS, Stores, settled

pytestmark = over("sqlite", "postgresql", "redis", "cluster")


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
    sessions: Sessions, browser: Browser, ann: User, stores: Stores
) -> None:
    token, _ = await browser.sign_in(ann)
    assert sessions.near(token) is None
    found = await sessions.find(token)
    await stores.close()
    assert sessions.near(token) is found
    assert await sessions.find(token) is found


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


async def test_what_a_key_has_shown_is_kept_with_the_session(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, stores: Stores
) -> None:
    token, _ = await browser.sign_in(ann)
    proof = Proof("webauthn", clock.now(), "hwk", True)
    token, identity = await sessions.prove(token, proof)
    found = await (await stores.replica()).find(token)
    for one in (identity, found):
        assert one is not None
        assert one.session is not None
        assert one.session.proofs[-1] == proof
        assert (one.level, one.amr) == (Level.AAL3, ("hwk", "pwd", "mfa"))


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
    sessions: Sessions, browser: Browser, ann: User, stores: Stores, clock: ManualClock
) -> None:
    token, _ = await browser.sign_in(ann)
    other = await stores.replica()
    proof = Proof("totp", clock.now())
    tries = [which.prove(token, proof) for which in (sessions, other) * 5]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(answer, BaseException) for answer in answers) == 1


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


async def test_sessions_survive_a_restart(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, stores: Stores
) -> None:
    token, identity = await browser.sign_in(ann)
    await sessions.find(token)
    clock.advance(30)
    sessions.near(token)
    await sessions.close()
    clock.advance(HOUR - 1)
    again = await stores.replica()
    found = await again.find(token)
    assert found is not None
    assert found.session is not None
    assert identity.session is not None
    assert found.session.id == identity.session.id


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


@pytest.mark.parametrize("how", ["password", "disabled", "disabled and enabled"])
async def test_who_ends_all_the_others_saves_no_session_that_is_over(
    sessions: Sessions, browser: Browser, ann: User, people: LocalUsers, how: str
) -> None:
    """Whoever goes on asking for it may be asking in the very moment in which everything of theirs is ended."""
    token, identity = await browser.sign_in(ann)
    assert identity.session is not None
    if how == "password":
        await people.set_password("ann", "another horse battery")
    else:
        await people.disable("ann")
    if how == "disabled and enabled":
        await people.enable("ann")
    await sessions.end_all("default", ann.subject, but=identity.session.id)
    if how == "disabled":
        await people.enable("ann")
    assert await sessions.find(token) is None
    assert await sessions.list("default", ann.subject) == []


async def test_a_session_is_opened_with_what_ended_all_before_it_or_not_at_all(
    sessions: Sessions, browser: Browser, ann: User, stores: Stores
) -> None:
    before, _ = await browser.sign_in(ann)
    opened = []

    async def begin(*, fails: bool) -> None:
        async with stores.records.begin("default", ann.subject) as connection:
            await revoke(connection, "default", ann.subject)
            await stores.records.bump(connection, "default", ann.subject)
            proof = Proof("password", 0.0)
            opened.append(
                await sessions.open_in(connection, "default", ann.subject, proof, address="192.0.2.1", agent="test")
            )
            if fails:
                raise StoreAway("disk full")

    with pytest.raises(StoreAway):
        await begin(fails=True)
    await begin(fails=False)
    assert await sessions.find(opened[0]) is None
    assert await sessions.find(before) is None
    identity = await sessions.find(opened[1])
    assert identity is not None
    assert [one.id for one in await sessions.list("default", ann.subject)] == [
        identity.session.id if identity.session is not None else ""
    ]


async def displayed(stores: Stores) -> str:
    async with stores.records.read() as connection:
        return await connection.scalar(select(users.c.display_name)) or ""


@pytest.mark.parametrize("stays", [True, False])
async def test_what_belongs_to_ending_all_is_done_with_it(
    sessions: Sessions, browser: Browser, ann: User, stores: Stores, stays: bool
) -> None:
    other, _ = await browser.sign_in(ann)
    mine, identity = await browser.sign_in(ann)
    assert identity.session is not None

    async def rename(connection: AsyncConnection) -> bool:
        await connection.execute(update(users).values(display_name="Anna"))
        return stays

    await sessions.end_all("default", ann.subject, but=identity.session.id, first=rename)
    assert await sessions.find(other) is None
    assert (await sessions.find(mine) is not None) is stays
    assert await displayed(stores) == "Anna"


async def test_where_what_belongs_to_it_fails_nothing_ends(
    sessions: Sessions, browser: Browser, ann: User, stores: Stores
) -> None:
    token, _ = await browser.sign_in(ann)
    generation = await stores.generation(ann)

    async def refuse(connection: AsyncConnection) -> bool:
        await connection.execute(update(users).values(display_name="Anna"))
        raise UserError("ERR-MFA-REQUIRED", "no")

    with pytest.raises(UserError, match="no"):
        await sessions.end_all("default", ann.subject, first=refuse)
    assert await sessions.find(token) is not None
    assert await displayed(stores) == "Ann"
    assert await stores.generation(ann) == generation


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
    sessions: Sessions, browser: Browser, ann: User, stores: Stores
) -> None:
    """Case 81, on every replica within a second."""
    token, _ = await browser.sign_in(ann)
    other = await stores.replica()
    await other.refresh()
    await settled(other, token)
    await other.refresh()
    assert other.near(token) is not None
    await sessions.end_all("default", ann.subject)
    await other.refresh()
    assert other.near(token) is None
    assert await other.find(token) is None


async def test_a_change_before_the_first_refresh_is_not_missed(
    sessions: Sessions, browser: Browser, ann: User, stores: Stores
) -> None:
    token, _ = await browser.sign_in(ann)
    other = await stores.replica()
    assert await other.find(token) is not None
    await sessions.end_all("default", ann.subject)
    await other.refresh()
    assert other.near(token) is None


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
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, stores: Stores
) -> None:
    token, identity = await browser.sign_in(ann)
    await sessions.refresh()
    await sessions.find(token)
    start = clock.now()
    other = await stores.replica()
    seen = []
    for _ in range(13):
        clock.advance(10)
        sessions.near(token)
        await sessions.refresh()
        (written,) = await other.list("default", ann.subject)
        seen.append(round(written.last_seen_at - start))
    assert seen == [0, 0, 0, 0, 0, 60, 60, 60, 60, 60, 60, 120, 120]
    (listed,) = await sessions.list("default", ann.subject)
    assert listed.last_seen_at == start + 130
    assert identity.session is not None
    assert listed.created_at == identity.session.created_at


async def test_extending_begins_the_idle_time_anew_but_moves_no_end(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, stores: Stores
) -> None:
    token, identity = await browser.sign_in(ann)
    clock.advance(HOUR - 1)
    extended = await sessions.extend(token)
    assert extended.session is not None
    assert identity.session is not None
    assert extended.session.last_seen_at == clock.now()
    assert extended.session.expires_at == identity.session.expires_at
    assert extended.session.version == identity.session.version
    again = await stores.replica()  # durable: a process that dies now has written it
    clock.advance(HOUR - 1)
    assert await again.find(token) is not None
    clock.advance(2 * HOUR)
    with pytest.raises(UserError, match="ERR-SESSION-ENDED"):
        await sessions.extend(token)


async def test_stats(sessions: Sessions, browser: Browser, ann: User, bob: User, clock: ManualClock) -> None:
    await browser.sign_in(ann)
    _, identity = await browser.sign_in(ann)
    token, _ = await browser.sign_in(bob)
    await sessions.find(token)
    assert await sessions.stats() == {"sessions": 3, "users": 2, "near": 1}
    assert identity.session is not None
    await sessions.end("default", ann.subject, identity.session.id)
    assert await sessions.stats() == {"sessions": 2, "users": 2, "near": 1}
    await sessions.end_all("default", ann.subject)
    assert await sessions.stats() == {"sessions": 1, "users": 1, "near": 1}
    clock.advance(HOUR)
    assert await sessions.stats() == {"sessions": 0, "users": 0, "near": 1}


async def test_shorter_sessions_in_the_config_hold_for_old_sessions_too(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, stores: Stores
) -> None:
    token, _ = await browser.sign_in(ann)
    shorter = await stores.replica(terms=replace(TERMS, default=Lifetimes(HOUR, 600.0, 5)))
    assert await shorter.find(token) is not None
    clock.advance(600)
    assert shorter.near(token) is None
    assert await shorter.find(token) is None
    assert await sessions.find(token) is not None


async def test_what_is_near_is_bounded(ann: User, clock: ManualClock, stores: Stores, ledger: Remembered) -> None:
    sessions = await stores.sessions(terms=replace(TERMS, default=Lifetimes(HOUR, 24 * HOUR, 40)))
    browser = Browser(sessions, clock)
    sessions._near.capacity = 8
    sessions._unknown.capacity = 8
    for number in range(40):
        await sessions.find(f"{number:043}")
    assert len(sessions._unknown) <= 8
    for _ in range(20):
        token, _ = await browser.sign_in(ann)
        await sessions.find(token)
    assert len(sessions._near) <= 8
    clock.advance(10)
    assert await sessions.find(token) is not None


async def test_who_has_something_open_is_known_again_by_session_whatever_its_token(
    sessions: Sessions, browser: Browser, ann: User
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


# --- how many ---------------------------------------------------------------------------------------------------------


async def test_over_three_replicas_never_more_sessions_than_allowed_under_fifty_parallel_sign_ins(
    ann: User, clock: ManualClock, stores: Stores
) -> None:
    """Case 85."""
    replicas = [await stores.replica() for _ in range(3)]
    browsers = [Browser(replica, clock) for replica in replicas]
    opened = await asyncio.gather(*(browsers[number % 3].sign_in(ann) for number in range(50)))
    fourth = await stores.replica()
    alive = [token for token, _ in opened if await fourth.find(token) is not None]
    assert len(alive) == 5
    assert len(await fourth.list("default", ann.subject)) == 5


async def test_one_too_many_is_refused_where_the_operator_says_so(
    ann: User, bob: User, clock: ManualClock, stores: Stores
) -> None:
    replicas = [await stores.replica(terms=replace(TERMS, refuse=True)) for _ in range(3)]
    browsers = [Browser(replica, clock) for replica in replicas]
    answers = await asyncio.gather(*(browsers[number % 3].sign_in(ann) for number in range(50)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    opened = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert all(isinstance(answer, UserError) and answer.code == "ERR-SESSION-LIMIT" for answer in refused)
    assert len(opened) == 5
    await browsers[0].sign_in(bob)
    for token, _ in opened:
        assert await replicas[1].find(token) is not None
    token, identity = opened[0]
    with pytest.raises(UserError, match="ERR-SESSION-LIMIT"):
        await browsers[1].sign_in(ann, replacing="A" * 43)
    assert len(await replicas[0].list("default", ann.subject)) == 5
    again, _ = await browsers[1].sign_in(ann, replacing=token)  # in the place of one of them there is room
    assert await replicas[2].find(token) is None
    assert await replicas[2].find(again) is not None
    assert identity.session is not None
    _, last = opened[4]
    assert last.session is not None
    assert await replicas[0].end("default", ann.subject, last.session.id)
    await browsers[2].sign_in(ann)


async def test_a_refused_sign_in_leaves_the_session_it_would_have_replaced(
    ann: User, bob: User, clock: ManualClock, stores: Stores
) -> None:
    sessions = await stores.sessions(terms=replace(TERMS, default=Lifetimes(HOUR, 24 * HOUR, 1), refuse=True))
    browser = Browser(sessions, clock)
    await browser.sign_in(ann)
    bobs, _ = await browser.sign_in(bob)
    with pytest.raises(UserError, match="ERR-SESSION-LIMIT"):
        await browser.sign_in(ann, replacing=bobs)
    assert await sessions.find(bobs) is not None


async def test_what_is_over_or_void_takes_nobodys_place(
    ann: User, clock: ManualClock, stores: Stores, people: LocalUsers
) -> None:
    sessions = await stores.sessions(terms=replace(TERMS, default=Lifetimes(HOUR, 24 * HOUR, 1), refuse=True))
    browser = Browser(sessions, clock)
    await browser.sign_in(ann)
    ann = await people.set_password("ann", "another horse battery")
    await browser.sign_in(ann)
    clock.advance(2 * HOUR)
    await stores.let_expire()
    await browser.sign_in(await stores.now(ann))


# --- how long ---------------------------------------------------------------------------------------------------------


async def test_a_tenant_may_have_lifetimes_of_its_own(
    ann: User, people: LocalUsers, clock: ManualClock, stores: Stores
) -> None:
    carl = await people.add("carl", PASSWORD, tenant="short")
    dora = await people.add("dora", PASSWORD, tenant="long")
    tenants = {"short": Lifetimes(600.0, 1800.0, 1), "long": Lifetimes(2 * HOUR, 48 * HOUR, 5)}
    sessions = await stores.sessions(terms=replace(TERMS, tenants=tenants))
    browser = Browser(sessions, clock)
    first, _ = await browser.sign_in(carl)
    carls, _ = await browser.sign_in(carl)
    assert await sessions.find(first) is None
    anns, doras = (await browser.sign_in(ann))[0], (await browser.sign_in(dora))[0]

    clock.advance(601)
    assert [await sessions.find(token) is not None for token in (carls, anns, doras)] == [False, True, True]
    assert (await sessions.stats())["sessions"] == 2
    carls, _ = await browser.sign_in(carl)
    for _ in range(3):
        clock.advance(599)
        assert await sessions.find(carls) is not None
        await sessions.refresh()
    clock.advance(30)
    assert await sessions.find(carls) is None

    clock.advance(HOUR + 1)
    assert await sessions.find(anns) is None
    assert await sessions.find(doras) is not None
    await sessions.refresh()
    clock.advance(25 * HOUR)
    assert await sessions.find(doras) is None
    _, identity = await browser.sign_in(dora)
    assert identity.session is not None
    assert identity.session.expires_at - identity.session.created_at == pytest.approx(48 * HOUR)


async def test_the_longest_pause_since_the_last_proof_is_known(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, stores: Stores
) -> None:
    token, identity = await browser.sign_in(ann)

    async def rested(where: Sessions = sessions) -> float:
        found = await where.find(token)
        assert found is not None
        assert found.session is not None
        return round(found.session.rested)

    assert identity.session is not None
    assert identity.session.rested == 0
    assert await rested() == 0
    for pause, longest in ((20, 20), (10, 20), (30, 30), (900, 900), (59, 900)):
        clock.advance(pause)
        assert await rested() == longest
        await sessions.refresh()
    clock.advance(60)
    await rested()
    await sessions.refresh()
    assert await rested(await stores.replica()) == 900
    token, proven = await browser.step_up(token)
    assert proven.session is not None
    assert proven.session.rested == 0
    assert await rested() == 0


async def test_a_pause_here_is_none_where_another_replica_has_served_them(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, stores: Stores
) -> None:
    token, _ = await browser.sign_in(ann)
    other = await stores.replica()
    await sessions.find(token)
    for _ in range(20):
        clock.advance(61)
        assert await other.find(token) is not None
        await other.refresh()
    found = await sessions.find(token)
    assert found is not None
    assert found.session is not None
    assert 61 <= found.session.rested < 123


async def test_who_is_near_costs_one_object_until_they_pause(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock
) -> None:
    token, _ = await browser.sign_in(ann)
    found = await sessions.find(token)
    for _ in range(5):
        clock.advance(0.9)
        assert sessions.near(token) is found
    clock.advance(5)
    rested = sessions.near(token)
    assert rested is not found
    clock.advance(5)
    assert sessions.near(token) is rested


# --- looking through --------------------------------------------------------------------------------------------------


async def test_who_reads_through_sees_at_once_what_others_ended(
    sessions: Sessions, browser: Browser, ann: User, stores: Stores
) -> None:
    token, identity = await browser.sign_in(ann)
    other = await stores.replica()
    await other.find(token)
    assert await other.read(token) is not None
    assert identity.session is not None
    await sessions.end("default", ann.subject, identity.session.id)
    assert await other.read(token) is None
    assert other.near(token) is None


async def test_who_reads_through_is_written_no_more_often(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock
) -> None:
    token, _ = await browser.sign_in(ann)
    await sessions.refresh()
    for second in range(1, 60):
        clock.advance(1)
        assert await sessions.read(token) is not None
        await sessions.refresh()
        (listed,) = await sessions._store.list("default", ann.subject)
        assert round(listed.pause) == second
    clock.advance(1)
    await sessions.read(token)
    await sessions.refresh()
    (listed,) = await sessions._store.list("default", ann.subject)
    assert round(listed.pause) == 0


async def test_ending_everything_raises_the_generation_that_voids_what_was_before(
    sessions: Sessions, browser: Browser, ann: User, people: LocalUsers, stores: Stores
) -> None:
    mine, identity = await browser.sign_in(ann)
    assert identity.session is not None
    generations = [await stores.generation(ann)]
    await sessions.end_all("default", ann.subject, but=identity.session.id)
    generations.append(await stores.generation(ann))
    assert await sessions.find(mine) is not None
    assert await (await stores.replica()).find(mine) is not None
    await people.set_password("ann", "another horse battery")
    generations.append(await stores.generation(ann))
    assert await sessions.find(mine) is None
    await people.disable("ann")
    generations.append(await stores.generation(ann))
    assert generations == sorted(set(generations))
    await people.enable("ann")
    assert await stores.generation(ann) == generations[-1]
    token, _ = await browser.sign_in(await stores.now(ann))
    assert await (await stores.replica()).find(token) is not None


@pytest.mark.parametrize("how", ["password", "end_all", "disabled and enabled"])
async def test_what_was_shown_before_everything_ended_opens_nothing(
    sessions: Sessions, browser: Browser, ann: User, people: LocalUsers, stores: Stores, how: str
) -> None:
    """Case 81: whoever signs in again and again with a password that is known to them is being compared with the old
    hash when it is changed."""
    shown = await people.verify("ann", PASSWORD)
    assert shown is not None
    if how == "password":
        await people.set_password("ann", "another horse battery")
    elif how == "end_all":
        await sessions.end_all("default", ann.subject)
    else:
        await people.disable("ann")
        await people.enable("ann")
    with pytest.raises(UserError) as refused:
        await browser.sign_in(shown)
    assert refused.value.code == "ERR-SIGN-IN"
    assert await sessions.list("default", ann.subject) == []
    token, _ = await browser.sign_in(await stores.now(ann))
    assert await sessions.find(token) is not None


async def test_who_ends_the_sessions_of_others_is_named(
    sessions: Sessions, browser: Browser, ann: User, ledger: Remembered
) -> None:
    _, first = await browser.sign_in(ann)
    await browser.sign_in(ann)
    assert first.session is not None
    await sessions.end("default", ann.subject, first.session.id, by="root")
    await sessions.end_all("default", ann.subject, by="root")
    await sessions.end_all("default", ann.subject, by="root")
    told = [(event.kind, event.user, event.detail) for event in ledger.events]
    assert told[-3:] == [
        (Kind.SESSION_ENDED, "ann", {"why": "ended", "by": "root"}),
        (Kind.SESSIONS_ENDED, "ann", {"count": 1, "by": "root"}),
        (Kind.SESSIONS_ENDED, "ann", {"count": 0, "by": "root"}),
    ]


async def test_what_is_owed_is_asked_whenever_a_session_is_looked_up(
    stores: Stores, ann: User, bob: User, clock: ManualClock
) -> None:
    """And what another process says of somebody is seen with the next look."""
    demands = Demands(stores.records, clock, Remembered(), [Demand(groups=frozenset({"admins"}))])
    here = await stores.sessions(dues=demands)
    proof = Proof("password", clock.now())
    token, identity = await here.open(ann, proof, address="192.0.2.1", agent="test")
    assert identity.enrol_by == 0.0
    assert await here.find(token) == identity
    token, proven = await here.prove(token, Proof("totp", clock.now()))
    assert (await here.extend(token)).enrol_by == proven.enrol_by == 0.0
    again = await here.again(proven)
    assert again is not None
    assert again.enrol_by == 0.0

    token, identity = await here.open(bob, proof, address="192.0.2.1", agent="test")
    await here.refresh()
    assert (await here.find(token), identity.enrol_by) == (identity, NEVER)
    elsewhere = await Records.open(stores.records.place, clock=clock)
    said = Demands(elsewhere, clock, Remembered())
    await said.require(bob.tenant, bob.subject, user="bob", at=clock.now() + 5.0, by="ann")
    near = here.near(token)
    assert near is not None
    assert near.enrol_by == NEVER
    await here.refresh()
    found = await here.find(token)
    assert found is not None
    assert (found.required_from, found.enrol_by) == (clock.now() + 5.0, clock.now() + 5.0)
    await said.lift(bob.tenant, bob.subject, user="bob", by="ann")
    await here.refresh()
    assert await here.find(token) == identity
    await elsewhere.close()
