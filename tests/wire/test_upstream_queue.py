"""When every connection to a service is taken, requests wait: not too many, not too long, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rig.client import PATIENCE
from tests.rig.gateway import request
from tests.rig.messages import Request, Response
from tests.rig.upstream import Line, echo, ok
from tests.wire.services_at import Several, settled, several, status, until

pytestmark = pytest.mark.asyncio


class Gatekeeper:
    """A script that answers when told, with the request's target."""

    def __init__(self, service: Several) -> None:
        self.service = service
        self.held: list[Line] = []
        self.targets: list[bytes] = []
        self._go: dict[Line, asyncio.Event] = {}
        for place in service.places:
            place.script = self

    async def __call__(self, received: Request, line: Line) -> None:
        self.held.append(line)
        self.targets.append(received.target)
        go_on = asyncio.Event()
        self._go[line] = go_on
        await go_on.wait()
        await line.send(ok(received.target))

    def let_go(self) -> None:
        """Answer the one that has waited longest."""
        self._go[self.held.pop(0)].set()

    async def holds(self, many: int) -> None:
        await until(lambda: len(self.held) == many)

    async def waits(self, many: int) -> None:
        await until(lambda: len(self.service.upstream.waiting) == many)

    def ask(self, target: bytes) -> asyncio.Task[Response]:
        return asyncio.create_task(self.service.gateway.ask(request(b"GET", b"/public/" + target)))


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Several]:
    async with several(tmp_path, 1, connections=2, queue={"length": 3, "wait": "4s"}) as made:
        yield made


async def test_who_waits_is_served_in_order(service: Several) -> None:
    keeper = Gatekeeper(service)
    asked = []
    for number in range(5):
        asked.append(keeper.ask(b"%d" % number))
        await (keeper.holds(number + 1) if number < 2 else keeper.waits(number - 1))
    assert 'sallyport_upstream_waiting{upstream="app"} 3.0' in service.gateway.app.metrics.render()[0].decode()
    for left in (2, 2, 2, 1, 0):
        keeper.let_go()
        await keeper.holds(left)
    answers = await asyncio.gather(*asked)
    assert [each.body for each in answers] == [b"/public/%d" % number for number in range(5)]
    assert keeper.targets == [b"/public/%d" % number for number in range(5)]
    assert len(service.places[0].lines) == 2  # connections went from hand to hand


async def test_no_more_may_wait_than_there_is_room_for(service: Several) -> None:
    keeper = Gatekeeper(service)
    asked = [keeper.ask(b"%d" % number) for number in range(5)]
    await keeper.holds(2)
    await keeper.waits(3)
    answer = await keeper.ask(b"too-many")
    assert (answer.status, answer.one("Retry-After")) == (503, b"1")
    assert b"ERR-UPSTREAM-BUSY" in answer.body
    for _ in range(5):
        await until(lambda: bool(keeper.held))
        keeper.let_go()
    assert [each.status for each in await asyncio.gather(*asked)] == [200] * 5


async def test_nobody_waits_for_ever(service: Several) -> None:
    keeper = Gatekeeper(service)
    taken = [keeper.ask(b"1"), keeper.ask(b"2")]
    await keeper.holds(2)
    waits = keeper.ask(b"3")
    await keeper.waits(1)
    service.gateway.pass_time(3.9)
    assert not waits.done()
    service.gateway.pass_time(0.2)
    answer = await waits
    assert (answer.status, answer.one("Retry-After")) == (503, b"1")
    keeper.let_go()
    keeper.let_go()
    assert [each.status for each in await asyncio.gather(*taken)] == [200, 200]
    assert not service.upstream.waiting


async def test_who_leaves_gives_up_the_place(service: Several) -> None:
    keeper = Gatekeeper(service)
    taken = [keeper.ask(b"1"), keeper.ask(b"2")]
    await keeper.holds(2)
    async with await service.gateway.connect() as client:
        await client.send(request(b"GET", b"/public/gone"))
        await keeper.waits(1)
        stays = keeper.ask(b"3")
        await keeper.waits(2)
        client.abort()
        await keeper.waits(1)
    keeper.let_go()
    await keeper.holds(2)
    keeper.let_go()
    keeper.let_go()
    answers = await asyncio.gather(*taken, stays)
    assert sorted(each.body for each in answers) == [b"/public/1", b"/public/2", b"/public/3"]
    assert b"/public/gone" not in keeper.targets


