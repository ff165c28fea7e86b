"""Is this the browser they use?

An agent is told by what changes seldom: the browser's family, its major version, and the system's family. Lists of
agents age, so this one is short and knows only the large families; of everything else the first product name is
taken (RFC 9110, section 10.1.5). It does not matter much whether it is right, only that the same browser gives the
same answer tomorrow, and another one another.

    never seen                                   1.0
    another browser on a system they use         0.6
    their browser, older than it has been        0.3
    their browser, as it was or newer            0.0
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gateway.core.clock import Clock
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.risk.history import known, teach

BROWSERS: Final = (
    ("Edge", re.compile(r"\bEdg(?:A|iOS)?/(\d+)")),
    ("Opera", re.compile(r"\b(?:OPR|OPT)/(\d+)")),
    ("Samsung", re.compile(r"\bSamsungBrowser/(\d+)")),
    ("Vivaldi", re.compile(r"\bVivaldi/(\d+)")),
    ("Yandex", re.compile(r"\bYaBrowser/(\d+)")),
    ("Firefox", re.compile(r"\b(?:Firefox|FxiOS)/(\d+)")),
    ("Chrome", re.compile(r"\b(?:HeadlessChrome|Chrome|CriOS)/(\d+)")),
    ("Safari", re.compile(r"\bVersion/(\d+)\S* (?:Mobile/\S+ )?Safari/")),
)
"""In order: most agents also carry the names of those they imitate."""

SYSTEMS: Final = (
    ("Windows", "Windows"),
    ("Android", "Android"),
    ("iOS", "iPhone"),
    ("iOS", "iPad"),
    ("macOS", "Mac OS X"),
    ("ChromeOS", "CrOS"),
    ("Linux", "Linux"),
)

_PRODUCT = re.compile(r"([^\s/()]{1,64})(?:/(\d{1,6}))?")


class Agent(NamedTuple):
    """A user agent, coarsely."""

    browser: str
    major: int
    system: str
    """Empty where it does not say."""

    @property
    def name(self) -> str:
        """What it is remembered by."""
        return f"{self.browser}/{self.system}"


def parse(agent: str) -> Agent:
    """The agent in a `User-Agent`."""
    system = next((system for system, mark in SYSTEMS if mark in agent), "")
    for browser, pattern in BROWSERS:
        if (match := pattern.search(agent)) is not None:
            return Agent(browser, int(match[1][:6]), system)
    product = _PRODUCT.match(agent)
    return Agent(product[1], int(product[2] or 0), system) if product is not None else Agent("", 0, system)


class AgentSignal:
    """New device or agent."""

    name = "agent"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def weigh(self, facts: Facts, identity: Identity, history: Mapping[str, Any]) -> float | None:
        """See the top of the file; None as long as there is nothing to compare with."""
        seen = known(history, "agents", identity)
        if not seen:
            return None
        agent = parse(facts.agent)
        if (entry := seen.get(agent.name)) is not None:
            return 0.0 if agent.major >= entry[3] else 0.3
        if agent.system and any(name.rpartition("/")[2] == agent.system for name in seen):
            return 0.6
        return 1.0

    def learn(self, facts: Facts, identity: Identity, history: dict[str, Any]) -> None:
        """Remember the agent, with the newest version seen."""
        agent = parse(facts.agent)
        before = history.get("agents", {}).get(agent.name)
        major = max(agent.major, before[3]) if before is not None else agent.major
        teach(history, "agents", agent.name, identity, self._clock.now(), major)
