"""Codes as answers to a challenge (cases 105, 109, 115)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import delete, select, update

from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind
from gateway.core.identity import AMR, Level, Proof, level_of
from gateway.core.rule import StepUpDemand
from gateway.crypto.tokens import digest
from gateway.mfa.attempts import LIFE
from gateway.mfa.codes import code as codes
from gateway.mfa.codes.code import LIFETIME, Question, draw
from gateway.mfa.codes.sends import DAILY, DAY, HOUR, HOURLY
from gateway.mfa.stepup import GONE
from gateway.store.tables import code_sends, factors, kept
from tests.mfa.codes.conftest import AAL2, ANN, BOTH, Asked, ask, own, refused, wrong
from tests.mfa.conftest import NOW, Room, proven, somebody

MAIL = "ann@example.org"


# -- sending and answering --------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("factor", "address", "masked"), [("sms", ANN, "+90 *** ** 12"), ("email", MAIL, "a***@example.org")]
)
async def test_a_code_goes_out_and_comes_back(room: Room, factor: str, address: str, masked: str) -> None:
    bound = await own(room, address)
    asked = await ask(room)
    assert (await room.stepups.look(asked.ticket, asked.who)).offered == (factor,)
    sending = await asked.send(factor, language="tr")
    assert (sending.masked, sending.again_in, sending.id) == (masked, 30.0, bound)
    (posted,) = room.post.box
    assert (posted.channel, posted.to, posted.about, posted.language) == (factor, address, "verify", "tr")
    assert posted.expires_at == NOW + LIFETIME
    assert (len(posted.code), posted.code.isdigit()) == (6, True)
    room.clock.advance(40)
    proof = await asked.answer(f" {posted.code[:3]} {posted.code[3:]}", factor)
    assert proof == Proof(factor, NOW + 40)
    assert asked.who.session is not None
    assert level_of((*asked.who.session.proofs, proof)) is Level.AAL2  # type: ignore[arg-type]
    (one,) = await room.factors.of("default", "s-ann")
    assert one.last_used_at == NOW + 40
    (sent,) = room.ledger.of(Kind.CODE_SENT)
    assert (sent.user, dict(sent.detail)) == ("ann", {"factor": factor, "id": bound, "about": "verify"})
    assert room.counted == [("any", "asked"), (factor, "sent"), (factor, "passed")]


def test_every_method_has_its_reference() -> None:
    assert (AMR["sms"], AMR["email"]) == ("sms", "otp")


def test_codes_are_drawn_from_all_of_them() -> None:
    drawn = [draw() for _ in range(20_000)]
    assert {len(code) for code in drawn} == {6}
    assert all({code[place] for code in drawn} == set("0123456789") for place in range(6))
    assert len(set(drawn)) > 19_600  # as of a million


async def test_nothing_says_a_code_or_an_address(room: Room) -> None:
    await own(room)
    asked = await ask(room)
    sending = await asked.send()
    code = room.post.last
    await refused(asked.answer(wrong(code)))
    standing = await room.stepups.standing(await room.stepups.look(asked.ticket, asked.who), asked.who, "sms")
    question = Question("default", "s-ann", "session-1", "sms", asked.ticket)
    said = repr((room.ledger.events, sending, standing, question))
    async with room.records.read() as connection:
        rows = (await connection.execute(select(kept))).all() + (await connection.execute(select(code_sends))).all()
        rows += (await connection.execute(select(factors))).all()
    assert code not in said
    assert ANN not in said
    assert asked.ticket not in said
    assert code not in str(rows)
    assert "5321234512" not in str(rows)


async def test_who_has_several_says_which(room: Room) -> None:
    await own(room, ANN, factor_id="f-1")
    await own(room, "+12025550143", factor_id="f-2")
    asked = await ask(room)
    challenge = await room.stepups.look(asked.ticket, asked.who)
    standing = await room.stepups.standing(challenge, asked.who, "sms")
    assert standing is not None
    assert [(one.id, one.masked) for one in standing.targets] == [("f-1", "+90 *** ** 12"), ("f-2", "+1 *** ** 43")]
    assert (await asked.send(to="f-2")).masked == "+1 *** ** 43"
    assert room.post.box[0].to == "+12025550143"
    standing = await room.stepups.standing(challenge, asked.who, "sms")
    assert standing is not None
    assert (standing.sent_to, standing.again_in) == ("+1 *** ** 43", 30.0)
    await asked.answer(room.post.last)
    asked = await ask(room)
    challenge = await room.stepups.look(asked.ticket, asked.who)
    standing = await room.stepups.standing(challenge, asked.who, "sms")
    assert standing is not None
    assert [one.id for one in standing.targets] == ["f-2", "f-1"]  # the one used last first
    assert standing.sent_to == ""
    assert await room.stepups.standing(challenge, asked.who, "totp") is None


async def test_an_address_of_somebody_else_is_none(room: Room) -> None:
    await own(room)
    await own(room, "+12025550143", subject="s-bob", factor_id="f-bob")
    asked = await ask(room)
    for to in ("f-bob", "nothing", "\0", "f-1/"):
        assert (await refused(asked.send(to=to))).code == "ERR-MFA-METHOD"
    assert room.post.box == []
    assert [event.detail["factor"] for event in room.ledger.of(Kind.CODE_REFUSED)] == ["other"] * 4


@pytest.mark.parametrize(
    "factor", ["totp", "backup_code", "email", "webauthn", "password", "", "sms_setup", "sms-setup"]
)
async def test_what_is_not_sent_cannot_be_asked_for(room: Room, factor: str) -> None:
    await own(room)
    await room.bind()
    await room.give_codes()
    asked = await ask(room)
    assert (await refused(asked.send(factor))).code == "ERR-MFA-METHOD"
    assert room.post.box == []


async def test_a_rule_that_counts_other_factors_has_nothing_sent(room: Room) -> None:
    await own(room)
    for demand in (StepUpDemand(Level.AAL2, frozenset({"totp"})), StepUpDemand(Level.AAL3)):
        ticket = await room.stepups.begin(somebody(), demand, return_to="/")
        assert (await refused(room.stepups.send(ticket, somebody(), "sms"))).code == "ERR-MFA-METHOD"
    ticket = await room.stepups.begin(somebody(), StepUpDemand(Level.AAL2, frozenset({"sms"})), return_to="/")
    assert (await room.stepups.look(ticket, somebody())).offered == ("sms",)


# -- bound to one question --------------------------------------------------------------------------------------------


async def test_a_code_counts_once(room: Room) -> None:
    await own(room)
    asked = await ask(room)
    await asked.send()
    await asked.answer(room.post.last)
    assert (await refused(asked.answer(room.post.last))).code == GONE
    assert (await refused((await ask(room)).answer(room.post.last))).code == "ERR-MFA-INVALID"


@BOTH
async def test_twenty_right_answers_at_once_are_one_success(room: Room, replica: Room) -> None:
    await own(room)
    asked = await ask(room)
    await asked.send()
    code, where = room.post.last, [asked, asked.elsewhere(replica)]
    answers = await asyncio.gather(*(where[n % 2].answer(code) for n in range(20)), return_exceptions=True)
    assert sum(isinstance(answer, Proof) for answer in answers) == 1
    assert {answer.code for answer in answers if isinstance(answer, UserError)} <= {
        GONE, "ERR-MFA-INVALID", "ERR-MFA-THROTTLED",
    }  # fmt: skip
    assert not [answer for answer in answers if not isinstance(answer, UserError | Proof)]
    passed = [*room.ledger.of(Kind.STEP_UP_PASSED), *replica.ledger.of(Kind.STEP_UP_PASSED)]
    assert len(passed) == 1


@BOTH
async def test_one_code_at_once_for_one_claim(room: Room, replica: Room) -> None:
    """The claim itself, without the counters before it."""
    await own(room)
    asked = await ask(room)
    await asked.send()
    challenge = await room.stepups.look(asked.ticket, asked.who)
    about = challenge.asked(asked.who.session_id)
    checked = await asyncio.gather(
        *(
            each.judge(each.sms, "default", "s-ann", room.post.last, about)
            for each in (room, replica)
            for _ in range(10)
        )
    )
    assert sum(proof is not None for proof in checked) == 1


async def test_a_code_is_for_one_challenge_of_one_session_of_one_user(room: Room) -> None:
    """Case 109."""
    await own(room)
    await own(room, ANN, subject="s-bob", factor_id="f-bob")
    first, second = await ask(room), await ask(room)
    elsewhere = await ask(room, somebody(session="session-2"))
    bob = await ask(room, somebody("bob"))
    await first.send()
    code = room.post.last
    for other in (second, elsewhere, bob):
        assert (await refused(other.answer(code))).code == "ERR-MFA-INVALID"
    for other in (elsewhere, bob):
        assert (await refused(replace(other, ticket=first.ticket).answer(code))).code == GONE
    assert await first.answer(code)


async def test_a_code_by_mail_is_no_code_by_text(room: Room) -> None:
    await own(room)
    await own(room, MAIL, factor_id="f-mail")
    asked = await ask(room)
    await asked.send("sms")
    text = room.post.last
    await asked.send("email")
    mail = room.post.last
    if text != mail:
        assert (await refused(asked.answer(text, "email"))).code == "ERR-MFA-INVALID"
        assert (await refused(asked.answer(mail, "sms"))).code == "ERR-MFA-INVALID"
    assert await asked.answer(text, "sms") == Proof("sms", NOW)


@BOTH
async def test_a_new_code_voids_the_old_one(room: Room) -> None:
    await own(room)
    asked = await ask(room)
    await asked.send()
    old = room.post.last
    room.clock.advance(30)
    await asked.send()
    while room.post.last == old:  # one time in a million
        room.clock.advance(HOUR)
        await asked.send()
    error = await refused(asked.answer(old))
    assert (error.code, "newer one" in error.detail) == ("ERR-MFA-INVALID", True)
    assert await asked.answer(room.post.last)


async def test_a_new_code_in_another_tab_voids_the_old_one(room: Room) -> None:
    await own(room)
    first, second = await ask(room), await ask(room)
    await first.send()
    old = room.post.last
    room.clock.advance(30)
    await second.send()
    assert (await refused(first.answer(old))).code == "ERR-MFA-INVALID"
    challenge = await room.stepups.look(first.ticket, first.who)
    standing = await room.stepups.standing(challenge, first.who, "sms")
    assert standing is not None
    assert standing.sent_to == ""


async def test_whoever_asks_in_another_session_voids_nothing(room: Room) -> None:
    """Whoever knows the password has codes sent; the owner's counts all the same."""
    await own(room)
    mine, thiefs = await ask(room), await ask(room, somebody(session="session-2"))
    await mine.send()
    code = room.post.last
    room.clock.advance(30)
    await thiefs.send()
    assert await mine.answer(code)


