"""Sessions in Redis: what holds there alone. Real servers, several replicas on connections of their own."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import update

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway, UserError
from gateway.core.identity import Proof
from gateway.crypto.sealing import Sealer
from gateway.crypto.tokens import digest
from gateway.identity.local import LocalUsers
from gateway.identity.session_keys import SessionKeys
from gateway.identity.session_store import Lifetimes, Terms
from gateway.identity.sessions import Sessions
from gateway.identity.users import User
from gateway.store.redis import Redis
from gateway.store.redis_where import Where
from gateway.store.tables import users
from tests.identity.conftest import PASSWORD, Browser, over
from tests.rig.awake import Awake
from tests.rig.faulty import before
from tests.rig.ledger import Remembered
from tests.rig.redis import Server, a_server, until, watched
from tests.rig.sessions import HOUR, MASTER, PATIENT, TERMS, Stores, Timed, settled

pytestmark = over("redis")


def keys(server: Server, pattern: str = "*") -> list[str]:
    return sorted(server.ask("KEYS", pattern).split())


def calls(server: Server) -> int:
    """Commands the server has been asked, but for the one that asks."""
    stats = server.ask("INFO", "commandstats").splitlines()
    return sum(
        int(line.split("calls=")[1].split(",")[0])
        for line in stats
        if line.startswith("cmdstat_") and not line.startswith(("cmdstat_info", "cmdstat_ping"))
    )


# --- what is stored ---------------------------------------------------------------------------------------------------


async def test_what_is_stored_says_nothing_and_signs_nobody_in(
    browser: Browser, ann: User, redis_server: Server, stores: Stores
) -> None:
    """Case 78."""
    token, identity = await browser.sign_in(ann)
    assert identity.session is not None
    (name,) = keys(redis_server, "*session:*")
    stored = await (await stores.redis()).execute("GET", name)
    for secret in (token, ann.subject, identity.session.id, "192.0.2.1", "password"):
        assert secret not in name
        assert secret.encode() not in stored
    for name in keys(redis_server):
        assert token not in name
        assert int(redis_server.ask("PTTL", name)) > 0, f"{name} stays for ever"


async def test_a_token_says_alone_where_its_session_is(browser: Browser, people: LocalUsers) -> None:
    """In the slot of its user, so that one script can change everything of theirs, on a cluster as well."""
    store = browser.sessions._store
    for number in range(8):
        user = await people.add(f"user{number}", PASSWORD)
        token, _ = await browser.sign_in(user)
        assert digest(token)[0] >> 4 == store.slot(user.tenant, user.subject)
        fresh, _ = await browser.step_up(token)
        assert digest(fresh)[0] >> 4 == store.slot(user.tenant, user.subject)


async def test_who_can_write_there_makes_nobody_anybody(
    sessions: Sessions, browser: Browser, ann: User, bob: User, redis_server: Server, stores: Stores
) -> None:
    anns, _ = await browser.sign_in(ann)
    bobs, _ = await browser.sign_in(bob)
    redis = await stores.redis()
    store = sessions._store
    assert isinstance(store, SessionKeys)

    async def put(token: str, value: bytes) -> None:
        await redis.execute("SET", store._record(digest(token)), value, "PX", 100_000)

    good = await redis.execute("GET", store._record(digest(anns)))
    yours = await redis.execute("GET", store._record(digest(bobs)))
    own = "A" * 43
    forged = Sealer([b"\x01" * 32]).seal(b"[1,{}]", table="sessions", column="value", row="x")
    for token, value in (
        (bobs, good),  # another's record under one's own token
        (own, good),  # or under a token of one's choice
        (bobs, yours[:24] + good[24:]),
        (anns, good[:-1] + bytes([good[-1] ^ 1])),
        (anns, b"x" * 24 + good[24:]),
        (anns, good[:30]),
        (own, b""),
        (own, good[:24] + forged),
        (own, good[:24] + b'[1,"default","' + ann.subject.encode() + b'"]'),
    ):
        await put(token, value)
        assert await (await stores.replica()).find(token) is None, value
        await put(anns, good)
        await put(bobs, yours)
    assert await sessions.find(anns) is not None

    await put(anns, b"99999999999999" + good[14:])  # seen in the future: as if now, and no longer than it lives
    found = await (await stores.replica()).find(anns)
    assert found is not None
    assert found.user == "ann"


async def test_what_an_older_master_key_has_sealed_opens_and_what_a_lost_one_has_is_unknown(
    browser: Browser, ann: User, clock: ManualClock, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    token, _ = await browser.sign_in(ann)

    async def with_keys(*masters: bytes) -> Sessions:
        store = SessionKeys(await stores.redis(), stores.records, Sealer(masters), TERMS)
        return Sessions(store, stores.records, clock, Remembered(), TERMS)

    rotated = await with_keys(b"\x08" * 32, MASTER)
    assert await rotated.find(token) is not None
    fresh, _ = await rotated.prove(token, Proof("totp", clock.now()))
    assert await (await with_keys(b"\x08" * 32)).find(fresh) is not None
    with caplog.at_level(logging.WARNING):
        assert await (await with_keys(b"\x09" * 32)).find(fresh) is None
    assert "believed by nobody" in caplog.text
    assert fresh not in caplog.text


async def test_a_session_lives_in_redis_no_longer_than_it_may(
    ann: User, stores: Stores, redis_server: Server, clock: ManualClock
) -> None:
    """By Redis's own clock: the idle time, what may not be written yet, and the absolute end."""
    idle = await stores.replica(terms=Terms(Lifetimes(600.0, 86_400.0, 5), grace=10.0))
    token, _ = await Browser(idle, clock).sign_in(ann)

    def ttl() -> float:
        (name,) = keys(redis_server, "*session:*")
        return int(redis_server.ask("PTTL", name)) / 1000

    assert 725 < ttl() <= 600 + 2 * 60 + 10
    clock.advance(500)
    assert await idle.find(token) is not None
    await idle.refresh()
    assert 725 < ttl() <= 730
    redis_server.ask("FLUSHALL")
    absolute = await stores.replica(terms=Terms(Lifetimes(600.0, 700.0, 5)))
    token, _ = await Browser(absolute, clock).sign_in(ann)
    assert 695 < ttl() <= 700
    clock.advance(400)
    assert await absolute.find(token) is not None
    await absolute.refresh()
    assert 295 < ttl() <= 300


