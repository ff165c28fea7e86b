"""A recovery from end to end (case 116): the real gateway, a real mail server, and somebody who reads their mail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest_asyncio

from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from gateway.mfa.recovery import DAY
from gateway.store.tables import users
from tests.house.visitor import OURS, Phone, Visitor, location
from tests.rig.gateway import PASSWORD, Gateway, running
from tests.rig.mail import MailServer, mail_server

POLICY = """
rules:
  - {name: all, access: authenticated, step_up: {level: aal2}, upstream: app}
"""
EVIL = "http://evil.example"


class House:
    """A gateway that allows it, its mail, and bob, whose telephone is lost."""

    def __init__(self, gateway: Gateway, mail: MailServer, phone: Phone, folder: Path) -> None:
        self.gateway = gateway
        self.mail = mail
        self.phone = phone
        self.folder = folder

    def visit(self, **about: str) -> Visitor:
        return Visitor(self.gateway.port, **about)

    async def asked(self, visitor: Visitor) -> None:
        await visitor.sign_in()
        assert location(await visitor.fill(await visitor.get("recover"), "recover")) == f"{OURS}recover"

    async def delay(self) -> None:
        """A day goes by after the letter, and the house is kept."""
        await self.gateway.app._outbox.turn()  # type: ignore[union-attr]
        self.gateway.clock.advance(DAY)
        await self.gateway.app.people.recoveries.turn()  # type: ignore[union-attr]

    async def letter(self, title: str) -> EmailMessage:
        """The newest letter about `title`, once it has come."""
        await self.gateway.app._outbox.turn()  # type: ignore[union-attr]
        return [each for each in self.mail.box if each["Subject"] == title][-1]

    async def link(self, title: str) -> str:
        """The path of the link in it, without the origin."""
        letter = await self.letter(title)
        text = letter.get_body(("plain",)).get_content()  # type: ignore[union-attr]
        (found,) = re.findall(r"http\S*/recover/\S+", text)
        assert found.startswith(f"http://good.test{OURS}recover/")
        assert found in letter.get_body(("html",)).get_content().replace("&amp;", "&")  # type: ignore[union-attr]
        parts = urlsplit(found)
        return f"{parts.path}?{parts.query}"

    async def told(self, kind: Kind) -> int:
        await self.gateway.app.recorder.flush()
        return len(await self.gateway.app.recorder.events(DEFAULT_TENANT, kind=kind))


STOP = "Somebody asks to get back into your account"
GO_ON = "Get back into your account"
FIRST = f"{OURS}enrol-first?next={quote(OURS + 'account', safe='')}"


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with mail_server() as mail:
        config = {
            "mfa": {"recovery": {"channel": "email"}},
            "notify": {
                "from": "Gate <gate@good.test>",
                "email": [{"smtp": {"host": "127.0.0.1", "port": mail.port, "tls": "none"}}],
            },
        }
        async with running(tmp_path, policy=POLICY, config=config) as gateway:
            await gateway.app.users.add("bob", PASSWORD, email="bob@good.test", email_confirmed=True)
            visitor = Visitor(gateway.port)
            await visitor.sign_in()
            phone, _ = await visitor.enrol(gateway.clock)
            gateway.clock.advance(DAY)
            yield House(gateway, mail, phone, tmp_path)


async def follow(visitor: Visitor, link: str) -> None:
    """Follow the link of the second letter to its end."""
    login = location(await visitor.get(link))
    assert login == f"{OURS}login?next={quote(link, safe='')}" or "reauth=1" in login
    assert location(await visitor.fill(await visitor.get(login), "login", username="bob", password=PASSWORD)) == link
    done = await visitor.fill(await visitor.get(link), "recover/link")
    assert location(done) == FIRST


async def test_two_letters_a_day_apart_and_in_again_with_a_new_factor(house: House) -> None:
    thief = house.visit()
    await thief.sign_in()
    assert location(await thief.get("/")).startswith(f"{OURS}verify/"), "the password alone opens nothing"
    bob = house.visit()
    await house.asked(bob)
    letter = await house.letter(STOP)
    assert (letter["To"], letter["From"]) == ("bob@good.test", "Gate <gate@good.test>")
    await house.delay()
    await follow(bob, await house.link(GO_ON))

    assert location(await thief.get("/")).startswith(f"{OURS}login"), "every session is over"
    assert not house.gateway.upstream.requests
    assert location(await bob.get("/")).startswith(f"{OURS}enrol-first?"), "the level was not lowered"
    await bob.enrol(house.gateway.clock)
    assert (await bob.get("/")).status == 200
    assert [one.one("X-Forwarded-User") for one in house.gateway.upstream.requests] == [b"bob"]
    assert (await house.letter("Your account was recovered"))["To"] == "bob@good.test"
    assert (await house.told(Kind.RECOVERY_ASKED), await house.told(Kind.RECOVERED)) == (1, 1)
    said = house.gateway.app.metrics.render()[0].decode()
    for outcome in ("asked", "ready", "used"):
        assert f'sallyport_recoveries_total{{outcome="{outcome}",way="email"}} 1.0' in said
    assert (await bob.get(await house.link(GO_ON))).status == 410, "once"


async def test_whether_the_address_is_confirmed_is_told_to_nobody_who_asks(house: House) -> None:
    """The pages word for word and the letter at once; and then none with a link."""
    pages, events = [], []
    for confirmed in (True, False):
        if not confirmed:
            async with house.gateway.app.records.begin() as connection:  # type: ignore[union-attr]
                await connection.execute(users.update().values(email_confirmed=""))
        thief = house.visit()
        await thief.sign_in()
        before = await thief.get("recover")
        await thief.fill(before, "recover")
        after = await thief.get("recover")
        await house.letter(STOP)
        asked = await thief.get("recover")
        pages.append([re.sub(r'name="csrf" value="[^"]*"', "", page.body.decode()) for page in (before, after, asked)])
        await house.delay()
        events.append(await house.told(Kind.RECOVERY_READY))
        if confirmed:  # the other one has ended by itself
            await thief.fill(await thief.get(await house.link(STOP)), "recover/cancel")
    times = re.compile(r"\d+ \w+ \d{4}, \d\d:\d\d UTC")
    first, second = ([times.sub("", page) for page in each] for each in pages)
    assert first == second
    assert events == [1, 1], "the second one had no link"
    assert [each["Subject"] for each in house.mail.box].count(STOP) == 2


async def test_who_confirms_the_address_first_gets_back_in_by_it(house: House) -> None:
    """From the button on the account page, over the letter with the code, to the link."""
    async with house.gateway.app.records.begin() as connection:  # type: ignore[union-attr]
        await connection.execute(users.update().values(email_confirmed="", email_confirmed_at=None))
    bob = house.visit()
    await bob.sign_in()
    challenge = location(await bob.fill(await bob.get("account"), "account/email/send"))
    assert challenge.startswith(f"{OURS}verify/"), "a second factor first"
    await bob.fill(await bob.get(challenge), challenge.removeprefix(OURS), code=house.phone.code)
    assert location(await bob.fill(await bob.get("account"), "account/email/send")) == f"{OURS}account/email"
    letter = await house.letter("Your code to confirm the address of your account")
    (code,) = set(re.findall(r"\b\d{6}\b", letter.get_body(("plain",)).get_content()))  # type: ignore[union-attr]
    done = await bob.fill(await bob.get("account/email"), "account/email/confirm", code=code)
    assert location(done) == f"{OURS}account?done=confirmed-address"
    assert (await house.letter("The e-mail address of your account was confirmed"))["To"] == "bob@good.test"
    house.gateway.clock.advance(60)  # a factor that is shown later would end it
    await house.asked(bob)
    await house.delay()
    await follow(bob, await house.link(GO_ON))
    log = (house.folder / "access.log").read_bytes()
    house.gateway.app._access_log.close()
    assert code.encode() not in log


async def test_letters_are_in_the_language_of_whom_they_are_for(house: House) -> None:
    known = await house.gateway.app.users.find("bob")
    assert known is not None
    await house.gateway.app.users.speak(known.tenant, known.subject, "tr")
    await house.asked(house.visit())
    await house.delay()
    assert (await house.link("Hesabınız için kurtarma istendi")).startswith(f"{OURS}recover/cancel?")
    assert (await house.link("Hesabınıza yeniden erişin")).startswith(f"{OURS}recover/link?")


async def test_a_host_that_a_browser_makes_up_is_in_no_letter(house: House) -> None:
    """Whatever names another host in the requests, links begin with `public_url`."""
    bob = house.visit(origin=EVIL)
    bob.more = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "X-Original-Host": "evil.example"}
    await bob.sign_in()
    assert (await bob.fill(await bob.get("recover"), "recover")).status == 303
    await house.delay()
    for title in (STOP, GO_ON):
        assert (await house.link(title)).startswith(f"{OURS}recover/")
    assert len(house.mail.box) >= 2
    assert not any(b"evil" in each.as_bytes() for each in house.mail.box)


async def test_used_in_parallel_it_works_once(house: House) -> None:
    bob = house.visit()
    await house.asked(bob)
    await house.delay()
    link = await house.link(GO_ON)
    visitors = [house.visit() for _ in range(4)]
    pages = []
    for visitor in visitors:
        login = location(await visitor.get(link))
        await visitor.fill(await visitor.get(login), "login", username="bob", password=PASSWORD)
        pages.append(await visitor.get(link))
    assert {page.status for page in pages} == {200}
    pairs = zip(visitors, pages, strict=True)
    answers = await asyncio.gather(*(visitor.fill(page, "recover/link") for visitor, page in pairs))
    ways = [answer.status if answer.status != 303 else location(answer) for answer in answers]
    assert ways.count(FIRST) == 1
    assert await house.told(Kind.RECOVERED) == 1


async def test_after_another_password_the_link_is_dead_and_nothing_is_lowered(house: House) -> None:
    bob = house.visit()
    await house.asked(bob)
    await house.delay()
    link = await house.link(GO_ON)
    await house.gateway.app.users.set_password("bob", "another " + PASSWORD)
    login = location(await bob.get(link))
    assert (await bob.fill(await bob.get(login), "login", username="bob", password=PASSWORD)).status == 401
    await bob.sign_in(password="another " + PASSWORD)
    assert (await bob.get(link)).status == 410
    assert location(await bob.get("/")).startswith(f"{OURS}verify/")
    assert await house.told(Kind.RECOVERED) == 0


async def test_the_owner_stops_it_and_the_thief_gets_nothing(house: House) -> None:
    thief, owner = house.visit(), house.visit()
    await house.asked(thief)
    link = await house.link(STOP)
    await owner.fill(await owner.get(link), "recover/cancel")
    await house.delay()
    await house.gateway.app._outbox.turn()  # type: ignore[union-attr]
    assert not [each for each in house.mail.box if each["Subject"] == GO_ON]
    assert (await owner.get(link)).status == 410


async def test_no_log_and_no_table_holds_a_link(house: House) -> None:
    bob = house.visit()
    await house.asked(bob)
    await house.delay()
    waiting = (house.folder / "data" / "rig.db").read_bytes() + (house.folder / "data" / "rig.db-wal").read_bytes()
    stop, link = await house.link(STOP), await house.link(GO_ON)
    await follow(bob, link)
    await bob.get(stop)
    await house.gateway.app.recorder.flush()
    house.gateway.app._access_log.close()
    secrets = [each.rpartition("token=")[2].partition(".")[2] for each in (stop, link)]
    assert all(len(secret) == 43 for secret in secrets)
    kept = waiting + b"".join(each.read_bytes() for each in (house.folder / "data").iterdir() if each.is_file())
    log = (house.folder / "access.log").read_bytes()
    assert b"recover/link" in log
    for secret in secrets:
        assert secret.encode() not in kept
        assert secret.encode() not in log


async def test_a_restart_in_between_changes_nothing(house: House) -> None:
    bob = house.visit()
    await house.asked(bob)
    await house.gateway.restart()
    await house.delay()
    bob.port = house.gateway.port
    await follow(bob, await house.link(GO_ON))


async def test_where_the_first_letter_is_refused_there_is_no_second_one(house: House) -> None:
    bob = house.visit()
    house.mail.rcpt = ["550 5.1.1 nobody of that name"] * 20
    await house.asked(bob)
    await house.gateway.app._outbox.turn()  # type: ignore[union-attr]
    house.mail.rcpt = []
    await house.delay()
    await house.delay()
    await house.gateway.app._outbox.turn()  # type: ignore[union-attr]
    assert not {STOP, GO_ON} & {each["Subject"] for each in house.mail.box}
    assert await house.told(Kind.RECOVERY_READY) == 0


async def test_the_delay_begins_when_the_first_letter_is_taken_over(house: House) -> None:
    bob = house.visit()
    house.mail.rcpt = ["451 4.3.0 not now"] * 20
    await house.asked(bob)
    await house.gateway.app._outbox.turn()  # type: ignore[union-attr]
    house.mail.rcpt = []
    house.gateway.clock.advance(DAY - 60)
    await house.gateway.app._outbox.turn()  # type: ignore[union-attr]
    assert await house.link(STOP)
    house.gateway.clock.advance(3600)
    await house.gateway.app.people.recoveries.turn()  # type: ignore[union-attr]
    assert await house.told(Kind.RECOVERY_READY) == 0, "a day after it was asked for, an hour after they know"
    await house.delay()
    assert await house.told(Kind.RECOVERY_READY) == 1
