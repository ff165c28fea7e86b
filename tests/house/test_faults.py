"""Case 124: something of ours breaks, in every room there is. The gate is closed, somebody is told, and it lives on.

Whatever breaks before the service is asked keeps the request from it. Whatever breaks after (counting, logging) must
not take the answer away. The next request, on the same connection, is judged as ever.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from gateway.audit.access_log import AccessLog
from gateway.audit.metrics import Metrics
from gateway.audit.recorder import Recorder
from gateway.core.errors import StoreAway
from gateway.core.events import Kind, Severity
from gateway.core.identity import DEFAULT_TENANT
from gateway.identity.cookie import SessionCookie
from gateway.identity.sessions import Sessions
from gateway.mfa.interrupted import InterruptedRequests
from gateway.mfa.stepup import StepUps
from gateway.policy.book import Book
from gateway.risk.score import Risk
from gateway.wire.identity_headers import IdentityHeaders
from gateway.wire.wire import Wire
from tests.house.process import until
from tests.rig.gateway import Gateway, request
from tests.rig.messages import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")

HTML = b"Accept: text/html\r\nSec-Fetch-Mode: navigate\r\n"
FORM = HTML + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n"

SECRET = "the words of a fault may quote a password"


class Unforeseen(Exception):
    """Nothing anybody wrote a handler for."""


def boom(*_: Any, **__: Any) -> Any:
    raise Unforeseen(SECRET)


def away(*_: Any, **__: Any) -> Any:
    raise StoreAway("database: gone")


Break = Callable[[Gateway, pytest.MonkeyPatch], None]


def method(owner: type, name: str, raising: Callable[..., Any] = boom) -> Break:
    return lambda gateway, patch: patch.setattr(owner, name, raising)


def gate(name: str, raising: Callable[..., Any] = boom) -> Break:
    return lambda gateway, patch: patch.setattr(gateway.app.gate, name, raising)


def function(name: str) -> Break:
    return lambda gateway, patch: patch.setattr(name, boom)


async def warm(gateway: Gateway) -> bytes:
    """Somebody known at once."""
    cookie = await gateway.cookie("bob")
    assert (await gateway.ask(request(target=b"/app/x", cookie=cookie))).status == 200
    gateway.upstream.clear()
    return request(target=b"/app/x", cookie=cookie)


async def cold(gateway: Gateway) -> bytes:
    """Somebody who has to be looked up."""
    raw = await warm(gateway)
    gateway.app.sessions._forget("", "")
    gateway.app.people.session_cookie._tokens.clear()
    return raw


async def elsewhere(gateway: Gateway) -> bytes:
    """Somebody known, from a place whose risk is not."""
    raw = await warm(gateway)
    return raw.replace(b"User-Agent: raw-client/1", b"User-Agent: another/%d" % next(_numbers))


_numbers = iter(range(10_000))


async def admin(gateway: Gateway) -> bytes:
    """Somebody in a browser who has to prove it again."""
    return request(target=b"/admin/x", head=HTML, cookie=await gateway.cookie("ann"))


async def form(gateway: Gateway) -> bytes:
    """A browser that sends a form before it has signed in."""
    return request(b"POST", b"/app/x", FORM, b"a=1")


async def page(gateway: Gateway) -> bytes:
    """A browser that is refused."""
    return request(target=b"/admin/x", head=HTML, cookie=await gateway.cookie("bob"))


async def desk(gateway: Gateway) -> bytes:
    """A page of ours."""
    return request(target=b"/.sallyport/login")


async def public(gateway: Gateway) -> bytes:
    return request()


CLOSED = [
    ("book.find", method(Book, "find"), public),
    ("book.readings", method(Book, "readings"), public),
    ("limiter.spend", gate("_spend"), warm),
    ("limiter.spend, nobody known", gate("_spend"), public),
    ("credential.near", method(SessionCookie, "near"), warm),
    ("credential.identify", method(SessionCookie, "identify"), cold),
    ("sessions.near", method(Sessions, "near"), warm),
    ("sessions.find", method(Sessions, "find"), cold),
    ("sessions.find, store away", method(Sessions, "find", away), cold),
    ("risk.remembered", method(Risk, "remembered"), warm),
    ("risk.score", method(Risk, "score"), elsewhere),
    ("risk.score, store away", method(Risk, "score", away), elsewhere),
    ("decide", function("gateway.gate.decide"), warm),
    ("decide, nobody known", function("gateway.gate.decide"), public),
    ("identity_headers", method(IdentityHeaders, "lines"), warm),
    ("facts", function("gateway.wire.request.read"), warm),
    ("upstream_of", method(Wire, "upstream_of"), warm),
    ("stepups.begin", method(StepUps, "begin"), admin),
    ("stepups.begin, store away", method(StepUps, "begin", away), admin),
    ("interrupted.keep", method(InterruptedRequests, "keep"), form),
    ("interrupted.keep, store away", method(InterruptedRequests, "keep", away), form),
    ("answers.denied", function("gateway.wire.answers.denied"), page),
    ("error_page", lambda gateway, patch: patch.setattr(gateway.app.wire, "error_page", boom), page),
    ("error_page of a fault", lambda gateway, patch: _twice(gateway, patch), page),
    ("desk", function("gateway.web.forms.token"), desk),
]


def _twice(gateway: Gateway, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gateway.app.wire, "error_page", boom)
    patch.setattr(gateway.app.gate, "_spend", boom)


async def faults(gateway: Gateway) -> int:
    await gateway.app.recorder.flush()
    events = await gateway.app.recorder.events(DEFAULT_TENANT, limit=10_000, kind=Kind.FAULT)
    assert all(event.severity is Severity.ALARM for event in events)
    assert SECRET not in repr(events)
    return sum(int(event.detail.get("count", 1)) for event in events)


@pytest.mark.parametrize(("breaks", "ask"), [row[1:] for row in CLOSED], ids=[row[0] for row in CLOSED])
async def test_a_fault_closes_the_gate(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, breaks: Break, ask: Callable[[Gateway], Any]
) -> None:
    raw = await ask(gateway)
    before = await faults(gateway)
    async with await gateway.connect() as client:
        with monkeypatch.context() as patch:
            breaks(gateway, patch)
            await client.send(raw)
            answer = await client.response()
            assert await faults(gateway) > before
        says_nothing(answer)
        assert gateway.upstream.requests == []

        await client.send(request())
        assert (await client.response()).status == 200, "the same connection goes on"
    healed = await gateway.ask(raw)
    assert healed.status < 500


def says_nothing(answer: Response) -> None:
    """Generic: the status, a code and the request's id; nothing of what broke."""
    assert answer.status in (403, 500, 503), answer.raw
    said = answer.raw + answer.body
    for word in (SECRET.encode(), b"Unforeseen", b"Traceback", b".py", b"database"):
        assert word not in said
    assert answer.one("Cache-Control") == b"no-store"
    assert answer.one("X-Request-Id") in answer.body


