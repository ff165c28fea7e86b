"""Has somebody been trying?

Wrong passwords and wrong second factors, of one account, wherever they came from. Each counts one and loses half of
that in `HALF_LIFE`; from `ENOUGH` on the signal is full. It is kept in memory only, and learnt from events.

Strangers can fail as often as they like in somebody else's name. So this signal alone stays below any sensible
threshold (its weight is under 0.5): it makes a strange place stranger, and leaves a well-known one alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.core.clock import Clock
from gateway.core.events import Event, Kind
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.store.near import Near

HALF_LIFE: Final = 900.0
"""Seconds."""
ENOUGH: Final = 3.0
"""Failures of which no more are needed."""
NEGLIGIBLE: Final = 0.05
"""Failures, decayed, that are no longer spoken of."""
ACCOUNTS: Final = 65_536
"""Accounts remembered; then the ones quiet for longest are forgotten."""

FAILURES: Final = frozenset({Kind.SIGN_IN_FAILED, Kind.STEP_UP_FAILED})
OVER: Final = "ERR-MFA-CHALLENGE"
"""Outcome of an answer that nothing was checked of: a page that was left open too long, or sent twice."""


class FailuresSignal:
    """Failed attempts."""

    name = "failures"

    def __init__(self, clock: Clock) -> None:
        self._now = clock.monotonic
        self._counts: Near[tuple[str, str], tuple[float, float]] = Near(ACCOUNTS)

    def observe(self, event: Event) -> bool:
        """Count `event` if it is a failure of some account; whether it was."""
        if event.kind not in FAILURES or not event.user or event.detail.get("outcome") == OVER:
            return False
        account = (event.tenant, event.user)
        count = self.count(*account) + 1.0
        self._counts.pop(account, None)  # to the end, as the newest
        self._counts.keep(account, (count, self._now()))
        return True

    def count(self, tenant: str, user: str) -> float:
        """Failures of this account, decayed."""
        count, at = self._counts.get((tenant, user), (0.0, 0.0))
        return float(count * 0.5 ** (max(0.0, self._now() - at) / HALF_LIFE)) if count else 0.0

    def weigh(self, facts: Facts, identity: Identity, history: Mapping[str, Any]) -> float | None:
        """Failures of this account, as a share of enough; None where there were none of late."""
        count = self.count(identity.tenant, identity.user)
        return min(1.0, count / ENOUGH) if count > NEGLIGIBLE else None

    def learn(self, facts: Facts, identity: Identity, history: dict[str, Any]) -> None:
        """A success teaches nothing: it may be the guess that hit."""