async def test_redis_ends_sessions_by_its_own_clock(ann: User, stores: Stores, awake: Awake) -> None:
    """With nobody's hands on it: a real server, a real second."""
    redis = await Redis.open(stores.where, clock=stores.clock)  # type: ignore[arg-type]
    try:
        terms = Terms(Lifetimes(0.5, 1.0, 5), grace=0.1)
        store = SessionKeys(redis, stores.records, Sealer([MASTER]), terms)
        sessions = Sessions(store, stores.records, stores.clock, Remembered(), terms)
        browser = Browser(sessions, stores.clock)
        token, _ = await browser.sign_in(ann)
        was_awake = awake.now()
        began = seen = time.monotonic()
        longest = 0.0
        while await sessions.read(token) is not None:
            await sessions.refresh()  # writes that it was seen: only the absolute end is left
            longest, seen = max(longest, time.monotonic() - seen), time.monotonic()
            await asyncio.sleep(0.05)
        over = time.monotonic()
        stood_still = max(longest, over - seen) > 0.4  # then it may have ended for want of being seen
        assert over - began > 0.8 or stood_still
        assert awake.now() - was_awake < 2.5
        token, _ = await browser.sign_in(ann)
        async with asyncio.timeout(5):
            while (await sessions.stats())["sessions"]:
                await asyncio.sleep(0.05)
        assert await sessions.read(token) is None
    finally:
        await redis.close()


