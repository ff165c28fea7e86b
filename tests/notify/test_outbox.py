"""From a row to somebody's box: in order, once, within limits, whatever happens to senders, database and process."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway, Undelivered
from gateway.core.events import Kind
from gateway.core.message import Message, Receipt
from gateway.crypto.mac import Mac
from gateway.crypto.sealing import Sealer
from gateway.mfa.addressees import Addressees
from gateway.notify.outbox import LEASE, Limits, Outbox, backoff
from gateway.notify.route import REST, Route
from gateway.store.outbox_table import KEPT, MOST_WAITING, OutboxTable, put
from gateway.store.place import Place
from gateway.store.sql import Records
from gateway.store.tables import outbox
from tests.rig.behind import at_rest
from tests.rig.ledger import Remembered
from tests.rig.postgres import EITHER, either

ADDRESSEES = Addressees(Sealer([b"m" * 32]), Mac([b"m" * 32]))
SECRET_WORDS = "what only ann may read"


@pytest.fixture(params=EITHER)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """All of this, on both databases."""
    return either(request, tmp_path)


@dataclass
class Carrier:
    """A sender that does what it is told."""

    name: str = "one"
    fails: list[BaseException] = field(default_factory=list)
    took: list[Message] = field(default_factory=list)
    asked: int = 0
    gate: asyncio.Event | None = None

    async def send(self, message: Message) -> Receipt:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)
        self.took.append(message)
        return Receipt()

    async def close(self) -> None:
        self.name += " closed"


class Rig:
    """An outbox over two carriers."""

    def __init__(self, records: Records, clock: ManualClock, ledger: Remembered, limits: Limits | None = None) -> None:
        self.records, self.clock, self.ledger = records, clock, ledger
        self.first, self.second = Carrier("one"), Carrier("two")
        self.counted: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()
        self.shelf = OutboxTable(records, ADDRESSEES)
        self.limits = limits or Limits()
        self.outbox = self.another()

    def another(self) -> Outbox:
        """One more process on the same database, with the same carriers."""
        route = Route(
            [self.first, self.second], self.clock, lambda name, outcome, _: self.tries.update([f"{name} {outcome}"])
        )
        return Outbox(
            self.shelf, {"email": route}, self.clock, self.ledger,
            limits=self.limits, count=lambda _, outcome: self.counted.update([outcome]),
        )  # fmt: skip

    async def put(self, target: str = "ann@example.com", subject: str = "1", kind: str = "password_changed") -> bool:
        content = {
            "title": "Title", "name": "Ann", "user": "ann", "said": SECRET_WORDS, "facts": [], "advice": "A",
            "link": "https://gate.example/", "from_whom": "gate",
        }  # fmt: skip
        async with self.records.begin() as connection:
            return await put(
                connection, tenant="default", subject=subject, channel="email", target=target, kind=kind,
                content=content, now=self.clock.now(), lifetime=86_400.0,
            )  # fmt: skip

    async def states(self) -> list[str]:
        async with self.records.read() as connection:
            return list((await connection.scalars(select(outbox.c.state).order_by(outbox.c.id))).all())


@pytest.fixture
def rig(records: Records, clock: ManualClock, ledger: Remembered) -> Rig:
    return Rig(records, clock, ledger)


async def test_it_is_sent_once(rig: Rig) -> None:
    await rig.put()
    assert await rig.outbox.turn() == 1
    assert await rig.outbox.turn() == 0
    (message,) = rig.first.took
    assert (message.to, message.subject, message.kind) == ("ann@example.com", "Title", "password_changed")
    assert SECRET_WORDS in message.text
    assert SECRET_WORDS not in repr(message)
    assert await rig.states() == ["sent"]
    assert (rig.counted, rig.tries) == ({"sent": 1}, {"one accepted": 1})


async def test_many_processes_send_it_once(rig: Rig) -> None:
    for number in range(12):
        await rig.put(f"u{number}@example.com", str(number))
    others = [rig.another() for _ in range(4)]
    while sum(await asyncio.gather(*(other.turn() for other in others))):
        pass
    assert sorted(Counter(message.to for message in rig.first.took).values()) == [1] * 12
    assert await rig.states() == ["sent"] * 12


async def test_the_next_sender_takes_what_the_first_cannot(rig: Rig, clock: ManualClock) -> None:
    rig.first.fails = [Undelivered("down")]
    await rig.put()
    await rig.put()
    await rig.outbox.turn()
    assert len(rig.second.took) == 2
    await rig.put()
    await rig.outbox.turn()
    assert rig.first.asked == 1, "it rests"
    clock.advance(REST + 1)
    await rig.put()
    await rig.outbox.turn()
    assert len(rig.first.took) == 1


async def test_what_may_have_been_taken_over_is_given_to_nobody_else(rig: Rig, clock: ManualClock) -> None:
    rig.first.fails = [Undelivered("no answer", unsure=True)]
    await rig.put()
    await rig.outbox.turn()
    assert (rig.second.asked, rig.counted) == (0, {"retried": 1})
    clock.advance(REST + 10)
    await rig.outbox.turn()
    assert len(rig.first.took) == 1
    assert rig.first.took[0].id


async def test_all_refuse(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.first.fails, rig.second.fails = [Undelivered("550", final=True)], [Undelivered("550", final=True)]
    await rig.put()
    with caplog.at_level(logging.DEBUG):
        await rig.outbox.turn()
    assert await rig.states() == ["failed"]
    assert (rig.counted, rig.tries) == ({"failed": 1}, {"one refused": 1, "two refused": 1})
    (event,) = rig.ledger.events
    assert (event.kind, event.user) == (Kind.NOTIFICATION_FAILED, "ann")
    assert event.detail == {"channel": "email", "kind": "password_changed", "tries": 1, "why": "one: 550; two: 550"}
    assert SECRET_WORDS not in caplog.text
    assert "ann@example.com" not in caplog.text + str(event)


async def test_what_one_refuses_waits_for_another_that_is_down(rig: Rig, clock: ManualClock) -> None:
    rig.first.fails = [Undelivered("550", final=True), Undelivered("550", final=True)]
    rig.second.fails = [Undelivered("down")]
    await rig.put()
    await rig.outbox.turn()
    assert (await rig.states(), rig.counted) == (["waiting"], {"retried": 1})
    clock.advance(REST)
    await rig.outbox.turn()
    assert (len(rig.second.took), await rig.states()) == (1, ["sent"])


async def test_what_each_try_took_and_came_to_is_told(clock: ManualClock) -> None:
    """Providers that are slow, and those that fail, are known by it."""
    told: list[tuple[str, str, float]] = []

    class Slow(Carrier):
        async def send(self, message: Message) -> Receipt:
            clock.advance(2.5)
            return await super().send(message)

    one, two, three = (Slow(name) for name in ("one", "two", "three"))
    route = Route([one, two, three], clock, lambda *tried: told.append(tried))
    message = Message("id", "code", "ann@example.com", "Title", "Text", "", at=clock.now())
    one.fails, two.fails = [Undelivered("down")], [Undelivered("550", final=True), Undelivered("cut", unsure=True)]
    assert (await route.send(message)).via == "three"
    with pytest.raises(Undelivered):
        await route.send(message)
    assert told == [("one", "failed", 2.5), ("two", "refused", 2.5), ("three", "accepted", 2.5), ("two", "unsure", 2.5)]


async def test_waits_grow_and_end(rig: Rig, clock: ManualClock) -> None:
    await rig.put()
    rig.first.fails = [Undelivered("down") for _ in range(99)]
    rig.second.fails = [Undelivered("down") for _ in range(99)]
    waits, last = [], clock.now()
    while await rig.states() == ["waiting"]:
        if await rig.outbox.turn():
            waits.append(clock.now() - last)
            last = clock.now()
        async with rig.records.read() as connection:
            clock.advance(max(0.0, (await connection.scalar(select(outbox.c.due_at)) or 0.0) - clock.now()) + 0.1)
    assert len(waits) >= 20
    assert waits[1] < waits[2] < waits[3] < waits[4]
    assert max(waits) <= 3600 * 1.2 + 5
    assert await rig.states() == ["failed"]
    assert rig.ledger.kinds() == [Kind.NOTIFICATION_FAILED]


async def test_a_sender_that_asks_for_time_gets_it(rig: Rig, clock: ManualClock) -> None:
    rig.first.fails = [Undelivered("429", retry_after=600.0)]
    rig.second.fails = [Undelivered("429", retry_after=900.0)]
    await rig.put()
    await rig.outbox.turn()
    clock.advance(599)
    assert await rig.outbox.turn() == 0
    clock.advance(2)
    assert await rig.outbox.turn() == 1


async def test_whoever_dies_with_a_message_loses_none(rig: Rig, clock: ManualClock) -> None:
    rig.first.gate = asyncio.Event()
    await rig.put()
    dying = asyncio.create_task(rig.outbox.turn())
    while not rig.first.asked:
        await asyncio.sleep(0)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    rig.first.gate = None
    survivor = rig.another()
    assert await survivor.turn() == 0, "it may be on its way still"
    clock.advance(LEASE + 1)
    assert await survivor.turn() == 1
    assert len(rig.first.took) == 1


async def test_the_database_goes_away_after_it_was_taken_over(rig: Rig, clock: ManualClock) -> None:
    """It is remembered that it was, and it is not sent again."""
    settle = rig.shelf.settle
    away = True

    async def settling(*args: object, **more: object) -> None:
        if away:
            raise StoreAway("gone")
        await settle(*args, **more)  # type: ignore[arg-type]

    rig.shelf.settle = settling  # type: ignore[method-assign]
    await rig.put()
    await rig.outbox.turn()
    clock.advance(LEASE + 1)
    with pytest.raises(StoreAway):
        await rig.outbox.turn()
    away = False
    await rig.outbox.turn()
    assert await rig.states() == ["sent"]
    assert len(rig.first.took) == 1


async def test_a_fault_of_ours_ends_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.first.fails = [ValueError(SECRET_WORDS)]
    await rig.put()
    assert await rig.outbox.turn() == 1
    assert await rig.states() == ["waiting"]
    assert rig.counted == {"retried": 1}


async def test_limits_hold_per_address_and_per_user(records: Records, clock: ManualClock, ledger: Remembered) -> None:
    rig = Rig(records, clock, ledger, Limits(per_target=3, per_user=5))
    for _ in range(8):
        await rig.put("ann@example.com")
    await rig.put("ann@example.com", kind="factor_removed")
    for _ in range(3):
        await rig.outbox.turn()
    kinds = Counter(message.kind for message in rig.first.took)
    assert kinds == {"password_changed": 3, "factor_removed": 1}, "a flood of one kind keeps no other away"
    for _ in range(4):
        await rig.put("other@example.com")
    for _ in range(3):
        await rig.outbox.turn()
    assert Counter(message.to for message in rig.first.took)["other@example.com"] == 2, "five of one kind to one user"
    clock.advance(3601)
    for _ in range(3):
        await rig.outbox.turn()
    assert len(rig.first.took) == 4 + 2 + 5


@pytest.mark.parametrize("ending", ["sent", "refused", "given up", "of an older version"])
async def test_what_is_over_tells_nobody_to_whom_it_went(rig: Rig, clock: ManualClock, ending: str) -> None:
    """Nor what it said; whoever has the keys can tell, for a week."""
    if ending == "refused":
        rig.first.fails, rig.second.fails = [Undelivered("550", final=True)], [Undelivered("550", final=True)]
    await rig.put()
    async with rig.records.read() as connection:
        before = (await connection.execute(select(outbox))).one()
    assert (before.target, before.address) == ("ann@example.com", None), "whoever sends it has to know"
    if ending == "given up":
        clock.advance(2 * 86_400.0 + 1)
        await rig.shelf.sweep(clock.now())
    else:
        await rig.outbox.turn()
    if ending == "of an older version":
        async with rig.records.begin() as connection:
            was = {"target": before.target, "content": before.content, "whose": "", "address": None}
            await connection.execute(outbox.update().values(was))
        await rig.shelf.sweep(clock.now())
    async with rig.records.read() as connection:
        (row,) = (await connection.execute(select(outbox))).all()
    assert row.state == ("failed" if ending in ("refused", "given up") else "sent")
    shown = str(row._mapping)
    assert row.target == "a***@example.com"
    assert "ann@example.com" not in shown
    assert SECRET_WORDS not in shown
    assert row.content == {"user": "ann"}
    assert b"ann@" not in row.address
    assert ADDRESSEES.open(row.tenant, row.token, row.address) == "ann@example.com"
    assert ADDRESSEES.open(row.tenant, "another", row.address) == "", "it is bound to its row"
    assert row.whose == ADDRESSEES.whose("email", "ann@example.com")


async def test_nor_does_a_file_in_which_it_was(clock: ManualClock, ledger: Remembered, tmp_path: Path) -> None:
    """What SQLite has let go of is overwritten."""
    where = Place(f"sqlite:{tmp_path}/sent.db")
    rig = Rig(await Records.open(where, clock=clock), clock, ledger)
    for number in range(30):
        await rig.put(f"somebody-{number}@example.com", str(number))
    assert b"somebody-7@example.com" in at_rest(where)
    while await rig.outbox.turn():
        pass
    await rig.records.close()
    left = at_rest(where)
    assert b"s***@example.com" in left
    assert b"somebody-" not in left
    assert SECRET_WORDS.encode() not in left


async def test_what_waits_again_can_be_sent_again(rig: Rig, clock: ManualClock) -> None:
    rig.first.fails, rig.second.fails = [Undelivered("down")], [Undelivered("down")]
    await rig.put()
    await rig.outbox.turn()
    clock.advance(REST + 10)
    await rig.outbox.turn()
    assert rig.first.took[0].to == "ann@example.com"


async def test_taken_over_twice_its_address_is_sealed_once(rig: Rig, clock: ManualClock) -> None:
    """Whoever settles late finds it masked already."""
    await rig.put()
    await rig.outbox.turn()
    async with rig.records.read() as connection:
        once = (await connection.execute(select(outbox))).one()
    await rig.shelf.settle(once.id, 9, "sent", now=clock.now(), due_at=0.0, via="two", reference="late")
    async with rig.records.read() as connection:
        row = (await connection.execute(select(outbox))).one()
    assert (row.target, row.via, row.reference) == ("a***@example.com", "two", "late")
    assert ADDRESSEES.open(row.tenant, row.token, row.address) == "ann@example.com"


async def test_what_waits_is_bounded(rig: Rig) -> None:
    put_in = [await rig.put() for _ in range(MOST_WAITING + 5)]
    assert put_in == [True] * MOST_WAITING + [False] * 5
    assert await rig.put("other@example.com")


async def test_old_rows_go(rig: Rig, clock: ManualClock) -> None:
    await rig.put()
    await rig.outbox.turn()
    clock.advance(KEPT + 10)
    await rig.put("new@example.com")
    await rig.outbox.turn()
    assert await rig.states() == ["sent"]


async def test_closing_waits_for_what_is_on_its_way(rig: Rig) -> None:
    rig.first.gate = asyncio.Event()
    await rig.put()
    rig.outbox.start()
    async with asyncio.timeout(10):
        while not rig.first.asked:
            await asyncio.sleep(0.01)
        closing = asyncio.create_task(rig.outbox.close())
        await asyncio.sleep(0)
        rig.first.gate.set()
        await closing
    assert await rig.states() == ["sent"]
    assert rig.first.name == "one closed"


def test_backoff_grows_to_an_hour() -> None:
    assert 4.0 <= backoff(1) <= 6.0
    assert 16.0 <= backoff(2) <= 24.0
    assert 2880.0 <= backoff(50) <= 4320.0


async def test_what_was_claimed_before_the_database_went_away_is_sent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody looked at it for minutes, and a code would be worth nothing by then."""
    for subject in ("1", "2"):
        await rig.put(f"{subject}@example.com", subject)
    claim, claimed = OutboxTable.claim, []

    async def once(shelf: OutboxTable, row: int, *more: Any) -> Any:
        if claimed:
            raise StoreAway("gone")
        claimed.append(row)
        return await claim(shelf, row, *more)

    monkeypatch.setattr(OutboxTable, "claim", once)
    with pytest.raises(StoreAway):
        await rig.outbox.turn()
    monkeypatch.undo()
    assert [message.to for message in rig.first.took] == ["1@example.com"]
    assert await rig.states() == ["sent", "waiting"]


async def test_what_was_sent_while_the_database_was_away_is_settled_before_the_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks next would send it once more."""
    await rig.put()

    async def away(*_: Any, **__: Any) -> None:
        raise StoreAway("gone")

    monkeypatch.setattr(OutboxTable, "settle", away)
    assert await rig.outbox.turn() == 1
    assert await rig.states() == ["sending"]
    await rig.another().close()  # which knows nothing of it
    monkeypatch.undo()
    await rig.outbox.close()
    assert await rig.states() == ["sent"]
    rig.clock.advance(LEASE + 1)
    assert await rig.another().turn() == 0
    assert rig.first.asked == 1
