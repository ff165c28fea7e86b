"""Whoever reads somebody's mail, and recovers their account by it, is heard of on their telephone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy import select

from gateway.core.errors import UserError
from gateway.core.identity import DEFAULT_TENANT, Proof
from gateway.identity.session_rows import revoke
from gateway.identity.users import canonical_email
from gateway.mfa.addressees import Addressees
from gateway.mfa.aside import Aside
from gateway.mfa.codes.bound import bound_to
from gateway.mfa.posted import place_of
from gateway.mfa.recovery import DAY, Recoveries
from gateway.mfa.recovery_letters import RecoveryLetters
from gateway.mfa.sealed import place_of as factor_at
from gateway.notify import short
from gateway.notify.letter import write
from gateway.notify.numbers import Numbers
from gateway.store.outbox_table import OutboxTable
from gateway.store.place import Place as Where
from gateway.store.tables import factors, outbox, users
from tests.mfa.conftest import Room, somebody
from tests.rig.postgres import EITHER, either

ANN = somebody("ann")
ROOT = somebody("root", groups=frozenset({"admins"}), session="root's")
CARL = somebody("carl", groups=frozenset({"admins"}), session="carl's")
NUMBER = "+4915112345678"
MAIL = "ann@example.com"


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """SQLite; both databases where a test says so: what one of them can tell is not asked of the other."""
    return either(request, tmp_path) if hasattr(request, "param") else Where(f"sqlite:{tmp_path}/sallyport.db")


both = pytest.mark.parametrize("place", EITHER, indirect=True)


def shown(room: Room) -> tuple[Proof, ...]:
    """A password and a device, just now."""
    return Proof("password", room.clock.now()), Proof("totp", room.clock.now())


def aside(room: Room) -> Aside:
    """Who tells the addresses that codes go to."""
    bound = partial(bound_to, room.sealer, {"sms": Numbers().canonical, "email": canonical_email})
    return Aside(bound, issuer="gate.example.com", account="https://gate.example.com/.sallyport/account")


class Home:
    """Ann's account, the ways back into it, and what is on its way to her."""

    def __init__(self, room: Room, **more: Any) -> None:
        self.room = room
        self.letters = RecoveryLetters(
            room.sealer,
            Addressees(room.sealer, room.mac),
            site="https://gate.example.com/.sallyport/",
            issuer="gate.example.com",
            aside=aside(room),
            **more,
        )
        self.recoveries = Recoveries(
            room.records, room.clock, room.ledger, room.mac, unbind=room.enrolment.unbind, revoke=revoke,
            letters=self.letters, by_email=True,
        )  # fmt: skip

    async def bind(self, number: str = NUMBER, name: str = "n1") -> None:
        sealed = self.room.sealer.seal(number.encode(), **factor_at(DEFAULT_TENANT, name))
        async with self.room.records.begin() as connection:
            await connection.execute(
                factors.insert().values(
                    tenant=DEFAULT_TENANT, id=name, subject="s-ann", label="", secret=sealed, last_step=-1,
                    kind="email" if "@" in number else "sms", refused_step=-1, failures=0, created_at=1.0,
                )
            )  # fmt: skip

    async def ann(self, **values: Any) -> None:
        async with self.room.records.begin() as connection:
            await connection.execute(users.update().where(users.c.subject == "s-ann").values(**values))

    async def rows(self) -> list[Any]:
        async with self.room.records.read() as connection:
            return list((await connection.execute(select(outbox).order_by(outbox.c.id))).all())

    async def to(self, channel: str) -> list[Any]:
        return [row for row in await self.rows() if row.channel == channel]

    async def settled(self, row: int, state: str, at: float) -> None:
        """As the outbox leaves it."""
        shelf = OutboxTable(self.room.records, Addressees(self.room.sealer, self.room.mac))
        async with self.room.records.begin() as connection:
            await connection.execute(outbox.update().where(outbox.c.id == row).values(state="sending", tries=1))
        await shelf.settle(row, 1, state, now=at, due_at=0.0, via="smtp", reference="")

    async def link(self) -> str:
        """The token of the second letter, once the first was taken over and the delay is over."""
        await self.recoveries.ask(ANN)
        async with self.room.records.begin() as connection:
            settled = {"state": "sent", "settled_at": self.room.clock.now()}
            await connection.execute(outbox.update().where(outbox.c.channel == "email").values(**settled))
        self.room.clock.advance(DAY)
        assert await self.recoveries.turn() == 1
        (letter,) = [row for row in await self.to("email") if row.kind == "recovery_ready"]
        url = self.room.sealer.unseal(letter.sealed, **place_of(DEFAULT_TENANT, letter.token)).decode()
        return url.partition("token=")[2]


