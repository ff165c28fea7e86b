"""A code is put into the outbox sealed, goes to one person once, and never after its time."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from gateway.core.clock import ManualClock
from gateway.core.errors import Undelivered, UserError
from gateway.core.events import Kind
from gateway.core.message import Message, Receipt
from gateway.crypto.mac import Mac
from gateway.crypto.sealing import Sealer
from gateway.identity.users import canonical_email
from gateway.mfa import sealed
from gateway.mfa.addressees import Addressees
from gateway.mfa.posted import WORDS, Posted, opened
from gateway.notify.numbers import Numbers
from gateway.notify.outbox import REFERENCE, Limits, Outbox
from gateway.notify.route import Route
from gateway.store.outbox_table import KEPT, OutboxTable, put
from gateway.store.sql import Records
from gateway.store.tables import outbox
from tests.mfa.conftest import MASTER, Room
from tests.mfa.test_sealed import standing
from tests.rig.ledger import Remembered

CODE = "271828"
NUMBER = "+905301234567"


class Carrier:
    """A sender that does what it is told."""

    name = "carrier"

    def __init__(self) -> None:
        self.took: list[Message] = []
        self.fails: list[BaseException] = []
        self.more = ""

    async def send(self, message: Message) -> Receipt:
        if self.fails:
            raise self.fails.pop(0)
        self.took.append(message)
        return Receipt(f"ref-{len(self.took)}" + self.more)

    async def close(self) -> None:
        pass


class Rig:
    """A post, and the outbox that sends what it takes."""

    def __init__(self, records: Records, clock: ManualClock, most: tuple[int, int] = (20, 40)) -> None:
        self.records, self.clock = records, clock
        self.sealer = Sealer([MASTER])
        self.addressees = Addressees(self.sealer, Mac([MASTER]))
        self.post = Posted(
            self.sealer,
            self.addressees,
            clock,
            channels={"sms": str, "email": canonical_email},
            host="gate.example",
            site="https://gate.example/.sallyport/",
            most=most,
        )
        self.sms, self.mail, self.ledger = Carrier(), Carrier(), Remembered()
        self.outbox = Outbox(
            OutboxTable(records, self.addressees),
            {
                "sms": Route([self.sms], clock, lambda *_: None),
                "email": Route([self.mail], clock, lambda *_: None),
            },
            clock,
            self.ledger,
            limits=Limits(),
            count=lambda *_: None,
            opened=lambda parcel: opened(self.sealer, parcel),
        )

    async def send(self, channel: str = "sms", to: str = NUMBER, **more: Any) -> None:
        values = {
            "tenant": "default", "subject": "s-ann", "code": CODE, "about": "verify", "language": "en",
            "expires_at": self.clock.now() + 600, **more,
        }  # fmt: skip
        async with self.records.begin() as connection:
            await self.post.code(connection, channel=channel, to=to, **values)

    async def row(self) -> Any:
        async with self.records.read() as connection:
            return (await connection.execute(select(outbox).order_by(outbox.c.id.desc()))).first()


@pytest.fixture
def rig(room: Room) -> Rig:
    return Rig(room.records, room.clock)


@pytest.mark.parametrize("about", sorted(WORDS))
async def test_by_mail(rig: Rig, about: str) -> None:
    await rig.send("email", "ann@example.com", about=about)
    assert await rig.outbox.turn() == 1
    (message,) = rig.mail.took
    assert message.subject == WORDS[about][0]
    assert CODE not in message.subject, "subjects are shown on locked screens"
    assert CODE in message.text
    assert CODE in message.html
    assert "10 minutes" in message.text
    assert message.useful == 600
    assert "{" not in message.text + message.html


LINK = "3-" + "t" * 43 + "." + "s" * 43
LEADS_TO = f"https://gate.example/.sallyport/verify/link?token={LINK}"


@pytest.mark.parametrize(("language", "said"), [("en", "Anywhere else it does nothing"), ("tr", "Başka hiçbir yerde")])
async def test_a_link_stands_beside_the_code(rig: Rig, language: str, said: str) -> None:
    await rig.send("email", "ann@example.com", link=LINK, language=language)
    row = await rig.row()
    assert not any("s" * 43 in str(value) for value in row)
    assert b"s" * 43 not in row.sealed
    await rig.outbox.turn()
    (message,) = rig.mail.took
    assert LEADS_TO in message.text.splitlines(), "on a line of its own"
    assert f'<a href="{LEADS_TO}">{LEADS_TO}</a>' in message.html
    assert said in message.text
    assert said in message.html
    assert CODE in message.text
    assert "s" * 43 not in message.subject
    assert "s" * 43 not in repr(message)
    assert (await rig.row()).sealed is None


async def test_without_one_nothing_is_said_of_links(rig: Rig) -> None:
    await rig.send("email", "ann@example.com")
    await rig.outbox.turn()
    (message,) = rig.mail.took
    for text in (message.text, message.html):
        assert "link" not in text
        assert "https" not in text


async def test_a_text_message_has_none_whoever_asks_for_it(rig: Rig) -> None:
    await rig.send(link=LINK)
    await rig.outbox.turn()
    (message,) = rig.sms.took
    assert "https" not in message.text
    assert "s" * 43 not in message.text
    assert message.text.splitlines()[-1] == f"@gate.example #{CODE}"


async def test_by_phone(rig: Rig) -> None:
    await rig.send()
    await rig.outbox.turn()
    (message,) = rig.sms.took
    assert (message.to, message.subject, message.html) == (NUMBER, "", "")
    assert message.text.splitlines()[-1] == f"@gate.example #{CODE}"
    row = await rig.row()
    assert (row.state, row.via, row.reference) == ("sent", "carrier", "ref-1")


async def test_a_number_that_operators_have_named_since_gets_nothing(rig: Rig) -> None:
    """It was bound before they did."""
    rig.post = Posted(
        rig.sealer,
        rig.addressees,
        rig.clock,
        channels={"sms": Numbers(deny=["+90530"]).canonical},
        host="gate.example",
        site="https://gate.example/.sallyport/",
        most=(20, 40),
    )
    with pytest.raises(UserError, match="ERR-PHONE-REFUSED") as caught:
        await rig.send()
    assert caught.value.retry_after == 0, "whoever asks is told that it is on its way"
    assert await rig.row() is None
    await rig.send(to="+905421234567")
    assert (await rig.row()).target == "+905421234567"


async def test_what_a_sender_calls_it_is_kept_within_reason(rig: Rig) -> None:
    rig.sms.more = "x" * 60_000
    await rig.send()
    await rig.outbox.turn()
    assert len((await rig.row()).reference) == REFERENCE


async def test_the_database_has_no_code(rig: Rig) -> None:
    await rig.send()
    row = await rig.row()
    assert not any(CODE in str(value) for value in row)
    assert CODE.encode() not in row.sealed
    assert opened(rig.sealer, row) == CODE
    await rig.outbox.turn()
    assert (await rig.row()).sealed is None, "what was sealed is gone once it is sent"


async def test_moved_to_another_row_it_does_not_open(rig: Rig) -> None:
    await rig.send()
    theirs = (await rig.row()).sealed
    await rig.send(subject="s-bob", to="+905301111111", code="111111")
    mine = await rig.row()
    async with rig.records.begin() as connection:
        await connection.execute(update(outbox).where(outbox.c.id == mine.id).values(sealed=theirs))
    await rig.outbox.turn()
    assert [message.to for message in rig.sms.took] == [NUMBER]
    assert (await rig.row()).state == "failed"
    assert rig.ledger.kinds() == [Kind.NOTIFICATION_FAILED]


async def test_never_after_its_time(rig: Rig) -> None:
    await rig.send()
    rig.clock.advance(600)
    await rig.outbox.turn()
    assert rig.sms.took == []
    row = await rig.row()
    assert (row.state, row.sealed) == ("failed", None)
    (event,) = rig.ledger.events
    assert event.detail["why"] == "its time is over"


async def test_what_nobody_carries_any_more_is_given_up_and_forgotten(rig: Rig) -> None:
    await rig.send()
    async with rig.records.begin() as connection:
        await connection.execute(update(outbox).values(channel="pigeon"))
    rig.clock.advance(2 * 3600)
    await rig.outbox.turn()
    row = await rig.row()
    assert (row.state, row.sealed) == ("failed", None)


async def test_codes_do_not_wait_for_notices(rig: Rig) -> None:
    content = {
        "title": "T", "name": "Ann", "user": "ann", "said": "S", "facts": [], "advice": "A", "link": "L",
        "from_whom": "gate",
    }  # fmt: skip
    for number in range(12):
        async with rig.records.begin() as connection:
            await put(
                connection, tenant="default", subject="s-ann", channel="email", target=f"a{number}@example.com",
                kind="notice", content=content, now=rig.clock.now(), lifetime=86_400.0,
            )  # fmt: skip
    await rig.send("email", "ann@example.com")
    await rig.outbox.turn()
    assert "ann@example.com" in [message.to for message in rig.mail.took], "it is in the first turn"
    assert len(rig.mail.took) == 9


async def test_so_many_to_one_number_and_to_one_person(room: Room) -> None:
    rig = Rig(room.records, room.clock, most=(2, 3))
    await rig.send()
    room.clock.advance(60)
    await rig.send(subject="s-bob")
    with pytest.raises(UserError) as caught:
        await rig.send()
    assert (caught.value.code, caught.value.status) == ("ERR-THROTTLED", 429)
    assert caught.value.retry_after == 3540
    await rig.send(to="+905302222222")
    await rig.send(to="+905303333333")
    with pytest.raises(UserError):
        await rig.send(to="+905304444444")
    room.clock.advance(3541)
    await rig.send()


async def test_what_failed_is_not_counted(room: Room) -> None:
    rig = Rig(room.records, room.clock, most=(1, 1))
    rig.sms.fails = [Undelivered("no", final=True)]
    await rig.send()
    await rig.outbox.turn()
    await rig.send()
    await rig.outbox.turn()
    assert len(rig.sms.took) == 1


async def test_nobody_carries_it(rig: Rig) -> None:
    with pytest.raises(UserError, match="ERR-UNREACHABLE"):
        rig.post.address("pigeon", "x")
    with pytest.raises(UserError, match="ERR-UNREACHABLE"):
        await rig.send("pigeon")
    assert await rig.row() is None


async def test_an_old_master_key_waits_for_codes_that_are_on_their_way(rig: Rig, room: Room) -> None:
    await rig.send()
    (need,) = [
        need
        for need in await sealed.needs(room.records, standing(room), room.clock.now(), 0.0)
        if need.what == "codes to be sent"
    ]
    assert (need.count, need.until) == (1, room.clock.now() + 600)
    assert not [
        n for n in await sealed.needs(room.records, standing(room, b"n" * 32), room.clock.now(), 0.0) if n.count
    ]
    at = room.clock.now()
    await rig.outbox.turn()
    (need,) = [n for n in await sealed.needs(room.records, standing(room), at, 0.0) if n.count]
    assert need == sealed.Need("addresses of sent messages", 1, at + KEPT)
    assert not [n for n in await sealed.needs(room.records, standing(room, b"n" * 32), at, 0.0) if n.count]
    assert not [n for n in await sealed.needs(room.records, standing(room), at + KEPT, 0.0) if n.count]


@pytest.mark.parametrize(
    ("text", "canonical"), [(" Ann@EXAMPLE.com ", "Ann@example.com"), ("jürgen@example.com", "jürgen@example.com")]
)
def test_one_spelling_of_an_address(text: str, canonical: str) -> None:
    assert canonical_email(text) == canonical


@pytest.mark.parametrize(
    "text", ["", "ann", "a@b@c", "a,b@c.d", "a@b\r\nBcc: c@d", "<a@b.c>", "a@b.c\u2028x", "a" * 300]
)
def test_no_address(text: str) -> None:
    with pytest.raises(UserError, match="ERR-EMAIL-INVALID"):
        canonical_email(text)
