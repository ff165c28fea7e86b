from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select, update

from gateway.audit.notices import Notices
from gateway.audit.recorder import Recorder
from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind, Place, Severity
from gateway.core.identity import Identity, Level, Proof, level_of
from gateway.core.rule import StepUpDemand
from gateway.mfa import stepup
from gateway.mfa.attempts import LIFE, RUN, TOLD
from gateway.mfa.stepup import (
    CODE_SENT,
    DETAIL,
    GONE,
    LIFETIME,
    NEXT,
    PLACES,
    PROOF,
    STATUS,
    Challenge,
    Outcome,
    State,
    StepUps,
)
from gateway.store.event_table import EventTable
from gateway.store.place import Place as Where
from gateway.store.sql import Records
from gateway.store.tables import outbox, users
from tests.mfa.conftest import NOW, Room, add_users, proven, somebody
from tests.rig.behind import at_rest

AAL2 = StepUpDemand(Level.AAL2)


async def refused(awaitable: object) -> UserError:
    with pytest.raises(UserError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


def same(error: UserError) -> tuple[str, str, int, float]:
    return error.code, error.detail, error.status, error.retry_after


# -- the table --------------------------------------------------------------------------------------------------------


def test_the_table_is_whole_and_has_one_way_to_a_proof() -> None:
    assert set(NEXT) == {(state, outcome) for state in State for outcome in Outcome}
    ways = [cell for cell, (_, code) in NEXT.items() if code == PROOF]
    assert ways == [(State.OPEN, Outcome.RIGHT)]


def test_what_is_over_stays_over_and_every_proof_ends_its_challenge() -> None:
    for (state, _), (after, code) in NEXT.items():
        if state is State.OVER:
            assert (after, code) == (State.OVER, GONE)
        assert (after is State.OPEN) or code in (PROOF, GONE)


def test_every_error_has_a_status_and_a_sentence() -> None:
    codes = {code for _, code in NEXT.values()} - {PROOF, CODE_SENT}
    assert codes == set(STATUS) == set(DETAIL)


# -- asking -----------------------------------------------------------------------------------------------------------


async def test_a_challenge_says_what_was_asked_and_what_may_answer(room: Room) -> None:
    ann = somebody()
    await room.bind()
    await room.give_codes()
    demand = StepUpDemand(Level.AAL2, frozenset({"totp", "webauthn"}), 600.0)
    ticket = await room.stepups.begin(ann, demand, return_to="/admin/?a=b", resume="kept-1")
    assert await room.stepups.look(ticket, ann) == Challenge(
        ticket, demand, "/admin/?a=b", "kept-1", ("totp",), NOW + LIFETIME
    )
    assert len(ticket) >= 43
    (asked,) = room.ledger.of(Kind.STEP_UP_ASKED)
    assert (asked.user, asked.session) == ("ann", "session-1")
    assert room.counted == [("any", "asked")]


async def test_a_challenge_never_offers_what_is_not_bound(room: Room) -> None:
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    assert (await room.stepups.look(ticket, somebody())).offered == ()
    for factor in ("totp", "backup_code", "password", "totp_setup", ""):
        error = await refused(room.stepups.answer(ticket, somebody(), factor, "123456"))
        assert (error.code, error.status) == ("ERR-MFA-METHOD", 400)


async def test_a_factor_the_rule_does_not_count_is_not_taken(room: Room) -> None:
    codes = await room.give_codes()
    await room.bind()
    ticket = await room.stepups.begin(somebody(), StepUpDemand(Level.AAL2, frozenset({"totp"})), return_to="/")
    assert (await refused(room.stepups.answer(ticket, somebody(), "backup_code", codes[0]))).code == "ERR-MFA-METHOD"
    assert (await room.backup_codes.left("default", "s-ann")).count == 10


async def test_without_a_session_there_is_nothing_to_prove_into(room: Room) -> None:
    token = replace(somebody(), session=None)
    assert (await refused(room.stepups.begin(token, AAL2, return_to="/"))).code == "ERR-MFA-SESSION"
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    assert (await refused(room.stepups.look(ticket, token))).code == GONE


async def test_a_session_has_a_few_challenges_open_and_the_oldest_goes(room: Room) -> None:
    ann = somebody()
    tickets = [await room.stepups.begin(ann, AAL2, return_to=f"/{n}") for n in range(PLACES + 3)]
    for ticket in tickets[:3]:
        assert (await refused(room.stepups.look(ticket, ann))).code == GONE
    for number, ticket in enumerate(tickets[3:], 3):
        assert (await room.stepups.look(ticket, ann)).return_to == f"/{number}"


async def test_a_question_takes_no_place_of_one_that_is_open_for_long(room: Room) -> None:
    ann = somebody()
    first = await room.stepups.begin(ann, AAL2, return_to="/first")
    room.clock.advance(stepup.LIFETIME - 1)
    await room.stepups.begin(ann, AAL2, return_to="/second")
    assert (await room.stepups.look(first, ann)).return_to == "/first"


# -- answering --------------------------------------------------------------------------------------------------------


async def test_the_right_code_is_a_proof_that_reaches_the_demanded_level_now(room: Room) -> None:
    secret = await room.bind()
    ann = somebody(at=NOW - 3000)
    ticket = await room.stepups.begin(ann, StepUpDemand(Level.AAL2, max_age=600.0), return_to="/")
    room.clock.advance(5)
    home = Place("192.0.2.7", "Firefox", "r1")
    proof = await room.stepups.answer(ticket, ann, "totp", room.code(secret), home)
    assert proof == Proof("totp", NOW + 5)
    assert ann.session is not None
    assert level_of((*ann.session.proofs, proof)) is Level.AAL2
    (passed,) = room.ledger.of(Kind.STEP_UP_PASSED)
    assert (passed.user, passed.session, passed.address, passed.agent, passed.request_id) == (
        "ann", "session-1", "192.0.2.7", "Firefox", "r1",
    )  # fmt: skip
    assert room.counted[-1] == ("totp", "passed")


async def test_no_event_says_a_code_or_a_ticket(room: Room) -> None:
    secret = await room.bind()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/", resume="kept-1")
    wrong, right = room.wrong(secret), room.code(secret)
    await refused(room.stepups.answer(ticket, somebody(), "totp", wrong))
    challenge = await room.stepups.look(ticket, somebody())
    await room.stepups.answer(ticket, somebody(), "totp", right)
    said = repr(room.ledger.events) + repr(challenge)
    for secret_text in (ticket, wrong, right, "kept-1"):
        assert secret_text not in said


async def test_a_wrong_answer_leaves_the_challenge_open(room: Room) -> None:
    secret = await room.bind()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    error = await refused(room.stepups.answer(ticket, somebody(), "totp", room.wrong(secret)))
    assert (error.code, error.status) == ("ERR-MFA-INVALID", 400)
    assert len(room.ledger.of(Kind.STEP_UP_FAILED)) == 1
    assert room.counted[-1] == ("totp", "failed")
    assert await room.stepups.answer(ticket, somebody(), "totp", room.code(secret))


@pytest.mark.parametrize("answer", ["", " ", "0", "\0", "9" * 10_000, "١٢٣٤٥٦", "\ud800", "' OR 1=1 --"])
async def test_an_empty_or_odd_answer_is_a_wrong_one(room: Room, answer: str) -> None:
    await room.bind()
    await room.give_codes()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    for factor in ("totp", "backup_code"):
        assert (await refused(room.stepups.answer(ticket, somebody(), factor, answer))).code == "ERR-MFA-INVALID"


async def test_a_challenge_is_answered_once(room: Room) -> None:
    secret = await room.bind()
    codes = await room.give_codes()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    await room.stepups.answer(ticket, somebody(), "totp", room.code(secret))
    later = proven(somebody(), Proof("totp", NOW))
    for ann in (somebody(), later):
        assert (await refused(room.stepups.look(ticket, ann))).code == GONE
        assert (await refused(room.stepups.answer(ticket, ann, "backup_code", codes[0]))).code == GONE
    assert (await room.backup_codes.left("default", "s-ann")).count == 10


async def test_the_same_code_from_two_browsers_in_two_processes_is_one_success(room: Room, replica: Room) -> None:
    secret = await room.bind()
    here, there = somebody(session="here"), somebody(session="there")
    first = await room.stepups.begin(here, AAL2, return_to="/")
    second = await replica.stepups.begin(there, AAL2, return_to="/")
    answers = await asyncio.gather(
        room.stepups.answer(first, here, "totp", room.code(secret)),
        replica.stepups.answer(second, there, "totp", room.code(secret)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Proof) for answer in answers) == 1
    assert [answer.code for answer in answers if isinstance(answer, UserError)] == ["ERR-MFA-INVALID"]


async def test_two_right_answers_to_one_challenge_are_one_success(room: Room, replica: Room) -> None:
    secret = await room.bind()
    codes = await room.give_codes()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    answers = await asyncio.gather(
        room.stepups.answer(ticket, somebody(), "totp", room.code(secret)),
        replica.stepups.answer(ticket, somebody(), "backup_code", codes[0]),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Proof) for answer in answers) == 1
    assert [answer.code for answer in answers if isinstance(answer, UserError)] == [GONE]
    events = [*room.ledger.events, *replica.ledger.events]
    assert sum(event.kind is Kind.STEP_UP_PASSED for event in events) == 1
    used = 10 - (await room.backup_codes.left("default", "s-ann")).count
    assert sum(event.kind is Kind.BACKUP_CODE_USED for event in events) == used