@pytest.fixture
async def home(room: Room) -> Home:
    async with room.records.begin() as connection:
        for name in ("root", "carl"):
            await connection.execute(
                users.insert().values(
                    tenant=DEFAULT_TENANT, subject=f"s-{name}", name=name, email="", display_name="", groups=["admins"],
                    password="", disabled=False, created_at=0.0,
                )
            )  # fmt: skip
    home = Home(room)
    await home.ann(email=MAIL, email_confirmed=MAIL, email_confirmed_at=1.0)
    await room.bind()
    await home.bind()
    room.clock.advance(60)
    return home


@both
async def test_who_recovers_by_mail_is_heard_of_on_the_telephone(home: Home) -> None:
    token = await home.link()
    (text,) = await home.to("sms")
    assert (text.target, text.kind, text.sealed) == (NUMBER, "recovery_asked", None)
    await home.recoveries.use(ANN, token)
    done = (await home.to("sms"))[-1]
    assert (done.target, done.kind, done.state) == (NUMBER, "recovered", "waiting"), "told as it was unbound"
    async with home.room.records.read() as connection:
        assert (await connection.execute(factors.select().where(factors.c.subject == "s-ann"))).first() is None


@both
@pytest.mark.parametrize("values", [{"email_confirmed": ""}, {"email": "ann@example.org"}])
async def test_the_link_goes_to_no_address_that_nobody_has_confirmed(home: Home, values: dict[str, str]) -> None:
    """Never, or it is another one since: what stops it goes there still, and says so."""
    await home.ann(**values)
    begun = await home.recoveries.ask(ANN)
    assert begun.state == "waiting"
    (letter,) = await home.to("email")
    assert (letter.kind, letter.target) == ("recovery_asked", values.get("email", MAIL))
    url = home.room.sealer.unseal(letter.sealed, **place_of(DEFAULT_TENANT, letter.token)).decode()
    written = write({**letter.content, "link": url})
    assert "It was never confirmed that you read what is sent to this address" in written.text
    assert "we will write to you again" not in written.text
    assert [row.kind for row in await home.to("sms")] == ["recovery_asked"]
    async with home.room.records.begin() as connection:
        await connection.execute(outbox.update().values(state="sent", settled_at=home.room.clock.now()))
    home.room.clock.advance(DAY)
    await home.recoveries.turn()
    assert [row.kind for row in await home.to("email")] == ["recovery_asked"]
    found = await home.recoveries.find(DEFAULT_TENANT, begun.id)
    assert found is not None
    assert (found.state, found.outcome) == ("ended", "unreachable")
    token = url.partition("token=")[2]
    with pytest.raises(UserError, match="ERR-RECOVERY"):
        await home.recoveries.use(ANN, token)


@both
async def test_what_is_confirmed_in_the_delay_counts_the_next_time(home: Home) -> None:
    await home.ann(email_confirmed="")
    await home.recoveries.ask(ANN)
    async with home.room.records.begin() as connection:
        await connection.execute(outbox.update().values(state="sent", settled_at=home.room.clock.now()))
    await home.ann(email_confirmed=MAIL, email_confirmed_at=home.room.clock.now() + 1)
    home.room.clock.advance(DAY)
    await home.recoveries.turn()
    assert [row.kind for row in await home.to("email")] == ["recovery_asked"]
    assert await home.link()