async def test_a_code_is_over_after_ten_minutes(room: Room) -> None:
    await own(room)
    asked = await ask(room)
    room.clock.advance(1)
    await asked.send()
    early = room.post.last
    challenge = await room.stepups.look(asked.ticket, asked.who)
    room.clock.advance(LIFETIME)
    assert await room.judge(room.sms, "default", "s-ann", early, challenge.asked(asked.who.session_id)) is None
    assert (await refused(asked.answer(early))).code == GONE


async def test_a_row_that_was_changed_recognises_no_code(room: Room) -> None:
    """Somebody who can write the database, and has no key."""
    await own(room)
    await own(room, "+12025550143", factor_id="f-2")
    asked, other = await ask(room), await ask(room, somebody(session="session-2"))
    await asked.send(to="f-1")
    here = Question("default", "s-ann", "session-1", "sms", asked.ticket).place
    there = Question("default", "s-ann", "session-2", "sms", other.ticket).place
    async with room.records.begin() as connection:
        row: bytes | None = await connection.scalar(select(kept.c.value).where(kept.c.key == here))
        assert row is not None
        await connection.execute(update(kept).where(kept.c.key == here).values(value=row.replace(b'"f-1"', b'"f-2"')))
    assert (await refused(asked.answer(room.post.last))).code == "ERR-MFA-INVALID"
    async with room.records.begin() as connection:
        await connection.execute(update(kept).where(kept.c.key == here).values(key=there, value=row))
    assert (await refused(other.answer(room.post.last))).code == "ERR-MFA-INVALID"
    moved = row.replace(digest(asked.ticket).hex().encode(), digest(other.ticket).hex().encode())
    assert moved != row
    async with room.records.begin() as connection:  # made out to that question too: it was drawn for this one
        await connection.execute(update(kept).where(kept.c.key == there).values(value=moved))
    assert (await refused(other.answer(room.post.last))).code == "ERR-MFA-INVALID"
    second = await ask(room)
    moved = row.replace(digest(asked.ticket).hex().encode(), digest(second.ticket).hex().encode())
    async with room.records.begin() as connection:  # of another question of the same session
        await connection.execute(update(kept).where(kept.c.key == there).values(key=here, value=moved))
    assert (await refused(second.answer(room.post.last))).code == "ERR-MFA-INVALID"