async def test_clocks_of_replicas_that_disagree_change_nothing(ann: User, clock: ManualClock, stores: Stores) -> None:
    early, late = ManualClock(), ManualClock()
    early.jump(-5)
    late.jump(5)
    replicas = [await stores.replica(clock=early), await stores.replica(clock=late)]
    token, identity = await Browser(replicas[0], early).sign_in(ann)
    assert identity.session is not None
    for _ in range(5):
        for hands in (clock, early, late):
            hands.advance(HOUR - 1)
        for replica in replicas:
            found = await replica.find(token)
            assert found is not None
            assert found.session is not None
            assert found.session.created_at == identity.session.created_at
            await replica.refresh()
    for hands in (clock, early, late):
        hands.advance(HOUR)
    for replica in replicas:
        assert await replica.find(token) is None


# --- revocation -------------------------------------------------------------------------------------------------------


async def test_what_is_ended_is_forgotten_by_every_replica_that_hears_of_it(
    sessions: Sessions, browser: Browser, ann: User, bob: User, stores: Stores, clock: ManualClock
) -> None:
    """Case 81: without a look at the store, without waiting for the next second."""
    replicas = [await stores.replica() for _ in range(2)]
    for replica in replicas:
        await heard(replica)
        await replica.refresh()
    for how in ("end", "end_all", "prove", "replaced", "too_many"):
        token, identity = await browser.sign_in(await stores.now(ann))
        theirs, _ = await browser.sign_in(bob)
        for replica in replicas:
            await settled(replica, token)
            await settled(replica, theirs)
        assert identity.session is not None
        match how:
            case "end":
                await sessions.end("default", ann.subject, identity.session.id)
            case "end_all":
                await sessions.end_all("default", ann.subject)
            case "prove":
                await browser.step_up(token)
            case "replaced":
                await browser.sign_in(bob, replacing=token)
            case _:
                clock.advance(1)
                for _ in range(5):
                    await browser.sign_in(await stores.now(ann))
        for replica in replicas:
            await until(partial(unknown, replica, token), 1.0)
            assert await replica.find(token) is None
            if how not in ("replaced",):
                assert replica.near(theirs) is not None, "somebody else was forgotten"


async def test_a_message_that_is_lost_is_noticed_by_the_next_look(
    sessions: Sessions, browser: Browser, ann: User, bob: User, stores: Stores
) -> None:
    """The bound when pub/sub loses one: a look each second, and a second until it."""
    deaf, hearing = await stores.replica(), await stores.replica()
    await heard(deaf)
    await heard(hearing)
    await deaf.refresh()
    token, identity = await browser.sign_in(ann)
    theirs, _ = await browser.sign_in(bob)
    await deaf.refresh()
    await settled(deaf, token)
    await settled(deaf, theirs)
    await settled(hearing, token)
    await deaf.refresh()
    assert deaf.near(token) is not None
    assert isinstance(deaf._store, SessionKeys)
    deaf._store._redis._ear._topics.clear()  # it listens, and hears nothing any more
    assert identity.session is not None
    await sessions.end("default", ann.subject, identity.session.id)
    await until(partial(unknown, hearing, token))
    assert deaf.near(token) is not None
    await deaf.refresh()
    assert deaf.near(token) is None
    assert await deaf.find(token) is None
    same = sessions._store.slot("default", ann.subject) == sessions._store.slot("default", bob.subject)
    assert (deaf.near(theirs) is None) == same, "only that slot is forgotten"


async def test_a_subscription_that_was_broken_is_not_trusted(
    sessions: Sessions, browser: Browser, ann: User, stores: Stores, redis_server: Server
) -> None:
    replica = await stores.replica()
    await heard(replica)
    await replica.refresh()
    token, identity = await browser.sign_in(ann)
    await settled(replica, token)
    assert isinstance(replica._store, SessionKeys)
    redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    assert identity.session is not None
    await sessions.end("default", ann.subject, identity.session.id)
    await replica.refresh()
    assert replica.near(token) is None
    assert await replica.find(token) is None