@both
@pytest.mark.parametrize(
    "values", [{"email": "ann@example.org"}, {"email": ""}, {"email_confirmed": ""}, {"email_confirmed_at": 9e9}]
)
async def test_a_link_dies_with_the_address_that_it_went_to(home: Home, values: dict[str, Any]) -> None:
    token = unquote(await home.link())
    assert (await home.recoveries.look(ANN, token)).state == "ready"
    await home.ann(**values)
    for using in (home.recoveries.look, home.recoveries.use):
        with pytest.raises(UserError, match="ERR-RECOVERY"):
            await using(ANN, token)
    assert await home.recoveries.of(ANN) is None
    await home.recoveries.turn()
    (over,) = await home.recoveries.every(DEFAULT_TENANT, over=True)
    assert (over.state, over.outcome) == ("ended", "void")
    await home.ann(email=MAIL, email_confirmed=MAIL, email_confirmed_at=1.0)
    with pytest.raises(UserError, match="ERR-RECOVERY"):
        await home.recoveries.use(ANN, token)


@both
async def test_an_address_that_changes_in_the_delay_gets_no_link(home: Home) -> None:
    await home.recoveries.ask(ANN)
    async with home.room.records.begin() as connection:
        await connection.execute(outbox.update().values(state="sent", settled_at=home.room.clock.now()))
    await home.ann(email="ann@example.org")
    home.room.clock.advance(DAY)
    await home.recoveries.turn()
    assert [row.kind for row in await home.to("email")] == ["recovery_asked"]


async def test_who_stops_it_need_not_have_confirmed_anything(home: Home) -> None:
    await home.ann(email_confirmed="")
    await home.recoveries.ask(ANN)
    (letter,) = await home.to("email")
    url = home.room.sealer.unseal(letter.sealed, **place_of(DEFAULT_TENANT, letter.token)).decode()
    assert "recover/cancel?" in url
    assert (await home.recoveries.cancel(unquote(url.partition("token=")[2]))).outcome == "cancelled"


async def test_who_is_recovered_by_administrators_is_told_too(home: Home) -> None:
    """Without an address as well."""
    await home.ann(email="")
    begun = await home.recoveries.ask_for(ROOT, "s-ann", "lost")
    await home.recoveries.approve(CARL, begun.id)
    sent = [(row.channel, row.kind) for row in await home.rows() if row.state == "waiting"]
    assert sent == [("sms", "recovery_asked"), ("sms", "recovered")]


async def test_where_nobody_carries_mail_nothing_is_written_for_it(room: Room, home: Home) -> None:
    begun = await Home(room, mail=False).recoveries.ask_for(ROOT, "s-ann", "lost")
    assert [row.channel for row in await home.rows()] == ["sms"]
    assert begun.state == "pending"


async def test_every_number_is_told_once(home: Home) -> None:
    await home.bind("+4915112345679", "n2")
    await home.bind(NUMBER, "n3")
    await home.recoveries.ask(ANN)
    await home.recoveries.ask(ANN)
    assert sorted(row.target for row in await home.to("sms")) == [NUMBER, "+4915112345679"]


async def test_a_text_that_was_given_up_holds_up_no_link(home: Home) -> None:
    """The telephone may be what is lost; the delay runs from the letter."""
    await home.recoveries.ask(ANN)
    now = home.room.clock.now()
    async with home.room.records.begin() as connection:
        for channel, state in (("sms", "failed"), ("email", "sent")):
            this = outbox.update().where(outbox.c.channel == channel)
            await connection.execute(this.values(state=state, settled_at=now))
    home.room.clock.advance(DAY)
    await home.recoveries.turn()
    assert [row.kind for row in await home.to("email")] == ["recovery_asked", "recovery_ready"]


