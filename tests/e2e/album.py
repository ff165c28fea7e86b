"""Every page, in every language, on a wide and a narrow screen: `python -m tests.e2e.album` → `build/album/*.png`.

To be looked at. What can be asserted about the same pages is in `test_accessible.py`, which takes the same walk. A
picture is called as the template it shows, and then what is special about it: `verify-sms-sent` is `verify.html`. Every
template is in one (`test_album.py`).
"""

from __future__ import annotations

import ast
import io
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import update

from gateway import settings
from gateway.core.decision import Score
from gateway.core.identity import DEFAULT_TENANT, Proof
from gateway.core.languages import LANGUAGES, catalogue
from gateway.mfa.attempts import LIFE
from gateway.store import suppressed_table
from gateway.store.tables import factors
from gateway.web import pages
from tests.e2e.browser import Browser
from tests.e2e.house import PASSWORD, ROOT, House, Phone, open_house
from tests.rig.letters import Letters

OURS = "/.sallyport/"
DAY = 86_400.0
POLICY = """
rules:
  - {name: open, match: {paths: [/public/**]}, access: public, upstream: app}
  - {name: closed, match: {paths: [/closed/**]}, access: {groups: [nobody]}, upstream: app}
  - name: keys
    match: {paths: [/keys/**]}
    access: authenticated
    upstream: app
    step_up: {level: aal2, factors: [webauthn], trusted_devices: forbid}
  - name: known
    match: {paths: [/known/**]}
    access: authenticated
    upstream: app
    step_up: {user_verification: required}
  - {name: trusting, match: {paths: [/trusting/**]}, access: authenticated, upstream: app, step_up: {level: aal2}}
  - {name: everything, access: authenticated, upstream: app, step_up: {level: aal2, max_age: 10m}}
"""
WIDTHS = {"wide": 1280, "narrow": 360}
SESSIONS = 3
"""That somebody may have at once."""
TEMPLATES = frozenset(file.stem for file in Path(pages.__file__).parent.glob("*.html"))
PARTS = frozenset({"administration", "base", "parts", "recover-note"})
"""Of other templates: no page by themselves."""

See = Callable[[str], None]


def template_of(name: str) -> str:
    """The template that the picture `name` shows: the longest that its name begins with; empty: none."""
    return max((one for one in TEMPLATES if f"{name}-".startswith(f"{one}-")), key=len, default="")


def names() -> list[str]:
    """Of the pictures, without the walk: what `see` is called with."""
    calls = [one for one in ast.walk(ast.parse(Path(__file__).read_text())) if isinstance(one, ast.Call)]
    seen = [one for one in calls if isinstance(one.func, ast.Attribute) and one.func.attr == "see"]
    return [ast.literal_eval(one.args[0]) for one in sorted(seen, key=lambda one: one.lineno)]


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
        "sessions": settings.SessionTimes.model_validate({"per_user": SESSIONS, "when_full": "refuse"}),
    }


def walk(house: House, browser: Browser, language: str, see: See) -> None:
    """Visit every page as bob, and as the administrators ann and carl; `see` is called at each with its name."""
    visit = Visit(house, browser, language, see)
    with browser.with_key():
        visit.arrive()
        visit.set_up_the_rest()
        visit.look_around()
        visit.be_asked()
        visit.be_at_another_address()
        visit.answer_wrong()
        visit.lose_everything()
    visit.administer()
    visit.come_late()
    visit.be_somewhere_unusual()
    visit.be_in_too_many_places()
    visit.guess()


