"""Bad input, at every door: one stable error, one event, nothing that could be learnt from, nothing half done.

The doors are the pages and the endpoints that take a code, a ticket, a credential, a phone number or an address. Each
is sent everything that is none, and has to say the same of all of it; what it says is compared whole, headers too. What
judges behind them is held to the same by `tests/mfa/test_factor_contract.py`, callbacks by `test_callbacks.py`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import delete, select

from gateway.core.clock import ManualClock
from gateway.core.events import Event, Kind
from gateway.core.identity import Level
from gateway.core.rule import StepUpDemand
from gateway.identity.session_rows import revoke
from gateway.identity.users import canonical_email
from gateway.mfa.attempts import RUN
from gateway.mfa.codes.binding import Addresses
from gateway.mfa.email import Email
from gateway.mfa.own_address import OwnAddress
from gateway.mfa.recovery import Recoveries
from gateway.mfa.sms import Sms
from gateway.mfa.webauthn.relying_party import RelyingParty
from gateway.mfa.webauthn.security_keys import Workshop
from gateway.notify.numbers import Numbers
from gateway.store.sql_key_value import SqlKeyValue
from gateway.store.tables import attempts, events, factors, metadata
from gateway.web import callbacks
from gateway.web.routes import PAGES
from tests.rig.authenticator import Authenticator
from tests.rig.letters import Letters
from tests.rig.post import RecordingPost
from tests.web.conftest import Answer, Browser, House

AAL2 = StepUpDemand(Level.AAL2)
HERE = "http://app.example.com"

ODD = (
    "x", "0", "12345", "1234567", "９９９９９９", "١٢٣٤٥٦", "\u202e654321", "12345\0", "\0", "ıIİi", "🔑",
    "' OR 1=1 --", "%s{0}", "<script>alert(1)</script>", "a\r\nSet-Cookie: a=b", "../../login", "{}", "null", "9" * 60,
)  # fmt: skip
"""What is neither a code nor a ticket nor a credential."""
LONG = "9" * 30_000
TICKETS = (
    *ODD, "0-", "1-" + "A" * 43, "l1-" + "A" * 43, "99999999-" + "A" * 43, "sms." + "A" * 43, "A" * 43, "9" * 200,
)  # fmt: skip
LINKS = ("", *TICKETS, "x.y", "." * 99, "1-" + "A" * 43 + "." + "A" * 43, "A" * 43 + "." + "A" * 43)
SECRETS = ("", "A" * 42, "A" * 43, "A" * 44, "A" * 43 + "." + "A" * 43, "123456")
IN_PATH = tuple(one for one in TICKETS if not set(one) & set("{}/"))
"""No path of ours has these in a part of it, so what has is at no door at all."""
PHONES = (
    "x", "+", "+90", "+999999999999", "5321234512", "+9053212345121234567", "+90 532 123 45 12 ext 5", "+90532123451\0",
    "+90 532 123 45 12\r\nTo: +1", "ı", LONG[:60], "tel:+905321234512;ext=1", "+90532٣٤٥", "\u202e",
)  # fmt: skip
ADDRESSES = (
    "x", "a@", "@b", "a b@c.d", "a@b\r\nBcc: c@d", "a@b,c@d", "\u202ea@b.c", 'a"@b.c', "a@b@c", "<a@b.c>", "a@b.c\0",
    "a" * 70 + "@b.c", "a@" + "b" * 200,
)  # fmt: skip


class AsItIs(RecordingPost):
    """Addresses are spelled as the gateway spells them."""

    def address(self, channel: str, text: str) -> str:
        return Numbers().canonical(text) if channel == "sms" else canonical_email(text)


@dataclass
class Rig:
    """Bob, signed in just now, with everything that there is, and what he has open."""

    house: House
    browser: Browser
    clock: ManualClock
    key: Authenticator
    ticket: str = ""
    totp_setup: str = ""
    sms_setup: str = ""
    csrf: str = ""
    codes: tuple[str, ...] = ()

    async def form(self, path: str, **fields: str) -> Answer:
        return await self.browser.post(path, {"csrf": self.csrf, **fields})

    async def api(self, method: str, path: str, value: Any = None) -> Answer:
        return await self.browser.api(method, path, value)


@dataclass(frozen=True)
class Door:
    """Something that takes what may be bad."""

    name: str
    knock: Callable[[Rig, str], Awaitable[Answer]]
    status: int
    code: str = ""
    """As programs are told; empty: it is a page."""
    tells: Kind | None = None
    """The one event; None: nothing was wished for, so nothing is told."""
    bad: tuple[str, ...] = ODD
    form: str = ""
    """Whose token it takes."""


def verify(factor: str) -> Callable[[Rig, str], Awaitable[Answer]]:
    return lambda rig, bad: rig.form(f"verify/{rig.ticket}", factor=factor, code=bad)


def verify_api(factor: str) -> Callable[[Rig, str], Awaitable[Answer]]:
    return lambda rig, bad: rig.api("POST", "mfa/verify", {"challenge": rig.ticket, "factor": factor, "code": bad})


def of(path: str, **fields: str) -> Callable[[Rig, str], Awaitable[Answer]]:
    """A form whose address has the ticket in it."""
    return lambda rig, bad: rig.form(path.format(quote(bad, safe="")), **fields)


def at(path: str) -> Callable[[Rig, str], Awaitable[Answer]]:
    return lambda rig, bad: rig.browser.get(path.format(quote(bad, safe="")))


def with_ticket(path: str, **more: Any) -> Callable[[Rig, str], Awaitable[Answer]]:
    return lambda rig, bad: rig.api("POST", path, {"challenge": bad, **more})


async def new_key(rig: Rig, bad: str) -> Answer:
    await rig.api("POST", "mfa/webauthn/register/begin", {})
    return await rig.form("enrol-key", credential=bad)


async def new_key_api(rig: Rig, bad: str) -> Answer:
    await rig.api("POST", "mfa/webauthn/register/begin", {})
    credential = {"id": bad, "rawId": bad, "type": "public-key", "response": {"clientDataJSON": bad}}
    return await rig.api("POST", "mfa/webauthn/register/complete", {"credential": credential})


async def key_api(rig: Rig, bad: str) -> Answer:
    begun = await rig.api("POST", "mfa/webauthn/authenticate/begin", {"challenge": rig.ticket})
    credential = rig.key.answer(begun.json["public_key"], origin=HERE)
    credential["response"]["signature"] = bad
    return await rig.api(
        "POST", "mfa/webauthn/authenticate/complete", {"challenge": rig.ticket, "credential": credential}
    )


GONE, SETUP = "ERR-MFA-CHALLENGE", "ERR-MFA-SETUP"
FAILED, REFUSED, HELD, LOST = Kind.STEP_UP_FAILED, Kind.FACTOR_REFUSED, Kind.CODE_REFUSED, Kind.RECOVERY_FAILED
FIELD = ("", *ODD, LONG)
FEW = ("", "x", "12345\0", "ıIİi", LONG)
OTHERS = ("sms", "email", "backup_code", "webauthn")
"""Beside `totp`: that each of them says the same of everything is `test_factor_contract`'s."""
CODE_DOORS = (
    Door("verify totp", verify("totp"), 400, "", FAILED, FIELD, "verify"),
    *(Door(f"verify {name}", verify(name), 400, "", FAILED, FEW, "verify") for name in OTHERS),
    Door("api verify totp", verify_api("totp"), 400, "ERR-MFA-INVALID", FAILED),
    *(Door(f"api verify {name}", verify_api(name), 400, "ERR-MFA-INVALID", FAILED, FEW[1:-1]) for name in OTHERS),
    Door("verify a factor", lambda rig, bad: rig.form(f"verify/{rig.ticket}", factor=bad, code="1"), 400, "", FAILED,
         FEW, "verify"),
    Door("send a factor", lambda rig, bad: rig.form(f"verify/{rig.ticket}/send", factor=bad), 400, "", HELD, FEW,
         "verify"),
    Door("send to", lambda rig, bad: rig.form(f"verify/{rig.ticket}/send", factor="sms", to=bad), 400, "", HELD,
         FEW[1:], "verify"),
    Door("first code of an app", lambda rig, bad: rig.form(f"enrol/{rig.totp_setup}", code=bad), 400, "", REFUSED,
         FEW, "enrol"),
    Door("api first code of an app",
         lambda rig, bad: rig.api("POST", f"mfa/setup/{rig.totp_setup}/verify", {"code": bad}), 400, "ERR-MFA-INVALID",
         REFUSED),
    Door("first code to a number", lambda rig, bad: rig.form(f"enrol-code/sms/{rig.sms_setup}", code=bad), 400, "",
         REFUSED, FEW, "enrol-code"),
    Door("api first code to a number",
         lambda rig, bad: rig.api("POST", f"mfa/setup/{rig.sms_setup}/verify", {"code": bad}), 400, "ERR-MFA-INVALID",
         REFUSED),
    Door("code to the own address", lambda rig, bad: rig.form("account/email/confirm", code=bad), 400, "", REFUSED, FEW,
         "account"),
    Door("api code to the own address", lambda rig, bad: rig.api("POST", "email/confirm", {"code": bad}), 400,
         "ERR-MFA-INVALID", REFUSED),
    Door("new key", new_key, 400, "", REFUSED, FEW, "enrol-key"),
    Door("api new key", new_key_api, 400, "ERR-MFA-INVALID", REFUSED, ("", *ODD[:6], LONG[:9_000])),
    Door("api key", key_api, 400, "ERR-MFA-INVALID", FAILED, FEW),
)  # fmt: skip
TICKET_DOORS = (
    Door("look at a challenge", at("verify/{}"), 410, "", None, IN_PATH),
    Door("answer a challenge", of("verify/{}", factor="totp", code="000000"), 410, "", FAILED, IN_PATH, "verify"),
    Door("send for a challenge", of("verify/{}/send", factor="sms"), 410, "", HELD, IN_PATH, "verify"),
    Door("api answer", with_ticket("mfa/verify", factor="totp", code="000000"), 410, GONE, FAILED, TICKETS),
    Door("api answer and trust", with_ticket("mfa/verify", factor="totp", code="000000", trust=True), 410, GONE, FAILED,
         TICKETS),
    Door("api send", with_ticket("mfa/send", factor="sms"), 410, GONE, HELD, TICKETS),
    Door("api ask a key", with_ticket("mfa/webauthn/authenticate/begin"), 410, GONE, None, TICKETS),
    Door("api answer of a key", with_ticket("mfa/webauthn/authenticate/complete", credential={}), 410, GONE, FAILED,
         TICKETS),
    Door("link of a letter", at("verify/link?token={}"), 410, "", None, LINKS),
    Door("link of a letter, answered", lambda rig, bad: rig.form("verify/link", token=bad), 410, "", FAILED,
         (*LINKS, LONG), "verify-link"),
    Door("link of a letter that asks", lambda rig, bad: rig.browser.get(f"verify/link?token={rig.ticket}.{bad}"), 410,
         "", None, SECRETS),
    Door("link of a letter that asks, answered",
         lambda rig, bad: rig.form("verify/link", token=f"{rig.ticket}.{bad}"), 410, "", FAILED, SECRETS,
         "verify-link"),
    Door("setup of an app", of("enrol/{}", code="000000"), 410, "", REFUSED, IN_PATH, "enrol"),
    Door("look at a setup", at("enrol-code/sms/{}"), 410, "", None, IN_PATH),
    Door("setup of a number", of("enrol-code/sms/{}", code="000000"), 410, "", REFUSED, IN_PATH, "enrol-code"),
    Door("code of a setup", of("enrol-code/sms/{}/send"), 410, "", REFUSED, IN_PATH, "enrol-code"),
    Door("api setup", lambda rig, bad: rig.api("POST", f"mfa/setup/{quote(bad, safe='')}/verify", {"code": "000000"}),
         410, SETUP, REFUSED, IN_PATH),
    Door("what was interrupted", at("resume/{}"), 404, "", Kind.RESUME_REFUSED, IN_PATH),
    Door("send on what was interrupted", of("resume/{}"), 404, "", Kind.RESUME_REFUSED, IN_PATH, "resume"),
    Door("link of a recovery", at("recover/link?token={}"), 410, "", LOST, ("", *TICKETS, "x.y", "." * 99)),
    Door("link that cancels", at("recover/cancel?token={}"), 410, "", LOST, ("", *TICKETS, "x.y")),
    Door("cancel", lambda rig, bad: rig.form("recover/cancel", token=bad), 410, "", LOST, ("", *TICKETS, "x.y", LONG),
         "recover-cancel"),
    Door("use the link", lambda rig, bad: rig.form("recover/link", token=bad), 410, "", LOST,
         ("", *TICKETS, "x.y", LONG), "recover-link"),
)  # fmt: skip
ADDRESS_DOORS = (
    Door("a number", lambda rig, bad: rig.form("enrol-code/sms", address=bad), 400, "", REFUSED, ("", *PHONES, LONG),
         "enrol-code"),
    Door("api a number", lambda rig, bad: rig.api("POST", "mfa/setup/sms", {"number": bad}), 400, "ERR-PHONE-INVALID",
         REFUSED, PHONES),
    Door("an address", lambda rig, bad: rig.form("enrol-code/email", address=bad), 400, "", REFUSED,
         ("", *ADDRESSES, LONG), "enrol-code"),
    Door("api an address", lambda rig, bad: rig.api("POST", "mfa/setup/email", {"address": bad}), 400,
         "ERR-EMAIL-INVALID", REFUSED, ADDRESSES),
)  # fmt: skip


