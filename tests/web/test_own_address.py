"""Confirming the address of an account, through the pages and the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from gateway.core.clock import ManualClock
from gateway.core.events import Kind
from gateway.store.tables import users
from tests.rig.post import RecordingPost
from tests.web.conftest import Browser, House, P
from tests.web.test_codes import post, sending  # noqa: F401 - fixtures
from tests.web.test_pages import Page

MAIL = "bob@example.com"
NOT_YET = "Confirm that you read what is sent to your e-mail address"


async def change(house: House, **values: object) -> None:
    async with house.records.begin() as connection:
        await connection.execute(update(users).where(users.c.name == "bob").values(**values))
        await house.records.bump(connection, "default", (await house.desk.users.find("bob")).subject)  # type: ignore[union-attr]


@pytest.fixture
async def bob(sending: House, browser: Browser) -> Browser:  # noqa: F811
    """Signed in just now."""
    await browser.sign_in("bob")
    return browser


async def test_from_the_account_page_and_back(
    house: House,
    bob: Browser,
    post: RecordingPost,  # noqa: F811
    clock: ManualClock,
) -> None:
    account = await bob.get("account")
    assert NOT_YET in account.text
    sent = await bob.fill(account, "account/email/send")
    assert (sent.status, sent.location) == (303, f"{P}account/email")
    assert (post.box[-1].to, post.box[-1].about) == (MAIL, "confirm")
    page = await bob.get("account/email")
    assert MAIL in page.text
    (field,) = [each for each in Page(page.text).all("input") if each.get("name") == "code"]
    assert (field["autocomplete"], field["inputmode"]) == ("one-time-code", "numeric")
    assert post.last not in page.text

    soon = await bob.fill(page, "account/email/send")
    assert (soon.status, soon.headers["Retry-After"], "Codes were sent already" in soon.text) == (429, "31", True)
    wrong = await bob.fill(page, "account/email/confirm", code="x")
    assert (wrong.status, "newer one was sent" in wrong.text) == (400, True)
    clock.advance(30)
    assert (await bob.fill(wrong, "account/email/send")).status == 303
    done = await bob.fill(wrong, "account/email/confirm", code=post.last)
    assert (done.status, done.location) == (303, f"{P}account?done=confirmed-address")
    account = await bob.get("account?done=confirmed-address")
    assert "Your e-mail address is confirmed." in account.text
    assert NOT_YET not in account.text
    assert "not confirmed" not in account.text
    assert len(await house.told(Kind.ADDRESS_CONFIRMED)) == 1
    assert (await bob.get("account/email")).location == f"{P}account", "nothing is on its way"


async def test_who_has_a_second_factor_shows_it_first(
    bob: Browser,
    enrol: Callable[..., Any],
    post: RecordingPost,  # noqa: F811
    clock: ManualClock,
) -> None:
    phone, _, _ = await enrol(bob)
    clock.advance(301)
    answer = await bob.fill(await bob.get("account"), "account/email/send")
    assert (answer.status, answer.location[: len(P) + 7]) == (303, f"{P}verify/")
    assert not post.box
    await bob.sign_in("bob")
    answer = await bob.fill(await bob.get("account"), "account/email/send")
    assert answer.location.startswith(f"{P}verify/"), "a fresh password is not enough"
    assert not post.box
    await bob.fill(await bob.get(answer.location), answer.location.removeprefix(P), code=phone.code())
    assert (await bob.fill(await bob.get("account"), "account/email/send")).location == f"{P}account/email"
    assert post.box[-1].about == "confirm"


async def test_from_a_strange_place_nobody_begins(house: House, bob: Browser, post: RecordingPost) -> None:  # noqa: F811
    from gateway.core.decision import Score

    house.risk = Score(0.9)
    answer = await bob.fill(await bob.get("account"), "account/email/send")
    assert (answer.status, "ERR-MFA-UNUSUAL" in answer.text) == (403, True)
    assert not post.box


async def test_another_browser_of_theirs_cannot_answer(
    house: House,
    bob: Browser,
    visit: Callable[..., Browser],
    post: RecordingPost,  # noqa: F811
) -> None:
    await bob.fill(await bob.get("account"), "account/email/send")
    other = visit(address="203.0.113.9")
    await other.sign_in("bob")
    assert (await other.get("account/email")).location == f"{P}account"
    told = await other.api("POST", "email/confirm", {"code": post.last})
    assert (told.status, told.json["code"]) == (400, "ERR-MFA-INVALID")
    assert (await bob.api("POST", "email/confirm", {"code": post.last})).status == 200


async def test_an_address_that_has_changed_is_not_confirmed_by_the_code_of_the_old_one(
    house: House,
    bob: Browser,
    post: RecordingPost,  # noqa: F811
) -> None:
    await bob.fill(await bob.get("account"), "account/email/send")
    page = await bob.get("account/email")
    await change(house, email="bob@example.org")
    assert (await bob.get("account/email")).status == 303
    told = await bob.fill(page, "account/email/confirm", code=post.last)
    assert told.status == 400
    assert MAIL not in told.text
    assert NOT_YET in (await bob.get("account")).text


async def test_without_an_address_nothing_is_said_of_it(house: House, bob: Browser) -> None:
    await change(house, email="")
    assert NOT_YET not in (await bob.get("account")).text
    assert (await bob.api("GET", "email")).json == {"address": "", "confirmed_at": None, "sent": False, "again_in": 0}
    told = await bob.api("POST", "email/send", {})
    assert (told.status, told.json["code"]) == (400, "ERR-UNREACHABLE")


async def test_where_nothing_rests_on_it_nothing_is_asked(house: House, bob: Browser) -> None:
    object.__setattr__(house.desk, "own_address", None)
    account = await bob.get("account")
    assert NOT_YET not in account.text
    for method, path in (("GET", "email"), ("POST", "email/send"), ("POST", "email/confirm")):
        told = await bob.api(method, path, {"code": "123456"} if path == "email/confirm" else None)
        assert (told.status, told.json["code"]) == (404, "ERR-RECOVERY-OFF")
    assert (await bob.get("account/email")).status == 404


async def test_the_same_over_the_api(bob: Browser, post: RecordingPost, clock: ManualClock) -> None:  # noqa: F811
    before = await bob.api("GET", "email")
    assert before.json == {"address": MAIL, "confirmed_at": None, "sent": False, "again_in": 0}
    sent = await bob.api("POST", "email/send", {})
    assert (sent.status, sent.json["sent"], sent.json["again_in"]) == (200, True, 30)
    soon = await bob.api("POST", "email/send", {})
    assert (soon.status, soon.json["code"], soon.headers["Retry-After"]) == (429, "ERR-MFA-RESEND", "30")
    wrong = await bob.api("POST", "email/confirm", {"code": "x"})
    assert (wrong.status, wrong.json["code"]) == (400, "ERR-MFA-INVALID")
    done = await bob.api("POST", "email/confirm", {"code": post.last})
    assert (done.status, done.json["address"], done.json["sent"]) == (200, MAIL, False)
    assert done.json["confirmed_at"] == (await bob.api("GET", "email")).json["confirmed_at"] is not None
    again = await bob.api("POST", "email/send", {})
    assert (again.status, again.json["code"]) == (409, "ERR-MFA-ADDRESS-KNOWN")


async def test_bound_as_a_factor_it_is_confirmed(bob: Browser, post: RecordingPost) -> None:  # noqa: F811
    page = await bob.get("enrol-code/email")
    begun = await bob.fill(page, "enrol-code/email", address=MAIL)
    await bob.fill(await bob.get(begun.location), begun.location.removeprefix(P), code=post.last)
    assert (await bob.api("GET", "email")).json["confirmed_at"] is not None


async def test_without_a_form_of_ours_nothing_is_sent_or_confirmed(bob: Browser, post: RecordingPost) -> None:  # noqa: F811
    for path in ("account/email/send", "account/email/confirm"):
        answer = await bob.post(path, {"code": "123456"})
        assert (answer.status, "ERR-CSRF" in answer.text) == (403, True)
    assert not post.box
