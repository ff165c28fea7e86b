"""The address of an account, confirmed by its user: have a code sent there, type the code.

An operator gives an account its address, and may have mistyped it; or its mailbox is somebody else's by now. So nothing
that gets anybody in goes there (`mfa.recovery`) before its user has shown that they read it.

- *What is confirmed is one address*, and counts for as long as it is the account's (`store.own_address`).
- A code is bound to the session that asked for it, and to the address that it went to. One that comes from before a
  change confirms nothing: neither the old address nor the new one.
- Its right answer claims the code and confirms in one transaction; of two at once one does.
- Who may ask is `Enrolment.demand`'s to say, as for every change of a factor. How often is counted with the codes of
  the factor `email`, whether that is in use or not; tries at answering have a run of their own.
- Whether the address works is told to nobody: a code is on its way, whatever becomes of it.

An address that is bound as a factor by a code is confirmed by that, where it is the account's too (`codes.binding`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger
from gateway.core.errors import UserError
from gateway.core.events import NOWHERE, Event, Kind, Place, Severity
from gateway.core.identity import Identity
from gateway.core.words import say
from gateway.mfa import otp
from gateway.mfa.attempts import Attempts
from gateway.mfa.codes import code as codes
from gateway.mfa.codes.code import Question
from gateway.mfa.codes.factor import TooSoon
from gateway.mfa.email import Email
from gateway.mfa.enrolment import Enrolment
from gateway.store.own_address import confirm, own_address

CONFIRM: Final = "confirm"
"""What the code is about, as `Post.code` is told."""
OWN: Final = "own-address"
"""Where the code is kept, and what its tries are counted as."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with the address of an account."""

    address: str
    """Empty: it has none."""
    confirmed_at: float
    """0.0: it is not."""
    sent: bool
    """Whether a code that was sent there for this session counts."""
    again_in: float
    """Seconds until one may be asked for."""


class OwnAddress:
    """Confirms the address of an account. Every method raises `StoreAway` where the records do."""

    def __init__(self, email: Email, enrolment: Enrolment, attempts: Attempts, clock: Clock, ledger: Ledger) -> None:
        """`email` sends codes; whether it is offered as a factor makes no difference."""
        self._email = email
        self._enrolment = enrolment
        self._attempts = attempts
        self._clock = clock
        self._ledger = ledger

    async def standing(self, identity: Identity) -> Standing:
        """How it stands with the account of `identity`."""
        now = self._clock.now()
        async with self._email.records.read() as connection:
            address, confirmed_at = await own_address(connection, identity.tenant, identity.subject)
            sent = await codes.live(connection, _question(identity, address), now) if address else None
        again_in = await self._email.again_in(identity.tenant, identity.subject)
        return Standing(address, confirmed_at, sent is not None, again_in)

    async def send(self, identity: Identity, *, language: str = "en", place: Place = NOWHERE) -> None:
        """Send a code there; the one before is void.

        Raises `UserError`: what `Enrolment.demand` raises; ERR-UNREACHABLE where there is no address,
        ERR-MFA-ADDRESS-KNOWN where it is confirmed, ERR-MFA-RESEND.
        """
        await self._enrolment.demand(identity)
        try:
            async with self._email.records.begin(identity.tenant, identity.subject) as connection:
                address, confirmed_at = await own_address(connection, identity.tenant, identity.subject)
                if not address:
                    raise UserError("ERR-UNREACHABLE", say("Your account has no e-mail address."), 400)
                if confirmed_at:
                    raise UserError("ERR-MFA-ADDRESS-KNOWN", say("This address is confirmed already."), 409)
                sending = await self._email.dispatch(
                    connection, _question(identity, address), "", address, about=CONFIRM, bound=False, language=language
                )
        except TooSoon as soon:
            self._note(Kind.CODE_REFUSED, identity, place, {"why": soon.whose})
            raise UserError("ERR-MFA-RESEND", say("Codes were sent already."), 429, soon.wait) from None
        held = {"held_back": sending.held_back} if sending.held_back else {}
        self._note(Kind.CODE_SENT, identity, place, {"about": CONFIRM, **held}, Severity.INFO)

    async def confirm(self, identity: Identity, typed: str, place: Place = NOWHERE) -> None:
        """Confirm it by the code that came there.

        Raises `UserError`: ERR-MFA-THROTTLED; ERR-MFA-INVALID, whatever is wrong: the code, its age, another session's,
        sent to an address that the account had before.
        """
        tenant, subject, now = identity.tenant, identity.subject, self._clock.now()
        tried = await self._attempts.admit(tenant, subject, OWN)
        if tried.wait > 0:
            self._note(Kind.FACTOR_REFUSED, identity, place, {"why": "throttled"})
            raise UserError("ERR-MFA-THROTTLED", say("Too many tries."), 429, tried.wait)
        digits = otp.digits_of(typed)
        async with self._email.records.begin(tenant, subject) as connection:
            address, _ = await own_address(connection, tenant, subject)
            question = _question(identity, address)
            sent = await codes.live(connection, question, now) if address and digits else None
            right = (
                sent is not None
                and codes.is_right(self._email.mac, question, sent, digits)
                and await codes.claim(connection, question, sent)
            )
            new = right and await confirm(connection, tenant, subject, address, now)
            if right:
                await self._attempts.succeeded(connection, tenant, subject, OWN)
            event = confirmed(identity, place)
            if new:
                await self._ledger.enter(connection, event)
        if not right:
            self._note(Kind.FACTOR_REFUSED, identity, place, {"why": "code"})
            raise UserError("ERR-MFA-INVALID", say("That code is not right, too old, or a newer one was sent."))
        if new:
            self._ledger.tell(event)

    def _note(
        self,
        kind: Kind,
        identity: Identity,
        place: Place,
        detail: dict[str, Any],
        severity: Severity = Severity.NOTICE,
    ) -> None:
        told = {"factor": self._email.name, "about": CONFIRM, **detail}
        self._ledger.note(place.event(kind, severity, who=identity, detail=told))


def confirmed(identity: Identity, place: Place, *, factor: str = "") -> Event:
    """What the ledger is told of it; from there its owner is, where it was not by a `factor` that was bound."""
    detail = {"factor": factor} if factor else {}
    return place.event(Kind.ADDRESS_CONFIRMED, Severity.NOTICE, who=identity, detail=detail)


def _question(identity: Identity, address: str) -> Question:
    return Question(identity.tenant, identity.subject, identity.session_id, OWN, address)