@pytest.fixture
async def house(house: House, clock: ManualClock) -> House:
    """With every factor there is, and recovery by e-mail."""
    desk, records = house.desk, house.records
    sealer = desk.factors._built["totp"].sealer  # type: ignore[attr-defined]
    post = AsItIs()
    made = Sms(records, sealer, desk.mac, clock, post), Email(records, sealer, desk.mac, clock, post)
    kv = SqlKeyValue(records, clock)
    workshop = Workshop(records, sealer, desk.mac, kv, clock, RelyingParty("Sallyport", HERE))
    desk.factors._built |= {"webauthn": workshop.factor, **{one.name: one for one in made}}
    desk.factors.names = tuple(desk.factors._built)
    house.desk = replace(
        desk,
        addresses={
            one.name: Addresses(one, desk.enrolment, desk.factors.attempts, kv, clock, desk.ledger) for one in made
        },
        own_address=OwnAddress(made[1], desk.enrolment, desk.factors.attempts, clock, desk.ledger),
        security_keys=workshop.security_keys(desk.enrolment),
        recoveries=Recoveries(
            records, clock, desk.ledger, desk.mac,
            unbind=desk.enrolment.unbind, revoke=revoke, letters=Letters(), by_email=True,
        ),
    )  # fmt: skip
    return house


