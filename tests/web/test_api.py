"""The REST API."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.clock import ManualClock
from gateway.core.events import Kind
from gateway.core.identity import Level
from gateway.core.rule import StepUpDemand
from gateway.mfa import otp
from gateway.web.api.openapi import ENDPOINTS
from tests.web.conftest import FIREFOX, Browser, House, P, Phone

BODIES: dict[str, Any] = {
    "mfa/setup/{id}/verify": {"code": "123456"},
    "mfa/preference": {"factor": "totp"},
    "mfa/webauthn/register/complete": {"credential": {}},
    "mfa/webauthn/authenticate/begin": {"challenge": "x"},
    "mfa/webauthn/authenticate/complete": {"challenge": "x", "credential": {}},
    "mfa/verify": {"challenge": "x", "factor": "totp", "code": "123456"},
    "mfa/setup/sms": {"number": "+905321234512"},
    "mfa/setup/email": {"address": "ann@example.com"},
    "mfa/send": {"challenge": "x", "factor": "sms"},
    "notices": {"more": False},
    "users/{user}/recovery": {"reason": "x"},
    "limits/reset": {"rule": "app", "all": True, "reason": "x"},
    "addresses/release": {"address": "ann@example.com"},
    "email/confirm": {"code": "123456"},
}
"""What endpoints take, where something has to be said."""


def path_of(path: str) -> str:
    return re.sub(r"{\w+}", "none", path)


async def test_every_endpoint_wants_somebody(browser: Browser, clock: ManualClock) -> None:
    for one in ENDPOINTS:
        answer = await browser.api(one.method, path_of(one.path), BODIES.get(one.path))
        assert (answer.status, answer.json["code"]) == (401, "ERR-SIGN-IN"), one.path
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="sallyport"'
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json["request_id"] == "01TESTREQUEST"
        assert answer.json["status"] == 401
        assert answer.json["challenge"] == f"{P}dialog"
        clock.advance(1)


async def test_every_unsafe_endpoint_wants_our_origin_and_json(browser: Browser, clock: ManualClock) -> None:
    """Case 86: no simple cross-site request gets through, with whatever content type."""
    await browser.sign_in()
    for one in ENDPOINTS:
        clock.advance(5)
        if one.method == "GET":
            continue
        for headers in ({}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            answer = await browser.api(one.method, path_of(one.path), headers=headers, origin=False)
            assert (answer.status, answer.json["code"]) == (403, "ERR-CSRF"), one.path
        if one.method == "POST":
            for wrapping in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
                answer = await browser.api("POST", path_of(one.path), {}, headers={"Content-Type": wrapping})
                assert (answer.status, answer.json["code"]) == (415, "ERR-CONTENT-TYPE"), one.path
    assert (await browser.get("whoami")).json["authenticated"] is True


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "ERR-JSON"),
        (b"[]", "ERR-BODY"),
        (b"{}", "ERR-BODY"),
        (b'{"code": 123456}', "ERR-BODY"),
        (b'{"code": ""}', "ERR-BODY"),
        (b'{"code": "123456", "extra": 1}', "ERR-BODY"),
        (b'{"code": "' + b"1" * 65 + b'"}', "ERR-BODY"),
        (b'{"code": "\xff"}', "ERR-JSON"),
        (b'{"code": "000000", "code": "123456"}', "ERR-JSON"),
        (b'{"code": "123456", "c\\u006fde": "123456"}', "ERR-JSON"),
        (b'{"code": "123456", "label": {"a": [{"b": 1, "b": 1}]}}', "ERR-JSON"),
        (b"[" * 1000 + b"]" * 1000, "ERR-JSON"),
    ],
)
async def test_a_body_that_is_not_as_it_should_be(browser: Browser, body: bytes, code: str) -> None:
    await browser.sign_in()
    headers = {"Content-Type": "application/json"}
    answer = await browser.send("POST", f"{P}api/v1/mfa/setup/x/verify", body=body, headers=headers)
    assert (answer.status, answer.json["code"]) == (400, code)
    if code == "ERR-BODY":
        assert answer.json["errors"]
        assert "123456" not in answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("mfa/challenge", {"max_age": False}),
        ("mfa/challenge", {"max_age": "60"}),
        ("sessions/invalidate-all", {"keep_current": 0}),
        ("sessions/invalidate-all", {"keep_current": "no"}),
    ],
)
async def test_what_is_nearly_of_the_right_type_is_not_guessed_at(browser: Browser, path: str, body: Any) -> None:
    await browser.sign_in()
    answer = await browser.api("POST", path, body)
    assert (answer.status, answer.json["code"]) == (400, "ERR-BODY")
    assert (await browser.get("whoami")).json["authenticated"] is True


async def test_setting_up_proving_and_removing(house: House, browser: Browser, clock: ManualClock) -> None:
    await browser.sign_in()
    status = (await browser.api("GET", "mfa/status")).json
    assert (status["enrolled"], status["required"], status["acr"], status["may_change"]) == (
        False,
        False,
        "aal1",
        "yes",
    )

    setup = await browser.api("POST", "mfa/setup/totp")
    assert setup.status == 201
    assert setup.json["uri"].startswith("otpauth://totp/")
    phone = Phone(_base32(setup.json["secret"]), clock)
    wrong = await browser.api("POST", f"mfa/setup/{setup.json['id']}/verify", {"code": "12"})
    assert (wrong.status, wrong.json["code"]) == (400, "ERR-MFA-INVALID")
    token = browser.cookies["sallyport"]
    right = await browser.api("POST", f"mfa/setup/{setup.json['id']}/verify", {"code": phone.code()})
    assert (right.status, len(right.json["backup_codes"])) == (200, 10)
    assert browser.cookies["sallyport"] != token

    methods = (await browser.api("GET", "mfa/methods")).json["methods"]
    (totp,) = [one for one in methods if one["kind"] == "totp"]
    assert totp["created_at"] == "2023-11-14T22:13:20Z"
    assert (await browser.api("GET", f"mfa/methods/{totp['id']}")).json == totp
    missing = await browser.api("GET", "mfa/methods/none")
    assert (missing.status, missing.json["code"]) == (404, "ERR-MFA-UNKNOWN")

    status = (await browser.api("GET", "mfa/status")).json
    assert (status["enrolled"], status["acr"], status["backup_codes_left"]) == (True, "aal2", 10)
    assert set(status["factors"]) == {"totp", "backup_code"}

    fresh = await browser.api("POST", "mfa/backup-codes/regenerate")
    assert not set(fresh.json["backup_codes"]) & set(right.json["backup_codes"])

    gone = await browser.api("DELETE", f"mfa/methods/{totp['id']}")
    assert (gone.status, gone.body) == (204, b"")
    assert "sallyport" not in browser.cookies


async def test_a_challenge_and_its_answer(house: House, browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in()
    phone, codes, _ = await enrol(browser)
    await browser.sign_in(query="?reauth=1&next=/")
    asked = await browser.api("POST", "mfa/challenge", {"acr_values": "aal2", "return_to": "//evil"})
    assert asked.status == 201
    assert set(asked.json["offered"]) == {"totp", "backup_code"}
    assert asked.json["verify_uri"] == f"{P}verify/{asked.json['challenge']}"
    answer = {"challenge": asked.json["challenge"], "factor": "totp"}
    wrong = await browser.api("POST", "mfa/verify", answer | {"code": "1"})
    assert (wrong.status, wrong.json["code"]) == (400, "ERR-MFA-INVALID")
    before = browser.cookies["sallyport"]
    right = await browser.api("POST", "mfa/verify", answer | {"code": phone.code()})
    assert (right.status, right.json["acr"], right.json["amr"]) == (200, "aal2", ["otp", "pwd", "mfa"])
    assert browser.cookies["sallyport"] != before
    assert (await house.identity(browser)).level is Level.AAL2
    again = await browser.api("POST", "mfa/verify", answer | {"code": codes[0], "factor": "backup_code"})
    assert (again.status, again.json["code"]) == (410, "ERR-MFA-CHALLENGE")


@pytest.mark.parametrize(
    ("body", "demand"),
    [
        ({}, StepUpDemand(Level.AAL2)),
        ({"acr_values": "aal1"}, StepUpDemand(Level.AAL1)),
        ({"acr_values": "aal3"}, StepUpDemand(Level.AAL3)),
        ({"max_age": 0}, StepUpDemand(Level.AAL2, max_age=0.0)),
        ({"max_age": 60, "factors": ["totp"]}, StepUpDemand(Level.AAL2, frozenset({"totp"}), 60.0)),
    ],
)
async def test_a_program_has_asked_what_it_was_told_to(
    house: House, browser: Browser, body: dict[str, Any], demand: StepUpDemand
) -> None:
    await browser.sign_in()
    asked = await browser.api("POST", "mfa/challenge", body)
    challenge = await house.desk.stepups.look(asked.json["challenge"], await house.identity(browser))
    assert replace(challenge.demand, trusted=0.0) == demand


async def test_changes_need_a_fresh_proof(browser: Browser, clock: ManualClock, enrol: Callable[..., Any]) -> None:
    """Case 112 and RFC 9470: who has no factor gives the password again, who has one gives that."""
    await browser.sign_in()
    clock.advance(301)
    refused = await browser.api("POST", "mfa/setup/totp")
    assert (refused.status, refused.json["code"]) == (401, "ERR-STEP-UP")
    assert (refused.json["acr_values"], refused.json["max_age"]) == ("aal1", 300)
    assert refused.json["challenge"] == f"{P}dialog?reauth=1"
    assert (await browser.get(refused.json["challenge"])).location.startswith(f"{P}login?reauth=1&next=")
    assert refused.headers["WWW-Authenticate"] == (
        'Bearer realm="sallyport", error="insufficient_user_authentication", '
        'error_description="A fresh or stronger proof is required", acr_values="aal1", max_age="300"'
    )
    await browser.sign_in(query="?reauth=1&next=/")
    phone, _, _ = await enrol(browser)
    clock.advance(301)
    for one in ENDPOINTS:
        if one.path == "mfa/recovery":
            continue  # for who has lost the factor: the password will do
        if one.fresh and (403, "ERR-FORBIDDEN") not in one.codes:
            refused = await browser.api(one.method, path_of(one.path), BODIES.get(one.path))
            assert (refused.status, refused.json.get("acr_values")) == (401, "aal2"), one.path
            assert 'acr_values="aal2", max_age="300"' in refused.headers["WWW-Authenticate"]
            assert refused.json["challenge"] == f"{P}dialog?acr_values=aal2&max_age=300"
    assert (await browser.get(refused.json["challenge"])).location.startswith(f"{P}verify/")
    asked = (await browser.api("POST", "mfa/challenge", {"max_age": 300})).json
    body = {"challenge": asked["challenge"], "factor": "totp", "code": phone.code()}
    assert (await browser.api("POST", "mfa/verify", body)).status == 200
    assert (await browser.api("POST", "mfa/setup/totp")).status == 201


async def test_administrators_cannot_turn_it_off(browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in("ann")
    await enrol(browser)
    refused = await browser.api("POST", "mfa/disable")
    assert (refused.status, refused.json["code"]) == (403, "ERR-MFA-REQUIRED")
    (totp,) = [one for one in (await browser.api("GET", "mfa/methods")).json["methods"] if one["kind"] == "totp"]
    refused = await browser.api("DELETE", f"mfa/methods/{totp['id']}")
    assert (refused.status, refused.json["code"]) == (403, "ERR-MFA-REQUIRED")
    assert (await browser.api("GET", "mfa/status")).json["enrolled"] is True


async def test_others_can_turn_it_off(browser: Browser, enrol: Callable[..., Any]) -> None:
    await browser.sign_in("bob")
    await enrol(browser)
    assert (await browser.api("POST", "mfa/disable")).status == 204
    await browser.sign_in("bob")
    assert (await browser.api("GET", "mfa/status")).json["enrolled"] is False


async def test_sessions_are_listed_extended_and_ended(
    browser: Browser, visit: Callable[..., Browser], clock: ManualClock
) -> None:
    await browser.sign_in()
    phone = visit(agent="curl/8", address="198.51.100.4")
    await phone.sign_in()
    sessions = (await browser.api("GET", "sessions")).json["sessions"]
    here = next(one for one in sessions if one["current"])
    there = next(one for one in sessions if not one["current"])
    assert (here["agent"], there["agent"], there["address"]) == (FIREFOX, "curl/8", "198.51.100.4")
    assert (here["acr"], here["amr"]) == ("aal1", ["pwd"])

    clock.advance(250)
    extended = await browser.api("POST", "sessions/current/extend")
    assert extended.json["last_seen_at"] > here["last_seen_at"]
    assert extended.json["expires_at"] == here["expires_at"]
    assert (await browser.api("POST", f"sessions/{here['id']}/extend")).status == 200
    assert (await browser.api("POST", f"sessions/{there['id']}/extend")).status == 404

    assert (await browser.api("DELETE", f"sessions/{there['id']}")).status == 204
    assert (await browser.api("DELETE", f"sessions/{there['id']}")).json["code"] == "ERR-SESSION"
    assert (await phone.get("whoami")).json["authenticated"] is False


async def test_all_sessions_can_be_ended(browser: Browser, visit: Callable[..., Browser]) -> None:
    await browser.sign_in()
    for _ in range(2):
        await visit().sign_in()
    assert (await browser.api("POST", "sessions/invalidate-all")).json == {"ended": 2}
    assert (await browser.api("GET", "sessions")).json["sessions"][0]["current"] is True
    assert (await browser.api("POST", "sessions/invalidate-all", {"keep_current": False})).json == {"ended": 1}
    assert "sallyport" not in browser.cookies


async def test_numbers_are_for_administrators_with_a_second_factor(
    browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any]
) -> None:
    """Case 122."""
    await browser.sign_in("bob")
    refused = await browser.api("GET", "sessions/stats")
    assert (refused.status, refused.json["code"]) == (403, "ERR-FORBIDDEN")
    ann = visit()
    await ann.sign_in("ann")
    assert (await ann.api("GET", "sessions/stats")).json["code"] == "ERR-MFA-ENROL"
    await enrol(ann)
    unproven = visit()
    await unproven.sign_in("ann")
    assert (await unproven.api("GET", "sessions/stats")).json["acr_values"] == "aal2"
    assert (await ann.api("GET", "sessions/stats")).json["sessions"]["sessions"] == 3


async def test_nobody_touches_somebody_elses(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any]
) -> None:
    await browser.sign_in("bob")
    ann = visit()
    await ann.sign_in("ann")
    await enrol(ann)
    theirs = (await house.identity(ann)).session
    assert theirs is not None
    (totp,) = [one for one in (await ann.api("GET", "mfa/methods")).json["methods"] if one["kind"] == "totp"]
    assert (await browser.api("DELETE", f"sessions/{theirs.id}")).status == 404
    assert (await browser.api("GET", f"mfa/methods/{totp['id']}")).status == 404
    assert (await browser.api("DELETE", f"mfa/methods/{totp['id']}")).status == 404
    assert (await ann.api("GET", "mfa/status")).json["enrolled"] is True


async def test_whoami_is_the_caller_as_the_gate_sees_it(browser: Browser) -> None:
    nobody = await browser.get("whoami")
    assert nobody.json == {"authenticated": False, "address": "192.0.2.7", "network": "192.0.2.7", "agent": FIREFOX}
    await browser.sign_in()
    somebody = (await browser.get("whoami")).json
    assert (somebody["user"], somebody["groups"], somebody["acr"], somebody["amr"]) == (
        "bob",
        ["staff"],
        "aal1",
        ["pwd"],
    )
    assert browser.cookies["sallyport"] not in str(somebody)


async def test_keys_are_public_for_a_while(house: House, browser: Browser) -> None:
    answer = await browser.get("jwks.json")
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert "Vary" not in answer.headers
    assert answer.json == house.desk.jwks()
    assert all(set(key) & {"d", "p", "q", "k"} == set() for key in answer.json["keys"])


async def test_the_document_says_what_the_routes_do(browser: Browser) -> None:
    document = (await browser.get("api/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    said = {(method.upper(), path.lstrip("/")) for path, item in document["paths"].items() for method in item}
    assert said == {(one.method, one.path) for one in ENDPOINTS}
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert len({operation["operationId"] for operation in operations}) == len(ENDPOINTS)
    schemas = document["components"]["schemas"]
    for reference in re.findall(r"#/components/schemas/(\w+)", str(document)):
        assert reference in schemas
    for operation in operations:
        assert {"401", "403", "429"} <= set(operation["responses"])


async def test_the_page_of_it_names_every_endpoint(browser: Browser) -> None:
    page = await browser.get("api/docs")
    assert page.status == 200
    for one in ENDPOINTS:
        assert f"{P}api/v1/{one.path}" in page.text


def _base32(secret: str) -> bytes:
    import base64

    raw = base64.b32decode(secret + "=" * (-len(secret) % 8))
    assert otp.base32(raw) == secret
    return raw


# --- administrators ---------------------------------------------------------------------------------------------------


async def test_sessions_of_others_are_for_administrators_with_two_factors(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any], clock: ManualClock
) -> None:
    """Case 122: each of the three, refused to everybody else in the same words, whoever it is about."""
    await browser.sign_in("bob")
    ann = visit()
    await ann.sign_in("ann")
    phone, _, _ = await enrol(ann)
    await ann.sign_in("ann", query="?reauth=1")
    for method, path in (
        ("GET", "users/{}/sessions"),
        ("DELETE", "users/{}/sessions/x"),
        ("POST", "users/{}/sessions/invalidate-all"),
    ):
        said = []
        for user in ("ann", "bob", "nobody"):
            refused = await browser.api(method, path.format(user), {} if method == "POST" else None)
            said.append((refused.status, refused.json["code"], refused.json["detail"]))
            clock.advance(1)
        assert set(said) == {(403, "ERR-FORBIDDEN", "This is for administrators.")}
        unproven = await ann.api(method, path.format("bob"), {} if method == "POST" else None)
        assert (unproven.status, unproven.json["code"], unproven.json["acr_values"]) == (401, "ERR-STEP-UP", "aal2")
    assert (await browser.get("whoami")).json["authenticated"] is True

    asked = (await ann.api("POST", "mfa/challenge", {})).json["challenge"]
    answer = {"challenge": asked, "factor": "totp", "code": phone.code()}
    assert (await ann.api("POST", "mfa/verify", answer)).status == 200
    listed = (await ann.api("GET", "users/Bob/sessions")).json["sessions"]
    bobs = (await house.identity(browser)).session
    assert bobs is not None
    assert [(one["id"], one["current"]) for one in listed] == [(bobs.id, False)]
    for method, path in (("GET", "users/nobody/sessions"), ("POST", "users/nobody/sessions/invalidate-all")):
        unknown = await ann.api(method, path, {} if method == "POST" else None)
        assert (unknown.status, unknown.json["code"]) == (404, "ERR-USER-UNKNOWN")
    assert (await ann.api("DELETE", "users/bob/sessions/none")).json["code"] == "ERR-SESSION"
    mine = (await house.identity(ann)).session
    assert mine is not None
    assert (await ann.api("DELETE", f"users/bob/sessions/{mine.id}")).status == 404


async def test_an_administrator_ends_sessions_and_is_named(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any]
) -> None:
    others = [browser, visit(), visit()]
    for other in others:
        await other.sign_in("bob")
    ann = visit()
    await ann.sign_in("ann")
    await enrol(ann)
    first = (await house.identity(others[0])).session
    assert first is not None
    assert (await ann.api("DELETE", f"users/bob/sessions/{first.id}")).status == 204
    assert [(await other.get("whoami")).json["authenticated"] for other in others] == [False, True, True]
    ended = await ann.api("POST", "users/bob/sessions/invalidate-all", {})
    assert (ended.status, ended.json) == (200, {"ended": 2})
    assert [(await other.get("whoami")).json["authenticated"] for other in others] == [False, False, False]
    one, every = await house.told(Kind.SESSION_ENDED), await house.told(Kind.SESSIONS_ENDED)
    assert [(event.user, event.session, event.detail) for event in one] == [
        ("bob", first.id, {"why": "ended", "by": "ann"})
    ]
    assert [(event.user, event.detail) for event in every if event.user == "bob"] == [
        ("bob", {"count": 2, "by": "ann"})
    ]


async def test_an_administrator_proves_it_again_before_ending_what_is_somebody_elses(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Callable[..., Any], clock: ManualClock
) -> None:
    await browser.sign_in("bob")
    ann = visit()
    await ann.sign_in("ann")
    phone, _, _ = await enrol(ann)
    clock.advance(301)
    assert (await ann.api("GET", "users/bob/sessions")).status == 200
    bobs = (await house.identity(browser)).session
    assert bobs is not None
    for method, path in (
        ("DELETE", f"users/bob/sessions/{bobs.id}"),
        ("POST", "users/bob/sessions/invalidate-all"),
    ):
        stale = await ann.api(method, path, {} if method == "POST" else None)
        assert (stale.status, stale.json["code"], stale.json["max_age"]) == (401, "ERR-STEP-UP", 300)
    assert (await browser.get("whoami")).json["authenticated"] is True
    asked = (await ann.api("POST", "mfa/challenge", {"max_age": 60})).json
    answer = {"challenge": asked["challenge"], "factor": "totp", "code": phone.code()}
    assert (await ann.api("POST", "mfa/verify", answer)).status == 200
    assert (await ann.api("DELETE", f"users/bob/sessions/{bobs.id}")).status == 204
