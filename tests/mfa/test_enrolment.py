from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from urllib.parse import unquote

import pytest
from sqlalchemy import select, update

from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Event, Kind, Place
from gateway.core.identity import Identity, Proof
from gateway.identity.users import User
from gateway.mfa import otp
from gateway.mfa.attempts import LIFE
from gateway.mfa.enrolment import DEVICES, SETUP_LIFETIME, Permit, Setup
from gateway.store.place import Place as Where
from gateway.store.tables import factors, users
from tests.mfa.codes.conftest import own
from tests.mfa.conftest import NOW, Room, proven, somebody
from tests.rig.behind import at_rest

ANN = ("default", "s-ann")
ADMINS = frozenset({"admins", "staff"})


def secret_of(setup: Setup) -> bytes:
    import base64

    return base64.b32decode(setup.secret)


async def refused(awaitable: object) -> str:
    with pytest.raises(UserError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.code


async def enrol(room: Room, identity: Identity, label: str = "", steps: int = 0) -> tuple[bytes, tuple[str, ...]]:
    setup = await room.enrolment.begin_totp(identity)
    secret = secret_of(setup)
    return secret, await room.enrolment.confirm(identity, setup.id, room.code(secret, steps), label=label)


def with_code(identity: Identity, at: float) -> Identity:
    return proven(identity, Proof("totp", at))


# -- who may ----------------------------------------------------------------------------------------------------------


async def test_without_a_factor_a_fresh_sign_in_may_bind_one(room: Room) -> None:
    assert await room.enrolment.may_change(somebody()) is Permit.YES
    room.clock.advance(300)
    assert await room.enrolment.may_change(somebody()) is Permit.YES
    room.clock.advance(1)
    assert await room.enrolment.may_change(somebody()) is Permit.SIGN_IN_AGAIN
    assert await refused(room.enrolment.begin_totp(somebody())) == "ERR-MFA-SIGN-IN-AGAIN"


async def test_with_a_factor_only_a_fresh_second_factor_will_do(room: Room) -> None:
    await room.bind()
    ann = somebody()
    assert await room.enrolment.may_change(ann) is Permit.STEP_UP
    assert await room.enrolment.may_change(with_code(ann, NOW)) is Permit.YES
    assert await room.enrolment.may_change(with_code(ann, NOW - 301)) is Permit.STEP_UP
    assert await room.enrolment.may_change(proven(ann, Proof("backup_code", NOW))) is Permit.YES
    for change in (
        room.enrolment.begin_totp(ann),
        room.enrolment.regenerate_backup_codes(ann),
        room.enrolment.disable(ann),
        room.enrolment.remove(ann, (await room.factors.of(*ANN))[0].id),
    ):
        assert await refused(change) == "ERR-MFA-STEP-UP"
    assert len(await room.factors.of(*ANN)) == 1


async def test_a_factor_out_of_use_still_guards_the_account(room: Room) -> None:
    await room.bind()
    async with room.records.begin() as connection:
        await connection.execute(update(factors).values(failures=LIFE))
    assert await room.factors.usable(*ANN) == ()
    assert await room.enrolment.may_change(somebody()) is Permit.STEP_UP


async def test_nobody_without_a_session(room: Room) -> None:
    assert await room.enrolment.may_change(replace(somebody(), session=None)) is Permit.SIGN_IN_AGAIN


async def test_a_proof_from_a_future_far_off_is_not_fresh(room: Room) -> None:
    assert await room.enrolment.may_change(somebody(at=NOW + 3600)) is Permit.SIGN_IN_AGAIN
    assert await room.enrolment.may_change(somebody(at=NOW + 2)) is Permit.YES


# -- binding ----------------------------------------------------------------------------------------------------------


async def test_the_first_device_brings_ten_backup_codes_and_its_code_is_spent(room: Room) -> None:
    setup = await room.enrolment.begin_totp(somebody())
    secret = secret_of(setup)
    assert unquote(setup.uri).startswith("otpauth://totp/Sallyport:ann?secret=" + setup.secret)
    assert setup.secret not in repr(setup)
    assert setup.id not in repr(setup)
    code = room.code(secret)
    codes = await room.enrolment.confirm(somebody(), setup.id, code, label=" my\r\n\x1b phone ")
    assert len(codes) == 10
    assert await room.factors.usable(*ANN) == ("totp", "backup_code")
    assert (await room.factors.of(*ANN))[0].label in ("my phone", "")
    assert {one.label for one in await room.factors.of(*ANN)} == {"my phone", ""}
    assert (await room.factors.check(*ANN, "totp", code)).proof is None
    assert (await room.factors.check(*ANN, "totp", room.code(secret, 1))).proof is not None
    assert (await room.factors.check(*ANN, "backup_code", codes[0])).proof is not None
    assert [event.kind for event in room.ledger.events] == [Kind.FACTOR_ENROLLED, Kind.BACKUP_CODES_MADE]
    said = repr(room.ledger.events)
    assert not any(text in said for text in (setup.secret, setup.id, code, *codes))


async def test_nothing_is_bound_before_the_first_right_code(room: Room) -> None:
    setup = await room.enrolment.begin_totp(somebody())
    assert await room.factors.of(*ANN) == []
    assert (
        await refused(room.enrolment.confirm(somebody(), setup.id, room.wrong(secret_of(setup)))) == "ERR-MFA-INVALID"
    )
    assert await refused(room.enrolment.confirm(somebody(), setup.id, "")) == "ERR-MFA-INVALID"
    assert await room.factors.of(*ANN) == []
    again = await room.enrolment.look(somebody(), setup.id)
    assert (again.id, again.secret, again.uri) == (setup.id, setup.secret, setup.uri)
    assert await room.enrolment.confirm(somebody(), setup.id, room.code(secret_of(setup)))


async def test_a_clock_that_is_off_is_told_of_while_binding(room: Room) -> None:
    setup = await room.enrolment.begin_totp(somebody())
    with pytest.raises(UserError, match="about 2 minutes ahead"):
        await room.enrolment.confirm(somebody(), setup.id, room.code(secret_of(setup), 4))


async def test_setups_are_counted_from_beginning_to_end(room: Room) -> None:
    setup = await room.enrolment.begin_totp(somebody())
    assert await refused(room.enrolment.confirm(somebody(), setup.id, "12")) == "ERR-MFA-INVALID"
    assert room.setups == [("totp", "started"), ("totp", "failed")]
    await room.enrolment.confirm(somebody(), setup.id, room.code(secret_of(setup)))
    assert room.setups[2:] == [("totp", "completed")]
    assert await refused(room.enrolment.begin_totp(somebody())) == "ERR-MFA-STEP-UP"
    assert len(room.setups) == 3


async def test_a_second_device_keeps_the_codes(room: Room) -> None:
    _, codes = await enrol(room, somebody(), "phone")
    _, none = await enrol(room, with_code(somebody(), NOW), "tablet")
    assert none == ()
    assert (await room.factors.check(*ANN, "backup_code", codes[0])).proof is not None
    assert [one.label for one in await room.factors.of(*ANN) if one.kind == "totp"].count("tablet") == 1


async def test_devices_are_few(room: Room) -> None:
    for _ in range(DEVICES):
        await room.bind()
    assert await refused(room.enrolment.begin_totp(with_code(somebody(), NOW))) == "ERR-MFA-TOO-MANY"


async def test_nor_are_they_more_where_all_of_them_are_begun_first(room: Room) -> None:
    """Each makes a guess a little luckier, so the limit is asked where the row is written."""
    for _ in range(DEVICES - 1):
        await room.bind()
    ann = with_code(somebody(), NOW)
    setups = [await room.enrolment.begin_totp(ann) for _ in range(3)]
    await room.enrolment.confirm(ann, setups[0].id, room.code(secret_of(setups[0])))
    for setup in setups[1:]:
        assert await refused(room.enrolment.confirm(ann, setup.id, room.code(secret_of(setup)))) == "ERR-MFA-TOO-MANY"
    assert sum(one.kind == "totp" for one in await room.factors.of(*ANN)) == DEVICES


async def test_what_is_no_app_takes_no_room_from_them(room: Room) -> None:
    for number in range(DEVICES):
        await own(room, f"somebody{number}@example.com", "s-ann", f"email-{number}")
    ann = with_code(somebody(), NOW)
    setup = await room.enrolment.begin_totp(ann)
    await room.enrolment.confirm(ann, setup.id, room.code(secret_of(setup)))


async def test_a_setup_is_one_sessions_for_ten_minutes_and_once(room: Room) -> None:
    setup = await room.enrolment.begin_totp(somebody())
    code = room.code(secret_of(setup))
    for other in (somebody("bob"), somebody(session="session-2"), replace(somebody(), session=None)):
        assert await refused(room.enrolment.confirm(other, setup.id, code)) == "ERR-MFA-SETUP"
        assert await refused(room.enrolment.look(other, setup.id)) == "ERR-MFA-SETUP"
    for unknown in ("", "x", "\ud800", "../" + setup.id):
        assert await refused(room.enrolment.confirm(somebody(), unknown, code)) == "ERR-MFA-SETUP"
    await room.enrolment.confirm(somebody(), setup.id, code)
    assert await refused(room.enrolment.confirm(somebody(), setup.id, code)) == "ERR-MFA-SETUP"

    late = await room.enrolment.begin_totp(with_code(somebody(), NOW))
    room.clock.advance(SETUP_LIFETIME)
    assert await refused(room.enrolment.confirm(somebody(), late.id, room.code(secret_of(late)))) == "ERR-MFA-SETUP"


async def test_scanning_may_take_longer_than_the_sign_in_stays_fresh(room: Room) -> None:
    setup = await room.enrolment.begin_totp(somebody())
    room.clock.advance(SETUP_LIFETIME - 1)
    assert await room.enrolment.confirm(somebody(), setup.id, room.code(secret_of(setup)))


async def test_twenty_confirmations_at_once_bind_one_device(room: Room, replica: Room) -> None:
    setup = await room.enrolment.begin_totp(somebody())
    code = room.code(secret_of(setup))
    answers = await asyncio.gather(
        *(one.enrolment.confirm(somebody(), setup.id, code) for one in (room, replica) for _ in range(10)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, tuple) for answer in answers) == 1
    assert len(await room.factors.of(*ANN)) == 2


async def test_a_setup_is_used_up_by_what_it_binds_alone(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = await room.enrolment.begin_totp(somebody())

    async def full(*_: object, **__: object) -> str:
        raise StoreAway("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(room.totp, "bind", full)
        with pytest.raises(StoreAway):
            await room.enrolment.confirm(somebody(), setup.id, room.code(secret_of(setup)))
    assert await room.factors.of(*ANN) == []
    assert await room.enrolment.confirm(somebody(), setup.id, room.code(secret_of(setup)))
    assert await refused(room.enrolment.confirm(with_code(somebody(), NOW), setup.id, "000000")) == "ERR-MFA-SETUP"


async def test_of_two_first_factors_begun_at_once_the_second_needs_the_first(room: Room) -> None:
    thief, owner = somebody(session="thief"), somebody(session="owner")
    theirs = await room.enrolment.begin_totp(thief)
    await enrol(room, owner)
    code = room.code(secret_of(theirs))
    assert await refused(room.enrolment.confirm(thief, theirs.id, code)) == "ERR-MFA-STEP-UP"
    assert sum(one.kind == "totp" for one in await room.factors.of(*ANN)) == 1


async def test_guessing_the_first_code_is_bounded_and_leaves_step_up_alone(room: Room) -> None:
    await room.bind("s-ann")
    ann = with_code(somebody(), NOW)
    setup = await room.enrolment.begin_totp(ann)
    for _ in range(5):
        assert await refused(room.enrolment.confirm(ann, setup.id, "000000")) == "ERR-MFA-INVALID"
    assert await refused(room.enrolment.confirm(ann, setup.id, "000000")) == "ERR-MFA-THROTTLED"
    assert (await room.factors.check(*ANN, "totp", "000000")).wait == 0.0


async def test_a_waiting_secret_is_sealed(room: Room, place: Where) -> None:
    setup = await room.enrolment.begin_totp(somebody())
    kept = at_rest(place)
    assert b"totp-setup" in kept
    for plain in (setup.secret.encode(), secret_of(setup), setup.id.encode()):
        assert plain not in kept


async def test_binding_and_removing_are_seen_by_other_processes(room: Room, replica: Room) -> None:
    before = await replica.records.revision()
    await enrol(room, somebody())
    bound = await replica.records.revision()
    assert bound > before
    device = next(one for one in await room.factors.of(*ANN) if one.kind == "totp")
    await room.enrolment.remove(with_code(somebody(), NOW), device.id)
    assert await replica.records.revision() > bound


# -- removing ---------------------------------------------------------------------------------------------------------


async def test_the_last_device_takes_the_backup_codes_with_it(room: Room) -> None:
    _, codes = await enrol(room, somebody())
    ann = with_code(somebody(), NOW)
    device = next(one for one in await room.factors.of(*ANN) if one.kind == "totp")
    await room.enrolment.remove(ann, device.id, Place("192.0.2.1"))
    assert await room.factors.of(*ANN) == []
    assert (await room.factors.check(*ANN, "backup_code", codes[0])).proof is None
    (removed,) = room.ledger.of(Kind.FACTOR_REMOVED)
    assert (removed.user, removed.address, removed.detail["id"]) == ("ann", "192.0.2.1", device.id)


async def test_nobody_removes_what_is_not_theirs(room: Room) -> None:
    await room.bind()
    await room.bind("s-bob")
    (bobs,) = await room.factors.of("default", "s-bob")
    ann = with_code(somebody(), NOW)
    for unknown in (bobs.id, "", "x", "' OR 1=1 --"):
        assert await refused(room.enrolment.remove(ann, unknown)) == "ERR-MFA-UNKNOWN"
    (mine,) = await room.factors.of(*ANN)
    assert await refused(room.enrolment.remove(replace(ann, tenant="other"), mine.id)) == "ERR-MFA-UNKNOWN"
    assert len(await room.factors.of(*ANN)) == len(await room.factors.of("default", "s-bob")) == 1


async def test_administrators_keep_a_device_that_works(room: Room) -> None:
    admin = with_code(somebody(groups=ADMINS), NOW)
    assert room.enrolment.required(admin)
    assert not room.enrolment.required(somebody(groups=frozenset({"staff"})))
    await room.bind(label="old")
    async with room.records.begin() as connection:
        await connection.execute(update(factors).values(failures=LIFE))
    await room.bind(label="new")
    await room.give_codes()
    by_label = {one.label or one.kind: one.id for one in await room.factors.of(*ANN)}
    assert await refused(room.enrolment.remove(admin, by_label["new"])) == "ERR-MFA-REQUIRED"
    assert await refused(room.enrolment.disable(admin)) == "ERR-MFA-REQUIRED"
    await room.enrolment.remove(admin, by_label["old"])
    await room.enrolment.remove(admin, by_label["backup_code"])
    assert await refused(room.enrolment.remove(admin, by_label["new"])) == "ERR-MFA-REQUIRED"
    assert await room.factors.usable(*ANN) == ("totp",)


async def test_two_simultaneous_removals_do_not_take_an_administrators_last_two(room: Room, replica: Room) -> None:
    admin = with_code(somebody(groups=ADMINS), NOW)
    await room.bind()
    await room.bind()
    one, two = await room.factors.of(*ANN)
    answers = await asyncio.gather(
        room.enrolment.remove(admin, one.id), replica.enrolment.remove(admin, two.id), return_exceptions=True
    )
    assert [answer.code for answer in answers if isinstance(answer, UserError)] == ["ERR-MFA-REQUIRED"]
    assert len(await room.factors.of(*ANN)) == 1


async def test_others_may_turn_it_off_whole(room: Room) -> None:
    await enrol(room, somebody())
    await room.bind("s-bob")
    await room.enrolment.disable(with_code(somebody(), NOW))
    assert await room.factors.of(*ANN) == []
    assert len(await room.factors.of("default", "s-bob")) == 1
    assert len(room.ledger.of(Kind.FACTOR_REMOVED)) == 1


async def test_an_administrator_can_reset_who_is_shut_out(room: Room) -> None:
    await room.bind()
    async with room.records.begin() as connection:
        await connection.execute(update(factors).values(failures=LIFE))
    await room.enrolment.reset(*ANN, user="ann", by="root")
    assert await room.enrolment.may_change(somebody()) is Permit.YES
    (removed,) = room.ledger.of(Kind.FACTOR_REMOVED)
    assert (removed.user, removed.detail["by"]) == ("ann", "root")


# -- what rested on it -------------------------------------------------------------------------------------------------


async def signed_in(room: Room, *proofs: Proof) -> tuple[str, Identity]:
    """Ann, in a session that is there."""
    person = User(*ANN, "ann", "", "", frozenset(), False, 0.0)
    async with room.records.read() as connection:
        generation = await connection.scalar(select(users.c.generation).where(users.c.name == "ann"))
    token, identity = await room.sessions.open(
        replace(person, generation=generation), Proof("password", NOW), address="192.0.2.1", agent="test"
    )
    for proof in proofs:
        token, identity = await room.sessions.prove(token, proof)
    return token, identity


@pytest.mark.parametrize("how", ["remove", "disable", "reset"])
async def test_the_sessions_that_rested_on_it_end_in_the_same_step(
    room: Room, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes after that step may not come at all: the process dies."""
    await room.bind(label="lost")
    await room.bind(label="kept")
    thief, _ = await signed_in(room, Proof("totp", NOW))
    mine, ann = await signed_in(room, Proof("totp", NOW))
    lost = next(one for one in await room.factors.of(*ANN) if one.label == "lost")

    def die(event: Event) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(room.ledger, "tell", die)
    change: Awaitable[object]
    if how == "remove":
        change = room.enrolment.remove(ann, lost.id)
    elif how == "disable":
        change = room.enrolment.disable(ann)
    else:
        change = room.enrolment.reset(*ANN, user="ann", by="root")
    with pytest.raises(RuntimeError, match="killed"):
        await change
    assert [one.label for one in await room.factors.of(*ANN)] == (["kept"] if how == "remove" else [])
    assert await room.sessions.find(thief) is None
    assert (await room.sessions.find(mine) is not None) is (how == "remove")


@pytest.mark.parametrize("how", ["bind", "codes", "remove", "disable", "reset"])
async def test_what_nobody_could_be_told_of_has_not_happened(room: Room, how: str) -> None:
    """A gateway is stopped between the change and its event: the owner would never hear of it."""
    ann = somebody()
    if how != "bind":
        await room.bind(label="there")
        ann = with_code(ann, NOW)
    setup = await room.enrolment.begin_totp(ann)
    before, told = await room.factors.of(*ANN), len(room.ledger.events)

    async def go_on() -> object:
        if how == "bind":
            return await room.enrolment.confirm(ann, setup.id, room.code(secret_of(setup)))
        if how == "codes":
            return await room.enrolment.regenerate_backup_codes(ann)
        if how == "remove":
            return await room.enrolment.remove(ann, before[0].id)
        if how == "disable":
            return await room.enrolment.disable(ann)
        return await room.enrolment.reset(*ANN, user="ann", by="root")

    with room.ledger.stopped():
        await go_on()
    assert await room.factors.of(*ANN) == before
    assert len(room.ledger.events) == told
    await go_on()
    assert await room.factors.of(*ANN) != before
    kinds = {"bind": [Kind.FACTOR_ENROLLED, Kind.BACKUP_CODES_MADE], "codes": [Kind.BACKUP_CODES_MADE]}
    assert room.ledger.kinds()[told:] == kinds.get(how, [Kind.FACTOR_REMOVED])


async def test_what_may_not_go_ends_no_session(room: Room) -> None:
    await room.bind()
    other, _ = await signed_in(room)
    _, ann = await signed_in(room, Proof("totp", NOW))
    (device,) = await room.factors.of(*ANN)
    assert await refused(room.enrolment.remove(replace(ann, groups=ADMINS), device.id)) == "ERR-MFA-REQUIRED"
    assert await refused(room.enrolment.remove(ann, "unknown")) == "ERR-MFA-UNKNOWN"
    assert await room.sessions.find(other) is not None


@pytest.mark.parametrize(("rest", "stays"), [("codes", True), ("used codes", False), ("off", False), ("none", False)])
async def test_a_session_stays_while_it_could_be_proven_anew(room: Room, rest: str, stays: bool) -> None:
    await room.bind()
    (device,) = await room.factors.of(*ANN)
    if rest != "none":  # one that is out of use, and keeps the codes
        await room.bind()
        async with room.records.begin() as connection:
            await connection.execute(update(factors).where(factors.c.id != device.id).values(failures=LIFE))
    if "codes" in rest:
        codes = await room.give_codes()
        for code in codes if rest == "used codes" else ():
            assert (await room.factors.check(*ANN, "backup_code", code)).proof is not None
    mine, ann = await signed_in(room, Proof("totp", NOW))
    assert await room.enrolment.remove(ann, device.id) is stays
    assert (await room.sessions.find(mine) is not None) is stays


async def test_nor_does_it_stay_for_what_is_not_offered_any_more(room: Room) -> None:
    """A telephone beside the app, where the operator no longer has text messages."""
    await room.bind()
    (device,) = await room.factors.of(*ANN)
    await room.bind()
    async with room.records.begin() as connection:
        await connection.execute(update(factors).where(factors.c.id != device.id).values(kind="sms"))
    mine, ann = await signed_in(room, Proof("totp", NOW))
    assert await room.enrolment.remove(ann, device.id) is False
    assert await room.sessions.find(mine) is None


async def test_nothing_is_done_where_the_ledger_takes_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the codes that are good now would never be shown, and those that were are void."""
    _, codes = await enrol(room, somebody())
    told = room.ledger.kinds()

    async def full(*_: object) -> None:
        raise StoreAway("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(room.ledger, "enter", full)
        with pytest.raises(StoreAway):
            await room.enrolment.regenerate_backup_codes(with_code(somebody(), NOW))
    assert (await room.factors.check(*ANN, "backup_code", codes[0])).proof is not None
    assert room.ledger.kinds() == told


# -- backup codes, and how one stands ---------------------------------------------------------------------------------


async def test_fresh_codes_void_the_old_and_need_a_device(room: Room) -> None:
    assert await refused(room.enrolment.regenerate_backup_codes(somebody())) == "ERR-MFA-NO-DEVICE"
    _, old = await enrol(room, somebody())
    new = await room.enrolment.regenerate_backup_codes(with_code(somebody(), NOW))
    assert len(set(new) - set(old)) == 10
    assert (await room.factors.check(*ANN, "backup_code", old[0])).proof is None
    assert (await room.factors.check(*ANN, "backup_code", new[0])).proof is not None
    assert len(room.ledger.of(Kind.BACKUP_CODES_MADE)) == 2


async def test_what_the_operator_does_not_offer_is_neither_bound_nor_handed_out(room: Room) -> None:
    without = Room(room.records, room.clock, offered=("totp",))
    _, codes = await enrol(without, somebody())
    assert codes == ()
    ann = with_code(somebody(), NOW)
    assert await refused(without.enrolment.regenerate_backup_codes(ann)) == "ERR-MFA-METHOD"
    assert (await without.enrolment.status(ann)).hint == ""
    nothing = Room(room.records, room.clock, offered=())
    assert await refused(nothing.enrolment.begin_totp(ann)) == "ERR-MFA-METHOD"
    assert await nothing.factors.usable(*ANN) == ()


async def test_status_says_what_to_see_to(room: Room) -> None:
    nothing = await room.enrolment.status(somebody(groups=ADMINS))
    assert (nothing.enrolled, nothing.required, nothing.backup_codes_left, nothing.hint) == ((), True, 0, "")
    _, codes = await enrol(room, somebody())
    assert (await room.enrolment.status(somebody())).hint == ""
    for code in codes[:5]:
        await room.factors.check(*ANN, "backup_code", code)
    for code in codes[5:7]:
        await room.factors.check(*ANN, "backup_code", code)
    status = await room.enrolment.status(somebody())
    assert (status.backup_codes_left, "3 backup codes left" in status.hint) == (3, True)
    assert await room.enrolment.backup_codes_left(somebody()) == 3
    async with room.records.begin() as connection:
        await connection.execute(update(factors).where(factors.c.kind == "totp").values(failures=LIFE))
    assert "turned off" in (await room.enrolment.status(somebody())).hint


def test_codes_of_a_setup_are_those_of_the_secret_it_shows() -> None:
    secret = otp.new_secret()
    assert otp.base32(secret) in otp.otpauth(secret, "Sallyport", "ann")