@pytest.fixture
async def rig(house: House, browser: Browser, clock: ManualClock, enrol: Callable[..., Any]) -> Rig:
    await browser.sign_in()
    _, codes, _ = await enrol(browser)
    rig = Rig(house, browser, clock, Authenticator(), codes=tuple(codes))
    begun = await rig.api("POST", "mfa/webauthn/register/begin", {})
    answer = rig.key.register(begun.json["public_key"], origin=HERE)
    assert (await rig.api("POST", "mfa/webauthn/register/complete", {"credential": answer})).status == 200
    post = house.desk.addresses["sms"].factor.post
    assert isinstance(post, AsItIs)
    for kind, typed in (("sms", {"number": "+905321234512"}), ("email", {"address": "bob@example.org"})):
        setup = await rig.api("POST", f"mfa/setup/{kind}", typed)
        assert (await rig.api("POST", f"mfa/setup/{setup.json['id']}/verify", {"code": post.last})).status == 200
    clock.advance(60)
    rig.totp_setup = (await rig.api("POST", "mfa/setup/totp", {})).json["id"]
    rig.sms_setup = (await rig.api("POST", "mfa/setup/sms", {"number": "+905321234513"})).json["id"]
    rig.ticket = await house.desk.stepups.begin(await house.identity(browser), AAL2, return_to="/")
    for name in ("sms", "email"):
        clock.advance(60)
        sent = await rig.api("POST", "mfa/send", {"challenge": rig.ticket, "factor": name})
        assert sent.status == 200, sent.text
    clock.advance(60)
    assert (await rig.api("POST", "email/send", {})).status == 200
    return rig


