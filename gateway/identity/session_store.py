"""Where sessions are kept: what `sessions` asks of a store, and the words both speak.

A store has a clock of its own, and everything it says of time is said by that clock as seconds that have passed or are
left: how long ago somebody was seen, how long until the end. So replicas whose clocks disagree agree about sessions.

Two keep the contract: `session_rows` in the database, `session_keys` in a Redis that replicas share.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.core.contracts import Stays
from gateway.core.errors import UserError
from gateway.core.identity import NEVER, Identity, Proof, Session, amr_of, level_of
from gateway.core.words import say, say_n

TOUCH_EVERY = 60.0
"""Seconds between two writes of when a session was last seen; less when sessions idle out fast."""
MAX_AGENT = 512


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long sessions last, in seconds, and how many one user may have."""

    idle: float
    absolute: float
    per_user: int

    @property
    def touch_every(self) -> float:
        """Seconds between two writes of when a session was last seen."""
        return min(TOUCH_EVERY, self.idle / 10)

    @property
    def lag(self) -> float:
        """Seconds that what is written may be behind what replicas have seen: longer than over, surely over."""
        return 2 * self.touch_every


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator says of sessions."""

    default: Lifetimes
    tenants: Mapping[str, Lifetimes] = field(default_factory=dict)
    """Of tenants that differ."""
    refuse: bool = False
    """Whether one session too many is refused; else the oldest ends."""
    grace: float = 10.0
    """Seconds without an answer from the stores for which what is near is still believed."""

    def of(self, tenant: str) -> Lifetimes:
        """Those of one tenant."""
        return self.tenants.get(tenant, self.default)


@dataclass(frozen=True, slots=True)
class Person:
    """What an identity needs to know of a user."""

    name: str
    email: str
    display_name: str
    groups: frozenset[str]
    required_from: float = NEVER
    """As in `Identity`."""


@dataclass(frozen=True, slots=True)
class Found:
    """A session as its store has it. Whether it is over is for the caller to judge, who may have seen it later."""

    identity: Identity
    digest: bytes
    """SHA-256 of its token."""
    pause: float
    """Seconds since it was last seen, as far as is written."""
    left: float
    """Seconds until its absolute end."""
    generation: int = 0
    """`users.generation` when it was opened."""
    void: bool = False
    """Whether its user was disabled, or ended everything, since: nobody may come in with it."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A session to be opened."""

    tenant: str
    subject: str
    id: str
    proof: Proof
    address: str
    agent: str
    generation: int
    """`users.generation` when `proof` was shown."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A session that had to make room."""

    tenant: str
    subject: str
    id: str
    why: str
    """`replaced` or `too_many`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Somebody was served."""

    tenant: str
    subject: str
    digest: bytes
    ago: float
    """Seconds."""
    left: float
    """Seconds until the absolute end of the session."""
    rested: float
    """The longest pause since the last proof, in seconds."""


