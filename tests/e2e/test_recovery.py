"""Getting back in, as people see it: by e-mail, and by two administrators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import settings
from tests.e2e.browser import Browser
from tests.e2e.house import PASSWORD, House, open_house
from tests.rig.letters import Letters

DAY = 86400.0
OURS = "/.sallyport/"
POLICY = """
rules:
  - {name: everything, access: authenticated, upstream: app, step_up: {level: aal2}}
"""


@pytest.fixture
def house(tmp_path: Path, furnished: Path) -> Iterator[House]:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "app.yaml").write_text(POLICY)
    mfa = settings.Mfa.model_validate({"recovery": {}})
    notify = settings.Notify.model_validate({"email": [{"console": {}}]})
    with open_house(tmp_path, furnished, policies=policies, mfa=mfa, notify=notify) as one:
        yield one


def letters_of(house: House) -> Letters:
    """What is written from now on, instead of being sent."""
    letters = Letters()
    house.app.people.recoveries._letters = letters  # type: ignore[union-attr]
    return letters


def turn(house: House) -> None:
    house.do(house.app.people.recoveries.turn())  # type: ignore[union-attr]


def test_who_has_lost_everything_is_back_in_a_day_later(house: House, browser: Browser) -> None:
    letters = letters_of(house)
    house.enrol("bob")
    browser.go("/").sign_in("bob").see("Confirm it is you", "I cannot use any of these")
    browser.look("challenge-with-a-way-back")
    browser.press("I cannot use any of these").see("Get back in", "after 1 day")
    browser.look("recover")
    browser.press("Begin").see("It has begun", "Until then nothing changes.")
    browser.look("recover-begun")
    browser.go(f"{OURS}account").see("bob", "Somebody asks to get back into your account")
    browser.look("account-being-recovered")

    house.clock.leap(DAY)
    turn(house)
    browser.forget()
    browser.go(f"{OURS}recover/link?token={letters.ready_[0][1]}").see("Sign in")
    browser.sign_in("bob").see("Remove your second factors?")
    browser.look("recover-link")
    browser.press("Yes, remove them").see("Set up a second factor", "Your account must have one")
    browser.go("/").see("Set up a second factor")
    browser.go(f"{OURS}recover/link?token={letters.ready_[0][1]}").see("That is over", "ERR-RECOVERY")


def test_whoever_gets_the_letter_stops_it_without_signing_in(house: House, browser: Browser) -> None:
    letters = letters_of(house)
    house.enrol("bob")
    browser.go(f"{OURS}recover").sign_in("bob").press("Begin").see("It has begun")
    browser.forget()
    browser.without_scripts()
    browser.go(f"{OURS}recover/cancel?token={letters.asked_[0][1]}").see("Stop it?", "bob")
    browser.look("recover-cancel")
    browser.press("Stop it").see("It is stopped", "somebody else knows your password")
    browser.look("recover-cancelled")


def test_two_administrators(house: House, browser: Browser, other: Browser) -> None:
    letters_of(house)
    house.enrol("bob")
    house.do(house.app.users.add("carl", PASSWORD, groups=("admins",)))
    for who, name in ((browser, "ann"), (other, "carl")):
        phone, _ = house.enrol(name)
        who.go(f"{OURS}account").sign_in(name).go("/").see("Confirm it is you")
        who.answer(phone.code).see("A service behind Sallyport")
    browser.go(f"{OURS}account").look("account-of-administrator")
    browser.press("Accounts being recovered").see("Accounts being recovered", "None.")
    browser.fill("User name", "bob").fill("Reason", "Was here with a passport; the phone is in the lake.")
    browser.press("Ask for it").see(
        "Accounts being recovered", "Another administrator has to agree", "you asked for it"
    )
    assert not browser.has("Agree, bob")
    browser.look("recoveries-asked")
    other.go(f"{OURS}recoveries").see("Accounts being recovered", "ann asked for it")
    other.unfold("Agree, bob")
    other.look("recoveries-agree")
    other.press("Yes, remove them").see("Accounts being recovered", "It is done", "None.")
    assert house.sessions("bob") == []
