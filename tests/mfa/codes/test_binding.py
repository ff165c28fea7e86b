"""Binding an address (cases 109, 113, 115)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select

from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind, Place
from gateway.core.identity import DEFAULT_TENANT, Identity, Proof
from gateway.mfa.codes.binding import ADDRESSES
from gateway.mfa.codes.code import LIFETIME
from gateway.mfa.codes.sends import DAY, HOUR, STRANGERS
from gateway.mfa.sealed import place_of
from gateway.store.tables import factors, kept
from tests.mfa.codes.conftest import ANN, BOTH, ask, own, refused, wrong
from tests.mfa.conftest import NOW, Room, somebody

MAIL = "ann@example.org"


def fresh(room: Room, name: str = "ann", session: str = "session-1") -> Identity:
    now = room.clock.now()
    return somebody(name, at=now, proofs=(Proof("password", now), Proof("sms", now)), session=session)


@BOTH
@pytest.mark.parametrize(
    ("factor", "typed", "address", "masked"),
    [("sms", " +90 532 123 45 12 ", ANN, "+90 *** ** 12"), ("email", " Ann@Example.org", MAIL, "a***@example.org")],
)
async def test_an_address_is_bound_by_the_code_that_came_to_it(
    room: Room, factor: str, typed: str, address: str, masked: str
) -> None:
    ann, binding = somebody(), room.addresses[factor]
    setup = await binding.begin(ann, typed, language="tr")
    assert (setup.masked, setup.again_in) == (masked, 30.0)
    assert (await binding.look(ann, setup.id)).masked == masked
    assert await room.factors.of(DEFAULT_TENANT, "s-ann") == []  # nothing before the code
    (posted,) = room.post.box
    assert (posted.channel, posted.to, posted.about, posted.language) == (factor, address, "enrol", "tr")
    room.clock.advance(60)
    proof, codes = await binding.confirm(ann, setup.id, posted.code, label=" my\x07 phone ", place=Place("192.0.2.7"))
    assert (proof, len(codes)) == (Proof(factor, NOW + 60), 10)
    one = next(each for each in await room.factors.of(DEFAULT_TENANT, "s-ann") if each.kind == factor)
    assert (one.label, one.created_at, one.last_used_at) == ("my phone", NOW + 60, NOW + 60)
    async with room.records.read() as connection:
        sealed: bytes | None = await connection.scalar(select(factors.c.secret).where(factors.c.id == one.id))
        left = list(await connection.scalars(select(kept.c.key)))
    assert sealed is not None
    assert room.sealer.unseal(sealed, **place_of(DEFAULT_TENANT, one.id)) == address.encode()
    assert [place for place in left if "setup" in place] == []
    assert await room.factors.addresses(DEFAULT_TENANT, "s-ann") == {one.id: masked}
    (enrolled,) = room.ledger.of(Kind.FACTOR_ENROLLED)
    assert (enrolled.address, dict(enrolled.detail)) == ("192.0.2.7", {"factor": factor, "id": one.id})
    assert address not in repr(room.ledger.events)
    asked = await ask(room)
    room.clock.advance(HOUR)
    asked = await ask(room)
    await asked.send(factor)
    assert await asked.answer(room.post.last, factor)


async def test_a_second_one_brings_no_backup_codes(room: Room) -> None:
    setup = await room.addresses["sms"].begin(somebody(), ANN)
    await room.addresses["sms"].confirm(somebody(), setup.id, room.post.last)
    room.clock.advance(HOUR)
    setup = await room.addresses["sms"].begin(fresh(room), "+12025550143")
    assert (await room.addresses["sms"].confirm(fresh(room), setup.id, room.post.last))[1] == ()


# -- who may ----------------------------------------------------------------------------------------------------------


async def test_it_takes_a_fresh_sign_in_and_a_second_factor_where_there_is_one(room: Room) -> None:
    old = somebody(at=NOW - 301)
    for factor, typed in (("sms", ANN), ("email", MAIL)):
        assert (await refused(room.addresses[factor].begin(old, typed))).code == "ERR-MFA-SIGN-IN-AGAIN"
    await room.bind()
    for who in (somebody(), old, somebody(proofs=(Proof("password", NOW), Proof("totp", NOW - 301)))):
        assert (await refused(room.addresses["sms"].begin(who, ANN))).code == "ERR-MFA-STEP-UP"
    assert room.post.box == []


async def test_a_first_factor_of_somebody_else_in_between_wins(room: Room) -> None:
    setup = await room.addresses["sms"].begin(somebody(), ANN)
    await room.bind()
    assert (
        await refused(room.addresses["sms"].confirm(somebody(), setup.id, room.post.last))
    ).code == "ERR-MFA-STEP-UP"
    assert [one.kind for one in await room.factors.of(DEFAULT_TENANT, "s-ann")] == ["totp"]


async def test_a_setup_is_of_one_session_of_one_user(room: Room) -> None:
    setup = await room.addresses["sms"].begin(somebody(), ANN)
    for who in (somebody("bob"), somebody(session="session-2"), replace(somebody(), session=None)):
        for call in (
            room.addresses["sms"].look(who, setup.id),
            room.addresses["sms"].again(who, setup.id),
            room.addresses["sms"].confirm(who, setup.id, room.post.last),
        ):
            error = await refused(call)
            assert (error.code, error.status) == ("ERR-MFA-SETUP", 410)
    for setup_id in ("", "sms.", "\0", "sms.x" * 1000, setup.id + "x", setup.id.replace("sms.", "email.")):
        assert (await refused(room.addresses["sms"].confirm(somebody(), setup_id, "1"))).code == "ERR-MFA-SETUP"
    assert (await refused(room.addresses["email"].confirm(somebody(), setup.id, "1"))).code == "ERR-MFA-SETUP"
    assert len(room.post.box) == 1


# -- codes ------------------------------------------------------------------------------------------------------------


async def test_a_code_of_another_setup_binds_nothing(room: Room) -> None:
    first = await room.addresses["sms"].begin(somebody(), ANN)
    code = room.post.last
    room.clock.advance(30)
    second = await room.addresses["sms"].begin(somebody(), "+12025550143")
    for setup_id, typed in ((first.id, code), (first.id, room.post.last), (second.id, code)):
        if typed == room.post.last and setup_id == second.id:
            continue  # one time in a million the two are the same
        assert (await refused(room.addresses["sms"].confirm(somebody(), setup_id, typed))).code == "ERR-MFA-INVALID"
    await room.addresses["sms"].confirm(somebody(), second.id, room.post.last)
    assert list((await room.factors.addresses(DEFAULT_TENANT, "s-ann")).values()) == ["+1 *** ** 43"]


async def test_a_new_code_voids_the_old_one_and_has_to_wait(room: Room) -> None:
    binding = room.addresses["sms"]
    setup = await binding.begin(somebody(), ANN)
    old = room.post.last
    error = await refused(binding.again(somebody(), setup.id))
    assert (error.code, error.status, error.retry_after) == ("ERR-MFA-RESEND", 429, 30.0)
    room.clock.advance(30)
    assert (await binding.again(somebody(), setup.id)).again_in == 60.0
    if room.post.last != old:
        assert (await refused(binding.confirm(somebody(), setup.id, old))).code == "ERR-MFA-INVALID"
    await binding.confirm(somebody(), setup.id, room.post.last)


@BOTH
async def test_right_codes_at_once_bind_once(room: Room, replica: Room) -> None:
    setup = await room.addresses["sms"].begin(somebody(), ANN)
    code = room.post.last
    done = await asyncio.gather(
        *(each.addresses["sms"].confirm(somebody(), setup.id, code) for each in (room, replica) for _ in range(2)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, tuple) for one in done) == 1
    assert {one.code for one in done if isinstance(one, UserError)} <= {
        "ERR-MFA-SETUP", "ERR-MFA-INVALID", "ERR-MFA-STEP-UP",
    }  # fmt: skip
    assert not [one for one in done if not isinstance(one, UserError | tuple)]
    assert len(await room.factors.addresses(DEFAULT_TENANT, "s-ann")) == 1


async def test_five_tries(room: Room) -> None:
    binding = room.addresses["sms"]
    setup = await binding.begin(somebody(), ANN)
    for typed in (wrong(room.post.last), "", "\0", "9" * 10_000, "١٢٣٤٥٦"):
        assert (await refused(binding.confirm(somebody(), setup.id, typed))).code == "ERR-MFA-INVALID"
    error = await refused(binding.confirm(somebody(), setup.id, room.post.last))
    assert (error.code, error.retry_after) == ("ERR-MFA-THROTTLED", 900.0)
    told = room.ledger.of(Kind.FACTOR_REFUSED)
    assert [event.detail["why"] for event in told] == ["code"] * 5 + ["throttled"]


async def test_a_setup_is_over_after_ten_minutes(room: Room) -> None:
    setup = await room.addresses["sms"].begin(somebody(), ANN)
    room.clock.advance(LIFETIME)
    for call in (
        room.addresses["sms"].confirm(somebody(), setup.id, room.post.last),
        room.addresses["sms"].again(somebody(), setup.id),
        room.addresses["sms"].look(somebody(), setup.id),
    ):
        assert (await refused(call)).code == "ERR-MFA-SETUP"
    assert len(room.post.box) == 1


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "typed", "code"),
    [("sms", typed, "ERR-PHONE-INVALID") for typed in ("", "0532 123", "+90x", "+9" * 5000, "\0", "ann@example.org")]
    + [("email", typed, "ERR-EMAIL-INVALID") for typed in ("", "ann", "@", "a@" + "b" * 5000, ANN)],
)
async def test_an_address_that_is_none_is_told_and_nothing_is_sent(
    room: Room, factor: str, typed: str, code: str
) -> None:
    assert (await refused(room.addresses[factor].begin(somebody(), typed, place=Place(request_id="r1")))).code == code
    assert room.post.box == []
    (told,) = room.ledger.of(Kind.FACTOR_REFUSED)
    assert (told.user, told.request_id, dict(told.detail)) == ("ann", "r1", {"factor": factor, "why": "address"})
    assert (await room.addresses[factor].begin(somebody(), ANN if factor == "sms" else MAIL)).again_in == 30.0


async def test_an_address_of_somebody_else_looks_like_any_other(room: Room) -> None:
    await own(room, ANN, subject="s-bob", factor_id="f-bob")
    setup = await room.addresses["sms"].begin(somebody(), ANN)
    assert (setup.masked, setup.again_in) == ("+90 *** ** 12", 30.0)
    await room.addresses["sms"].confirm(somebody(), setup.id, room.post.last)


async def test_an_address_that_may_not_be_written_to_looks_like_any_other(room: Room) -> None:
    room.post.refuses = UserError("ERR-UNREACHABLE", "It bounced.")
    setup = await room.addresses["email"].begin(somebody(), MAIL)
    assert (setup.masked, setup.again_in) == ("a***@example.org", 30.0)
    assert (await refused(room.addresses["email"].confirm(somebody(), setup.id, "000000"))).code == "ERR-MFA-INVALID"
    assert room.ledger.of(Kind.CODE_SENT)[0].detail["held_back"] == "ERR-UNREACHABLE"


@BOTH
async def test_ones_own_is_bound_once_and_there_are_five(room: Room) -> None:
    for number in range(ADDRESSES - 1):
        await own(room, f"+1202555014{number}", factor_id=f"f-{number}", failures=100 * (number % 2))
    binding = room.addresses["sms"]
    error = await refused(binding.begin(fresh(room), "+12025550141"))
    assert (error.code, error.status) == ("ERR-MFA-ADDRESS-KNOWN", 409)
    setup = await binding.begin(fresh(room), ANN)
    await own(room, "+12025550149", factor_id="f-9")  # in another tab
    error = await refused(binding.confirm(fresh(room), setup.id, room.post.last))
    assert (error.code, error.status) == ("ERR-MFA-TOO-MANY", 409)
    assert (await refused(binding.begin(fresh(room), "+12025550150"))).code == "ERR-MFA-TOO-MANY"
    assert len(room.post.box) == 1
    room.clock.advance(HOUR)
    assert (await room.addresses["email"].begin(fresh(room), MAIL)).masked == "a***@example.org"


async def test_strangers_reach_an_address_five_times_and_its_owner_still_can(room: Room) -> None:
    """Case 115: setting up somebody else's number, again and again."""
    await own(room, ANN, subject="s-bob", factor_id="f-bob")
    sent = 0
    for _ in range(8):
        try:
            await room.addresses["sms"].begin(somebody(at=room.clock.now()), ANN)
            sent += 1
        except UserError as error:
            assert error.code == "ERR-MFA-RESEND"  # noqa: PT017
        room.clock.advance(HOUR)
    assert sent == STRANGERS
    assert room.ledger.of(Kind.CODE_REFUSED)[-1].detail == {"factor": "sms", "why": "address"}
    asked = await ask(room, somebody("bob"))
    await asked.send()
    assert await asked.answer(room.post.last)
    room.clock.advance(DAY)
    assert await room.addresses["sms"].begin(somebody(at=room.clock.now()), ANN)


