"""What is sent again, and what never: no request may be carried out twice that was asked for once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.wire.retries import Budget
from tests.rig.gateway import request
from tests.rig.messages import Request, Truncated
from tests.rig.upstream import Line, RecordingUpstream, Script, fixed
from tests.wire.services_at import GET, hang_up, several, status

EVERY = ["connect", "reset", "502", "503", "504"]
SAFE = [b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"]
UNSAFE = [b"POST", b"PATCH"]
BODIES = {"bodyless": (b"", b""), "short": (b"Content-Length: 2\r\n", b"hi"), "empty": (b"Content-Length: 0\r\n", b"")}
CHUNKED = (b"Transfer-Encoding: chunked\r\n", b"2\r\nhi\r\n0\r\n\r\n")


async def half_an_answer(_: Request, line: Line) -> None:
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    line.close()


async def half_a_head(_: Request, line: Line) -> None:
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    line.close()


FAILURES: dict[str, Script] = {
    "reset": hang_up,
    "half a head": half_a_head,
    "half an answer": half_an_answer,
    "502": status(b"502 Bad Gateway"),
    "503": status(b"503 Service Unavailable"),
    "504": status(b"504 Gateway Timeout"),
    "500": status(b"500 Internal Server Error"),
    "nonsense": fixed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
}
AGAIN = {"reset", "half a head", "502", "503", "504"}
"""Failures after which a request that can do no harm is sent again."""


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_request_is_sent_twice_only_where_that_does_no_harm(tmp_path: Path, failure: str) -> None:
    """Every method, with and without a body, against each way to fail: one place fails always, the other never."""
    async with several(tmp_path, 2, retries={"on": EVERY, "budget": "100%"}, ejection=None) as service:
        bad, good = service.places
        for method in SAFE + UNSAFE:
            for name, (head, body) in {**BODIES, "chunked": CHUNKED}.items():
                came = []
                for _ in range(2):  # the one in turn is the failing one exactly once
                    service.forget()
                    bad.script = FAILURES[failure]
                    try:
                        answer = await service.gateway.ask(request(method, b"/public/x", head, body), method.decode())
                        told = answer.status
                    except Truncated:
                        told = 0
                    came.append((len(bad.requests), len(good.requests), told))
                again = failure in AGAIN and method in SAFE and name in ("bodyless", "empty")
                case = (method, name, came)
                twice = [one for one in came if one[0] + one[1] > 1]
                if again:
                    assert twice == [(1, 1, 200)], case
                else:
                    assert twice == [], case
                    assert sum(one[2] == 200 for one in came) >= 1, case


@pytest.mark.parametrize("body", [*BODIES.values(), CHUNKED], ids=[*BODIES, "chunked"])
async def test_what_was_never_sent_may_go_elsewhere_whatever_it_is(tmp_path: Path, body: tuple[bytes, bytes]) -> None:
    async with several(tmp_path, 2, ejection=None) as service:
        await service.places[0].stop()
        for method in SAFE + UNSAFE:
            service.forget()
            raw = request(method, b"/public/x", *body)
            assert await service.ask(2, raw, method.decode()) == [200, 200]
            assert service.counts == [0, 2]
        assert service.upstream.retried["tried"] == len(SAFE + UNSAFE)


@pytest.mark.parametrize("method", UNSAFE)
async def test_what_was_written_on_a_kept_connection_is_not_written_again(tmp_path: Path, method: bytes) -> None:
    async with several(tmp_path, 2, retries={"on": EVERY}) as service:
        assert await service.ask(2) == [200, 200]
        service.forget()
        for place in service.places:
            place.script = hang_up
        raw = request(method, b"/public/x", b"Content-Length: 2\r\n", b"hi")
        assert await service.ask(1, raw, method.decode()) == [502]
        assert sum(service.counts) == 1


async def test_one_place_is_not_asked_again_unless_the_operator_says_so(tmp_path: Path) -> None:
    async with several(tmp_path, 1) as service:
        service.places[0].script = status(b"503 Service Unavailable")
        assert await service.ask() == [503]
        assert service.counts == [1]


async def test_one_place_is_asked_again_if_the_operator_says_so(tmp_path: Path) -> None:
    async with several(tmp_path, 1, retries={"on": ["503"], "attempts": 3}) as service:
        service.places[0].script = status(b"503 Service Unavailable")
        assert await service.ask() == [503]
        assert service.counts == [3]
        for _ in range(2):
            service.places[0].script = hang_up
            service.forget()
            assert await service.ask() in ([502], [200])  # `reset` was not asked for


async def test_the_last_failure_is_what_the_client_sees(tmp_path: Path) -> None:
    async with several(tmp_path, 2, retries={"on": EVERY}) as service:
        for place in service.places:
            place.script = fixed(b"HTTP/1.1 503 No\r\nContent-Length: 4\r\nX-Why: me\r\n\r\nbusy")
        answer = await service.gateway.ask(GET)
        assert (answer.status, answer.body, answer.one("X-Why")) == (503, b"busy", b"me")
        assert service.counts == [1, 1]


async def test_a_budget_keeps_retries_from_doubling_the_load(tmp_path: Path) -> None:
    async with several(tmp_path, 2, retries={"on": ["503"], "budget": "20%"}, ejection=None) as service:
        for place in service.places:
            place.script = status(b"503 Service Unavailable")
        assert await service.ask(100) == [503] * 100
        again = sum(service.counts) - 100
        assert 25 <= again <= 30  # what was in hand, and a fifth of what was asked
        assert service.upstream.retried == {"tried": again, "over_budget": 100 - again}
        text = service.gateway.app.metrics.render()[0].decode()
        assert f'sallyport_upstream_retries_total{{outcome="tried",upstream="app"}} {again}.0' in text
        assert 'sallyport_upstream_retries_total{outcome="over_budget",upstream="app"}' in text


def test_a_budget_in_numbers() -> None:
    budget = Budget(0.2)
    assert sum(budget.spend() for _ in range(50)) == 10
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(50)) == 10  # it does not pile up
    granted = 0
    for _ in range(1000):
        budget.earn()
        granted += budget.spend()
    assert 199 <= granted <= 201


async def test_a_head_that_has_gone_on_is_not_taken_back(tmp_path: Path) -> None:
    """Mid-body failure: the client sees an answer that is not whole, and no second one."""
    async with several(tmp_path, 2, retries={"on": EVERY}) as service:
        for place in service.places:
            place.script = half_an_answer
        async with await service.gateway.connect() as client:
            await client.send(GET)
            with pytest.raises(Truncated):
                await client.response()
            assert client.reset
        assert sum(service.counts) == 1
        assert sum(endpoint.failures for endpoint in service.endpoints) == 1


async def test_a_connection_that_ends_at_once_is_none(tmp_path: Path) -> None:
    """Accepted by the kernel, dropped by the service: nothing was answered, the request goes elsewhere."""
    async with several(tmp_path, 2, retries={"on": EVERY}, ejection=None) as service:
        bad = service.places[0]

        async def drop(_: Request, line: Line) -> None:
            line.abort()

        for _ in range(6):
            bad.script = drop
            assert await service.ask() == [200]


async def test_a_retry_waits_for_no_kept_connection(tmp_path: Path) -> None:
    async with several(tmp_path, 2, retries={"on": EVERY}) as service:
        assert await service.ask(2) == [200, 200]
        for place in service.places:  # every kept connection ends just as it is used
            place.script = _once_used(place)
        assert await service.ask(4) == [200] * 4


def _once_used(place: RecordingUpstream) -> Script:
    async def script(received: Request, line: Line) -> None:
        if received.number > 1:
            line.close()
        else:
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    return script
