"""A browser that is trusted: the box at the challenge, the next sign-in, the account page, a copied cookie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import settings
from tests.e2e.browser import Browser
from tests.e2e.house import House, open_house

DAY = 86400.0
ACCOUNT = "/.sallyport/account"
POLICY = """
rules:
  - {name: account, match: {paths: [/payments/**]}, access: authenticated, upstream: app,
     step_up: {level: aal2, trusted_devices: forbid}}
  - {name: everything, access: authenticated, upstream: app, step_up: {level: aal2}}
"""


@pytest.fixture
def house(tmp_path: Path, furnished: Path) -> Iterator[House]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "app.yaml").write_text(POLICY)
    mfa = settings.Mfa.model_validate({"trusted_devices": {}})
    with open_house(tmp_path, furnished, policies=policies, mfa=mfa) as one:
        yield one


def test_the_box_is_ticked_by_hand_and_then_the_password_is_enough(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("bob")
    browser.go("/").sign_in("bob").see("Confirm it is you", "Trust this browser for 30 days")
    box = browser.field("Trust this browser for 30 days")
    assert not box.is_selected()
    browser.look("challenge-trust")
    box.click()
    browser.answer(phone.code).see("A service behind Sallyport", "You are bob.")

    house.clock.leap(3 * DAY)
    browser.go("/").sign_in("bob").see("A service behind Sallyport", "You are bob.")
    assert not any("trusted" in value for one in house.received for name, value in one.headers if name == "Cookie")
    browser.go("/payments/1").see("Confirm it is you")
    assert "Trust this browser" not in browser.text
    browser.go(ACCOUNT).see("bob", "one factor", "Browsers you trust", "this browser", "ends in 26 days")
    browser.look("account-trusted")

    house.clock.leap(28 * DAY)
    browser.go("/").sign_in("bob").see("Confirm it is you", "Trust this browser")


def test_it_is_forgotten_from_the_account_page(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("bob")
    browser.go("/").sign_in("bob").see("Confirm it is you")
    browser.field("Trust this browser for 30 days").click()
    browser.answer(phone.code).see("A service behind Sallyport")
    browser.go(ACCOUNT).press("Forget Chrome on Linux, 127.0.0.1").see("bob", "That browser is trusted no more.")
    assert "Browsers you trust" not in browser.text
    house.clock.leap(3 * DAY)
    browser.go("/").sign_in("bob").see("Confirm it is you")


def test_a_link_from_another_site_leads_there_all_the_same(house: House, browser: Browser) -> None:
    """The cookie is `SameSite=Strict`: the form of our own page carries it, whatever led there."""
    phone, _ = house.enrol("bob")
    browser.go("/").sign_in("bob").see("Confirm it is you")
    browser.field("Trust this browser for 30 days").click()
    browser.answer(phone.code).see("A service behind Sallyport")
    house.clock.leap(3 * DAY)
    browser.follow("/").see("Sign in")
    browser.sign_in("bob").see("A service behind Sallyport", "You are bob.")
