"""How strange is this request of somebody known?

Each signal says how strange (0.0–1.0), or nothing; each has a weight. They are combined as a noisy-or, as if each
were an independent witness that is believed with its weight: `1 - Π (1 - weight * value)`. So no signal can be
argued away by others that saw nothing, several together say more than each, and every part of a score can be named.

The weights are such that, of things never seen before:

    agent alone                         0.45   watched
    network alone                       0.35   watched
    network and country (a journey)     0.49   watched
    failures alone                      0.49   watched: strangers can cause them
    agent and network                   0.64   prove it again
    agent, network and country          0.72   prove it again
    agent, network and failures         0.82   refused
    all of them                         0.86   refused

A score is remembered for a session, its version, and the place (network and agent) a request comes from, so it is
worked out once and then costs a look-up. It is worked out anew when one of these changes, when the session gives a
new proof, when the account's failures rise, and after a minute while they decay.

With a score goes when the session last gave a second factor at this place, as coarsely as the signals tell places
apart. It is kept in memory: after a restart whoever looks strange is asked once more.

Somebody never seen before has nothing to differ from: the first sign-in is scored by failures only.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from math import prod
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger, Signal
from gateway.core.decision import Score
from gateway.core.errors import ConfigError
from gateway.core.events import Event, Kind, Severity
from gateway.core.facts import Facts
from gateway.core.identity import Identity, Level
from gateway.risk.agent import AgentSignal, parse
from gateway.risk.country import CountrySignal
from gateway.risk.failures import FailuresSignal
from gateway.risk.history import best_level
from gateway.risk.network import THEIRS, NetworkSignal, around
from gateway.store.near import Near
from gateway.store.tables import seen

WEIGHTS: Final[Mapping[str, float]] = {"agent": 0.45, "network": 0.35, "country": 0.22, "failures": 0.49}

FLAG_ABOVE: Final = 0.5
"""Scores worth an event."""
TEACH_BELOW: Final = 0.5
"""Scores at which a single factor may still teach."""
DECAY_EVERY: Final = 60.0
"""Seconds that a score with a part that decays is remembered."""
SESSIONS: Final = 65_536
"""Sessions whose scores are remembered."""
PLACES: Final = 16
"""Places of one session that are remembered."""


class Database(Protocol):
    """What is needed of `store.sql.Records`."""

    def begin(self, tenant: str, subject: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction about somebody."""
        ...

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read with."""
        ...


class Remembered:
    """The scores of one session in one version."""

    __slots__ = ("account", "places", "session", "version")

    def __init__(self, session: str, version: int, account: tuple[str, str]) -> None:
        self.session = session
        self.version = version
        self.account = account
        self.places: dict[tuple[str, str], tuple[Score, float]] = {}
        """`(network, agent)` → the score, and until when (monotonic) it holds."""


class Risk:
    """Scores of one process. `weights` replaces single weights (0.0 silences a signal); `geoip` is an mmdb.

    Raises `ConfigError` for a weight of nothing or outside 0.0–1.0, and for a database that cannot be read.
    """

    def __init__(
        self,
        records: Database,
        clock: Clock,
        ledger: Ledger,
        *,
        weights: Mapping[str, float] | None = None,
        geoip: Path | None = None,
    ) -> None:
        self._records = records
        self._clock = clock
        self._now = clock.monotonic
        self._ledger = ledger
        self._failures = FailuresSignal(clock)
        self._country = CountrySignal(geoip, clock) if geoip is not None else None
        signals: list[Signal] = [AgentSignal(clock), NetworkSignal(clock)]
        if self._country is not None:
            signals.append(self._country)
        signals.append(self._failures)
        chosen = {**WEIGHTS, **(weights or {})}
        wrong = [name for name, weight in chosen.items() if name not in WEIGHTS or not 0.0 <= weight <= 1.0]
        if wrong:
            raise ConfigError(
                f"risk.weights: {', '.join(sorted(wrong))}: not a signal, or not between 0 and 1",
                f"the signals are {', '.join(WEIGHTS)}",
            )
        self._signals = [(signal, chosen[signal.name]) for signal in signals if chosen[signal.name] > 0.0]
        self._remembered: Near[str, Remembered] = Near(SESSIONS)
        self._of_account: dict[tuple[str, str], set[str]] = {}
        self._answered: Near[str, dict[tuple[str, str], float]] = Near(SESSIONS)
        """Session id → place → when a second factor was given there, in seconds since the epoch."""
        self._learnt = 0

    def remembered(self, facts: Facts, identity: Identity) -> Score | None:
        """The score of this session at this place, if it is known and still holds."""
        session = identity.session
        if session is None:
            return None
        entry = self._remembered.get(session.id)
        if entry is None or entry.version != session.version:
            return None
        found = entry.places.get((facts.network, facts.agent))
        return found[0] if found is not None and self._now() < found[1] else None

    async def score(self, facts: Facts, identity: Identity) -> Score:
        """The score, worked out from the user's history and remembered. Raises `StoreAway`."""
        learnt = self._learnt
        async with self._records.read() as connection:
            history = await self._history(connection, identity)
        score = self._weigh(facts, identity, history)
        if learnt == self._learnt:  # else the history may be older than what was learnt meanwhile
            self._remember(facts, identity, score)
        return score

    async def learn(self, facts: Facts, identity: Identity) -> None:
        """Remember where the proof that `identity` has just given came from. Raises `StoreAway`.

        Of `facts` only `address`, `network` and `agent` matter.
        """
        if identity.session is None:
            return
        async with self._records.begin(identity.tenant, identity.subject) as connection:
            history = await self._history(connection, identity)
            if self._may_teach(facts, identity, history):
                for signal, _ in self._signals:
                    signal.learn(facts, identity, history)
                await self._keep(connection, identity, history)
        if identity.level >= Level.AAL2:
            self._answer(facts, identity.session.id)
        self._learnt += 1
        self.forget(identity.session.id)

    def observe(self, event: Event) -> None:
        """Learn from what happened; for `Recorder.subscribe`."""
        if self._failures.observe(event):
            for session in list(self._of_account.get((event.tenant, event.user), ())):
                self.forget(session)

    def forget(self, session_id: str) -> None:
        """Forget the scores of a session."""
        if (entry := self._remembered.pop(session_id, None)) is not None:
            self._let_go(entry)

    def close(self) -> None:
        """Let go of files."""
        if self._country is not None:
            self._country.close()

    def _answer(self, facts: Facts, session_id: str) -> None:
        places = self._answered.pop(session_id, None) or {}
        places.pop(_place(facts), None)
        if len(places) >= PLACES:
            del places[next(iter(places))]
        places[_place(facts)] = self._clock.now()
        self._answered.keep(session_id, places)

    def _may_teach(self, facts: Facts, identity: Identity, history: dict[str, Any]) -> bool:
        """See `history`: two factors always teach; one does where there is no better witness and little doubt."""
        if identity.level >= Level.AAL2:
            return True
        return best_level(history) < Level.AAL2 and self._weigh(facts, identity, history).value < TEACH_BELOW

    def _weigh(self, facts: Facts, identity: Identity, history: Mapping[str, Any]) -> Score:
        because = tuple(
            (signal.name, value, weight)
            for signal, weight in self._signals
            if (value := signal.weigh(facts, identity, history)) is not None
        )
        places = self._answered.get(identity.session.id) if identity.session is not None else None
        return Score(
            round(1.0 - prod(1.0 - weight * value for _, value, weight in because), 4),
            because,
            places.get(_place(facts), 0.0) if places else 0.0,
        )

    def _remember(self, facts: Facts, identity: Identity, score: Score) -> None:
        session = identity.session
        if session is None:
            return
        entry = self._remembered.get(session.id)
        if entry is None or entry.version != session.version:
            self.forget(session.id)
            entry = Remembered(session.id, session.version, (identity.tenant, identity.user))
            for gone in self._remembered.keep(session.id, entry):
                self._let_go(gone)
            self._of_account.setdefault(entry.account, set()).add(session.id)
        place = (facts.network, facts.agent)
        before = entry.places.pop(place, None)
        if len(entry.places) >= PLACES:
            del entry.places[next(iter(entry.places))]
        decays = any(name == self._failures.name for name, _, _ in score.because)
        entry.places[place] = (score, self._now() + DECAY_EVERY if decays else float("inf"))
        if score.value > FLAG_ABOVE and (before is None or before[0].value <= FLAG_ABOVE):
            self._flag(facts, identity, score)

    def _flag(self, facts: Facts, identity: Identity, score: Score) -> None:
        self._ledger.note(
            Event(
                Kind.RISK_FLAGGED,
                Severity.WARNING if score.value >= 0.8 else Severity.NOTICE,
                tenant=identity.tenant,
                user=identity.user,
                session=identity.session.id if identity.session is not None else "",
                address=facts.address,
                agent=facts.agent,
                request_id=facts.request_id,
                detail={
                    "score": score.value,
                    "because": {name: round(value * weight, 4) for name, value, weight in score.because},
                },
            )
        )

    def _let_go(self, entry: Remembered) -> None:
        sessions = self._of_account.get(entry.account)
        if sessions is not None:
            sessions.discard(entry.session)
            if not sessions:
                del self._of_account[entry.account]

    async def _history(self, connection: AsyncConnection, identity: Identity) -> dict[str, Any]:
        whose = {"of_tenant": identity.tenant, "of_subject": identity.subject}
        history: dict[str, Any] | None = await connection.scalar(_HISTORY, whose)
        return history or {}

    async def _keep(self, connection: AsyncConnection, identity: Identity, history: dict[str, Any]) -> None:
        row = {"history": history, "updated_at": self._clock.now()}
        whose = {"tenant": identity.tenant, "subject": identity.subject}
        await connection.execute(_KEEP[connection.dialect.name], {**whose, **row})


# Built once: building a statement costs more than running it.
_WHOSE = (seen.c.tenant == bindparam("of_tenant"), seen.c.subject == bindparam("of_subject"))
_HISTORY = select(seen.c.history).where(*_WHOSE)
_KEEP = {
    dialect: row.on_conflict_do_update(
        index_elements=["tenant", "subject"],
        set_={name: row.excluded[name] for name in ("history", "updated_at")},
    )
    for dialect, row in (("sqlite", sqlite.insert(seen)), ("postgresql", postgresql.insert(seen)))
}


def _place(facts: Facts) -> tuple[str, str]:
    """Where a request comes from, as the signals compare it."""
    return around(facts.address, THEIRS), parse(facts.agent).name
