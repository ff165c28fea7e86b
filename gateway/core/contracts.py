"""What one room may ask of another without knowing which it is. `app` hands in who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from gateway.core.asked import Asked
    from gateway.core.decision import Score
    from gateway.core.events import Event
    from gateway.core.facts import Facts
    from gateway.core.identity import Identity, Level, Proof
    from gateway.core.message import Message, Receipt, Report


def key(tenant: str, kind: str, *parts: str) -> str:
    """A store key. Every key carries its tenant; parts are joined so that no two lists of parts look alike."""
    return "/".join((tenant, kind, *(part.replace("%", "%25").replace("/", "%2F") for part in parts)))


class Credential(Protocol):
    """Whose request is this?"""

    name: str

    def near(self, facts: Facts) -> Identity | None:
        """The caller, where that is known without waiting; None says nothing: ask `identify`."""
        ...

    async def identify(self, facts: Facts) -> Identity | None:
        """The caller, or None where this request carries no such credential.

        Raises `Broken` for a credential that is ours and damaged: the caller is then nobody.
        """
        ...

    async def fresh(self, facts: Facts) -> Identity | None:
        """As `identify`, but nothing near is believed: the store is asked. Raises `Broken`, `StoreAway`."""
        ...

    async def again(self, identity: Identity, *, fresh: bool = False) -> Identity | None:
        """Who was known before, as they are now, also where what they showed then was replaced meanwhile.

        None where they are nobody any more. With `fresh` nothing near is believed. For what stays open; it counts as
        being seen. Raises `StoreAway`.
        """
        ...


Settle = Callable[[Any], Awaitable[None]]
"""Does what else belongs into the transaction of the connection to the records that it is given."""
Stays = Callable[[Any], Awaitable[bool]]
"""The same, where all sessions of somebody end with it: whether the one that may stay does."""


class Factor(Protocol):
    """Prove it again."""

    name: str
    """As in YAML: `totp`, `backup_code` …"""

    async def offer(self, tenant: str, subject: str, level: Level) -> bool:
        """Whether this user could answer with this factor now, and reach `level` by it."""
        ...

    async def check(
        self, connection: Any, tenant: str, subject: str, answer: str, now: float, asked: Asked | None = None
    ) -> Proof | None:
        """The proof, or None for a wrong answer. A right answer is claimed: it never counts twice.

        All of it in the transaction of `connection`, which is about this person and will be committed, whatever comes
        of the answer. `asked` is what it answers, for factors whose answers are to one question only. Raises
        `NotProven` for a wrong answer with a reason that operators want to know.
        """
        ...

    async def hint(self, tenant: str, subject: str, answer: str, now: float) -> str:
        """A sentence that may help somebody whose answer was wrong; empty when there is nothing to say."""
        ...


class EndAll(Protocol):
    """End every session of somebody."""

    async def __call__(self, tenant: str, subject: str, *, but: str = "", first: Stays | None = None) -> int:
        """How many went; the one with id `but` stays, unless `first` says no.

        `first` is called in the transaction that ends them: what it does is done with it or not at all, and what it
        raises leaves everything as it was. Raises `StoreAway`.
        """
        ...


class Dues(Protocol):
    """What is still owed by somebody who must have a second factor."""

    async def enrol_by(self, identity: Identity) -> float:
        """Until when they have time to set one up (`Identity.enrol_by`); `NEVER`: nothing is owed. Raises `StoreAway`.

        For who is seen for the first time since it is demanded, the time begins now.
        """
        ...


class Strangeness(Protocol):
    """How strange is this request of somebody known?"""

    def remembered(self, facts: Facts, identity: Identity) -> Score | None:
        """The score, where nothing has changed since it was last weighed; never waits."""
        ...

    async def score(self, facts: Facts, identity: Identity) -> Score:
        """The score, weighed anew. Raises `StoreAway`."""
        ...


class Signal(Protocol):
    """How strange, and why?"""

    name: str

    def weigh(self, facts: Facts, identity: Identity, history: Mapping[str, Any]) -> float | None:
        """0.0 as ever … 1.0 never seen; None where the signal knows nothing (which is not suspicious)."""
        ...

    def learn(self, facts: Facts, identity: Identity, history: dict[str, Any]) -> None:
        """Put what was seen into `history`; called after a proof succeeded, never for an attempt."""
        ...


class Step(Protocol):
    """One step of a rate limit algorithm: pure, so that it can be tested, explained and translated."""

    def __call__(
        self, state: tuple[float, ...] | None, now: float, rate: int, window: float, burst: int
    ) -> tuple[tuple[float, ...], bool, int, float, float]:
        """Count one request at `now` (seconds).

        Returns the next state, whether it is allowed, how many remain, seconds until whole, seconds until the next.
        A refusal returns the very state it was given, and nothing has to be kept, unless the clock was set back.
        """
        ...


class KeyValue(Protocol):
    """Small things that expire. Single use is claimed in one atomic step, never looked up and then written."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None when absent or expired."""
        ...

    async def put(self, key: str, value: bytes, ttl: float) -> None:
        """Keep `value` for `ttl` seconds, replacing what was there."""
        ...

    async def claim(self, key: str, ttl: float) -> bool:
        """True for exactly one caller until `ttl` seconds have passed."""
        ...

    async def take(self, key: str) -> bytes | None:
        """The value, removed in the same step: exactly one caller gets it."""
        ...

    async def drop(self, key: str) -> None:
        """Remove it, if it is there."""
        ...

    async def left(self, key: str) -> float:
        """Seconds that it still lives, by the store's own clock; 0.0 when absent or expired."""
        ...

    async def add(self, key: str, amount: int, ttl: float) -> int:
        """Add to a counter and return its new value; a new counter lives `ttl` seconds from its first use."""
        ...