async def test_a_code_that_was_replaced_while_it_was_looked_at_is_not_claimed(room: Room) -> None:
    question = Question("default", "s-ann", "session-1", "sms", "ticket")
    async with room.records.begin("default", "s-ann") as connection:
        await codes.keep(connection, room.mac, question, "f-1", "123456", NOW)
        seen = await codes.live(connection, question, NOW)
        assert seen is not None
        await codes.keep(connection, room.mac, question, "f-1", "654321", NOW)
        assert not await codes.claim(connection, question, seen)
        newer = await codes.live(connection, question, NOW)
        assert newer is not None
        assert await codes.claim(connection, question, newer)


async def test_of_several_addresses_one_that_is_out_of_use_is_sent_nothing(room: Room) -> None:
    await own(room)
    await own(room, "+12025550143", factor_id="f-2", failures=LIFE)
    asked = await ask(room)
    assert (await refused(asked.send(to="f-2"))).code == "ERR-MFA-METHOD"
    challenge = await room.stepups.look(asked.ticket, asked.who)
    standing = await room.stepups.standing(challenge, asked.who, "sms")
    assert standing is not None
    assert [one.id for one in standing.targets] == ["f-1"]
    assert room.post.box == []


async def test_an_address_that_is_gone_or_out_of_use_answers_nothing(room: Room) -> None:
    await own(room)
    await own(room, "+12025550143", factor_id="f-2")
    asked = await ask(room)
    await asked.send(to="f-1")
    async with room.records.begin() as connection:
        await connection.execute(delete(factors).where(factors.c.id == "f-1"))
    assert (await refused(asked.answer(room.post.last))).code == "ERR-MFA-INVALID"
    assert (await refused(asked.send(to="f-1"))).code == "ERR-MFA-METHOD"
    async with room.records.begin() as connection:
        await connection.execute(update(factors).where(factors.c.id == "f-2").values(failures=LIFE))
    assert (await refused(asked.send())).code == "ERR-MFA-DISABLED"
    assert (await room.stepups.look(asked.ticket, asked.who)).offered == ()