async def test_who_is_near_asks_no_store(
    sessions: Sessions, browser: Browser, ann: User, clock: ManualClock, redis_server: Server
) -> None:
    token, _ = await browser.sign_in(ann)
    assert await sessions.find(token) is not None
    before = calls(redis_server)
    for _ in range(1000):
        assert sessions.near(token) is not None
        assert await sessions.find(token) is not None
    assert calls(redis_server) == before
    clock.advance(1)
    await sessions.refresh()
    assert calls(redis_server) == before + 16  # the revisions, once a second
    other = "B" * 43
    assert await sessions.find(other) is None
    looked_up = calls(redis_server)
    for _ in range(100):
        assert await sessions.find(other) is None
    assert calls(redis_server) == looked_up


async def test_a_lookup_is_one_round_trip(browser: Browser, ann: User, stores: Stores, redis_server: Server) -> None:
    token, _ = await browser.sign_in(ann)
    replica = await stores.replica()
    await replica.find("C" * 43)  # the script is known from here on
    before = evaluations(redis_server)
    assert await replica.find(token) is not None
    assert evaluations(redis_server) == before + 1


async def test_what_was_seen_is_written_in_batches(
    sessions: Sessions, browser: Browser, people: LocalUsers, clock: ManualClock, redis_server: Server
) -> None:
    users = [await people.add(f"user{number}", PASSWORD) for number in range(6)]
    tokens = [(await browser.sign_in(user))[0] for user in users for _ in range(5)]
    await sessions.refresh()
    for token in tokens:
        assert await sessions.find(token) is not None
    for _ in range(59):
        clock.advance(1)
        assert all(sessions.near(token) for token in tokens)
    await sessions.refresh()
    before = evaluations(redis_server)
    clock.advance(1)
    assert all(sessions.near(token) for token in tokens)
    await sessions.refresh()
    places = {sessions._store.slot("default", user.subject) for user in users}
    assert evaluations(redis_server) - before == len(places)


# --- generation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["disable", "password", "end_all"])
async def test_everything_ends_also_where_redis_cannot_be_told(
    browser: Browser, ann: User, bob: User, people: LocalUsers, stores: Stores, clock: ManualClock, how: str
) -> None:
    token, _ = await browser.sign_in(ann)
    theirs, _ = await browser.sign_in(bob)
    assert stores.where is not None
    with before(stores.where.addresses[0].port) as proxy:
        cut_off = await stores.replica(where=patient(f"redis://127.0.0.1:{proxy.port}"))
        other = await stores.replica()
        for replica in (cut_off, other):
            await heard(replica)
            await replica.refresh()
            await settled(replica, token)
            await settled(replica, theirs)
        proxy.begin("refused")
        if how == "end_all":
            assert await cut_off.end_all("default", ann.subject) == 0
        elif how == "disable":
            await people.disable("ann")
        else:
            await people.set_password("ann", "another horse battery")
        if how != "end_all":
            await cut_off.refresh()
        assert cut_off.near(token) is None, "who was ended goes on where Redis is away"
        assert cut_off.near(theirs) is not None, "who was not ended has no grace"
        with pytest.raises(StoreAway):
            await cut_off.find(token)
        await other.refresh()
        assert other.near(token) is None
        assert await other.find(token) is None
        assert await other.find(theirs) is not None
        if how == "disable":
            await people.enable("ann")
            assert await other.find(token) is None
            assert await other.list("default", ann.subject) == []
        else:
            mine, _ = await Browser(other, clock).sign_in(await stores.now(ann))
            assert [session.user for session in [await other.find(mine)] if session] == ["ann"]
            assert len(await other.list("default", ann.subject)) == 1


async def test_a_failover_that_loses_an_end_of_everything_revives_nothing(
    sessions: Sessions, browser: Browser, ann: User, stores: Stores, redis_server: Server
) -> None:
    """Replicas of Redis lag behind; what they have not heard of when they take over never was."""
    token, _ = await browser.sign_in(ann)
    redis = await stores.redis()
    kept = {name: await redis.execute("DUMP", name) for name in keys(redis_server)}
    assert kept
    await sessions.end_all("default", ann.subject)
    for name, dump in kept.items():
        await redis.execute("RESTORE", name, 0, dump, "REPLACE")
    replica = await stores.replica()
    assert await replica.find(token) is None
    assert await replica.list("default", ann.subject) == []
    with pytest.raises(UserError, match="ERR-SESSION-ENDED"):
        await replica.prove(token, Proof("totp", 0.0))


