"""The page on which administrators see to the second factors of others; with the real rooms behind the desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.clock import ManualClock
from gateway.core.events import Kind
from gateway.mfa.attempts import LIFE
from gateway.store.tables import factors
from tests.web.conftest import PASSWORD, Browser, House, P
from tests.web.test_pages import Page
from tests.web.test_trusted import COOKIE, DAY, house, trust  # noqa: F401 - a fixture

Enrol = Callable[..., Any]
Visit = Callable[..., Browser]


@pytest.fixture
async def ann(house: House, visit: Visit, enrol: Enrol) -> Browser:  # noqa: F811
    """An administrator with two factors, just shown."""
    ann = visit(address="198.51.100.4")
    await ann.sign_in("ann")
    await enrol(ann)
    return ann


async def test_the_way_there(ann: Browser, browser: Browser) -> None:
    assert f'<a href="{P}person">' in (await ann.get("account")).text
    page = await ann.get("person")
    assert (page.status, "Demand" in page.text) == (200, False)
    found = await ann.fill(page, "person", user="Bob &x=1")
    assert (found.status, found.location) == (303, f"{P}person?user=Bob%20%26x%3D1")
    await browser.sign_in("bob")
    assert "person" not in (await browser.get("account")).text


async def test_it_says_how_somebody_stands(
    house: House,  # noqa: F811
    ann: Browser,
    visit: Visit,
    enrol: Enrol,
    clock: ManualClock,
) -> None:
    await house.desk.users.add("fay", PASSWORD, groups=["finance"], display_name="Fay <b>")
    for user, said in (("BOB", "No."), ("fay", "begins when they sign in"), ("ann", "one that will do")):
        page = await ann.get(f"person?user={user}")
        assert (page.status, said in page.text) == (200, True), user
        Page(page.text)
    assert "Fay &lt;b&gt;" in (await ann.get("person?user=fay")).text
    fay = visit(address="198.51.100.5")
    await fay.sign_in("fay")
    assert "and they have none that will do yet" in (await ann.get("person?user=fay")).text
    await enrol(fay)
    page = await ann.get("person?user=fay")
    assert ("Authenticator app" in page.text, "disabled" in page.text, "Phone" in page.text) == (True, False, False)
    clock.advance(15 * DAY)
    async with house.records.begin() as connection:
        await connection.execute(factors.update().values(failures=LIFE).where(factors.c.kind == "totp"))
    await house.desk.users.add("carl", PASSWORD, groups=["admins"])
    carl = visit(address="198.51.100.6")
    await carl.sign_in("carl")
    await enrol(carl)
    page = await carl.get("person?user=fay")
    assert ("nothing else is open to them" in page.text, "disabled" in page.text) == (True, True)
    for user in ("nobody", "x" * 300, "b\0"):
        gone = await carl.get(f"person?user={user}".replace("\0", "%00"))
        assert (gone.status, "There is no such user." in gone.text) == (404, True)


async def test_it_is_demanded_and_taken_back(
    house: House,  # noqa: F811
    ann: Browser,
    browser: Browser,
    clock: ManualClock,
) -> None:
    await browser.sign_in("bob")
    page = await ann.get("person?user=bob")
    assert "Take back" not in page.text
    done = await ann.fill(page, "person/require", grace="7")
    assert (done.status, done.location) == (303, f"{P}person?user=bob&done=required")
    bob = await house.desk.users.find("bob")
    assert bob is not None
    assert bob.required_from == pytest.approx(clock.now() + 7 * DAY)
    assert "Your account must have one by" in (await browser.get("account")).text
    page = await ann.get("person?user=bob&done=required")
    assert "It is demanded." in page.text
    await ann.fill(page, "person/require", grace="0")
    assert (await browser.get("account")).location.startswith(f"{P}enrol-first")
    page = await ann.get("person?user=bob")
    done = await ann.fill(page, "person/lift")
    assert (done.status, done.location) == (303, f"{P}person?user=bob&done=lifted")
    assert (await browser.get("account")).status == 200
    assert [one.detail["by"] for one in await house.told(Kind.MFA_REQUIRED)] == ["ann", "ann"]
    assert [one.user for one in await house.told(Kind.MFA_REQUIREMENT_LIFTED)] == ["bob"]


async def test_their_browsers_are_trusted_no_more(
    house: House,  # noqa: F811
    ann: Browser,
    browser: Browser,
    enrol: Enrol,
) -> None:
    await trust(house, browser, enrol)
    await browser.sign_in(query="?reauth=1&next=/")
    page = await ann.get("person?user=bob")
    (action,) = [one["action"] for one in Page(page.text).all("form") if one["action"].endswith("/forget")]
    done = await ann.fill(page, action.removeprefix(P))
    assert (done.status, done.location) == (303, f"{P}person?user=bob&done=forgotten")
    (told,) = await house.told(Kind.TRUSTED_DEVICE_REVOKED)
    assert (told.user, told.detail["by"]) == ("bob", "ann")
    assert (await browser.get("whoami")).json["authenticated"] is False, "what was opened with it ends"
    again = await ann.post(action, page.form(action.removeprefix(P)).fields)
    assert (again.status, "You trust no such browser." in again.text) == (404, True)
    await browser.sign_in("bob")
    assert COOKIE not in browser.cookies


async def test_what_the_page_does_not_send(house: House, ann: Browser) -> None:  # noqa: F811
    page = await ann.get("person?user=bob")
    fields = page.form("person/require").fields
    for more, status in (({"grace": "8"}, 400), ({"grace": ""}, 400), ({"user": "nobody"}, 404), ({"csrf": "x"}, 403)):
        answer = await ann.post("person/require", {**fields, "grace": "0", **more})
        assert answer.status == status, more
    bob = await house.desk.users.find("bob")
    assert bob is not None
    assert await house.told(Kind.MFA_REQUIRED) == []


async def test_it_is_for_administrators_with_a_second_factor(
    house: House,  # noqa: F811
    ann: Browser,
    browser: Browser,
    visit: Visit,
    enrol: Enrol,
    clock: ManualClock,
) -> None:
    fields = (await ann.get("person?user=bob")).form("person/require").fields
    await browser.sign_in("bob")
    await enrol(browser)
    assert (await browser.get("person?user=ann")).status == 403
    for path in (
        "person/require",
        "person/lift",
        "person/trusted-devices/x/forget",
        "person/trusted-devices/forget-all",
    ):
        assert (await browser.post(path, {**fields, "user": "ann", "grace": "0"})).status == 403
    clock.advance(301)
    stale = await ann.post("person/require", {**fields, "grace": "0"})
    assert (stale.status, stale.location[: len(P) + 7]) == (303, f"{P}verify/")
    other = visit(address="198.51.100.9")
    await other.sign_in("ann")
    assert (await other.get("person?user=bob")).location.startswith(f"{P}verify/")
    assert await house.told(Kind.MFA_REQUIRED) == []