def said(answer: Answer) -> tuple[Any, ...]:
    """All that was answered, but for what somebody typed or where they are, said back to them."""
    body = re.sub(r'(value|href|action)="[^"]*"', r"\1", answer.text)
    headers = {name: value for name, value in answer.headers.items() if name not in ("Date", "Content-Length")}
    return answer.status, body, tuple(sorted(headers.items()))


async def kept(house: House) -> dict[str, list[Any]]:
    """What is there; but for what is told, and what is counted."""
    found = {}
    async with house.records.read() as connection:
        for table in metadata.sorted_tables:
            if table not in (attempts, events):
                columns = [one for one in table.c if one.name not in ("failures", "last_seen_at", "rested")]
                found[table.name] = sorted(map(repr, (await connection.execute(select(*columns))).all()))
    return found


async def begin_anew(house: House) -> None:
    async with house.records.begin() as connection:
        await connection.execute(delete(attempts))
        await connection.execute(factors.update().values(failures=0))


@pytest.mark.parametrize("doors", [CODE_DOORS, TICKET_DOORS, ADDRESS_DOORS], ids=["codes", "tickets", "addresses"])
async def test_whatever_is_none_is_told_alike(rig: Rig, doors: tuple[Door, ...]) -> None:
    house = rig.house
    told: list[Event] = []
    house.ledger.subscribe(told.append)
    session = (await house.identity(rig.browser)).session
    assert session is not None
    before, number = await kept(house), count()
    for door in doors:
        whose = "" if door.form == "recover-cancel" else session.id
        rig.csrf = house.desk.mac.token("form", rig.browser.cookies["sallyport-browser"], whose, door.form)
        first = None
        for bad in door.bad:
            at_once = next(number)
            if at_once % (RUN - 1) == 0:
                await begin_anew(house)
            rig.browser.wire["Sallyport-Client-Address"] = f"2001:db8::{at_once:x}"
            rig.browser.wire["Sallyport-Client-Network"] = f"2001:db8:{at_once:x}::/64"
            told.clear()
            answer = await door.knock(rig, bad)
            assert answer.status == door.status, (door.name, bad, answer.text)
            if door.code:
                assert answer.json["code"] == door.code, (door.name, bad, answer.json)
            first = first or said(answer)
            assert said(answer) == first, (door.name, bad)
            assert [one.kind for one in told] == ([door.tells] if door.tells else []), (door.name, bad, told)
            for one in told:
                assert one.user in ("bob", ""), (door.name, bad)
                assert len(bad) < 6 or bad not in repr(one), (door.name, bad)
    assert await kept(house) == before