async def test_records_older_than_a_session_make_it_void(
    sessions: Sessions, browser: Browser, ann: User, people: LocalUsers, stores: Stores
) -> None:
    """A backup was put back: nobody knows any more what was ended after it was made."""
    await people.set_password("ann", "another horse battery")
    token, _ = await browser.sign_in(await stores.now(ann))
    assert await sessions.find(token) is not None
    async with stores.records.begin() as connection:
        await connection.execute(update(users).values(generation=0))
        await stores.records.bump(connection)
    assert await sessions.find(token) is None
    await people.set_password("ann", "one more horse battery")
    assert await sessions.find(token) is None


async def test_revisions_that_went_back_are_noticed(
    sessions: Sessions, browser: Browser, ann: User, stores: Stores
) -> None:
    replica = await stores.replica()
    await heard(replica)
    token, _ = await browser.sign_in(ann)
    await replica.refresh()
    await settled(replica, token)
    store = replica._store
    assert isinstance(store, SessionKeys)
    slot = store.slot("default", ann.subject)
    redis = await stores.redis()
    await redis.execute("SET", store._key(slot, "revision"), 7, "PX", 10_000)
    await replica.refresh()
    assert replica.near(token) is None


# --- away -------------------------------------------------------------------------------------------------------------


async def test_while_redis_is_away_who_is_known_goes_on_for_the_grace_and_nobody_else(
    ann: User, clock: ManualClock, stores: Stores
) -> None:
    """Case 83."""
    assert stores.where is not None
    with before(stores.where.addresses[0].port) as proxy:
        sessions = await stores.replica(where=patient(f"redis://127.0.0.1:{proxy.port}"))
        browser = Browser(sessions, clock)
        token, _ = await browser.sign_in(ann)
        strange, _ = await browser.sign_in(ann)
        await heard(sessions)
        await sessions.refresh()
        await settled(sessions, token)
        proxy.begin("refused")
        clock.advance(1)
        await sessions.refresh()  # the line tells that it is away, not we
        assert sessions.near(token) is not None
        for unknown in (strange, "D" * 43):
            with pytest.raises(StoreAway):
                await sessions.find(unknown)
        with pytest.raises(StoreAway):
            await sessions.read(token)  # nothing is forgiven to who reads through
        with pytest.raises(StoreAway):
            await browser.step_up(token)
        with pytest.raises(StoreAway):
            await browser.sign_in(ann)
        clock.advance(8)
        await sessions.refresh()
        assert sessions.near(token) is not None
        clock.advance(1)
        await sessions.refresh()
        assert sessions.near(token) is None
        with pytest.raises(StoreAway):
            await sessions.find(token)
        proxy.end()
        await until(lambda: sessions._store._redis.line.up)  # type: ignore[attr-defined]
        assert await sessions.find(token) is not None


async def test_a_pause_in_the_grace_is_forgiven_too(ann: User, clock: ManualClock, stores: Stores) -> None:
    assert stores.where is not None
    with before(stores.where.addresses[0].port) as proxy:
        terms = replace(TERMS, grace=120.0)
        sessions = await stores.replica(where=patient(f"redis://127.0.0.1:{proxy.port}"), terms=terms)
        token, _ = await Browser(sessions, clock).sign_in(ann)
        await heard(sessions)
        await sessions.refresh()
        await settled(sessions, token)
        proxy.begin("refused")
        clock.advance(100)
        found = await sessions.find(token)
        assert found is not None
        assert found.session is not None
        assert found.session.rested == 100
        clock.advance(21)
        await sessions.refresh()
        with pytest.raises(StoreAway):
            await sessions.find(token)