async def test_foreign_and_ended_challenges_have_nothing_sent(room: Room) -> None:
    await own(room)
    await own(room, ANN, subject="s-bob", factor_id="f-bob")
    asked = await ask(room)
    for who in (somebody("bob"), somebody(session="session-2"), replace(somebody(), session=None)):
        error = await refused(room.stepups.send(asked.ticket, who, "sms"))
        assert (error.code, error.status) == (GONE, 410)
    await asked.send()
    await asked.answer(room.post.last)
    later = proven(somebody(), Proof("sms", NOW))
    for who in (asked.who, later):
        assert (await refused(room.stepups.send(asked.ticket, who, "sms"))).code == GONE
    assert len(room.post.box) == 1


# -- wrong answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", ["", " ", "0", "12345", "1234567", "\0", "9" * 10_000, "١٢٣٤٥٦", "\ud800", "' OR 1=1 --"]
)
async def test_an_odd_answer_is_a_wrong_one_and_told_once(room: Room, answer: str) -> None:
    await own(room)
    asked = await ask(room)
    for sent in (False, True):
        if sent:
            await asked.send()
        error = await refused(asked.answer(answer))
        assert (error.code, error.status, error.detail) == (
            "ERR-MFA-INVALID", 400, "That code is not right, too old, or a newer one was sent.",
        )  # fmt: skip
    assert len(room.ledger.of(Kind.STEP_UP_FAILED)) == 2


