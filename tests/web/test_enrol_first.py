"""Guided enrolment: after the password, and from wherever somebody went whose time is over."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from gateway.core.clock import ManualClock
from gateway.core.decision import Score
from gateway.core.identity import NEVER, Level
from gateway.mfa.attempts import LIFE
from gateway.mfa.interrupted import Interrupted
from gateway.store.tables import factors
from gateway.web.guard import OPEN, OPEN_BELOW
from gateway.web.routes import PAGES
from gateway.web.setups import SETUPS
from tests.web.conftest import DAY, PASSWORD, Answer, Browser, House, P

Enrol = Callable[..., Any]


@pytest.fixture
async def fay(house: House, browser: Browser) -> Browser:
    """Somebody of a group that has two weeks, just signed in on her way to /reports?x=1."""
    await house.desk.users.add("fay", PASSWORD, groups=["finance"])
    answer = await browser.sign_in("fay", query="?next=/reports%3Fx=1")
    assert answer.location == f"{P}enrol-first?next=%2Freports%3Fx%3D1"
    return browser


async def first(browser: Browser, query: str = "?next=/reports%3Fx=1") -> Answer:
    page = await browser.get(f"enrol-first{query}")
    assert page.status == 200, page.location
    return page


async def test_while_there_is_time_it_can_wait(fay: Browser, clock: ManualClock) -> None:
    page = await first(fay)
    assert "<strong>14 days</strong> left, until" in page.text
    assert '<a class="button plain wide-button" href="/reports?x=1">Later</a>' in page.text
    assert f'href="{P}enrol?next=/reports%3Fx%3D1"' in page.text
    clock.advance(3 * DAY)
    await fay.sign_in("fay", query="?reauth=1")
    assert "<strong>11 days</strong> left" in (await first(fay)).text
    assert (await fay.get("account")).status == 200
    assert (await fay.api("GET", "mfa/status")).json["enrol_by"] == "2023-11-28T22:13:20Z"


async def test_signing_out_and_in_begins_nothing_anew(fay: Browser, visit: Callable[..., Browser], clock: ManualClock):
    clock.advance(13 * DAY)
    other = visit(address="203.0.113.9")
    answer = await other.sign_in("fay")
    assert "<strong>1 day</strong> left" in (await other.get(answer.location)).text


async def test_at_the_edge_of_the_time(house: House, fay: Browser, clock: ManualClock) -> None:
    """The session that has been open all along, and nothing written in between."""
    identity = await house.identity(fay)
    clock.advance(14 * DAY)
    await fay.sign_in("fay")
    due = (await house.identity(fay)).enrol_by
    assert due == identity.enrol_by == clock.now()
    assert (await fay.get("account")).location == f"{P}enrol-first?next=%2F.sallyport%2Faccount"
    clock._now -= 0.001
    assert (await fay.get("account")).status == 200


async def test_when_it_is_over_there_is_no_later(fay: Browser, clock: ManualClock) -> None:
    clock.advance(14 * DAY)
    answer = await fay.sign_in("fay", query="?next=/reports")
    page = await fay.get(answer.location)
    assert "before you go on" in page.text
    assert "Later" not in page.text
    assert 'href="/reports"' not in page.text


async def test_setting_one_up_leads_on_and_settles_it(house: House, browser: Browser, enrol: Enrol) -> None:
    await browser.sign_in("ann", query="?next=/admin/")
    assert (await browser.get("account")).status == 303
    _, codes, done = await enrol(browser, "/admin/")
    assert len(codes) == 10
    assert 'href="/admin/"' in done.text
    identity = await house.identity(browser)
    assert (identity.enrol_by, identity.level) == (NEVER, Level.AAL2)
    assert (await browser.get("account")).status == 200
    assert (await browser.get("enrol-first?next=/x")).location == "/x"
    assert (await browser.api("GET", "mfa/status")).json["enrol_by"] is None


async def test_only_what_will_do_is_offered(house: House, browser: Browser) -> None:
    """Here nothing is: keys are demanded, and none are configured. It is said whom to ask; no way leads nowhere."""
    await house.desk.users.add("kim", PASSWORD)
    await browser.sign_in("kim")
    page = await first(browser)
    assert "7 days" in page.text
    assert f"{P}enrol?" not in page.text
    assert "ask whoever looks after your account" in page.text


# -- never from a session that is not fresh (case 113) ----------------------------------------------------------------


async def test_an_old_sign_in_signs_in_again_and_what_was_sent_goes_along(
    house: House, browser: Browser, clock: ManualClock, enrol: Enrol
) -> None:
    await browser.sign_in("ann")
    session = (await house.identity(browser)).session
    assert session is not None
    kept = Interrupted("POST", "app.example.com", b"/pay", (), b"sum=1", "user:ann")
    ticket = await house.desk.interrupted.keep(f"session:{session.id}", kept)
    clock.advance(301)
    page = await first(browser, f"?next=/pay&resume={ticket}")
    assert f"{P}enrol?" not in page.text
    assert (await browser.get("enrol")).location == f"{P}login?reauth=1&next=%2F.sallyport%2Fenrol"
    again = await browser.fill(page, "enrol-first")
    assert again.location.startswith(f"{P}login?reauth=1&next=%2Fpay&resume=")
    answer = await browser.fill(await browser.get(again.location), "login", username="ann", password=PASSWORD)
    page = await browser.get(answer.location)
    moved = again.location.partition("resume=")[2]
    assert f'href="{P}enrol?next=/.sallyport/resume/{moved}%3Fnext%3D%252Fpay"' in page.text
    await enrol(browser, f"/.sallyport/resume/{moved}%3Fnext%3D%252Fpay")
    waiting = await browser.get(f"resume/{moved}?next=%2Fpay")
    assert waiting.status == 200
    sent = await browser.fill(waiting, f"resume/{moved}")
    assert (sent.location, browser.cookies["sallyport-resume"]) == ("/pay", moved)


async def test_nobody_elses_form_moves(
    house: House, browser: Browser, visit: Callable[..., Browser], clock: ManualClock
) -> None:
    await browser.sign_in("bob")
    bobs = (await house.identity(browser)).session
    assert bobs is not None
    kept = Interrupted("POST", "app.example.com", b"/pay", (), b"sum=1", "user:bob")
    ticket = await house.desk.interrupted.keep(f"session:{bobs.id}", kept)
    ann = visit()
    await ann.sign_in("ann")
    clock.advance(301)
    again = await ann.fill(await first(ann, f"?next=/pay&resume={ticket}"), "enrol-first")
    assert again.location == f"{P}login?reauth=1&next=%2Fpay"
    assert await house.desk.interrupted.peek(ticket, f"session:{bobs.id}") is not None


async def test_from_a_strange_place_nothing_is_bound(house: House, browser: Browser) -> None:
    await browser.sign_in("ann")
    house.risk = Score(0.9)
    page = await first(browser)
    assert "looks unusual" in page.text
    assert f"{P}enrol?" not in page.text
    assert (await browser.get("enrol")).status == 403


async def test_whose_only_factor_is_out_of_use_is_told_whom_to_ask(
    house: House, browser: Browser, enrol: Enrol
) -> None:
    await browser.sign_in("ann")
    await enrol(browser)
    async with house.records.begin() as connection:
        await connection.execute(update(factors).where(factors.c.kind == "totp").values(failures=LIFE))
        await house.records.bump(connection)
    answer = await browser.sign_in("ann")
    assert answer.location.startswith(f"{P}enrol-first")
    assert f"{P}enrol?" in (await browser.get(answer.location)).text  # by a backup code
    async with house.records.begin() as connection:
        await connection.execute(factors.delete().where(factors.c.kind == "backup_code"))
    page = await browser.get(answer.location)
    assert "out of use" in page.text
    assert f"{P}enrol?" not in page.text


async def test_a_false_way_on_is_not_taken(browser: Browser) -> None:
    await browser.sign_in("ann")
    page = await first(browser, "?next=https://evil.example/")
    assert "evil" not in page.text
    await browser.sign_in("bob")
    assert (await browser.get("enrol-first?next=//evil.example")).location == f"{P}account"


async def test_nobody_signs_in_first(browser: Browser) -> None:
    answer = await browser.get("enrol-first?next=/x")
    assert answer.location == f"{P}login?next=%2F.sallyport%2Fenrol-first%3Fnext%3D%2Fx"


# -- nothing else is open ----------------------------------------------------------------------------------------------


async def test_every_page_that_is_not_named_is_closed(browser: Browser, clock: ManualClock) -> None:
    await browser.sign_in("ann")
    closed = [(method, path) for method, path, _ in PAGES if path not in OPEN and not path.startswith(OPEN_BELOW)]
    assert ("POST", "account/backup-codes") in closed
    for method, path in closed:
        path = path.replace("{", "").replace("}", "")
        answer = await (browser.get(path) if method == "GET" else browser.post(path, {}))
        back = f"{P}{path}" if method == "GET" else f"{P}account"
        said = answer.headers.get("Location", "").replace("%2F", "/")
        assert (answer.status, said) == (303, f"{P}enrol-first?next={back}"), path
        clock.advance(1)


async def test_every_endpoint_that_is_not_named_is_closed(browser: Browser, clock: ManualClock) -> None:
    from gateway.web.api.openapi import ENDPOINTS

    await browser.sign_in("ann")
    served = []
    for endpoint in ENDPOINTS:
        path = endpoint.path.replace("{", "").replace("}", "")
        answer = await browser.api(endpoint.method, path, {} if endpoint.method == "POST" else None)
        clock.advance(1)
        if answer.status == 403 and answer.json["code"] == "ERR-MFA-ENROL":
            assert answer.json["enrol"] == f"{P}enrol-first"
        else:
            served.append(endpoint.path)
    assert {path.partition("/")[0] for path in served} == {"mfa"}
    assert not {"mfa/disable", "mfa/backup-codes/regenerate", "mfa/methods/{id}", "mfa/trusted-devices"} & set(served)


async def test_signing_out_is_open(house: House, browser: Browser) -> None:
    await browser.sign_in("ann")
    token = browser.cookies["sallyport"]
    await browser.fill(await browser.get("logout"), "logout")
    assert await house.desk.sessions.find(token) is None


def test_every_page_that_sets_one_up_is_open() -> None:
    for way in SETUPS.values():
        assert way.page in OPEN or way.page.startswith(OPEN_BELOW)
        assert any(re.fullmatch(re.sub(r"{\w+}", "[a-z]+", path), way.page) for _, path, _ in PAGES)


# -- what an administrator says ----------------------------------------------------------------------------------------


@pytest.fixture
async def ann(visit: Callable[..., Browser], enrol: Enrol) -> Browser:
    """An administrator with two factors, just shown."""
    ann = visit(address="198.51.100.4")
    await ann.sign_in("ann")
    await enrol(ann)
    return ann


async def test_an_administrator_demands_it_and_it_is_obeyed_at_once(
    house: House, browser: Browser, ann: Browser, clock: ManualClock
) -> None:
    await browser.sign_in("bob")
    assert (await browser.get("account")).status == 200
    said = await ann.api("POST", "users/Bob/mfa-requirement", {"grace": 3600})
    assert (said.status, said.json["required"], said.json["devices"]) == (200, True, [])
    assert said.json["required_from"] == said.json["enrol_by"]
    page = await browser.get("account")
    assert "Your account must have one by" in page.text
    await ann.api("POST", "users/bob/mfa-requirement", {})
    assert (await browser.get("account")).location.startswith(f"{P}enrol-first")
    assert (await ann.api("GET", "users/bob/mfa-requirement")).json["required"] is True
    said = await ann.api("DELETE", "users/bob/mfa-requirement")
    assert (said.status, said.json["required"], said.json["enrol_by"]) == (200, False, None)
    assert (await browser.get("account")).status == 200
    assert (await ann.api("DELETE", "users/nobody/mfa-requirement")).json["code"] == "ERR-USER-UNKNOWN"
    clock.advance(301)
    for method, value in (("POST", {}), ("DELETE", None)):
        stale = await ann.api(method, "users/bob/mfa-requirement", value)
        assert (stale.status, stale.json["code"]) == (401, "ERR-STEP-UP")


async def test_it_takes_an_administrator_and_not_a_demand(browser: Browser, house: House, enrol: Enrol) -> None:
    """Whoever must have a factor is no administrator by that."""
    await house.desk.users.add("fay", PASSWORD, groups=["finance"])
    await browser.sign_in("fay")
    await enrol(browser)
    for method, path in (
        ("GET", "users/bob/mfa-requirement"), ("POST", "users/bob/mfa-requirement"),
        ("DELETE", "users/bob/mfa-requirement"), ("GET", "sessions/stats"),
    ):  # fmt: skip
        answer = await browser.api(method, path, {} if method == "POST" else None)
        assert (answer.status, answer.json["code"]) == (403, "ERR-FORBIDDEN")


async def test_administrators_cannot_be_let_off(browser: Browser, ann: Browser) -> None:
    said = (await ann.api("DELETE", "users/ann/mfa-requirement")).json
    assert (said["required"], said["required_from"]) == (True, None)
    assert (await ann.api("POST", "mfa/disable", {})).json["code"] == "ERR-MFA-REQUIRED"