async def test_without_grace_nobody_is_known_from_the_moment_redis_is_away(
    ann: User, clock: ManualClock, stores: Stores
) -> None:
    assert stores.where is not None
    with before(stores.where.addresses[0].port) as proxy:
        terms = replace(TERMS, grace=0.0)
        sessions = await stores.replica(where=patient(f"redis://127.0.0.1:{proxy.port}"), terms=terms)
        token, _ = await Browser(sessions, clock).sign_in(ann)
        await heard(sessions)
        await sessions.refresh()
        await settled(sessions, token)
        proxy.begin("silent")
        await sessions.refresh()
        assert sessions.near(token) is None
        with pytest.raises(StoreAway):
            await sessions.find(token)


async def test_what_was_seen_while_redis_was_away_is_written_when_it_is_back(
    ann: User, clock: ManualClock, stores: Stores
) -> None:
    assert stores.where is not None
    with before(stores.where.addresses[0].port) as proxy:
        terms = replace(TERMS, grace=600.0)
        sessions = await stores.replica(where=patient(f"redis://127.0.0.1:{proxy.port}"), terms=terms)
        token, _ = await Browser(sessions, clock).sign_in(ann)
        await heard(sessions)
        await sessions.refresh()
        await settled(sessions, token)
        proxy.begin("refused")
        for _ in range(7):
            clock.advance(30)
            assert await sessions.find(token) is not None
            await sessions.refresh()
        proxy.end()
        await until(lambda: sessions._store._redis.line.up)  # type: ignore[attr-defined]
        await sessions.refresh()
        (found,) = await (await stores.replica())._store.list("default", ann.subject)
        assert found.pause < 1


async def test_a_redis_that_forgot_everything_signs_everybody_out(
    ann: User, clock: ManualClock, stores: Stores
) -> None:
    """And lets nobody in by what is near, once it is noticed."""
    with a_server() as server:
        sessions = await stores.replica(where=patient(server.url))
        token, _ = await Browser(sessions, clock).sign_in(ann)
        await heard(sessions)
        await sessions.refresh()
        await settled(sessions, token)
        server.restart()
        await sessions.refresh()
        await until(lambda: sessions._store._redis.line.up)  # type: ignore[attr-defined]
        await sessions.refresh()
        assert sessions.near(token) is None
        assert await sessions.find(token) is None


async def test_sessions_survive_a_failover_and_what_was_ended_stays_so(
    ann: User, clock: ManualClock, stores: Stores
) -> None:
    with watched() as servers:
        sessions = await stores.replica(where=replace(servers.where, deadline=PATIENT))
        browser = Browser(sessions, clock)
        kept, _ = await browser.sign_in(ann)
        over_, identity = await browser.sign_in(ann)
        await sessions.refresh()
        await settled(sessions, over_)
        assert identity.session is not None
        await sessions.end("default", ann.subject, identity.session.id)
        first = servers.master()
        assert first.ask("WAIT", "1", "1000") == "1"
        first.kill()
        began = asyncio.get_running_loop().time()
        while True:
            try:
                assert await sessions.read(kept) is not None
                break
            except StoreAway:
                assert asyncio.get_running_loop().time() - began < 20
                await asyncio.sleep(0.05)
        assert servers.master() is not first
        assert await sessions.read(over_) is None
        await sessions.refresh()
        assert len(await sessions.list("default", ann.subject)) == 1
        await browser.sign_in(ann)


def patient(url: str) -> Where:
    """A Redis that has time to answer: what is tested is not how soon it is given up."""
    return replace(Where.parse(url), deadline=PATIENT)


async def heard(replica: Sessions) -> None:
    """Wait until it listens."""
    store = replica._store
    assert isinstance(store, SessionKeys)
    assert isinstance(store._redis, Timed)
    await asyncio.wait_for(store._redis.hears.wait(), 5)


def unknown(replica: Sessions, token: str) -> bool:
    return replica.near(token) is None


def evaluations(server: Server) -> int:
    """Scripts that were run."""
    number = 0
    for line in server.ask("INFO", "commandstats").splitlines():
        name, _, told = line.partition(":")
        if name in ("cmdstat_eval", "cmdstat_evalsha"):
            stats = dict(each.split("=") for each in told.split(","))
            number += int(stats["calls"]) - int(stats["failed_calls"])
    return number