AFTER = [
    ("access_log.write", method(AccessLog, "write")),
    ("metrics.served", method(Metrics, "served")),
]


@pytest.mark.parametrize("breaks", [row[1] for row in AFTER], ids=[row[0] for row in AFTER])
async def test_a_fault_after_the_answer_takes_nothing_away(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, breaks: Break
) -> None:
    raw = await warm(gateway)
    before = await faults(gateway)
    async with await gateway.connect() as client:
        with monkeypatch.context() as patch:
            breaks(gateway, patch)
            for _ in range(3):
                await client.send(raw)
                answer = await client.response()
                assert (answer.status, answer.body) == (200, b"GET /app/x 0")
        await client.send(raw)
        assert (await client.response()).status == 200
    assert len(gateway.upstream.requests) == 4
    assert len(gateway.upstream.lines) <= 1, "the service's connection was kept"
    assert await faults(gateway) > before


async def test_a_fault_of_whoever_is_told_of_events_is_nobody_elses(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(gateway.app.recorder, "_subscribers", [boom])
        answer = await gateway.ask(request(target=b"/nowhere", host=b"Host: unknown.test\r\n"))
    assert answer.status == 403
    assert gateway.upstream.requests == []


async def test_an_event_that_cannot_be_kept_opens_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "_row", boom)
        dropped = gateway.app.recorder.dropped
        answer = await gateway.ask(request(target=b"/nowhere", host=b"Host: unknown.test\r\n"))
        assert gateway.app.recorder.dropped == dropped + 1
    assert answer.status == 403
    assert gateway.upstream.requests == []


