"""The step-up conversation: ask, answer, prove.

A challenge is either open or over. What an answer does to it, or a wish to have a code sent, is this table and nothing
else:

```text
state  outcome       next   what the caller gets
open   right         over   a Proof                 the one way to a proof
open   wrong         open   ERR-MFA-INVALID
open   throttled     open   ERR-MFA-THROTTLED       nothing was checked
open   disabled      open   ERR-MFA-DISABLED        nothing was checked
open   not offered   open   ERR-MFA-METHOD          nothing was checked, nothing was sent
open   sent          open   where the code went     of factors whose answer is sent first
open   too soon      open   ERR-MFA-RESEND          nothing was sent
over   (any)         over   ERR-MFA-CHALLENGE       nothing was checked, nothing was sent
```

- *Over* is one state: answered, expired, never begun and somebody else's look and answer exactly alike. A
  challenge lies under its session's id, so a foreign ticket is not found rather than found and turned away.
- `open → over` is one atomic `take`, in the transaction that claims the right answer and keeps its event: all of it is
  done, or none. Of two right answers at once one finds the challenge over.
- A challenge belongs to one session: the same session id, at the version it was begun in or a later one (another tab's
  proof does not void this tab's question; a session restored to an older version does). Whoever answers holds the
  session's secret, so the browser is bound too.
- It offers what the user *has* bound and the rule counts, never to bind something: whoever stole a password would
  otherwise answer with a factor of their own. Binding is `enrolment`'s, and asks for a fresh sign-in.
- An open challenge is worth ten minutes and no rights. A session has `PLACES` of them, taken in turn; a further one
  falls into the place of the oldest, so a loop of requests cannot fill the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.asked import Asked
from gateway.core.clock import Clock
from gateway.core.contracts import Ledger, key
from gateway.core.errors import UserError
from gateway.core.events import NOWHERE, Event, Kind, Place, Severity
from gateway.core.identity import Identity, Level, Proof, Session
from gateway.core.rule import StepUpDemand
from gateway.core.words import say, sentences
from gateway.crypto.mac import Mac
from gateway.crypto.tokens import new_token
from gateway.mfa.codes.factor import UNSENT, VERIFY, Sending, Standing
from gateway.mfa.factors import NOTHING, Checked, Factors
from gateway.store.sql import Records
from gateway.store.sql_key_value import SqlKeyValue, add, take, write

LIFETIME = 600.0
"""Seconds that a challenge stays open (OWASP ASVS 5.0, 6.5.5: at most ten minutes)."""
PLACES = 16
"""Challenges a session can have open."""


class State(StrEnum):
    """Of a challenge."""

    OPEN = "open"
    OVER = "over"


class Outcome(StrEnum):
    """Of an answer, or of a wish to have a code sent."""

    RIGHT = "right"
    WRONG = "wrong"
    THROTTLED = "throttled"
    DISABLED = "disabled"
    NOT_OFFERED = "not_offered"
    SENT = "sent"
    TOO_SOON = "too_soon"


PROOF = ""
CODE_SENT = "sent"
GONE = "ERR-MFA-CHALLENGE"

NEXT: Mapping[tuple[State, Outcome], tuple[State, str]] = {
    (State.OPEN, Outcome.RIGHT): (State.OVER, PROOF),
    (State.OPEN, Outcome.WRONG): (State.OPEN, "ERR-MFA-INVALID"),
    (State.OPEN, Outcome.THROTTLED): (State.OPEN, "ERR-MFA-THROTTLED"),
    (State.OPEN, Outcome.DISABLED): (State.OPEN, "ERR-MFA-DISABLED"),
    (State.OPEN, Outcome.NOT_OFFERED): (State.OPEN, "ERR-MFA-METHOD"),
    (State.OPEN, Outcome.SENT): (State.OPEN, CODE_SENT),
    (State.OPEN, Outcome.TOO_SOON): (State.OPEN, "ERR-MFA-RESEND"),
    **{(State.OVER, outcome): (State.OVER, GONE) for outcome in Outcome},
}
"""`(state, outcome)` → `(next state, error code, PROOF or CODE_SENT)`."""

STATUS: Mapping[str, int] = {
    GONE: 410,
    "ERR-MFA-INVALID": 400,
    "ERR-MFA-THROTTLED": 429,
    "ERR-MFA-DISABLED": 403,
    "ERR-MFA-METHOD": 400,
    "ERR-MFA-RESEND": 429,
}
"""HTTP status of each error."""

COUNTED: Mapping[str, str] = {
    PROOF: "passed",
    GONE: "over",
    "ERR-MFA-INVALID": "failed",
    "ERR-MFA-THROTTLED": "throttled",
    "ERR-MFA-DISABLED": "disabled",
    "ERR-MFA-METHOD": "not_offered",
    CODE_SENT: "sent",
    "ERR-MFA-RESEND": "resend_refused",
}
"""What each is called in metrics."""

DETAIL: Mapping[str, str] = {
    GONE: say("This question is no longer open. Go back to where you were going and you will be asked again."),
    "ERR-MFA-INVALID": say("That code is not right, or was used before."),
    "ERR-MFA-THROTTLED": say("Too many tries."),
    "ERR-MFA-DISABLED": say("This method was turned off after too many wrong answers. It has to be set up anew."),
    "ERR-MFA-METHOD": say("This method does not answer this question."),
    "ERR-MFA-RESEND": say("Codes were sent already."),
}

_SENT_WRONG = say("That code is not right, too old, or a newer one was sent.")
WRONG: Mapping[str, str] = {
    "webauthn": say("The answer of that key was not accepted. Please try again."),
    "sms": _SENT_WRONG,
    "email": _SENT_WRONG,
}
"""By factor, instead of what is said of codes."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """An open question to one session."""

    ticket: str = field(repr=False)
    demand: StepUpDemand
    return_to: str
    """Where the browser was going; checked by whoever gave it."""
    resume: str = field(repr=False)
    """Ticket of the interrupted request that goes on after the proof, or empty."""
    offered: tuple[str, ...]
    """Factors that this user has and the rule counts, the one used last first. May be empty."""
    expires_at: float

    def asked(self, session: str) -> Asked:
        """The question, as the factor sees it that somebody in `session` answers with."""
        return Asked(session, self.ticket, self.demand.level, self.demand.verified)


class StepUps:
    """Asks for proof, and judges answers."""

    def __init__(
        self,
        records: Records,
        kv: SqlKeyValue,
        factors: Factors,
        clock: Clock,
        ledger: Ledger,
        mac: Mac,
        *,
        count: Callable[[str, str], None] = lambda factor, outcome: None,
    ) -> None:
        """`count(factor, outcome)` is called for every challenge asked (`any`, `asked`), every answer judged and every
        code sent or not."""
        self._records = records
        self._kv = kv
        self._factors = factors
        self._clock = clock
        self._ledger = ledger
        self._mac = mac
        self._count = count

    async def begin(self, identity: Identity, demand: StepUpDemand, *, return_to: str, resume: str = "") -> str:
        """Ask `identity` to meet `demand`; the ticket (256 bit) names the challenge to this session alone.

        Raises `UserError` `ERR-MFA-SESSION` for a caller without a session: there is nothing to hold the proof.
        """
        session = identity.session
        if session is None:
            raise UserError("ERR-MFA-SESSION", say("Proving it again needs a session; sign in first."), status=401)
        now = self._clock.now()
        async with self._records.begin() as connection:
            turn = await add(connection, key(identity.tenant, "challenge-turn", session.id), 1, now, 6 * LIFETIME)
            ticket = f"{turn % PLACES}-{new_token()}"
            opened = Challenge(ticket, demand, return_to, resume, (), now + LIFETIME)
            await self._write(connection, opened, identity, session)
        await self._kv.wrote()
        self._count("any", "asked")
        detail: dict[str, Any] = {"level": demand.level.acr, "factors": sorted(demand.factors)}
        if demand.verified:
            detail["user_verification"] = "required"
        self._ledger.note(NOWHERE.event(Kind.STEP_UP_ASKED, who=identity, detail=detail))
        return ticket

    async def reopen(self, challenge: Challenge, identity: Identity) -> None:
        """Ask `challenge` again: it was answered, and the proof could not be put into the session.

        The answer is spent; what was interrupted goes on after the next. Raises `StoreAway`.
        """
        if identity.session is not None:
            async with self._records.begin() as connection:
                await self._write(connection, challenge, identity, identity.session)

    async def look(self, ticket: str, identity: Identity, place: Place | None = None) -> Challenge:
        """The open challenge `ticket`. Raises `UserError` `ERR-MFA-CHALLENGE` when it is over, in any sense.

        `place`, of who is about to answer it: then it is told as well.
        """
        challenge = await self._open(ticket, identity)
        if challenge is None:
            raise _error(GONE) if place is None else self._gone(Kind.STEP_UP_FAILED, identity, place)
        return challenge

    async def answer(self, ticket: str, identity: Identity, factor: str, answer: str, place: Place = NOWHERE) -> Proof:
        """The proof for the right answer, once. The caller puts it into the session (`Sessions.prove`).

        Raises `UserError` with a code of the table above; `ERR-MFA-THROTTLED` says in `retry_after` (seconds) when
        the next try will be checked. Raises `StoreAway`, and then nothing is proven.
        """
        challenge = await self._open(ticket, identity, factor)
        if challenge is None:
            raise self._gone(Kind.STEP_UP_FAILED, identity, place)
        outcome, known, kept = Outcome.THROTTLED, factor, list[Event]()
        state, checked = State.OPEN, NOTHING

        async def conclude(connection: AsyncConnection, checked: Checked) -> None:
            nonlocal state, outcome
            outcome = Outcome.RIGHT if checked.proof is not None else Outcome.WRONG
            if NEXT[state, outcome][0] is State.OVER and not await self._end(connection, ticket, identity):
                state = State.OVER
            kept.extend(_to_keep(_judged(identity, place, factor, NEXT[state, outcome][1], checked), checked))
            for event in kept:
                await self._ledger.enter(connection, event)

        if factor in challenge.offered:
            asked, hint = challenge.asked(identity.session_id), identity.level >= Level.AAL1
            checked = await self._factors.check(
                identity.tenant, identity.subject, factor, answer, hint=hint, asked=asked, conclude=conclude
            )
        else:
            outcome = await self._not_offered(identity, factor)
            known = factor if outcome is Outcome.DISABLED else "other"
        code = NEXT[state, outcome][1]
        self._count(known, COUNTED[code])
        for event in kept:
            self._ledger.tell(event)
        if code == PROOF and checked.proof is not None:
            return checked.proof
        self._ledger.note(_judged(identity, place, known, code, checked))
        raise _error(code, checked, known)

    async def send(
        self,
        ticket: str,
        identity: Identity,
        factor: str,
        *,
        to: str = "",
        language: str = "en",
        place: Place = NOWHERE,
    ) -> Sending:
        """Have a code sent that answers `ticket` and nothing else; the one before is void.

        `to` is the id of the factor, for who has several addresses; empty: the one used last. Whether the address works
        is not told. Raises `UserError` with a code of the table above; `ERR-MFA-RESEND` says in `retry_after` when one
        would be sent. Raises `StoreAway`, and then nothing was.
        """
        challenge = await self._open(ticket, identity, factor)
        if challenge is None:
            raise self._gone(Kind.CODE_REFUSED, identity, place)
        outcome, sending = await self._dispatch(challenge, identity, factor, to, language)
        _, code = NEXT[State.OPEN, outcome]
        known = factor if outcome is not Outcome.NOT_OFFERED else "other"
        detail: dict[str, Any] = {"factor": known, "outcome": code}
        if code == CODE_SENT:
            detail = {"factor": known, "id": sending.id, "about": VERIFY}
            if sending.held_back:
                detail["held_back"] = sending.held_back
        elif sending.whose:
            detail = {"factor": known, "why": sending.whose}
        self._count(known, COUNTED[code])
        self._ledger.note(
            place.event(
                Kind.CODE_SENT if code == CODE_SENT else Kind.CODE_REFUSED,
                Severity.INFO if code == CODE_SENT else Severity.NOTICE,
                who=identity,
                detail=detail,
            )
        )
        if code == CODE_SENT:
            return sending
        raise _error(code, Checked(wait=sending.wait), known)

    async def standing(self, challenge: Challenge, identity: Identity, factor: str) -> Standing | None:
        """How it stands with codes that are sent, for `challenge`; None for every other factor."""
        sent = self._factors.sent(factor) if factor in challenge.offered else None
        if sent is None:
            return None
        return await sent.standing(identity.tenant, identity.subject, challenge.asked(identity.session_id))

    async def is_linked(self, challenge: Challenge, identity: Identity, factor: str, secret: str) -> bool:
        """Whether `secret` is that of the link that was sent last for `challenge`. Nothing is counted, or used up."""
        sent = self._factors.sent(factor) if factor in challenge.offered else None
        if sent is None:
            return False
        asked = challenge.asked(identity.session_id)
        return await sent.is_linked(identity.tenant, identity.subject, asked, secret)

    async def _dispatch(
        self, challenge: Challenge, identity: Identity, factor: str, to: str, language: str
    ) -> tuple[Outcome, Sending]:
        if factor not in challenge.offered:
            return await self._not_offered(identity, factor), UNSENT
        sent = self._factors.sent(factor)
        if sent is None:
            return Outcome.NOT_OFFERED, UNSENT
        asked = challenge.asked(identity.session_id)
        sending = await sent.send(identity.tenant, identity.subject, asked, to, language)
        if sending.wait > 0:
            return Outcome.TOO_SOON, sending
        return (Outcome.SENT if sending.id else Outcome.NOT_OFFERED), sending

    def _gone(self, kind: Kind, identity: Identity, place: Place) -> UserError:
        """The one error of what answers no open challenge, and its one event."""
        self._count("other", COUNTED[GONE])
        self._ledger.note(place.event(kind, Severity.NOTICE, who=identity, detail={"factor": "other", "outcome": GONE}))
        return _error(GONE)

    async def _not_offered(self, identity: Identity, factor: str) -> Outcome:
        enrolled = await self._factors.of(identity.tenant, identity.subject)
        disabled = any(one.kind == factor and one.disabled for one in enrolled)
        return Outcome.DISABLED if disabled else Outcome.NOT_OFFERED

    async def _open(self, ticket: str, identity: Identity, factor: str = "") -> Challenge | None:
        """None where it is over. With `factor` nothing but that is looked for among what is offered."""
        session = identity.session
        if session is None:
            return None
        kept = self._read(await self._kv.get(_place(session, identity.tenant, ticket)), ticket, identity, session)
        if kept is None:
            return None
        demand = StepUpDemand(
            Level(kept["level"]),
            frozenset(kept["factors"]),
            kept["max_age"],
            kept.get("trusted", 0.0),
            kept.get("verified", False) is not False,
        )
        tenant, subject, level = identity.tenant, identity.subject, max(demand.level, Level.AAL2)
        if factor:
            usable: tuple[str, ...] = (factor,) if await self._factors.can(tenant, subject, factor, level) else ()
        else:
            usable = await self._factors.usable(tenant, subject, level)
        offered = tuple(name for name in usable if demand.counts(name))
        return Challenge(ticket, demand, kept["return_to"], kept["resume"], offered, kept["expires_at"])

    async def _write(
        self, connection: AsyncConnection, challenge: Challenge, identity: Identity, session: Session
    ) -> None:
        demand, ticket = challenge.demand, challenge.ticket
        kept = {
            "mac": self._mac.token(*_bound(identity, session, ticket)),
            "version": session.version,
            "level": int(demand.level),
            "factors": sorted(demand.factors),
            "max_age": demand.max_age,
            "trusted": demand.trusted,
            "verified": demand.verified,
            "return_to": challenge.return_to,
            "resume": challenge.resume,
            "expires_at": challenge.expires_at,
        }
        place = _place(session, identity.tenant, ticket)
        await write(connection, place, orjson.dumps(kept), challenge.expires_at)

    async def _end(self, connection: AsyncConnection, ticket: str, identity: Identity) -> bool:
        """End the challenge; True for exactly one caller."""
        session = identity.session
        if session is None:
            return False
        taken = await take(connection, _place(session, identity.tenant, ticket), self._clock.now())
        return self._read(taken, ticket, identity, session) is not None

    def _read(self, value: bytes | None, ticket: str, identity: Identity, session: Session) -> dict[str, Any] | None:
        if value is None:
            return None
        kept: dict[str, Any] = orjson.loads(value)
        mine = self._mac.verify(kept["mac"], *_bound(identity, session, ticket))
        if not mine or session.version < kept["version"] or kept["expires_at"] <= self._clock.now():
            return None
        return kept


def _judged(identity: Identity, place: Place, factor: str, code: str, checked: Checked) -> Event:
    """What is told of an answer."""
    kind = {PROOF: Kind.STEP_UP_PASSED, "ERR-MFA-THROTTLED": Kind.STEP_UP_THROTTLED}.get(code, Kind.STEP_UP_FAILED)
    return place.event(
        kind,
        Severity.INFO if code == PROOF else Severity.NOTICE,
        who=identity,
        detail={"factor": factor, "outcome": code or "passed", **({"why": checked.why} if checked.why else {})},
    )


def _to_keep(about: Event, checked: Checked) -> Iterator[Event]:
    """What is kept with an answer, where `about` is told of it."""
    factor = about.detail["factor"]
    if checked.proof is not None and factor == "backup_code":  # used up, even if it came too late
        yield replace(about, kind=Kind.BACKUP_CODE_USED, severity=Severity.NOTICE)
    if about.kind is Kind.STEP_UP_PASSED:
        yield about
    if checked.disabled:
        yield replace(about, kind=Kind.FACTOR_DISABLED, severity=Severity.ALARM)
    if checked.guesses:
        detail = {"factor": factor, "wrong": checked.guesses}
        yield replace(about, kind=Kind.STEP_UP_GUESSED, severity=Severity.WARNING, detail=detail)
    if checked.copied:
        detail = {"factor": factor, "id": checked.copied}
        yield replace(about, kind=Kind.FACTOR_COPIED, severity=Severity.ALARM, detail=detail)


def _bound(identity: Identity, session: Session, ticket: str) -> tuple[str, ...]:
    return ("challenge", identity.tenant, identity.subject, session.id, ticket)


def _place(session: Session, tenant: str, ticket: str) -> str:
    place = ticket.partition("-")[0]
    return key(tenant, "challenge", session.id, place if place.isascii() and place.isdigit() else "none")


def _error(code: str, checked: Checked = NOTHING, factor: str = "") -> UserError:
    said = WRONG.get(factor, DETAIL[code]) if code == "ERR-MFA-INVALID" else DETAIL[code]
    return UserError(code, sentences(said, checked.hint), status=STATUS[code], retry_after=checked.wait)