async def test_five_tries_whatever_is_sent_in_between(room: Room) -> None:
    """Case 105: a new code is no new lottery ticket."""
    await own(room)
    await own(room, MAIL, factor_id="f-mail")
    asked = await ask(room)
    for number in range(5):
        if number in (0, 2, 3):
            room.clock.advance(120)
            await asked.send()
        assert (await refused(asked.answer(wrong(room.post.last)))).code == "ERR-MFA-INVALID"
    error = await refused(asked.answer(room.post.last))
    assert (error.code, error.retry_after) == ("ERR-MFA-THROTTLED", 900.0)
    await asked.send("email")  # the other factor is as it was
    assert await asked.answer(room.post.last, "email")


@BOTH
async def test_a_hundred_parallel_guesses_are_five(room: Room, replica: Room) -> None:
    await own(room)
    asked = await ask(room)
    await asked.send()
    guesses = [wrong(room.post.last)] * 30
    where = [asked, asked.elsewhere(replica)]
    answers = await asyncio.gather(
        *(where[n % 2].answer(guess) for n, guess in enumerate(guesses)), return_exceptions=True
    )
    codes = [answer.code for answer in answers if isinstance(answer, UserError)]
    assert (codes.count("ERR-MFA-INVALID"), codes.count("ERR-MFA-THROTTLED")) == (5, 25)


# -- how often --------------------------------------------------------------------------------------------------------


async def test_a_second_one_waits_and_says_how_long(room: Room) -> None:
    await own(room)
    asked = await ask(room)
    waits = [30.0, 60.0, 120.0, 240.0]
    for wait in waits:
        assert (await asked.send()).again_in == wait
        room.clock.advance(wait / 2)
        error = await refused(asked.send())
        assert (error.code, error.status, error.retry_after) == ("ERR-MFA-RESEND", 429, wait / 2)
        assert (await asked.room.stepups.look(asked.ticket, asked.who)).offered == ("sms",)
        room.clock.advance(wait / 2)
    assert (await asked.send()).again_in == HOUR - sum(waits)
    assert (await refused(asked.send())).retry_after == HOUR - sum(waits)
    assert len(room.post.box) == HOURLY
    refusals = room.ledger.of(Kind.CODE_REFUSED)
    assert [event.detail["why"] for event in refusals] == ["user"] * 5
    assert room.counted.count(("sms", "resend_refused")) == 5
    assert await asked.answer(room.post.last)  # refusals void nothing


@BOTH
async def test_twenty_wishes_at_once_are_one_code(room: Room, replica: Room) -> None:
    await own(room)
    asked = await ask(room)
    where = [asked, asked.elsewhere(replica)]
    sent = await asyncio.gather(*(where[n % 2].send() for n in range(20)), return_exceptions=True)
    assert [one.code for one in sent if isinstance(one, UserError)] == ["ERR-MFA-RESEND"] * 19
    assert len(room.post.box) == 1