async def test_what_arrived_elsewhere_stands_for_no_letter(home: Home) -> None:
    await home.bind("spare@example.org", "e1")
    await home.recoveries.ask(ANN)
    now = home.room.clock.now()
    async with home.room.records.begin() as connection:
        for target, state in (("ann@example.com", "failed"), (NUMBER, "sent"), ("spare@example.org", "sent")):
            this = outbox.update().where(outbox.c.target == target)
            assert (await connection.execute(this.values(state=state, settled_at=now))).rowcount == 1
    home.room.clock.advance(DAY)
    await home.recoveries.turn()
    assert {row.kind for row in await home.rows()} == {"recovery_asked"}


@both
@pytest.mark.parametrize("what", ["failed", "undelivered"])
async def test_a_letter_that_never_left_is_not_forgotten(home: Home, what: str) -> None:
    """A week later nobody has heard of it still, and the outbox has let go of what else is a week old."""
    await home.bind("spare@example.org", "e1")
    await home.recoveries.ask(ANN)
    shelf, now = OutboxTable(home.room.records, Addressees(home.room.sealer, home.room.mac)), home.room.clock.now()
    for row in await home.rows():
        own = row.target == "ann@example.com"
        await home.settled(row.id, "failed" if own and what == "failed" else "sent", now + (0 if own else 600))
        if own and what == "undelivered":
            async with home.room.records.begin() as connection:
                await connection.execute(outbox.update().where(outbox.c.id == row.id).values(delivery=what))
    home.room.clock.advance(7 * DAY + 300)
    await shelf.sweep(home.room.clock.now())
    await home.recoveries.turn()
    assert not [row for row in await home.rows() if row.kind == "recovery_ready"]
    (letter,) = [row for row in await home.rows() if row.settled_at == now]
    assert (letter.kind, letter.target, letter.address) == ("recovery_asked", "a***@example.com", b"")
    home.room.clock.advance(54 * DAY)
    await shelf.sweep(home.room.clock.now())
    assert not [row for row in await home.rows() if row.settled_at == now]


async def test_a_letter_that_left_is_known_to_have_left_after_the_longest_delay(room: Room, home: Home) -> None:
    shelf = OutboxTable(room.records, Addressees(room.sealer, room.mac))
    home.recoveries.delay = 30 * DAY
    await home.recoveries.ask(ANN)
    for row in await home.rows():
        await home.settled(row.id, "sent", room.clock.now())
    for days in (29, 1):
        room.clock.advance(days * DAY)
        await shelf.sweep(room.clock.now())
        await home.recoveries.turn()
        assert [row.kind for row in await home.to("email")][1:] == (["recovery_ready"] if days == 1 else [])


async def test_another_mailbox_that_codes_go_to_is_told_in_a_letter(home: Home) -> None:
    """Without the link that is for the account's own, and nothing of it is sealed."""
    await home.bind("spare@example.org", "e1")
    await home.bind("ann@example.com", "e2")
    begun = await home.recoveries.ask_for(ROOT, "s-ann", "lost")
    await home.recoveries.approve(CARL, begun.id)
    asked, done = [row for row in await home.to("email") if row.target == "spare@example.org"]
    assert (asked.kind, asked.sealed, done.kind, done.sealed) == ("recovery_asked", None, "recovered", None)
    letter = write(asked.content)
    assert letter.subject == "Somebody asks to get back into your account"
    assert "because they are lost" in letter.text
    assert "recover/cancel" not in letter.text + letter.html
    assert "https://gate.example.com/.sallyport/account" in letter.text
    assert "signed out everywhere" in write(done.content).text
    own = [row.kind for row in await home.to("email") if row.target == "ann@example.com"]
    assert own == ["recovery_asked"], "that has its letter already, and is told of the end by a notice"


