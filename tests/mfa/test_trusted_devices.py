"""Trusted browsers: what is kept, what a use exchanges, how a copy betrays itself; on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind, Place, Severity
from gateway.core.identity import DEFAULT_TENANT, TRUSTED_DEVICE, Proof
from gateway.crypto.tokens import digest
from gateway.identity.session_rows import revoke
from gateway.mfa import trusted_devices as module
from gateway.mfa.trusted_devices import GONE, GRACE, NOTHING, TrustedDevices, Used
from gateway.store.place import Place as Where
from gateway.store.sql import Records
from gateway.store.tables import trusted_devices, users
from tests.mfa.conftest import NOW, somebody
from tests.rig.ledger import Remembered

DAY = 86400.0


class Trust:
    """Trusted browsers over one database, and what came of them."""

    def __init__(self, records: Records, clock: ManualClock, *, lifetime: float = 30 * DAY, most: int = 10) -> None:
        self.records = records
        self.clock = clock
        self.ledger = Remembered()
        self.ended: list[str] = []
        self.counted: list[str] = []

        self.away = False

        async def end(connection: AsyncConnection, tenant: str, subject: str, ids: Sequence[str]) -> Sequence[str]:
            if self.away:
                raise StoreAway("no answer")
            self.ended += ids
            return ids

        self.devices = TrustedDevices(
            records, clock, self.ledger, end, lifetime=lifetime, most=most, count=self.counted.append
        )

    async def trust(
        self, name: str = "ann", replacing: str = "", agent: str = "Firefox", browser: str = "browser-1"
    ) -> str:
        who = somebody(name)
        generation = await self.devices.generation(who.tenant, who.subject)
        place = Place("192.0.2.1", agent)
        cookie = await self.devices.trust(who, generation, replacing=replacing, browser=browser, place=place)
        assert cookie is not None
        return cookie

    async def use(self, cookie: str, browser: str = "browser-1", name: str = "ann", session: str = "s1") -> Used:
        place = Place("192.0.2.2", f"used by {session}")
        return await self.devices.use(somebody(name, session=session), cookie, browser, place)

    async def list(self, name: str = "ann", cookie: str = "") -> list[str]:
        return [one.agent for one in await self.devices.list(DEFAULT_TENANT, f"s-{name}", cookie)]


@pytest.fixture
def trust(records: Records, clock: ManualClock) -> Trust:
    return Trust(records, clock)


async def test_each_use_gives_another_token_and_the_time_the_factor_was_shown(trust: Trust, clock: ManualClock) -> None:
    cookie = await trust.trust()
    clock.advance(DAY)
    first = await trust.use(cookie)
    assert first.proof == Proof(TRUSTED_DEVICE, NOW)
    assert first.cookie not in (None, "", cookie)
    assert first.left == 29 * DAY
    clock.advance(DAY)
    second = await trust.use(first.cookie or "")
    assert second.proof == Proof(TRUSTED_DEVICE, NOW), "a use prolongs nothing"
    assert second.left == 28 * DAY
    assert len({cookie, first.cookie, second.cookie}) == 3
    assert trust.counted == ["used", "used"]
    used = trust.ledger.of(Kind.TRUSTED_DEVICE_USED)
    assert [(event.severity, event.session, event.address) for event in used] == [
        (Severity.INFO, "s1", "192.0.2.2")
    ] * 2


async def test_only_digests_are_kept(trust: Trust) -> None:
    cookie = await trust.trust()
    cookies = [cookie, (await trust.use(cookie)).cookie or ""]
    async with trust.records.read() as connection:
        row = (await connection.execute(select(trusted_devices))).one()
    series = cookie.split(".")[0]
    assert (row.series, row.digest) == (digest(series), digest(cookies[1].split(".")[1]))
    kept = repr(tuple(row))
    assert not any(part in kept for one in cookies for part in one.split("."))
    assert "Used(left=" in repr(Used("secret", 1))
    assert "secret" not in repr(Used("secret", 1))


async def test_a_stolen_cookie_used_by_the_thief_first(trust: Trust, clock: ManualClock) -> None:
    """The owner comes with the spent token: the thief's session ends, what the thief was given opens nothing."""
    cookie = await trust.trust()
    thief = await trust.use(cookie, "thief", session="thief's")
    assert thief.proof is not None
    clock.advance(DAY)
    owner = await trust.use(cookie, "owner", session="owner's")
    assert owner == GONE
    assert trust.ended == ["thief's"]
    [alarm] = trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)
    assert (alarm.severity, alarm.user, alarm.session) == (Severity.ALARM, "ann", "owner's")
    assert alarm.detail["last_address"] == "192.0.2.2"
    assert (await trust.use(thief.cookie or "", "thief")).proof is None
    assert await trust.list() == []
    assert trust.counted == ["used", "stolen", "void"]