class SessionStore(Protocol):
    """Every async method raises `StoreAway`. Each change is one step: nobody sees half of it, nobody wins twice."""

    shared: bool
    """Whether it is a store beside the database, that tells by itself when it is away."""

    async def open(
        self, new: Opening, *, replacing: bytes | None, connection: Any = None
    ) -> tuple[str, Found, Sequence[Ended]]:
        """Keep a new session and draw its token, within the number its user may have.

        `connection`: to the records, where it is opened in a transaction of the caller's. In a store of its own it is
        void where that is not committed, if `users.generation` was raised in it.
        The session with the digest `replacing`, whosever it is, ends with it. Raises `UserError`: ERR-SIGN-IN where the
        user was disabled or removed since `proof` was shown, or everything of theirs ended; ERR-SESSION-LIMIT where one
        too many is refused; nothing is changed.
        """
        ...

    async def find(self, digest: bytes) -> Found | None:
        """The session with that digest, over or not; None where there is none."""
        ...

    async def again(self, tenant: str, subject: str, session_id: str) -> Found | None:
        """The session with that id, whatever its token is now."""
        ...

    async def prove(self, digest: bytes, proof: Proof) -> tuple[str, Found] | None:
        """Add a proof: a new token, the next version, no pauses. Exactly one caller gets it, the others None."""
        ...

    async def extend(self, seen: Seen) -> float | None:
        """Write that a session is seen now, and return when that is by the store's clock; None where there is none."""
        ...

    async def touch(self, seen: Sequence[Seen]) -> None:
        """Write when sessions were last seen, of those that are still there. What is written later stays."""
        ...

    async def end(self, tenant: str, subject: str, session_id: str) -> bool:
        """End one session of this user; False where they have no such session."""
        ...

    async def end_in(self, connection: Any, tenant: str, subject: str, ids: Sequence[str]) -> Sequence[str]:
        """End these sessions of this user in the transaction of `connection` to the records, which then bumps.

        Those that were there. In a store of its own they are over at once: where the transaction is then not committed
        somebody was signed out too often, and nobody too seldom.
        """
        ...

    async def end_all(self, tenant: str, subject: str, *, but: str, first: Stays | None = None) -> int | None:
        """End every session of this user, except the one with id `but`; returns how many.

        `first` is called in the same transaction, before, and says whether `but` stays; what it raises changes nothing.
        `users.generation` is raised before, durably. Where only that can be done all of them are over, that one too,
        and nobody knows how many: None.
        """
        ...

    async def list(self, tenant: str, subject: str) -> Sequence[Found]:
        """Every session of this user, the newest first; some may be over."""
        ...

    async def count(self) -> tuple[int, int]:
        """Sessions alive, users who have one."""
        ...

    async def refresh(self) -> None:
        """Notice what others have changed here, and do what is due. Called every second."""
        ...

    def place(self, digest: bytes) -> int:
        """Where the session with that digest is, as `Watcher.forget_places` calls it."""
        ...

    def watch(self, watcher: Watcher) -> None:
        """Tell `watcher` of every change that the database does not tell of by itself."""
        ...


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who keeps sessions near at hand."""

    forget: Callable[[str, str], None]
    """Called with tenant and subject of somebody whose sessions have changed."""
    forget_places: Callable[[Collection[int]], None]
    """Called where some change may have been missed."""
    away: Callable[[], None]
    """Called when the store goes away."""


def person_of(row: Any) -> Person:
    """Whoever a row of `users` is about."""
    must = row.mfa_required_from
    groups = frozenset(row.groups)
    return Person(row.name, row.email, row.display_name, groups, NEVER if must is None else must)


def identity_of(tenant: str, subject: str, person: Person, session: Session) -> Identity:
    """Who somebody is in `session`."""
    return Identity(
        tenant=tenant,
        subject=subject,
        user=person.name,
        email=person.email,
        name=person.display_name,
        groups=person.groups,
        session=session,
        level=level_of(session.proofs),
        amr=amr_of(session.proofs),
        auth_time=max((proof.at for proof in session.proofs), default=0.0),
        required_from=person.required_from,
    )


def proven(proofs: Sequence[Proof], proof: Proof) -> tuple[Proof, ...]:
    """`proofs` with one more: the latest of each factor, oldest first."""
    return (*(one for one in proofs if one.factor != proof.factor), proof)


def gone() -> UserError:
    """For who was disabled, removed or given another password while they signed in: as for a wrong password."""
    return UserError("ERR-SIGN-IN", say("The user name or password is not right."), 401)


def too_many(most: int) -> UserError:
    """For one session more than a user may have."""
    return UserError(
        "ERR-SESSION-LIMIT",
        say_n(
            "You are signed in at one place already, and that is as many as are allowed. Sign out there, or wait until "
            "you have not used it for a while; then sign in here.",
            "You are signed in at {count} places already, and that is as many as are allowed. Sign out at one of them, "
            "or wait until you have not used it for a while; then sign in here.",
            most,
        ),
        403,
    )
