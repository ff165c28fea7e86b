"""Somebody whose account must have a second factor by a day, in a real browser: later, and then not any more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.settings import Mfa, Require, WebAuthn
from tests.e2e.browser import Browser
from tests.e2e.house import House, Phone, open_house

DAY = 86_400.0


@pytest.fixture
def house(tmp_path: Path, furnished: Path) -> Iterator[House]:
    mfa = Mfa(webauthn=WebAuthn(), require=(Require(users=("bob",), grace="14d"),))  # type: ignore[arg-type]
    with open_house(tmp_path, furnished, mfa=mfa) as one:
        yield one


def test_later_until_the_time_is_over(house: House, browser: Browser) -> None:
    browser.go("/echo?x=1").sign_in("bob").see("Set up a second factor", "14 days left", "Security key or passkey")
    browser.look("enrol-first-later")
    assert browser.tabbed(6)[:5] == [
        "Skip to content", "Security key or passkey", "Authenticator app", "Later", "Sign out"
    ]  # fmt: skip
    browser.press("Later")
    assert browser.path == "/echo?x=1"
    browser.go("/.sallyport/account").see("bob", "must have one by")
    browser.look("account-must-have")
    house.clock.leap(14 * DAY)
    browser.go("/").sign_in("bob").see("Set up a second factor", "before you go on")
    assert not browser.has("Later")
    browser.look("enrol-first-overdue")
    house.clock.leap(6 * 60)
    browser.go("/.sallyport/account").see("Set up a second factor", "sign in once more")
    browser.look("enrol-first-again")
    browser.press("Sign in again").sign_in("bob").press("Authenticator app").press("Start")
    phone = Phone(browser.hidden_text("#secret").replace(" ", ""), house.clock)
    browser.fill("Six-digit code", phone.code).press("Confirm").press("I have saved them").see("bob", "two factors")
