"""Every page, in every language, on a wide and a narrow screen: `python -m tests.e2e.album` → `build/album/*.png`.

To be looked at. What can be asserted about the same pages is in `test_accessible.py`, which takes the same walk.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gateway import settings
from gateway.core.languages import LANGUAGES, catalogue
from tests.e2e.browser import Browser
from tests.e2e.house import PASSWORD, ROOT, House, Phone, open_house
from tests.rig.letters import Letters

OURS = "/.sallyport/"
POLICY = """
rules:
  - {name: open, match: {paths: [/public/**]}, access: public, upstream: app}
  - {name: closed, match: {paths: [/closed/**]}, access: {groups: [nobody]}, upstream: app}
  - name: keys
    match: {paths: [/keys/**]}
    access: authenticated
    upstream: app
    step_up: {level: aal2, factors: [webauthn], trusted_devices: forbid}
  - {name: everything, access: authenticated, upstream: app, step_up: {level: aal2, max_age: 10m}}
"""
WIDTHS = {"wide": 1280, "narrow": 360}

See = Callable[[str], None]


def furnish(folder: Path) -> dict[str, object]:
    """The settings of a house in which everything is offered."""
    policies = folder / "policies"
    policies.mkdir()
    (policies / "app.yaml").write_text(POLICY)
    mfa = {"webauthn": {}, "sms": {}, "email": {"counts_as_second_factor": True}, "trusted_devices": {}, "recovery": {},
           "require": [{"users": ["bob"], "grace": "14d"}]}  # fmt: skip
    return {
        "policies": policies,
        "mfa": settings.Mfa.model_validate(mfa),
        "notify": settings.Notify.model_validate({"email": [{"console": {}}], "sms": [{"console": {}}]}),
    }


def walk(house: House, browser: Browser, language: str, see: See) -> None:
    """Visit every page as bob, and as the administrator ann; `see` is called at each with its name."""
    said = catalogue(language).gettext

    def sign_in(name: str, password: str = PASSWORD) -> None:
        browser.fill(said("User name"), name).fill(said("Password"), password).press(said("Sign in"))

    def prove(phone: Phone) -> None:
        house.clock.leap(31)
        browser.fill(said("Six-digit code"), phone.code).press(said("Continue"))

    letters = Letters()
    house.app.people.recoveries._letters = letters  # type: ignore[union-attr]
    browser.go(f"{OURS}login").press(LANGUAGES[language])
    see("login")
    browser.go("/")
    sign_in("bob", "a wrong password")
    see("login-wrong")
    sign_in("bob")
    see("enrol-first")
    browser.go(f"{OURS}enrol")
    see("enrol")
    browser.press(said("Start")).unfold(said("I cannot scan it"))
    see("setup")
    phone = Phone(browser.hidden_text("#secret").replace(" ", ""), house.clock)
    browser.fill(said("Six-digit code"), phone.code).press(said("Confirm"))
    see("codes")
    browser.press(said("I have saved them"))
    for page in ("enrol-key", "enrol-code/email", "enrol-code/sms"):
        browser.go(f"{OURS}{page}")
        see(page.replace("/", "-"))
    browser.fill(said("Phone number"), "+90 532 123 45 67").press(said("Send me a code"))
    see("enrol-code-sent")
    browser.go(f"{OURS}account")
    see("account")
    browser.go(f"{OURS}dialog/done")
    see("done")
    browser.go(f"{OURS}api/docs")
    see("docs")
    browser.go("/closed/x")
    see("error")
    browser.go("/keys/x")
    see("unready")
    browser.go(f"{OURS}logout")
    see("logout")
    browser.press(said("Sign out"))

    browser.go("/public/form").fill("Message", "hello").press("Send to /admin/form")
    see("login-kept")
    sign_in("bob")
    see("resume")
    browser.go("/")
    see("verify")
    browser.fill(said("Six-digit code"), phone.wrong_code).press(said("Continue"))
    see("verify-wrong")
    browser.press(said("Use a backup code"))
    see("verify-backup")
    browser.press(said("I cannot use any of these"))
    see("recover")
    browser.press(said("Begin"))
    see("recover-begun")
    browser.go(f"{OURS}recover/cancel?token={letters.asked_[0][1]}")
    see("recover-cancel")
    browser.press(said("Stop it"))
    see("recover-stopped")
    browser.go(f"{OURS}recover/link?token=none")
    see("over")
    browser.go("/")
    prove(phone)
    browser.go(f"{OURS}logout").press(said("Sign out"))

    phone, _ = house.enrol("ann")
    browser.go(f"{OURS}recoveries")
    sign_in("ann")
    prove(phone)
    see("recoveries")
    browser.fill(said("User name"), "bob").fill(said("Reason"), "Seen in person, with a passport")
    browser.press(said("Ask for it"))
    with suppress(Exception):  # asked to prove it again, or done
        see("recoveries-asked")


def main() -> int:
    """Fill the album."""
    album = ROOT / "build" / "album"
    album.mkdir(parents=True, exist_ok=True)
    for old in album.glob("*.png"):
        old.unlink()
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        try:
            for language in sys.argv[1:] or LANGUAGES:
                with (
                    tempfile.TemporaryDirectory() as folder,
                    open_house(Path(folder), **furnish(Path(folder))) as house,
                ):
                    browser.forget()
                    browser.url = house.url
                    walk(
                        house,
                        browser,
                        language,
                        lambda name, language=language: _pictures(browser, album, language, name),
                    )
        finally:
            browser.close()
    print(f"{len(list(album.glob('*.png')))} pictures in {album}")
    return 0


def _pictures(browser: Browser, album: Path, language: str, name: str) -> None:
    for kind, width in WIDTHS.items():
        with browser.width(width) as needed:
            browser.picture(album / f"{name}-{language}-{kind}.png")
            if needed > width:
                print(f"{name} ({language}) is {needed} wide on a screen of {width}")


if __name__ == "__main__":
    sys.exit(main())
