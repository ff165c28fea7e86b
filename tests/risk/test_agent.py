from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import ManualClock
from gateway.risk.agent import Agent, AgentSignal, parse
from tests.risk.conftest import CHROME, FIREFOX, ann, at

APPLE = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
BLINK = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0"


@pytest.mark.parametrize(
    ("text", "agent"),
    [
        (FIREFOX, Agent("Firefox", 131, "Linux")),
        (CHROME, Agent("Chrome", 129, "Windows")),
        (f"Mozilla/5.0 (Windows NT 10.0) {BLINK} Safari/537.36 Edg/129.0.2792", Agent("Edge", 129, "Windows")),
        (f"Mozilla/5.0 (Linux; Android 14) {BLINK} Mobile Safari/537.36", Agent("Chrome", 129, "Android")),
        (f"Mozilla/5.0 (Linux; Android 14) SamsungBrowser/26.0 {BLINK}", Agent("Samsung", 26, "Android")),
        (
            f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {APPLE} Version/18.0 Safari/605.1.15",
            Agent("Safari", 18, "macOS"),
        ),
        (
            f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) {APPLE} Version/18.0 Mobile/15E148 Safari/604.1",
            Agent("Safari", 18, "iOS"),
        ),
        (
            f"Mozilla/5.0 (iPhone; CPU iPhone OS 17 like Mac OS X) {APPLE} CriOS/129.0 Mobile",
            Agent("Chrome", 129, "iOS"),
        ),
        (f"Mozilla/5.0 (X11; CrOS x86_64) {BLINK} Safari/537.36", Agent("Chrome", 129, "ChromeOS")),
        ("curl/8.5.0", Agent("curl", 8, "")),
        ("python-requests/2.32", Agent("python-requests", 2, "")),
        ("", Agent("", 0, "")),
        ("()", Agent("", 0, "")),
    ],
)
def test_parse(text: str, agent: Agent) -> None:
    assert parse(text) == agent


@given(st.text(max_size=512))
def test_parse_takes_anything(text: str) -> None:
    agent = parse(text)
    assert parse(text) == agent
    assert 0 <= agent.major < 10**6


@pytest.mark.parametrize(
    ("agent", "value"),
    [
        (FIREFOX, 0.0),
        (FIREFOX.replace("131", "140"), 0.0),
        (FIREFOX.replace("131", "90"), 0.3),
        (CHROME.replace("Windows NT 10.0", "X11; Linux x86_64"), 0.6),
        (CHROME, 1.0),
        ("curl/8.5.0", 1.0),
        ("", 1.0),
    ],
)
def test_how_strange(agent: str, value: float) -> None:
    signal, history = AgentSignal(ManualClock()), {}
    assert signal.weigh(at(), ann("s2"), history) is None
    signal.learn(at(), ann("s1"), history)
    assert signal.weigh(at(agent=agent), ann("s2"), history) == value


def test_programs_of_no_known_system_are_not_taken_for_one_another() -> None:
    signal, history = AgentSignal(ManualClock()), {}
    signal.learn(at(agent="curl/8"), ann("s1"), history)
    assert signal.weigh(at(agent="wget/1"), ann("s2"), history) == 1.0
