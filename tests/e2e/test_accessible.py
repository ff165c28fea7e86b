"""Every page, in every language, judged by axe (WCAG 2.2, levels A and AA), and found by the keyboard alone.

axe is put in through the debugger, past the policy of the pages, which stays as strict as it is. Without it (node's
`axe-core`, which `make test` brings) the first of these tests are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from gateway.core.languages import LANGUAGES
from gateway.web import pages
from tests.e2e.album import OURS, WIDTHS, furnish, names, template_of, walk
from tests.e2e.browser import Browser
from tests.e2e.conftest import visiting
from tests.e2e.house import PASSWORD, ROOT, House, open_house

AXE = ROOT / "build" / "node" / "node_modules" / "axe-core" / "axe.min.js"
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = f"""
axe.run(document, {{runOnly: {json.dumps(LEVELS)}, resultTypes: ["violations"], preload: false}}).then(
    (found) => JSON.stringify(found.violations.map((one) => [one.id, one.help, one.nodes.map((node) => node.html)])))
"""
"""`preload`: only sound and film would be fetched before, which takes longer than all the rest; there are none."""


@pytest.fixture
def house(tmp_path: Path, furnished: Path) -> Iterator[House]:
    with open_house(tmp_path, furnished, **furnish(tmp_path)) as one:
        yield one


@pytest.fixture
def browser(chromium: Browser, house: House) -> Iterator[Browser]:
    yield from visiting(chromium, house)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The templates that were shown, the newest last."""
    shown: list[str] = []
    render = pages.render

    def remember(template: str, *given: Any, **values: Any) -> bytes:
        shown.append(template)
        return render(template, *given, **values)

    monkeypatch.setattr(pages, "render", remember)
    return shown


axe_is_there = pytest.mark.skipif(
    not AXE.is_file(), reason="no axe-core for node here: npm install --prefix build/node axe-core"
)


@axe_is_there
@pytest.mark.parametrize("language", LANGUAGES)
def test_axe_finds_nothing(language: str, house: House, browser: Browser, rendered: list[str]) -> None:
    axe, seen, found = AXE.read_text(), [], []

    def judge(name: str) -> None:
        seen.append(name)
        assert rendered[-1] == f"{template_of(name)}.html", name
        spoken = browser.attribute("html", "lang")
        assert spoken == ("en" if name == "docs" else language), name
        if spoken == language and not name.endswith("without-scripts"):  # axe is one, and would never come back
            browser.evaluate(f"{axe}\n;0")
            found.extend((name, *one) for one in json.loads(browser.evaluate(RUN)))
            assert browser.evaluate("document.querySelector('audio, video, object, embed')") is None, name
        if name.startswith("verify-key"):  # without scripts there is nothing to press, and so nothing to tick
            assert browser.shows("input[name=trust]") is not name.endswith("without-scripts")
        if name == "done":
            browser.complaints()  # that it cannot close a window which nobody opened
        with browser.width(WIDTHS["narrow"]) as needed:
            assert needed <= WIDTHS["narrow"], f"{name} is {needed} wide"

    walk(house, browser, language, judge)
    assert found == []
    assert seen == names()


@axe_is_there
def test_nor_in_the_dialog_of_a_script(browser: Browser) -> None:
    """In somebody else's page; it takes the focus, and Escape is a way out."""
    for language, said in LANGUAGES.items():
        browser.go(f"{OURS}login").press(said)
        browser.go("/public/app").unfold("POST")
        browser.wait_for("Please sign in to go on." if language == "en" else "Devam etmek için")
        assert browser.attribute("dialog", "lang") == language
        assert browser.focused == ("Continue" if language == "en" else "Devam et")
        browser.evaluate(f"{AXE.read_text()}\n;0")
        judged = RUN.replace("axe.run(document", "axe.run(document.querySelector('dialog')")
        assert json.loads(browser.evaluate(judged)) == []
        browser.type(Keys.ESCAPE)
        browser.wait_for("POST: 401 ERR-NO-SESSION")


def test_the_keyboard_is_enough_to_get_in_and_to_change_the_language(house: House, browser: Browser) -> None:
    phone, _ = house.enrol("bob")
    browser.go(f"{OURS}account").see("Sign in")
    browser.type("bob", Keys.TAB, PASSWORD)
    browser.enter()
    browser.go("/echo").see("Confirm it is you")
    assert browser.focused == "Six-digit code"
    browser.type(phone.code)
    browser.enter()
    browser.go(f"{OURS}account").see("bob", "two factors")
    reached = browser.tabbed(30)
    assert reached[:3] == ["Skip to content", "Home", "Sign out"]
    assert reached[-2:] == ["English", "Türkçe"]
    assert browser.tabbed(len(reached))[-1] == "Türkçe"
    browser.enter()
    browser.see("bob", "iki adımla")
    assert browser.path == f"{OURS}account"
