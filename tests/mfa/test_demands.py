from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import delete, func, select, update

from gateway.core.errors import UserError
from gateway.core.events import Kind
from gateway.core.identity import NEVER, Identity, Proof
from gateway.mfa.attempts import LIFE
from gateway.mfa.demands import AT_ONCE, Demand, Demands, must_have
from gateway.mfa.enrolment import Enrolment
from gateway.store.tables import demanded, factors, users
from tests.mfa.conftest import NOW, Room, proven, somebody

DAY = 86_400.0
ADMINS = Demand(groups=frozenset({"admins"}))
FINANCE = Demand(groups=frozenset({"finance", "payroll"}), grace=14 * DAY)
KEYS = Demand(users=frozenset({"ann"}), factors=frozenset({"webauthn"}), grace=7 * DAY)


def of(room: Room, *demands: Demand) -> Demands:
    return Demands(room.records, room.clock, room.ledger, demands)


def ann(*groups: str, required_from: float = NEVER) -> Identity:
    return replace(somebody(groups=frozenset(groups)), required_from=required_from)


@pytest.mark.parametrize(
    ("demand", "holds"),
    [
        (Demand(), False),
        (Demand(groups=frozenset({"staff", "x"})), True),
        (Demand(groups=frozenset({"x"})), False),
        (Demand(tenants=frozenset({"default"})), True),
        (Demand(tenants=frozenset({"acme"})), False),
        (Demand(users=frozenset({"ann"})), True),
        (Demand(users=frozenset({"bob"})), False),
        (Demand(groups=frozenset({"staff"}), tenants=frozenset({"acme"})), False),
        (Demand(groups=frozenset({"staff"}), users=frozenset({"ann"})), True),
    ],
)
def test_everything_that_is_named_has_to_fit(demand: Demand, holds: bool) -> None:
    assert demand.holds(ann("staff")) is holds


async def test_administrators_owe_it_at_once_and_others_nothing(room: Room) -> None:
    demands = of(room, ADMINS, FINANCE)
    assert await demands.enrol_by(ann("admins")) == AT_ONCE
    assert await demands.enrol_by(ann("staff")) == NEVER
    await room.bind()
    assert await demands.enrol_by(ann("admins")) == NEVER


async def test_the_time_begins_when_they_are_first_seen_and_once(room: Room) -> None:
    demands = of(room, FINANCE)
    assert await demands.enrol_by(ann("finance"), begin=False) == NEVER
    assert await demands.enrol_by(ann("finance")) == NOW + 14 * DAY
    room.clock.advance(3 * DAY)
    assert await demands.enrol_by(ann("finance")) == NOW + 14 * DAY
    assert await demands.enrol_by(ann("finance"), begin=False) == NOW + 14 * DAY


async def test_nothing_stretches_it(room: Room) -> None:
    """Another group of the same demand, leaving and coming back, a factor in between, a demand with one group more."""
    demands = of(room, FINANCE)
    assert await demands.enrol_by(ann("finance")) == NOW + 14 * DAY
    room.clock.advance(DAY)
    assert await demands.enrol_by(ann("payroll")) == NOW + 14 * DAY
    assert await demands.enrol_by(ann()) == NEVER
    assert await demands.enrol_by(ann("finance")) == NOW + 14 * DAY
    await room.bind()
    assert await demands.enrol_by(ann("finance")) == NEVER
    async with room.records.begin() as connection:
        await connection.execute(delete(factors))
    assert await demands.enrol_by(ann("finance")) == NOW + 14 * DAY
    wider = of(room, replace(FINANCE, groups=FINANCE.groups | {"audit"}))
    assert await wider.enrol_by(ann("audit")) == NOW + 14 * DAY


async def test_it_begins_for_whoever_has_a_factor_too(room: Room) -> None:
    """So a factor that an administrator takes away years later does not bring two free weeks."""
    demands = of(room, FINANCE)
    await room.bind()
    assert await demands.enrol_by(ann("finance")) == NEVER
    room.clock.advance(100 * DAY)
    await room.enrolment.reset("default", "s-ann", user="ann", by="eve")
    assert await demands.enrol_by(ann("finance")) == NOW + 14 * DAY < room.clock.now()


async def test_a_clock_that_is_set_back_gives_nobody_more_time(room: Room) -> None:
    demands = of(room, FINANCE)
    async with room.records.begin() as connection:
        rows = [
            {"tenant": "default", "subject": "s-ann", "demand": name, "since": NOW + 365 * DAY}
            for name in FINANCE.names
        ]
        await connection.execute(demanded.insert(), rows)
    assert await demands.enrol_by(ann("finance")) == NOW + 14 * DAY


