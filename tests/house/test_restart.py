"""What a restart may take from people: nothing they would notice. And how a process stops."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from tests.house.process import PATIENCE, Home, home
from tests.house.visitor import Visitor, location
from tests.rig.client import RawClient
from tests.rig.gateway import AGENT, PASSWORD, Gateway, request, running
from tests.rig.messages import Request
from tests.rig.upstream import Line, RecordingUpstream, ok


@pytest_asyncio.fixture
async def mine(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as gateway:
        await gateway.sign_in("bob")
        await gateway.app.users.add("ann", PASSWORD, email="ann@good.test", groups=("admins",))
        yield gateway


def visit(gateway: Gateway, visitor: Visitor | None = None) -> Visitor:
    """A new browser; or one that was here before, at the port of now."""
    visitor = visitor or Visitor(gateway.port)
    visitor.port = gateway.port
    return visitor


# -- what is kept ------------------------------------------------------------------------------------------------------


async def test_sessions_go_on(mine: Gateway) -> None:
    cookie = await mine.sign_in("bob", "totp")
    sid = (await sessions(mine))[0].id
    await mine.restart()
    answer = await mine.ask(request(target=b"/app/x", cookie=cookie))
    assert answer.status == 200
    assert mine.upstream.only.one("X-Forwarded-User") == b"bob"
    (same,) = [one for one in await sessions(mine) if one.id == sid]
    assert [proof.factor for proof in same.proofs] == ["password", "totp"]


async def sessions(gateway: Gateway) -> list[object]:
    bob = await gateway.app.users.find("bob")
    assert bob is not None
    return await gateway.app.sessions.list(bob.tenant, bob.subject)


async def test_an_ended_session_stays_ended_and_time_goes_on(mine: Gateway) -> None:
    ended, idle, active = [await mine.sign_in("bob") for _ in range(3)]
    bob = await mine.app.users.find("bob")
    assert bob is not None
    token = ended.partition(b"=")[2].decode()
    identity = await mine.app.sessions.find(token)
    assert identity is not None
    assert identity.session is not None
    await mine.app.sessions.end(bob.tenant, bob.subject, identity.session.id)
    mine.clock.advance(3000)
    assert (await mine.ask(request(target=b"/app/x", cookie=active))).status == 200
    mine.clock.advance(500)
    await mine.restart()
    mine.clock.advance(200)  # 700 seconds after the last use of one, 3700 after that of the other
    assert (await mine.ask(request(target=b"/app/x", cookie=active))).status == 200
    assert (await mine.ask(request(target=b"/app/x", cookie=idle))).status == 401
    assert (await mine.ask(request(target=b"/app/x", cookie=ended))).status == 401


async def test_factors_and_backup_codes_go_on_and_stay_used(mine: Gateway) -> None:
    ann = visit(mine)
    await ann.sign_in("ann")
    phone, codes = await ann.enrol(mine.clock)
    assert len(codes) == 10
    used = phone.code
    await mine.restart()

    later = visit(mine)
    await later.sign_in("ann")
    challenge = location(await later.get("/admin/x"))
    page = await later.get(challenge)
    assert (await later.fill(page, "verify/", code=used)).status == 400, "a code works once, also across a restart"
    mine.clock.advance(30)
    assert location(await later.fill(page, "verify/", code=phone.code)) == "/admin/x"
    assert (await later.get("/admin/x")).status == 200

    assert await uses(mine, codes[0])
    await mine.restart()
    assert not await uses(mine, codes[0])
    assert await uses(mine, codes[1])


async def uses(gateway: Gateway, code: str) -> bool:
    """Whether a backup code is taken; the rig's policy wants totp, our own pages take either."""
    ann = await gateway.app.users.find("ann")
    assert ann is not None
    checked = await gateway.app.people.factors.check(ann.tenant, ann.subject, "backup_code", code, hint=False)
    return checked.proof is not None


async def test_wrong_answers_are_remembered(mine: Gateway) -> None:
    """Else whoever can make us restart could guess for ever."""
    ann = visit(mine)
    await ann.sign_in("ann")
    phone, _ = await ann.enrol(mine.clock)
    mine.clock.advance(30)
    other = visit(mine)
    await other.sign_in("ann")
    page = await other.get(location(await other.get("/admin/x")))
    statuses = []
    for turn in range(6):
        if turn == 3:
            await mine.restart()
            visit(mine, other)
        statuses.append((await other.fill(page, "verify/", code=phone.wrong)).status)
    assert statuses == [400, 400, 400, 400, 400, 429]


