"""A circuit breaker: a service that fails half of the time is left alone for a while.

Closed, requests go through and their outcomes are remembered. When too many of the last ones have failed it opens:
requests are refused at once, which costs neither side anything. After a while it lets one through (half-open), and
what becomes of that one decides (M. Nygard, Release It!, 2nd ed., section 5.2).
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from enum import Enum, IntEnum, auto

from gateway.core.reasons import Reason
from gateway.wire.request import Declined

_log = logging.getLogger(__name__)


class State(IntEnum):
    """As the metric says it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Sign(Enum):
    """What can happen to a breaker."""

    TRIPPED = auto()
    WAITED = auto()
    SUCCESS = auto()
    FAILURE = auto()


TABLE = {
    (State.CLOSED, Sign.TRIPPED): State.OPEN,
    (State.OPEN, Sign.WAITED): State.HALF_OPEN,
    (State.HALF_OPEN, Sign.WAITED): State.HALF_OPEN,
    (State.HALF_OPEN, Sign.SUCCESS): State.CLOSED,
    (State.HALF_OPEN, Sign.FAILURE): State.OPEN,
}
"""Every change there is; what is not here changes nothing."""


@dataclass(frozen=True, slots=True)
class Tripping:
    """When a breaker opens, and for how long."""

    failures: float = 0.5
    """Share of failures."""
    of: int = 20
    """Among so many last requests; fewer never open it."""
    open_for: float = 5.0
    """Seconds."""


class Breaker:
    """The breaker of one service. Times are monotonic seconds."""

    def __init__(self, upstream: str, tripping: Tripping) -> None:
        self.state = State.CLOSED
        self._upstream = upstream
        self._tripping = tripping
        self._outcomes: deque[bool] = deque(maxlen=tripping.of)
        self._until = 0.0
        """When the next request may go through on trial."""

    def admit(self, now: float) -> None:
        """Let a request through, or raise `Declined`."""
        if self.state is State.CLOSED:
            return
        if now < self._until:
            raise Declined(Reason.UPSTREAM_CIRCUIT_OPEN, self._until - now)
        self._turn(Sign.WAITED, now)

    def note(self, ok: bool, now: float) -> None:
        """What became of a request."""
        if self.state is State.CLOSED:
            outcomes = self._outcomes
            outcomes.append(ok)
            if not ok and len(outcomes) == self._tripping.of:
                failed = outcomes.count(False)
                if failed >= self._tripping.failures * len(outcomes):
                    self._turn(Sign.TRIPPED, now)
        elif self.state is State.HALF_OPEN:
            self._turn(Sign.SUCCESS if ok else Sign.FAILURE, now)

    def _turn(self, sign: Sign, now: float) -> None:
        before, self.state = self.state, TABLE.get((self.state, sign), self.state)
        self._outcomes.clear()
        # Half-open too: should the client of the one on trial leave, nobody hears how it ended, and another goes.
        self._until = now + self._tripping.open_for
        if State.OPEN in (before, self.state) or before is not self.state:
            _log.warning("upstream %s: circuit %s", self._upstream, self.state.name.lower().replace("_", "-"))
