"""Having an address bound: type it, get a code there, type the code.

Who may is `enrolment`'s to say, as for every factor. The address waits sealed, for the session that began and for ten
minutes at most; the code is bound to that setup, and only the last one that was sent counts. Its right answer claims
code and setup and writes the factor, in one transaction.

Whether an address belongs to somebody, or works, is told to nobody: a code is on its way, whatever becomes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import KeyValue, Ledger, key
from gateway.core.errors import UserError
from gateway.core.events import NOWHERE, Kind, Place, Severity
from gateway.core.identity import Identity, Proof
from gateway.core.words import say
from gateway.crypto.sealing import Unsealable
from gateway.crypto.tokens import digest, new_id, new_token
from gateway.mfa import otp
from gateway.mfa.attempts import Attempts
from gateway.mfa.codes import code as codes
from gateway.mfa.codes.code import LIFETIME, Question
from gateway.mfa.codes.factor import ENROL, SentCode, TooSoon
from gateway.mfa.enrolment import Enrolment, one_line
from gateway.mfa.own_address import confirmed
from gateway.mfa.sealed import place_of
from gateway.store.own_address import confirm
from gateway.store.sql_key_value import write
from gateway.store.tables import factors, kept

ADDRESSES: Final = 5
"""A user can have of each factor, out of use or not; each makes a guess a little luckier."""
MANY: Final = {
    "sms": say("You have {count} phone numbers already. Remove one first.", count=ADDRESSES),
    "email": say("You have {count} e-mail addresses already. Remove one first.", count=ADDRESSES),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """An address about to be bound."""

    id: str
    masked: str
    again_in: float
    """Seconds until another code may be asked for."""

    def __repr__(self) -> str:
        return "<Setup>"


class Addresses:
    """Binds the addresses of one factor."""

    def __init__(
        self, factor: SentCode, enrolment: Enrolment, attempts: Attempts, kv: KeyValue, clock: Clock, ledger: Ledger
    ) -> None:
        self.factor = factor
        self._enrolment = enrolment
        self._attempts = attempts
        self._kv = kv
        self._clock = clock
        self._ledger = ledger
        self._setup = f"{factor.name}-setup"

    def owns(self, setup_id: str) -> bool:
        """Whether `setup_id` is one of ours."""
        return setup_id.startswith(f"{self.factor.name}.")

    async def begin(self, identity: Identity, typed: str, *, language: str = "en", place: Place = NOWHERE) -> Setup:
        """Send a code to the address in `typed`; the setup that it confirms.

        Raises `UserError`: what `Enrolment.demand` and `Post.address` raise, `ERR-MFA-TOO-MANY`,
        `ERR-MFA-ADDRESS-KNOWN` (it is theirs already), `ERR-MFA-RESEND`. Raises `StoreAway`, and nothing was done.
        """
        had_factors = await self._enrolment.demand(identity)
        try:
            to = self.factor.post.address(self.factor.name, typed)
        except UserError as error:
            self._tell(Kind.FACTOR_REFUSED, identity, place, {"why": "address"})
            raise error from None
        setup_id = f"{self.factor.name}.{new_token()}"
        until = self._clock.now() + LIFETIME
        waiting = {"address": to, "had_factors": had_factors, "expires_at": until}
        row = _place(self._setup, identity, setup_id)
        sealed = self.factor.sealer.seal(orjson.dumps(waiting), table="kept", column="value", row=row)
        setup = await self._send(identity, setup_id, to, language, place, (row, sealed, until))
        self._enrolment.count(self.factor.name, "started")
        return setup

    async def again(self, identity: Identity, setup_id: str, *, language: str = "en", place: Place = NOWHERE) -> Setup:
        """Send another code; the one before is void. Raises `UserError`: `ERR-MFA-SETUP`, `ERR-MFA-RESEND`."""
        waiting = await self._waiting(identity, setup_id, place)
        return await self._send(identity, setup_id, waiting["address"], language, place)

    async def look(self, identity: Identity, setup_id: str) -> Setup:
        """The open setup once more, for a page. Raises `UserError` `ERR-MFA-SETUP`."""
        waiting = await self._waiting(identity, setup_id)
        again_in = await self.factor.again_in(identity.tenant, identity.subject)
        return Setup(setup_id, self.factor.masked(waiting["address"]), again_in)

    async def confirm(
        self, identity: Identity, setup_id: str, typed: str, *, label: str = "", place: Place = NOWHERE
    ) -> tuple[Proof, tuple[str, ...]]:
        """Bind the address by the code that came to it: a proof, and backup codes where there were none.

        Raises `UserError`: `ERR-MFA-SETUP` (unknown, over, used, another session's: all alike), `ERR-MFA-INVALID`,
        `ERR-MFA-THROTTLED`, `ERR-MFA-TOO-MANY`, `ERR-MFA-ADDRESS-KNOWN`, `ERR-MFA-STEP-UP` when a first factor was
        bound in between.
        """
        tenant, subject = identity.tenant, identity.subject
        waiting = await self._waiting(identity, setup_id, place)
        tried = await self._attempts.admit(tenant, subject, f"{self.factor.name}_setup")
        if tried.wait > 0:
            self._tell(Kind.FACTOR_REFUSED, identity, place, {"why": "throttled"})
            raise UserError("ERR-MFA-THROTTLED", say("Too many tries."), 429, tried.wait)
        question, now, digits = self._question(identity, setup_id), self._clock.now(), otp.digits_of(typed)
        async with self.factor.records.read() as connection:
            sent = await codes.live(connection, question, now)
        if sent is None or not digits or not codes.is_right(self.factor.mac, question, sent, digits):
            self._enrolment.count(self.factor.name, "failed")
            self._tell(Kind.FACTOR_REFUSED, identity, place, {"why": "code"})
            raise UserError("ERR-MFA-INVALID", say("That code is not right, too old, or a newer one was sent."))

        own, event = False, confirmed(identity, place, factor=self.factor.name)

        async def bind(connection: AsyncConnection) -> str:
            nonlocal own
            gone = await connection.execute(delete(kept).where(kept.c.key == _place(self._setup, identity, setup_id)))
            if not await codes.claim(connection, question, sent) or gone.rowcount != 1:
                raise _over()  # of two right codes at once, one binds
            await self._room_for(connection, identity, waiting["address"])
            await self._attempts.succeeded(connection, tenant, subject, f"{self.factor.name}_setup")
            # Where it is the account's too, it is confirmed by the same code.
            own = await confirm(connection, tenant, subject, waiting["address"], now)
            if own:
                await self._ledger.enter(connection, event)
            return await self._insert(connection, tenant, subject, waiting["address"], label, now)

        backup = await self._enrolment.bind(
            identity, self.factor.name, bind, had_factors=waiting["had_factors"], place=place
        )
        if own:
            self._ledger.tell(event)
        return Proof(self.factor.name, now), backup

    async def _send(
        self,
        identity: Identity,
        setup_id: str,
        to: str,
        language: str,
        place: Place,
        row: tuple[str, bytes, float] | None = None,
    ) -> Setup:
        """`row`, of a new setup, is kept in the same transaction."""
        question = self._question(identity, setup_id)
        try:
            async with self.factor.records.begin(identity.tenant, identity.subject) as connection:
                if row is not None:
                    await self._room_for(connection, identity, to)
                    await write(connection, *row)
                sending = await self.factor.dispatch(
                    connection, question, "", to, about=ENROL, bound=False, language=language
                )
        except TooSoon as soon:
            self._tell(Kind.CODE_REFUSED, identity, place, {"why": soon.whose})
            raise UserError("ERR-MFA-RESEND", say("Codes were sent already."), 429, soon.wait) from None
        held = {"held_back": sending.held_back} if sending.held_back else {}
        self._tell(Kind.CODE_SENT, identity, place, {"about": ENROL, **held}, Severity.INFO)
        return Setup(setup_id, sending.masked, sending.again_in)

    async def _room_for(self, connection: AsyncConnection, identity: Identity, to: str) -> None:
        theirs = await self.factor.addresses_in(connection, identity.tenant, identity.subject)
        if to in theirs:
            raise UserError("ERR-MFA-ADDRESS-KNOWN", say("This is set up already."), 409)
        if len(theirs) >= ADDRESSES:
            raise UserError("ERR-MFA-TOO-MANY", MANY[self.factor.name], 409)

    async def _insert(
        self, connection: AsyncConnection, tenant: str, subject: str, to: str, label: str, now: float
    ) -> str:
        factor_id = new_id()
        await connection.execute(
            insert(factors).values(
                tenant=tenant,
                id=factor_id,
                subject=subject,
                kind=self.factor.name,
                label=one_line(label),
                secret=self.factor.sealer.seal(to.encode(), **place_of(tenant, factor_id)),
                last_step=-1,
                refused_step=-1,
                failures=0,
                created_at=now,
                last_used_at=now,
            )
        )
        return factor_id

    def _question(self, identity: Identity, setup_id: str) -> Question:
        return Question(identity.tenant, identity.subject, identity.session_id, self._setup, setup_id)

    async def _waiting(self, identity: Identity, setup_id: str, place: Place | None = None) -> dict[str, Any]:
        """What was begun. With `place`, where somebody wants something of it, it is told where there is nothing."""
        row = _place(self._setup, identity, setup_id)
        sealed = await self._kv.get(row)
        try:
            if sealed is not None:
                opened = self.factor.sealer.unseal(sealed, table="kept", column="value", row=row)
                waiting: dict[str, Any] = orjson.loads(opened)
                if waiting["expires_at"] > self._clock.now():
                    return waiting
        except Unsealable:
            pass  # damaged at rest; as good as gone
        if place is not None:
            self._tell(Kind.FACTOR_REFUSED, identity, place, {"why": "setup"})
        raise _over()

    def _tell(
        self,
        kind: Kind,
        identity: Identity,
        place: Place,
        detail: dict[str, Any],
        severity: Severity = Severity.NOTICE,
    ) -> None:
        self._ledger.note(place.event(kind, severity, who=identity, detail={"factor": self.factor.name, **detail}))


def _over() -> UserError:
    return UserError("ERR-MFA-SETUP", say("This setup is no longer open. Start it again."), 410)


def _place(setup: str, identity: Identity, setup_id: str) -> str:
    return key(identity.tenant, setup, identity.subject, identity.session_id, digest(setup_id).hex())
