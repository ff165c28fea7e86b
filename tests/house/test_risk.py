"""A strange request is asked for proof, and the proof is an answer: nobody is asked for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from gateway.policy.decide import RISK_MAX_AGE
from tests.house.visitor import Phone, Visitor, location
from tests.rig.gateway import PASSWORD, Gateway, running

POLICY = """
rules:
  - name: everything
    access: authenticated
    risk: {step_up_at: 0.2, refuse_at: 0.9}
    upstream: app
"""


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    config = {"trusted_proxies": ["127.0.0.1/32"]}
    async with running(tmp_path, policy=POLICY, config=config) as one:
        await one.app.users.add("bob", PASSWORD)
        yield one


async def test_who_has_proven_it_goes_on_while_strangers_guess(gateway: Gateway) -> None:
    """Failed tries at an account make it look strange, and no proof of its owner makes them undone."""
    bob = Visitor(gateway.port)
    bob.more["X-Forwarded-For"] = "192.0.2.1"
    await bob.sign_in()
    phone, _ = await bob.enrol(gateway.clock)
    gateway.clock.advance(RISK_MAX_AGE + 60)
    assert (await bob.get("/x")).status == 200

    async def guesses() -> None:
        for number in range(5):
            stranger = Visitor(gateway.port)
            stranger.more["X-Forwarded-For"] = f"198.51.100.{number + 1}"
            await stranger.sign_in("bob", "entirely the wrong password")

    await guesses()
    asked = await bob.get("/x")
    assert location(asked).startswith("/.sallyport/verify/")
    told = await bob.get("/x", Accept="application/json")
    assert told.status == 401
    assert b'acr_values="aal2"' in told.one("WWW-Authenticate")
    assert b'max_age="600"' in told.one("WWW-Authenticate"), "a program is told what will do"

    page = await bob.get(location(asked))
    assert location(await bob.fill(page, "verify/", code=phone.code)) == "/x"
    assert (await bob.get("/x")).status == 200
    gateway.clock.advance(RISK_MAX_AGE - 1)
    await guesses()
    assert (await bob.get("/x")).status == 200
    gateway.clock.advance(2)
    assert (await bob.get("/x")).status == 303, "one proof does not excuse a session's whole life"


STRANGE = """
rules:
  - name: everything
    access: authenticated
    risk: {step_up_at: 0.5, refuse_at: 0.9}
    upstream: app
"""
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
)


async def _at_home(gateway: Gateway) -> tuple[Visitor, Visitor, Phone]:
    """Bob, who has just given his second factor at home; and whoever has stolen his cookies; and his phone."""
    bob = Visitor(gateway.port)
    bob.more["X-Forwarded-For"] = "192.0.2.1"
    await bob.sign_in()
    phone, _ = await bob.enrol(gateway.clock)
    thief = Visitor(gateway.port, agent=CHROME)
    thief.more["X-Forwarded-For"] = "203.0.113.9"
    thief.cookies = dict(bob.cookies)
    return bob, thief, phone


async def test_case_87_a_proof_given_at_home_does_not_answer_for_a_stolen_session(tmp_path: Path) -> None:
    config = {"trusted_proxies": ["127.0.0.1/32"]}
    async with running(tmp_path, policy=STRANGE, config=config) as gateway:
        await gateway.app.users.add("bob", PASSWORD)
        bob, thief, phone = await _at_home(gateway)
        assert (await bob.get("/x")).status == 200
        assert location(await thief.get("/x")).startswith("/.sallyport/verify/")
        assert (await thief.get("/x", Accept="application/json")).status == 401
        assert gateway.upstream.requests[1:] == []
        assert (await bob.get("/x")).status == 200, "its owner is not disturbed"

        # Bob himself, on the way: one proof there, and he goes on.
        gateway.clock.advance(60)
        page = await thief.get(location(await thief.get("/x")))
        assert location(await thief.fill(page, "verify/", code=phone.code)) == "/x"
        assert (await thief.get("/x")).status == 200


async def test_a_stolen_session_binds_and_removes_no_factor(tmp_path: Path) -> None:
    """Not even within the minutes in which its owner, at home, could."""
    config = {"trusted_proxies": ["127.0.0.1/32"]}
    async with running(tmp_path, policy=STRANGE, config=config) as gateway:
        await gateway.app.users.add("bob", PASSWORD)
        bob, thief, phone = await _at_home(gateway)
        for path in ("mfa/setup/totp", "mfa/disable", "mfa/backup-codes/regenerate", "sessions/invalidate-all"):
            asked = await thief.send(
                "POST", f"/.sallyport/api/v1/{path}", b"{}", Content_Type="application/json", Accept="application/json"
            )
            assert (asked.status, b"ERR-STEP-UP" in asked.body) == (401, True), path
        asked = await thief.get("enrol")
        assert location(asked).startswith("/.sallyport/verify/")
        assert (await bob.get("enrol")).status == 200

        gateway.clock.advance(60)
        page = await thief.get(location(asked))
        assert location(await thief.fill(page, "verify/", code=phone.code)) == "/.sallyport/enrol"
        assert (await thief.get("enrol")).status == 200, "who has proven it here is not asked for ever"
