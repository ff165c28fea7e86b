"""Recovery: its table, its edges in time, its races, and who may do what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from gateway.core.errors import UserError
from gateway.core.events import Kind, Place, Severity
from gateway.core.identity import DEFAULT_TENANT, NEVER, Identity
from gateway.identity.session_rows import revoke
from gateway.mfa import recovery
from gateway.mfa.recovery import A_DAY, APPROVAL, DAY, KEPT, Recoveries
from gateway.mfa.recovery_states import ENDINGS, NEXT, OPEN, Input, Recovery, State, Way
from gateway.store.place import Place as Where
from gateway.store.tables import backup_codes, factors, recoveries, sessions, users
from tests.mfa.conftest import NOW, Room, somebody
from tests.rig.letters import Letters
from tests.rig.postgres import EITHER, either

HOME = Place("192.0.2.7", "Firefox", "01REQUEST")
ANN = somebody("ann")
ROOT = somebody("root", groups=frozenset({"admins"}), session="root's")
CARL = somebody("carl", groups=frozenset({"admins"}), session="carl's")


class Way_:
    """The ways back over one database, with a room of factors; a second one is a second process."""

    def __init__(self, room: Room, **more: Any) -> None:
        self.room = room
        self.records = room.records
        self.ledger = room.ledger
        self.letters = Letters()
        self.counted: list[tuple[str, str]] = []
        self.recoveries = Recoveries(
            room.records,
            room.clock,
            room.ledger,
            room.mac,
            unbind=room.enrolment.unbind,
            revoke=revoke,
            letters=self.letters,
            count=lambda *what: self.counted.append(what),
            **{"by_email": True, **more},
        )

    async def asked(self, who: Identity = ANN) -> Recovery:
        """`who` has a device and codes since long ago, and asks."""
        return await self.recoveries.ask(who, HOME)

    async def link(self, who: Identity = ANN) -> str:
        """… and waits for the link."""
        await self.asked(who)
        self.room.clock.advance(DAY)
        assert await self.recoveries.turn() == 1
        return self.letters.ready_[-1][1]

    async def row(self) -> Any:
        async with self.records.read() as connection:
            return (await connection.execute(select(recoveries).order_by(recoveries.c.asked_at.desc()))).first()

    async def user(self, subject: str = "s-ann") -> Any:
        async with self.records.read() as connection:
            return (await connection.execute(select(users).where(users.c.subject == subject))).one()

    async def left(self, table: Any, subject: str = "s-ann") -> int:
        async with self.records.read() as connection:
            query = select(func.count()).select_from(table).where(table.c.subject == subject)
            return int(await connection.scalar(query) or 0)

    async def set(self, subject: str = "s-ann", **values: Any) -> None:
        async with self.records.begin() as connection:
            await connection.execute(update(users).where(users.c.subject == subject).values(**values))


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """SQLite; both databases where a test says so: what one of them can tell is not asked of the other."""
    return either(request, tmp_path) if hasattr(request, "param") else Where(f"sqlite:{tmp_path}/sallyport.db")


both = pytest.mark.parametrize("place", EITHER, indirect=True)


@pytest.fixture
async def way(room: Room) -> Way_:
    """Ann has lost her telephone and her codes; root and carl look after accounts."""
    async with room.records.begin() as connection:
        for name in ("root", "carl"):
            await connection.execute(
                insert(users).values(
                    tenant=DEFAULT_TENANT, subject=f"s-{name}", name=name, email="", display_name="", groups=["admins"],
                    password="", disabled=False, created_at=0.0,
                )
            )  # fmt: skip
        confirmed = dict.fromkeys(("email", "email_confirmed"), users.c.name + "@example.com")
        await connection.execute(update(users).values(**confirmed, email_confirmed_at=1.0))
    for subject in ("s-ann", "s-carl"):
        await room.bind(subject)
    await room.give_codes()
    room.clock.advance(60)
    return Way_(room)


async def refused(asking: Any, code: str = "ERR-RECOVERY") -> UserError:
    with pytest.raises(UserError) as caught:
        await asking
    assert caught.value.code == code
    return caught.value


async def open_session(way: Way_, subject: str = "s-ann") -> None:
    async with way.records.begin() as connection:
        await connection.execute(
            insert(sessions).values(
                tenant=DEFAULT_TENANT, id=f"of {subject}", subject=subject, digest=subject.encode(), version=1,
                created_at=NOW, expires_at=NOW + 9 * DAY, last_seen_at=NOW, proofs=[["password", NOW], ["totp", NOW]],
                address="", agent="",
            )
        )  # fmt: skip


# --- the table --------------------------------------------------------------------------------------------------------


def test_every_arrow_leads_from_an_open_state_and_each_input_to_one_state_only() -> None:
    assert {state for state, _ in NEXT} == set(OPEN)
    for given in Input:
        assert len({after for (_, each), after in NEXT.items() if each is given}) == 1
    for state in OPEN:
        assert {NEXT[state, ending] for ending in ENDINGS} == {State.ENDED}
    done = {(state, given) for (state, given), after in NEXT.items() if after is State.DONE}
    assert done == {(State.READY, Input.USED), (State.PENDING, Input.APPROVED)}
    assert {state for (state, given), after in NEXT.items() if after is State.READY} == {State.WAITING}


@both
async def test_what_is_not_in_the_table_changes_nothing(way: Way_) -> None:
    """Each state meets each thing that somebody can do to it, over the very methods they have."""
    for state in State:
        for what in ("use", "approve", "cancel", "refuse"):
            await way.asked()
            secret = way.room.mac.token("recovery-link", DEFAULT_TENANT, "s-ann", (await way.row()).id, "secret")
            async with way.records.begin() as connection:
                await connection.execute(
                    update(recoveries)
                    .where(recoveries.c.id == (await way.row()).id)
                    .values(state=state, link=secret, asked_by="s-root")
                )
            row = await way.row()
            doing = {
                "use": way.recoveries.use(ANN, f"{row.id}.secret"),
                "approve": way.recoveries.approve(CARL, row.id),
                "cancel": way.recoveries.cancel(way.letters.asked_[-1][1]),
                "refuse": way.recoveries.refuse(CARL, row.id),
            }
            given = {"use": Input.USED, "approve": Input.APPROVED, "cancel": Input.CANCELLED, "refuse": Input.REFUSED}
            expected = NEXT.get((state, given[what]))
            for name, each in doing.items():
                if name != what:
                    each.close()
            if expected is None:
                await refused(doing[what])
            else:
                assert (await doing[what]).state is expected
            assert (await way.row()).state == (expected or state)
            assert (await way.left(factors) == 0) is (expected is State.DONE)
            async with way.records.begin() as connection:
                await connection.execute(recoveries.delete())
            if expected is State.DONE:
                way.room.clock.advance(7200)
                await way.room.bind()
                way.room.clock.advance(7200)


# --- by e-mail --------------------------------------------------------------------------------------------------------


@both
async def test_from_asking_to_an_account_that_must_set_up_a_factor(way: Way_) -> None:
    await open_session(way)
    begun = await way.asked()
    assert (begun.way, begun.state, begun.due_at - begun.asked_at) == (Way.EMAIL, State.WAITING, DAY)
    ((subject, _, due_at, until),) = way.letters.asked_
    assert (subject, due_at, until) == ("s-ann", begun.due_at, begun.due_at + 7 * DAY)
    (event,) = way.ledger.of(Kind.RECOVERY_ASKED)
    assert (event.severity, event.user, event.address, event.request_id) == (
        Severity.ALARM, "ann", "192.0.2.7", "01REQUEST",
    )  # fmt: skip
    assert await way.left(factors) == 2, "nothing changes before the delay is over"

    way.room.clock.advance(DAY - 1)
    assert await way.recoveries.turn() == 0
    assert way.letters.ready_ == []
    way.room.clock.advance(1)
    assert await way.recoveries.turn() == 1
    assert await way.recoveries.turn() == 0, "the link is sent once"
    ((_, token, until),) = way.letters.ready_
    assert until == way.room.clock.now() + 7 * DAY
    assert await way.left(factors) == 2, "nor by the link alone"
    assert (await way.recoveries.look(ANN, token)).state is State.READY

    before = (await way.user()).generation
    done = await way.recoveries.use(ANN, token, HOME)
    assert (done.state, done.outcome) == (State.DONE, "used")
    assert [await way.left(table) for table in (factors, backup_codes, sessions)] == [0, 0, 0]
    ann = await way.user()
    assert ann.generation > before, "trusted browsers, and sessions wherever they are kept, are void with it"
    assert ann.mfa_required_from == way.room.clock.now()
    assert [event.severity for event in way.ledger.of(Kind.RECOVERED)] == [Severity.ALARM]
    assert way.counted == [("email", "asked"), ("email", "ready"), ("email", "used")]


@pytest.mark.parametrize("step", ["ask", "due", "use", "approve", "cancel"])
async def test_what_nobody_could_be_told_of_has_not_happened(step: str, way: Way_) -> None:
    """A gateway is stopped between the change and its event: the owner would never hear of it."""
    token = ""
    if step in ("due", "cancel"):
        await way.asked()
        way.room.clock.advance(DAY)
    elif step == "use":
        token = await way.link()
    elif step == "approve":
        await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    before, told, counted = await way.row(), list(way.ledger.events), list(way.counted)

    async def go_on() -> object:
        if step == "ask":
            return await way.asked()
        if step == "due":
            return await way.recoveries.turn()
        if step == "use":
            return await way.recoveries.use(ANN, token, HOME)
        if step == "approve":
            return await way.recoveries.approve(CARL, before.id)
        return await way.recoveries.cancel(way.letters.asked_[0][1])

    with way.ledger.stopped():
        await go_on()
    assert await way.row() == before
    assert await way.left(factors) == 2
    assert (way.ledger.events, way.counted) == (told, counted)
    await go_on()
    assert len(way.ledger.events) == len(told) + 1


async def test_only_macs_of_the_links_are_kept_and_no_event_holds_one(way: Way_) -> None:
    token = await way.link()
    row = await way.row()
    secrets = [token.partition(".")[2], way.letters.asked_[0][1].partition(".")[2]]
    assert all(len(secret) == 43 for secret in secrets)
    assert len(set(secrets)) == 2
    assert not any(secret in repr(tuple(row)) for secret in secrets)
    await refused(way.recoveries.look(ANN, f"{row.id}.{row.link}"))
    await way.recoveries.use(ANN, token)
    assert (await way.row()).link is None
    assert not any(secret in repr(way.ledger.events) for secret in secrets)
    known = repr(await way.recoveries.every(DEFAULT_TENANT, over=True))
    assert not any(secret in known for secret in secrets)


NO_LINKS = ("", ".", "x", "{id}", "{id}.", "{other}.{secret}", "{id}.{secret}x", "{token}\0", "%00", "é.é",
            "\ud800.\udfff", "a" * 100_000, "{id}." + "A" * 43, " {token}", "{token} ")  # fmt: skip


@both
async def test_what_is_no_link_is_one_error_and_one_event(way: Way_) -> None:
    token = await way.link()
    recovery_id, _, secret = token.partition(".")
    said = set()
    for made in NO_LINKS:
        tried = made.replace("{token}", token).replace("{id}", recovery_id).replace("{secret}", secret)
        tried = tried.replace("{other}", "AAAAAAAAAAAAAAAA")
        way.ledger.events.clear()
        error = await refused(way.recoveries.use(ANN, tried, HOME))
        assert (error.status, [event.kind for event in way.ledger.events]) == (410, [Kind.RECOVERY_FAILED]), made
        assert way.ledger.events[0].detail == {"what": "link"}
        said.add(str(error))
        said.add(str(await refused(way.recoveries.look(ANN, tried))))
        said.add(str(await refused(way.recoveries.cancel(tried))))
        said.add(str(await refused(way.recoveries.look_cancel(tried))))
    assert len(said) == 1
    assert (await way.row()).state == State.READY
    assert await way.left(factors) == 2


async def test_a_link_that_cancels_does_nothing_else_and_the_other_cancels_nothing(way: Way_) -> None:
    token = await way.link()
    await refused(way.recoveries.use(ANN, way.letters.asked_[0][1]))
    await refused(way.recoveries.cancel(token))
    assert (await way.row()).state == State.READY


async def test_whatever_is_wrong_with_it_the_same_work_is_done(way: Way_, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await way.link()
    recovery_id = token.partition(".")[0]
    real, asked = way.room.mac.verify, []

    def verify(*parts: str) -> bool:
        asked.append(parts[1])
        return real(*parts)

    monkeypatch.setattr(way.room.mac, "verify", verify)
    for who, tried in ((ANN, "x.y"), (ANN, f"{recovery_id}.wrong"), (somebody("bob"), token), (ANN, "")):
        asked.clear()
        await refused(way.recoveries.use(who, tried))
        await refused(way.recoveries.cancel("x.y" if who is ANN else token))
        assert asked == ["recovery-link", "recovery-cancel"]


async def test_somebody_elses_link_is_like_one_that_never_was(way: Way_) -> None:
    token = await way.link()
    mallory = somebody("bob")
    foreign = await refused(way.recoveries.look(mallory, token))
    await refused(way.recoveries.use(mallory, token))
    unknown = await refused(way.recoveries.look(mallory, "AAAAAAAAAAAAAAAA." + "B" * 43))
    assert (str(foreign), foreign.status, foreign.retry_after) == (str(unknown), unknown.status, unknown.retry_after)
    assert {event.user for event in way.ledger.of(Kind.RECOVERY_FAILED)} == {"bob"}
    assert (await way.recoveries.use(ANN, token)).state is State.DONE


@both
async def test_of_twenty_at_once_one_gets_through(way: Way_, replica: Room) -> None:
    other = Way_(replica)
    token = await way.link()
    tries = [each.recoveries.use(ANN, token) for each in (way, other) for _ in range(10)]
    came = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, Recovery) for one in came) == 1
    assert {one.code for one in came if isinstance(one, UserError)} == {"ERR-RECOVERY"}
    assert sum(isinstance(one, UserError) for one in came) == 19
    assert len(way.ledger.of(Kind.RECOVERED)) + len(other.ledger.of(Kind.RECOVERED)) == 1


@both
async def test_used_and_cancelled_at_once_it_is_one_of_both(way: Way_, replica: Room) -> None:
    token = await way.link()
    cancel = way.letters.asked_[0][1]
    used, cancelled = await asyncio.gather(
        way.recoveries.use(ANN, token), Way_(replica).recoveries.cancel(cancel), return_exceptions=True
    )
    assert isinstance(used, Recovery) is not isinstance(cancelled, Recovery)
    assert (await way.left(factors) == 0) is isinstance(used, Recovery)


@both
async def test_two_processes_send_one_link(way: Way_, replica: Room) -> None:
    other = Way_(replica)
    await way.asked()
    way.room.clock.advance(DAY)
    await asyncio.gather(*(each.recoveries.turn() for each in (way, other, way, other)))
    assert len(way.letters.ready_) + len(other.letters.ready_) == 1


@both
async def test_of_many_who_ask_at_once_one_recovery_is_begun(way: Way_, replica: Room) -> None:
    other = Way_(replica)
    begun = await asyncio.gather(*(each.recoveries.ask(ANN) for each in (way, other) for _ in range(4)))
    assert len({one.id for one in begun}) == 1
    assert len(way.letters.asked_) + len(other.letters.asked_) == 1
    assert len(way.ledger.of(Kind.RECOVERY_ASKED)) + len(other.ledger.of(Kind.RECOVERY_ASKED)) == 1


async def test_a_letter_that_cannot_be_written_leaves_everything_as_it_was(
    way: Way_, caplog: pytest.LogCaptureFixture
) -> None:
    await way.asked()
    way.room.clock.advance(DAY)
    way.letters.fails = True
    await way.recoveries.turn()
    assert "the recovery of default/s-ann could not go on" in caplog.text
    assert (await way.row()).state == State.WAITING
    assert way.ledger.of(Kind.RECOVERY_READY) == []
    way.letters.fails = False
    await way.recoveries.turn()
    assert (await way.row()).state == State.READY


# --- what ends it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["waiting", "ready"])
async def test_whoever_has_the_letter_cancels_it_without_signing_in(when: str, way: Way_) -> None:
    token = await way.link() if when == "ready" else ""
    if not token:
        await way.asked()
    cancel = way.letters.asked_[0][1]
    assert (await way.recoveries.look_cancel(cancel)).user == "ann"
    ended = await way.recoveries.cancel(cancel, HOME)
    assert (ended.state, ended.outcome) == (State.ENDED, "cancelled")
    (event,) = way.ledger.of(Kind.RECOVERY_ENDED)
    assert event.detail["why"] == "cancelled"
    await refused(way.recoveries.cancel(cancel))
    await refused(way.recoveries.look_cancel(cancel))
    if token:
        await refused(way.recoveries.use(ANN, token))
    way.room.clock.advance(2 * DAY)
    await way.recoveries.turn()
    assert len(way.letters.ready_) == bool(token)
    assert await way.left(factors) == 2


ENDS = {
    "another password": {"password": "another", "generation": 7},
    "every session ended": {"generation": 7},
    "disabled": {"disabled": True, "generation": 7},
    "disabled by hand": {"disabled": True},
}


@pytest.mark.parametrize("what", ENDS)
async def test_an_account_that_is_another_since_voids_it_at_the_moment_it_is_used(what: str, way: Way_) -> None:
    """Nobody has told us: it stands in the statement that claims it."""
    token = await way.link()
    await way.set(**ENDS[what])
    await refused(way.recoveries.look(ANN, token))
    await refused(way.recoveries.use(ANN, token))
    assert await way.left(factors) == 2
    assert await way.recoveries.of(ANN) is None
    await way.recoveries.turn()
    assert (await way.row()).outcome == "void"
    await refused(way.recoveries.use(ANN, token))


@pytest.mark.parametrize("what", ENDS)
async def test_and_before_the_delay_is_over_no_link_is_sent(what: str, way: Way_) -> None:
    await way.asked()
    await way.set(**ENDS[what])
    way.room.clock.advance(DAY)
    await way.recoveries.turn()
    assert way.letters.ready_ == []
    assert (await way.row()).outcome == "void"


@both
async def test_nobody_waits_behind_those_whose_letter_never_left(way: Way_, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "AT_ONCE", 1)
    way.letters.unsent.add("s-ann")
    await way.asked()
    await way.asked(CARL)
    way.room.clock.advance(DAY)
    for _ in range(2):
        assert await way.recoveries.turn() == 1
    assert [subject for subject, *_ in way.letters.ready_] == ["s-carl"]
    assert await way.recoveries.turn() == 0, "all were looked at"
    way.letters.unsent.clear()
    assert await way.recoveries.turn() == 1
    assert [subject for subject, *_ in way.letters.ready_] == ["s-carl", "s-ann"]


@pytest.mark.parametrize("told", [True, False])
async def test_a_factor_that_is_shown_ends_it_whether_we_are_told_or_not(told: bool, way: Way_) -> None:
    secret = await way.room.bind(label="found again")
    way.room.clock.advance(7200)
    token = await way.link()
    assert (await way.room.judge(way.room.totp, DEFAULT_TENANT, "s-ann", way.room.code(secret))) is not None
    if told:
        assert await way.recoveries.proven(ANN, HOME) is True
        assert await way.recoveries.proven(ANN) is False
    await refused(way.recoveries.use(ANN, token))
    await way.recoveries.turn()
    assert (await way.row()).outcome == "proven"
    assert await way.left(factors) == 3
    assert [event.detail["why"] for event in way.ledger.of(Kind.RECOVERY_ENDED)] == ["proven"]


async def test_a_backup_code_that_is_found_ends_it_too(way: Way_) -> None:
    way.room.clock.advance(7200)
    codes = await way.room.give_codes()
    way.room.clock.advance(60)
    token = await way.link()
    assert await way.room.judge(way.room.backup_codes, DEFAULT_TENANT, "s-ann", codes[0]) is not None
    await refused(way.recoveries.use(ANN, token))


@both
async def test_a_factor_that_is_bound_meanwhile_ends_it(way: Way_) -> None:
    token = await way.link()
    async with way.records.begin() as connection:
        await way.room.totp.bind(
            connection, DEFAULT_TENANT, "s-ann", secret=b"x" * 20, label="new", step=0, now=way.room.clock.now()
        )
    await refused(way.recoveries.use(ANN, token))
    assert await way.left(factors) == 3


async def test_a_wrong_answer_does_not_end_it(way: Way_) -> None:
    token = await way.link()
    checked = await way.room.factors.check(DEFAULT_TENANT, "s-ann", "totp", "000000")
    assert checked.proof is None
    assert (await way.recoveries.use(ANN, token)).state is State.DONE


@both
async def test_the_link_counts_up_to_its_last_second(way: Way_) -> None:
    token = await way.link()
    way.room.clock.advance(7 * DAY - 1)
    assert (await way.recoveries.look(ANN, token)).state is State.READY
    way.room.clock.advance(1)
    await refused(way.recoveries.look(ANN, token))
    await refused(way.recoveries.use(ANN, token))
    await way.recoveries.turn()
    assert (await way.row()).outcome == "expired"


async def test_a_gateway_that_was_off_sends_no_link_that_nobody_waits_for_any_more(way: Way_) -> None:
    await way.asked()
    way.room.clock.advance(8 * DAY)
    await way.recoveries.turn()
    assert way.letters.ready_ == []
    assert (await way.row()).outcome == "expired"


async def test_where_it_is_not_allowed_any_more_nothing_goes_on(way: Way_) -> None:
    await way.asked()
    way.room.clock.advance(DAY)
    closed = Way_(way.room, by_email=False)
    await closed.recoveries.turn()
    assert closed.letters.ready_ == []
    assert (await refused(closed.recoveries.ask(ANN), "ERR-RECOVERY-OFF")).status == 404
    assert (await way.row()).state == State.WAITING


async def test_without_an_address_everything_looks_the_same_and_nothing_comes_of_it(way: Way_) -> None:
    way.letters.nowhere = True
    begun = await way.asked()
    assert (begun.state, begun.due_at - begun.asked_at) == (State.WAITING, DAY)
    assert len(way.ledger.of(Kind.RECOVERY_ASKED)) == 1
    way.room.clock.advance(DAY)
    await way.recoveries.turn()
    row = await way.row()
    assert (row.state, row.outcome, row.link) == (State.ENDED, "unreachable", None)


async def test_the_delay_begins_when_the_letter_has_left(way: Way_) -> None:
    way.letters.late = 7200
    await way.asked()
    way.room.clock.advance(DAY + 7199)
    await way.recoveries.turn()
    assert way.letters.ready_ == []
    way.room.clock.advance(1)
    await way.recoveries.turn()
    assert len(way.letters.ready_) == 1


async def test_a_letter_that_never_left_lets_nobody_in(way: Way_) -> None:
    way.letters.late = NEVER
    await way.asked()
    for _ in range(8):
        way.room.clock.advance(DAY)
        await way.recoveries.turn()
    assert way.letters.ready_ == []
    assert (await way.row()).outcome == "expired"


async def test_an_address_that_comes_only_after_the_first_letter_gets_no_link(way: Way_) -> None:
    """Nobody could object."""
    way.letters.nowhere = True
    await way.asked()
    way.letters.nowhere = False
    way.room.clock.advance(DAY)
    await way.recoveries.turn()
    assert way.letters.ready_ == []
    assert (await way.row()).outcome == "unreachable"


@both
async def test_three_a_day_and_one_at_a_time(way: Way_) -> None:
    first_at = way.room.clock.now()
    for _ in range(A_DAY):
        first, again = await way.asked(), await way.asked()
        assert first == again
        await way.recoveries.cancel(way.letters.asked_[-1][1])
        way.room.clock.advance(60)
    assert len(way.letters.asked_) == A_DAY
    error = await refused(way.asked(), "ERR-RECOVERY-THROTTLED")
    assert (error.status, error.retry_after) == (429, first_at + DAY - way.room.clock.now())
    way.room.clock.advance(error.retry_after)
    assert (await way.asked()).state is State.WAITING


async def test_who_has_no_factor_has_none_to_lose(way: Way_) -> None:
    await refused(way.asked(somebody("bob")), "ERR-RECOVERY-NOTHING")
    assert way.ledger.events == []


async def test_out_of_use_after_too_many_wrong_answers_is_lost_as_well(way: Way_) -> None:
    async with way.records.begin() as connection:
        await connection.execute(update(factors).values(failures=100))
    token = await way.link()
    assert (await way.recoveries.use(ANN, token)).state is State.DONE


async def test_what_is_over_is_kept_for_a_month(way: Way_) -> None:
    await way.asked()
    await way.recoveries.cancel(way.letters.asked_[0][1])
    assert await way.recoveries.every(DEFAULT_TENANT) == []
    (known,) = await way.recoveries.every(DEFAULT_TENANT, over=True)
    assert (known.user, known.outcome, known.asker) == ("ann", "cancelled", "ann")
    way.room.clock.advance(KEPT)
    await way.recoveries.turn()
    assert await way.recoveries.find(DEFAULT_TENANT, known.id) is not None
    way.room.clock.advance(3600)
    await way.recoveries.turn()
    assert await way.recoveries.find(DEFAULT_TENANT, known.id) is None


# --- two administrators -----------------------------------------------------------------------------------------------


@both
async def test_one_asks_and_another_one_agrees(way: Way_) -> None:
    await open_session(way)
    begun = await way.recoveries.ask_for(ROOT, "s-ann", "  showed a passport\nat the desk ", HOME)
    assert (begun.state, begun.way, begun.reason) == (
        State.PENDING,
        Way.ADMINISTRATORS,
        "showed a passport at the desk",
    )
    assert begun.expires_at - begun.asked_at == APPROVAL
    assert [each[0] for each in way.letters.asked_] == ["s-ann"], "the user hears of it"
    (event,) = way.ledger.of(Kind.RECOVERY_ASKED)
    assert (event.user, event.detail["by"], event.detail["reason"], event.session) == (
        "ann", "root", "showed a passport at the desk", "root's",
    )  # fmt: skip
    assert await way.left(factors) == 2
    assert [one.id for one in await way.recoveries.every(DEFAULT_TENANT)] == [begun.id]

    done = await way.recoveries.approve(CARL, begun.id, HOME)
    assert (done.state, done.outcome, done.settled_by) == (State.DONE, "approved", "carl")
    assert [await way.left(table) for table in (factors, backup_codes, sessions)] == [0, 0, 0]
    assert (await way.user()).mfa_required_from == way.room.clock.now()
    (event,) = way.ledger.of(Kind.RECOVERED)
    assert (event.user, event.detail["by"], event.detail["asked_by"]) == ("ann", "carl", "root")
    assert event.detail["reason"] == "showed a passport at the desk"
    assert way.counted == [("administrators", "asked"), ("administrators", "approved")]


async def test_nobody_agrees_to_their_own_nor_about_themselves(way: Way_) -> None:
    await refused(way.recoveries.ask_for(CARL, "s-carl", "it is me"), "ERR-RECOVERY-OWN")
    mine = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    assert (await refused(way.recoveries.approve(ROOT, mine.id), "ERR-RECOVERY-OWN")).status == 403
    about_carl = await way.recoveries.ask_for(ROOT, "s-carl", "lost")
    await refused(way.recoveries.approve(CARL, about_carl.id), "ERR-RECOVERY-OWN")
    assert await way.left(factors) == 2
    assert {one.state for one in await way.recoveries.every(DEFAULT_TENANT)} == {State.PENDING}


@both
async def test_of_ten_who_agree_at_once_one_does(way: Way_, replica: Room) -> None:
    other = Way_(replica)
    begun = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    came = await asyncio.gather(
        *(each.recoveries.approve(CARL, begun.id) for each in (way, other) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(one, Recovery) for one in came) == 1
    assert {one.code for one in came if isinstance(one, UserError)} == {"ERR-RECOVERY"}


@both
async def test_agreed_and_refused_at_once_it_is_one_of_both(way: Way_, replica: Room) -> None:
    begun = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    agreed, taken_back = await asyncio.gather(
        way.recoveries.approve(CARL, begun.id), Way_(replica).recoveries.refuse(ROOT, begun.id), return_exceptions=True
    )
    assert isinstance(agreed, Recovery) is not isinstance(taken_back, Recovery)
    assert (await way.left(factors) == 0) is isinstance(agreed, Recovery)


async def test_within_a_day_to_the_second(way: Way_) -> None:
    begun = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    way.room.clock.advance(APPROVAL)
    await refused(way.recoveries.approve(CARL, begun.id))
    await way.recoveries.turn()
    assert (await way.row()).outcome == "expired"
    again = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    way.room.clock.advance(APPROVAL - 1)
    assert (await way.recoveries.approve(CARL, again.id)).state is State.DONE


@pytest.mark.parametrize("since", [{"groups": ["staff"]}, {"disabled": True}])
async def test_whoever_asked_must_be_an_administrator_still(since: dict[str, Any], way: Way_) -> None:
    begun = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    await way.set("s-root", **since)
    await refused(way.recoveries.approve(CARL, begun.id))
    assert await way.left(factors) == 2


@both
async def test_a_colleague_of_another_tenant_sees_and_does_nothing(way: Way_) -> None:
    begun = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    stranger = Identity("acme", "s-zoe", "zoe", groups=frozenset({"admins"}))
    await refused(way.recoveries.approve(stranger, begun.id))
    await refused(way.recoveries.refuse(stranger, begun.id))
    assert await way.recoveries.every("acme", over=True) == []
    assert await way.recoveries.find("acme", begun.id) is None
    assert (await way.row()).state == State.PENDING


async def test_the_user_a_colleague_and_whoever_asked_can_end_it(way: Way_) -> None:
    for end in (
        lambda one: way.recoveries.refuse(CARL, one.id),
        lambda one: way.recoveries.refuse(ROOT, one.id),
        lambda one: way.recoveries.cancel(way.letters.asked_[-1][1]),
    ):
        begun = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
        assert (await end(begun)).state is State.ENDED
        await refused(way.recoveries.approve(CARL, begun.id))
    assert [event.detail.get("by") for event in way.ledger.of(Kind.RECOVERY_ENDED)] == ["carl", "root", None]


async def test_an_administrator_ends_one_that_was_asked_for_by_mail(way: Way_) -> None:
    token = await way.link()
    await way.recoveries.refuse(CARL, (await way.row()).id)
    await refused(way.recoveries.use(ANN, token))


async def test_one_open_recovery_whichever_way(way: Way_) -> None:
    await way.asked()
    assert (await refused(way.recoveries.ask_for(ROOT, "s-ann", "lost"), "ERR-RECOVERY-OPEN")).status == 409
    await way.recoveries.refuse(ROOT, (await way.row()).id)
    begun = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    assert await way.asked() == begun, "and who asks is told of that one"


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 501])
async def test_a_reason_is_a_sentence(reason: str, way: Way_) -> None:
    await refused(way.recoveries.ask_for(ROOT, "s-ann", reason), "ERR-RECOVERY-REASON")


async def test_nobody_who_is_not_there_or_has_nothing(way: Way_) -> None:
    await refused(way.recoveries.ask_for(ROOT, "s-bob", "lost"), "ERR-RECOVERY-NOTHING")
    await refused(way.recoveries.ask_for(ROOT, "s-nobody", "lost"), "ERR-RECOVERY-NOTHING")
    await way.set(disabled=True)
    await refused(way.recoveries.ask_for(ROOT, "s-ann", "lost"), "ERR-USER-UNKNOWN")


async def test_the_link_of_the_other_way_is_none(way: Way_) -> None:
    """A recovery that administrators decide about has no link, and no token makes one of it."""
    begun = await way.recoveries.ask_for(ROOT, "s-ann", "lost")
    for secret in ("", "None", way.letters.asked_[0][1].partition(".")[2]):
        await refused(way.recoveries.use(ANN, f"{begun.id}.{secret}"))
    assert await way.left(factors) == 2
