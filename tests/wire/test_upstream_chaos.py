"""Whatever clients and services do, every request has one end, and no connection or place in a line is lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from tests.rig.gateway import request
from tests.rig.messages import Request, Violation
from tests.rig.upstream import Line, echo, ok
from tests.wire.services_at import GET, Several, settled, several, until

MANY = 400


def whims(chance: random.Random) -> Any:
    """A service that does what it likes."""

    async def script(received: Request, line: Line) -> None:
        match chance.randrange(10):
            case 0:
                line.close()
            case 1:
                line.abort()
            case 2:
                await line.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            case 3:
                await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                line.close()
            case 4:
                await line.send(ok(b"bye", b"Connection: close"))
            case 5:
                await asyncio.sleep(chance.random() / 100)
                await line.send(ok())
            case 6:
                await line.send(ok() + b"and more")
            case _:
                await echo(received, line)

    return script


async def somebody(service: Several, chance: random.Random, number: int) -> int:
    """Ask, and sometimes leave before the answer; the status, or 0."""
    method = chance.choice([b"GET", b"GET", b"POST", b"HEAD", b"DELETE"])
    body = b"x" * chance.choice([0, 5]) if method == b"POST" else b""
    raw = request(method, b"/public/%d" % number, b"Content-Length: %d\r\n" % len(body) if body else b"", body)
    async with await service.gateway.connect() as client:
        await client.send(raw)
        if chance.random() < 0.2:
            await asyncio.sleep(chance.random() / 50)
            client.abort()
            return 0
        try:
            return (await client.response(method.decode())).status
        except Violation:
            return 0


@pytest.mark.parametrize("balance", ["round_robin", "least_outstanding", "consistent_hash"])
async def test_nothing_is_lost(tmp_path: Path, balance: str) -> None:
    chance = random.Random(7)
    said = {
        "balance": balance,
        "connections": 4,
        "queue": {"length": 40, "wait": "20s"},
        "retries": {"on": ["connect", "reset", "503"], "budget": "100%"},
        "ejection": {"failures": 3, "for": "1s", "return_over": "2s"},
        "health": {"interval": "1s", "timeout": "200ms"},
        **({"hash": "cookie:none"} if balance == "consistent_hash" else {}),
    }
    async with several(tmp_path, 3, **said) as service:
        for place in service.places:
            place.script = whims(chance)
        upstream = service.upstream
        most = 0
        answers: list[int] = []
        asking: set[asyncio.Task[int]] = set()
        for number in range(MANY):
            asking.add(asyncio.create_task(somebody(service, chance, number)))
            if len(asking) >= 24:
                done, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                answers += [task.result() for task in done]
            if number % 25 == 0:
                service.gateway.pass_time(0.5)
            most = max(most, sum(one.usable for endpoint in service.endpoints for one in endpoint.open))
        answers += await asyncio.gather(*asking)
        assert len(answers) == MANY
        assert set(answers) <= {0, 200, 502, 503}
        assert answers.count(200) > MANY / 4
        assert most == 4
        await settled(service.gateway)
        await until(lambda: not service.gateway.app.wire.clients)
        assert not upstream.waiting
        assert upstream._connecting == 0
        await until(lambda: all(endpoint.outstanding == 0 for endpoint in service.endpoints))
        await until(lambda: all(one.usable for endpoint in service.endpoints for one in endpoint.unused))
        for place in service.places:
            place.script = echo
        await service.pass_time(15)
        assert await service.ask(8, GET) == [200] * 8
        for place in service.places:
            place.violations.clear()  # half a request, of a client that left