async def test_a_flood_of_faults_is_a_few_rows(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can make us fail must not be able to fill the store with it."""
    await gateway.app.recorder.flush()
    before = len(await gateway.app.recorder.events(DEFAULT_TENANT, limit=10_000, kind=Kind.FAULT))
    counted = await faults(gateway)
    with monkeypatch.context() as patch:
        gate("_spend")(gateway, patch)
        async with await gateway.connect() as client:
            await client.send(request() * 20)
            for _ in range(20):
                assert (await client.response()).status == 500
    assert await faults(gateway) == counted + 20
    after = await gateway.app.recorder.events(DEFAULT_TENANT, limit=10_000, kind=Kind.FAULT)
    assert len(after) - before <= 3


# -- the database, while we run ----------------------------------------------------------------------------------------


async def test_a_database_that_is_locked_asks_nothing_it_cannot_keep(gateway: Gateway) -> None:
    """Reading goes on beside a writer (write-ahead log), so only what has to be written waits, and says so."""
    known = await warm(gateway)
    path = gateway.app.records.place.path
    blocker = sqlite3.connect(path, isolation_level=None, timeout=0)
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        async with asyncio.timeout(20):
            assert (await gateway.ask(known)).status == 200
            waits = asyncio.create_task(gateway.ask(await admin(gateway)))
            assert (await gateway.ask(known)).status == 200
            assert not waits.done(), "nobody else waits for what cannot be written"
            assert (await waits).status == 503, "a challenge that cannot be kept is not asked"
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    assert [one.target for one in gateway.upstream.requests] == [b"/app/x", b"/app/x"]
    assert (await gateway.ask(await admin(gateway))).status == 303


async def test_a_database_that_is_away_refuses_who_is_not_known_and_recovers(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = await gateway.sign_in("bob")
    known = await warm(gateway)
    unknown = request(target=b"/app/y", cookie=stranger)
    with monkeypatch.context() as patch:
        for name in ("read", "begin"):
            patch.setattr(gateway.app.records, name, away)
        answer = await gateway.ask(unknown)
        assert answer.status == 503
        says_nothing(answer)
        assert (await gateway.ask(request(target=b"/app/z", cookie=stranger[:-3] + b"abc"))).status == 503
        assert (await gateway.ask(known)).status == 200
        assert (await gateway.ask(request())).status == 200, "what is open to everybody needs no store"
        assert (await gateway.ask(request(target=b"/.sallyport/account", cookie=stranger))).status == 503
    assert [one.target for one in gateway.upstream.requests] == [b"/app/x", b"/public/x"]
    assert (await gateway.ask(unknown)).status == 200
    assert (await gateway.ask(request(target=b"/app/z", cookie=stranger[:-3] + b"abc"))).status == 401


@pytest.mark.parametrize("raising", [boom, away])
async def test_housekeeping_outlives_what_fails_in_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, raising: Callable[..., Any]
) -> None:
    """It is what notices that a session was ended elsewhere: while it cannot, nobody should send us requests."""
    with monkeypatch.context() as patch:
        patch.setattr(Sessions, "refresh", raising)
        await until(lambda: not gateway.app._store_up)
        assert gateway.app._readiness()[0] is False
        assert (await gateway.ask(request())).status == 200
    await until(lambda: gateway.app._store_up)
    assert gateway.app._readiness()[0] is True
