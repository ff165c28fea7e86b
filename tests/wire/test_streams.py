"""Whoever may no longer have something open loses it: sockets, event streams, downloads, within five seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.core.errors import StoreAway
from gateway.core.events import Event, Kind, Severity
from gateway.core.identity import DEFAULT_TENANT, Identity, Proof
from gateway.wire import streams
from tests.rig.client import PATIENCE, RawClient
from tests.rig.frames import HANDSHAKE, TEXT, echo_frames, frame, open_socket
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Request
from tests.rig.upstream import Line, fixed, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = """
rules:
  - name: public
    match: {hosts: [good.test], paths: [/public/**]}
    access: public
    upstream: app
  - name: watched
    match: {hosts: [good.test], paths: [/watched/**]}
    access: authenticated
    risk: {refuse_at: 0.4}
    upstream: app
  - name: fresh
    match: {hosts: [good.test], paths: [/fresh/**]}
    access: authenticated
    step_up: {level: aal1, max_age: 10m}
    upstream: app
  - name: limited
    match: {hosts: [good.test], paths: [/limited/**]}
    access: authenticated
    limits: [{name: few, key: user, rate: 1/h}]
    upstream: app
  - name: shared
    match: {hosts: [good.test], paths: [/shared/**]}
    access: authenticated
    upstream: app
    origins: [https://app.good.test, http://partner.test:8080]
  - name: rest
    match: {hosts: [good.test]}
    access: authenticated
    upstream: app
"""
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSED = b"\x88\x02" + (1008).to_bytes(2, "big")
LONG = b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\nContent-Length: 1000000\r\n\r\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(tmp_path_factory.mktemp("streams"), policy=POLICY) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(house: Gateway) -> AsyncIterator[Gateway]:
    await house.mark()
    house.upstream.script = talks
    yield house
    policy(house).write_text(POLICY)
    await house.app.reload_policies()
    for client in list(house.app.wire.clients):
        client.abort()
    await gone(house)
    assert house.upstream.violations == []


def policy(gateway: Gateway) -> Path:
    return Path(gateway.app.settings.policies) / "rig.yaml"


async def gone(gateway: Gateway) -> None:
    """Wait until nothing is open."""
    async with asyncio.timeout(PATIENCE):
        while gateway.app.wire.clients:
            await asyncio.sleep(0.005)


async def talks(asked: Request, line: Line) -> None:
    """A socket, an event stream, a long download, an answer that takes its time."""
    if asked.all("Upgrade"):
        await echo_frames(asked, line)
        return
    if asked.target.endswith(b"/late"):
        await line.reader.read()
        return
    if asked.target.endswith(b"/events"):
        await line.send(EVENTS)
        part = b"5\r\ndata:\r\n"
    else:
        await line.send(LONG)
        part = bytes(5)
    await line.send(part)
    await line.reader.read()


async def opened(gateway: Gateway, kind: str, cookie: bytes = b"", place: bytes = b"/app/") -> RawClient:
    """A client with something open."""
    if kind == "socket":
        return (await open_socket(gateway, place + b"ws", cookie=cookie)).client
    client = await gateway.connect()
    await client.send(request(b"GET", place + kind.encode(), cookie=cookie))
    if kind != "late":
        assert b" 200 OK" in await client.read_until(b"\r\n\r\n")
        await client.read_exactly(10 if kind == "events" else 5)
    else:
        await gateway.upstream.came()
    return client


async def judged(gateway: Gateway) -> None:
    """Wait until whatever is open was judged again: somebody may have to be looked up for it."""
    streams = gateway.app.wire.streams
    async with asyncio.timeout(PATIENCE):
        await asyncio.sleep(0)
        while streams._due or streams._asking:
            await asyncio.sleep(0.002)


async def is_open(gateway: Gateway, count: int = 1) -> bool:
    """Whether so much is still open five seconds later."""
    for _ in range(2):
        gateway.pass_time(2.5)
        await judged(gateway)
    wire = gateway.app.wire
    found = [tunnel.exchange for tunnel in wire.streams.tunnels]
    found += [client.answering for client in wire.clients if client.answering is not None]
    return len({id(exchange) for exchange in found if not exchange.over}) == count


async def is_cut(gateway: Gateway, client: RawClient, kind: str, reason: str, status: int = 401) -> None:
    """Cut within five seconds, so that the client notices, with one event."""
    await gateway.app.recorder.flush()
    before = len(await cuts(gateway))
    assert await is_open(gateway, 0)
    if kind == "late":
        assert (await client.response()).status == status
    else:
        assert (await client.read_rest())[-len(CLOSED) :] == (CLOSED if kind == "socket" else b"")
        assert client.reset is (kind != "socket")
    client.close()
    found = (await cuts(gateway))[before:]
    assert [(event.detail["reason"], event.severity) for event in found] == [(reason, Severity.NOTICE)]
    await gone(gateway)


async def cuts(gateway: Gateway) -> list[Event]:
    await gateway.app.recorder.flush()
    return (await gateway.app.recorder.events(DEFAULT_TENANT, limit=1000, kind=Kind.STREAM_CUT))[::-1]


async def identity_of(gateway: Gateway, cookie: bytes) -> Identity:
    found = await gateway.app.sessions.find(cookie.partition(b"=")[2].decode())
    assert found is not None
    return found


async def end_session(gateway: Gateway, cookie: bytes) -> None:
    who = await identity_of(gateway, cookie)
    assert who.session is not None
    assert await gateway.app.sessions.end(who.tenant, who.subject, who.session.id)


async def disable(gateway: Gateway, cookie: bytes) -> None:
    await gateway.app.users.disable("bob")


async def outlive(gateway: Gateway, cookie: bytes) -> None:
    gateway.clock.advance(24 * 3600)


ENDS: list[Callable[[Gateway, bytes], Awaitable[None]]] = [end_session, disable, outlive]
KINDS = ["socket", "events", "download", "late"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ENDS, ids=lambda end: str(end.__name__))
async def test_case_70_who_is_nobody_any_more_is_cut(
    gateway: Gateway, kind: str, end: Callable[[Gateway, bytes], Awaitable[None]]
) -> None:
    cookie = await gateway.sign_in("bob")
    client = await opened(gateway, kind, cookie)
    await end(gateway, cookie)
    if end is outlive and kind != "socket":
        for connection in [c for each in gateway.app.wire.upstreams["app"].endpoints for c in each.open]:
            connection.deadline = float("inf")  # what ends it here is the review, not the service's silence
    try:
        await is_cut(gateway, client, kind, "session_ended")
    finally:
        await gateway.app.users.enable("bob")


@pytest.mark.parametrize("kind", ["socket", "events"])
async def test_case_70_a_risen_risk_cuts(gateway: Gateway, kind: str) -> None:
    who = f"eve-{kind}"
    client = await opened(gateway, kind, await gateway.sign_in(who), b"/watched/")
    assert await is_open(gateway)
    for _ in range(4):
        gateway.app.recorder.note(Event(Kind.SIGN_IN_FAILED, user=who))
    await is_cut(gateway, client, kind, "risk_refused")


@pytest.mark.parametrize("kind", KINDS)
async def test_case_70_a_policy_that_says_otherwise_cuts(gateway: Gateway, kind: str) -> None:
    client = await opened(gateway, kind, await gateway.sign_in("bob"))
    stays, _, _ = POLICY.rpartition("access: authenticated")
    policy(gateway).write_text(stays + "access: {users: [ann]}\n    upstream: app\n")
    await gateway.app.reload_policies()
    await is_cut(gateway, client, kind, "not_allowed", 403)


async def test_a_policy_that_sends_elsewhere_cuts(gateway: Gateway) -> None:
    client = await opened(gateway, "socket", place=b"/public/")
    assert await is_open(gateway)
    policy(gateway).write_text(
        POLICY.replace("access: public\n    upstream: app", "access: public\n    upstream: other")
    )
    await gateway.app.reload_policies()
    await is_cut(gateway, client, "socket", "not_allowed")


async def test_a_public_rule_keeps_nobody_open_in_the_name_of_a_session_that_is_over(gateway: Gateway) -> None:
    cookie = await gateway.sign_in("bob")
    client = await opened(gateway, "events", cookie, b"/public/")
    await end_session(gateway, cookie)
    await is_cut(gateway, client, "events", "session_ended")


async def test_a_proof_that_has_grown_too_old_cuts(gateway: Gateway) -> None:
    client = await opened(gateway, "socket", await gateway.sign_in("bob"), b"/fresh/")
    assert await is_open(gateway)
    gateway.clock.advance(600)
    await is_cut(gateway, client, "socket", "proof_too_old")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [b"/public/", b"/app/", b"/limited/"])
async def test_what_is_still_allowed_stays(gateway: Gateway, kind: str, place: bytes) -> None:
    who = f"{kind}-{place.decode().strip('/')}"
    client = await opened(gateway, kind, await gateway.sign_in(who) if place != b"/public/" else b"", place)
    for _ in range(3):
        assert await is_open(gateway)
    client.close()


async def test_events_run_for_hours_and_count_as_being_there(gateway: Gateway) -> None:
    cookie = await gateway.sign_in("bob")
    client = await opened(gateway, "events", cookie)
    line = gateway.upstream.lines[-1]
    # What is done each second by the real clock would see hours pass while it writes down who was seen.
    next(task for task in gateway.app._tasks if task.get_name() == "housekeeping").cancel()
    for _ in range(60):  # five hours, an event every five minutes, where sessions idle out in one
        gateway.pass_time(300)
        await judged(gateway)
        await gateway.app.sessions.refresh()
        await line.send(b"5\r\ndata:\r\n")
        await client.read_exactly(10)
    assert await is_open(gateway)
    gateway.pass_time(3601)
    assert await client.read_rest() == b""
    client.close()


async def test_another_answer_may_not_be_silent_for_so_long(gateway: Gateway) -> None:
    client = await opened(gateway, "download", await gateway.sign_in("bob"))
    gateway.pass_time(61)
    assert await client.read_rest() == b""
    assert client.reset
    client.close()


async def test_each_event_is_written_at_once(gateway: Gateway) -> None:
    client = await opened(gateway, "events", await gateway.sign_in("bob"))
    for number in range(5):
        await gateway.upstream.lines[-1].send(b"7\r\ndata: %d\r\n" % number)
        async with asyncio.timeout(PATIENCE):
            assert await client.read_exactly(12) == b"7\r\ndata: %d\r\n" % number
    client.close()
    async with asyncio.timeout(PATIENCE):
        await gateway.upstream.lines[-1].closed.wait()


@pytest.mark.parametrize("kind", ["socket", "events"])
async def test_a_proof_in_another_window_cuts_nothing(gateway: Gateway, kind: str) -> None:
    """The session is the same; only its token is another."""
    cookie = await gateway.sign_in("bob")
    client = await opened(gateway, kind, cookie)
    token, _ = await gateway.app.sessions.prove(cookie.partition(b"=")[2].decode(), Proof("totp", gateway.clock.now()))
    for _ in range(2):
        assert await is_open(gateway)
    fresh = cookie.partition(b"=")[0] + b"=" + token.encode()
    await end_session(gateway, fresh)
    await is_cut(gateway, client, kind, "session_ended")


async def test_changes_of_other_processes_are_seen(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing near is believed any more: each is looked up, and stays or goes."""
    staying, going = await gateway.sign_in("bob"), await gateway.sign_in("bob")
    one, two = await opened(gateway, "socket", staying), await opened(gateway, "socket", going)
    await end_session(gateway, going)
    gateway.app.sessions._forget("", "")
    assert await is_open(gateway)
    assert await two.read_rest() == CLOSED
    two.close()
    await one.send(frame(TEXT, b"x"))
    assert await one.read_exactly(3) == frame(TEXT, b"x", mask=None)
    one.close()


async def test_a_store_that_is_away_cuts_who_is_not_near(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await opened(gateway, "socket", await gateway.sign_in("bob"))

    async def away(*_: Any) -> Any:
        raise StoreAway("gone")

    monkeypatch.setattr(gateway.app.sessions, "find", away)
    monkeypatch.setattr(gateway.app.sessions, "again", away)
    assert await is_open(gateway)
    gateway.app.sessions._forget("", "")
    await is_cut(gateway, client, "socket", "fault")


async def test_a_fault_while_cutting_leaves_nothing_open(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cookie = await gateway.sign_in("bob")
    client = await opened(gateway, "socket", cookie)

    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(gateway.app.wire.streams, "_note", broken)
    await end_session(gateway, cookie)
    assert await is_open(gateway, 0)
    assert "not reviewed" in caplog.text
    client.close()


async def test_many_are_reviewed_in_slices(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SLICE", 0.0)
    monkeypatch.setattr(streams, "PAUSE", 0.001)
    monkeypatch.setattr(streams, "AT_ONCE", 2)
    cookie = await gateway.sign_in("bob")
    clients = [await opened(gateway, "socket", cookie) for _ in range(20)]
    asked = 0
    review = gateway.app.wire.streams._review

    async def counted(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        return await review(*args)

    monkeypatch.setattr(gateway.app.wire.streams, "_review", counted)
    gateway.pass_time(2.5)
    assert asked == 1
    await judged(gateway)
    assert asked >= 20
    asked = 0
    await end_session(gateway, cookie)
    gateway.pass_time(2.5)
    for client in clients:
        assert await client.read_rest() == CLOSED
        client.close()
    assert asked >= 20


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"https://app.good.test", 101),
        (b"HTTPS://APP.good.test", 101),
        (b"http://partner.test:8080", 101),
        (b"http://good.test", 101),
        (b"http://app.good.test", 403),
        (b"http://partner.test", 403),
        (b"https://evil.test", 403),
        (b"https://app.good.test\r\nOrigin: https://app.good.test", 403),
    ],
)
async def test_case_69_a_rule_may_name_other_sites(gateway: Gateway, origin: bytes, status: int) -> None:
    cookie = await gateway.sign_in("bob")
    client = await gateway.connect()
    await client.send(request(b"GET", b"/shared/ws", HANDSHAKE + b"Origin: " + origin + b"\r\n", cookie=cookie))
    assert b" %d " % status in (await client.read_until(b"\r\n"))
    client.close()


async def test_short_answers_are_not_reviewed(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def noted(*args: Any) -> Any:
        asked.append(args)

    monkeypatch.setattr(gateway.app.wire.streams, "_review", noted)
    gateway.upstream.script = fixed(ok(b"x"))
    async with await gateway.connect() as client:
        for _ in range(3):
            await client.send(request(b"GET", b"/public/x"))
            assert (await client.response()).status == 200
            gateway.pass_time(3)
    assert asked == []
