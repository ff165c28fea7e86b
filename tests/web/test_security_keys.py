"""Security keys through the pages' API, and what the pages allow themselves for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gateway.core.clock import ManualClock
from gateway.core.events import Kind
from gateway.core.identity import Level
from gateway.core.rule import StepUpDemand
from gateway.mfa.webauthn.relying_party import RelyingParty
from gateway.mfa.webauthn.security_keys import Workshop
from gateway.store.sql_key_value import SqlKeyValue
from tests.rig.authenticator import BE, UP, UV, Authenticator
from tests.web.conftest import Browser, House, P

HERE = "http://app.example.com"


@pytest.fixture
def keyed(house: House, clock: ManualClock) -> House:
    """The house, with the factor built in; before its first visitor."""
    desk, kv = house.desk, SqlKeyValue(house.records, clock)
    sealer = desk.factors._built["totp"].sealer  # type: ignore[attr-defined]
    workshop = Workshop(house.records, sealer, desk.mac, kv, clock, RelyingParty("Sallyport", HERE))
    desk.factors._built = {"webauthn": workshop.factor, **desk.factors._built}
    desk.factors.names = tuple(desk.factors._built)
    object.__setattr__(desk, "security_keys", workshop.security_keys(desk.enrolment))
    return house


async def set_up(browser: Browser) -> Authenticator:
    key = Authenticator()
    begun = await browser.api("POST", "mfa/webauthn/register/begin", {})
    assert begun.status == 201
    answer = key.register(begun.json["public_key"], origin=HERE)
    done = await browser.api("POST", "mfa/webauthn/register/complete", {"credential": answer, "label": "blue"})
    assert (done.status, len(done.json["backup_codes"])) == (200, 10)
    return key


async def challenge(browser: Browser, **more: Any) -> str:
    asked = await browser.api("POST", "mfa/challenge", more)
    assert asked.json["offered"][0] == "webauthn"
    return str(asked.json["challenge"])


async def test_from_the_first_touch_to_aal3(keyed: House, browser: Browser) -> None:
    await browser.sign_in()
    key = await set_up(browser)
    assert (await keyed.identity(browser)).level is Level.AAL2
    ticket = await challenge(browser, acr_values="aal3")
    begun = await browser.api("POST", "mfa/webauthn/authenticate/begin", {"challenge": ticket})
    assert begun.json["public_key"]["userVerification"] == "required"
    before = browser.cookies["sallyport"]
    answer = {"challenge": ticket, "credential": key.answer(begun.json["public_key"], origin=HERE)}
    done = await browser.api("POST", "mfa/webauthn/authenticate/complete", answer)
    assert (done.status, done.json["acr"], done.json["amr"]) == (200, "aal3", ["hwk", "pwd", "mfa"])
    assert browser.cookies["sallyport"] != before
    assert (await keyed.identity(browser)).level is Level.AAL3  # also as the session is kept
    again = await browser.api("POST", "mfa/webauthn/authenticate/complete", answer)
    assert (again.status, again.json["code"]) == (410, "ERR-MFA-CHALLENGE")
    assert len(await keyed.told(Kind.STEP_UP_PASSED)) == 1
    (method,) = [one for one in (await browser.api("GET", "mfa/methods")).json["methods"] if one["kind"] == "webauthn"]
    assert method["label"] == "blue"


async def test_a_program_asks_for_a_key_that_knows_its_user(keyed: House, browser: Browser) -> None:
    await browser.sign_in()
    key = await set_up(browser)
    asked = {"user_verification": "required"}
    for more in ({}, {"factors": ["webauthn"]}, {"acr_values": "aal1"}, {"factors": ["webauthn", "totp"]}):
        told = await browser.api("POST", "mfa/challenge", {**asked, **more})
        assert (told.status, told.json["offered"]) == (201, ["webauthn"]), more
    contradiction = await browser.api("POST", "mfa/challenge", {**asked, "factors": ["backup_code"]})
    assert (contradiction.status, contradiction.json["offered"]) == (201, [])
    for odd in ("preferred", True, 1, ["required"]):
        assert (await browser.api("POST", "mfa/challenge", {"user_verification": odd})).json["code"] == "ERR-BODY"
    ticket = await challenge(browser, **asked)
    for flags, status in ((UP, 400), (UP | UV | BE, 400), (UP | UV, 200)):
        begun = await browser.api("POST", "mfa/webauthn/authenticate/begin", {"challenge": ticket})
        assert begun.json["public_key"]["userVerification"] == "required"
        answer = {"challenge": ticket, "credential": key.answer(begun.json["public_key"], origin=HERE, flags=flags)}
        done = await browser.api("POST", "mfa/webauthn/authenticate/complete", answer)
        assert (done.status, done.json.get("code", "")) == (status, "" if status == 200 else "ERR-MFA-INVALID")
    session = (await keyed.identity(browser)).session
    assert session is not None
    assert [one.verified for one in session.proofs] == [False, True]


@pytest.mark.parametrize("said", ["required", "", "no", "required&user_verification=x"])
async def test_an_address_that_speaks_of_it_asks_for_it(keyed: House, browser: Browser, said: str) -> None:
    """What makes no sense there asks for more."""
    await browser.sign_in()
    await set_up(browser)
    opened = await browser.get(f"dialog?acr_values=aal2&user_verification={said}")
    asked = await keyed.desk.stepups.look(opened.location.removeprefix(f"{P}verify/"), await keyed.identity(browser))
    assert (asked.demand.verified, asked.offered) == (True, ("webauthn",))
    page = (await browser.get(opened.location)).text
    assert ("Use my key" in page, "backup code" in page) == (True, False)
    assert "asks for a security key that checks who you are, by your finger, face or PIN." in page
    plain = (await browser.get((await browser.get("dialog?acr_values=aal2")).location)).text
    assert ("checks who you are" in plain, "asks for a second factor." in plain) == (False, True)
    strictest = (await browser.get((await browser.get("dialog?acr_values=aal3")).location)).text
    assert "asks for a security key that checks who you are" in strictest


async def test_the_form_of_the_page_answers_too(keyed: House, browser: Browser) -> None:
    import orjson

    await browser.sign_in()
    key = await set_up(browser)
    ticket = await challenge(browser)
    page = await browser.get(f"verify/{ticket}")
    begun = await browser.api("POST", "mfa/webauthn/authenticate/begin", {"challenge": ticket})
    wrong = key.answer(begun.json["public_key"], origin="http://evil.example")
    refused = await browser.fill(page, f"verify/{ticket}", code=orjson.dumps(wrong).decode())
    assert (refused.status, "was not accepted" in refused.text) == (400, True)
    begun = await browser.api("POST", "mfa/webauthn/authenticate/begin", {"challenge": ticket})
    right = key.answer(begun.json["public_key"], origin=HERE)
    done = await browser.fill(refused, f"verify/{ticket}", code=orjson.dumps(right).decode())
    assert (done.status, done.location) == (303, "/.sallyport/account")


async def test_only_the_pages_that_ask_may_run_that_one_file(keyed: House, browser: Browser) -> None:
    await browser.sign_in()
    page = await browser.get("enrol-key")
    policy = page.headers["Content-Security-Policy"]
    assert f"script-src {HERE}/.sallyport/static/webauthn.js;" in policy
    assert f"connect-src {HERE}/.sallyport/api/v1/mfa/webauthn/;" in policy
    assert "'unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "script-src" not in (await browser.get("account")).headers["Content-Security-Policy"]
    file = await browser.get("static/webauthn.js")
    assert (file.status, file.headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")


async def test_under_another_host_keys_are_not_asked_for(keyed: House, browser: Browser) -> None:
    object.__setattr__(
        keyed.desk, "security_keys", dataclasses.replace(keyed.desk.security_keys, us=RelyingParty("S", "https://id.example"))
    )  # fmt: skip
    await browser.sign_in()
    begun = await browser.api("POST", "mfa/webauthn/register/begin", {})
    assert (begun.status, begun.json["code"]) == (400, "ERR-MFA-METHOD")
    page = await browser.get("enrol-key")
    assert "https://id.example" in page.text
    assert "script" not in page.text
    assert "script-src" not in page.headers["Content-Security-Policy"]


async def test_under_another_host_the_question_leads_to_where_a_key_answers(keyed: House, browser: Browser) -> None:
    await browser.sign_in()
    await set_up(browser)
    ticket = await keyed.desk.stepups.begin(
        await keyed.identity(browser), StepUpDemand(Level.AAL3), return_to="/orders?a=1&b=%22"
    )
    assert "answers at" not in (await browser.get(f"verify/{ticket}")).text
    object.__setattr__(
        keyed.desk, "security_keys", dataclasses.replace(keyed.desk.security_keys, us=RelyingParty("S", "https://id.example"))
    )  # fmt: skip
    page = (await browser.get(f"verify/{ticket}")).text
    assert 'answers at <a href="https://id.example/orders?a=1&amp;b=%22">https://id.example</a> only.' in page
    assert 'id="key"' not in page


async def test_where_no_keys_are_configured_there_are_none(house: House, browser: Browser) -> None:
    await browser.sign_in()
    for path, body in (
        ("register/begin", {}),
        ("register/complete", {"credential": {}}),
        ("authenticate/begin", {"challenge": "x"}),
        ("authenticate/complete", {"challenge": "x", "credential": {}}),
    ):
        answer = await browser.api("POST", f"mfa/webauthn/{path}", body)
        assert (answer.status, answer.json["code"]) == (400, "ERR-MFA-METHOD"), path
    assert (await browser.get("enrol-key")).status == 400
    assert "security key" not in (await browser.get("account")).text


async def test_an_old_sign_in_sets_no_key_up(keyed: House, browser: Browser, clock: ManualClock) -> None:
    await browser.sign_in()
    clock.advance(301)
    answer = await browser.api("POST", "mfa/webauthn/register/begin", {})
    assert (answer.status, answer.json["code"]) == (401, "ERR-STEP-UP")


async def test_who_has_an_app_and_needs_a_key_is_led_to_set_one_up(keyed: House, browser: Browser) -> None:
    await browser.sign_in()
    me = await keyed.identity(browser)
    from gateway.mfa import otp

    async with keyed.records.begin() as connection:
        await keyed.desk.enrolment._totp.bind(
            connection, me.tenant, me.subject, secret=otp.new_secret(), label="", step=0, now=0.0
        )
    asked = await browser.api("POST", "mfa/challenge", {"factors": ["webauthn"]})
    page = await browser.get(f"verify/{asked.json['challenge']}")
    assert "enrol-key?next=" in page.text
    onward = await browser.get("enrol-key")  # where the app is asked for first
    assert onward.location.startswith("/.sallyport/verify/")


@pytest.mark.parametrize(("depth", "code"), [(100, "ERR-MFA-INVALID"), (300, "ERR-MFA-INVALID"), (1000, "ERR-JSON")])
async def test_a_credential_of_any_depth_is_wrong_and_no_fault(
    keyed: House, browser: Browser, depth: int, code: str
) -> None:
    """JSON may be read deeper than it can be written again."""
    await browser.sign_in()
    await browser.api("POST", "mfa/webauthn/register/begin", {})
    body = b'{"credential": {"id": ' + b"[" * depth + b"]" * depth + b"}}"
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    answer = await browser.send("POST", f"{P}api/v1/mfa/webauthn/register/complete", body=body, headers=headers)
    assert (answer.status, answer.json["code"]) == (400, code)
    assert await keyed.told(Kind.FAULT) == []
    events = [event.detail for event in await keyed.told(Kind.FACTOR_REFUSED)]
    assert events == ([{"factor": "webauthn", "why": "malformed"}] if code == "ERR-MFA-INVALID" else [])
