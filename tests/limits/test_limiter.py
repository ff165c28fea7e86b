from __future__ import annotations

import random

import pytest

from gateway.core.clock import ManualClock
from gateway.limits.limiter import Limiter
from tests.limits.conftest import STEPS, facts, limit, somebody


@pytest.fixture
def limiter(clock: ManualClock) -> Limiter:
    return Limiter(clock, STEPS, capacity=100)


def test_lets_through_what_the_limit_says_and_again_later(limiter: Limiter, clock: ManualClock) -> None:
    limits = (limit(rate=3),)
    outcomes = [limiter.spend(limits, facts(), None, "r")[0] for _ in range(4)]
    assert [(quota.allowed, quota.remaining) for quota in outcomes] == [(True, 2), (True, 1), (True, 0), (False, 0)]
    assert outcomes[3].retry_after == 20.0
    assert outcomes[3].limit is limits[0]
    clock.advance(20.0)
    assert [limiter.spend(limits, facts(), None, "r")[0].allowed for _ in range(2)] == [True, False]


def test_no_limits_cost_nothing(limiter: Limiter) -> None:
    assert limiter.spend((), facts(), None, "r") == ()
    assert len(limiter) == 0


def test_one_quota_for_each_limit_in_order(limiter: Limiter) -> None:
    limits = (limit("a", ("user",), rate=5), limit("b", rate=7, algorithm="sliding_window"))
    assert [(quota.limit.name, quota.remaining) for quota in limiter.spend(limits, facts(), somebody(), "r")] == [
        ("a", 4),
        ("b", 6),
    ]


def test_when_one_limit_refuses_the_others_lose_nothing(limiter: Limiter, clock: ManualClock) -> None:
    wide, narrow = limit("wide", rate=10, algorithm="sliding_window"), limit("narrow", ("user",), rate=2)
    limits = (wide, narrow)
    for _ in range(2):
        limiter.spend(limits, facts(), somebody(), "r")
    for _ in range(20):
        first, second = limiter.spend(limits, facts(), somebody(), "r")
        assert (first.allowed, first.remaining, first.retry_after) == (True, 8, 0.0)
        assert second.allowed is False
    clock.advance(30.0)
    first, second = limiter.spend(limits, facts(), somebody(), "r")
    assert (first.remaining, second.allowed) == (7, True)


def test_callers_and_rules_are_counted_apart(limiter: Limiter) -> None:
    limits = (limit(rate=1),)
    assert limiter.spend(limits, facts("192.0.2.1"), None, "one")[0].allowed
    assert limiter.spend(limits, facts("192.0.2.2"), None, "one")[0].allowed
    assert limiter.spend(limits, facts("192.0.2.1"), None, "two")[0].allowed
    assert not limiter.spend(limits, facts("192.0.2.1"), None, "one")[0].allowed


def test_path_variants_share_one_counter(limiter: Limiter) -> None:
    """Case 117: the rule decides, not the spelling of the path."""
    limits = (limit("route", ("route", "address"), rate=2),)
    outcomes = [limiter.spend(limits, facts(path=path), None, "r")[0].allowed for path in ("/a", "/A", "/a/", "/a;b")]
    assert outcomes == [True, True, False, False]


def test_an_unchanged_limit_goes_on_over_a_reload(limiter: Limiter) -> None:
    for _ in range(3):
        limiter.spend((limit(rate=3),), facts(), None, "r")
    assert not limiter.spend((limit(rate=3),), facts(), None, "r")[0].allowed
    assert limiter.spend((limit(rate=4),), facts(), None, "r")[0].allowed


def test_setting_the_clock_changes_nothing(limiter: Limiter, clock: ManualClock) -> None:
    """Case 118."""
    limits = (limit(rate=1), limit("s", rate=1, algorithm="sliding_window"))
    limiter.spend(limits, facts(), None, "r")
    for jump in (-7200.0, 7200.0, 86400.0):
        clock.jump(jump)
        assert not limiter.spend(limits, facts(), None, "r")[0].allowed
    clock.advance(60.0)
    assert limiter.spend(limits, facts(), None, "r")[0].allowed