async def test_five_wrong_answers_and_the_sixth_waits_in_whatever_challenge(room: Room) -> None:
    secret = await room.bind()
    codes = await room.give_codes()
    for number in range(5):
        ann = somebody(session=f"session-{number}")
        ticket = await room.stepups.begin(ann, AAL2, return_to="/")
        assert (await refused(room.stepups.answer(ticket, ann, "totp", "000000"))).code == "ERR-MFA-INVALID"
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    error = await refused(room.stepups.answer(ticket, somebody(), "totp", room.code(secret)))
    assert same(error)[0::2] == ("ERR-MFA-THROTTLED", 429)
    assert error.retry_after == 900.0
    assert len(room.ledger.of(Kind.STEP_UP_THROTTLED)) == 1
    assert await room.stepups.answer(ticket, somebody(), "backup_code", codes[0])


async def wrong_answers(room: Room, count: int, factor: str = "totp", answer: str = "000000") -> list[str]:
    """Codes of the errors of so many answers at once."""
    ann = somebody()
    ticket = await room.stepups.begin(ann, AAL2, return_to="/")
    place = Place("192.0.2.7", "Firefox", "r1")
    answers = [room.stepups.answer(ticket, ann, factor, answer, place) for _ in range(count)]
    return sorted(error.code for error in await asyncio.gather(*answers, return_exceptions=True))  # type: ignore[union-attr]


