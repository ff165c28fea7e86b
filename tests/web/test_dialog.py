"""A window of its own for scripts: which refusals lead there, what is said before, and where it leads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import UserError
from gateway.core.identity import Level
from gateway.core.languages import LANGUAGES
from gateway.core.rule import StepUpDemand
from gateway.web.pages import STATIC
from tests.web.conftest import Browser, House, P

DIALOG = f"{P}dialog"


async def words(browser: Browser, language: str = "en") -> dict[str, str]:
    answer = await browser.get("dialog/words", headers={"Accept": "*/*", "Accept-Language": language})
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
    said: dict[str, str] = answer.json
    assert said["language"] == language
    return said


async def test_it_says_what_is_missing(browser: Browser, visit: Callable[..., Browser]) -> None:
    assert "sign in" in (await words(visit()))["text"]
    await browser.sign_in("bob")
    assert "confirm that it is you" in (await words(browser))["text"]
    ann = visit()
    await ann.sign_in("ann")  # an administrator who has none yet
    assert "must have a second factor" in (await words(ann))["text"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_in_the_language_of_whoever_asks(browser: Browser, language: str) -> None:
    said = await words(browser, language)
    assert (said["continue"], said["cancel"]) == {"en": ("Continue", "Cancel"), "tr": ("Devam et", "Vazgeç")}[language]


def test_the_script_has_no_words_of_its_own() -> None:
    script = (Path(STATIC) / "client.js").read_text()
    assert all(f"say.{name}" in script for name in ("text", "continue", "cancel", "language"))
    assert '"Continue"' not in script


async def test_who_must_set_one_up_is_led_there_and_back(browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in("ann")
    refused = await browser.api("GET", "sessions")
    assert (refused.status, refused.json["code"]) == (403, "ERR-MFA-ENROL")
    assert (refused.json["challenge"], refused.json["enrol"]) == (DIALOG, f"{P}enrol-first")
    opened = await browser.get(refused.json["challenge"])
    assert opened.location == f"{P}enrol-first?next=%2F.sallyport%2Fdialog"
    page = await browser.get(opened.location)
    assert f"{P}enrol?next={DIALOG}" in page.text
    await enrol(browser)
    assert (await browser.get(DIALOG)).location == f"{P}dialog/done"
    assert (await browser.get("dialog/done")).status == 200
    assert (await browser.api("GET", "sessions")).status == 200


TOTP = frozenset({"totp"})
ASKED = {
    "acr_values=aal2": StepUpDemand(Level.AAL2),
    "acr_values=aal2&max_age=600": StepUpDemand(Level.AAL2, max_age=600.0),
    "acr_values=aal2&max_age=60&factors=totp": StepUpDemand(Level.AAL2, TOTP, 60.0),
    "acr_values=aal2&factors=totp,none,webauthn": StepUpDemand(Level.AAL2, TOTP | {"webauthn"}),
    "acr_values=aal3&user_verification=required": StepUpDemand(Level.AAL3, verified=True),
    "acr_values=phr": StepUpDemand(Level.AAL2),
    "acr_values=&max_age=soon": StepUpDemand(Level.AAL2),
    "acr_values=aal2&max_age=9999999999": StepUpDemand(Level.AAL2),
}


@pytest.mark.parametrize("query", ASKED)
async def test_it_asks_what_its_address_says(house: House, browser: Browser, query: str) -> None:
    """All of it: else what a script repeats is refused again. What makes no sense asks for a second factor."""
    await browser.sign_in("bob")
    opened = await browser.get(f"{DIALOG}?{query}")
    before, _, ticket = opened.location.partition("verify/")
    challenge = await house.desk.stepups.look(ticket, await house.identity(browser))
    assert (before, challenge.demand, challenge.return_to) == (P, ASKED[query], f"{P}dialog/done")


async def test_what_nobody_can_mend_leads_nowhere(browser: Browser) -> None:
    await browser.sign_in("bob")
    refused = await browser.api("GET", "sessions/stats")
    assert (refused.status, refused.json["code"], "challenge" in refused.json) == (403, "ERR-FORBIDDEN", False)
    refused = await browser.api("POST", "mfa/disable", {}, origin=False, headers={"Origin": "https://evil.example"})
    assert (refused.status, refused.json["code"], "challenge" in refused.json) == (403, "ERR-CSRF", False)


async def test_a_session_that_has_just_ended_leads_to_signing_in(
    house: House, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await browser.sign_in("bob")

    async def gone(*_: object) -> None:
        raise UserError("ERR-SESSION-ENDED", "This session is over; sign in again.", 401)

    monkeypatch.setattr(house.desk.sessions, "extend", gone)
    session = (await house.identity(browser)).session
    assert session is not None
    refused = await browser.api("POST", f"sessions/{session.id}/extend", {})
    assert (refused.status, refused.json["code"], refused.json["challenge"]) == (401, "ERR-SESSION-ENDED", DIALOG)
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="sallyport"'
