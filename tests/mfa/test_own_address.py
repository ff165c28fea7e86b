"""The address of an account is confirmed by who reads it: who may, which address, once, and what it is worth."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind
from gateway.core.events import Place as From
from gateway.core.identity import DEFAULT_TENANT, Identity, Proof
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.identity.users import User
from gateway.mfa.attempts import RUN
from gateway.mfa.codes.code import LIFETIME
from gateway.mfa.codes.sends import DAY, HOUR
from gateway.mfa.own_address import OwnAddress
from gateway.store.own_address import confirm
from gateway.store.place import Place
from gateway.store.tables import kept, users
from tests.mfa.conftest import NOW, Room, somebody
from tests.rig.postgres import EITHER, either

MAIL = "ann@example.com"
OTHER = "ann@example.org"


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """SQLite; both databases where a test says so: what one of them can tell is not asked of the other."""
    return either(request, tmp_path) if hasattr(request, "param") else Place(f"sqlite:{tmp_path}/sallyport.db")


both = pytest.mark.parametrize("place", EITHER, indirect=True)


def of(room: Room) -> OwnAddress:
    """As a process has it; another one of the same room is another process."""
    return OwnAddress(room.email, room.enrolment, room.factors.attempts, room.clock, room.ledger)


@pytest.fixture
async def own(room: Room) -> OwnAddress:
    await change(room, MAIL)
    return of(room)


async def change(room: Room, email: str, name: str = "ann") -> None:
    """As an operator does who knows no more than the address."""
    async with room.records.begin() as connection:
        await connection.execute(update(users).where(users.c.name == name).values(email=email))


async def confirmed(room: Room, name: str = "ann") -> tuple[str, float | None]:
    async with room.records.read() as connection:
        query = select(users.c.email_confirmed, users.c.email_confirmed_at).where(users.c.name == name)
        row = (await connection.execute(query)).one()
    return row.email_confirmed, row.email_confirmed_at


async def refused(asking: Awaitable[Any]) -> UserError:
    with pytest.raises(UserError) as caught:
        await asking
    return caught.value


def fresh(room: Room, *, session: str = "session-1", factor: str = "totp", name: str = "ann") -> Identity:
    now = room.clock.now()
    return somebody(name, at=now, proofs=(Proof("password", now), Proof(factor, now)), session=session)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


@both
async def test_a_code_goes_there_and_confirms_it_once(room: Room, own: OwnAddress) -> None:
    ann = somebody()
    standing = await own.standing(ann)
    assert (standing.address, standing.confirmed_at, standing.sent, standing.again_in) == (MAIL, 0.0, False, 0.0)
    await own.send(ann, language="tr", place=From("192.0.2.7"))
    (posted,) = room.post.box
    assert (posted.channel, posted.to, posted.about, posted.language) == ("email", MAIL, "confirm", "tr")
    standing = await own.standing(ann)
    assert (standing.confirmed_at, standing.sent, standing.again_in) == (0.0, True, 30.0)
    room.clock.advance(60)
    await own.confirm(ann, f"{posted.code[:3]} {posted.code[3:]}", From("192.0.2.7"))
    assert await confirmed(room) == (MAIL, NOW + 60)
    standing = await own.standing(ann)
    assert (standing.confirmed_at, standing.sent) == (NOW + 60, False)
    (told,) = room.ledger.of(Kind.ADDRESS_CONFIRMED)
    assert (told.user, told.address, told.session) == ("ann", "192.0.2.7", "session-1")
    (sent,) = room.ledger.of(Kind.CODE_SENT)
    assert dict(sent.detail) == {"factor": "email", "about": "confirm"}
    assert MAIL not in repr(room.ledger.events)
    assert posted.code not in repr(room.ledger.events)
    assert (await refused(own.confirm(ann, posted.code))).code == "ERR-MFA-INVALID", "once"
    assert (await refused(own.send(ann))).code == "ERR-MFA-ADDRESS-KNOWN"
    assert len(room.post.box) == 1


async def test_only_a_mac_of_the_code_is_kept_and_no_address(room: Room, own: OwnAddress) -> None:
    await own.send(somebody())
    async with room.records.read() as connection:
        rows = [bytes(value) for value in await connection.scalars(select(kept.c.value))]
    assert rows
    assert not any(room.post.last.encode() in row or MAIL.encode() in row for row in rows)


# -- which address ----------------------------------------------------------------------------------------------------


@both
async def test_a_code_from_before_the_address_changed_confirms_neither(room: Room, own: OwnAddress) -> None:
    await own.send(somebody())
    await change(room, OTHER)
    assert not (await own.standing(somebody())).sent
    assert (await refused(own.confirm(somebody(), room.post.last))).code == "ERR-MFA-INVALID"
    assert await confirmed(room) == ("", None)
    await change(room, "")
    assert (await refused(own.confirm(somebody(), room.post.last))).code == "ERR-MFA-INVALID"
    await change(room, MAIL)
    await own.confirm(somebody(), room.post.last)
    assert await confirmed(room) == (MAIL, NOW), "it went there, and it is theirs again"


@both
async def test_one_that_changes_in_the_same_moment_is_not_confirmed(room: Room, own: OwnAddress) -> None:
    await own.send(somebody())
    people = LocalUsers(room.records, Passwords(), room.clock, room.ledger)
    done = await asyncio.gather(
        own.confirm(somebody(), room.post.last), people.set_email("ann", OTHER), return_exceptions=True
    )  # in either order
    assert isinstance(done[1], User)
    standing = await own.standing(somebody())
    assert (standing.address, standing.confirmed_at) == (OTHER, 0.0)
    async with room.records.begin(DEFAULT_TENANT, "s-ann") as connection:
        assert not await confirm(connection, DEFAULT_TENANT, "s-ann", MAIL, 1.0), "not the one they have"


async def test_an_address_that_comes_back_is_confirmed_as_it_was(room: Room, own: OwnAddress) -> None:
    await own.send(somebody())
    await own.confirm(somebody(), room.post.last)
    await change(room, OTHER)
    assert (await own.standing(somebody())).confirmed_at == 0.0
    await change(room, MAIL)
    assert (await own.standing(somebody())).confirmed_at == NOW
    await change(room, "")
    assert (await own.standing(somebody())).confirmed_at == 0.0


async def test_somebody_without_an_address(room: Room) -> None:
    own = of(room)
    error = await refused(own.send(somebody()))
    assert (error.code, error.status) == ("ERR-UNREACHABLE", 400)
    assert (await refused(own.confirm(somebody(), "123456"))).code == "ERR-MFA-INVALID"
    assert await confirmed(room) == ("", None)
    assert not room.post.box


# -- who may ----------------------------------------------------------------------------------------------------------


async def test_it_takes_a_fresh_proof_the_second_factor_where_there_is_one(room: Room, own: OwnAddress) -> None:
    assert (await refused(own.send(somebody(at=NOW - 301)))).code == "ERR-MFA-SIGN-IN-AGAIN"
    await room.bind()
    assert (await refused(own.send(somebody()))).code == "ERR-MFA-STEP-UP", "the password alone is not enough"
    assert not room.post.box
    await own.send(fresh(room))
    room.clock.advance(301)
    await own.confirm(somebody(at=NOW), room.post.last)
    assert await confirmed(room) == (MAIL, NOW + 301), "who was fresh at the beginning may end"


@both
async def test_a_code_is_good_in_the_session_that_asked_and_for_its_user(room: Room, own: OwnAddress) -> None:
    await change(room, MAIL, "bob")
    await own.send(somebody())
    for other in (somebody(session="session-2"), somebody("bob"), somebody("bob", session="session-2")):
        assert (await refused(own.confirm(other, room.post.last))).code == "ERR-MFA-INVALID"
    assert await confirmed(room) == await confirmed(room, "bob") == ("", None)
    await own.confirm(somebody(), room.post.last)
    assert (await confirmed(room), await confirmed(room, "bob")) == ((MAIL, NOW), ("", None))


@pytest.mark.parametrize("about", ["enrol", "verify"])
async def test_a_code_for_something_else_confirms_nothing(room: Room, own: OwnAddress, about: str) -> None:
    await own.send(somebody())
    mine = room.post.last
    room.clock.advance(60)
    setup = await room.addresses["email"].begin(somebody(), OTHER)
    assert room.post.box[-1].about == "enrol"
    if about == "enrol":
        assert (await refused(own.confirm(somebody(), room.post.last))).code == "ERR-MFA-INVALID"
    else:
        assert (await refused(room.addresses["email"].confirm(somebody(), setup.id, mine))).code == "ERR-MFA-INVALID"
    assert await confirmed(room) == ("", None)


# -- how often --------------------------------------------------------------------------------------------------------


async def test_wrong_old_and_void_codes_are_one_error(room: Room, own: OwnAddress) -> None:
    await own.send(somebody())
    first = room.post.last
    errors = [await refused(own.confirm(somebody(), typed)) for typed in (wrong(first), "", "x" * 64)]
    room.clock.advance(30)
    await own.send(somebody())
    second = room.post.last
    if first != second:
        errors.append(await refused(own.confirm(somebody(), first)))
    room.clock.advance(LIFETIME)
    errors.append(await refused(own.confirm(somebody(), second)))
    assert {(error.code, error.status, error.detail) for error in errors} == {
        ("ERR-MFA-INVALID", 400, "That code is not right, too old, or a newer one was sent.")
    }
    assert await confirmed(room) == ("", None)
    told = [dict(event.detail) for event in room.ledger.of(Kind.FACTOR_REFUSED)]
    assert told == [{"factor": "email", "about": "confirm", "why": "code"}] * len(errors)


async def test_after_five_tries_the_right_one_waits_too(room: Room, own: OwnAddress) -> None:
    await own.send(somebody())
    for _ in range(RUN):
        assert (await refused(own.confirm(somebody(), wrong(room.post.last)))).code == "ERR-MFA-INVALID"
    error = await refused(own.confirm(somebody(session="session-2"), room.post.last))
    assert (error.code, error.status) == ("ERR-MFA-THROTTLED", 429), "another session is the same person"
    assert error.retry_after > 0
    assert (await refused(own.confirm(somebody(), room.post.last))).code == "ERR-MFA-THROTTLED"
    assert await confirmed(room) == ("", None)


async def test_codes_are_counted_with_those_of_the_factor(room: Room, own: OwnAddress) -> None:
    await own.send(somebody())
    error = await refused(own.send(somebody()))
    assert (error.code, error.status, error.retry_after) == ("ERR-MFA-RESEND", 429, 30.0)
    assert (await refused(room.addresses["email"].begin(somebody(), OTHER))).code == "ERR-MFA-RESEND"
    assert len(room.post.box) == 1
    for _ in range(4):
        room.clock.advance(300)
        await own.send(fresh(room))
    room.clock.advance(HOUR)
    assert (await refused(own.send(fresh(room)))).code == "ERR-MFA-RESEND", (
        "five a day, for it is not known whose it is"
    )
    room.clock.advance(DAY)
    await own.send(fresh(room))
    assert len(room.post.box) == 6


async def test_an_address_that_takes_nothing_looks_like_any_other(room: Room, own: OwnAddress) -> None:
    room.post.refuses = UserError("ERR-UNREACHABLE", "No messages can be sent to this address.")
    await own.send(somebody())
    assert (await own.standing(somebody())).sent
    (sent,) = room.ledger.of(Kind.CODE_SENT)
    assert sent.detail["held_back"] == "ERR-UNREACHABLE"


# -- at once ----------------------------------------------------------------------------------------------------------


@both
async def test_of_four_right_answers_at_once_one_confirms(room: Room, own: OwnAddress) -> None:
    await own.send(somebody())
    tries = [each.confirm(somebody(), room.post.last) for each in (own, of(room), own, of(room))]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == ["NoneType", "UserError", "UserError", "UserError"]
    assert len(room.ledger.of(Kind.ADDRESS_CONFIRMED)) == 1
    assert await confirmed(room) == (MAIL, NOW)


async def test_two_sessions_with_a_code_each_are_both_told_that_it_is(room: Room, own: OwnAddress) -> None:
    await own.send(somebody())
    first = room.post.last
    room.clock.advance(60)
    await own.send(somebody(session="session-2"))
    await own.confirm(somebody(session="session-2"), room.post.last)
    await own.confirm(somebody(), first)
    assert await confirmed(room) == (MAIL, NOW + 60)
    assert len(room.ledger.of(Kind.ADDRESS_CONFIRMED)) == 1, "told once"


async def test_where_the_records_are_away_nothing_is_confirmed(
    room: Room, own: OwnAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    await own.send(somebody())

    async def away(*_: Any) -> None:
        raise StoreAway("away")

    monkeypatch.setattr(room.factors.attempts, "succeeded", away)
    with pytest.raises(StoreAway):
        await own.confirm(somebody(), room.post.last)
    monkeypatch.undo()
    assert await confirmed(room) == ("", None)
    await own.confirm(somebody(), room.post.last)
    assert await confirmed(room) == (MAIL, NOW), "the code was not used up"


# -- bound as a factor -------------------------------------------------------------------------------------------------


@both
async def test_bound_as_a_factor_it_is_confirmed_by_the_same_code(room: Room, own: OwnAddress) -> None:
    setup = await room.addresses["email"].begin(somebody(), MAIL)
    assert await confirmed(room) == ("", None)
    await room.addresses["email"].confirm(somebody(), setup.id, room.post.last)
    assert await confirmed(room) == (MAIL, NOW)
    (told,) = room.ledger.of(Kind.ADDRESS_CONFIRMED)
    assert dict(told.detail) == {"factor": "email"}, "a new factor is told of; not twice"
    assert (await own.standing(somebody())).confirmed_at == NOW


async def test_another_address_that_is_bound_confirms_nothing(room: Room, own: OwnAddress) -> None:
    for factor, typed in (("email", OTHER), ("sms", "+90 532 123 45 12")):
        setup = await room.addresses[factor].begin(fresh(room), typed)
        await room.addresses[factor].confirm(fresh(room), setup.id, room.post.last)
    assert await confirmed(room) == ("", None)
    assert not room.ledger.of(Kind.ADDRESS_CONFIRMED)


async def test_what_nobody_could_be_told_of_is_not_confirmed(room: Room, own: OwnAddress) -> None:
    """A gateway is stopped between the change and its event; the code is good still."""

    ann = somebody()
    await own.send(ann)
    code = room.post.box[-1].code
    with room.ledger.stopped():
        await own.confirm(ann, code)
    assert (await confirmed(room))[0] == ""
    await own.confirm(ann, code)
    assert (await confirmed(room))[0] == MAIL
    assert len(room.ledger.of(Kind.ADDRESS_CONFIRMED)) == 1
