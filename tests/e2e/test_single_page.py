"""A single-page application whose calls are interrupted: each reaches the service once, or the script hears why not."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest

from gateway import settings
from gateway.core.identity import Proof
from gateway.core.languages import catalogue
from gateway.web.pages import static_files
from tests.e2e.album import sent_by
from tests.e2e.browser import Browser
from tests.e2e.conftest import visiting
from tests.e2e.house import PASSWORD, House, Phone, Received, open_house

CALLS = ("POST", "PUT", "PATCH", "DELETE", "Upload")
FILE = bytes(at * 7 % 251 for at in range(300_000))


def told(browser: Browser, words: str) -> None:
    browser.see("A single-page application", words)


def sent(house: House, since: int) -> list[Received]:
    """What has reached the service since, but for the page itself."""
    return [one for one in house.received[since:] if not one.target.endswith("/app")]


def is_whole(one: Received, method: str) -> bool:
    """Whether it is what the page sends, byte for byte."""
    if method == "Upload":
        kind = one.values("Content-Type")[0]
        boundary = kind.partition("boundary=")[2].encode()
        return one.body.count(FILE) == 1 and one.body.startswith(b"--" + boundary) and one.method == "POST"
    return one.method == method and json.loads(one.body) == {"text": 'Zoë & "Ann"\n'}


def test_the_script_is_small() -> None:
    kind, body = static_files()["client.js"]
    assert kind == "text/javascript"
    assert len(body) < 3000


def test_every_call_goes_on_once_after_a_sign_in(house: House, browser: Browser) -> None:
    browser.go("/app").sign_in("bob").see("A single-page application")
    for method in CALLS:
        house.clock.leap(3700)  # idle for too long
        since = len(house.received)
        browser.unfold(method)
        browser.confirm(lambda: browser.sign_in("bob", leaves=True))
        told(browser, f"{method}: 200 done")
        (one,) = sent(house, since)
        assert is_whole(one, method)
        assert one.values("X-Forwarded-Preferred-Username") == ["bob"]


def test_calls_go_on_once_after_a_step_up(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.go("/app").sign_in("ann").see("A single-page application")
    for method in CALLS:
        house.clock.leap(11 * 60)
        since = len(house.received)
        browser.unfold(f"Admin {method}")
        if method == "POST":
            browser.look("dialog")
        browser.confirm(lambda: browser.answer(phone.code, leaves=True))
        told(browser, f"Admin {method}: 200 done")
        (one,) = sent(house, since)
        assert is_whole(one, method)
        assert one.values("X-Forwarded-Preferred-Username") == ["ann"]


def test_a_sign_in_and_a_second_factor_are_one_dialog(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("ann")
    browser.go("/public/app").see("A single-page application")
    browser.unfold("Admin POST")
    browser.confirm(lambda: (browser.sign_in("ann"), browser.answer(phone.code, leaves=True)))
    told(browser, "Admin POST: 200 done")
    assert len(house.posts()) == 1


def test_a_call_goes_on_once_after_setting_up_what_there_must_be(
    tmp_path: Path, furnished: Path, chromium: Browser
) -> None:
    """As bob, in Turkish, in one dialog: he is signed in, and must have a second factor now."""
    mfa = settings.Mfa.model_validate({"require": [{"users": ["bob"]}]})
    said = catalogue("tr").gettext
    with (
        open_house(tmp_path, furnished, mfa=mfa) as house,
        contextmanager(visiting)(chromium, house) as browser,
    ):
        browser.go("/.sallyport/login").press("Türkçe")
        browser.fill(said("User name"), "bob").fill(said("Password"), PASSWORD).press(said("Sign in"))
        browser.go("/public/app").unfold("POST")
        browser.wait_for("Kurmanız için bir pencere açılır.")
        assert browser.attribute("dialog", "lang") == "tr"

        def set_up() -> None:
            browser.press(said("Authenticator app")).press(said("Start"))
            phone = Phone(browser.hidden_text("#secret").replace(" ", ""), house.clock)
            browser.fill(said("Six-digit code"), phone.code).press(said("Confirm"))
            browser.unfold(said("I have saved them"))

        browser.confirm(set_up, said("Continue"))
        told(browser, "POST: 200 done")
        assert [is_whole(one, "POST") for one in house.posts()] == [True]


def test_the_link_of_a_letter_in_another_tab_answers_too(tmp_path: Path, furnished: Path, chromium: Browser) -> None:
    """The dialog hears of it; the small window stands there with a question that is over, and says so."""
    mfa = settings.Mfa.model_validate({"email": {"counts_as_second_factor": True}})
    notify = settings.Notify.model_validate({"email": [{"console": {}}]})
    with (
        redirect_stdout(io.StringIO()),  # where messages are shown
        open_house(tmp_path, furnished, mfa=mfa, notify=notify) as house,
        contextmanager(visiting)(chromium, house) as browser,
    ):
        codes, links = sent_by(house)

        async def bind() -> None:
            known = await house.app.users.find("ann")
            assert known is not None
            addresses = house.app.people._desk.addresses["email"]  # type: ignore[union-attr]
            proof = Proof("password", house.clock.now())
            _, ann = await house.app.sessions.open(known, proof, address="127.0.0.1", agent="elsewhere")
            setup = await addresses.begin(ann, "ann@example.org")
            await addresses.confirm(ann, setup.id, codes[-1])

        house.do(bind())
        browser.go("/app").sign_in("ann").see("A single-page application")
        house.clock.leap(11 * 60)
        browser.unfold("Admin POST")

        def by_letter() -> None:
            browser.press("Send a code to a***@example.org").see("Confirm it is you")
            link = f"/.sallyport/verify/link?token={links[-1]}"
            browser.in_a_tab(link, lambda: browser.press("Continue").see("Thank you", "You are signed in as ann"))
            browser.complaints()  # that it cannot close a tab which nobody's script opened
            browser.answer(codes[-1], "Code from the e-mail").see("That is over", "no longer open")
            browser.shut()

        browser.confirm(by_letter)
        told(browser, "Admin POST: 200 done")
        assert [is_whole(one, "POST") for one in house.posts()] == [True]


def test_cancelled(house: House, browser: Browser) -> None:
    browser.go("/public/app").unfold("POST").unfold("Cancel")
    told(browser, "POST: 401 ERR-NO-SESSION")
    assert house.posts() == []


def test_nobody_else_finishes_what_somebody_began(house: House, browser: Browser) -> None:
    house.do(house.app.users.add("carol", PASSWORD))
    browser.go("/app").sign_in("bob").see("A single-page application")
    house.clock.leap(3700)
    browser.unfold("POST")
    browser.confirm(lambda: browser.sign_in("carol", leaves=True))
    told(browser, "POST: 401 ERR-")
    assert house.posts() == []


def test_a_socket_opens_after_a_sign_in(house: House, browser: Browser) -> None:
    browser.go("/public/app").unfold("WebSocket")
    browser.confirm(lambda: browser.sign_in("bob", leaves=True))
    told(browser, "WebSocket: Zoë")


@pytest.mark.parametrize("address", ["dialog/done", "dialog", "dialog?acr_values=aal9&max_age=-1&factors=x"])
def test_the_pages_of_the_dialog_by_hand(house: House, browser: Browser, address: str) -> None:
    """Nothing there does harm to whoever follows a link to it."""
    browser.go(f"/.sallyport/{address}").see("Sign in")
