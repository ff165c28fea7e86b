"""A rule may want a younger session than others do: whoever's is older signs in once more, and goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.house.visitor import Visitor, as_json, location
from tests.rig.gateway import PASSWORD, Gateway, running

POLICY = """
rules:
  - name: keys
    match: {paths: [/keys/**]}
    access: authenticated
    session: {absolute: 30m}
    upstream: app
  - name: desk
    match: {paths: [/desk/**]}
    access: authenticated
    session: {idle: 10m}
    upstream: app
  - name: everything-else
    access: authenticated
    upstream: app
"""
AGAIN = "/.sallyport/login?reauth=1&next=%2Fkeys"


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path, policy=POLICY) as one:
        await one.app.users.add("bob", PASSWORD)
        yield one


async def _half_an_hour_later(gateway: Gateway) -> Visitor:
    bob = Visitor(gateway.port)
    await bob.sign_in()
    assert (await bob.get("/keys")).status == 200
    gateway.clock.advance(1801)
    return bob


async def test_who_signed_in_too_long_ago_signs_in_once_more(gateway: Gateway) -> None:
    bob = await _half_an_hour_later(gateway)
    assert (await bob.get("/reports")).status == 200, "elsewhere the session is as good as before"
    asked = await bob.get("/keys")
    assert location(asked) == AGAIN
    page = await bob.get(AGAIN)
    assert page.status == 200, "whoever is signed in is not sent back at once, which would go on for ever"
    assert location(await bob.fill(page, "login", username="bob", password=PASSWORD)) == "/keys"
    assert (await bob.get("/keys")).status == 200


async def test_a_program_is_told_what_will_do(gateway: Gateway) -> None:
    bob = await _half_an_hour_later(gateway)
    told = await bob.get("/keys", Accept="application/json")
    assert told.status == 401
    assert (as_json(told)["code"], as_json(told)["reasons"]) == ("ERR-SESSION-TOO-OLD", ["session_too_old"])
    assert b'error="insufficient_user_authentication"' in told.one("WWW-Authenticate")


async def test_a_form_that_was_being_sent_goes_on_afterwards(gateway: Gateway) -> None:
    bob = await _half_an_hour_later(gateway)
    asked = location(await bob.post("/keys", {"name": "laptop"}))
    assert asked.startswith(AGAIN + "&resume=")
    offered = location(await bob.fill(await bob.get(asked), "login", username="bob", password=PASSWORD))
    assert location(await bob.fill(await bob.get(offered), "resume/")) == "/keys"
    gateway.upstream.clear()
    assert (await bob.get("/keys")).status == 200
    (sent,) = gateway.upstream.requests
    assert (sent.method, sent.body) == (b"POST", b"name=laptop")


async def test_a_session_that_was_left_alone_too_long_is_opened_anew(gateway: Gateway) -> None:
    bob = Visitor(gateway.port)
    await bob.sign_in()
    for _ in range(3):
        gateway.clock.advance(500)
        assert (await bob.get("/desk")).status == 200, "who goes on is not left alone"
    gateway.clock.advance(601)
    assert (await bob.get("/reports")).status == 200
    for _ in range(2):
        asked = location(await bob.get("/desk"))
        assert asked == "/.sallyport/login?reauth=1&next=%2Fdesk", "what was asked elsewhere does not make up for it"
    assert location(await bob.fill(await bob.get(asked), "login", username="bob", password=PASSWORD)) == "/desk"
    assert (await bob.get("/desk")).status == 200
