"""The account page: what is mine, and how I throw somebody out."""

from __future__ import annotations

from dataclasses import replace

from gateway.identity.session_rows import SessionRows
from tests.e2e.browser import Browser
from tests.e2e.house import House

ACCOUNT = "/.sallyport/account"


def test_what_is_mine(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.go(ACCOUNT).sign_in("ann").see("Ann Lee", "ann@example.com", "admins", "one factor", "Authenticator app")
    assert "Chrome on Linux" in browser.text
    assert "this browser" in browser.text
    assert "10 left" in browser.text
    assert not browser.has("Sign out everywhere else")
    browser.look("account")
    browser.go("/admin/").answer(phone.code)
    browser.go(ACCOUNT).see("Ann Lee", "two factors")


def test_another_browser_is_signed_out_from_here(house: House, browser: Browser, other: Browser) -> None:
    other.go("/").sign_in("bob").see("A service behind Sallyport", "You are bob.")
    browser.go(ACCOUNT).sign_in("bob").see("bob", "Where you are signed in")
    assert len(house.sessions("bob")) == 2
    browser.look("account-two-sessions")
    browser.press("Sign out Chrome on Linux, 127.0.0.1").see("bob", "That browser was signed out.")
    assert len(house.sessions("bob")) == 1
    other.go("/").see("Sign in")
    browser.go("/").see("A service behind Sallyport", "You are bob.")


def test_everybody_else_is_signed_out_at_once(house: House, browser: Browser, other: Browser) -> None:
    other.go("/").sign_in("bob").see("A service behind Sallyport")
    browser.go(ACCOUNT).sign_in("bob")
    browser.press("Sign out everywhere else").see("bob", "Every other browser was signed out.")
    other.go("/echo").see("Sign in")
    assert len(house.sessions("bob")) == 1


def test_new_backup_codes_void_the_old_ones(house: House, browser: Browser) -> None:
    phone, old = house.enrol("ann")
    browser.go("/admin/").sign_in("ann").answer(phone.code)
    browser.go(ACCOUNT).press("Replace them with new ones").see("Save your backup codes", "no longer work")
    fresh = browser.texts(".codes li")
    assert len(set(fresh)) == 10
    assert not set(fresh) & set(old)
    assert browser.attribute("a[download]", "href").count("%0D%0A") >= 10
    browser.press("I have saved them").see("Ann Lee", "10 left")

    house.clock.leap(11 * 60)
    browser.go("/admin/").press("Use a backup code").answer(old[0], "Backup code").see("Confirm it is you", "not right")
    browser.answer(fresh[0], "Backup code").see("A service behind Sallyport")


def test_changes_ask_for_a_fresh_proof(house: House, browser: Browser) -> None:
    """An unlocked screen is not enough to take a factor away."""
    phone, _ = house.enrol("ann")
    browser.go("/admin/").sign_in("ann").answer(phone.code)
    house.clock.leap(6 * 60)
    browser.go(ACCOUNT).press("Replace them with new ones").see("Confirm it is you")
    browser.answer(phone.code).see("Ann Lee", "press the button again", "10 left")
    browser.look("account-confirmed")
    browser.press("Replace them with new ones").see("Save your backup codes")


def test_an_administrator_keeps_the_last_factor(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.go("/admin/").sign_in("ann").answer(phone.code)
    browser.go(ACCOUNT).unfold("Remove Authenticator app")
    browser.look("account-remove")
    browser.press("Yes, remove it").see("Ann Lee", "Authenticator app")
    assert "must have a second factor" in browser.texts("[role=alert]")[0]
    browser.look("account-refused")
    browser.go("/admin/").see("A service behind Sallyport")


def test_bob_may_take_his_away_and_is_signed_out(house: House, browser: Browser, other: Browser) -> None:
    phone, _ = house.enrol("bob")
    other.go("/").sign_in("bob")
    browser.go(ACCOUNT).sign_in("bob").unfold("Remove Authenticator app")
    browser.press("Yes, remove it").see("Confirm it is you")
    browser.answer(phone.code).see("bob", "press the button again")
    browser.unfold("Remove Authenticator app")
    browser.press("Yes, remove it").see("Sign in")
    other.go("/").see("Sign in")
    browser.go(ACCOUNT).sign_in("bob").see("bob", "None yet")


def test_somebody_stays_signed_in(house: House, browser: Browser) -> None:
    browser.go(ACCOUNT).sign_in("bob").see("bob", "Signed out after 1 hour without use, and in any case in 23 hours.")
    browser.press("Stay signed in").see("bob", "You stay signed in here.")
    browser.look("account-stay-signed-in")


def test_whoever_is_signed_in_at_too_many_places_is_told_what_to_do(
    house: House, browser: Browser, other: Browser
) -> None:
    store = house.app.sessions._store
    assert isinstance(store, SessionRows)
    store._terms = replace(store._terms, default=replace(store._terms.default, per_user=1), refuse=True)
    other.go(ACCOUNT).sign_in("bob").see("bob")
    browser.go("/echo").sign_in("bob").see("You are signed in elsewhere", "one place", "Sign out there")
    browser.look("signed-in-elsewhere")
    other.go("/.sallyport/logout").press("Sign out")
    browser.press("Try again").see("Sign in")
    browser.sign_in("bob")
    assert browser.path == "/echo"