async def test_whoever_floods_a_victim_reaches_them_ten_times_a_day(room: Room, replica: Room) -> None:
    """Case 115: however many sessions and accounts; and the victim still has every other way."""
    for number in range(12):
        await own(room, ANN, subject="s-ann" if number % 2 else "s-bob", factor_id=f"f-{number}")
    await own(room, MAIL, factor_id="f-mail")
    secret = await room.bind()
    arrived = 0
    for hour in range(4):
        for name in ("ann", "bob"):
            asked = await ask(room if hour % 2 else replica, somebody(name, session=f"session-{hour}"))
            for _ in range(HOURLY):
                try:
                    await asked.send()
                    arrived += 1
                except UserError as error:
                    assert error.code == "ERR-MFA-RESEND"  # noqa: PT017
                room.clock.advance(60)
        room.clock.advance(HOUR - 600)
    assert (arrived, len(room.post.box)) == (DAILY, DAILY)
    asked = await ask(room)
    error = await refused(asked.send())
    assert error.retry_after > HOUR
    assert room.ledger.of(Kind.CODE_REFUSED)[-1].detail["why"] == "address"
    assert (await asked.send("email")).masked == "a***@example.org"
    assert await asked.answer(room.code(secret), "totp")
    room.clock.advance(DAY)
    assert await (await ask(room)).send()


@BOTH
async def test_two_people_at_once_cannot_pass_the_limit_of_one_address(room: Room, replica: Room) -> None:
    await own(room, ANN)
    await own(room, ANN, subject="s-bob", factor_id="f-bob")
    for _ in range(DAILY - 1):
        await (await ask(room)).send()
        room.clock.advance(HOUR)
    ann, bob = await ask(room), await ask(replica, somebody("bob"))
    sent = await asyncio.gather(ann.send(), bob.send(), return_exceptions=True)
    assert [one.code for one in sent if isinstance(one, UserError)] == ["ERR-MFA-RESEND"]
    assert len(room.post.box) == DAILY


# -- an address that does not work, a database that does not -----------------------------------------------------------


async def test_an_address_that_may_not_be_written_to_looks_like_any_other(room: Room) -> None:
    await own(room)
    asked = await ask(room)
    well = await asked.send()
    room.clock.advance(HOUR)
    room.post.refuses = UserError("ERR-UNREACHABLE", "It bounced.")
    other = await ask(room, somebody(session="session-2"))
    silent = await other.send()
    assert (silent.masked, silent.again_in) == (well.masked, well.again_in)
    assert (await refused(other.send())).code == "ERR-MFA-RESEND"  # it counts
    assert len(room.post.box) == 1
    assert room.ledger.of(Kind.CODE_SENT)[-1].detail["held_back"] == "ERR-UNREACHABLE"
    assert room.counted[-2] == ("sms", "sent")


@BOTH
async def test_a_post_that_takes_no_more_says_how_long_and_voids_nothing(room: Room) -> None:
    await own(room)
    asked = await ask(room)
    await asked.send()
    room.clock.advance(30)
    room.post.refuses = UserError("ERR-THROTTLED", "Too many.", 429, 77.0)
    error = await refused(asked.send())
    assert (error.code, error.retry_after) == ("ERR-MFA-RESEND", 77.0)
    assert room.ledger.of(Kind.CODE_REFUSED)[0].detail["why"] == "post"
    room.post.refuses = None
    assert await asked.answer(room.post.last)


@BOTH
async def test_without_the_database_nothing_has_happened(room: Room) -> None:
    await own(room)
    asked = await ask(room)
    await asked.send()
    code = room.post.last
    room.clock.advance(30)
    room.post.refuses = StoreAway("gone while it was written")
    with pytest.raises(StoreAway):
        await asked.send()
    room.post.refuses = None
    assert await asked.answer(code)  # the old one is not void
    again = await ask(room)
    assert (await again.send()).again_in == 60.0  # and only what was sent was counted


async def test_an_enrolment_code_answers_no_challenge(room: Room) -> None:
    """Nor the other way round: they have places of their own."""
    await own(room, MAIL, factor_id="f-mail")
    ann = somebody(proofs=(Proof("password", NOW), Proof("totp", NOW)))
    setup = await room.addresses["sms"].begin(ann, ANN)
    code = room.post.last
    await own(room, "+12025550143", factor_id="f-2")
    asked = Asked(room, ann, await room.stepups.begin(ann, AAL2, return_to="/"))
    assert (await refused(asked.answer(code))).code == "ERR-MFA-INVALID"
    await asked.send("email")
    if room.post.last != code:
        assert (await refused(room.addresses["sms"].confirm(ann, setup.id, room.post.last))).code == "ERR-MFA-INVALID"
