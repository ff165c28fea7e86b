"""What became of a message is kept once, and an address that takes nothing is left alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.audit.deliveries import Deliveries
from gateway.audit.notices import Notices
from gateway.audit.recorder import Recorder
from gateway.core.clock import ManualClock
from gateway.core.errors import UserError
from gateway.core.events import Event, Kind
from gateway.core.message import Report
from gateway.crypto.mac import Mac
from gateway.crypto.sealing import Sealer
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.mfa.addressees import Addressees
from gateway.mfa.posted import Posted
from gateway.store.event_table import EventTable
from gateway.store.outbox_table import OutboxTable, put
from gateway.store.place import Place
from gateway.store.sql import Records
from gateway.store.suppressed_table import every
from gateway.store.tables import outbox
from tests.rig.ledger import Remembered
from tests.rig.postgres import EITHER, either

SEALER = Sealer([b"m" * 32])
ADDRESSEES = Addressees(SEALER, Mac([b"m" * 32]))
CONTENT = {"user": "ann"}


@pytest.fixture(params=EITHER)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """All of this, on both databases."""
    return either(request, tmp_path)


class Rig:
    """Messages that were taken over, and what is told of them."""

    def __init__(self, records: Records, clock: ManualClock, ledger: Remembered) -> None:
        self.records, self.clock, self.ledger = records, clock, ledger
        self.counted: Counter[str] = Counter()
        count = lambda _, what: self.counted.update([what])  # noqa: E731
        self.deliveries = Deliveries(records, clock, ledger, count, opened=ADDRESSEES.open)

    async def sent(self, reference: str = "r1", via: str = "ses", target: str = "ann@example.com") -> None:
        async with self.records.begin() as connection:
            await put(
                connection, tenant="default", subject="s-ann", channel="email", target=target, kind="notice",
                content=CONTENT, now=self.clock.now(), lifetime=600.0,
            )  # fmt: skip
            row = await connection.scalar(select(outbox.c.id).order_by(outbox.c.id.desc()).limit(1))
        about = {"now": self.clock.now(), "due_at": 0.0, "via": via, "reference": reference}
        await OutboxTable(self.records, ADDRESSEES).settle(row or 0, 0, "sent", **about)

    async def tell(self, outcome: Any, key: str = "k1", reference: str = "r1", sender: str = "ses") -> str:
        return await self.deliveries.report(sender, Report(reference, outcome, key))

    async def delivery(self) -> list[str]:
        async with self.records.read() as connection:
            return list((await connection.scalars(select(outbox.c.delivery).order_by(outbox.c.id))).all())


@pytest.fixture
def rig(records: Records, clock: ManualClock, ledger: Remembered) -> Rig:
    return Rig(records, clock, ledger)


async def test_delivered(rig: Rig) -> None:
    await rig.sent()
    await rig.sent("r2", target="bob@example.com")
    assert await rig.tell("delivered") == "kept"
    assert await rig.delivery() == ["delivered", ""]
    assert (rig.counted, rig.ledger.events) == ({"delivered": 1}, [])


async def test_it_is_believed_once(rig: Rig) -> None:
    await rig.sent()
    told = await asyncio.gather(*(rig.tell("undelivered") for _ in range(5)))
    assert sorted(told) == ["kept", *["repeated"] * 4]
    assert rig.ledger.kinds() == [Kind.MESSAGE_UNDELIVERED]
    (event,) = rig.ledger.events
    assert event.user == "ann"
    assert event.detail == {"sender": "ses", "channel": "email", "kind": "notice", "outcome": "undelivered"}
    assert await rig.tell("delivered", "k2") == "kept"
    assert await rig.delivery() == ["undelivered"], "the first end is the end"


@pytest.mark.parametrize(
    ("reference", "sender"), [("r2", "ses"), ("r1", "ses-2"), ("", "ses"), ("r1", ""), ("r1' OR 1=1", "ses")]
)
async def test_about_nothing_we_know(rig: Rig, reference: str, sender: str) -> None:
    await rig.sent()
    async with rig.records.begin() as connection:  # what was not taken over yet has no reference
        await put(
            connection, tenant="default", subject="s-ann", channel="email", target="a@b.c", kind="notice",
            content=CONTENT, now=rig.clock.now(), lifetime=600.0,
        )  # fmt: skip
    assert await rig.tell("bounced", reference=reference, sender=sender) == "unknown"
    assert await rig.tell("bounced", reference=reference, sender=sender) == "unknown"
    assert await rig.delivery() == ["", ""]
    assert [(event.kind, event.detail["reason"]) for event in rig.ledger.events] == [
        (Kind.CALLBACK_REFUSED, "message")
    ] * 2
    assert await every(rig.records, "default") == []
    assert await rig.tell("delivered") == "kept", "and the key is free still"


async def test_told_too_early_it_can_be_told_again(rig: Rig) -> None:
    assert await rig.tell("delivered") == "unknown"
    await rig.sent()
    assert await rig.tell("delivered") == "kept"


@pytest.mark.parametrize("outcome", ["bounced", "complained"])
async def test_an_address_that_takes_nothing_is_left_alone(rig: Rig, outcome: str) -> None:
    post = Posted(SEALER, ADDRESSEES, rig.clock, channels={"email": str}, host="gate", site="", most=(20, 40))
    passwords = Passwords()
    people = LocalUsers(rig.records, passwords, rig.clock, Remembered())
    await people.add("ann", "correct horse battery staple 42", email="ann@example.com")
    passwords.close()
    notices: Counter[str] = Counter()
    also = Notices(issuer="gate", account="https://gate/", count=lambda _, what: notices.update([what]))
    recorder = Recorder(EventTable(rig.records, also), rig.clock)

    async def code() -> None:
        async with rig.records.begin() as connection:
            await post.code(
                connection, tenant="default", subject="s-ann", channel="email", to="ann@example.com", code="271828",
                about="verify", language="en", expires_at=rig.clock.now() + 600,
            )  # fmt: skip

    await rig.sent()
    await rig.tell("delivered", "k0")
    assert await rig.tell(outcome) == "kept"
    assert await rig.delivery() == [outcome]
    assert rig.ledger.kinds() == [Kind.MESSAGE_UNDELIVERED, Kind.ADDRESS_SUPPRESSED]
    assert "ann@" not in str(rig.ledger.events)
    (one,) = await every(rig.records, "default")
    assert (one.channel, one.target, one.why, one.at) == ("email", "ann@example.com", outcome, rig.clock.now())
    with pytest.raises(UserError, match="ERR-UNREACHABLE"):
        await code()
    await recorder.record(Event(Kind.PASSWORD_CHANGED, user="ann"))
    assert notices == {"dropped": 1}

    assert await rig.deliveries.release("default", "email", "ann@example.com", by="root")
    assert not await rig.deliveries.release("default", "email", "ann@example.com", by="root")
    assert rig.ledger.kinds()[-1] == Kind.ADDRESS_RELEASED
    assert await rig.tell(outcome) == "repeated", "a copy of the old bounce changes nothing"
    await code()
    await recorder.record(Event(Kind.PASSWORD_CHANGED, user="ann"))
    assert notices == {"dropped": 1, "queued": 1}


async def test_who_complained_is_left_alone_however_the_address_is_spelled(rig: Rig) -> None:
    post = Posted(SEALER, ADDRESSEES, rig.clock, channels={"email": str}, host="gate", site="", most=(20, 40))

    async def code(to: str) -> None:
        async with rig.records.begin() as connection:
            await post.code(
                connection, tenant="default", subject="s-ann", channel="email", to=to, code="271828",
                about="verify", language="en", expires_at=rig.clock.now() + 600,
            )  # fmt: skip

    await rig.sent(target="ann@example.com")
    assert await rig.tell("complained") == "kept"
    for spelled in ("ann@example.com", "Ann@example.com", "ann+1@example.com"):
        with pytest.raises(UserError, match="ERR-UNREACHABLE"):
            await code(spelled)
    assert await rig.deliveries.release("default", "email", "ANN@example.com", by="root")
    await code("Ann@example.com")


async def test_an_address_that_nobody_can_tell_any_more(rig: Rig) -> None:
    """Its key is gone: what became of it is told, and nothing is guessed."""
    await rig.sent()
    rig.deliveries = Deliveries(
        rig.records, rig.clock, rig.ledger, opened=Addressees(Sealer([b"o" * 32]), Mac([b"o"])).open
    )
    assert await rig.tell("bounced") == "kept"
    assert await every(rig.records, "default") == []
    assert rig.ledger.kinds() == [Kind.MESSAGE_UNDELIVERED]


async def test_a_message_that_an_older_version_has_sent_counts_too(rig: Rig) -> None:
    await rig.sent()
    async with rig.records.begin() as connection:
        await connection.execute(outbox.update().values(target="ann@example.com", address=None))
    assert await rig.tell("bounced") == "kept"
    (one,) = await every(rig.records, "default")
    assert one.target == "ann@example.com"


async def test_who_pretends_to_be_a_sender_is_counted_and_told(rig: Rig) -> None:
    counted: list[tuple[str, str]] = []
    deliveries = Deliveries(rig.records, rig.clock, rig.ledger, lambda *what: counted.append(what))
    deliveries.refused("ses")
    deliveries.refused("")
    assert counted == [("ses", "refused"), ("none", "refused")]
    assert [event.detail for event in rig.ledger.of(Kind.CALLBACK_REFUSED)] == [
        {"reason": "signature", "sender": "ses"},
        {"reason": "sender"},
    ]