async def test_an_interrupted_post_goes_on_once(mine: Gateway) -> None:
    """Interrupted before, signed in after, sent on after yet another restart."""
    bob = visit(mine)
    body = b"amount=100&to=ann"
    asked = await bob.send("POST", "/app/pay", body, Content_Type="application/x-www-form-urlencoded")
    login = location(asked)
    await mine.restart()
    visit(mine, bob)
    onward = location(await bob.fill(await bob.get(login), "login", username="bob", password=PASSWORD))
    await mine.restart()
    visit(mine, bob)
    assert onward.startswith("/.sallyport/resume/")
    again = await bob.fill(await bob.get(onward), "resume/")
    assert location(again) == "/app/pay"
    assert mine.upstream.requests == []
    await mine.restart()
    visit(mine, bob)
    cookies = dict(bob.cookies)
    assert (await bob.get("/app/pay")).status == 200
    bob.cookies = cookies
    assert (await bob.get("/app/pay")).status == 200
    once, reload = mine.upstream.requests
    assert (once.method, once.body) == (b"POST", body)
    assert once.one("X-Forwarded-User") == b"bob"
    assert (reload.method, reload.body) == (b"GET", b""), "the kept request is used up; this is just a page"
    await mine.app.recorder.flush()
    (event,) = await mine.app.recorder.events(DEFAULT_TENANT, limit=10, kind=Kind.RESUMED)
    assert (event.user, event.detail["path"], event.rule) == ("bob", "/app/pay", "everything-else")


async def test_a_challenge_goes_on(mine: Gateway) -> None:
    ann = visit(mine)
    await ann.sign_in("ann")
    phone, _ = await ann.enrol(mine.clock)
    mine.clock.advance(30)
    other = visit(mine)
    await other.sign_in("ann")
    challenge = location(await other.get("/admin/x"))
    await mine.restart()
    visit(mine, other)
    page = await other.get(challenge)
    assert location(await other.fill(page, "verify/", code=phone.code)) == "/admin/x"


async def test_what_is_usual_for_somebody_is_remembered(mine: Gateway) -> None:
    """A restart must not make everybody's own browser look strange, nor a stranger's familiar."""
    await visit(mine).sign_in("bob")
    bob = visit(mine)
    await bob.sign_in("bob")
    await mine.restart()
    cookie = f"sallyport={bob.cookies['sallyport']}".encode()
    for agent in (bob.agent, "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"):
        raw = request(target=b"/app/x", cookie=cookie)
        assert (await mine.ask(raw.replace(AGENT.encode(), agent.encode()))).status == 200
    await mine.app.recorder.flush()
    mine.app._access_log.close()
    scores = [float(part.split(b",")[0]) for part in _log(mine).split(b'"risk":')[1:]][-2:]
    assert scores[0] == 0.0
    assert scores[1] > 0.3


def _log(gateway: Gateway) -> bytes:
    return Path(gateway.app.settings.log.access).read_bytes()


async def test_keys_stay_and_starting_and_stopping_are_events(mine: Gateway) -> None:
    before = await mine.ask(request(target=b"/.sallyport/jwks.json"))
    await mine.restart()
    assert (await mine.ask(request(target=b"/.sallyport/jwks.json"))).body == before.body
    await mine.app.recorder.flush()
    events = await mine.app.recorder.events(DEFAULT_TENANT, limit=100)
    kinds = [event.kind for event in reversed(events) if event.kind in (Kind.STARTED, Kind.STOPPED)]
    assert kinds == [Kind.STARTED, Kind.STOPPED, Kind.STARTED]


async def test_stopping_twice_is_stopping_once(mine: Gateway) -> None:
    everything = [mine.app.stop(grace=2.0), mine.app.stop(grace=0.0)]
    assert await asyncio.gather(*everything) == [None, None]
    await mine.app.stop()
    await mine.restart()
    events = await mine.app.recorder.events(DEFAULT_TENANT, limit=100)
    assert [event.kind for event in events].count(Kind.STOPPED) == 1


# -- how a process stops -----------------------------------------------------------------------------------------------


@pytest.fixture
def here() -> Iterator[Home]:
    with home() as one:
        yield one