async def test_no_form_is_heard_without_its_token(rig: Rig) -> None:
    """Whoever has everything, has just proven it and comes from our own page."""
    before, asked = await kept(rig.house), 0
    for method, path, _ in PAGES:
        if method != "POST" or path.startswith((callbacks.PATH, "recoveries", "person", "addresses", "language")):
            continue  # signed; for administrators; about nobody's account
        asked += 1
        where = path.replace("{factor}/{setup}", f"sms/{rig.sms_setup}").replace("code/{factor}", "code/sms")
        where = re.sub(r"{\w+}", "x", where)
        rig.browser.wire["Sallyport-Client-Address"] = f"2001:db8::{asked:x}"
        rig.browser.wire["Sallyport-Client-Network"] = f"2001:db8:{asked:x}::/64"
        for token in ("", "x", rig.house.desk.mac.token("form", rig.browser.cookies["sallyport-browser"], "", "x")):
            answer = await rig.browser.post(where, {"csrf": token, "token": "x", "code": "000000"})
            assert (answer.status, "ERR-CSRF" in answer.text) == (403, True), (path, answer.status)
    assert asked > 20
    assert await kept(rig.house) == before


async def test_a_way_on_that_leads_elsewhere_is_not_taken(rig: Rig) -> None:
    """Whoever asked for a proof has seen to it; and the page that sends people on looks once more."""
    ticket = await rig.house.desk.stepups.begin(
        await rig.house.identity(rig.browser), AAL2, return_to="//evil.example/"
    )
    rig.clock.advance(60)
    rig.csrf = (await rig.browser.get(f"verify/{ticket}")).form(f"verify/{ticket}").fields["csrf"]
    done = await rig.form(f"verify/{ticket}", factor="backup_code", code=rig.codes[0])
    assert (done.status, done.location) == (303, "/.sallyport/account")
