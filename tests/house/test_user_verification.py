"""A rule that wants a key that knew its user: the real gateway, from the first refusal to the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest_asyncio

from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from tests.house.visitor import OURS, Visitor, as_json, location
from tests.rig.authenticator import UP, Authenticator
from tests.rig.gateway import Gateway, running
from tests.rig.messages import Response

ORIGIN = "http://localhost"
POLICY = """
rules:
  - name: vault
    match: {paths: [/vault/**]}
    access: authenticated
    step_up: {level: aal2, user_verification: required, max_age: 10m}
    upstream: app
  - {name: rest, access: authenticated, step_up: {level: aal2}, upstream: app}
examples:
  - {request: GET /vault/1, as: {user: bob, factors: [webauthn]}, expect: step_up}
  - {request: GET /vault/1, as: {user: bob, verified: true}, expect: allow}
"""
ASKED = f"{OURS}dialog?acr_values=aal2&max_age=600&factors=webauthn&user_verification=required"
SCRIPT = {"Sec_Fetch_Mode": "cors", "Accept": "application/json"}


@pytest_asyncio.fixture
async def mine(tmp_path: Path) -> AsyncIterator[Gateway]:
    config = {"public_url": ORIGIN, "mfa": {"webauthn": {"user_verification": "discouraged"}}}
    async with running(tmp_path, policy=POLICY, config=config) as gateway:
        await gateway.sign_in("bob")
        yield gateway


async def api(who: Visitor, path: str, body: object) -> Response:
    said = {"Content_Type": "application/json", "Accept": "application/json"}
    return await who.send("POST", f"{OURS}api/v1/mfa/{path}", orjson.dumps(body), **said)


async def ask(who: Visitor, ticket: str) -> dict[str, Any]:
    begun = await api(who, "webauthn/authenticate/begin", {"challenge": ticket})
    assert begun.status == 201, begun.body
    question: dict[str, Any] = as_json(begun)["public_key"]
    return question


async def answer(who: Visitor, ticket: str, key: Authenticator, flags: int) -> Response:
    given = key.answer(await ask(who, ticket), origin=ORIGIN, flags=flags)
    return await api(who, "webauthn/authenticate/complete", {"challenge": ticket, "credential": given})


async def test_a_touch_is_enough_elsewhere_and_here_it_takes_who_it_is(mine: Gateway) -> None:
    bob = Visitor(mine.port, origin=ORIGIN)
    await bob.sign_in("bob")
    key = Authenticator(flags=UP)
    begun = await api(bob, "webauthn/register/begin", {})
    registered = key.register(as_json(begun)["public_key"], origin=ORIGIN)
    codes = as_json(await api(bob, "webauthn/register/complete", {"credential": registered}))["backup_codes"]

    assert (await bob.get("/x")).status == 200  # the key was set up just now: a second factor
    led = location(await bob.get("/vault/1"))
    ticket = led.removeprefix(f"{OURS}verify/")
    page = (await bob.get(led)).body
    assert b"Use my key" in page
    assert b"backup code" not in page  # there are ten, and none of them answers this
    refused = await api(bob, "verify", {"challenge": ticket, "factor": "backup_code", "code": codes[0]})
    assert (refused.status, as_json(refused)["code"]) == (400, "ERR-MFA-METHOD")
    assert (await ask(bob, ticket))["userVerification"] == "required"
    refused = await answer(bob, ticket, key, UP)
    assert (refused.status, as_json(refused)["code"]) == (400, "ERR-MFA-INVALID")
    assert location(await bob.get("/vault/1")).startswith(f"{OURS}verify/")

    # a touch is a second factor all the same, where one is asked for and no more, but not for the vault
    plain = as_json(await api(bob, "challenge", {"acr_values": "aal2"}))["challenge"]
    assert (await ask(bob, plain))["userVerification"] == "discouraged"
    assert (await answer(bob, plain, key, UP)).status == 200
    script = await bob.get("/vault/1", **SCRIPT)
    told = as_json(script)
    assert (script.status, told["code"], told["reasons"]) == (401, "ERR-FACTOR-NOT-ACCEPTED", ["factor_not_accepted"])
    assert (told["acr_values"], told["max_age"], told["user_verification"]) == ("aal2", 600, "required")
    assert told["challenge"] == ASKED

    # as the script of a single-page application leads there, and its person has a PIN
    ticket = location(await bob.get(told["challenge"])).removeprefix(f"{OURS}verify/")
    assert (await ask(bob, ticket))["userVerification"] == "required"
    assert (await answer(bob, ticket, key, UP)).status == 400
    assert (await answer(bob, ticket, key, UP | 4)).status == 200
    assert (await bob.get("/vault/1")).status == 200
    mine.pass_time(601)
    assert as_json(await bob.get("/vault/1", **SCRIPT))["code"] == "ERR-PROOF-TOO-OLD"
    await mine.app.recorder.flush()
    events = await mine.app.recorder.events(DEFAULT_TENANT, kind=Kind.STEP_UP_FAILED)
    assert [event.detail.get("why") for event in events].count("user_verification") == 2


async def test_nobody_signed_in_is_led_there_too(mine: Gateway) -> None:
    bob = Visitor(mine.port, origin=ORIGIN)
    told = as_json(await bob.get("/vault/1", **SCRIPT))
    assert (told["code"], told["challenge"], told["user_verification"]) == ("ERR-NO-SESSION", ASKED, "required")
    await bob.sign_in("bob")
    led = location(await bob.get(told["challenge"]))
    page = (await bob.get(led)).body  # no key yet: to where one is set up, and to nothing that would not count
    assert b"/enrol-key?next=" in page
    assert b"/enrol?next=" not in page
