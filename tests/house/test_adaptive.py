"""Limits that shrink with who asks and how the service is, counted in this process and in a Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.core.decision import Score
from gateway.identity.device import DeviceCookie
from tests.rig.gateway import Gateway, request, running
from tests.rig.redis import a_server, needs_redis

POLICY = """
rules:
  - name: known-browsers
    match: {paths: [/device/**]}
    access: authenticated
    limits: [{name: device, key: user, rate: 8/h, adapt: {unknown_device: 50%}}]
    upstream: app
  - name: strangers
    match: {paths: [/risk/**]}
    access: authenticated
    limits: [{name: risk, key: user, rate: 10/h, adapt: {risk: 0.2, least: 20%}}]
    upstream: app
  - name: slow
    match: {paths: [/slow/**]}
    access: public
    limits: [{name: slow, key: address, rate: 8/h, adapt: {latency: 100ms, least: 25%}}]
    upstream: app
"""


@pytest_asyncio.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
async def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Gateway]:
    store = {"records": f"sqlite:{tmp_path}/rig.db"}
    if request.param == "memory":
        async with running(tmp_path, policy=POLICY) as one:
            yield one
        return
    with a_server() as server:
        async with running(tmp_path, policy=POLICY, config={"store": {**store, "shared": server.url}}) as one:
            yield one


async def through(gateway: Gateway, target: bytes, cookie: bytes = b"", tries: int = 12) -> int:
    """How many of `tries` are let through."""
    statuses = [(await gateway.ask(request(target=target, cookie=cookie))).status for _ in range(tries)]
    assert set(statuses) <= {200, 429}
    return statuses.count(200)


async def test_an_unknown_browser_gets_its_share(gateway: Gateway) -> None:
    stranger = await gateway.sign_in("bob")
    assert await through(gateway, b"/device/x", stranger) == 4
    value = DeviceCookie(gateway.app.keys.mac, gateway.clock).make("ann")
    known = await gateway.sign_in("ann") + b"; sallyport-device=" + value.encode()
    assert await through(gateway, b"/device/x", known) == 8


async def test_the_stranger_a_request_the_smaller_the_limit(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gateway.app.people is not None
    risk = gateway.app.people.risk

    def weighed(value: float) -> None:
        def remembered(*_: Any) -> Score:
            return Score(value)

        monkeypatch.setattr(risk, "remembered", remembered)

    weighed(0.6)  # half way from 0.2 to 1.0: 60 % are left
    cookie = await gateway.sign_in("bob")
    assert await through(gateway, b"/risk/x", cookie) == 6
    weighed(1.0)
    assert await through(gateway, b"/risk/x", await gateway.sign_in("ann")) == 2


async def test_a_slow_service_is_asked_less_often(gateway: Gateway) -> None:
    service = gateway.app.wire.upstreams["app"]
    assert await through(gateway, b"/slow/x", tries=3) == 3
    for _ in range(100):
        service.took(0.2)  # twice as slow as it should be
    assert 0.19 < service.latency <= 0.2
    # Each that is let through is answered at once by the service of this test, and so counts it a little faster.
    assert 1 <= await through(gateway, b"/slow/x") < 5


async def test_what_a_service_takes_is_what_it_took_of_late(gateway: Gateway) -> None:
    service = gateway.app.wire.upstreams["app"]
    gateway.clock.advance(60)
    service.took(2.0)
    assert service.latency == 2.0
    service.took(0.0)
    assert service.latency == pytest.approx(1.9)
    gateway.clock.advance(60)
    service.took(0.5)
    assert service.latency == 0.5