async def test_a_stolen_cookie_used_by_the_owner_first(trust: Trust) -> None:
    """At the same moment, from another browser: no grace."""
    cookie = await trust.trust()
    owner = await trust.use(cookie, "owner", session="owner's")
    assert await trust.use(cookie, "thief", session="thief's") == GONE
    assert trust.ended == ["owner's"]
    assert len(trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)) == 1
    assert (await trust.use(owner.cookie or "", "owner")).proof is None


@pytest.mark.parametrize("how", ["stolen", "revoked"])
async def test_nothing_is_forgotten_before_its_sessions_have_ended(trust: Trust, how: str) -> None:
    """Else nobody would know any more which sessions they were, and who has them would keep them."""
    cookie = await trust.trust()
    await trust.use(cookie, "thief", session="thief's")
    me = somebody(session="me")

    async def again() -> object:
        return await (trust.use(cookie, "owner", session="me") if how == "stolen" else trust.devices.revoke(me))

    trust.away = True
    with pytest.raises(StoreAway):
        await again()
    assert await trust.list() == ["used by thief's"]
    trust.away = False
    await again()
    assert trust.ended == ["thief's"]
    assert await trust.list() == []
    told = [event.kind for event in trust.ledger.events[-2:]]
    assert told == [Kind.SESSION_ENDED, Kind.TRUSTED_DEVICE_STOLEN if how == "stolen" else Kind.TRUSTED_DEVICE_REVOKED]


@pytest.mark.parametrize("what", ["trusted", "stolen", "revoked"])
async def test_what_nobody_could_be_told_of_has_not_happened(what: str, trust: Trust) -> None:
    """A gateway is stopped between the change and its event: there would be no alarm of a copy, and nothing left."""
    cookie = "" if what == "trusted" else await trust.trust()
    if what == "stolen":
        await trust.use(cookie, "thief", session="thief's")
    before, told = await trust.list(), list(trust.ledger.events)

    async def go_on() -> object:
        if what == "trusted":
            return await trust.trust()
        return await (trust.use(cookie, "owner") if what == "stolen" else trust.devices.revoke(somebody()))

    with trust.ledger.stopped():
        await go_on()
    assert (await trust.list(), trust.ledger.events) == (before, told)
    await go_on()
    assert len(await trust.list()) == (what == "trusted")
    kind = {"trusted": "TRUSTED_DEVICE_ADDED", "stolen": "TRUSTED_DEVICE_STOLEN", "revoked": "TRUSTED_DEVICE_REVOKED"}
    assert len(trust.ledger.of(Kind[kind[what]])) == 1


async def test_any_older_token_is_known_for_what_it_is(trust: Trust, clock: ManualClock) -> None:
    oldest = cookie = await trust.trust()
    for _ in range(5):
        cookie = (await trust.use(cookie)).cookie or ""
        clock.advance(DAY)
    assert await trust.use(oldest) == GONE
    assert len(trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)) == 1


async def test_an_answer_that_was_lost_is_given_again_for_a_while(trust: Trust, clock: ManualClock) -> None:
    cookie = await trust.trust()
    lost = await trust.use(cookie, session="lost")
    clock.advance(GRACE)
    again = await trust.use(cookie, session="again")
    assert (again.cookie, again.proof) == (lost.cookie, lost.proof)
    assert trust.counted == ["used", "repeated"]
    clock.advance(1)
    assert await trust.use(cookie, session="late") == GONE
    assert sorted(trust.ended) == ["again", "lost"]


async def test_a_thief_within_the_grace_is_found_out_at_the_next_use(trust: Trust, clock: ManualClock) -> None:
    """With every cookie of the browser, and within seconds: one of the two comes with a spent token next time."""
    cookie = await trust.trust()
    owner = await trust.use(cookie, "browser")
    thief = await trust.use(cookie, "browser")
    assert thief.cookie == owner.cookie
    clock.advance(DAY)
    assert (await trust.use(thief.cookie or "", "browser")).proof is not None
    clock.advance(DAY)
    assert await trust.use(owner.cookie or "", "browser") == GONE
    assert len(trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)) == 1