@both
@pytest.mark.parametrize("how", ["remove", "disable", "reset", "refused"])
async def test_an_address_that_goes_is_told_as_it_goes(room: Room, home: Home, how: str) -> None:
    """Whoever gets in by a mailbox would take the telephone away first, and be told of it in that mailbox."""
    room.enrolment._aside = aside(room)
    await home.bind("spare@example.org", "e1")
    fresh = somebody(
        "ann", at=room.clock.now(), proofs=shown(room), groups=frozenset({"admins"} if how == "refused" else ())
    )
    if how == "remove":
        await room.enrolment.remove(fresh, "n1")
    elif how == "disable":
        await room.enrolment.disable(fresh)
    elif how == "reset":
        await room.enrolment.reset(DEFAULT_TENANT, "s-ann", user="ann", by="root")
    else:
        async with room.records.begin() as connection:
            await connection.execute(factors.delete().where(factors.c.id != "n1"))
        with pytest.raises(UserError, match="ERR-MFA-REQUIRED"):
            await room.enrolment.remove(fresh, "n1")
    told = sorted((row.target, row.kind) for row in await home.rows())
    everybody = [(NUMBER, "factor_removed"), ("spare@example.org", "factor_removed")]
    assert told == {"remove": everybody[:1], "refused": []}.get(how, everybody)


@pytest.mark.parametrize("language", ["en", "tr"])
async def test_the_address_that_an_account_had_is_told_and_telephones_are(
    room: Room, home: Home, language: str
) -> None:
    await home.bind("spare@example.org", "e1")
    await home.bind(MAIL.upper(), "e2")
    await home.ann(language=language)
    async with room.records.begin(DEFAULT_TENANT, "s-ann") as connection:
        await aside(room).moving(connection, DEFAULT_TENANT, "s-ann", at=room.clock.now())
    assert [row.target for row in await home.rows()] == [MAIL, "spare@example.org", NUMBER], "each of them once"
    (text,) = [short.told(row.content) for row in await home.to("sms")]
    assert short.septets(text) <= short.ROOM
    assert "http" not in text
    letter = write((await home.rows())[0].content)
    assert letter.subject == {"en": "The e-mail address of your account was changed"}.get(
        language, "Hesabınızın e-posta adresi değiştirildi"
    )
    await home.ann(email="")
    async with room.records.begin(DEFAULT_TENANT, "s-ann") as connection:
        await aside(room).moving(connection, DEFAULT_TENANT, "s-ann", at=room.clock.now())
    assert "" not in {row.target for row in await home.rows()}


async def test_what_has_no_address_tells_nobody_as_it_goes(room: Room, home: Home) -> None:
    room.enrolment._aside = aside(room)
    (device,) = [one for one in await room.factors.of(DEFAULT_TENANT, "s-ann") if one.kind == "totp"]
    await room.enrolment.remove(somebody("ann", at=room.clock.now(), proofs=shown(room)), device.id)
    assert await home.rows() == []


@pytest.mark.parametrize(
    ("language", "asked", "done"),
    [
        (
            "en",
            "gate.example.com: Somebody asks to get back into your account (ann). "
            "Not you? Sign in and confirm that it is you: that stops it.",
            "gate.example.com: Your account was recovered, all second factors were removed (ann). "
            "Not you? Ask whoever looks after your account at once.",
        ),
        (
            "tr",
            "gate.example.com: Hesabınız için kurtarma istendi (ann). "
            "Siz değilseniz oturum açıp kimliğinizi doğrulayın; bu, kurtarmayı durdurur.",
            "gate.example.com: Hesabınız kurtarıldı, tüm ikinci doğrulama yöntemleri kaldırıldı (ann). "
            "Siz değilseniz hemen hesabınızla ilgilenen kişiye başvurun.",
        ),
    ],
)
async def test_it_is_one_message_without_a_link(home: Home, language: str, asked: str, done: str) -> None:
    await home.ann(language=language)
    begun = await home.recoveries.ask_for(ROOT, "s-ann", "lost")
    await home.recoveries.approve(CARL, begun.id)
    texts = [short.told(row.content) for row in await home.to("sms")]
    assert texts == [short.gsm(asked), short.gsm(done)]
    assert all(short.septets(text) <= short.ROOM and "http" not in text for text in texts)
