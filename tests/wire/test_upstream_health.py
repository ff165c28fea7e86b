"""Endpoints that are not well are left out, and come back slowly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from tests.rig.messages import Request
from tests.rig.upstream import Line, Script, echo, fixed
from tests.wire.services_at import Several, hang_up, several, status


async def events(service: Several) -> list[tuple[str, str]]:
    """Kind and endpoint of what was noted of endpoints, oldest first."""
    recorder = service.gateway.app.recorder
    await recorder.flush()
    found = []
    for kind in (Kind.UPSTREAM_DOWN, Kind.UPSTREAM_UP):
        found += await recorder.events(DEFAULT_TENANT, limit=100, kind=kind)
    names = {endpoint.name: "abcdef"[at] for at, endpoint in enumerate(service.endpoints)}
    assert all(event.detail["upstream"] == "app" and event.detail["why"] for event in found)
    return [(event.kind.removeprefix("upstream_"), names[str(event.detail["endpoint"])]) for event in found]


def up(service: Several) -> list[bool]:
    return [endpoint.up for endpoint in service.endpoints]


# -- ejection ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [hang_up, status(b"503 No"), fixed(b"nonsense\r\n\r\n")])
async def test_who_fails_five_times_in_a_row_is_left_out_for_a_while(tmp_path: Path, failure: Script) -> None:
    async with several(tmp_path, 3, ejection={"return_over": "10s"}) as service:
        service.places[0].script = failure
        await service.ask(12)
        assert up(service) == [True] * 3
        await service.ask(6)
        assert up(service) == [False, True, True]
        service.forget()
        assert await service.ask(10) == [200] * 10
        assert service.counts == [0, 5, 5]
        text = service.gateway.app.metrics.render()[0].decode()
        assert f'sallyport_upstream_endpoint_up{{endpoint="{service.endpoints[0].name}",upstream="app"}} 0.0' in text
        assert await events(service) == [("down", "a")]

        await service.pass_time(10.1)
        assert up(service) == [True] * 3
        assert await events(service) == [("down", "a"), ("up", "a")]
        assert await service.ask(21) == [200] * 21
        assert service.counts == [1, 5 + 10, 5 + 10]  # a tenth of a share
        await service.pass_time(5)
        service.forget()
        await service.ask(25)
        assert service.counts == [5, 10, 10]
        await service.pass_time(5)
        service.forget()
        await service.ask(30)
        assert service.counts == [10, 10, 10]


async def test_a_success_in_between_counts_from_the_beginning(tmp_path: Path) -> None:
    async with several(tmp_path, 2, retries={"attempts": 1}) as service:
        for _ in range(4):
            service.places[0].script = hang_up
            await service.ask(8)
            assert service.endpoints[0].failures == 4
            service.places[0].script = echo
            await service.ask(2)
            assert service.endpoints[0].failures == 0
        assert up(service) == [True, True]


@pytest.mark.parametrize(
    ("many", "at_most", "out"), [(2, "50%", 1), (3, "50%", 1), (4, "50%", 2), (2, "40%", 0), (3, "100%", 3)]
)
async def test_never_more_are_left_out_than_may_be(tmp_path: Path, many: int, at_most: str, out: int) -> None:
    async with several(tmp_path, many, ejection={"failures": 1, "at_most": at_most}) as service:
        for place in service.places:
            place.script = hang_up
        await service.ask(4 * many)
        assert up(service).count(False) == out
        for place in service.places:
            place.script = echo
        assert await service.ask() == [200]  # also when nobody is left: all are tried


async def test_mid_body_failures_count(tmp_path: Path) -> None:
    async def breaks_off(_: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        line.close()

    async with several(tmp_path, 2, ejection={"failures": 2}) as service:
        service.places[0].script = breaks_off
        for _ in range(4):
            async with await service.gateway.connect() as client:
                await client.send(b"GET /public/x HTTP/1.1\r\nHost: good.test\r\nConnection: close\r\n\r\n")
                await client.read_rest()
        assert up(service) == [False, True]


async def test_who_is_slow_is_left_out_but_not_for_a_slow_client(tmp_path: Path) -> None:
    async def silent(_: Request, line: Line) -> None:
        await line.reader.read(1)

    async with several(tmp_path, 2, ejection={"failures": 1}, timeouts={"response": "3s"}) as service:
        async with await service.gateway.connect() as client:
            await client.send(b"POST /public/x HTTP/1.1\r\nHost: good.test\r\nContent-Length: 9\r\n\r\nhalf")
            await service.places[0].until(lambda: bool(service.places[0].requests))
            service.gateway.pass_time(4)
            assert (await client.response("POST")).status == 504
        assert up(service) == [True, True]
        service.forget()
        for place in service.places:
            place.script = silent
        asked = asyncio.create_task(service.ask())
        await service.places[1].came()
        service.gateway.pass_time(4)
        assert await asked == [504]
        assert up(service) == [True, False]


async def test_a_kept_connection_that_ended_is_nobodys_failure(tmp_path: Path) -> None:
    async with several(tmp_path, 2, ejection={"failures": 1}) as service:
        for _ in range(3):
            assert await service.ask(4) == [200] * 4
            for place in service.places:
                for line in place.lines:
                    line.close()
        assert up(service) == [True, True]


# -- checks ------------------------------------------------------------------------------------------------------------

HEALTH = {"path": "/healthz?deep=1", "interval": "5s", "timeout": "60s", "healthy": 2, "unhealthy": 3}


async def sick(received: Request, line: Line) -> None:
    """Unwell when asked, but answers everybody else."""
    if received.target.startswith(b"/healthz"):
        await line.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
    else:
        await echo(received, line)


async def test_checks_take_an_endpoint_out_and_bring_it_back(tmp_path: Path) -> None:
    async with several(tmp_path, 2, health=HEALTH, ejection=None) as service:
        await service.pass_time(0)
        first = service.places[0].only
        assert (first.method, first.target) == (b"GET", b"/healthz?deep=1")
        assert first.one("Host") == b"127.0.0.1:%d" % service.places[0].port
        assert first.one("Connection") == b"close"
        assert not any(name.startswith(("x-", "sallyport")) for name in first.names)
        service.places[0].script = sick
        for expected in (True, True, False):
            await service.pass_time(5.6)
            assert up(service) == [expected, True]
        service.forget()
        service.places[0].script = sick
        assert await service.ask(4) == [200] * 4
        assert service.counts == [0, 4]
        for _ in range(3):
            await service.pass_time(5.6)
        assert await events(service) == [("down", "a")]  # once
        service.places[0].script = echo
        for expected in (False, True):
            await service.pass_time(5.6)
            assert up(service) == [expected, True]
        assert await events(service) == [("down", "a"), ("up", "a")]
        service.forget()
        assert await service.ask(4) == [200] * 4
        assert service.counts == [2, 2]


async def hangs(_: Request, line: Line) -> None:
    await line.reader.read(1)


@pytest.mark.parametrize(
    ("script", "expect", "good"),
    [
        (status(b"200 OK"), "200-399", True),
        (status(b"399 X"), "200-399", True),
        (status(b"400 X"), "200-399", False),
        (status(b"204 X"), 204, True),
        (status(b"200 X"), 204, False),
        (fixed(b"HTTP/1.1 200\r\n\r\n"), "200-399", True),
        (fixed(b"HTTP/2 200 OK\r\n\r\n"), "200-399", False),
        (fixed(b"x" * 100_000), "200-399", False),
        (hang_up, "200-399", False),
        (hangs, "200-399", False),
    ],
)
async def test_what_is_a_good_answer(tmp_path: Path, script: Script, expect: object, good: bool) -> None:
    health = HEALTH | {"unhealthy": 1, "expect": expect, "timeout": "100ms" if script is hangs else "60s"}
    async with several(tmp_path, 2, health=health) as service:
        service.places[0].script = script
        await service.pass_time(0)
        assert up(service)[0] is good


async def test_who_is_not_there_is_not_well(tmp_path: Path) -> None:
    async with several(tmp_path, 2, health=HEALTH | {"unhealthy": 1}) as service:
        await service.places[1].stop()
        await service.pass_time(0)
        assert up(service) == [True, False]
        assert await service.ask(3) == [200] * 3


async def test_where_nobody_is_well_everybody_is_tried(tmp_path: Path) -> None:
    async with several(tmp_path, 2, health=HEALTH | {"unhealthy": 1}) as service:
        for place in service.places:
            place.script = sick
        await service.pass_time(0)
        assert up(service) == [False, False]
        assert await service.ask(4) == [200] * 4
        assert service.counts == [2, 2]


async def test_checks_do_not_come_all_at_once(tmp_path: Path) -> None:
    async with several(tmp_path, 3, health=HEALTH) as service:
        await service.pass_time(0)
        due = [endpoint.checked_at - service.gateway.clock.monotonic() for endpoint in service.endpoints]
        assert all(4.5 <= each <= 5.5 for each in due)
        assert len(set(due)) == 3
        await service.pass_time(4.4)
        assert [len(place.requests) for place in service.places] == [1, 1, 1]


async def test_an_edit_of_the_policy_disturbs_nothing(tmp_path: Path) -> None:
    async with several(tmp_path, 2, health=HEALTH | {"unhealthy": 1}) as service:
        service.places[0].script = sick
        await service.pass_time(0)
        assert up(service) == [False, True]
        assert await service.ask(2) == [200, 200]
        await service.gateway.app.reload_policies()
        assert up(service) == [False, True]
        assert await service.ask(2) == [200, 200]
        assert len({received.connection for received in service.places[1].requests if b"x" in received.target}) == 1


async def test_a_check_under_way_is_left_when_we_stop(tmp_path: Path) -> None:
    async with several(tmp_path, 1, health=HEALTH | {"timeout": "60s"}) as service:
        service.places[0].script = hangs
        service.gateway.pass_time(0)
        await service.places[0].came()
        wire = service.gateway.app.wire
        assert wire._tasks
        await service.gateway.restart()
        assert not wire._tasks