def guesses(*rooms: Room) -> list[dict[str, object]]:
    return [dict(event.detail) for room in rooms for event in room.ledger.of(Kind.STEP_UP_GUESSED)]


async def test_of_twenty_wrong_answers_at_once_to_two_replicas_the_owner_is_told_once(
    room: Room, replica: Room
) -> None:
    await room.bind()
    codes = await asyncio.gather(wrong_answers(room, 10), wrong_answers(replica, 10))
    assert sorted([*codes[0], *codes[1]]) == ["ERR-MFA-INVALID"] * RUN + ["ERR-MFA-THROTTLED"] * 15
    assert guesses(room, replica) == [{"factor": "totp", "wrong": RUN}]
    (event,) = [*room.ledger.of(Kind.STEP_UP_GUESSED), *replica.ledger.of(Kind.STEP_UP_GUESSED)]
    assert (event.user, event.severity, event.address, event.agent) == (
        "ann", Severity.WARNING, "192.0.2.7", "Firefox",
    )  # fmt: skip
    assert "000000" not in repr(event)


async def test_four_wrong_answers_and_a_right_one_are_nobodys_guesses(room: Room) -> None:
    secret = await room.bind()
    wrong = room.wrong(secret)
    for _ in range(2):
        assert await wrong_answers(room, RUN - 1, answer=wrong) == ["ERR-MFA-INVALID"] * (RUN - 1)
        ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
        assert await room.stepups.answer(ticket, somebody(), "totp", room.code(secret))
        room.clock.advance(30)
    assert guesses(room) == []


