"""Signing in: from nobody to somebody, and what keeps others out."""

from __future__ import annotations

import pytest

from tests.e2e.browser import Browser
from tests.e2e.house import House

WRONG = "The user name or the password is not right."


def test_a_stranger_signs_in_and_lands_where_they_were_going(house: House, browser: Browser) -> None:
    browser.go("/echo?a=1&b=%2F#part").see("Sign in")
    browser.look("sign-in")
    assert house.received == []
    browser.sign_in("bob")
    assert browser.path == "/echo?a=1&b=%2F"
    (echo,) = [one for one in house.received if one.target.startswith("/echo")]
    assert echo.target == "/echo?a=1&b=%2F"
    assert echo.values("X-Forwarded-Preferred-Username") == ["bob"]
    assert "sallyport" not in " ".join(echo.values("Cookie"))

    browser.go("/").see("A service behind Sallyport", "You are bob.")
    browser.look("service")


def test_a_wrong_password_and_an_unknown_name_look_the_same(house: House, browser: Browser) -> None:
    browser.go("/").sign_in("bob", "a wrong password").see("Sign in", WRONG)
    browser.look("sign-in-wrong")
    known = browser.text
    assert browser.field("User name").get_attribute("value") == "bob"
    assert browser.field("Password").get_attribute("value") == ""
    browser.sign_in("nobody-of-this-name", "a wrong password").see("Sign in", WRONG)
    assert browser.text == known
    browser.sign_in("bob").see("A service behind Sallyport", "You are bob.")
    assert browser.path == "/"


def test_guessing_is_slowed_down_and_told_when_to_go_on(house: House, browser: Browser) -> None:
    browser.go("/")
    for _ in range(10):
        browser.sign_in("bob", "a wrong password")
        if WRONG not in browser.text:
            break
    browser.see("Sign in", "Too many tries. Please wait")
    browser.look("sign-in-throttled")
    browser.sign_in("bob").see("Sign in", "Too many tries. Please wait")
    house.clock.leap(900)
    browser.sign_in("bob").see("A service behind Sallyport", "You are bob.")


@pytest.mark.parametrize(
    "elsewhere",
    ["//evil.test/", "https://evil.test/", r"/\evil.test/", "/%09/evil.test/", "/%5cevil.test", "javascript:alert(1)"],
)
def test_nobody_is_sent_elsewhere_after_signing_in(house: House, browser: Browser, elsewhere: str) -> None:
    browser.go(f"/.sallyport/login?next={elsewhere}").sign_in("bob").see("A service behind Sallyport")
    assert browser.path == "/"
    browser.go(f"/.sallyport/login?next={elsewhere}")
    assert browser.path  # on this origin still, for somebody who is signed in already


def test_who_is_not_an_administrator_is_told_kindly(house: House, browser: Browser) -> None:
    browser.go("/admin/").sign_in("bob")
    browser.see("You cannot go in here", "ERR-NOT-ALLOWED")
    browser.look("forbidden")
    assert [one for one in house.received if one.target.startswith("/admin")] == []


def test_public_places_ask_nobody(house: House, browser: Browser) -> None:
    browser.go("/public/").see("A service behind Sallyport", "Nobody is signed in.")


def test_signing_out_ends_the_session(house: House, browser: Browser) -> None:
    browser.go("/").sign_in("bob").see("A service behind Sallyport")
    assert len(house.sessions("bob")) == 1
    browser.go("/.sallyport/logout").see("Sign out?", "bob")
    browser.look("sign-out")
    browser.press("Sign out").see("Sign in")
    assert house.sessions("bob") == []
    browser.go("/").see("Sign in")
    browser.back()
    browser.go("/.sallyport/account").see("Sign in")


def test_a_session_that_ended_by_itself_asks_again(house: House, browser: Browser) -> None:
    browser.go("/").sign_in("bob").see("A service behind Sallyport")
    house.clock.leap(3700)
    browser.go("/echo").see("Sign in")
    browser.sign_in("bob")
    assert browser.path == "/echo"


def test_a_service_may_send_people_on_to_another_origin(house: House, browser: Browser) -> None:
    """Browsers hold the redirects after a form against the form's page, and this one is the service's affair."""
    browser.go("/elsewhere").sign_in("bob").see("A service behind Sallyport")
    assert browser.address == f"{house.elsewhere}/public/"
