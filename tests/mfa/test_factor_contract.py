"""One suite over every `Factor`: what the contract promises, whichever of them answers.

A factor comes in with a `Trial`: how somebody gets it, what a right answer is, and what it is worth. Everything else is
the same for all of them, asked through the door that people use (`StepUps`) and of the factor itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest
from sqlalchemy import delete, event, select, update

from gateway.core.asked import Asked
from gateway.core.clock import ManualClock
from gateway.core.contracts import Factor
from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind, Severity
from gateway.core.identity import DEFAULT_TENANT, Identity, Level, Proof, amr_of, level_of
from gateway.core.rule import StepUpDemand
from gateway.mfa import backup_codes, otp
from gateway.mfa.attempts import LIFE, RUN, WAIT
from gateway.mfa.codes.code import LIFETIME
from gateway.mfa.stepup import DETAIL, WRONG
from gateway.mfa.webauthn import ceremony
from gateway.settings import Mfa
from gateway.store.place import Place
from gateway.store.sql import Records
from gateway.store.tables import attempts, factors, metadata
from tests.mfa.codes.conftest import own
from tests.mfa.codes.conftest import wrong as not_it
from tests.mfa.conftest import NOW
from tests.mfa.webauthn.conftest import KeyRoom
from tests.rig.authenticator import Authenticator
from tests.rig.postgres import EITHER

ANN, BOB = "s-ann", "s-bob"
HOUR = 3600.0
AAL2 = StepUpDemand(Level.AAL2)
BOTH = pytest.mark.parametrize("place", EITHER, indirect=True)


@dataclass
class Held:
    """A factor that somebody has."""

    right: Callable[[Asked], Awaitable[str]]
    """The answer to what is asked; another one each time, where it is good once."""
    wrong: Callable[[Asked], Awaitable[str]]
    """What might be one, and is not."""
    secrets: tuple[str | bytes, ...] = field(repr=False)
    """What nobody else may ever read."""


@dataclass(frozen=True)
class Trial:
    """What the suite has to know of a factor."""

    name: str
    bind: Callable[[KeyRoom, str], Awaitable[Held]]
    proof: Proof
    """What a right answer is, at 0.0."""
    level: Level
    """What it reaches beside a password."""
    amr: tuple[str, ...]
    lifetime: float
    """Seconds after which an answer is no longer one."""
    one_question: bool = False
    """Whether an answer is to one question of one session."""
    way: str = ""
    """Where a factor can be answered in several ways: which of them."""


async def an_app(room: KeyRoom, subject: str) -> Held:
    secret = await room.bind(subject)

    async def right(_: Asked) -> str:
        return room.code(secret)

    async def wrong(_: Asked) -> str:
        return room.wrong(secret)

    return Held(right, wrong, (secret, otp.base32(secret)))


async def codes_on_paper(room: KeyRoom, subject: str) -> Held:
    codes = await room.give_codes(subject)
    left = iter(codes)

    async def right(_: Asked) -> str:
        return next(left)

    async def wrong(_: Asked) -> str:
        return "00000-00000"

    return Held(right, wrong, (*codes, *map(backup_codes.canonical, codes)))


async def a_security_key(room: KeyRoom, subject: str) -> Held:
    key = await room.set_up(Authenticator(count=None), room.fresh(subject.removeprefix("s-")))

    async def answer(asked: Asked, **wrong: Any) -> str:
        options = await room.webauthn.ask(DEFAULT_TENANT, subject, asked)
        return orjson.dumps(key.answer(options, **wrong)).decode()

    return Held(answer, lambda asked: answer(asked, signature=b"x" * 70), (key.credential,))


def a_code_sent_to(name: str, address: str, *, link: bool = False) -> Callable[[KeyRoom, str], Awaitable[Held]]:
    """`{}` in `address` is another one for each person. `link`: answered by what is in the link beside it."""

    async def bind(room: KeyRoom, subject: str) -> Held:
        mine = address.format(7 if subject == ANN else 8)
        await own(room, mine, subject, f"{name}-{subject}-{room.clock.now():.0f}")
        sent: dict[Asked, str] = {}

        async def right(asked: Asked) -> str:
            factor = room.sms if name == "sms" else room.email
            sending = await factor.send(DEFAULT_TENANT, subject, asked, "", "en")
            if sending.id and not sending.wait:  # else the one that was sent before counts still, if there is one
                sent[asked] = room.post.box[-1].link.partition(".")[2] if link else room.post.last
            return sent.get(asked, "123456")

        async def wrong(asked: Asked) -> str:
            return "A" * 43 if link else not_it(sent.get(asked, "123456"))

        return Held(right, wrong, (mine,))

    return bind


TRIALS = {
    trial.name + trial.way: trial
    for trial in (
        Trial("totp", an_app, Proof("totp", 0.0), Level.AAL2, ("otp", "pwd", "mfa"), 2.0 * otp.STEP),
        Trial(
            "backup_code",
            codes_on_paper,
            Proof("backup_code", 0.0),
            Level.AAL2,
            ("kba", "pwd", "mfa"),
            backup_codes.LIFETIME,
        ),
        *(
            Trial(name, a_code_sent_to(name, to), Proof(name, 0.0), Level.AAL2, amr, LIFETIME, True)
            for name, to, amr in (
                ("sms", "+90532123451{}", ("pwd", "sms", "mfa")),
                ("email", "somebody{}@example.com", ("otp", "pwd", "mfa")),
            )
        ),
        Trial(
            "email",
            a_code_sent_to("email", "somebody{}@example.com", link=True),
            Proof("email", 0.0),
            Level.AAL2,
            ("otp", "pwd", "mfa"),
            LIFETIME,
            one_question=True,
            way=" by link",
        ),
        Trial(
            "webauthn",
            a_security_key,
            Proof("webauthn", 0.0, "hwk", True),
            Level.AAL3,
            ("hwk", "pwd", "mfa"),
            ceremony.LIFETIME,
            one_question=True,
        ),
    )
}

MALFORMED: tuple[Callable[[str], str], ...] = (
    lambda right: "",
    lambda right: " \t\n",
    lambda right: "\0",
    lambda right: "\ud800",
    lambda right: "null",
    lambda right: "[[[[",
    lambda right: "-1",
    lambda right: "1e5",
    lambda right: "' OR 1=1 --",
    lambda right: "x" * 1_000_000,
    lambda right: "1" * 63,
    lambda right: right + "0",
    lambda right: right[:-1],
    lambda right: right * 2,
    lambda right: right + "\0",
    lambda right: "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in right),
)
"""What is no answer: nothing, too much, what looks alike (full-width letters) and what is nearly right."""


@pytest.fixture(params=sorted(TRIALS))
def trial(request: pytest.FixtureRequest) -> Trial:
    return TRIALS[request.param]


@pytest.fixture(params=["sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Any) -> Place:
    """What asks the database something new runs over `BOTH`."""
    from tests.rig.postgres import either

    return either(request, tmp_path)


@pytest.fixture
def room(records: Records, clock: ManualClock) -> KeyRoom:
    return KeyRoom(records, clock)


@pytest.fixture
async def replica(place: Place, room: KeyRoom, clock: ManualClock) -> AsyncIterator[KeyRoom]:
    """Another process on the same database."""
    opened = await Records.open(place, clock=clock)
    yield KeyRoom(opened, clock)
    await opened.close()


def test_every_factor_there_is_is_tried(room: KeyRoom) -> None:
    every = Mfa.model_construct(**{**dict.fromkeys(Mfa.model_fields, True), "order": ()})
    tried = {trial.name for trial in TRIALS.values()}
    assert sorted(every.factors) == sorted(tried)
    assert set(room.factors.names) == tried


def judge(room: KeyRoom, trial: Trial) -> Factor:
    return room.factors._built[trial.name]


async def question(room: KeyRoom, name: str = "ann", session: str = "session-1") -> tuple[Identity, Asked]:
    """A challenge to `name`, just signed in."""
    who = room.fresh(name, session=session)
    return who, Asked(session, await room.stepups.begin(who, AAL2, return_to="/"), Level.AAL2)


async def give(room: KeyRoom, trial: Trial, who: Identity, asked: Asked, answer: str) -> Proof | UserError:
    try:
        return await room.stepups.answer(asked.ticket, who, trial.name, answer)
    except UserError as error:
        return error


async def checked(
    room: KeyRoom, trial: Trial, asked: Asked, answer: str, subject: str = ANN, tenant: str = DEFAULT_TENANT
) -> Proof | None:
    """What the factor itself says; nothing counted."""
    return await room.judge(judge(room, trial), tenant, subject, answer, asked)


def said(refused: Proof | UserError) -> tuple[str, str, int, float]:
    assert isinstance(refused, UserError), refused
    return refused.code, refused.detail, refused.status, refused.retry_after


def invalid(trial: Trial) -> tuple[str, str, int, float]:
    """What whoever answered wrong is told, whatever was wrong."""
    return "ERR-MFA-INVALID", WRONG.get(trial.name, DETAIL["ERR-MFA-INVALID"]), 400, 0.0


# -- who may answer with it ------------------------------------------------------------------------------------------


async def test_only_who_has_it_can_answer_with_it(room: KeyRoom, trial: Trial) -> None:
    factor = judge(room, trial)
    assert factor.name == trial.name
    assert not await factor.offer(DEFAULT_TENANT, ANN, Level.AAL2)
    assert trial.name not in await room.factors.usable(DEFAULT_TENANT, ANN)
    await trial.bind(room, ANN)
    assert await factor.offer(DEFAULT_TENANT, ANN, Level.AAL2)
    assert trial.name in await room.factors.usable(DEFAULT_TENANT, ANN)
    for tenant, subject in ((DEFAULT_TENANT, BOB), ("other", ANN), (DEFAULT_TENANT, ""), ("", ANN)):
        assert not await factor.offer(tenant, subject, Level.AAL2), (tenant, subject)


async def test_it_is_offered_for_what_it_reaches_and_no_more(room: KeyRoom, trial: Trial) -> None:
    await trial.bind(room, ANN)
    for level in (Level.AAL1, Level.AAL2, Level.AAL3):
        assert await judge(room, trial).offer(DEFAULT_TENANT, ANN, level) is (level <= trial.level), level


async def test_what_is_not_bound_answers_nothing(room: KeyRoom, trial: Trial) -> None:
    """A challenge never offers it, and never begins to set it up (case 113)."""
    bobs = await trial.bind(room, BOB)
    ann, asked = await question(room)
    refused = await give(room, trial, ann, asked, await bobs.right(asked))
    assert said(refused)[0] == "ERR-MFA-METHOD"
    assert await room.factors.of(DEFAULT_TENANT, ANN) == []


# -- right, once -------------------------------------------------------------------------------------------------------


async def test_a_right_answer_is_worth_what_it_says(room: KeyRoom, trial: Trial) -> None:
    held = await trial.bind(room, ANN)
    ann, asked = await question(room)
    proof = await give(room, trial, ann, asked, await held.right(asked))
    assert proof == replace(trial.proof, at=room.clock.now())
    both = (Proof("password", NOW), proof)
    assert level_of(both) is trial.level
    assert amr_of(both) == trial.amr
    assert level_of((proof,)) is Level.AAL1, "one factor is one factor"
    assert [event.detail for event in room.ledger.of(Kind.STEP_UP_PASSED)] == [
        {"factor": trial.name, "outcome": "passed"}
    ]
    assert (trial.name, "passed") in room.counted


@BOTH
async def test_of_twenty_at_once_one_counts(room: KeyRoom, replica: KeyRoom, trial: Trial) -> None:
    """Asked of the factor itself, in two processes: what claims it is its own, not a counter before it."""
    held = await trial.bind(room, ANN)
    _, asked = await question(room)
    answer = await held.right(asked)
    proofs = await asyncio.gather(
        *(checked(one, trial, asked, answer) for one in (room, replica) for _ in range(10)), return_exceptions=True
    )
    assert [proof for proof in proofs if proof is not None] == [replace(trial.proof, at=room.clock.now())]


@BOTH
async def test_of_twenty_at_the_door_one_gets_a_proof(room: KeyRoom, replica: KeyRoom, trial: Trial) -> None:
    held = await trial.bind(room, ANN)
    ann, asked = await question(room)
    answer = await held.right(asked)
    got = await asyncio.gather(*(give(one, trial, ann, asked, answer) for one in (room, replica) for _ in range(10)))
    assert sum(isinstance(one, Proof) for one in got) == 1
    codes = {one.code for one in got if isinstance(one, UserError)}
    assert codes <= {"ERR-MFA-INVALID", "ERR-MFA-CHALLENGE", "ERR-MFA-THROTTLED"}


async def test_what_was_right_once_is_wrong_afterwards(room: KeyRoom, replica: KeyRoom, trial: Trial) -> None:
    held = await trial.bind(room, ANN)
    ann, asked = await question(room)
    answer = await held.right(asked)
    assert isinstance(await give(room, trial, ann, asked, answer), Proof)
    assert said(await give(room, trial, ann, asked, answer))[0] == "ERR-MFA-CHALLENGE"
    for one, session in ((room, "session-1"), (replica, "session-1"), (replica, "session-2")):
        ann, again = await question(one, session=session)
        assert said(await give(one, trial, ann, again, answer)) == invalid(trial)


async def test_an_answer_has_its_time(room: KeyRoom, trial: Trial, clock: ManualClock) -> None:
    held = await trial.bind(room, ANN)
    asked = Asked("session-1", "ticket", Level.AAL2)
    late = await held.right(asked)
    clock.advance(trial.lifetime)
    assert await checked(room, trial, asked, late) is None


async def test_an_answer_to_one_question_is_none_to_another(room: KeyRoom, trial: Trial) -> None:
    if not trial.one_question:
        pytest.skip("its answers are to whoever asks")
    held = await trial.bind(room, ANN)
    asked = Asked("session-1", "ticket", Level.AAL2)
    answer = await held.right(asked)
    for other in (replace(asked, session="session-2"), replace(asked, ticket="another")):
        assert await checked(room, trial, other, answer) is None
    assert await room.judge(judge(room, trial), DEFAULT_TENANT, ANN, answer) is None
    assert await checked(room, trial, asked, answer) is not None


# -- wrong -------------------------------------------------------------------------------------------------------------


async def test_whatever_is_wrong_is_told_in_the_same_words(room: KeyRoom, trial: Trial, clock: ManualClock) -> None:
    held = await trial.bind(room, ANN)

    async def near(spoilt: Callable[[str], str], asked: Asked) -> str:
        return spoilt(await held.right(asked))

    ways: list[Callable[[Asked], Awaitable[str]]] = [held.wrong]
    ways += [lambda asked, spoilt=spoilt: near(spoilt, asked) for spoilt in MALFORMED]
    for way in ways:
        if trial.name == "backup_code":
            held = await trial.bind(room, ANN)  # there are ten
        clock.advance(3 * HOUR)  # each of them begins a run of its own, and may have a code sent
        ann, asked = await question(room)
        room.ledger.events.clear()
        room.counted.clear()
        refused = await give(room, trial, ann, asked, await way(asked))
        assert said(refused) == invalid(trial)
        assert [event.kind for event in room.ledger.events] == [Kind.STEP_UP_FAILED]
        (event,) = room.ledger.events
        assert {**event.detail, "why": ""} == {"factor": trial.name, "outcome": "ERR-MFA-INVALID", "why": ""}
        assert room.counted == [(trial.name, "failed")]
        answer = await held.right(asked)
        assert isinstance(await give(room, trial, ann, asked, answer), Proof), "the question goes on"


async def test_nobody_answers_with_what_is_somebody_elses(room: KeyRoom, trial: Trial) -> None:
    await trial.bind(room, ANN)
    bobs = await trial.bind(room, BOB)
    ann, asked = await question(room)
    _, of_bob = await question(room, "bob", "session-bob")
    answer = await bobs.right(of_bob)
    assert said(await give(room, trial, ann, asked, answer)) == invalid(trial)
    assert await checked(room, trial, of_bob, answer) is None
    assert await checked(room, trial, of_bob, answer, BOB, tenant="other") is None
    if not trial.one_question:  # else whoever tried has used the question up
        assert await checked(room, trial, of_bob, answer, BOB) is not None, "it is bob's still"


async def test_what_was_taken_away_no_longer_answers(room: KeyRoom, trial: Trial) -> None:
    held = await trial.bind(room, ANN)
    ann, asked = await question(room)
    answer = await held.right(asked)
    async with room.records.begin(DEFAULT_TENANT, ANN) as connection:
        await connection.execute(delete(factors).where(factors.c.subject == ANN, factors.c.kind == trial.name))
    assert await checked(room, trial, asked, answer) is None
    assert said(await give(room, trial, ann, asked, answer))[0] == "ERR-MFA-METHOD"


# -- counters ----------------------------------------------------------------------------------------------------------


async def test_five_tries_and_then_none_is_looked_at(room: KeyRoom, trial: Trial, clock: ManualClock) -> None:
    held = await trial.bind(room, ANN)
    ann, asked = await question(room)
    for _ in range(RUN):
        assert said(await give(room, trial, ann, asked, await held.wrong(asked))) == invalid(trial)
    answer = await held.right(asked)
    refused = await give(room, trial, ann, asked, answer)
    assert said(refused) == ("ERR-MFA-THROTTLED", DETAIL["ERR-MFA-THROTTLED"], 429, WAIT)
    assert room.counted[-1] == (trial.name, "throttled")
    assert room.ledger.events[-1].kind is Kind.STEP_UP_THROTTLED
    assert await checked(room, trial, asked, answer) is not None, "it was not looked at, so it is not used up"
    clock.advance(WAIT)
    ann, asked = await question(room)
    assert isinstance(await give(room, trial, ann, asked, await held.right(asked)), Proof)


async def test_another_method_is_not_shut_with_it(room: KeyRoom, trial: Trial) -> None:
    other = TRIALS["totp" if trial.name != "totp" else "backup_code"]
    held, spare = await trial.bind(room, ANN), await other.bind(room, ANN)
    ann, asked = await question(room)
    for _ in range(RUN):
        await give(room, trial, ann, asked, await held.wrong(asked))
    assert said(await give(room, trial, ann, asked, await held.wrong(asked)))[0] == "ERR-MFA-THROTTLED"
    assert isinstance(await give(room, other, ann, asked, await spare.right(asked)), Proof)


@BOTH
async def test_a_hundred_wrong_in_a_row_and_it_is_out_of_use(room: KeyRoom, trial: Trial, clock: ManualClock) -> None:
    held = await trial.bind(room, ANN)
    mine = (factors.c.subject == ANN, factors.c.kind == trial.name)
    async with room.records.begin(DEFAULT_TENANT, ANN) as connection:
        await connection.execute(update(factors).where(*mine).values(failures=LIFE - 1))
    ann, asked = await question(room)
    assert said(await give(room, trial, ann, asked, await held.wrong(asked))) == invalid(trial)
    assert [event.severity for event in room.ledger.of(Kind.FACTOR_DISABLED)] == [Severity.ALARM]
    assert not await judge(room, trial).offer(DEFAULT_TENANT, ANN, Level.AAL2)
    answer = await held.right(asked)
    assert said(await give(room, trial, ann, asked, answer))[0] == "ERR-MFA-DISABLED"
    clock.advance(10 * 365 * 24 * HOUR)  # waiting does not help
    ann, asked = await question(room)
    assert said(await give(room, trial, ann, asked, await held.wrong(asked)))[0] == "ERR-MFA-DISABLED"
    assert len(room.ledger.of(Kind.FACTOR_DISABLED)) == 1


async def test_a_right_answer_sets_the_counters_back(room: KeyRoom, trial: Trial, clock: ManualClock) -> None:
    held = await trial.bind(room, ANN)
    for _ in range(2):
        ann, asked = await question(room)
        for _ in range(RUN - 1):
            assert said(await give(room, trial, ann, asked, await held.wrong(asked))) == invalid(trial)
        assert isinstance(await give(room, trial, ann, asked, await held.right(asked)), Proof)
        clock.advance(60.0)
    async with room.records.read() as connection:
        query = select(factors.c.failures).where(factors.c.subject == ANN, factors.c.kind == trial.name)
        assert list((await connection.scalars(query)).all()) == [0]


# -- when something fails ----------------------------------------------------------------------------------------------


@dataclass
class Faulty:
    """A database that goes away at one step of many: before it, or when it should say that it was done."""

    at: int
    after: bool
    steps: int = 0

    def over(self, inner: Callable[..., AbstractAsyncContextManager[Any]]) -> Callable[..., Any]:
        @asynccontextmanager
        async def step(*whom: str, **how: bool) -> AsyncIterator[Any]:
            mine, self.steps = self.steps, self.steps + 1
            if mine == self.at and not self.after:
                raise StoreAway("away")
            async with inner(*whom, **how) as connection:
                yield connection
            if mine == self.at:
                raise StoreAway("away, and nobody knows whether it was done")

        return step


def moments() -> Iterator[tuple[int, bool]]:
    for step in range(100):
        for after in (False, True):
            yield step, after


async def test_a_store_that_goes_away_at_any_step_proves_nothing(
    room: KeyRoom, trial: Trial, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await trial.bind(room, ANN)
    tried = 0
    for at, after in moments():
        if trial.name == "backup_code":
            held = await trial.bind(room, ANN)
        clock.advance(3 * HOUR)
        ann, asked = await question(room)
        answer = await held.right(asked)
        store = Faulty(at, after)
        room.ledger.events.clear()
        with monkeypatch.context() as broken:
            broken.setattr(room.records, "begin", store.over(room.records.begin))
            broken.setattr(room.records, "read", store.over(room.records.read))
            got = (await asyncio.gather(give(room, trial, ann, asked, answer), return_exceptions=True))[0]
        if store.steps <= at:
            break
        tried += 1
        assert isinstance(got, StoreAway), (at, after, got)
        assert room.ledger.of(Kind.STEP_UP_PASSED) == []
        again = [await give(room, trial, ann, asked, answer) for _ in range(2)]
        assert sum(isinstance(one, Proof) for one in again) <= 1, (at, after)
    assert tried >= 6
    assert isinstance(got, Proof), "without a fault it is one"


@dataclass
class Failing:
    """A database that goes away at one statement of many."""

    at: int
    seen: int = 0

    def statement(self, *_: Any) -> None:
        self.seen += 1
        if self.seen == self.at + 1:
            raise StoreAway("away in the middle")


async def test_a_store_that_fails_at_any_statement_has_done_nothing(
    room: KeyRoom, trial: Trial, clock: ManualClock
) -> None:
    """The answer is as good as it was, and its try is not counted."""
    held = await trial.bind(room, ANN)
    engine = room.records._database.engine.sync_engine
    failed = 0
    for at in range(100):
        if trial.name == "backup_code" and at % 8 == 0:
            held = await trial.bind(room, ANN)
        clock.advance(3 * HOUR)
        ann, asked = await question(room)
        answer = await held.right(asked)
        failing = Failing(at)
        event.listen(engine, "before_cursor_execute", failing.statement)
        try:
            got = (await asyncio.gather(give(room, trial, ann, asked, answer), return_exceptions=True))[0]
        finally:
            event.remove(engine, "before_cursor_execute", failing.statement)
        if failing.seen <= at:
            assert isinstance(got, Proof)
            break
        failed += 1
        assert isinstance(got, StoreAway), (at, got)
        assert await tries(room, trial) == 0, at
        again = [await give(room, trial, ann, asked, answer) for _ in range(2)]
        assert [isinstance(one, Proof) for one in again] == [True, False], at
    assert failed >= 8


async def tries(room: KeyRoom, trial: Trial) -> int:
    """What is counted of ann."""
    mine = (attempts.c.subject == ANN, attempts.c.method == trial.name)
    async with room.records.read() as connection:
        return await connection.scalar(select(attempts.c.tries).where(*mine)) or 0


async def test_a_fault_of_ours_is_a_try_all_the_same(
    room: KeyRoom, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await trial.bind(room, ANN)
    ann, asked = await question(room)
    answer = await held.right(asked)

    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(judge(room, trial), "check", broken)
        for _ in range(RUN):
            with pytest.raises(ZeroDivisionError):
                await room.stepups.answer(asked.ticket, ann, trial.name, answer)
    refused = await give(room, trial, ann, asked, answer)
    assert isinstance(refused, UserError)
    assert refused.code == "ERR-MFA-THROTTLED"


# -- secrets -----------------------------------------------------------------------------------------------------------


async def test_no_secret_is_told_or_kept_in_clear(
    room: KeyRoom, trial: Trial, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "sallyport")
    caplog.set_level(logging.DEBUG, "gateway")
    held = await trial.bind(room, ANN)
    ann, asked = await question(room)
    wrong, right = await held.wrong(asked), await held.right(asked)
    challenge = await room.stepups.look(asked.ticket, ann)
    if trial.one_question:
        wrong = await held.wrong(asked)
    refused = await give(room, trial, ann, asked, wrong)
    right = await held.right(asked) if trial.one_question else right
    proof = await give(room, trial, ann, asked, right)
    assert isinstance(proof, Proof)
    told = " ".join(
        map(
            repr,
            (refused, str(refused), proof, challenge, asked, judge(room, trial), room.factors, room.stepups,
             await room.factors.of(DEFAULT_TENANT, ANN), room.ledger.events, room.counted),
        )
    ) + caplog.text  # fmt: skip
    kept = b""
    async with room.records.read() as connection:
        for table in metadata.sorted_tables:
            for row in (await connection.execute(select(table))).all():
                kept += b"\n".join(
                    value if isinstance(value, bytes) else str(value).encode() for value in row if value is not None
                )
    for secret in (*held.secrets, wrong, right, asked.ticket):
        if len(secret) <= 6:  # a number as short as that may stand anywhere; what made it may not
            continue
        raw = secret if isinstance(secret, bytes) else secret.encode()
        assert (secret if isinstance(secret, str) else repr(secret)[2:-1]) not in told
        assert raw.hex() not in told
        assert raw not in kept


async def test_a_hint_says_nothing_of_what_was_typed(room: KeyRoom, trial: Trial) -> None:
    held = await trial.bind(room, ANN)
    _, asked = await question(room)
    right = await held.right(asked)
    for answer in (await held.wrong(asked), *(spoilt(right) for spoilt in MALFORMED)):
        hint = await judge(room, trial).hint(DEFAULT_TENANT, ANN, answer, room.clock.now())
        assert len(hint) < 200
        assert len(answer.strip()) < 2 or answer not in hint