def test_memory_is_bounded_and_the_idle_go_first(limiter: Limiter, clock: ManualClock) -> None:
    limits = (limit(rate=3),)
    for number in range(1000):
        limiter.spend(limits, facts(f"10.0.{number // 250}.{number % 250}"), None, "r")
        clock.advance(0.001)
        assert len(limiter) <= 100
    assert len(limiter) == 100


def test_many_addresses_do_not_wash_a_block_away(limiter: Limiter) -> None:
    limits = (limit(rate=2),)
    for _ in range(3):
        limiter.spend(limits, facts("192.0.2.66"), None, "r")
    for number in range(5000):
        limiter.spend(limits, facts(f"10.{number // 250}.{number % 250}.1"), None, "r")
        if number % 100 == 0:
            assert not limiter.spend(limits, facts("192.0.2.66"), None, "r")[0].allowed
    assert not limiter.spend(limits, facts("192.0.2.66"), None, "r")[0].allowed


def test_a_flood_of_addresses_does_not_push_out_what_accounts_have_used(limiter: Limiter) -> None:
    account, address = (limit("u", ("user",), rate=10),), (limit("a", rate=10),)
    for _ in range(9):
        limiter.spend(account, facts(), somebody(), "r")
    for number in range(5000):
        limiter.spend(address, facts(f"10.{number // 250}.{number % 250}.1"), None, "r")
    assert limiter.spend(account, facts(), somebody(), "r")[0].remaining == 0


def test_the_extreme_forgets_the_oldest_block_and_stays_bounded(clock: ManualClock) -> None:
    limiter = Limiter(clock, STEPS, capacity=5)
    limits = (limit(rate=1),)
    for number in range(6):
        for _ in range(2):
            limiter.spend(limits, facts(f"192.0.2.{number}"), None, "r")
        clock.advance(1.0)
    assert len(limiter) == 5
    allowed = [limiter.spend(limits, facts(f"192.0.2.{number}"), None, "r")[0].allowed for number in (1, 2, 3, 4, 5)]
    assert allowed == [False] * 5
    assert limiter.spend(limits, facts("192.0.2.0"), None, "r")[0].allowed


@pytest.mark.parametrize("algorithm", sorted(STEPS))
def test_whole_counters_are_swept(clock: ManualClock, algorithm: str) -> None:
    limiter = Limiter(clock, STEPS, capacity=10_000)
    limits = (limit(rate=1, algorithm=algorithm),)
    for number in range(600):
        for _ in range(1 + number % 2):
            limiter.spend(limits, facts(f"10.0.{number // 250}.{number % 250}"), None, "r")
    assert len(limiter) == 600
    for _ in range(3):
        limiter.sweep()
    assert len(limiter) == 600
    clock.advance(61.0)
    for _ in range(6):
        limiter.sweep()
    assert len(limiter) == 0
    assert limiter.spend(limits, facts(), None, "r")[0].allowed
    assert not limiter.spend(limits, facts(), None, "r")[0].allowed


def test_sweeping_never_forgets_what_still_counts(clock: ManualClock) -> None:
    swept, kept = Limiter(clock, STEPS, capacity=10_000), Limiter(clock, STEPS, capacity=10_000)
    limits = (limit("a", rate=4, burst=6), limit("b", ("user",), rate=5, algorithm="sliding_window"))
    dice = random.Random(7)
    for _ in range(20_000):
        where, who = facts(f"192.0.2.{dice.randrange(40)}"), somebody(f"s-{dice.randrange(60)}")
        assert swept.spend(limits, where, who, "r") == kept.spend(limits, where, who, "r")
        clock.advance(dice.choice([0.0, 0.01, 0.3]))
        if dice.random() < 0.05:
            swept.sweep()


def test_a_limit_no_algorithm_serves_is_an_error_not_a_pass(limiter: Limiter) -> None:
    with pytest.raises(KeyError):
        limiter.spend((limit(algorithm="leaky"),), facts(), None, "r")
