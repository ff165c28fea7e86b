"""How the pages are written: for keyboards, screen readers, narrow screens and strict browsers."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from gateway.core.identity import Level
from gateway.core.languages import spoken
from gateway.core.rule import StepUpDemand
from gateway.web import pages
from gateway.web.words import ago, browser, wait
from tests.web.conftest import Browser, House, P

VOID = {"meta", "link", "input", "img", "br", "hr"}


class Page(HTMLParser):
    """Checks that elements are closed in order, and gathers what can be looked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture
async def every_page(house: House, browser: Browser, enrol: Callable[..., Any]) -> dict[str, str]:
    found = {"login": await browser.get("login"), "login, wrong": await browser.sign_in("bob", "wrong")}
    await browser.sign_in("ann", query="?next=/admin/")
    found["enrol"] = await browser.get("enrol")
    found["setup"] = await browser.fill(found["enrol"], "enrol")
    _, _, found["codes"] = await enrol(browser)
    found["account"] = await browser.get("account?done=added")
    found["logout"] = await browser.get("logout")
    demand = StepUpDemand(Level.AAL2, max_age=0.0)
    ticket = await house.desk.stepups.begin(await house.identity(browser), demand, return_to="/")
    found["verify"] = await browser.get(f"verify/{ticket}")
    found["verify, wrong"] = await browser.fill(found["verify"], f"verify/{ticket}", code="1")
    nothing_counts = StepUpDemand(factors=frozenset({"webauthn"}))
    ticket = await house.desk.stepups.begin(await house.identity(browser), nothing_counts, return_to="/")
    found["unready"] = await browser.get(f"verify/{ticket}")
    found["docs"] = await browser.get("api/docs")
    found["nothing"] = await browser.get("nothing")
    return {name: answer.text for name, answer in found.items()}


async def test_every_page_is_well_made(every_page: dict[str, str]) -> None:
    for name, text in every_page.items():
        page = Page(text)
        assert text.startswith("<!doctype html>"), name
        assert page.all("html") == [{"lang": "en"}], name
        assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1, name
        assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta"), name
        ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(ids) == len(set(ids)), name
        for _, attrs in page.elements:
            assert "style" not in attrs, name
            assert not [key for key in attrs if key.startswith("on")], name
            for key in ("aria-describedby", "aria-labelledby"):
                assert set(attrs.get(key, "").split()) <= set(ids), (name, attrs)
        assert not page.all("script") + page.all("style") + page.all("iframe"), name
        for image in page.all("img"):
            assert "alt" in image, name
        labels = {attrs["for"] for attrs in page.all("label")}
        for field in page.all("input"):
            if field["type"] != "hidden":
                assert field["id"] in labels, name
        assert page.all("a")[0]["href"] == "#main", name


async def test_fields_tell_browsers_what_they_are_for(every_page: dict[str, str]) -> None:
    login = {field["name"]: field for field in Page(every_page["login"]).all("input")}
    assert login["username"]["autocomplete"] == "username"
    assert login["password"]["autocomplete"] == "current-password"
    assert login["password"]["type"] == "password"
    for name in ("setup", "verify"):
        (code,) = [field for field in Page(every_page[name]).all("input") if field["name"] == "code"]
        assert (code["autocomplete"], code["inputmode"]) == ("one-time-code", "numeric")


async def test_errors_are_announced_and_belong_to_their_fields(every_page: dict[str, str]) -> None:
    for name in ("login, wrong", "verify, wrong"):
        page = Page(every_page[name])
        (alert,) = [attrs for _, attrs in page.elements if attrs.get("role") == "alert"]
        wrong = [field for field in page.all("input") if field.get("aria-invalid") == "true"]
        assert wrong
        assert all(alert["id"] in field["aria-describedby"].split() for field in wrong)
        assert "<title>Error: " in every_page[name]


async def test_everything_a_page_loads_is_ours(every_page: dict[str, str], browser: Browser) -> None:
    for name, text in every_page.items():
        page = Page(text)
        loaded = [attrs["href"] for attrs in page.all("link")] + [attrs["src"] for attrs in page.all("img")]
        for address in loaded:
            assert address.startswith((f"{P}static/", "data:image/svg+xml,")), name
    for address in {address for address in loaded if address.startswith(P)}:
        answer = await browser.get(address)
        assert answer.status == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Type"].split(";")[0] in ("text/css", "image/svg+xml")


@pytest.mark.parametrize("name", ["..", "..%2fapp.py", "app.py", "style.css%00", "%2e%2e", "style.css/x"])
async def test_nothing_else_is_served(browser: Browser, name: str) -> None:
    assert (await browser.get(f"static/{name}")).status == 404


def test_the_stylesheet_is_small_and_kind() -> None:
    _, css = pages.static_files()["style.css"]
    assert len(css) < 12_000
    for asked in (
        b"prefers-color-scheme: dark",
        b"prefers-reduced-motion",
        b"max-width",
        b"forced-colors",
        b"@media print",
    ):
        assert asked in css
    assert b"url(" not in css
    assert b"@import" not in css


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 429, 500, 502, 503, 504, 431])
def test_there_is_an_error_page_for_everything(status: int) -> None:
    text = pages.error_page(status, "ERR-X", "", "Said <b>so</b>.", "01REQ", prefix="/p/").decode()
    page = Page(text)
    assert len(page.all("h1")) == 1
    for said in ("ERR-X", "01REQ", "Said &lt;b&gt;so&lt;/b&gt;.", str(status)):
        assert said in text
    assert {link["href"].split("?")[0] for link in page.all("link")} == {"/p/static/style.css", "/p/static/mark.svg"}
    heading = re.search(r"<h1[^>]*>([^<]+)</h1>", text)
    assert heading
    assert heading[1].strip()


def test_who_has_to_wait_long_is_told_until_when_too() -> None:
    now = 1_700_000_000.0  # 22:13:20
    waits = [str(wait(seconds, now)) for seconds in (0, 0.5, 90, 119, 120, 900, 7200, 7201, 43_199, 86_400)]
    assert waits == [
        "",
        "Please wait 1 second.",
        "Please wait 2 minutes.",
        "Please wait 2 minutes.",
        "Please wait 2 minutes, until 22:16 UTC.",
        "Please wait 15 minutes, until 22:29 UTC.",
        "Please wait 120 minutes, until 00:14 UTC.",
        "Please wait 3 hours, until 00:14 UTC.",
        "Please wait 12 hours, until 10:14 UTC.",
        "Please wait 24 hours, until 15 November 2023, 22:14 UTC.",
    ]
    assert spoken(wait(900, now), "tr") == "Lütfen 15 dakika bekleyin; 22:29 UTC itibarıyla yeniden deneyebilirsiniz."


def test_words_for_times_and_browsers() -> None:
    assert [ago(100.0 - passed, 100.0) for passed in (-5, 3, 59, 60, 3599, 7200, 200_000)] == [
        "just now",
        "just now",
        "59 seconds ago",
        "1 minute ago",
        "59 minutes ago",
        "2 hours ago",
        "2 days ago",
    ]
    assert browser("Mozilla/5.0 (Windows NT 10.0) AppleWebKit Chrome/140 Safari/537 Edg/140") == "Edge on Windows"
    assert browser("") == "Unknown browser"
    assert browser("x" * 500) == "x" * 40
