"""Setting up an authenticator app."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from gateway.core.clock import ManualClock
from gateway.core.events import Kind
from gateway.core.identity import Level
from tests.web.conftest import Browser, House, P, Phone, secret_in


async def test_the_picture_the_letters_and_the_link_hold_the_same_secret(browser: Browser) -> None:
    await browser.sign_in()
    scan = await browser.fill(await browser.get("enrol"), "enrol")
    picture = re.search(r'src="(data:image/svg\+xml,[^"]+)"', scan.text)
    assert picture
    assert unquote(picture[1]).startswith("data:image/svg+xml,<svg")
    uri = re.search(r'href="(otpauth://totp/[^"]+)"', scan.text)
    assert uri
    assert "issuer=Sallyport" in uri[1]
    letters = re.search(r'id="secret">([A-Z2-7 ]+)<', scan.text)
    assert letters
    assert f"secret={letters[1].replace(' ', '')}" in uri[1]
    assert len(secret_in(scan)) == 20


async def test_a_wrong_first_code_shows_the_same_picture_again(browser: Browser, clock: ManualClock) -> None:
    await browser.sign_in()
    scan = await browser.fill(await browser.get("enrol?next=/admin/"), "enrol")
    phone = Phone(secret_in(scan), clock)
    action = re.search(r'action="/.sallyport/(enrol/[^"]+)"', scan.text)
    assert action
    wrong = await browser.fill(scan, action[1], code="12")
    assert (wrong.status, secret_in(wrong)) == (400, phone.secret)
    assert 'role="alert"' in wrong.text
    right = await browser.fill(wrong, action[1], code=phone.code())
    assert right.status == 200
    assert 'href="/admin/"' in right.text
    again = await browser.fill(wrong, action[1], code=phone.code(1))
    assert (again.status, "ERR-MFA-SETUP" in again.text) == (410, True)


async def test_backup_codes_are_shown_once_and_can_be_taken_along(
    house: House, browser: Browser, enrol: Callable[..., Any]
) -> None:
    await browser.sign_in()
    _, codes, done = await enrol(browser)
    assert len(set(codes)) == 10
    file = re.search(r'href="(data:text/plain[^"]+)" download="sallyport-backup-codes.txt"', done.text)
    assert file
    assert all(code in unquote(file[1]) for code in codes)
    assert done.headers["Cache-Control"] == "no-store"
    account = await browser.get("account")
    assert not any(code in account.text for code in codes)
    assert "10 left, good until 12 February 2024" in account.text
    assert len(await house.told(Kind.FACTOR_ENROLLED)) == 1
    assert (await house.identity(browser)).level is Level.AAL2


async def test_a_second_app_needs_the_first_one(
    browser: Browser, enrol: Callable[..., Any], clock: ManualClock
) -> None:
    """Case 113: not the password alone, once there is more than a password."""
    await browser.sign_in()
    phone, _, _ = await enrol(browser)
    await browser.sign_in(query="?reauth=1&next=/")
    asked = await browser.get("enrol?next=/x")
    assert asked.location.startswith(f"{P}verify/")
    ticket = asked.location.removeprefix(P)
    done = await browser.fill(await browser.get(ticket), ticket, code=phone.code())
    assert done.location == f"{P}enrol?next=/x"
    assert (await browser.get(done.location)).status == 200


async def test_who_may_begin_may_end(browser: Browser, clock: ManualClock) -> None:
    """Four minutes to the button, five more to the picture."""
    await browser.sign_in()
    clock.advance(240)
    scan = await browser.fill(await browser.get("enrol"), "enrol")
    clock.advance(300)
    action = re.search(r'action="/.sallyport/(enrol/[^"]+)"', scan.text)
    assert action
    done = await browser.fill(scan, action[1], code=Phone(secret_in(scan), clock).code())
    assert done.status == 200


async def test_a_setup_is_nobody_elses(browser: Browser, visit: Callable[..., Browser], clock: ManualClock) -> None:
    await browser.sign_in("bob")
    scan = await browser.fill(await browser.get("enrol"), "enrol")
    action = re.search(r'action="/.sallyport/(enrol/[^"]+)"', scan.text)
    assert action
    other = visit()
    await other.sign_in("ann")
    csrf = (await other.get("enrol")).form("enrol").fields["csrf"]
    code = Phone(secret_in(scan), clock).code()
    assert (await other.post(action[1], {"csrf": csrf, "code": code})).status == 410


async def test_a_device_can_be_given_a_name(browser: Browser, clock: ManualClock) -> None:
    await browser.sign_in()
    scan = await browser.fill(await browser.get("enrol"), "enrol")
    action = re.search(r'action="/.sallyport/(enrol/[^"]+)"', scan.text)
    assert action
    wrong = await browser.fill(scan, action[1], code="1", label="Bob's <phone>")
    assert wrong.form(action[1]).fields["label"] == "Bob's <phone>"
    await browser.fill(wrong, action[1], code=Phone(secret_in(scan), clock).code())
    assert "<strong>Bob&#39;s &lt;phone&gt;</strong>" in (await browser.get("account")).text
