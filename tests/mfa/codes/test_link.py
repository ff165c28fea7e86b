"""The link beside a code: one answer in two spellings, to one question of one session (cases 105, 109)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest
from sqlalchemy import select, update

from gateway.core.errors import UserError
from gateway.core.events import Kind
from gateway.core.identity import Proof
from gateway.mfa.attempts import RUN
from gateway.mfa.codes import link
from gateway.mfa.codes.code import LIFETIME, Question
from gateway.mfa.stepup import GONE
from gateway.store.tables import attempts, factors, kept
from tests.mfa.codes.conftest import BOTH, Asked, ask, own, refused, wrong
from tests.mfa.conftest import NOW, Room, somebody

MAIL = "ann@example.org"
INVALID = "ERR-MFA-INVALID"


async def sent(room: Room) -> tuple[Asked, str]:
    """A challenge whose letter is on its way, and the secret of its link."""
    await own(room, MAIL)
    asked = await ask(room)
    await asked.send("email")
    return asked, secret(room, asked)


def secret(room: Room, asked: Asked) -> str:
    """Of the newest letter, which is about `asked`."""
    ticket, found = link.parted(room.post.box[-1].link)
    assert ticket == asked.ticket
    return found


async def follow(asked: Asked, answer: str) -> object:
    return await asked.answer(answer, "email")


@BOTH
async def test_it_proves_what_the_code_proves(room: Room) -> None:
    asked, answer = await sent(room)
    room.clock.advance(40)
    assert await follow(asked, answer) == Proof("email", NOW + 40)
    (one,) = await room.factors.of("default", "s-ann")
    assert one.last_used_at == NOW + 40
    assert room.counted == [("any", "asked"), ("email", "sent"), ("email", "passed")]
    assert [dict(event.detail) for event in room.ledger.of(Kind.STEP_UP_PASSED)] == [
        {"factor": "email", "outcome": "passed"}
    ]


async def test_either_spends_the_other(room: Room) -> None:
    asked, answer = await sent(room)
    code = room.post.last
    await follow(asked, answer)
    assert (await refused(asked.answer(code, "email"))).code == GONE
    assert (await refused((await ask(room)).answer(code, "email"))).code == INVALID
    room.clock.advance(60)
    asked = await ask(room)
    await asked.send("email")
    answer = secret(room, asked)
    await asked.answer(room.post.last, "email")
    assert (await refused(follow(asked, answer))).code == GONE
    assert (await refused(follow(await ask(room), answer))).code == INVALID


@BOTH
async def test_of_link_and_code_at_once_one_counts(room: Room, replica: Room) -> None:
    asked, answer = await sent(room)
    both = [asked, asked.elsewhere(replica)]
    tries = [both[turn % 2].answer((answer, room.post.last)[turn // 2 % 2], "email") for turn in range(20)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, Proof) for one in answers) == 1
    assert not [one for one in answers if not isinstance(one, UserError | Proof)]
    passed = [*room.ledger.of(Kind.STEP_UP_PASSED), *replica.ledger.of(Kind.STEP_UP_PASSED)]
    assert len(passed) == 1


@BOTH
async def test_of_link_and_code_at_once_one_claims(room: Room, replica: Room) -> None:
    """The claim itself, without the counters before it."""
    asked, answer = await sent(room)
    about = (await room.stepups.look(asked.ticket, asked.who)).asked(asked.who.session_id)
    checked = await asyncio.gather(
        *(
            each.judge(each.email, "default", "s-ann", one, about)
            for each in (room, replica)
            for one in (answer, room.post.last)
            for _ in range(5)
        )
    )
    assert sum(proof is not None for proof in checked) == 1


async def test_a_newer_letter_voids_it(room: Room) -> None:
    asked, old = await sent(room)
    room.clock.advance(30)
    await asked.send("email")
    new = secret(room, asked)
    assert (await refused(follow(asked, old))).code == INVALID
    assert await follow(asked, new)


async def test_a_newer_letter_to_another_question_of_the_session_voids_it(room: Room) -> None:
    asked, old = await sent(room)
    room.clock.advance(30)
    other = await ask(room)
    await other.send("email")
    assert (await refused(follow(asked, old))).code == INVALID
    assert await follow(other, secret(room, other))


async def test_it_is_for_one_challenge_of_one_session_of_one_user(room: Room) -> None:
    """Case 109: whoever has phished the password waits in a session of their own."""
    asked, answer = await sent(room)
    await own(room, MAIL, subject="s-bob", factor_id="f-bob")
    second, elsewhere, bob = (
        await ask(room),
        await ask(room, somebody(session="session-2")),
        await ask(room, somebody("bob")),
    )
    for other in (second, elsewhere, bob):
        assert (await refused(follow(other, answer))).code == INVALID
    for other in (elsewhere, bob):
        assert (await refused(follow(replace(other, ticket=asked.ticket), answer))).code == GONE
    assert await follow(asked, answer)


async def test_it_is_over_with_the_code(room: Room) -> None:
    asked, answer = await sent(room)
    room.clock.advance(LIFETIME)
    other = await ask(room)
    assert (await refused(follow(asked, answer))).code == GONE
    assert (await refused(follow(other, answer))).code == INVALID


async def test_wrong_ones_are_tries_like_wrong_codes(room: Room) -> None:
    asked, answer = await sent(room)
    for turn in range(RUN):
        guess = "A" * 43 if turn % 2 else wrong(room.post.last)
        assert (await refused(follow(asked, guess))).code == INVALID
    error = await refused(follow(asked, answer))
    assert (error.code, error.status) == ("ERR-MFA-THROTTLED", 429)


async def test_looking_counts_nothing_and_uses_nothing_up(room: Room) -> None:
    asked, answer = await sent(room)
    challenge = await room.stepups.look(asked.ticket, asked.who)

    async def everything() -> list[str]:
        async with room.records.read() as connection:
            tables = (kept, attempts, factors)
            return [repr((await connection.execute(select(table))).all()) for table in tables]

    before, told = await everything(), len(room.ledger.events)
    look = room.stepups.is_linked
    assert await look(challenge, asked.who, "email", answer)
    for guess in ("A" * 43, answer[:-1], answer + "A", "", room.post.last, "\0", "\ud800"):
        assert not await look(challenge, asked.who, "email", guess)
    assert not await look(challenge, asked.who, "sms", answer)
    assert not await look(challenge, asked.who, "totp", answer)
    assert not await look(challenge, somebody(session="session-2"), "email", answer)
    assert (await everything(), len(room.ledger.events)) == (before, told)
    room.clock.advance(LIFETIME)
    assert not await look(challenge, asked.who, "email", answer)


async def test_only_what_answers_a_challenge_by_mail_has_one(room: Room) -> None:
    await own(room)
    asked = await ask(room)
    await asked.send("sms")
    assert room.post.box[-1].link == ""
    assert (await refused(asked.answer("A" * 43))).code == INVALID
    await room.addresses["email"].begin(somebody("bob"), MAIL)
    assert (room.post.box[-1].about, room.post.box[-1].link) == ("enrol", "")


async def test_the_marks_of_code_and_link_are_not_each_others(room: Room) -> None:
    """Somebody who can write the database, and has no key."""
    asked, answer = await sent(room)
    here = Question("default", "s-ann", "session-1", "email", asked.ticket).place
    async with room.records.begin() as connection:
        row = orjson.loads(await connection.scalar(select(kept.c.value).where(kept.c.key == here)))  # type: ignore[arg-type]
        swapped = orjson.dumps({**row, "mac": row["link"], "link": row["mac"]})
        await connection.execute(update(kept).where(kept.c.key == here).values(value=swapped))
    for given in (answer, room.post.last):
        assert (await refused(asked.answer(given, "email"))).code == INVALID
    async with room.records.begin() as connection:  # as it was kept before there were any
        old = orjson.dumps({name: value for name, value in row.items() if name != "link"})
        await connection.execute(update(kept).where(kept.c.key == here).values(value=old))
    assert (await refused(follow(asked, answer))).code == INVALID
    assert await asked.answer(room.post.last, "email")


def test_each_is_drawn_anew() -> None:
    drawn = {link.draw() for _ in range(200)}
    assert len(drawn) == 200
    assert all(link.is_secret(one) for one in drawn)


@pytest.mark.parametrize(
    "token",
    ["", ".", "x.y", "1-" + "A" * 43, "A" * 43, "1-" + "A" * 43 + ".", "." + "A" * 43,
     "123-" + "A" * 43 + "." + "A" * 43,
     "-" + "A" * 43 + "." + "A" * 43, "1-" + "A" * 43 + "." + "A" * 44, "1-" + "A" * 42 + "." + "A" * 43,
     "1-" + "A" * 43 + "." + "A" * 43 + "\n", "١-" + "A" * 43 + "." + "A" * 43, "1-" + "A" * 43 + "." + "é" * 43],
)  # fmt: skip
def test_what_is_no_token(token: str) -> None:
    assert link.parted(token) == ("", "")


def test_a_token_is_taken_apart_as_it_was_put_together() -> None:
    assert link.parted(link.joined("15-" + "t" * 43, "-_" + "s" * 41)) == ("15-" + "t" * 43, "-_" + "s" * 41)