async def test_twenty_tabs_of_one_browser_at_once(trust: Trust, place: Where, clock: ManualClock) -> None:
    """On two replicas: the token is spent once, all are told the same next one, nobody alarms."""
    cookie = await trust.trust()
    second = Trust(await Records.open(place, clock=clock), clock)
    found = await asyncio.gather(*((trust, second)[n % 2].use(cookie, session=f"s{n}") for n in range(20)))
    assert len({one.cookie for one in found}) == 1
    assert all(one.proof is not None for one in found)
    counted = trust.counted + second.counted
    assert (counted.count("used"), counted.count("repeated")) == (1, 19)
    assert not trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN) + second.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)
    assert (await second.use(found[0].cookie or "")).proof is not None
    await second.records.close()


async def test_twenty_browsers_at_once_with_one_token(trust: Trust, place: Where, clock: ManualClock) -> None:
    """On two replicas: one is let in, the next one gives it away, once."""
    cookie = await trust.trust()
    second = Trust(await Records.open(place, clock=clock), clock)
    found = await asyncio.gather(*((trust, second)[n % 2].use(cookie, f"b{n}", session=f"s{n}") for n in range(20)))
    assert sum(one.proof is not None for one in found) == 1
    alarms = trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN) + second.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)
    assert len(alarms) == 1
    winner = next(n for n, one in enumerate(found) if one.proof is not None)
    assert trust.ended + second.ended == [f"s{winner}"]
    assert await trust.list() == []
    await second.records.close()


async def test_it_is_one_persons_of_one_tenant(trust: Trust) -> None:
    cookie = await trust.trust("ann")
    assert await trust.use(cookie, name="bob") == NOTHING, "the browser keeps what is somebody else's"
    elsewhere = replace(somebody("ann"), tenant="other")
    assert (await trust.devices.use(elsewhere, cookie, "browser-1")).proof is None
    assert (await trust.use(cookie)).proof is not None
    assert not trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)


@pytest.mark.parametrize("junk", ["", ".", "a.b", "x" * 512, "\0.\0", "é.ü", "." * 87])
async def test_what_is_nobodys_is_taken_away(trust: Trust, junk: str) -> None:
    await trust.trust()
    assert await trust.use(junk) == GONE
    assert (len(await trust.list()), trust.counted) == (1, ["void"])


async def test_it_ends_thirty_days_after_the_factor_was_shown(trust: Trust, clock: ManualClock) -> None:
    cookie = await trust.trust()
    clock.advance(30 * DAY - 1)
    cookie = (await trust.use(cookie)).cookie or ""
    assert cookie
    clock.advance(1)
    assert await trust.list() == []
    assert await trust.devices.count() == 0
    assert await trust.use(cookie) == GONE
    assert not trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)


async def test_what_is_over_is_kept_until_somebody_trusts_a_browser(
    trust: Trust, records: Records, clock: ManualClock
) -> None:
    await trust.trust()
    clock.advance(30 * DAY)
    await trust.trust()
    async with records.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(trusted_devices)) == 1


async def test_an_operator_makes_it_shorter(trust: Trust, records: Records, clock: ManualClock) -> None:
    cookie = await trust.trust()
    clock.advance(8 * DAY)
    week = Trust(records, clock, lifetime=7 * DAY)
    assert await week.list() == []
    assert await week.use(cookie) == GONE


async def test_a_clock_that_was_set_back_trusts_nobody(trust: Trust, clock: ManualClock) -> None:
    cookie = await trust.trust()
    clock.advance(-3600)
    assert await trust.use(cookie) == GONE


async def test_whatever_ends_every_session_makes_it_void(trust: Trust, records: Records) -> None:
    """A new password, an account that is disabled, a factor that is reset: all raise `users.generation`."""
    cookie = await trust.trust()
    assert await trust.devices.count() == 1
    async with records.begin(DEFAULT_TENANT, "s-ann") as connection:
        await revoke(connection, DEFAULT_TENANT, "s-ann", but="s1")
    assert await trust.list() == []
    assert await trust.devices.count() == 0
    assert await trust.use(cookie) == GONE
    assert not trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)


async def test_nothing_is_trusted_on_a_proof_from_before_everything_ended(trust: Trust, records: Records) -> None:
    """The password is changed while the code is being typed."""
    before = await trust.devices.generation(DEFAULT_TENANT, "s-ann")
    async with records.begin(DEFAULT_TENANT, "s-ann") as connection:
        await revoke(connection, DEFAULT_TENANT, "s-ann")
    assert await trust.devices.trust(somebody(), before) is None
    async with records.begin(DEFAULT_TENANT, "s-ann") as connection:
        await connection.execute(update(users).where(users.c.subject == "s-ann").values(disabled=True))
    for subject in ("s-ann", "s-nobody"):
        generation = await trust.devices.generation(DEFAULT_TENANT, subject)
        assert await trust.devices.trust(replace(somebody(), subject=subject), generation) is None
    assert not trust.ledger.of(Kind.TRUSTED_DEVICE_ADDED)


