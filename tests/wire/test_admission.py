"""A full house stays a house: who is inside is served, who is idle makes room, who is too much is told so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from gateway.wire import door
from tests.rig.client import RawClient
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Request, Response
from tests.rig.upstream import Line, ok
from tests.wire.services_at import until

GET = request(b"GET", b"/public/x")
MOST = 20
"""Clients of the gateways here; a tenth of them, two, may be turned away in a second."""


@pytest_asyncio.fixture
async def small(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path, config={"connections": {"clients": MOST, "in_flight": 16}}) as gateway:
        yield gateway


@pytest_asyncio.fixture
async def doors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to the doors."""
    done: list[str] = []
    shut, open_again = door.shut, door.open_again
    monkeypatch.setattr(door, "shut", lambda listeners: (done.append("shut"), shut(listeners)))
    monkeypatch.setattr(door, "open_again", lambda listeners: (done.append("open"), open_again(listeners)))
    return done


async def fill(gateway: Gateway, stack: AsyncExitStack, count: int = MOST, *, begin: bytes = GET) -> list[RawClient]:
    clients = [await stack.enter_async_context(await gateway.connect()) for _ in range(count)]
    for client in clients:
        await client.send(begin)
        if begin == GET:
            assert (await client.response()).status == 200
    return clients


def is_overloaded(answer: Response) -> bool:
    return (answer.status, answer.one("Retry-After"), answer.one("Connection")) == (503, b"1", b"close")


async def test_the_longest_idle_make_room(small: Gateway) -> None:
    async with AsyncExitStack() as stack:
        await fill(small, stack, 4)
        small.pass_time(5)
        young = await fill(small, stack, MOST - 4)
        small.pass_time(3)
        (late,) = await fill(small, stack, 1)
        for client in (*young, late):
            await client.send(GET)
            assert (await client.response()).status == 200
        assert len(small.app.wire.clients) == MOST - 2 + 1, "two of the old ones went: a tenth"


async def test_without_room_the_next_is_told_and_then_the_doors_are_shut(small: Gateway, doors: list[str]) -> None:
    release = asyncio.Event()

    async def slowly(_: Request, line: Line) -> None:
        await release.wait()
        await line.send(ok(b"x"))

    small.upstream.script = slowly
    async with AsyncExitStack() as stack:
        inside = [await stack.enter_async_context(await small.connect()) for _ in range(MOST)]
        for client in inside:
            await client.send(GET)
        await small.upstream.came(MOST)
        small.pass_time(2)
        for _ in range(2):
            async with await small.connect() as late:
                await late.send(GET)
                assert is_overloaded(await late.response())
                assert await late.is_closed()
                assert not late.reset
        assert doors == ["shut"]
        assert small.app.wire.admission.turned_away == 2
        small.pass_time(1)
        assert doors == ["shut", "open"]
        release.set()
        for client in inside:
            assert (await client.response()).status == 200
    await until(lambda: not small.app.wire.clients)
    assert (await small.ask(GET)).status == 200
    assert len(small.upstream.requests) == MOST + 1, "nothing of those turned away"


async def test_half_a_head_makes_room_as_well(small: Gateway) -> None:
    """Else a handful of dribblers would keep everybody out."""
    async with AsyncExitStack() as stack:
        for client in await fill(small, stack, begin=GET[:10]):
            await small.heard(client)
        small.pass_time(2)
        async with await small.connect() as late:
            await late.send(GET)
            assert (await late.response()).status == 200


async def test_one_address_is_not_everybody(tmp_path: Path) -> None:
    async with running(tmp_path, config={"connections": {"per_address": 3}}) as gateway, AsyncExitStack() as stack:
        inside = await fill(gateway, stack, 3)
        async with await gateway.connect() as late:
            await late.send(GET)
            assert is_overloaded(await late.response())
        inside[0].close()
        for client in inside[1:]:
            await client.send(GET)
            assert (await client.response()).status == 200
        wire = gateway.app.wire
        await until(lambda: len(wire.clients) == 2)
        assert (await gateway.ask(GET)).status == 200, "one went, one may come"
        for client in inside:
            client.close()
        await until(lambda: not wire.clients)
        assert not wire.admission._by_address, "nothing is remembered of those who have gone"


async def test_a_late_loop_refuses_what_has_not_begun(small: Gateway, doors: list[str]) -> None:
    wire = small.app.wire
    async with await small.connect() as client, await small.connect() as second:
        release = asyncio.Event()

        async def slowly(_: Request, line: Line) -> None:
            await release.wait()
            await line.send(ok(b"x"))

        small.upstream.script = slowly
        await client.send(GET)
        await small.upstream.came(1)
        wire.admission.judge(2.5)
        assert doors == ["shut"]
        await second.send(request(b"POST", b"/public/x", b"Content-Length: 5\r\n", b"hello"))
        assert is_overloaded(await second.response("POST"))
        assert await second.is_closed()
        wire.admission.judge(0.7)
        assert wire.overloaded, "better, but not good"
        wire.admission.judge(0.01)
        assert not wire.overloaded
        release.set()
        assert (await client.response()).status == 200, "what was begun is finished"
        small.pass_time(1)
        assert doors == ["shut", "open"]
    assert (await small.ask(GET)).status == 200
    assert wire.admission.shed == 1
    await small.app.recorder.flush()
    for kind in (Kind.OVERLOADED, Kind.LOOP_LATE):
        (event,) = await small.app.recorder.events(DEFAULT_TENANT, limit=10, kind=kind)
        assert event.detail["late" if kind is Kind.OVERLOADED else "seconds"] == 2.5


async def test_too_many_that_wait_for_an_answer(small: Gateway) -> None:
    release = asyncio.Event()

    async def slowly(_: Request, line: Line) -> None:
        await release.wait()
        await line.send(ok(b"x"))

    small.upstream.script = slowly
    wire = small.app.wire
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await small.connect()) for _ in range(18)]
        for client in clients[:17]:
            await client.send(GET)
        await small.upstream.came(17)
        assert wire.admission.in_flight == 17
        wire.admission.judge(0.0)
        await clients[17].send(GET)
        assert is_overloaded(await clients[17].response())
        release.set()
        for client in clients[:17]:
            assert (await client.response()).status == 200
        wire.admission.judge(0.0)
        await clients[0].send(GET)
        assert (await clients[0].response()).status == 200


async def test_a_blocked_loop_is_noticed(small: Gateway) -> None:
    wire = small.app.wire
    wire.admission._begin()
    time.sleep(0.35)
    await until(lambda: Kind.LOOP_LATE in wire.admission._told)
    assert not wire.overloaded, "an incident, and no reason to refuse anybody"


async def test_thousands_that_are_late_together_are_dealt_with_by_and_by(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(await gateway.connect()) for _ in range(200)]
        for client in clients:
            await client.send(GET[:10])
        for client in clients:
            await gateway.heard(client)
        gateway.pass_time(11)
        assert len([one for one in gateway.app.wire.clients if one._failed is None]) >= 184, "16 in one turn"
        for client in clients:
            assert (await client.response()).status == 408
            assert await client.is_closed()
