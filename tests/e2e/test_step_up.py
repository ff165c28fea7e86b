"""A second factor: set up on the way in, asked for again when it has grown old."""

from __future__ import annotations

from tests.e2e.browser import Browser
from tests.e2e.house import House, Phone


def enrol(house: House, browser: Browser) -> tuple[Phone, list[str]]:
    """From the page that begins it to the backup codes."""
    browser.see("Set up an authenticator app", "Your account needs a second factor")
    browser.look("enrol")
    browser.press("Start").see("Set up an authenticator app", "Scan this picture")
    browser.look("enrol-picture")
    assert browser.attribute("img.qr", "naturalWidth") not in ("", "0")
    phone = Phone(browser.hidden_text("#secret").replace(" ", ""), house.clock)
    browser.fill("Six-digit code", phone.wrong_code).press("Confirm").see("Set up an authenticator app", "not right")
    browser.look("enrol-wrong")
    assert browser.hidden_text("#secret").replace(" ", "") == phone.secret
    browser.fill("Six-digit code", phone.code).press("Confirm").see("Save your backup codes")
    browser.look("backup-codes")
    return phone, browser.texts(".codes li")


def test_a_new_administrator_sets_one_up_on_the_way_in(house: House, browser: Browser) -> None:
    browser.go("/admin/").see("Sign in")
    browser.sign_in("ann").see("Set up a second factor", "before you go on")
    browser.look("enrol-first")
    browser.press("Authenticator app")
    _, codes = enrol(house, browser)
    assert len(set(codes)) == 10
    assert [one for one in house.received if one.target.startswith("/admin")] == []
    browser.press("I have saved them").see("A service behind Sallyport", "You are ann.")
    assert browser.path == "/admin/"
    browser.back()
    assert not set(codes) & set(browser.texts("li"))  # shown once, and kept by nobody
    browser.go("/.sallyport/account").see("Ann Lee", "Authenticator app", "10 left", "two factors")


def test_bob_who_needs_none_can_have_one(house: House, browser: Browser) -> None:
    browser.go("/.sallyport/account").sign_in("bob").see("bob", "None yet")
    browser.look("account-without-factor")
    browser.press("Add an authenticator app").see("Set up an authenticator app")
    assert browser.has("Not now")
    browser.press("Not now").see("bob", "None yet")


def test_an_old_proof_is_asked_for_again_and_leads_on(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.go("/admin/echo?x=1").sign_in("ann").see("Confirm it is you")
    browser.look("challenge")
    browser.answer(phone.code)
    assert browser.path == "/admin/echo?x=1"

    house.clock.leap(9 * 60)
    assert browser.go("/admin/echo").path == "/admin/echo"
    house.clock.leap(2 * 60)
    browser.go("/admin/echo?y=2").see("Confirm it is you")
    assert [one for one in house.received if "y=2" in one.target] == []
    browser.answer(phone.wrong_code).see("Confirm it is you", "not right")
    browser.look("challenge-wrong")
    browser.answer(phone.code)
    assert browser.path == "/admin/echo?y=2"
    assert len([one for one in house.received if "y=2" in one.target]) == 1


def test_the_same_code_does_not_work_twice(house: House, browser: Browser, other: Browser) -> None:
    phone, _ = house.enrol("ann")
    code = phone.code
    browser.go("/admin/").sign_in("ann").answer(code).see("A service behind Sallyport", "You are ann.")
    other.go("/admin/").sign_in("ann").answer(code).see("Confirm it is you", "used")
    assert other.path.startswith("/.sallyport/verify/")


def test_a_backup_code_opens_once(house: House, browser: Browser) -> None:
    _, codes = house.enrol("ann")
    browser.go("/admin/").sign_in("ann").see("Confirm it is you")
    browser.press("Use a backup code").see("Confirm it is you", "Each works once.")
    browser.look("challenge-backup-code")
    browser.answer(codes[3], "Backup code").see("A service behind Sallyport", "You are ann.")

    house.clock.leap(11 * 60)
    browser.go("/admin/").see("Confirm it is you", "Six-digit code")  # the codes are few: the app is asked for first
    browser.press("Use a backup code").answer(codes[3], "Backup code").see("Confirm it is you", "not right")
    browser.answer(codes[4].lower(), "Backup code").see("A service behind Sallyport")
    browser.go("/.sallyport/account").see("Ann Lee", "8 left")


def test_guessing_codes_ends_in_waiting(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.go("/admin/").sign_in("ann")
    for _ in range(12):
        browser.answer(phone.wrong_code)
        if "wait" in browser.text.lower():
            break
    browser.see("Confirm it is you", "wait")
    browser.look("challenge-throttled")
    browser.answer(phone.code).see("Confirm it is you", "wait")
    assert [one for one in house.received if one.target.startswith("/admin")] == []


def test_an_old_sign_in_cannot_set_one_up(house: House, browser: Browser) -> None:
    """An unlocked screen is not enough to bind a stranger's phone."""
    browser.go("/").sign_in("ann").see("Set up a second factor")
    house.clock.leap(6 * 60)
    browser.go("/admin/").see("Set up a second factor", "sign in once more")
    browser.look("enrol-first-again")
    browser.press("Sign in again").see("Sign in", "once more")
    browser.look("sign-in-again")
    browser.sign_in("ann").see("Set up a second factor", "Authenticator app")
