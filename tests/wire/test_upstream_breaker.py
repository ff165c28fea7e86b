"""A service that fails too often is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.reasons import Reason
from gateway.wire.breaker import TABLE, Breaker, Sign, State, Tripping
from gateway.wire.request import Declined
from tests.rig.upstream import echo
from tests.wire.services_at import GET, hang_up, several, status


def noted(breaker: Breaker, outcomes: str, now: float = 0.0) -> None:
    for outcome in outcomes:
        breaker.note(outcome == "+", now)


def refused(breaker: Breaker, now: float) -> float:
    with pytest.raises(Declined) as caught:
        breaker.admit(now)
    assert caught.value.reason is Reason.UPSTREAM_CIRCUIT_OPEN
    return caught.value.retry_after


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("-" * 9, State.CLOSED),  # too few to judge by
        ("-" * 10, State.OPEN),
        ("+-" * 5, State.OPEN),
        ("+" * 6 + "-" * 4, State.CLOSED),
        ("-" * 5 + "+" * 5, State.CLOSED),  # a success is no sign of failure
        ("-" * 4 + "+" * 6 + "-" * 4, State.CLOSED),  # the oldest are forgotten
        ("+" * 100 + "-" * 5, State.OPEN),
    ],
)
def test_when_it_opens(outcomes: str, state: State) -> None:
    breaker = Breaker("app", Tripping(failures=0.5, of=10, open_for=5.0))
    noted(breaker, outcomes)
    assert breaker.state is state


def test_open_half_open_and_closed_again() -> None:
    breaker = Breaker("app", Tripping(failures=0.5, of=4, open_for=5.0))
    noted(breaker, "----", now=100.0)
    assert refused(breaker, 100.0) == 5.0
    assert refused(breaker, 104.0) == 1.0
    noted(breaker, "+-+-", now=104.0)  # what was on its way says nothing new
    breaker.admit(105.0)
    assert breaker.state is State.HALF_OPEN
    assert refused(breaker, 105.0) == 5.0  # one at a time
    breaker.note(False, 106.0)
    assert breaker.state is State.OPEN
    assert refused(breaker, 106.0) == 5.0
    breaker.admit(111.0)
    breaker.note(True, 111.5)
    assert breaker.state is State.CLOSED
    breaker.admit(111.5)
    noted(breaker, "---", now=112.0)
    assert breaker.state is State.CLOSED  # it begins anew


def test_a_trial_whose_end_nobody_hears_of_is_followed_by_another() -> None:
    breaker = Breaker("app", Tripping(failures=0.5, of=1, open_for=5.0))
    breaker.note(False, 0.0)
    breaker.admit(5.0)
    refused(breaker, 9.9)
    breaker.admit(10.0)
    assert breaker.state is State.HALF_OPEN


def test_the_table_has_a_way_out_of_every_state() -> None:
    reached = {State.CLOSED}
    for _ in State:
        reached |= {TABLE[here, sign] for here, sign in TABLE if here in reached}
    assert reached == set(State)
    assert all(any(TABLE.get((state, sign), state) is not state for sign in Sign) for state in State)


# -- over sockets ------------------------------------------------------------------------------------------------------


async def test_refused_at_once_and_tried_again(tmp_path: Path) -> None:
    async with several(tmp_path, 1, breaker={"failures": "50%", "of": 4, "open_for": "5s"}) as service:
        (place,) = service.places
        place.script = status(b"503 No")
        assert await service.ask(4) == [503] * 4
        assert service.counts == [4]
        answer = await service.gateway.ask(GET)
        assert (answer.status, answer.one("Retry-After")) == (503, b"5")
        assert b"ERR-UPSTREAM-CIRCUIT-OPEN" in answer.body
        assert service.counts == [4]
        assert 'sallyport_upstream_breaker{upstream="app"} 2.0' in service.gateway.app.metrics.render()[0].decode()
        await service.pass_time(3.5)
        assert (await service.gateway.ask(GET)).one("Retry-After") == b"2"
        await service.pass_time(1.6)
        assert await service.ask() == [503]  # the one on trial
        assert service.counts == [5]
        assert await service.ask(3) == [503] * 3
        assert service.counts == [5]
        await service.pass_time(5.1)
        place.script = echo
        assert await service.ask(3) == [200] * 3
        assert 'sallyport_upstream_breaker{upstream="app"} 0.0' in service.gateway.app.metrics.render()[0].decode()


async def test_other_services_do_not_notice(tmp_path: Path) -> None:
    async with several(tmp_path, 1, breaker={"of": 2}) as service:
        service.places[0].script = hang_up
        assert await service.ask(2) == [502, 502]
        assert await service.ask() == [503]
        assert (await service.gateway.ask(GET.replace(b"/public/x", b"/other/x"))).status == 502


async def test_answers_of_the_service_itself_are_no_failures(tmp_path: Path) -> None:
    async with several(tmp_path, 1, breaker={"of": 2}) as service:
        for code in (b"400 Bad", b"404 No", b"500 Oops", b"501 No"):
            service.places[0].script = status(code)
            assert await service.ask(3) == [int(code[:3])] * 3


async def test_what_opens_it_are_failures_of_every_kind(tmp_path: Path) -> None:
    async with several(tmp_path, 1, breaker={"of": 3, "failures": "100%"}) as service:
        (place,) = service.places
        place.script = hang_up
        assert await service.ask() == [502]
        place.script = status(b"504 Late")
        assert await service.ask() == [504]
        await place.stop()
        assert await service.ask() == [502]
        assert await service.ask() == [503]
        assert service.upstream.breaker is not None
        assert service.upstream.breaker.state is State.OPEN
