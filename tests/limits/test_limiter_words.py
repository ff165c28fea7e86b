"""What a limit can be asked for beside its rate: to wait, to watch, to shrink; and what an operator can do about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.clock import ManualClock
from gateway.core.rule import Adaptation, Backoff, LimitSpec
from gateway.limits.limiter import Limiter
from gateway.limits.spelling import Who
from gateway.limits.standing import Standing
from tests.limits.conftest import STEPS, facts, limit, somebody

BACKOFF = Backoff(after=2, wait=100.0, longest=1000.0, forget=5000.0)


@pytest.fixture
def limiter(clock: ManualClock) -> Limiter:
    return Limiter(clock, STEPS, capacity=100)


def run_into(limiter: Limiter, limits: tuple[LimitSpec, ...], where: str = "192.0.2.1") -> float:
    """Ask until refused; how long one has to wait then."""
    for _ in range(1000):
        quota = limiter.spend(limits, facts(where), None, "r")[0]
        if not quota.allowed:
            return quota.retry_after
    raise AssertionError("never refused")


# -- backoff -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", sorted(STEPS))
def test_who_runs_into_it_again_and_again_waits_longer_each_time(
    limiter: Limiter, clock: ManualClock, algorithm: str
) -> None:
    limits = (replace(limit(rate=3, window=10.0, algorithm=algorithm), backoff=BACKOFF),)
    waits = []
    for _ in range(7):
        waits.append(run_into(limiter, limits))
        clock.advance(waits[-1] + 0.001)
    assert all(wait <= 10.0 for wait in waits[:2])
    assert waits[2:] == [100.0, 200.0, 400.0, 800.0, 1000.0]


def test_who_waits_is_refused_without_being_counted_and_makes_it_no_longer(
    limiter: Limiter, clock: ManualClock
) -> None:
    limits = (replace(limit(rate=1, window=10.0), backoff=replace(BACKOFF, after=0)),)
    assert run_into(limiter, limits) == 100.0
    for second in range(1, 100):
        clock.advance(1.0)
        (quota,) = limiter.spend(limits, facts(), None, "r")
        assert (quota.allowed, quota.remaining, quota.retry_after) == (False, 0, 100.0 - second)
        limiter.sweep()
    clock.advance(1.0)
    assert limiter.spend(limits, facts(), None, "r")[0].allowed


def test_others_do_not_wait(limiter: Limiter) -> None:
    limits = (replace(limit(rate=1), backoff=replace(BACKOFF, after=0)),)
    run_into(limiter, limits)
    assert limiter.spend(limits, facts("192.0.2.2"), None, "r")[0].allowed


def test_offences_outlive_the_counter_and_are_forgotten_in_the_end(limiter: Limiter, clock: ManualClock) -> None:
    limits = (replace(limit(rate=1, window=10.0), backoff=BACKOFF),)
    for _ in range(2):
        clock.advance(run_into(limiter, limits))
    clock.advance(2000.0)
    for _ in range(5):
        limiter.sweep()
    assert len(limiter) == 0
    assert run_into(limiter, limits) == 100.0
    clock.advance(5000.0)
    for _ in range(5):
        limiter.sweep()
    assert limiter.status() == []
    assert run_into(limiter, limits) == 10.0


def test_the_wait_is_everybodys_of_the_request(limiter: Limiter, clock: ManualClock) -> None:
    """One limit that is waited for refuses; the others are not spent."""
    waits, counts = replace(limit("waits", rate=1), backoff=replace(BACKOFF, after=0)), limit("counts", rate=10)
    limits = (waits, counts)
    run_into(limiter, limits)
    for _ in range(20):
        first, second = limiter.spend(limits, facts(), None, "r")
        assert (first.allowed, second.allowed, second.remaining) == (False, True, 9)


def test_a_flood_of_offenders_is_bounded_and_the_longest_quiet_goes_first(limiter: Limiter, clock: ManualClock) -> None:
    limits = (replace(limit(rate=1, window=10.0), backoff=replace(BACKOFF, after=0)),)
    for number in range(150):
        run_into(limiter, limits, f"10.0.0.{number}")
        clock.advance(0.01)
    remembered = limiter.status(most=1000)
    assert sum(1 for one in remembered if one.offences) == 100
    assert not limiter.spend(limits, facts("10.0.0.149"), None, "r")[0].allowed
    clock.advance(20.0)
    assert limiter.spend(limits, facts("10.0.0.0"), None, "r")[0].allowed


# -- shadow ------------------------------------------------------------------------------------------------------------


def test_a_limit_in_shadow_is_counted_and_refuses_nobody(limiter: Limiter, clock: ManualClock) -> None:
    watched, real = replace(limit("watched", rate=2), shadow=True), limit("real", rate=5)
    limits = (watched, real)
    said = [limiter.spend(limits, facts(), None, "r") for _ in range(6)]
    assert [(one.allowed, one.how) for one, _ in said] == [(True, "shadow")] * 2 + [(False, "shadow")] * 4
    assert [two.allowed for _, two in said] == [True] * 5 + [False]
    assert {two.how for _, two in said} == {""}


def test_a_limit_in_shadow_counts_what_another_refuses(limiter: Limiter) -> None:
    real, watched = limit("real", rate=1), replace(limit("watched", rate=5), shadow=True)
    said = [limiter.spend((real, watched), facts(), None, "r") for _ in range(1)]
    limits = said[0][0].limit, said[0][1].limit
    said += [limiter.spend(limits, facts(), None, "r") for _ in range(3)]
    assert [(one.allowed, two.remaining) for one, two in said] == [(True, 4), (False, 3), (False, 2), (False, 1)]


def test_a_limit_in_shadow_waits_as_it_would(limiter: Limiter, clock: ManualClock) -> None:
    limits = (replace(limit(rate=1, window=10.0), shadow=True, backoff=replace(BACKOFF, after=0)),)
    assert run_into(limiter, limits) == 100.0
    clock.advance(50.0)
    (quota,) = limiter.spend(limits, facts(), None, "r")
    assert (quota.allowed, quota.how, quota.retry_after) == (False, "shadow", 50.0)


# -- shares ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", sorted(STEPS))
def test_a_limit_that_adapts_has_the_share_it_is_given(limiter: Limiter, algorithm: str) -> None:
    limits = (replace(limit(rate=20, algorithm=algorithm), adapt=Adaptation(risk=0.5)),)
    granted = sum(limiter.spend(limits, facts(), None, "r", lambda _: 0.25)[0].allowed for _ in range(40))
    assert granted == 5


@pytest.mark.parametrize("algorithm", sorted(STEPS))
def test_what_was_used_of_a_share_was_used_of_the_whole(limiter: Limiter, clock: ManualClock, algorithm: str) -> None:
    limits = (replace(limit(rate=20, algorithm=algorithm), adapt=Adaptation(risk=0.5)),)
    for _ in range(10):
        assert limiter.spend(limits, facts(), None, "r", lambda _: 1.0)[0].allowed
    # GCRA keeps a moment: whoever has used half of the whole has used half of the share.
    for _ in range(2 if algorithm == "gcra" else 0):
        assert limiter.spend(limits, facts(), None, "r", lambda _: 0.25)[0].allowed
    (quota,) = limiter.spend(limits, facts(), None, "r", lambda _: 0.25)
    assert not quota.allowed
    clock.advance(quota.retry_after + 0.001)
    assert limiter.spend(limits, facts(), None, "r", lambda _: 0.25)[0].allowed, "what it promised holds"


@pytest.mark.parametrize("algorithm", sorted(STEPS))
def test_being_refused_a_share_forgives_nothing_of_the_whole(
    limiter: Limiter, clock: ManualClock, algorithm: str
) -> None:
    """Somebody who can choose what is known of them, as by leaving out a cookie, wins nothing by changing about."""
    limits = (replace(limit(rate=20, burst=9, window=9.0, algorithm=algorithm), adapt=Adaptation(unknown_device=0.1)),)
    granted = 0
    for _ in range(50):
        for left in (1.0, 0.1, 0.5, 0.04):
            granted += limiter.spend(limits, facts(), None, "r", lambda _, left=left: left)[0].allowed
    most = 20 if algorithm in ("fixed_window", "sliding_window") else 9
    assert 5 <= granted <= most


def test_only_limits_that_adapt_are_asked_and_without_a_share_they_are_whole(limiter: Limiter) -> None:
    asked = []

    def share(spec: LimitSpec) -> float:
        asked.append(spec.name)
        return 0.1

    limits = (limit("plain", rate=20), replace(limit("adapts", rate=20), adapt=Adaptation(latency=1.0)))
    assert [quota.remaining for quota in limiter.spend(limits, facts(), None, "r", share)] == [19, 1]
    assert asked == ["adapts"]
    assert [quota.remaining for quota in limiter.spend(limits, facts(), None, "r")] == [18, 18]


# -- what an operator sees and does ------------------------------------------------------------------------------------


def test_counters_are_shown_as_they_stand_and_looking_counts_nothing(limiter: Limiter, clock: ManualClock) -> None:
    address = (replace(limit("a", rate=2, window=10.0), backoff=replace(BACKOFF, after=0)),)
    user = (limit("u", ("user",), rate=5, window=10.0),)
    run_into(limiter, address)
    limiter.spend(user, facts(), somebody("s-ann"), "other")
    clock.advance(1.0)
    shown = [
        Standing("r", "a", "a192.0.2.1", False, 0, 99.0, 99.0, 1, 99.0),
        Standing("other", "u", "udefault/s-ann", True, 4, 1.0, 0.0, 0, 0.0),
    ]
    for _ in range(3):
        assert limiter.status() == shown
    assert limiter.status(rule="r") == shown[:1]
    assert limiter.status(limit="u") == shown[1:]
    assert limiter.status(who=Who([{"udefault/s-ann"}])) == shown[1:]
    assert limiter.status(rule="r", limit="u") == limiter.status(who=Who([{"udefault/s"}])) == []


def test_what_is_shown_is_bounded_and_blocks_come_first(limiter: Limiter) -> None:
    limits = (limit(rate=1),)
    for number in range(50):
        limiter.spend(limits, facts(f"10.0.0.{number}"), None, "r")
    run_into(limiter, limits, "10.0.0.49")
    shown = limiter.status(most=10)
    assert len(shown) == 10
    assert (shown[0].key, shown[0].allowed) == ("a10.0.0.49", False)


def test_a_reset_begins_anew(limiter: Limiter, clock: ManualClock) -> None:
    limits = (replace(limit("a", rate=1), backoff=replace(BACKOFF, after=0)), limit("b", rate=1))
    for where in ("192.0.2.1", "192.0.2.2"):
        run_into(limiter, limits, where)
    assert limiter.reset(rule="elsewhere") == limiter.reset(limit="c") == limiter.reset(who=Who([{"a192.0.2.9"}])) == 0
    assert limiter.reset("r", "a", Who([{"a192.0.2.1"}])) == 1
    (first, second) = limiter.spend(limits, facts("192.0.2.1"), None, "r")
    assert (first.allowed, second.allowed) == (True, False)
    assert limiter.reset("r", "", Who([{"a192.0.2.1"}])) == 1
    assert all(quota.allowed for quota in limiter.spend(limits, facts("192.0.2.1"), None, "r"))
    assert not limiter.spend(limits, facts("192.0.2.2"), None, "r")[0].allowed
    assert limiter.reset() == 4
    assert (len(limiter), limiter.status()) == (0, [])
    assert all(quota.allowed for quota in limiter.spend(limits, facts("192.0.2.2"), None, "r"))
