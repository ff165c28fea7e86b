from __future__ import annotations

import pytest

from gateway.core.clock import ManualClock
from gateway.risk.network import THEIRS, NetworkSignal, around
from tests.risk.conftest import ann, at


@pytest.mark.parametrize(
    ("address", "value"),
    [
        ("198.51.100.7", 0.0),
        ("198.51.100.250", 0.0),
        ("198.51.7.7", 0.5),
        ("203.0.113.1", 1.0),
        ("2001:db8::1", 1.0),
        ("unknown", None),
    ],
)
def test_how_strange(address: str, value: float | None) -> None:
    signal, history = NetworkSignal(ManualClock()), {}
    assert signal.weigh(at(address), ann("s2"), history) is None
    signal.learn(at("198.51.100.7"), ann("s1"), history)
    assert signal.weigh(at(address), ann("s2"), history) == value


def test_ipv6() -> None:
    signal, history = NetworkSignal(ManualClock()), {}
    signal.learn(at("2001:db8:1:2::5"), ann("s1"), history)
    values = [
        signal.weigh(at(address), ann("s2"), history)
        for address in ("2001:db8:1:ffff::1", "2001:db8:2::1", "2001:db9::1")
    ]
    assert values == [0.0, 0.5, 1.0]


def test_unknown_addresses_teach_nothing() -> None:
    signal, history = NetworkSignal(ManualClock()), {}
    signal.learn(at("unknown"), ann("s1"), history)
    assert history == {}
    assert around("unknown", THEIRS) == ""