class Visit:
    """One walk, a chapter at a time."""

    def __init__(self, house: House, browser: Browser, language: str, see: See) -> None:
        self.house = house
        self.browser = browser
        self.language = language
        self.see = see
        self.said = catalogue(language).gettext
        self.letters = Letters()
        self.codes, self.links = sent_by(house)
        self.phone: Phone
        house.app.people.recoveries._letters = self.letters  # type: ignore[union-attr]

    def press(self, name: str, **values: str) -> None:
        """Press what has the English name `name`."""
        self.browser.press(self.said(name) % values if values else self.said(name))

    def sign_in(self, name: str = "bob", password: str = PASSWORD) -> None:
        self.browser.fill(self.said("User name"), name).fill(self.said("Password"), password)
        self.press("Sign in")

    def type(self, code: str, label: str = "Six-digit code", button: str = "Continue") -> None:
        self.browser.fill(self.said(label), code)
        self.press(button)

    def prove(self) -> None:
        self.house.clock.leap(31)  # a code counts once
        self.type(self.phone.code)

    def sign_out(self) -> None:
        self.browser.go(f"{OURS}logout")
        self.press("Sign out")

    def arrive(self) -> None:
        """The first sign-in; there is time to set up a second factor."""
        browser, said = self.browser, self.said
        browser.go(f"{OURS}login").press(LANGUAGES[self.language])
        self.see("login")
        browser.go("/")
        self.sign_in(password="a wrong password")
        self.see("login-wrong")
        browser.go(f"{OURS}login?lost=large&next=/")
        self.see("login-lost")
        self.sign_in()
        self.see("enrol-first")
        browser.go(f"{OURS}account")
        self.see("account-in-grace")
        browser.go(f"{OURS}enrol")
        self.see("enrol")
        self.press("Start")
        browser.unfold(said("I cannot scan it"))
        self.see("setup")
        self.phone = Phone(browser.hidden_text("#secret").replace(" ", ""), self.house.clock)
        self.type(self.phone.wrong_code, button="Confirm")
        self.see("setup-wrong")
        self.type(self.phone.code, button="Confirm")
        self.see("codes")
        self.press("I have saved them")
        browser.go("/keys/x")
        self.see("unready")

    def set_up_the_rest(self) -> None:
        """A number, an address, a key."""
        browser, said = self.browser, self.said
        browser.go(f"{OURS}enrol-code/sms")
        self.see("enrol-code-sms")
        browser.fill(said("Phone number"), "12")
        self.press("Send me a code")
        self.see("enrol-code-sms-wrong")
        for number in ("+90 532 123 45 67", "+90 532 123 45 68"):
            browser.go(f"{OURS}enrol-code/sms").fill(said("Phone number"), number)
            self.press("Send me a code")
            if number.endswith("67"):
                self.see("enrol-code-sent")
                self.press("Send another code")
                self.see("enrol-code-sent-early")
            self.type(self.codes[-1], button="Confirm")
            self.house.clock.leap(61)
        browser.go(f"{OURS}enrol-code/email")
        self.see("enrol-code-email")
        browser.fill(said("E-mail address"), "robert.of.the.long.address@mail.example.org")
        self.press("Send me a code")
        self.type(self.codes[-1], button="Confirm")
        self.see("account-added")
        self.house.clock.leap(61)
        browser.go(f"{OURS}enrol-key")
        self.see("enrol-key")
        self.press("Set up my key")
        browser.go(f"{OURS}enrol-key").unfold(said("Set up my key"))
        browser.wait_for(said("This key is set up already. Use another one."))
        self.see("enrol-key-known")

    def look_around(self) -> None:
        """What else there is for who is signed in."""
        browser = self.browser
        browser.go(f"{OURS}dialog/done")
        self.see("done")
        browser.go(f"{OURS}api/docs")
        self.see("docs")
        browser.go("/closed/x")
        self.see("error-closed")
        browser.go(f"{OURS}nothing")
        self.see("error-nothing")
        browser.go(f"{OURS}logout")
        self.see("logout")
        self.press("Sign out")

    def be_asked(self) -> None:
        """Every way to be asked for a second factor."""
        browser, said = self.browser, self.said
        browser.go("/public/form").fill("Message", "hello").press("Send to /admin/form")
        self.see("login-kept")
        self.sign_in()
        self.see("resume")
        browser.go("/known/x")
        self.see("verify-known")
        browser.go("/trusting/x")
        self.see("verify-key")
        browser.forget_key()
        browser.unfold(said("Use my key"))
        browser.wait_for(
            said("Nothing came from a key: it was cancelled, or it took too long. Try again, or use another way.")
        )
        self.see("verify-key-silent")
        browser.without_scripts()
        browser.reload()
        self.see("verify-key-without-scripts")
        browser.without_scripts(False)
        self.press("Use my authenticator app")
        self.see("verify")
        browser.field(said("Trust this browser for %(trust)s") % {"trust": self.days(30)}).click()
        self.type(self.phone.wrong_code)
        self.see("verify-wrong")
        self.press("Use a backup code")
        self.see("verify-backup")
        self.press("Have a code sent to my phone")
        self.see("verify-sms")
        self.press("Send a code to %(to)s", to="+90 *** ** 68")
        self.see("verify-sms-sent")
        self.press("Send another code to %(to)s", to="+90 *** ** 68")
        self.see("verify-sms-early")
        self.press("Have a code sent by e-mail")
        self.see("verify-email")
        self.press("Send a code to %(to)s", to=browser.texts("form button .breaks")[0])
        self.see("verify-email-sent")
        browser.go(f"{OURS}verify/link?token=none")
        self.see("verify-link-elsewhere")
        browser.go(f"{OURS}verify/link?token={self.links[-1]}")
        self.see("verify-link")
        browser.field(said("Trust this browser for %(trust)s") % {"trust": self.days(30)}).click()
        self.press("Continue")
        self.someone_elsewhere("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Version/18.5 Safari/604.1")
        self.wear_out("sms")
        browser.go(f"{OURS}account")
        self.see("account")
        browser.unfold(f"{said('Remove')} +90 *** ** 67")
        self.see("account-remove")

    def be_at_another_address(self) -> None:
        """Where no key answers."""
        browser, here = self.browser, self.browser.url
        browser.url = here.replace("localhost", "127.0.0.1")
        browser.go(f"{OURS}login").press(LANGUAGES[self.language])
        browser.go("/trusting/x")
        self.sign_in()
        self.press("Use my authenticator app")
        self.see("verify-elsewhere")
        self.prove()
        browser.go("/keys/x")
        self.see("verify-elsewhere-only")
        browser.go(f"{OURS}enrol-key")
        self.see("enrol-key-elsewhere")
        self.sign_out()
        browser.url = here

    def answer_wrong(self) -> None:
        """Too often."""
        self.house.clock.leap(11 * 60)
        self.browser.go("/")
        for _ in range(6):
            self.type(self.phone.wrong_code)
        self.see("verify-throttled")

    def lose_everything(self) -> None:
        """Recovery by e-mail, stopped once and then carried through; the time to set something up is over."""
        browser, letters = self.browser, self.letters
        self.press("I cannot use any of these")
        self.see("login-again")
        self.sign_in()
        self.see("recover")
        self.press("Begin")
        self.see("recover-begun")
        browser.go(f"{OURS}account")
        self.see("account-recovered")
        browser.go(f"{OURS}recover/cancel?token={letters.asked_[-1][1]}")
        self.see("recover-cancel")
        self.press("Stop it")
        self.see("recover-cancel-done")
        browser.go(f"{OURS}recover/link?token=none")
        self.see("error-over")
        browser.go(f"{OURS}recover")
        self.press("Begin")
        self.house.clock.leap(DAY)
        self.house.do(self.house.app.people.recoveries.turn())  # type: ignore[union-attr]
        browser.go(f"{OURS}recover")
        self.sign_in()
        self.see("recover-sent")
        browser.go(f"{OURS}recover/link?token={letters.ready_[-1][1]}")
        self.see("recover-link")
        self.press("Yes, remove them")
        self.see("enrol-first-overdue")
        browser.go(f"{OURS}enrol")
        self.see("enrol-required")
        browser.go(f"{OURS}enrol-key")
        self.see("enrol-key-required")
        browser.go(f"{OURS}enrol-code/sms")
        self.see("enrol-code-sms-required")
        self.house.clock.leap(6 * 60)
        browser.go("/")
        self.see("enrol-first-again")
        self.sign_out()
        self.phone, _ = self.house.enrol("bob")
        self.wear_out("totp", "backup_code")
        browser.go("/")
        self.sign_in()
        self.see("enrol-first-out-of-use")
        self.sign_out()
        self.wear_out("totp", "backup_code", failures=0)

    def administer(self) -> None:
        """Recovery by two administrators."""
        browser, said = self.browser, self.said
        phone = self.phone
        self.house.do(self.house.app.users.add("carl", PASSWORD, groups=("admins",)))
        for name in ("ann", "carl"):
            self.phone, _ = self.house.enrol(name)
            browser.go(f"{OURS}recoveries")
            self.sign_in(name)
            self.prove()
            if name == "ann":
                self.see("recoveries")
                browser.fill(said("User name"), "bob").fill(said("Reason"), "Seen in person, with a passport")
                self.press("Ask for it")
                self.see("recoveries-asked")
                browser.go(f"{OURS}person?user=nobody")
                self.see("person-nobody")
                browser.go(f"{OURS}person").fill(said("User name"), "bob")
                self.press("Find")
                self.press("Demand it anew")
                self.see("person")
                browser.go(f"{OURS}account")
                self.see("account-unconfirmed")
                self.press("Send me a code")
                self.see("account-email")
                self.press("Send another code")
                self.see("account-email-early")
                self.type("no code", button="Confirm")
                self.see("account-email-wrong")
                self.type(self.codes[-1], button="Confirm")
                self.see("account-confirmed")
            else:
                browser.unfold(f"{said('Agree')}, bob")
                self.see("recoveries-agree")
                browser.go(f"{OURS}account")
                self.see("account-of-administrator")
                self.bounce("somebody.who.has.left.long.ago@mail.example.org")
                browser.go(f"{OURS}addresses")
                self.see("addresses")
            self.sign_out()
        browser.go(f"{OURS}recover")
        self.sign_in()
        self.see("recover-pending")
        browser.go(f"{OURS}recover/cancel?token={self.letters.asked_[-1][1]}")
        self.see("recover-cancel-administrators")
        self.phone = phone
        self.sign_out()

    def come_late(self) -> None:
        """Nothing set up, and the sign-in is too old for it."""
        self.house.do(self.house.app.users.add("dora", PASSWORD))
        self.browser.go(f"{OURS}login")
        self.sign_in("dora")
        self.house.clock.leap(6 * 60)
        self.browser.go("/keys/x")
        self.see("unready-again")
        self.sign_out()

    def be_somewhere_unusual(self) -> None:
        """It looks as if it were somebody else: nothing is set up from there, and nothing trusted."""
        browser, desk = self.browser, self.house.app.people._desk  # type: ignore[union-attr]
        weighed = desk.risk

        async def strange(*_: Any) -> Score:
            return Score(0.9)

        object.__setattr__(desk, "risk", strange)
        browser.go("/keys/x")
        self.sign_in("dora")
        self.see("unready-unusual")
        browser.go(f"{OURS}enrol")
        self.see("error-unusual")
        self.sign_out()
        browser.go("/trusting/x")
        self.sign_in()
        self.see("verify-unusual")
        self.sign_out()
        object.__setattr__(desk, "risk", weighed)

    def be_in_too_many_places(self) -> None:
        """No more sessions."""
        for _ in range(SESSIONS):
            with suppress(Exception):
                self.someone_elsewhere("elsewhere")
        self.browser.go("/")
        self.sign_in()
        self.see("full")

    def guess(self) -> None:
        """Too often, at somebody who is not there; it is the address that has to wait then, so this comes last."""
        self.browser.go(f"{OURS}login")
        for _ in range(7):
            self.sign_in("nobody", "a guess")
        self.see("login-throttled")

    def wear_out(self, *kinds: str, failures: int = LIFE) -> None:
        """Have factors of bob's tried so often that they are out of use; all of such a kind."""

        assert self.house.app.people is not None
        records = self.house.app.people.records

        async def fail() -> None:
            async with records.begin() as connection:
                await connection.execute(update(factors).where(factors.c.kind.in_(kinds)).values(failures=failures))
                await records.bump(connection)

        self.house.do(fail())

    def bounce(self, address: str) -> None:
        """Have `address` take nothing any more."""
        assert self.house.app.people is not None
        records, now = self.house.app.people.records, self.house.clock.now()

        async def leave_alone() -> None:
            async with records.begin() as connection:
                one = suppressed_table.Suppressed("email", address, "bounced", now)
                await suppressed_table.suppress(connection, DEFAULT_TENANT, one)

        self.house.do(leave_alone())

    def days(self, count: int) -> str:
        words = catalogue(self.language)
        return words.ngettext("{count} day", "{count} days", count).format(count=count)

    def someone_elsewhere(self, agent: str) -> None:
        """Sign bob in from another browser."""
        house = self.house

        async def open_one() -> None:
            user = await house.app.users.find("bob")
            assert user is not None
            proof = Proof("password", house.clock.now())
            await house.app.sessions.open(user, proof, address="2001:db8::7", agent=agent)

        house.do(open_one())


def sent_by(house: House) -> tuple[list[str], list[str]]:
    """The codes that are sent from now on, and the tokens of links beside them; sent they are all the same."""
    assert house.app.people is not None
    post, codes, links = house.app.people.post, list[str](), list[str]()
    assert post is not None
    send = post.code

    async def code(connection: Any, **said: Any) -> None:
        codes.append(said["code"])
        links.append(said["link"])
        await send(connection, **said)

    post.code = code  # type: ignore[method-assign]
    return codes, links


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
                    redirect_stdout(io.StringIO()),  # where messages are shown
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
                print(f"{name} ({language}) is {needed} wide on a screen of {width}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