class Channel(Protocol):
    """Tell the other replicas."""

    async def publish(self, topic: str, message: bytes) -> None:
        """Tell everybody who listens, ourselves included. Raises `StoreAway`; told is not heard."""
        ...

    def listen(self, topic: str, heard: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """Have `heard` called with each message, and `lost` whenever some may have been missed."""
        ...


class Sender(Protocol):
    """Reach a person."""

    name: str
    """As in YAML: `smtp`, `webhook` …"""

    async def send(self, message: Message) -> Receipt:
        """Hand `message` over to whoever carries it. Raises `Undelivered` where that was not done for certain."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Callback(Protocol):
    """What does a provider tell us?"""

    async def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[Report]:
        """What it tells; empty where that is nothing about the end of a message.

        Raises `Broken` for what is not from them, not meant for us, too old, or cannot be read; `UserError` ERR-BUSY
        while too many wait to be looked at.
        """
        ...


class Post(Protocol):
    """Get a code to somebody."""

    def address(self, channel: str, text: str) -> str:
        """The one spelling of an address: an E.164 number for `sms`, name@host for `email`.

        Raises `UserError` ERR-PHONE-INVALID, ERR-PHONE-REFUSED, ERR-EMAIL-INVALID, and ERR-UNREACHABLE where nobody
        carries that channel.
        """
        ...

    async def code(
        self,
        connection: Any,
        *,
        tenant: str,
        subject: str,
        channel: str,
        to: str,
        code: str,
        about: str,
        language: str,
        expires_at: float,
        link: str = "",
    ) -> None:
        """Have `code` sent to `to`, spelled as `address` does, once the transaction of `connection` is committed.

        `connection` is one to the records. It is sent off everybody's way, within a second or so, and never after
        `expires_at`. `about`: `verify` (it is you), `enrol` (this address is yours), `confirm` (you read what the
        address of your account gets), `recover` (you get back in).
        `link`: the token of a link that does the same as the code, to come with it; empty: none.
        `language`: `en`, `tr`. Raises `UserError` ERR-THROTTLED, with a `retry_after`, where too many codes were sent
        there; ERR-UNREACHABLE and ERR-PHONE-REFUSED, after the same work, where nothing is sent there.
        """
        ...


class Ledger(Protocol):
    """Remember it."""

    def note(self, event: Event) -> None:
        """Keep the event soon; never waits, never raises."""
        ...

    async def record(self, event: Event) -> None:
        """Keep the event durably before returning. Raises `StoreAway` where that is impossible."""
        ...

    async def enter(self, connection: Any, event: Event) -> None:
        """Keep the event with whatever else the transaction of `connection` keeps; `tell` once that is committed."""
        ...

    def tell(self, event: Event) -> None:
        """Have whoever wants to know of events hear of one that was entered. Never raises."""
        ...
