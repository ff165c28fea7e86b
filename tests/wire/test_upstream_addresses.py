"""Where a name leads, and what happens when it leads elsewhere."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.wire import addresses
from gateway.wire.addresses import Addresses, SocketAddress
from gateway.wire.upstream import Place, Times, Upstream
from tests.rig.gateway import Gateway, running
from tests.rig.ports import free_port
from tests.rig.upstream import RecordingUpstream
from tests.wire.services_at import GET, settled, until


class Names:
    """A resolver that says what it is told to."""

    def __init__(self, *found: SocketAddress) -> None:
        self.found: Sequence[SocketAddress] = found
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[SocketAddress]:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.found:
            raise socket.gaierror(-2, "Name or service not known")
        return self.found


async def test_addresses_take_turns_and_the_old_ones_serve_until_there_are_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = Names(("10.0.0.1", 80), ("10.0.0.2", 80))
    host = Addresses("app.internal", 80, every=30.0, ask=names)
    firsts = [(await host.in_turn())[0] for _ in range(4)]
    assert set(firsts[:2]) == set(names.found)
    assert firsts[:2] == firsts[2:]
    assert names.asked == 1
    names.found = ()
    for _ in range(3):
        await host.refresh()
    assert set(await host.in_turn()) == {("10.0.0.1", 80), ("10.0.0.2", 80)}
    assert host.failures == 3
    assert len([record for record in caplog.records if "cannot be resolved" in record.getMessage()]) == 1
    names.found = [("10.0.0.2", 80), ("10.0.0.3", 80)]
    await host.refresh()
    assert set(await host.in_turn()) == set(names.found)
    assert host.gone == {("10.0.0.1", 80)}
    names.found = [("10.0.0.1", 80)]
    await host.refresh()
    assert host.gone == {("10.0.0.2", 80), ("10.0.0.3", 80)}


async def test_a_name_that_never_led_anywhere() -> None:
    host = Addresses("app.internal", 80, every=30.0, ask=Names())
    with pytest.raises(OSError, match="Name or service not known"):
        await host.in_turn()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_address_needs_no_name_server(address: str) -> None:
    names = Names()
    host = Addresses(address, 80, every=30.0, ask=names)
    assert await host.in_turn() == ((address, 80),)
    assert not host.due(1e12)
    assert names.asked == 0


def test_a_name_is_asked_for_every_so_often() -> None:
    host = Addresses("app.internal", 80, every=30.0, ask=Names())
    assert [host.due(now) for now in (0.0, 1.0, 29.9, 30.0, 31.0, 60.0)] == [True, False, False, True, False, True]


async def test_the_machine_knows_itself() -> None:
    found = await addresses.resolve("localhost", 80)
    assert set(found) <= {("127.0.0.1", 80), ("::1", 80)}
    assert found


# -- over sockets ------------------------------------------------------------------------------------------------------


async def named(gateway: Gateway, names: Names, **said: Any) -> Upstream:
    """Put the upstream `app` behind a name."""
    wire = gateway.app.wire
    upstream = Upstream(
        "app", [Place("http://app.internal", ("app.internal", 80))], now=wire.now, ask=names, resolve_every=30.0, **said
    )
    wire.upstreams["app"].close()
    wire.upstreams["app"] = upstream
    return upstream


async def test_a_service_that_moves_is_followed(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        names = Names(("127.0.0.1", gateway.upstream.port))
        upstream = await named(gateway, names)
        assert (await gateway.ask(GET)).status == 200
        names.found = [("127.0.0.1", gateway.other.port)]
        gateway.pass_time(0)  # asked for the first time by the clock
        await settled(gateway)
        (old,) = gateway.upstream.lines
        gateway.pass_time(1)  # an unused connection to where the service no longer is
        await gateway.upstream.until(old.closed.is_set)
        assert (await gateway.ask(GET)).status == 200
        assert (len(gateway.upstream.requests), len(gateway.other.requests)) == (1, 1)
        names.found = ()
        gateway.pass_time(30)
        await settled(gateway)
        gateway.pass_time(61)
        assert (await gateway.ask(GET)).status == 200
        assert upstream.endpoints[0].addresses is not None
        assert upstream.endpoints[0].addresses.failures >= 1


async def test_of_several_addresses_one_that_answers_is_found(tmp_path: Path) -> None:
    gone = ("127.0.0.1", free_port())
    async with running(tmp_path) as gateway:
        await named(gateway, Names(gone, ("127.0.0.1", gateway.upstream.port), gone))
        for _ in range(4):
            assert (await gateway.ask(GET)).status == 200
            for line in gateway.upstream.lines:
                line.close()
            await gateway.upstream.until(lambda: all(line.closed.is_set() for line in gateway.upstream.lines))


async def test_connections_are_spread_over_all_addresses(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        both = ("127.0.0.1", gateway.upstream.port), ("127.0.0.1", gateway.other.port)
        await named(gateway, Names(*both))
        go_on = asyncio.Event()

        async def script(_: Any, line: Any) -> None:
            await go_on.wait()
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        gateway.upstream.script = gateway.other.script = script
        asked = [asyncio.create_task(gateway.ask(GET)) for _ in range(6)]
        await until(lambda: len(gateway.upstream.requests) + len(gateway.other.requests) == 6)
        assert (len(gateway.upstream.requests), len(gateway.other.requests)) == (3, 3)
        go_on.set()
        assert {each.status for each in await asyncio.gather(*asked)} == {200}


async def test_a_name_without_an_address_is_a_service_out_of_reach(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        await named(gateway, Names())
        answer = await gateway.ask(GET)
        assert answer.status == 502
        assert b"ERR-UPSTREAM-UNREACHABLE" in answer.body


async def test_a_name_server_that_says_nothing_takes_no_longer_than_a_connection_may(tmp_path: Path) -> None:
    async def silence(host: str, port: int) -> Sequence[SocketAddress]:
        await asyncio.sleep(60)
        return []

    async with running(tmp_path) as gateway:
        await named(gateway, silence, times=Times(connect=0.05))  # type: ignore[arg-type]
        assert (await gateway.ask(GET)).status == 502


async def test_a_unix_socket(tmp_path: Path) -> None:
    service = RecordingUpstream()
    path = tmp_path / "app.sock"
    await service.start(path=str(path))
    try:
        (tmp_path / "house").mkdir()
        config = {"upstreams": {"app": {"url": f"unix:{path}", "health": {}}, "other": {"url": "http://127.0.0.1:1"}}}
        async with running(tmp_path / "house", config=config) as gateway:
            for _ in range(2):
                assert (await gateway.ask(GET)).status == 200
            gateway.pass_time(0)
            await settled(gateway)
            assert [each.target for each in service.requests] == [b"/public/x", b"/public/x", b"/healthz"]
            assert service.requests[-1].one("Host") == b"localhost"
            assert [each.connection for each in service.requests] == [1, 1, 2]
    finally:
        await service.stop()