async def test_each_run_of_guesses_is_told_and_so_is_who_guesses_slower_than_runs_are_long(room: Room) -> None:
    await room.bind()
    for _ in range(2):
        await wrong_answers(room, RUN + 1)
        room.clock.advance(3600)
    assert guesses(room) == [{"factor": "totp", "wrong": wrong} for wrong in (5, 10)]
    for _ in range(RUN):  # no run is ever used up
        await wrong_answers(room, 1)
        room.clock.advance(3600)
    assert guesses(room)[2:] == [{"factor": "totp", "wrong": 15}]


async def test_each_method_is_told_of_alone_and_several_devices_are_one(room: Room) -> None:
    await room.bind(label="old")
    await wrong_answers(room, 2)
    await room.bind(label="new")
    await room.give_codes()
    await wrong_answers(room, 4, "backup_code")
    assert guesses(room) == []
    await wrong_answers(room, 3)
    assert guesses(room) == [{"factor": "totp", "wrong": 5}]
    room.clock.advance(3600)
    await wrong_answers(room, 4)
    await wrong_answers(room, 1, "backup_code")
    assert guesses(room)[1:] == [{"factor": "backup_code", "wrong": 5}]


async def test_guesses_are_told_with_the_try_or_neither_is(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    await room.bind()
    await wrong_answers(room, RUN - 1)

    async def full(*_: object) -> None:
        raise StoreAway("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(room.ledger, "enter", full)
        ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
        with pytest.raises(StoreAway):
            await room.stepups.answer(ticket, somebody(), "totp", "000000")
    assert guesses(room) == []
    assert await wrong_answers(room, 1) == ["ERR-MFA-INVALID"], "it was not counted"
    assert guesses(room) == [{"factor": "totp", "wrong": RUN}]


async def test_the_letter_is_in_the_outbox_with_the_fifth_wrong_answer_and_says_no_code(room: Room) -> None:
    await room.bind()
    async with room.records.begin() as connection:
        await connection.execute(update(users).where(users.c.name == "ann").values(email="ann@example.com"))
    table = EventTable(room.records, Notices(issuer="gate", account="https://gate.example/account"))
    recorder = Recorder(table, room.clock)
    room.stepups = StepUps(room.records, room.kv, room.factors, room.clock, recorder, room.mac)
    counts = []
    for tried in range(RUN + 2):
        await wrong_answers(room, 1, answer=f"87650{tried}")
        async with room.records.read() as connection:
            letters = (await connection.execute(select(outbox.c.target, outbox.c.kind, outbox.c.content))).all()
        counts.append(len(letters))
    assert counts == [0] * (RUN - 1) + [1] * 3
    assert letters[0][:2] == ("ann@example.com", Kind.STEP_UP_GUESSED)
    assert "192.0.2.7" in repr(letters[0].content)
    assert "8765" not in repr(letters)


async def test_however_a_name_was_typed_there_is_one_counter(room: Room) -> None:
    await room.bind()
    for typed in ("ann", "Ann", " ann ", "ＡＮＮ", "an\u200bn"):
        ann = replace(somebody(session=typed), user=typed)
        ticket = await room.stepups.begin(ann, AAL2, return_to="/")
        assert (await refused(room.stepups.answer(ticket, ann, "totp", "000000"))).code == "ERR-MFA-INVALID"
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    assert (await refused(room.stepups.answer(ticket, somebody(), "totp", "000000"))).code == "ERR-MFA-THROTTLED"


async def test_a_factor_out_of_use_is_said_to_be_and_the_alarm_rings_once(room: Room) -> None:
    secret = await room.bind()
    for _ in range(LIFE):
        ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
        error = await refused(room.stepups.answer(ticket, somebody(), "totp", room.wrong(secret)))
        assert error.code == "ERR-MFA-INVALID"
        room.clock.advance(3600)
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    assert (await room.stepups.look(ticket, somebody())).offered == ()
    error = await refused(room.stepups.answer(ticket, somebody(), "totp", room.code(secret)))
    assert (error.code, error.status) == ("ERR-MFA-DISABLED", 403)
    assert len(room.ledger.of(Kind.FACTOR_DISABLED)) == 1
    assert [told["wrong"] for told in guesses(room)] == list(range(TOLD, LIFE, TOLD)), "the last one the alarm tells"


async def test_a_backup_code_used_is_an_event_of_its_own(room: Room) -> None:
    codes = await room.give_codes()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    proof = await room.stepups.answer(ticket, somebody(), "backup_code", codes[4].upper())
    assert proof.factor == "backup_code"
    assert len(room.ledger.of(Kind.BACKUP_CODE_USED)) == 1


async def test_the_clock_hint_comes_with_the_error_for_who_is_signed_in(room: Room) -> None:
    secret = await room.bind()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    error = await refused(room.stepups.answer(ticket, somebody(), "totp", room.code(secret, -8)))
    assert (error.code, "about 4 minutes behind" in error.detail) == ("ERR-MFA-INVALID", True)
    nobody_yet = somebody(proofs=(), session="other")
    ticket = await room.stepups.begin(nobody_yet, AAL2, return_to="/")
    error = await refused(room.stepups.answer(ticket, nobody_yet, "totp", room.code(secret, -8)))
    assert "clock" not in error.detail


# -- over, in every sense ---------------------------------------------------------------------------------------------


async def test_unknown_foreign_expired_and_used_look_and_answer_alike(room: Room) -> None:
    secret = await room.bind()
    codes = await room.give_codes()
    bobs_code = (await room.give_codes("s-bob"))[0]
    used, foreign, expired, rolled_back = [
        await room.stepups.begin(somebody(version=2), AAL2, return_to="/") for _ in range(4)
    ]
    await room.stepups.answer(used, somebody(version=2), "totp", room.code(secret))
    answers = []

    async def both(ticket: str, who: Identity, code: str) -> None:
        answers.append(same(await refused(room.stepups.look(ticket, who))))
        answers.append(same(await refused(room.stepups.answer(ticket, who, "backup_code", code))))

    await both(used, somebody(version=3), codes[0])
    await both(foreign, somebody("bob", session="session-2"), bobs_code)
    await both(foreign, somebody("bob", version=2), bobs_code)  # even under the same session id
    await both(foreign, somebody(session="session-2"), codes[0])  # the same user's other browser
    await both(rolled_back, somebody(version=1), codes[0])
    for unknown in ("", "x", "0-", "1-" + "A" * 43, "é", "\ud800", "../..", "1" * 5000, "99999999-" + "A" * 43):
        await both(unknown, somebody(version=2), codes[0])
    room.clock.advance(LIFETIME)
    await both(expired, somebody(version=2), codes[0])
    assert set(answers) == {(GONE, DETAIL[GONE], 410, 0.0)}
    assert (await room.backup_codes.left("default", "s-ann")).count == 10
    assert (await room.backup_codes.left("default", "s-bob")).count == 10


async def test_a_foreign_answer_does_not_end_the_challenge(room: Room) -> None:
    secret = await room.bind()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    await refused(room.stepups.answer(ticket, somebody("bob", session="session-2"), "totp", "000000"))
    assert await room.stepups.answer(ticket, somebody(), "totp", room.code(secret))


async def test_two_flows_interleaved_each_need_their_own_answer(room: Room) -> None:
    secret = await room.bind()
    one = await room.stepups.begin(somebody(), AAL2, return_to="/one")
    two = await room.stepups.begin(somebody(), AAL2, return_to="/two")
    code = room.code(secret)
    proof = await room.stepups.answer(one, somebody(), "totp", code)
    later = proven(somebody(), proof)
    assert (await refused(room.stepups.answer(two, later, "totp", code))).code == "ERR-MFA-INVALID"
    assert (await room.stepups.look(two, later)).return_to == "/two"
    assert await room.stepups.answer(two, later, "totp", room.code(secret, 1))


async def test_challenges_survive_a_restart(room: Room, replica: Room) -> None:
    secret = await room.bind()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    assert await replica.stepups.answer(ticket, somebody(), "totp", room.code(secret))


async def test_a_store_that_is_away_proves_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = await room.bind()
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")

    async def away(*_: object) -> bytes | None:
        raise StoreAway("gone")

    monkeypatch.setattr(stepup, "take", away)
    with pytest.raises(StoreAway):
        await room.stepups.answer(ticket, somebody(), "totp", room.code(secret))
    assert room.ledger.of(Kind.STEP_UP_PASSED) == []


async def test_the_ticket_is_not_kept(room: Room, place: Where) -> None:
    ticket = await room.stepups.begin(somebody(), AAL2, return_to="/")
    kept = at_rest(place)
    assert b"default/challenge" in kept
    assert ticket.partition("-")[2].encode() not in kept


# -- any sequence -----------------------------------------------------------------------------------------------------


class Conversation(RuleBasedStateMachine):
    """Two people, three browsers, any order of everything: no proof without a right, unused answer of one's own to an
    open challenge of one's own session."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock(NOW)
        self.records = self.run(Records.open(f"sqlite:{self.folder.name}/s.db", clock=self.clock))
        self.room = Room(self.records, self.clock)
        self.browsers: dict[str, Identity] = {}
        self.open: dict[str, tuple[str, float]] = {}
        self.spent: set[tuple[str, str]] = set()
        self.newest = {"s-ann": 0, "s-bob": 0}
        self.proofs = 0

    def run(self, coroutine: object) -> object:
        return self.loop.run_until_complete(coroutine)  # type: ignore[arg-type]

    @initialize()
    def set_up(self) -> None:
        self.run(add_users(self.records))
        self.secrets = {who: self.run(self.room.bind(who)) for who in ("s-ann", "s-bob")}
        self.codes = {who: self.run(self.room.give_codes(who)) for who in ("s-ann", "s-bob")}
        for session, name in (("a1", "ann"), ("a2", "ann"), ("b1", "bob")):
            self.browsers[session] = somebody(name, session=session)

    @rule(target=tickets, session=st.sampled_from(["a1", "a2", "b1"]))
    def ask(self, session: str) -> str:
        ticket = self.run(self.room.stepups.begin(self.browsers[session], AAL2, return_to="/"))
        self.open[ticket] = (session, self.clock.now() + LIFETIME)
        mine = [one for one, (owner, _) in self.open.items() if owner == session]
        for old in mine[:-PLACES]:
            del self.open[old]
        return ticket

    @rule(seconds=st.sampled_from([1.0, 31.0, 300.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(
        ticket=tickets,
        session=st.sampled_from(["a1", "a2", "b1"]),
        whose=st.sampled_from(["s-ann", "s-bob"]),
        what=st.sampled_from(["totp", "totp-old", "totp-next", "wrong", "empty", "backup"]),
        as_factor=st.sampled_from(["totp", "backup_code", "password", ""]),
        which=st.integers(0, 9),
    )
    def answer(self, ticket: str, session: str, whose: str, what: str, as_factor: str, which: int) -> None:
        identity, now = self.browsers[session], self.clock.now()
        steps = {"totp": 0, "totp-old": -4, "totp-next": 1}
        code = self.room.code(self.secrets[whose], steps[what]) if what in steps else ""
        code = {"wrong": "000000", "backup": self.codes[whose][which]}.get(what, code)
        right = whose == identity.subject and (
            (
                as_factor == "totp"
                and what in ("totp", "totp-next")
                and int(now) // 30 + steps[what] > self.newest[whose]
            )
            or (as_factor == "backup_code" and what == "backup" and (whose, code) not in self.spent)
        )
        owner, until = self.open.get(ticket, ("", 0.0))
        may = right and owner == session and now < until
        proof, error = None, None
        try:
            proof = self.run(self.room.stepups.answer(ticket, identity, as_factor, code))
        except UserError as caught:
            error = caught
        if error is not None:
            assert not may or error.code == "ERR-MFA-THROTTLED"
            return
        assert may
        assert proof == Proof(as_factor, now)
        self.proofs += 1
        if as_factor == "totp":
            self.newest[whose] = int(now) // 30 + steps[what]
        else:
            self.spent.add((whose, code))
        del self.open[ticket]
        self.browsers[session] = proven(identity, proof)

    @invariant()
    def as_many_proofs_as_events(self) -> None:
        assert len(self.room.ledger.of(Kind.STEP_UP_PASSED)) == self.proofs

    def teardown(self) -> None:
        self.run(self.records.close())
        self.loop.close()
        self.folder.cleanup()


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