@pytest_asyncio.fixture
async def service(here: Home) -> AsyncIterator[RecordingUpstream]:
    upstream = RecordingUpstream()
    await upstream.start()
    here.write_config(upstreams={"app": {"url": f"http://127.0.0.1:{upstream.port}"}})
    yield upstream
    await upstream.stop()


async def test_sigterm_lets_requests_finish(here: Home, service: RecordingUpstream) -> None:
    release = asyncio.Event()

    async def slowly(_: Request, line: Line) -> None:
        await line.send(ok(b"0123456789")[:-5])
        await release.wait()
        await line.send(b"56789")

    service.script = slowly
    raw = b"GET /public/x HTTP/1.1\r\nHost: a.test\r\n\r\n"
    async with here.serving() as gateway:
        clients = [await RawClient.connect(here.port) for _ in range(3)]
        idle = await RawClient.connect(here.port)
        try:
            for client in clients:
                await client.send(raw)
            await service.came(3)
            gateway.process.send_signal(signal.SIGTERM)
            await gateway.until("stopping")
            assert await idle.is_closed(), "who waits for nothing is let go at once"
            with pytest.raises(OSError, match=str(here.port)):
                await asyncio.open_connection("127.0.0.1", here.port)
            async with await RawClient.connect(here.admin_port) as probe:
                await probe.send(b"GET /readyz HTTP/1.1\r\nHost: admin\r\n\r\n")
                assert (await probe.response()).status == 503, "nobody sends us more"
            release.set()
            for client in clients:
                answer = await client.response()
                assert (answer.status, answer.body) == (200, b"0123456789")
                assert await client.is_closed()
        finally:
            for client in (*clients, idle):
                client.close()
        assert await gateway.ended() == 0
    assert "Traceback" not in gateway.err
    assert (here.folder / "access.log").read_bytes().count(b"\n") == 3


async def test_a_request_that_comes_while_stopping_is_answered_and_the_connection_closed(
    here: Home, service: RecordingUpstream
) -> None:
    release = asyncio.Event()

    async def slowly(_: Request, line: Line) -> None:
        await release.wait()
        await line.send(ok(b"x"))

    service.script = slowly
    raw = b"GET /public/x HTTP/1.1\r\nHost: a.test\r\n\r\n"
    async with here.serving() as gateway, await RawClient.connect(here.port) as client:
        await client.send(raw)
        await service.came(1)
        gateway.process.send_signal(signal.SIGTERM)
        await gateway.until("stopping")
        release.set()
        answer = await client.response()
        assert answer.status == 200
        assert answer.one("Connection") == b"close"
        assert await client.is_closed()
        assert await gateway.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_at_once_where_nothing_is_on_its_way(here: Home, number: int) -> None:
    async with here.serving() as gateway:
        began = asyncio.get_running_loop().time()
        gateway.process.send_signal(number)
        assert await gateway.ended() == 0
        assert asyncio.get_running_loop().time() - began < 5.0
    assert "Traceback" not in gateway.err


async def test_after_sigkill_it_starts_again_with_everything_that_was_said(
    here: Home, service: RecordingUpstream
) -> None:
    added = await here.call("user", "add", "bob", "--password-stdin", stdin=PASSWORD.encode() + b"\n")
    assert added.code == 0, added
    bob = Visitor(here.port, origin=f"http://127.0.0.1:{here.port}")
    async with here.serving() as gateway:
        assert location(await bob.sign_in("bob", query="?next=/app/x")) == "/app/x"
        assert (await bob.get("/app/x")).status == 200
        os.kill(gateway.process.pid, signal.SIGKILL)
        assert await gateway.ended() == -signal.SIGKILL
    assert (here.data / "sallyport.db-wal").exists(), "it was not closed"
    async with asyncio.timeout(PATIENCE), here.serving() as gateway:
        assert (await bob.get("/app/x")).status == 200
        gateway.process.send_signal(signal.SIGTERM)
        assert await gateway.ended() == 0
    assert "Traceback" not in gateway.err
    assert [one.one("X-Forwarded-User") for one in service.requests] == [b"bob", b"bob"]


async def test_a_unix_socket_left_behind_by_a_killed_gateway_is_no_hindrance(here: Home) -> None:
    path = here.folder / "in.sock"
    here.write_config(listen=f"unix:{path}")
    for number in (signal.SIGKILL, signal.SIGTERM):
        async with here.serving() as gateway:
            assert path.is_socket()
            gateway.process.send_signal(number)
            await gateway.ended()
        assert path.exists() is (number == signal.SIGKILL)
