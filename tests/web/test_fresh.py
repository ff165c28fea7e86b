"""Whatever changes an account takes a proof of the last five minutes: every path that changes anything, one by one.

A path that is new has to be put into one of these tables, or the first test fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.clock import ManualClock
from gateway.web.api.openapi import ENDPOINTS
from gateway.web.proof import FRESH
from gateway.web.routes import PAGES
from tests.web.conftest import Browser, House, P
from tests.web.test_codes import post, sending  # noqa: F401 - fixtures

Path = tuple[str, str]

FRESH_PAGES: dict[Path, str] = {
    ("GET", "enrol"): "enrol",
    ("POST", "enrol"): "enrol",
    ("GET", "enrol-key"): "enrol-key",
    ("GET", "enrol-code/{factor}"): "enrol-code",
    ("POST", "enrol-code/{factor}"): "enrol-code",
    ("POST", "account/factors/{factor}/remove"): "account",
    ("POST", "account/backup-codes"): "account",
    ("POST", "account/trusted-devices/forget-all"): "account",
    ("POST", "account/trusted-devices/{device}/forget"): "account",
    ("POST", "account/email/send"): "account",
    ("POST", "account/recovery/stop"): "account",
    ("POST", "account/notices"): "account",
    ("POST", "account/sessions/{session}/end"): "account",
    ("POST", "account/sessions/end-others"): "account",
    ("POST", "recoveries"): "recoveries",
    ("POST", "recoveries/{recovery}/approve"): "recoveries",
    ("POST", "recoveries/{recovery}/refuse"): "recoveries",
    ("POST", "person/require"): "person",
    ("POST", "addresses/release"): "addresses",
    ("POST", "person/lift"): "person",
    ("POST", "person/trusted-devices/forget-all"): "person",
    ("POST", "person/trusted-devices/{device}/forget"): "person",
}
"""Pages, and the name of the form that leads there."""

OTHERWISE: dict[Path, str] = {
    ("POST", "login"): "it is the proof",
    ("POST", "verify/{ticket}"): "it is the proof",
    ("POST", "verify/link"): "it is the proof",
    ("POST", "mfa/verify"): "it is the proof",
    ("POST", "mfa/challenge"): "it asks for the proof",
    ("POST", "mfa/webauthn/authenticate/begin"): "it asks for the proof",
    ("POST", "mfa/webauthn/authenticate/complete"): "it is the proof",
    ("POST", "person"): "it leads to a page, and changes nothing",
    ("POST", "language"): "it changes words and nothing else",
    ("POST", "logout"): "nobody is let in by it",
    ("POST", "resume/{ticket}"): "the gate judges it",
    ("POST", "enrol-first"): "it leads to signing in",
    ("POST", "enrol/{setup}"): "whoever was fresh at the beginning may end, within ten minutes",
    ("POST", "enrol-code/{factor}/{setup}"): "whoever was fresh at the beginning may end, within ten minutes",
    ("POST", "enrol-code/{factor}/{setup}/send"): "the same code to the same address, for who began",
    ("POST", "account/email/confirm"): "whoever was fresh at the beginning may end, within ten minutes",
    ("POST", "email/confirm"): "whoever was fresh at the beginning may end, within ten minutes",
    ("POST", "mfa/setup/{id}/send"): "the same code to the same address, for who began",
    ("POST", "verify/{ticket}/send"): "it asks for the proof",
    ("POST", "mfa/send"): "it asks for the proof",
    ("POST", "enrol-key"): "whoever was fresh at the beginning may end, within five minutes",
    ("POST", "mfa/setup/{id}/verify"): "whoever was fresh at the beginning may end, within ten minutes",
    ("POST", "mfa/webauthn/register/complete"): "whoever was fresh at the beginning may end, within five minutes",
    ("POST", "account/sessions/extend"): "as if they had used it",
    ("POST", "account/preference"): "it changes the order of the questions, and not which of them count",
    ("POST", "mfa/preference"): "it changes the order of the questions, and not which of them count",
    ("POST", "sessions/{id}/extend"): "as if they had used it",
    ("POST", "recover"): "a fresh password, for who has lost the rest: tests/web/test_recover.py",
    ("POST", "recover/link"): "a fresh password, for who has lost the rest: tests/web/test_recover.py",
    ("POST", "recover/cancel"): "whoever has the letter may stop it",
    ("POST", "callbacks/{sender}"): "it is about no account, and signed by a provider: tests/web/test_callbacks.py",
    ("POST", "mfa/recovery"): "a fresh password, for who has lost the rest: tests/web/test_recover.py",
}
"""What changes something, and why no fresh second factor is asked for."""

CHANGING_PAGES = [(method, path) for method, path, _ in PAGES if method != "GET"]
CHANGING = [(one.method, one.path) for one in ENDPOINTS if one.method != "GET"]


def test_every_path_that_changes_anything_is_in_a_table() -> None:
    fresh = {(one.method, one.path) for one in ENDPOINTS if one.fresh} | set(FRESH_PAGES)
    assert {*CHANGING_PAGES, *CHANGING} - fresh - set(OTHERWISE) == set()
    assert set(OTHERWISE) - {*CHANGING_PAGES, *CHANGING} == set()
    assert set(FRESH_PAGES) - {(method, path) for method, path, _ in PAGES} == set()


@pytest.fixture
async def stale(
    sending: House,  # noqa: F811
    house: House,
    browser: Browser,
    enrol: Callable[..., Any],
    clock: ManualClock,
) -> Browser:
    """An administrator whose second factor was shown five minutes and a second ago."""
    await browser.sign_in("ann")
    await enrol(browser)
    shown = (await house.identity(browser)).auth_time
    clock.advance(shown + FRESH + 1 - clock.now())
    return browser


async def test_no_page_changes_anything_after_five_minutes(house: House, stale: Browser, clock: ManualClock) -> None:
    before = await everything(house)
    session = (await house.identity(stale)).session
    assert session is not None
    for (method, path), form in FRESH_PAGES.items():
        where = path.replace("{factor}", "sms" if "code" in path else "x").replace("{", "").replace("}", "")
        csrf = house.desk.mac.token("form", stale.cookies["sallyport-browser"], session.id, form)
        answer = await (stale.get(where) if method == "GET" else stale.post(where, {"csrf": csrf, "code": "1"}))
        clock.advance(1)
        if path == "enrol-key" and answer.status == 400:
            continue  # not in use here
        assert (answer.status, answer.location[: len(P) + 7]) == (303, f"{P}verify/"), (path, answer.text)
    assert await everything(house) == before


async def test_no_endpoint_changes_anything_after_five_minutes(
    house: House, stale: Browser, clock: ManualClock
) -> None:
    before = await everything(house)
    tried = 0
    for endpoint in ENDPOINTS:
        if not endpoint.fresh or (endpoint.method, endpoint.path) in OTHERWISE:
            continue
        path = endpoint.path.replace("{user}", "bob").replace("{", "").replace("}", "")
        answer = await stale.api(endpoint.method, path, BODIES.get(endpoint.path, {}))
        clock.advance(1)
        assert (answer.status, answer.json["code"]) == (401, "ERR-STEP-UP"), (endpoint.path, answer.text)
        assert "max_age=" in answer.headers["WWW-Authenticate"]
        tried += 1
    assert tried >= 15
    assert await everything(house) == before


async def test_what_they_refuse_after_five_minutes_they_do_before(
    house: House, stale: Browser, clock: ManualClock
) -> None:
    """The last second counts; else the tests above would hold for a door that is shut for good."""
    clock.advance(-2)
    made = await stale.api("POST", "mfa/backup-codes/regenerate", {})
    assert made.status == 200
    assert (await stale.api("POST", "mfa/setup/totp", {})).status == 201
    assert (await stale.get("enrol")).status == 200
    assert (await stale.api("POST", "users/bob/mfa-requirement", {})).status == 200


BODIES: dict[str, Any] = {
    "addresses/release": {"address": "ann@example.com"},
    "mfa/setup/sms": {"number": "+90 532 123 45 12"},
    "mfa/setup/email": {"address": "ann@example.org"},
    "limits/reset": {"rule": "app", "all": True, "reason": "x"},
    "users/{user}/recovery": {"reason": "x"},
    "notices": {"more": False},
}


async def everything(house: House) -> list[Any]:
    """Factors, users and sessions, as the records have them."""
    from sqlalchemy import select

    from gateway.store.tables import backup_codes, factors, sessions, trusted_devices, users

    async with house.records.read() as connection:
        return [
            (await connection.execute(select(*table.primary_key.columns).order_by(*table.primary_key.columns))).all()
            for table in (factors, backup_codes, trusted_devices, sessions)
        ] + [(await connection.execute(select(users).order_by(users.c.name))).all()]
