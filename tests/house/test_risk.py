"""A strange request is asked for proof, and the proof is an answer: nobody is asked for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from gateway.policy.decide import RISK_MAX_AGE
from tests.house.visitor import Visitor, location
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
