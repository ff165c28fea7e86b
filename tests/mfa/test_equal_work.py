"""Whoever asks learns nothing about a mailbox, or a telephone, by how long the answer takes (case 104).

Not timed, which would tell of the machine, but counted: the same statements in the same order, as many commits, as many
rows of the outbox, and as much sealed, whether anything is sent there or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select, update

from gateway.core.asked import Asked
from gateway.core.contracts import Post
from gateway.core.identity import DEFAULT_TENANT, Level
from gateway.crypto.sealing import Sealer
from gateway.identity.session_rows import revoke
from gateway.identity.users import canonical_email
from gateway.mfa.addressees import Addressees
from gateway.mfa.codes.binding import Addresses
from gateway.mfa.codes.factor import SentCode
from gateway.mfa.email import Email
from gateway.mfa.posted import Posted
from gateway.mfa.recovery import Recoveries
from gateway.mfa.recovery_letters import RecoveryLetters
from gateway.mfa.sealed import place_of
from gateway.mfa.sms import Sms
from gateway.notify.numbers import Numbers
from gateway.store.place import Place as Where
from gateway.store.sqlite_connection import Connection as SqliteConnection
from gateway.store.suppressed_table import Suppressed, suppress
from gateway.store.tables import factors, outbox, users
from tests.mfa.conftest import Room, somebody
from tests.rig.postgres import EITHER, either

ANN = somebody("ann")
GOOD, DEAD, DENIED = "+4915112345678", "+4915112345679", "+905591234567"
MAIL, BOUNCED, UNCONFIRMED = "ann@example.com", "gone@example.com", "new@example.com"


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """SQLite; both databases where a test says so: what one of them can tell is not asked of the other."""
    return either(request, tmp_path) if hasattr(request, "param") else Where(f"sqlite:{tmp_path}/sallyport.db")


both = pytest.mark.parametrize("place", EITHER, indirect=True)


@dataclass
class Work:
    """What was done."""

    statements: list[str] = field(default_factory=list)
    commits: int = 0
    rows: int = 0
    sealed: list[int] = field(default_factory=list)
    """Bytes, of each thing that was sealed."""


@contextmanager
def counted(room: Room, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    """All that the database and the sealer are asked to do meanwhile."""
    work, engine = Work(), room.records._database.engine.sync_engine  # type: ignore[attr-defined]
    seal, commit = Sealer.seal, SqliteConnection.commit

    def executed(_: Any, __: Any, statement: str, *___: Any) -> None:
        work.statements.append(re.sub(r"\$\d+", "?", statement))

    def committed(*_: Any) -> None:
        work.commits += 1

    async def committing(self: SqliteConnection) -> None:
        committed()
        await commit(self)

    def sealing(self: Sealer, plain: bytes, **where: str) -> bytes:
        work.sealed.append(len(plain))
        return seal(self, plain, **where)

    event.listen(engine, "before_cursor_execute", executed)
    event.listen(engine, "commit", committed)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(Sealer, "seal", sealing)
            patched.setattr(SqliteConnection, "commit", committing)  # SQLAlchemy is not told of these
            yield work
    finally:
        event.remove(engine, "before_cursor_execute", executed)
        event.remove(engine, "commit", committed)


async def rows(room: Room) -> int:
    async with room.records.read() as connection:
        return await connection.scalar(select(func.count()).select_from(outbox)) or 0


def the_same(known: Work, other: Work) -> None:
    assert other.statements == known.statements
    assert other.commits == known.commits > 0
    assert other.rows == known.rows == 1
    assert len(other.sealed) == len(known.sealed) > 0
    assert all(abs(one - two) < 32 for one, two in zip(other.sealed, known.sealed, strict=True))


class Codes:
    """Ann, who can be sent codes, and what sending one takes."""

    def __init__(self, room: Room, patch: pytest.MonkeyPatch) -> None:
        self.room, self.patch = room, patch
        channels = {"sms": Numbers(deny=["+90559"]).canonical, "email": canonical_email}
        self.post: Post = Posted(
            room.sealer, Addressees(room.sealer, room.mac), room.clock,
            channels=channels, host="gate", site="https://gate/", most=(20, 40),
        )  # fmt: skip
        self.factors: dict[str, SentCode] = {
            "sms": Sms(room.records, room.sealer, room.mac, room.clock, self.post),
            "email": Email(room.records, room.sealer, room.mac, room.clock, self.post),
        }

    async def bind(self, kind: str, address: str) -> None:
        sealed = self.room.sealer.seal(address.encode(), **place_of(DEFAULT_TENANT, f"f-{address}"))
        async with self.room.records.begin() as connection:
            await connection.execute(
                factors.insert().values(
                    tenant=DEFAULT_TENANT, id=f"f-{address}", subject="s-ann", kind=kind, label="", secret=sealed,
                    last_step=-1, refused_step=-1, failures=0, created_at=1.0,
                )
            )  # fmt: skip

    async def asked(self, kind: str, address: str) -> tuple[Work, bool]:
        """For a code to that address, at a challenge; the work, and whether it looks sent."""
        self.room.clock.advance(86_401.0)  # no limit is in the way
        before = await rows(self.room)
        with counted(self.room, self.patch) as work:
            one = await self.factors[kind].send(
                DEFAULT_TENANT, "s-ann", Asked("session-1", f"ticket-{address}", Level.AAL2), f"f-{address}", "en"
            )
        work.rows = await rows(self.room) - before
        return work, one.wait == 0 and one.masked != "" and one.again_in > 0

    async def state(self) -> Any:
        async with self.room.records.read() as connection:
            return (await connection.execute(select(outbox).order_by(outbox.c.id.desc()))).first()


@pytest.fixture
async def codes(room: Room, monkeypatch: pytest.MonkeyPatch) -> Codes:
    async with room.records.begin() as connection:
        await suppress(connection, DEFAULT_TENANT, Suppressed("sms", DEAD, "bounced", 1.0))
        await suppress(connection, DEFAULT_TENANT, Suppressed("email", BOUNCED, "complained", 1.0))
    return Codes(room, monkeypatch)


@pytest.mark.parametrize(
    ("kind", "good", "bad"), [("sms", GOOD, DEAD), ("sms", GOOD, DENIED), ("email", MAIL, BOUNCED)]
)
async def test_a_code_at_a_challenge(codes: Codes, kind: str, good: str, bad: str) -> None:
    await codes.bind(kind, good)
    await codes.bind(kind, bad)
    await codes.asked(kind, good)  # the first of all makes rows that stay
    await codes.asked(kind, bad)
    known, sent = await codes.asked(kind, good)
    row = await codes.state()
    assert (sent, row.state, row.target) == (True, "waiting", good)
    other, seems_sent = await codes.asked(kind, bad)
    assert seems_sent, "who asks is told the same"
    the_same(known, other)
    row = await codes.state()
    assert (row.state, row.sealed) == ("failed", None), "and nobody is written to"
    assert bad not in str(row._mapping)


@both
async def test_a_code_for_an_address_that_somebody_types(codes: Codes, monkeypatch: pytest.MonkeyPatch) -> None:
    """To set it up: whether it bounces is not told, by the words nor by the work."""
    room, work = codes.room, {}
    setting_up = Addresses(
        codes.factors["email"], room.enrolment, room.factors.attempts, room.kv, room.clock, room.ledger
    )
    for typed in (MAIL, BOUNCED, "nobody@example.org", BOUNCED, MAIL):
        room.clock.advance(86_401.0)
        fresh = somebody("ann", at=room.clock.now())
        before = await rows(room)
        with counted(room, monkeypatch) as done:
            await setting_up.begin(fresh, typed)
        done.rows = await rows(room) - before
        work[typed] = done
    the_same(work[MAIL], work[BOUNCED])


@both
@pytest.mark.parametrize("why", ["no address", "bounced", "not confirmed"])
async def test_a_recovery_that_is_asked_for(room: Room, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    letters = RecoveryLetters(
        room.sealer, Addressees(room.sealer, room.mac), site="https://gate/.sallyport/", issuer="gate"
    )
    ways = Recoveries(
        room.records, room.clock, room.ledger, room.mac, unbind=room.enrolment.unbind, revoke=revoke, letters=letters,
        by_email=True,
    )  # fmt: skip
    await room.bind()
    work = []
    for email in (MAIL, MAIL, {"no address": "", "bounced": BOUNCED, "not confirmed": UNCONFIRMED}[why]):
        room.clock.advance(15 * 86_400.0)
        async with room.records.begin() as connection:
            confirmed = {"email_confirmed": "" if email == UNCONFIRMED else email, "email_confirmed_at": 1.0}
            await connection.execute(update(users).values(email=email, **confirmed))
            if email == BOUNCED:
                await suppress(connection, DEFAULT_TENANT, Suppressed("email", BOUNCED, "bounced", 1.0))
        await ways.turn()
        before = await rows(room)
        with counted(room, monkeypatch) as done:
            begun = await ways.ask(somebody("ann", at=room.clock.now()))
        done.rows = await rows(room) - before
        work.append((done, begun))
    (_, _), (known, sent), (other, looks_sent) = work
    the_same(known, other)
    assert (looks_sent.state, looks_sent.due_at - looks_sent.asked_at) == (sent.state, sent.due_at - sent.asked_at)
