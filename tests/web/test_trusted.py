"""Trusting a browser at a challenge, signing in there, and forgetting it; with the real rooms behind the desk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.core.clock import ManualClock
from gateway.core.decision import Score
from gateway.core.events import Kind, Severity
from gateway.core.identity import TRUSTED_DEVICE, Level
from gateway.core.rule import StepUpDemand
from gateway.mfa.trusted_devices import TrustedDevices
from gateway.web.app import make_app, make_runner
from tests.web.conftest import PASSWORD, Browser, House, P, Phone

DAY = 86400.0
DEMAND = StepUpDemand(Level.AAL2, trusted=30 * DAY)
COOKIE = "sallyport-trusted"


@pytest.fixture
async def house(house: House, clock: ManualClock) -> House:
    """As ever, and browsers can be trusted."""
    trusted = TrustedDevices(house.records, clock, house.ledger, house.desk.sessions.end_in)
    house.desk = replace(house.desk, trusted=trusted)
    return house


async def ask(house: House, browser: Browser, demand: StepUpDemand = DEMAND) -> str:
    return await house.desk.stepups.begin(await house.identity(browser), demand, return_to="/")


async def trust(house: House, browser: Browser, enrol: Callable[..., Any], name: str = "bob") -> Phone:
    """`name` trusts this browser."""
    await browser.sign_in(name)
    phone: Phone
    phone, _, _ = await enrol(browser)
    ticket = await ask(house, browser)
    page = await browser.get(f"verify/{ticket}")
    done = await browser.fill(page, f"verify/{ticket}", code=phone.code(), trust="yes")
    assert (done.status, COOKIE in browser.cookies) == (303, True)
    return phone


def shown(identity: Any) -> list[str]:
    return [proof.factor for proof in identity.session.proofs]


async def test_it_is_asked_for_and_never_taken_for_granted(
    house: House, browser: Browser, enrol: Callable[..., Any]
) -> None:
    await browser.sign_in("bob")
    phone, _, _ = await enrol(browser)
    ticket = await ask(house, browser)
    page = await browser.get(f"verify/{ticket}")
    assert "Trust this browser for 30 days" in page.text
    assert "checked" not in page.text
    done = await browser.fill(page, f"verify/{ticket}", code=phone.code(), trust="")
    assert (done.status, COOKIE in browser.cookies) == (303, False)
    assert await house.told(Kind.TRUSTED_DEVICE_ADDED) == []


async def test_a_wrong_code_trusts_nothing_and_keeps_the_tick(
    house: House, browser: Browser, enrol: Callable[..., Any]
) -> None:
    await browser.sign_in("bob")
    await enrol(browser)
    ticket = await ask(house, browser)
    page = await browser.get(f"verify/{ticket}")
    again = await browser.fill(page, f"verify/{ticket}", code="000000", trust="yes")
    assert (again.status, COOKIE in browser.cookies) == (400, False)
    assert 'value="yes" checked' in again.text


@pytest.mark.parametrize(
    ("demand", "risk"),
    [(StepUpDemand(Level.AAL2), 0.0), (StepUpDemand(Level.AAL2, max_age=300), 0.0), (DEMAND, 0.5)],
    ids=["forbidden", "fresh", "strange"],
)
async def test_where_it_is_not_offered_a_made_up_tick_does_nothing(
    house: House, browser: Browser, enrol: Callable[..., Any], demand: StepUpDemand, risk: float
) -> None:
    await browser.sign_in("bob")
    phone, _, _ = await enrol(browser)
    house.risk = Score(risk)
    ticket = await ask(house, browser, demand)
    page = await browser.get(f"verify/{ticket}")
    assert "Trust this browser" not in page.text
    done = await browser.fill(page, f"verify/{ticket}", code=phone.code(), trust="yes")
    assert (done.status, COOKIE in browser.cookies) == (303, False)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_cookie(house: House, visit: Callable[..., Browser], enrol: Callable[..., Any], scheme: str) -> None:
    browser = visit(scheme=scheme)
    await browser.sign_in("bob")
    phone, _, _ = await enrol(browser)
    demand = replace(DEMAND, trusted=30 * DAY)
    name = "__Host-sallyport" if scheme == "https" else "sallyport"
    identity = await house.desk.sessions.find(browser.cookies[name])
    assert identity is not None
    ticket = await house.desk.stepups.begin(identity, demand, return_to="/")
    page = await browser.get(f"verify/{ticket}")
    done = await browser.fill(page, f"verify/{ticket}", code=phone.code(), trust="yes")
    [line] = [one for one in done.headers.getall("Set-Cookie") if "trusted" in one]
    parts = line.split("; ")
    assert parts[0].startswith(f"{name}-trusted=")
    secure = ["Secure"] if scheme == "https" else []
    assert parts[1:] == ["Path=/", "HttpOnly", "SameSite=Strict", *secure, "Max-Age=2592000"]


async def test_signing_in_there_again(
    house: House, browser: Browser, enrol: Callable[..., Any], clock: ManualClock
) -> None:
    """Case 78: another token after each use; nothing claims that a second factor was shown."""
    await trust(house, browser, enrol)
    began, first = clock.now(), browser.cookies[COOKIE]
    clock.advance(2 * DAY)
    signed_in = await browser.sign_in("bob")
    assert signed_in.status == 303
    identity = await house.identity(browser)
    assert shown(identity) == ["password", TRUSTED_DEVICE]
    assert (identity.level, identity.amr, identity.auth_time) == (Level.AAL1, ("pwd",), clock.now())
    assert identity.session is not None
    assert identity.session.proofs[1].at == began
    assert browser.cookies[COOKIE] not in ("", first)
    [used] = await house.told(Kind.TRUSTED_DEVICE_USED)
    assert (used.user, used.session, used.address) == ("bob", identity.session.id, "192.0.2.7")
    whoami = (await browser.get("whoami")).json
    assert (whoami["acr"], whoami["amr"]) == ("aal1", ["pwd"])
    second = browser.cookies[COOKIE]
    await browser.sign_in("bob")
    assert browser.cookies[COOKIE] not in (first, second)


async def test_a_wrong_password_spends_nothing(house: House, browser: Browser, enrol: Callable[..., Any]) -> None:
    """And tells nobody whether the cookie is good."""
    await trust(house, browser, enrol)
    before = browser.cookies[COOKIE]
    assert (await browser.sign_in("bob", "not the password at all")).status == 401
    assert browser.cookies[COOKIE] == before
    assert await house.told(Kind.TRUSTED_DEVICE_USED) == []


async def test_it_changes_no_factors(
    house: House, browser: Browser, enrol: Callable[..., Any], clock: ManualClock
) -> None:
    """Trusted moments ago, and still the second factor is wanted to change one (case 113)."""
    await trust(house, browser, enrol)
    await browser.sign_in("bob")
    assert TRUSTED_DEVICE in shown(await house.identity(browser))
    for method, path in (("POST", "mfa/setup/totp"), ("POST", "mfa/disable"), ("DELETE", "mfa/trusted-devices")):
        refused = await browser.api(method, path)
        assert (refused.status, refused.json["code"]) == (401, "ERR-STEP-UP"), path
    assert (await browser.api("GET", "mfa/status")).json["may_change"] == "step_up"


async def test_an_administrator_is_none_by_it(house: House, browser: Browser, enrol: Callable[..., Any]) -> None:
    await trust(house, browser, enrol, "ann")
    await browser.sign_in("ann")
    assert TRUSTED_DEVICE in shown(await house.identity(browser))
    refused = await browser.api("GET", "sessions/stats")
    assert (refused.status, refused.json["code"]) == (401, "ERR-STEP-UP")


async def test_a_copied_cookie(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any], clock: ManualClock
) -> None:
    """The thief, who knows the password, comes first. The owner comes next, and both are at aal1 then."""
    await trust(house, browser, enrol)
    thief = visit(address="203.0.113.9", agent="curl/8")
    thief.cookies[COOKIE] = browser.cookies[COOKIE]
    await thief.sign_in("bob")
    assert TRUSTED_DEVICE in shown(await house.identity(thief))
    clock.advance(DAY)
    await browser.sign_in("bob")
    assert shown(await house.identity(browser)) == ["password"]
    assert COOKIE not in browser.cookies
    assert await house.desk.sessions.find(thief.cookies["sallyport"]) is None
    [alarm] = await house.told(Kind.TRUSTED_DEVICE_STOLEN)
    assert (alarm.severity, alarm.user, alarm.detail["last_address"]) == (Severity.ALARM, "bob", "203.0.113.9")
    await thief.sign_in("bob")
    assert shown(await house.identity(thief)) == ["password"]
    assert (await browser.api("GET", "mfa/trusted-devices")).json == {"trusted_devices": []}


async def test_two_cookies_of_the_name_are_none(house: House, browser: Browser, enrol: Callable[..., Any]) -> None:
    """Case 80: one of the two was planted; nothing is spent, nothing alarms."""
    await trust(house, browser, enrol)
    page = await browser.get("login")
    form = page.form("login")
    crumbs = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    answer = await browser.post(
        "login",
        {**form.fields, "username": "bob", "password": PASSWORD},
        headers={"Cookie": f"{crumbs}; {COOKIE}=planted-planted-planted"},
    )
    assert answer.status == 303
    assert shown(await house.identity(browser)) == ["password"]
    assert await house.told(Kind.TRUSTED_DEVICE_USED) == []
    await browser.sign_in("bob")
    assert TRUSTED_DEVICE in shown(await house.identity(browser))


@pytest.mark.parametrize("junk", ["short", "a" * 16, "x" * 512, "a.b" * 20, "%00" * 20, "." * 43])
async def test_a_damaged_cookie_is_as_none(
    house: House, browser: Browser, enrol: Callable[..., Any], junk: str
) -> None:
    """Case 79."""
    await trust(house, browser, enrol)
    browser.cookies[COOKIE] = junk
    assert (await browser.sign_in("bob")).status == 303
    assert shown(await house.identity(browser)) == ["password"]
    assert await house.told(Kind.TRUSTED_DEVICE_STOLEN) == []


async def void_password(house: House) -> None:
    await house.desk.users.set_password("bob", PASSWORD)


async def void_disable(house: House) -> None:
    await house.desk.users.disable("bob")
    await house.desk.users.enable("bob")


async def void_sessions(house: House) -> None:
    bob = await house.desk.users.find("bob")
    assert bob is not None
    await house.desk.sessions.end_all(bob.tenant, bob.subject, by="ann")


async def void_reset(house: House) -> None:
    """As `sallyport user reset` does it."""
    bob = await house.desk.users.find("bob")
    assert bob is not None
    await house.desk.enrolment.reset(bob.tenant, bob.subject, user="bob", by="ann")
    await void_sessions(house)


@pytest.mark.parametrize("void", [void_password, void_disable, void_sessions, void_reset])
async def test_what_makes_it_void(
    house: House, browser: Browser, enrol: Callable[..., Any], void: Callable[[House], Any]
) -> None:
    """Case 81."""
    await trust(house, browser, enrol)
    await void(house)
    await browser.sign_in("bob")
    assert shown(await house.identity(browser)) == ["password"]
    assert COOKIE not in browser.cookies
    assert await house.told(Kind.TRUSTED_DEVICE_STOLEN) == []


async def test_a_factor_that_is_removed_takes_trust_with_it(
    house: House, browser: Browser, enrol: Callable[..., Any]
) -> None:
    await trust(house, browser, enrol)
    [method] = [one for one in (await browser.api("GET", "mfa/methods")).json["methods"] if one["kind"] == "totp"]
    assert (await browser.api("DELETE", f"mfa/methods/{method['id']}")).status == 204
    browser.cookies.pop("sallyport", None)
    await browser.sign_in("bob")
    assert shown(await house.identity(browser)) == ["password"]


async def test_they_are_listed_and_forgotten(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any], clock: ManualClock
) -> None:
    phone = await trust(house, browser, enrol)
    other = visit(address="198.51.100.4", agent="curl/8")
    await other.sign_in("bob")
    clock.advance(60)
    ticket = await ask(house, other)
    page = await other.get(f"verify/{ticket}")
    await other.fill(page, f"verify/{ticket}", code=phone.code(), trust="yes")
    listed = (await browser.api("GET", "mfa/trusted-devices")).json["trusted_devices"]
    assert [(one["address"], one["current"], one["last_used_at"]) for one in listed] == [
        ("198.51.100.4", False, None),
        ("192.0.2.7", True, None),
    ]
    one = (await browser.api("GET", f"mfa/trusted-devices/{listed[0]['id']}")).json
    assert one == listed[0]
    for method in ("GET", "DELETE"):
        unknown = await browser.api(method, "mfa/trusted-devices/none-such")
        assert (unknown.status, unknown.json["code"]) == (404, "ERR-MFA-UNKNOWN")
    account = await browser.get("account")
    assert "Browsers you trust" in account.text
    action = f"account/trusted-devices/{listed[0]['id']}/forget"
    gone = await browser.fill(account, action)
    assert gone.location == f"{P}account?done=trusted-forgotten"
    again = await browser.fill(account, action)
    assert (again.status, "You trust no such browser." in again.text) == (404, True)
    await other.sign_in("bob")
    assert shown(await house.identity(other)) == ["password"]
    assert (await browser.api("DELETE", "mfa/trusted-devices")).json == {"forgotten": 1}
    await browser.sign_in("bob")
    assert shown(await house.identity(browser)) == ["password"]
    assert len(await house.told(Kind.TRUSTED_DEVICE_REVOKED)) == 2


async def test_without_the_feature_there_is_nothing(
    house: House, browser: Browser, enrol: Callable[..., Any], tmp_path: Any
) -> None:
    await trust(house, browser, enrol)
    runner = make_runner(make_app(replace(house.desk, trusted=None)))
    await runner.setup()
    await web.UnixSite(runner, f"{tmp_path}/off.sock").start()
    connector = aiohttp.UnixConnector(path=f"{tmp_path}/off.sock")
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as client:
        off = Browser(client)
        off.cookies = dict(browser.cookies)
        await off.sign_in("bob")
        assert shown(await house.identity(off)) == ["password"]
        assert (await off.api("GET", "mfa/trusted-devices")).json == {"trusted_devices": []}
        assert "Browsers you trust" not in (await off.get("account")).text
    await runner.cleanup()


# -- programs ----------------------------------------------------------------------------------------------------------


async def answered(browser: Browser, phone: Phone, ask: dict[str, Any], **more: Any) -> Any:
    asked = (await browser.api("POST", "mfa/challenge", ask)).json
    body = {"challenge": asked["challenge"], "factor": "totp", "code": phone.code(), **more}
    return (await browser.api("POST", "mfa/verify", body)).json


async def test_a_program_may_have_its_browser_trusted(
    house: House, browser: Browser, enrol: Callable[..., Any], clock: ManualClock
) -> None:
    await browser.sign_in()
    phone, _, _ = await enrol(browser)
    assert (await answered(browser, phone, {}, trust=True))["trusted"] is True
    assert COOKIE in browser.cookies
    assert len((await browser.api("GET", "mfa/trusted-devices")).json["trusted_devices"]) == 1
    await browser.sign_in(query="?reauth=1&next=/")
    session = (await house.identity(browser)).session
    assert session is not None
    assert TRUSTED_DEVICE in [proof.factor for proof in session.proofs]


@pytest.mark.parametrize(
    ("asked", "answer"),
    [({}, {}), ({}, {"trust": False}), ({"max_age": 60}, {"trust": True}), ({"factors": ["totp"]}, {"trust": True})],
)
async def test_no_wish_and_no_room_for_one_trusts_nothing(
    browser: Browser, enrol: Callable[..., Any], asked: dict[str, Any], answer: dict[str, Any]
) -> None:
    await browser.sign_in()
    phone, _, _ = await enrol(browser)
    assert (await answered(browser, phone, asked, **answer))["trusted"] is False
    assert COOKIE not in browser.cookies


@pytest.mark.parametrize(("asked", "trusts"), [({}, True), ({"user_verification": "required"}, False)])
async def test_no_browser_is_trusted_for_what_it_could_not_answer(
    house: House, browser: Browser, asked: dict[str, Any], trusts: bool
) -> None:
    await browser.sign_in()
    ticket = (await browser.api("POST", "mfa/challenge", asked)).json["challenge"]
    challenge = await house.desk.stepups.look(ticket, await house.identity(browser))
    assert (challenge.demand.trusted > 0.0, challenge.demand.verified) == (trusts, not trusts)


async def test_a_wrong_answer_and_a_strange_place_trust_nothing(
    house: House, browser: Browser, enrol: Callable[..., Any], clock: ManualClock
) -> None:
    await browser.sign_in()
    phone, _, _ = await enrol(browser)
    asked = (await browser.api("POST", "mfa/challenge", {})).json
    body = {"challenge": asked["challenge"], "factor": "totp", "code": "000000", "trust": True}
    assert (await browser.api("POST", "mfa/verify", body)).status == 400
    assert COOKIE not in browser.cookies
    clock.advance(30)
    house.risk = Score(0.5)
    assert (await answered(browser, phone, {}, trust=True))["trusted"] is False
    assert COOKIE not in browser.cookies


async def test_administrators_see_and_end_those_of_others(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any], clock: ManualClock
) -> None:
    await trust(house, browser, enrol)
    await browser.sign_in(query="?reauth=1&next=/")
    ann = visit()
    await ann.sign_in("ann")
    for method, path in (
        ("GET", "users/bob/trusted-devices"),
        ("DELETE", "users/bob/trusted-devices/x"),
        ("DELETE", "users/bob/trusted-devices"),
    ):
        refused = await browser.api(method, path)
        assert (refused.status, refused.json["code"]) == (403, "ERR-FORBIDDEN")
        assert (await ann.api(method, path)).json["code"] == "ERR-MFA-ENROL"  # an administrator who has none yet
        clock.advance(1)
    await enrol(ann)
    (one,) = (await ann.api("GET", "users/Bob/trusted-devices")).json["trusted_devices"]
    assert one["current"] is False
    assert (await ann.api("GET", "users/nobody/trusted-devices")).json["code"] == "ERR-USER-UNKNOWN"
    assert (await ann.api("DELETE", "users/bob/trusted-devices/none")).json["code"] == "ERR-MFA-UNKNOWN"
    assert (await ann.api("DELETE", f"users/ann/trusted-devices/{one['id']}")).json["code"] == "ERR-MFA-UNKNOWN"
    assert (await ann.api("DELETE", f"users/bob/trusted-devices/{one['id']}")).status == 204
    (told,) = await house.told(Kind.TRUSTED_DEVICE_REVOKED)
    assert (told.user, told.detail) == ("bob", {"device": one["id"], "by": "ann"})
    assert (await browser.get("whoami")).json["authenticated"] is False, "the session opened with it ends too"
    assert (await ann.api("DELETE", "users/bob/trusted-devices")).json == {"forgotten": 0}