async def test_another_kind_is_another_demand_with_a_time_of_its_own(room: Room) -> None:
    await of(room, Demand(users=frozenset({"ann"}), grace=DAY)).enrol_by(ann())
    room.clock.advance(30 * DAY)
    demands = of(room, Demand(users=frozenset({"ann"}), grace=DAY), KEYS)
    await room.bind()
    assert await demands.enrol_by(ann()) == NOW + 37 * DAY
    assert [one.factors for one in await demands.lacking(ann())] == [KEYS.factors]


async def test_backup_codes_and_what_is_out_of_use_do_not_meet_it(room: Room) -> None:
    demands = of(room, ADMINS)
    await room.give_codes()
    assert await demands.enrol_by(ann("admins")) == AT_ONCE
    await room.bind()
    assert await demands.enrol_by(ann("admins")) == NEVER
    async with room.records.begin() as connection:
        await connection.execute(update(factors).where(factors.c.kind == "totp").values(failures=LIFE))
    assert await demands.enrol_by(ann("admins")) == AT_ONCE


async def test_the_earliest_of_several_counts(room: Room) -> None:
    demands = of(room, FINANCE, KEYS)
    assert await demands.enrol_by(ann("finance")) == NOW + 7 * DAY
    assert await demands.enrol_by(ann("finance", required_from=NOW + DAY)) == NOW + DAY
    assert await demands.enrol_by(ann("finance", required_from=NOW + 90 * DAY)) == NOW + 7 * DAY


async def test_of_many_first_looks_at_once_one_begins_it(room: Room, replica: Room) -> None:
    looks = [of(each, FINANCE).enrol_by(ann("finance")) for each in (room, replica) * 5]
    assert set(await asyncio.gather(*looks)) == {NOW + 14 * DAY}
    async with room.records.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(demanded)) == 2


# -- an administrator's word -------------------------------------------------------------------------------------------


async def test_an_administrators_word_is_kept_told_and_taken_back(room: Room) -> None:
    demands, heard = of(room), []
    room.records.listen(lambda tenant, subject: heard.append((tenant, subject)))
    await demands.require("default", "s-ann", user="ann", at=NOW + DAY, by="eve")
    await demands.require("default", "s-ann", user="ann", at=NOW + 2 * DAY, by="eve")
    async with room.records.read() as connection:
        assert await connection.scalar(select(users.c.mfa_required_from).where(users.c.name == "ann")) == NOW + 2 * DAY
    await demands.lift("default", "s-ann", user="ann", by="eve")
    async with room.records.read() as connection:
        assert await connection.scalar(select(users.c.mfa_required_from).where(users.c.name == "ann")) is None
    assert heard == [("default", "s-ann")] * 3
    assert [(event.kind, event.user, dict(event.detail)) for event in room.ledger.events] == [
        (Kind.MFA_REQUIRED, "ann", {"by": "eve", "from": int(NOW + DAY)}),
        (Kind.MFA_REQUIRED, "ann", {"by": "eve", "from": int(NOW + 2 * DAY)}),
        (Kind.MFA_REQUIREMENT_LIFTED, "ann", {"by": "eve"}),
    ]
    with pytest.raises(UserError, match="no such user"):
        await demands.require("default", "s-nobody", user="nobody", at=NOW, by="eve")


async def test_what_follows_from_something_else_never_makes_it_later(room: Room) -> None:
    for at, stands in ((NOW + DAY, NOW + DAY), (NOW + 2 * DAY, NOW + DAY), (NOW, NOW)):
        async with room.records.begin("default", "s-ann") as connection:
            await must_have(connection, "default", "s-ann", at)
        async with room.records.read() as connection:
            assert await connection.scalar(select(users.c.mfa_required_from).where(users.c.name == "ann")) == stands


# -- what they may not take away ---------------------------------------------------------------------------------------


def enrolment(room: Room, *demands: Demand) -> Enrolment:
    return Enrolment(
        room.records, room.totp, room.backup_codes, room.factors, room.clock, room.ledger,
        end_all=room.sessions.end_all, issuer="Sallyport", demands=of(room, *demands),
    )  # fmt: skip


async def insert_key(room: Room, key: str, *, failures: int = 0) -> None:
    async with room.records.begin() as connection:
        await connection.execute(
            factors.insert().values(
                tenant="default", id=key, subject="s-ann", kind="webauthn", label="", secret=b"", last_step=-1,
                refused_step=-1, failures=failures, created_at=NOW, last_used_at=NOW,
            )
        )  # fmt: skip


async def kinds_left(room: Room) -> list[str]:
    return sorted(one.kind for one in await room.factors.of("default", "s-ann"))


async def remove(at: Enrolment, who: Identity, factor: str) -> str:
    try:
        await at.remove(who, factor)
    except UserError as error:
        return error.code
    return ""