async def test_a_browser_is_trusted_once_and_ten_at_most(records: Records, clock: ManualClock) -> None:
    trust = Trust(records, clock, most=3)
    cookies = []
    for n in range(4):
        clock.advance(60)
        cookies.append(await trust.trust(agent=f"agent-{n}"))
    assert await trust.list() == ["agent-3", "agent-2", "agent-1"]
    clock.advance(60)
    await trust.trust(replacing=cookies[2], agent="agent-2 again")
    assert await trust.list() == ["agent-2 again", "agent-3", "agent-1"]
    assert (await trust.use(cookies[2])).proof is None
    bobs = await trust.trust("bob", replacing=cookies[3])
    assert len(await trust.list()) == 3, "another person's stays"
    assert [one.here for one in await trust.devices.list(DEFAULT_TENANT, "s-bob", bobs)] == [True]


async def test_a_spent_cookie_betrays_the_copy_also_where_its_browser_is_trusted_anew(
    trust: Trust, clock: ManualClock
) -> None:
    """Else the series would go with the owner's cookie, and what the thief has opened by it would stay, unseen."""
    cookie = await trust.trust(browser="owner")
    thief = await trust.use(cookie, "thief", session="thief's")
    clock.advance(DAY)
    new = await trust.trust(replacing=cookie, browser="owner")
    assert trust.ended == ["thief's"]
    [alarm] = trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)
    assert (alarm.severity, alarm.detail["last_address"]) == (Severity.ALARM, "192.0.2.2")
    assert (await trust.use(thief.cookie or "", "thief")).proof is None
    assert (await trust.use(new, "owner")).proof is not None
    assert trust.counted == ["used", "stolen", "void", "used"]


async def test_trusting_a_browser_anew_ends_nothing_of_its_own(trust: Trust, clock: ManualClock) -> None:
    cookie = await trust.trust()
    kept = (await trust.use(cookie, session="first")).cookie or ""
    await trust.trust(replacing=kept)
    lost = await trust.trust(agent="another")
    await trust.use(lost, session="its answer is lost")
    clock.advance(GRACE)
    await trust.trust(replacing=lost)
    over = await trust.trust(agent="a third")
    await trust.use(over, session="long ago")
    clock.advance(31 * DAY)
    await trust.trust(replacing=over)
    assert (trust.ended, trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN)) == ([], [])


async def test_no_session_is_forgotten_while_its_browser_is_trusted(
    trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thief who signs in again and again has no session that is not known to be theirs any more."""
    monkeypatch.setattr(module, "SESSIONS", 4)
    stolen = cookie = await trust.trust()
    for n in range(4):
        cookie = (await trust.use(cookie, "thief", session=f"s{n}")).cookie or ""
    assert await trust.use(cookie, "thief", session="s4") == GONE
    assert trust.ended == ["s0", "s1", "s2", "s3"]
    assert await trust.list() == []
    assert await trust.use(stolen, "owner") == GONE
    assert not trust.ledger.of(Kind.TRUSTED_DEVICE_STOLEN), "nobody knows that they were a thief's"
    assert [event.session for event in trust.ledger.of(Kind.SESSION_ENDED)] == trust.ended


async def test_one_is_trusted_no_more(trust: Trust, clock: ManualClock) -> None:
    cookies = [await trust.trust(agent="one")]
    clock.advance(60)
    cookies.append(await trust.trust(agent="two"))
    for n, cookie in enumerate(cookies):
        cookies[n] = (await trust.use(cookie, session=f"s{n}")).cookie or ""
    me = somebody(session="me")
    two, one = await trust.devices.list(DEFAULT_TENANT, "s-ann", cookies[0])
    assert (two.agent, one.agent, two.here, one.here) == ("used by s1", "used by s0", False, True)
    with pytest.raises(UserError, match="no such browser") as not_hers:
        await trust.devices.revoke(somebody("bob"), one.id)
    assert (not_hers.value.code, not_hers.value.status) == ("ERR-MFA-UNKNOWN", 404)
    assert await trust.devices.revoke(me, one.id) == 1
    assert trust.ended == ["s0"]
    assert await trust.list() == ["used by s1"]
    assert (await trust.use(cookies[0])).proof is None
    assert await trust.devices.revoke(somebody(session="s1")) == 1
    assert trust.ended == ["s0"], "whoever does it stays"
    assert await trust.devices.revoke(me) == 0
    assert [event.detail["device"] for event in trust.ledger.of(Kind.TRUSTED_DEVICE_REVOKED)] == [one.id, two.id]
