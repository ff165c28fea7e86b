"""A gateway whose Redis goes away and comes back: what it says of itself, and that it goes on judging."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.store.redis_key_value import RedisKeyValue
from tests.rig.gateway import Gateway, request, running
from tests.rig.redis import Server, a_server, needs_redis, until

pytestmark = needs_redis


@pytest.fixture
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


@pytest.fixture
async def gateway(tmp_path: Path, server: Server) -> AsyncIterator[Gateway]:
    store = {"records": f"sqlite:{tmp_path / 'data' / 'rig.db'}", "shared": {"url": server.url, "prefix": "house:"}}
    async with running(tmp_path, config={"store": store}) as gateway:
        yield gateway


async def admin(gateway: Gateway, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.admin_port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def test_it_says_so_and_stays_ready(gateway: Gateway, server: Server) -> None:
    status, body = await admin(gateway, "/readyz")
    assert (status, json.loads(body)["shared"]) == (200, "up")
    server.pause()
    redis = gateway.app.redis
    assert redis is not None
    await until(lambda: not redis.line.up)
    status, body = await admin(gateway, "/readyz")
    assert status == 200
    assert json.loads(body)["ready"] is True
    assert json.loads(body)["shared"].startswith("away: ")
    assert 'sallyport_store_up{store="shared"} 0.0' in (await admin(gateway, "/metrics"))[1]
    assert (await gateway.ask(request())).status == 200
    server.go_on()
    await until(lambda: redis.line.up)
    assert json.loads((await admin(gateway, "/readyz"))[1])["shared"] == "up"
    assert 'sallyport_store_up{store="shared"} 1.0' in (await admin(gateway, "/metrics"))[1]


async def test_tries_to_sign_in_are_counted_there_and_everything_has_an_end(gateway: Gateway, server: Server) -> None:
    assert gateway.app.redis is not None
    throttle = gateway.app.people._desk.throttle  # type: ignore[union-attr]
    assert isinstance(throttle._kv, RedisKeyValue)
    waits = await asyncio.gather(*(throttle.admit("ann", f"network {number}", False) for number in range(60)))
    assert waits.count(0.0) == 6
    keys = server.ask("KEYS", "*").splitlines()
    assert len(keys) > 6
    assert all(key.startswith("house:") for key in keys)
    assert all(int(server.ask("PTTL", key)) > 0 for key in keys if key != "house:replicas")
