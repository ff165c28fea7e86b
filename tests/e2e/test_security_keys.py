"""A security key, in a real browser with a virtual authenticator (WebDriver extension of Web Authentication)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.settings import Mfa, WebAuthn
from tests.e2e.browser import Browser
from tests.e2e.conftest import visiting
from tests.e2e.house import ROOT, House, open_house

VAULT = """rules:
  - name: vault
    match: {paths: [/echo/vault]}
    access: authenticated
    step_up: {user_verification: required, max_age: 5m}
    upstream: app
"""


@pytest.fixture
def house(tmp_path: Path, furnished: Path) -> Iterator[House]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "0.yaml").write_text(VAULT)
    (policies / "1.yaml").write_text((ROOT / "policies" / "default.yaml").read_text())
    with open_house(tmp_path, furnished, mfa=Mfa(webauthn=WebAuthn()), policies=policies) as one:
        yield one


@pytest.fixture
def browser(chromium: Browser, house: House) -> Iterator[Browser]:
    with chromium.with_key():
        yield from visiting(chromium, house)


def set_up(browser: Browser, name: str = "Blue one") -> list[str]:
    browser.see("Set up a security key")
    browser.look("enrol-key")
    browser.fill("What to call this key (optional)", name).press("Set up my key").see("Save your backup codes")
    return browser.texts(".codes li")


def test_a_key_is_set_up_on_the_way_in_and_asked_for_later(house: House, browser: Browser) -> None:
    browser.go("/admin/").sign_in("ann").see("Set up a second factor", "Authenticator app")
    browser.press("Security key or passkey")
    assert len(set_up(browser)) == 10
    browser.press("I have saved them").see("A service behind Sallyport", "You are ann.")
    browser.go("/.sallyport/account").see("Ann Lee", "Blue one", "two factors")
    browser.look("account-with-key")
    house.clock.leap(11 * 60)
    browser.go("/admin/echo?x=1").see("Confirm it is you", "Your browser will ask")
    browser.look("challenge-key")
    assert browser.focus.text == "Use my key"
    browser.enter()
    assert browser.path == "/admin/echo?x=1"
    assert browser.go("/echo/vault").path == "/echo/vault"  # the key knew its user
    house.clock.leap(6 * 60)
    browser.know_the_user(False)
    browser.go("/echo/vault").see("Confirm it is you", "Use my key")
    assert not browser.has("Use a backup code")
    browser.unfold("Use my key")
    browser.wait_for("Try again, or use another way.")
    browser.know_the_user()
    browser.press("Use my key")
    assert browser.path == "/echo/vault"


def test_the_last_key_can_be_removed_by_who_needs_none(house: House, browser: Browser) -> None:
    browser.go("/.sallyport/account").sign_in("bob").see("bob", "None yet")
    browser.press("Add a security key")
    set_up(browser)
    browser.press("I have saved them").see("bob", "Blue one")
    browser.unfold("Remove Blue one").press("Yes, remove it").see("Sign in")
    browser.go("/.sallyport/account").sign_in("bob").see("bob", "None yet")


def test_a_key_that_stays_silent_and_one_that_is_known(house: House, browser: Browser) -> None:
    browser.go("/.sallyport/account").sign_in("bob").press("Add a security key")
    set_up(browser)
    browser.press("I have saved them").press("Add a security key").see("Set up a security key")
    browser.unfold("Set up my key")
    browser.wait_for("This key is set up already.")
    browser.look("enrol-key-known")
    browser.forget_key()
    house.clock.leap(6 * 60)
    browser.go("/.sallyport/enrol-key").see("Confirm it is you", "Use a backup code")
    browser.unfold("Use my key")
    browser.wait_for("Try again, or use another way.")
    browser.look("challenge-key-silent")
    browser.press("Use a backup code").see("Confirm it is you", "Each works once.")


def test_without_scripts_there_are_words_and_another_way(house: House, browser: Browser) -> None:
    browser.go("/.sallyport/account").sign_in("bob").press("Add a security key")
    set_up(browser)
    house.clock.leap(6 * 60)
    browser.without_scripts()
    browser.go("/.sallyport/enrol-key").see("Confirm it is you", "runs no scripts")
    assert not browser.has("Use my key")
    browser.press("Use a backup code").see("Confirm it is you", "Each works once.")
