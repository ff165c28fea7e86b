"""The same pages for those who use no script, no mouse, or a small screen that is dark."""

from __future__ import annotations

from selenium.webdriver.common.keys import Keys

from tests.e2e.browser import Browser
from tests.e2e.house import PASSWORD, House, Phone


def test_everything_works_without_scripts(house: House, browser: Browser) -> None:
    browser.without_scripts()
    assert not browser.runs_scripts
    browser.go("/public/form").fill("Message", "without scripts").press("Send to /admin/form").see("Sign in")
    browser.sign_in("ann", "a wrong password").see("Sign in", "not right")
    browser.sign_in("ann").see("Set up a second factor")
    browser.press("Authenticator app").press("Start").unfold("I cannot scan it")
    phone = Phone("".join(browser.texts("#secret")).replace(" ", ""), house.clock)
    browser.fill("Six-digit code", phone.code).press("Confirm").see("Save your backup codes")
    browser.press("I have saved them").see("Send it on?")
    browser.press("Send it now").see("Received once", "You are ann.", "without scripts")
    house.clock.leap(11 * 60)
    browser.go("/admin/").answer(phone.code).see("A service behind Sallyport", "You are ann.")
    browser.go("/.sallyport/account").press("Replace them with new ones").see("Save your backup codes")
    browser.go("/.sallyport/logout").press("Sign out").see("Sign in")


def test_everything_can_be_reached_with_the_keyboard(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.go("/admin/echo").see("Sign in")
    assert browser.focused == "User name"  # no need to tab at all
    assert browser.focus_is_visible
    browser.type("ann", Keys.TAB)
    assert browser.focused == "Password"
    assert browser.focus_is_visible
    browser.type(PASSWORD, Keys.TAB)
    assert browser.focused == "Sign in"
    assert browser.focus_is_visible
    browser.enter()
    browser.see("Confirm it is you")
    assert browser.focused == "Six-digit code"
    browser.type(phone.code)
    browser.enter()
    assert browser.path == "/admin/echo"

    browser.go("/.sallyport/account").see("Ann Lee")
    assert browser.tabbed(9) == [
        "Skip to content", "Home", "Sign out", "Accounts being recovered", "Second factors of others",
        "Remove Authenticator app", "Add an authenticator app", "Replace them with new ones", "Stay signed in",
    ]  # fmt: skip
    browser.go("/.sallyport/enrol").see("Set up an authenticator app")
    assert browser.tabbed(5)[:3] == ["Skip to content", "Start", "Not now"]
    browser.press("Start").see("Set up an authenticator app")
    reached = browser.tabbed(8)
    assert reached[:3] == ["Skip to content", "I cannot scan it", "Six-digit code"]
    assert reached[-2:] == ["Confirm", "Cancel"]
    browser.go("/.sallyport/logout").see("Sign out?")
    assert browser.tabbed(4)[:3] == ["Skip to content", "Sign out", "Stay signed in"]


def test_the_first_tab_leads_past_the_header(browser: Browser) -> None:
    browser.go("/.sallyport/account").sign_in("bob").see("bob")
    browser.type(Keys.TAB)
    assert browser.focused == "Skip to content"
    assert browser.focus_is_visible
    browser.look("skip-link")
    browser.type(Keys.ENTER, Keys.TAB)
    assert browser.focused == "Add an authenticator app"


def test_errors_are_told_to_those_who_hear_the_page(browser: Browser) -> None:
    browser.go("/").sign_in("bob", "a wrong password")
    (alert,) = browser.texts("[role=alert]")
    assert "not right" in alert
    assert browser.title.startswith("Error: ")
    password = browser.field("Password")
    assert password.get_attribute("aria-invalid") == "true"
    assert browser.texts(f"#{password.get_attribute('aria-describedby')}") == [alert]
    assert browser.focused == "Password"


def test_pages_in_the_dark(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.in_the_dark()
    browser.go("/admin/").see("Sign in")
    assert browser.background < 0.2
    browser.look("dark-sign-in")
    browser.sign_in("ann").answer(phone.wrong_code).see("Confirm it is you")
    browser.look("dark-challenge-wrong")
    browser.answer(phone.code)
    browser.go("/.sallyport/account").see("Ann Lee")
    browser.look("dark-account")
    browser.go("/.sallyport/enrol").press("Start")
    browser.look("dark-enrol-picture")
