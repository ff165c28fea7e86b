"""Exactness: three gateways let through together what one would, to the request. One minute for all ways of counting
(`burst`), with clocks that are wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.replicas.burst import BURST, CLIENTS, LIMITS, RATE, SECONDS, WINDOW
from tests.replicas.load import One
from tests.rig.redis import needs_redis

pytestmark = needs_redis


def of(minute: list[One], name: str) -> list[One]:
    return [one for one in minute if one.name == name]


def let_through(requests: list[One]) -> int:
    return sum(one.status == 200 for one in requests)


def unknown(requests: list[One]) -> int:
    """Requests whose answer from the store was late, so that they were refused: each may have been counted. None where
    nothing else keeps this machine busy."""
    return sum(one.status == 503 for one in requests)


def at_most(requests: list[One]) -> float:
    """b + r·W, where W is as long as it may have been: from the first sent to the last answered."""
    return BURST + RATE / WINDOW * (max(one.answered for one in requests) - min(one.sent for one in requests))


def test_the_minute_was_one_and_nothing_failed(minute: list[One]) -> None:
    statuses = Counter(one.status for one in minute)
    assert statuses[200] + statuses[429] + statuses[503] == len(minute)
    assert statuses[503] < 0.05 * len(minute), "the store was there"
    assert len({one.replica for one in minute}) == 3
    assert max(one.answered for one in minute) - min(one.sent for one in minute) > SECONDS - 2
    for name in LIMITS:
        assert len(of(minute, name)) > 2 * RATE, "more than twice the limit was asked for"
        for replica in range(3):
            assert let_through([one for one in of(minute, name) if one.replica == replica]) > RATE / 10
    assert len(minute) > 3 * CLIENTS * SECONDS


def test_a_sliding_window_lets_exactly_the_limit_through(minute: list[One]) -> None:
    requests = of(minute, "sliding")
    assert max(one.answered for one in requests) - min(one.sent for one in requests) < WINDOW, "nothing comes back"
    assert RATE - unknown(requests) <= let_through(requests) <= RATE


def test_a_fixed_window_lets_exactly_the_limit_through_in_each(minute: list[One]) -> None:
    """Windows begin with the minutes of Redis's clock. A request sent before an edge and answered after it may be
    counted on either side."""
    requests = of(minute, "fixed")
    windows = {int(at // WINDOW) for one in requests for at in (one.sent, one.answered)}
    assert len(windows) in (1, 2)
    across = [one for one in requests if one.sent // WINDOW != one.answered // WINDOW]
    full = 0
    for window in windows:
        inside = [one for one in requests if one.sent // WINDOW == one.answered // WINDOW == window]
        least, most = let_through(inside), let_through(inside) + let_through(across)
        assert least <= RATE
        assert most >= min(RATE, len(inside)) - unknown(requests)
        full += most >= RATE - unknown(requests)
    assert full, "at least one of them was over"
    assert let_through(requests) <= RATE * len(windows)


@pytest.mark.parametrize("name", ["gcra", "bucket"])
def test_what_refills_lets_through_the_burst_and_what_came_back(minute: list[One], name: str) -> None:
    """Exactly: the requests were always more than what came back, so that at most what the last moment brought is
    left."""
    requests = of(minute, name)
    assert at_most(requests) - 4 - unknown(requests) <= let_through(requests) <= at_most(requests)


def test_what_is_leased_never_passes_the_limit_and_leaves_little(minute: list[One]) -> None:
    assert 0.95 * RATE <= let_through(of(minute, "sliding-leased")) <= RATE
    requests = of(minute, "gcra-leased")
    assert 0.95 * at_most(requests) <= let_through(requests) <= at_most(requests)


@pytest.mark.parametrize("name", ["gcra", "bucket", "gcra-leased"])
def test_no_stretch_holds_more_than_the_burst_and_what_came_back(minute: list[One], name: str) -> None:
    """Wherever it begins: all that were sent and answered within it and let through."""
    through = sorted((one for one in of(minute, name) if one.status == 200), key=lambda one: one.sent)
    for place, first in enumerate(through):
        ends = sorted(one.answered for one in through[place:])
        assert all(count <= BURST + RATE / WINDOW * (end - first.sent) + 0.01 for count, end in enumerate(ends, 1))