async def test_a_connection_that_ends_makes_room(service: Several) -> None:
    keeper = Gatekeeper(service)
    taken = [keeper.ask(b"1"), keeper.ask(b"2")]
    await keeper.holds(2)
    waits = keeper.ask(b"3")
    await keeper.waits(1)
    keeper.held.pop(0).abort()
    await keeper.holds(2)
    assert keeper.targets[-1] == b"/public/3"
    keeper.let_go()
    keeper.let_go()
    answers = await asyncio.gather(*taken, waits)
    assert sorted(each.status for each in answers) == [200, 200, 502]
    assert service.upstream._connecting == 0


async def test_a_pool_is_shared_by_all_places(tmp_path: Path) -> None:
    """An unused connection to one place makes room for one to another."""
    async with several(tmp_path, 2, connections=1, queue={"length": 0}) as service:
        assert await service.ask(6) == [200] * 6
        assert service.counts == [3, 3]
        assert sum(len(endpoint.open) for endpoint in service.endpoints) == 1


async def test_a_connection_counts_once_from_beginning_to_end(tmp_path: Path) -> None:
    """Also in the turn of the loop in which it has been made, and whoever asked for it does not know yet."""
    async with several(tmp_path, 1, connections=2, queue={"length": 0}) as service:
        keeper = Gatekeeper(service)
        asked = keeper.ask(b"1")
        counted = set()
        async with asyncio.timeout(PATIENCE):
            while not keeper.held:
                counted.add(service.upstream._size)
                await asyncio.sleep(0)
        assert counted == {0, 1}
        keeper.let_go()
        assert (await asked).status == 200


async def test_a_connection_that_was_dropped_makes_room_at_once(tmp_path: Path) -> None:
    """What is sent again finds the room of what failed, where nobody may wait."""
    async with several(tmp_path, 1, connections=1, queue={"length": 0}, retries={"on": ["503"]}) as service:
        busy = [status(b"503 Service Unavailable")]

        async def at_first(received: Request, line: Line) -> None:
            await (busy.pop() if busy else echo)(received, line)

        service.places[0].script = at_first
        assert await service.ask() == [200]
        assert service.counts == [2]
        assert sum(len(endpoint.open) for endpoint in service.endpoints) == 1


async def test_who_belongs_elsewhere_gets_a_connection_of_its_own(tmp_path: Path) -> None:
    said = {"connections": 1, "balance": "consistent_hash", "hash": "header:X-Key"}
    async with several(tmp_path, 2, **said) as service:
        keeper = Gatekeeper(service)

        def asking(key: bytes) -> asyncio.Task[Response]:
            raw = request(b"GET", b"/public/" + key, b"X-Key: %b\r\n" % key)
            return asyncio.create_task(service.gateway.ask(raw))

        keys = [b"k%d" % number for number in range(32)]  # by chance all of eight may belong to one place
        asked = [asking(key) for key in keys]
        await keeper.holds(1)
        await keeper.waits(31)
        for _ in keys:
            await keeper.holds(1)
            keeper.let_go()
        assert [each.status for each in await asyncio.gather(*asked)] == [200] * 32
        assert 0 not in service.counts
        places = {received.target: number for number, place in enumerate(service.places) for received in place.requests}
        service.forget()
        for key in keys:
            assert (await asking(key)).status == 200
        again = {received.target: number for number, place in enumerate(service.places) for received in place.requests}
        assert places == again


async def test_stopping_lets_nobody_wait(tmp_path: Path) -> None:
    async with several(tmp_path, 1, connections=1, queue={"wait": "60s"}) as service:
        keeper = Gatekeeper(service)
        first = keeper.ask(b"1")
        await keeper.holds(1)
        second = keeper.ask(b"2")
        await keeper.waits(1)
        service.upstream.close()
        assert (await second).status == 503
        assert not service.upstream.waiting
        first.cancel()
        await settled(service.gateway)
        assert service.upstream._connecting == 0