async def test_a_mailbox_is_one_however_it_is_spelled(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 115: most hosts know no case, and deliver what stands behind a plus into the same mailbox."""
    monkeypatch.setattr(room.post, "address", lambda channel, text: text)
    sent = 0
    for spelled in ("ann@x.org", "Ann@x.org", "ann+1@x.org", "aNN+@X.ORG", "ANN@x.org", "ann+2@x.org", "anN+a+b@x.org"):
        try:
            await room.addresses["email"].begin(somebody(at=room.clock.now()), spelled)
            sent += 1
        except UserError as error:
            assert error.code == "ERR-MFA-RESEND"  # noqa: PT017
        room.clock.advance(HOUR)
    assert sent == STRANGERS
    assert room.ledger.of(Kind.CODE_REFUSED)[-1].detail == {"factor": "email", "why": "address"}
    assert await room.addresses["email"].begin(somebody(at=room.clock.now()), "anna@x.org")


@BOTH
async def test_without_the_database_nothing_has_happened(room: Room) -> None:
    room.post.refuses = StoreAway("gone")
    with pytest.raises(StoreAway):
        await room.addresses["sms"].begin(somebody(), ANN)
    async with room.records.read() as connection:
        assert list(await connection.scalars(select(kept.c.key))) == []
    room.post.refuses = None
    setup = await room.addresses["sms"].begin(somebody(), ANN)
    assert setup.again_in == 30.0  # the one that failed was not counted
    await room.addresses["sms"].confirm(somebody(), setup.id, room.post.last)
