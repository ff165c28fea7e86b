"""Who attacks: a stranger on a public route, and somebody who is signed in on a route for the signed-in."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
import uvloop

from tests.attacks.caller import Caller
from tests.rig.gateway import Gateway


@pytest.fixture(scope="session")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop the gateway runs on in earnest."""
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


@pytest_asyncio.fixture(loop_scope="module", params=["anonymous", "signed-in"])
async def caller(request: pytest.FixtureRequest, gateway: Gateway) -> Caller:
    """Each test runs twice, without and with a valid session."""
    if request.param == "anonymous":
        return Caller(gateway, b"/public/x")
    return Caller(gateway, b"/app/x", "bob", await gateway.cookie("bob"))
