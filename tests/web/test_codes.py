"""Codes that are sent, through the pages and the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.clock import ManualClock
from gateway.core.events import Kind
from gateway.core.identity import Level
from gateway.core.rule import StepUpDemand
from gateway.mfa.codes.binding import Addresses
from gateway.mfa.email import Email
from gateway.mfa.own_address import OwnAddress
from gateway.mfa.sms import Sms
from gateway.mfa.trusted_devices import TrustedDevices
from gateway.store.sql_key_value import SqlKeyValue
from tests.rig.post import RecordingPost
from tests.web.conftest import Answer, Browser, House, P
from tests.web.test_pages import Page

ANN = "+90 532 123 45 12"
AAL2 = StepUpDemand(Level.AAL2, max_age=600)


@pytest.fixture
def post() -> RecordingPost:
    return RecordingPost()


@pytest.fixture
def sending(house: House, clock: ManualClock, post: RecordingPost) -> House:
    """The house, with both factors built in; before its first visitor."""
    desk, records = house.desk, house.records
    sealer = desk.factors._built["totp"].sealer  # type: ignore[attr-defined]
    made = Sms(records, sealer, desk.mac, clock, post), Email(records, sealer, desk.mac, clock, post)
    desk.factors._built = {**desk.factors._built, **{one.name: one for one in made}}
    desk.factors.names = tuple(desk.factors._built)
    kv = SqlKeyValue(records, clock)
    bound = {one.name: Addresses(one, desk.enrolment, desk.factors.attempts, kv, clock, desk.ledger) for one in made}
    object.__setattr__(desk, "addresses", bound)
    own = OwnAddress(made[1], desk.enrolment, desk.factors.attempts, clock, desk.ledger)
    object.__setattr__(desk, "own_address", own)
    return house


async def add(browser: Browser, post: RecordingPost, factor: str = "sms", typed: str = ANN) -> Answer:
    """Set one up through the pages."""
    page = await browser.get(f"enrol-code/{factor}")
    assert page.status == 200, page.text
    begun = await browser.fill(page, f"enrol-code/{factor}", address=typed)
    assert begun.status == 303, begun.text
    page = await browser.get(begun.location)
    return await browser.fill(page, begun.location.removeprefix(P), code=post.last)


async def asked(house: House, browser: Browser) -> str:
    return await house.desk.stepups.begin(await house.identity(browser), AAL2, return_to="/admin/")


async def test_from_a_number_to_the_other_side(
    sending: House, browser: Browser, post: RecordingPost, clock: ManualClock
) -> None:
    await browser.sign_in("ann")
    page = await browser.get("enrol-code/sms?next=/admin/")
    assert "a number can be taken over" in page.text
    assert f'href="{P}enrol?next=' in page.text  # something better, one press away
    (field,) = [each for each in Page(page.text).all("input") if each.get("name") == "address"]
    assert (field["type"], field["autocomplete"], field["value"]) == ("tel", "tel", "")
    begun = await browser.fill(page, "enrol-code/sms", address=ANN)
    assert begun.status == 303
    page = await browser.get(begun.location)
    assert "+90 *** ** 12" in page.text
    assert "532" not in page.text
    (field,) = [each for each in Page(page.text).all("input") if each.get("name") == "code"]
    assert (field["autocomplete"], field["inputmode"]) == ("one-time-code", "numeric")
    where = begun.location.removeprefix(P).partition("?")[0]
    wrong = await browser.fill(page, where, code="x")
    assert (wrong.status, "newer one was sent" in wrong.text) == (400, True)
    done = await browser.fill(wrong, where, code=post.last)
    assert (done.status, 'href="/admin/"' in done.text) == (200, True)
    identity = await sending.identity(browser)
    assert (identity.level, identity.amr) == (Level.AAL2, ("pwd", "sms", "mfa"))
    account = await browser.get("account?done=added-number")
    assert "+90 *** ** 12" in account.text
    assert "The phone number is set up." in account.text
    gone = await browser.fill(wrong, where, code=post.last)
    assert gone.status == 410

    clock.advance(3600)
    await browser.sign_in("ann", query="?reauth=1&next=/admin/")
    ticket = await asked(sending, browser)
    page = await browser.get(f"verify/{ticket}?method=sms")
    assert "Send a code to" in page.text
    assert not [each for each in Page(page.text).all("input") if each.get("name") == "code"]  # nothing to type yet
    sent = await browser.fill(page, f"verify/{ticket}/send")
    assert (sent.status, sent.location) == (303, f"{P}verify/{ticket}?method=sms")
    page = await browser.get(sent.location)
    assert 'role="status"' in page.text
    assert "30 seconds after this page has opened" in page.text
    wrong = await browser.fill(page, f"verify/{ticket}", code="000000" if post.last != "000000" else "1")
    assert (wrong.status, 'aria-invalid="true"' in wrong.text) == (400, True)
    right = await browser.fill(wrong, f"verify/{ticket}", code=post.last)
    assert (right.status, right.location) == (303, "/admin/")
    assert len(await sending.told(Kind.CODE_SENT)) == 2


async def test_too_soon_says_how_long_and_leaves_the_field(
    sending: House, browser: Browser, post: RecordingPost, clock: ManualClock
) -> None:
    await browser.sign_in("ann")
    await add(browser, post)
    clock.advance(3600)
    await browser.sign_in("ann", query="?reauth=1")
    ticket = await asked(sending, browser)
    page = await browser.get(
        (await browser.fill(await browser.get(f"verify/{ticket}?method=sms"), f"verify/{ticket}/send")).location
    )
    soon = await browser.fill(page, f"verify/{ticket}/send")
    assert (soon.status, soon.headers["Retry-After"]) == (429, "31")
    assert "Please wait 30 seconds." in soon.text
    assert 'aria-invalid="true"' not in soon.text
    assert len(post.box) == 2
    clock.advance(30)
    again = await browser.fill(soon, f"verify/{ticket}/send")
    assert again.status == 303
    assert (await browser.fill(soon, f"verify/{ticket}", code=post.last)).status == 303


async def test_several_addresses_are_offered_masked(
    sending: House, browser: Browser, post: RecordingPost, clock: ManualClock
) -> None:
    await browser.sign_in("ann")
    await add(browser, post)
    clock.advance(60)
    await add(browser, post, typed="+1 202 555 0143")
    clock.advance(60)
    await add(browser, post, "email", "ann@example.org")
    clock.advance(3600)
    await browser.sign_in("ann", query="?reauth=1")
    ticket = await asked(sending, browser)
    page = await browser.get(f"verify/{ticket}?method=sms")
    assert page.text.count("Send a code to") == 2
    assert f'href="{P}verify/{ticket}?method=email"' in page.text
    assert "5550143" not in page.text
    from tests.web.conftest import _all_forms

    first, second = [form for form in _all_forms(page) if form.action.endswith("/send")]
    assert {first.fields["to"], second.fields["to"]} == {
        one.id
        for one in await sending.desk.factors.of("default", (await sending.identity(browser)).subject)
        if one.kind == "sms"
    }
    sent = await browser.post(first.action, first.fields)
    assert post.box[-1].to == "+12025550143"  # the one used last comes first
    page = await browser.get(sent.location)
    assert page.text.count("Send another code to") == 2
    Page(page.text)
    account = await browser.get("account")
    for shown in ("+90 *** ** 12", "+1 *** ** 43", "a***@example.org"):
        assert shown in account.text


async def test_the_tick_outlives_another_code_and_a_wrong_one(
    sending: House, browser: Browser, post: RecordingPost, clock: ManualClock
) -> None:
    """Without any script: a page that forgot it would have the next code typed for nothing."""
    desk = sending.desk
    object.__setattr__(desk, "trusted", TrustedDevices(sending.records, clock, desk.ledger, desk.sessions.end_in))
    await browser.sign_in("ann")
    await add(browser, post)
    clock.advance(3600)
    await browser.sign_in("ann", query="?reauth=1")
    demand = StepUpDemand(Level.AAL2, trusted=86_400.0)
    ticket = await desk.stepups.begin(await sending.identity(browser), demand, return_to="/")
    verify, send = f"verify/{ticket}", f"verify/{ticket}/send"
    sent = await browser.fill(await browser.get(f"{verify}?method=sms"), send)
    page = await browser.get(sent.location)
    assert 'name="trust"' in page.text
    assert "checked" not in page.text
    soon = await browser.fill(page, send, trust="yes")
    assert (soon.status, 'value="yes" checked' in soon.text) == (429, True)
    wrong = await browser.fill(soon, verify, code="x")
    assert (wrong.status, 'value="yes" checked' in wrong.text) == (400, True)
    clock.advance(61)
    again = await browser.fill(wrong, send)
    assert (again.status, again.location) == (303, f"{P}{verify}?method=sms&trust=yes")
    assert "sallyport-trusted" not in browser.cookies
    page = await browser.get(again.location)
    assert 'value="yes" checked' in page.text
    done = await browser.fill(page, verify, code=post.last)
    assert (done.status, "sallyport-trusted" in browser.cookies) == (303, True)


async def test_an_address_that_is_none_is_asked_for_again(
    sending: House, browser: Browser, post: RecordingPost
) -> None:
    await browser.sign_in("bob")
    page = await browser.get("enrol-code/email")
    assert 'value="bob@example.com"' in page.text
    wrong = await browser.fill(page, "enrol-code/email", address='"><script>')
    assert (wrong.status, 'aria-invalid="true"' in wrong.text) == (400, True)
    assert "<script>" not in wrong.text
    assert post.box == []
    assert (await sending.told(Kind.FACTOR_REFUSED))[0].detail == {"factor": "email", "why": "address"}
    assert (await browser.fill(wrong, "enrol-code/email", address="bob@example.com")).status == 303


async def test_forms_of_others_send_nothing(sending: House, browser: Browser, post: RecordingPost) -> None:
    await browser.sign_in("ann")
    await add(browser, post)
    ticket = await asked(sending, browser)
    for path in (f"verify/{ticket}/send", "enrol-code/sms", "enrol-code/sms/sms.x/send", "enrol-code/sms/sms.x"):
        answer = await browser.post(path, {"factor": "sms", "csrf": "x", "address": ANN})
        assert answer.status == 403
        answer = await browser.post(path, {"factor": "sms"}, headers={"Origin": "https://evil.example"}, origin=False)
        assert answer.status == 403
    assert len(post.box) == 1


async def test_what_is_not_offered_is_not_there(house: House, browser: Browser) -> None:
    await browser.sign_in("ann")
    for path in ("enrol-code/sms", "enrol-code/email", "enrol-code/totp", "enrol-code/sms/sms.x"):
        assert (await browser.get(path)).status == 400
    begun = await browser.api("POST", "mfa/setup/sms", {"number": ANN})
    assert (begun.status, begun.json["code"]) == (400, "ERR-MFA-METHOD")
    account = await browser.get("account")
    assert "phone number" not in account.text


async def test_who_has_nothing_that_counts_is_shown_the_way(sending: House, browser: Browser) -> None:
    await browser.sign_in("bob")
    demand = StepUpDemand(Level.AAL2, frozenset({"sms"}))
    ticket = await sending.desk.stepups.begin(await sending.identity(browser), demand, return_to="/admin/")
    page = await browser.get(f"verify/{ticket}")
    assert f'href="{P}enrol-code/sms?next=%2Fadmin%2F"' in page.text
    assert "enrol-code/email" not in page.text


async def test_programs_do_it_all_by_the_api(
    sending: House, browser: Browser, post: RecordingPost, clock: ManualClock
) -> None:
    await browser.sign_in("ann")
    begun = await browser.api("POST", "mfa/setup/sms", {"number": ANN})
    assert (begun.status, begun.json["to"], begun.json["again_in"]) == (201, "+90 *** ** 12", 30)
    setup = begun.json["id"]
    soon = await browser.api("POST", f"mfa/setup/{setup}/send", {})
    assert (soon.status, soon.json["code"], soon.headers["Retry-After"]) == (429, "ERR-MFA-RESEND", "30")
    clock.advance(30)
    assert (await browser.api("POST", f"mfa/setup/{setup}/send", {})).json["again_in"] == 60
    wrong = await browser.api("POST", f"mfa/setup/{setup}/verify", {"code": "x"})
    assert (wrong.status, wrong.json["code"]) == (400, "ERR-MFA-INVALID")
    done = await browser.api("POST", f"mfa/setup/{setup}/verify", {"code": post.last})
    assert (done.status, len(done.json["backup_codes"])) == (200, 10)
    (method,) = [one for one in (await browser.api("GET", "mfa/methods")).json["methods"] if one["kind"] == "sms"]
    assert method["label"] == "+90 *** ** 12"
    assert (await browser.api("GET", f"mfa/methods/{method['id']}")).json == method
    known = await browser.api("POST", "mfa/setup/sms", {"number": ANN})
    assert (known.status, known.json["code"]) == (409, "ERR-MFA-ADDRESS-KNOWN")
    clock.advance(60)
    begun = await browser.api("POST", "mfa/setup/email", {"address": "ann@example.org"})
    assert (begun.status, begun.json["to"]) == (201, "a***@example.org")

    clock.advance(1800)
    challenge = (await browser.api("POST", "mfa/challenge", {})).json
    assert challenge["send_to"] == [{"factor": "sms", "id": method["id"], "to": "+90 *** ** 12"}]
    sent = await browser.api("POST", "mfa/send", {"challenge": challenge["challenge"], "factor": "sms"})
    assert (sent.status, sent.json) == (200, {"to": "+90 *** ** 12", "again_in": 120})
    soon = await browser.api("POST", "mfa/send", {"challenge": challenge["challenge"], "factor": "sms"})
    assert (soon.status, soon.json["code"]) == (429, "ERR-MFA-RESEND")
    for factor, of in (("totp", ""), ("sms", "other"), ("email", "")):
        odd = await browser.api("POST", "mfa/send", {"challenge": challenge["challenge"], "factor": factor, "id": of})
        assert (odd.status, odd.json["code"]) == (400, "ERR-MFA-METHOD")
    foreign = await browser.api("POST", "mfa/send", {"challenge": "1-x", "factor": "sms"})
    assert (foreign.status, foreign.json["code"]) == (410, "ERR-MFA-CHALLENGE")
    answer = {"challenge": challenge["challenge"], "factor": "sms", "code": post.last}
    proven = await browser.api("POST", "mfa/verify", answer)
    assert (proven.status, proven.json["acr"], proven.json["amr"]) == (200, "aal2", ["pwd", "sms", "mfa"])
    assert (await browser.api("POST", "mfa/setup/sms.x/send", {})).json["code"] == "ERR-MFA-SETUP"
    assert (await browser.api("POST", "mfa/setup/x/send", {})).json["code"] == "ERR-MFA-SETUP"


async def test_every_page_is_well_made(
    sending: House, browser: Browser, post: RecordingPost, clock: ManualClock, enrol: Callable[..., Any]
) -> None:
    await browser.sign_in("ann")
    where = await browser.get("enrol-code/sms")
    wrong = await browser.fill(where, "enrol-code/sms", address="x")
    begun = await browser.fill(wrong, "enrol-code/sms", address=ANN)
    which = await browser.get(begun.location)
    soon = await browser.fill(which, begun.location.removeprefix(P) + "/send")
    assert soon.status == 429
    for answer in (where, wrong, which, soon):
        page = Page(answer.text)
        ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(ids) == len(set(ids))
        for _, attrs in page.elements:
            assert set(attrs.get("aria-describedby", "").split()) <= set(ids), attrs
        assert not page.all("script")
        labels = {attrs["for"] for attrs in page.all("label")}
        assert all(one["id"] in labels for one in page.all("input") if one["type"] != "hidden")


async def test_a_number_is_set_up_after_a_fresh_proof_only(
    sending: House, browser: Browser, post: RecordingPost, clock: ManualClock
) -> None:
    await browser.sign_in("bob")
    page = await browser.get("enrol-code/sms")
    clock.advance(301)
    for answer in (await browser.get("enrol-code/sms"), await browser.fill(page, "enrol-code/sms", address=ANN)):
        assert answer.status == 303
        assert answer.location.startswith(f"{P}login?reauth=1&next=")
    refused = await browser.api("POST", "mfa/setup/sms", {"number": ANN})
    assert (refused.status, refused.json["code"]) == (401, "ERR-STEP-UP")
    assert post.box == []