async def test_the_last_of_a_kind_that_is_demanded_stays(room: Room) -> None:
    """Also while there is time; and another kind does not stand in for it."""
    here = enrolment(room, KEYS)
    me = proven(ann(), Proof("totp", NOW))
    await room.bind()
    await insert_key(room, "k1")
    assert await remove(here, me, "k1") == "ERR-MFA-REQUIRED"
    await insert_key(room, "k2", failures=LIFE)
    assert await remove(here, me, "k1") == "ERR-MFA-REQUIRED"
    totp = next(one.id for one in await room.factors.of("default", "s-ann") if one.kind == "totp")
    assert await remove(here, me, totp) == ""
    await insert_key(room, "k3")
    assert await remove(here, me, "k1") == ""
    assert await kinds_left(room) == ["webauthn", "webauthn"]


@pytest.mark.parametrize("required_from", [NOW, NOW + DAY])
async def test_so_does_the_last_of_somebody_an_administrator_demanded_it_of(room: Room, required_from: float) -> None:
    here, me = enrolment(room), proven(ann(required_from=required_from), Proof("totp", NOW))
    await room.bind()
    (only,) = await room.factors.of("default", "s-ann")
    assert await remove(here, me, only.id) == "ERR-MFA-REQUIRED"
    with pytest.raises(UserError) as caught:
        await here.disable(me)
    assert caught.value.code == "ERR-MFA-REQUIRED"
    assert await remove(here, replace(me, required_from=NEVER), only.id) == ""


async def test_of_two_removed_at_once_one_stays(room: Room, replica: Room) -> None:
    me = proven(ann("finance"), Proof("totp", NOW))
    for _ in range(3):
        await insert_key(room, "k1")
        await insert_key(room, "k2")
        said = await asyncio.gather(
            remove(enrolment(room, FINANCE), me, "k1"), remove(enrolment(replica, FINANCE), me, "k2")
        )
        assert sorted(said) == ["", "ERR-MFA-REQUIRED"]
        assert await kinds_left(room) == ["webauthn"]
        async with room.records.begin() as connection:
            await connection.execute(delete(factors))


async def test_a_factor_that_goes_out_of_use_is_told_to_whoever_remembers(room: Room) -> None:
    """By the try that is its last, and by the answer that brings it back."""
    heard: list[str] = []
    room.records.listen(lambda tenant, subject: heard.append(subject))
    secret = await room.bind()
    async with room.records.begin() as connection:
        await connection.execute(update(factors).values(failures=LIFE - 2))
    await room.factors.check("default", "s-ann", "totp", room.wrong(secret))
    assert heard == []
    assert (await room.factors.check("default", "s-ann", "totp", room.code(secret))).proof is not None
    assert heard == ["s-ann", "s-ann"]


# -- numbers -----------------------------------------------------------------------------------------------------------


async def test_the_numbers_say_what_each_is_told(room: Room) -> None:
    async def groups(name: str, *groups: str, **more: object) -> None:
        async with room.records.begin() as connection:
            await connection.execute(update(users).where(users.c.name == name).values(groups=list(groups), **more))

    demands = of(room, ADMINS, FINANCE, KEYS)
    assert await demands.counts() == {"required": 1.0, "due": 1.0, "overdue": 0.0}  # ann, by name
    await groups("bob", "Finance", "finance-2", "ü")
    assert (await demands.counts())["required"] == 1.0
    await groups("bob", "finance")
    assert await demands.counts() == {"required": 2.0, "due": 2.0, "overdue": 0.0}
    bob = somebody("bob", groups=frozenset({"finance"}))
    await demands.enrol_by(bob)
    room.clock.advance(14 * DAY - 1)
    assert (await demands.counts())["overdue"] == 0.0
    room.clock.advance(1)
    assert await demands.counts() == {"required": 2.0, "due": 1.0, "overdue": 1.0}
    await room.bind("s-bob")
    assert await demands.counts() == {"required": 2.0, "due": 1.0, "overdue": 0.0}
    await room.bind("s-ann")  # of another kind than she must have
    assert (await demands.counts())["due"] == 1.0
    await groups("ann", mfa_required_from=NOW)
    assert (await demands.counts())["due"] == 1.0
    await groups("bob", "admins", mfa_required_from=NOW, disabled=True)
    assert (await demands.counts())["required"] == 1.0
    assert await of(room).counts() == {"required": 1.0, "due": 0.0, "overdue": 0.0}
    assert (await of(room, Demand(groups=frozenset({'"', "%", "ü"}))).counts())["required"] == 1.0


async def test_what_nobody_could_be_told_of_is_not_demanded(room: Room) -> None:
    """A gateway is stopped between the change and its event."""

    async def required() -> object:
        async with room.records.read() as connection:
            return await connection.scalar(select(users.c.mfa_required_from).where(users.c.subject == "s-ann"))

    demands = Demands(room.records, room.clock, room.ledger)
    with room.ledger.stopped():
        await demands.require("default", "s-ann", user="ann", at=NOW, by="eve")
    assert await required() is None
    await demands.require("default", "s-ann", user="ann", at=NOW, by="eve")
    assert await required() == NOW
    assert room.ledger.kinds() == [Kind.MFA_REQUIRED]
