"""My account."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from gateway.core.clock import ManualClock
from gateway.core.events import Kind
from gateway.mfa.sms import Sms
from tests.mfa.codes.conftest import own
from tests.rig.post import RecordingPost
from tests.web.conftest import Answer, Browser, House, P


def actions(page: Answer, pattern: str) -> list[str]:
    return re.findall(rf'action="{P}({pattern})"', page.text)


async def test_it_shows_who_i_am_and_where_i_am_signed_in(browser: Browser, visit: Callable[..., Browser]) -> None:
    await browser.sign_in()
    phone = visit(agent="Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/605.1", address="198.51.100.8")
    await phone.sign_in()
    page = await browser.get("account")
    for said in ("Bob", "bob@example.com", "staff", "Firefox on Linux", "Safari on iPhone", "198.51.100.8", "None yet"):
        assert said in page.text
    assert page.text.count("this browser") == 1


async def test_what_others_wrote_is_inert(house: House, browser: Browser, visit: Callable[..., Browser]) -> None:
    """Case 122: a user agent, a display name, a group cannot bring a script."""
    evil = "<script>alert(1)</script>"
    await house.desk.users.add("eve", "correct horse battery staple", display_name=evil, groups=["<b>x</b>"])
    await visit(agent=evil, address="198.51.100.8").sign_in("eve")
    await browser.sign_in("eve")
    page = await browser.get("account")
    assert "<script" not in page.text
    assert "<b>x" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_one_session_can_be_ended(house: House, browser: Browser, visit: Callable[..., Browser]) -> None:
    await browser.sign_in()
    phone = visit()
    await phone.sign_in()
    page = await browser.get("account")
    (action,) = actions(page, "account/sessions/[^/]+/end")
    done = await browser.fill(page, action)
    assert done.location == f"{P}account?done=ended"
    assert "That browser was signed out." in (await browser.get(done.location)).text
    assert (await phone.get("whoami")).json["authenticated"] is False
    assert (await browser.get("whoami")).json["authenticated"] is True
    assert (await browser.fill(page, action)).status == 404


async def test_all_others_can_be_ended(browser: Browser, visit: Callable[..., Browser]) -> None:
    await browser.sign_in()
    others = [visit() for _ in range(3)]
    for other in others:
        await other.sign_in()
    done = await browser.fill(await browser.get("account"), "account/sessions/end-others")
    assert done.location == f"{P}account?done=ended-others"
    assert [(await other.get("whoami")).json["authenticated"] for other in [browser, *others]] == [True] + 3 * [False]


async def test_nobody_ends_somebody_elses(house: House, browser: Browser, visit: Callable[..., Browser]) -> None:
    await browser.sign_in("bob")
    other = visit()
    await other.sign_in("ann")
    theirs = (await house.identity(other)).session
    assert theirs is not None
    page = await browser.get("account")
    third = visit()
    await third.sign_in("bob")
    csrf = (await browser.get("account")).form("account/sessions/end-others").fields["csrf"]
    assert (await browser.post(f"account/sessions/{theirs.id}/end", {"csrf": csrf})).status == 404
    assert (await other.get("whoami")).json["authenticated"] is True
    assert page.status == 200


async def test_changes_need_a_fresh_proof(
    browser: Browser, visit: Callable[..., Browser], clock: ManualClock, enrol: Callable[..., Any]
) -> None:
    """The password while there is nothing better, the second factor from then on."""
    await browser.sign_in()
    phone = visit()
    await phone.sign_in()
    clock.advance(301)
    page = await browser.get("account")
    again = await browser.fill(page, "account/sessions/end-others")
    assert again.location == f"{P}login?reauth=1&next=%2F.sallyport%2Faccount%3Fdone%3Dconfirmed"
    assert (await phone.get("whoami")).json["authenticated"] is True
    await browser.sign_in(query="?" + again.location.partition("?")[2])
    app, _, _ = await enrol(browser)
    clock.advance(301)
    page = await browser.get("account")
    asked = await browser.fill(page, "account/sessions/end-others")
    ticket = asked.location.removeprefix(P)
    assert ticket.startswith("verify/")
    done = await browser.fill(await browser.get(ticket), ticket, code=app.code())
    assert done.location == f"{P}account?done=confirmed"
    page = await browser.get(done.location)
    assert "please press the button again" in page.text
    assert (await browser.fill(page, "account/sessions/end-others")).location == f"{P}account?done=ended-others"
    assert (await phone.get("whoami")).json["authenticated"] is False


async def test_the_last_factor_takes_every_session_with_it(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any]
) -> None:
    await browser.sign_in("bob")
    await enrol(browser)
    other = visit()
    await other.sign_in("bob")
    page = await browser.get("account")
    (action,) = actions(page, "account/factors/[^/]+/remove")
    done = await browser.fill(page, action)
    assert done.status == 303
    assert "sallyport" not in browser.cookies
    assert (await other.get("whoami")).json["authenticated"] is False
    assert await house.told(Kind.FACTOR_REMOVED)


async def test_an_administrator_keeps_the_last_one(browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in("ann")
    await enrol(browser)
    page = await browser.get("account")
    assert "the last cannot be removed" in page.text
    (action,) = actions(page, "account/factors/[^/]+/remove")
    refused = await browser.fill(page, action)
    assert refused.status == 403
    assert 'role="alert"' in refused.text
    assert (await browser.get("whoami")).json["acr"] == "aal2"


async def test_backup_codes_can_be_replaced(browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in()
    _, old, _ = await enrol(browser)
    fresh = await browser.fill(await browser.get("account"), "account/backup-codes")
    codes = re.findall(r"<li>([0-9a-z]{5}-[0-9a-z]{5})</li>", fresh.text)
    assert len(codes) == 10
    assert not set(codes) & set(old)
    assert "no longer work" in fresh.text


async def test_somebody_may_stay_signed_in(
    house: House, browser: Browser, visit: Callable[..., Browser], clock: ManualClock
) -> None:
    """Durably, and no longer than to the end that does not move."""
    await browser.sign_in()
    await visit().sign_in()
    clock.advance(1800)
    page = await browser.get("account")
    assert "Signed out after 1 hour without use, and in any case in 23 hours." in page.text
    assert page.text.count("Stay signed in") == 1
    done = await browser.fill(page, "account/sessions/extend")
    assert done.location == f"{P}account?done=extended"
    assert "You stay signed in here." in (await browser.get(done.location)).text
    assert (await browser.post("account/sessions/extend", {"csrf": "x"})).status == 403
    identity = await house.identity(browser)
    found = await house.desk.sessions._store.list(identity.tenant, identity.subject)
    assert sorted(one.pause for one in found) == [0.0, 1800.0]


async def test_with_several_one_is_asked_for_first(house: House, browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in()
    await enrol(browser)
    desk = house.desk
    sealer = desk.factors._built["totp"].sealer  # type: ignore[attr-defined]
    desk.factors._built["sms"] = Sms(house.records, sealer, desk.mac, desk.clock, RecordingPost())
    desk.factors.names += ("sms",)
    assert "Ask me first for" not in (await browser.get("account")).text, "there is nothing to choose"
    identity = await house.identity(browser)
    room = SimpleNamespace(records=house.records, sealer=sealer, clock=desk.clock)
    await own(room, subject=identity.subject)  # type: ignore[arg-type]
    page = await browser.get("account")
    assert "Ask me first for" in page.text
    done = await browser.fill(page, "account/preference", factor="sms")
    assert (done.status, done.location) == (303, f"{P}account?done=preferred")
    assert (await browser.api("GET", "mfa/status")).json["preferred"] == "sms"
    assert (await browser.api("GET", "mfa/status")).json["factors"] == ["sms", "totp", "backup_code"]
    page = await browser.get("account?done=preferred")
    assert '<option value="sms" selected>Phone number</option>' in page.text
    assert (await browser.api("POST", "mfa/preference", {"factor": "webauthn"})).json["code"] == "ERR-MFA-METHOD"
    assert (await browser.api("POST", "mfa/preference", {"factor": ""})).status == 204
    assert (await browser.api("GET", "mfa/status")).json["preferred"] == ""
    assert (await browser.fill(page, "account/preference", factor="backup_code")).status == 400
