"""Setting a key up: begin, touch it, done.

Who may is `enrolment`'s to say. A registration is not signed by the key unless it is attested, so it raises a session
to aal2 and no further; aal3 takes an answer of the key.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import exists, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.errors import NotProven, UserError
from gateway.core.events import NOWHERE, Place
from gateway.core.identity import Identity, Proof
from gateway.core.words import say
from gateway.crypto.sealing import Sealer
from gateway.mfa.enrolment import Enrolment, one_line
from gateway.mfa.sealed import place_of
from gateway.mfa.webauthn import credential, registration
from gateway.mfa.webauthn.base64url import encode
from gateway.mfa.webauthn.ceremony import LIFETIME, REGISTER, Ceremonies
from gateway.mfa.webauthn.factor import described
from gateway.mfa.webauthn.key import KIND, Key, handle_of, keys_of
from gateway.mfa.webauthn.relying_party import ALGORITHMS, RelyingParty
from gateway.store.sql import Records
from gateway.store.tables import factors

KEYS = 10
"""A user can have; out of use or not."""
KNOWN = "ERR-MFA-KEY-KNOWN"
POLICY = frozenset({"attestation", "aaguid", "backup_eligible"})
"""Words of `NotProven` for keys that work and are not wanted."""


class Binding:
    """Sets keys up."""

    def __init__(
        self,
        records: Records,
        sealer: Sealer,
        ceremonies: Ceremonies,
        us: RelyingParty,
        enrolment: Enrolment,
        clock: Clock,
    ) -> None:
        self._records = records
        self._sealer = sealer
        self._ceremonies = ceremonies
        self._us = us
        self._enrolment = enrolment
        self._clock = clock

    async def begin(self, identity: Identity) -> dict[str, Any]:
        """`PublicKeyCredentialCreationOptionsJSON` (section 5.1.8), for one key, within five minutes.

        Raises `UserError`: what `Enrolment.demand` raises, or `ERR-MFA-TOO-MANY`.
        """
        tenant, subject = identity.tenant, identity.subject
        had_factors = await self._enrolment.demand(identity)
        async with self._records.read() as connection:
            keys = await keys_of(connection, self._sealer, tenant, subject)
        if len(keys) >= KEYS:
            raise UserError(
                "ERR-MFA-TOO-MANY", say("You have {count} security keys already. Remove one first.", count=KEYS), 409
            )
        challenge = await self._ceremonies.open(REGISTER, tenant, subject, identity.session_id, had_factors=had_factors)
        self._enrolment.count(KIND, "started")
        return {
            "rp": {"id": self._us.id, "name": self._us.name},
            "user": {
                "id": encode(handle_of(tenant, subject)),
                "name": identity.user,
                "displayName": identity.name or identity.user,
            },
            "challenge": encode(challenge),
            "pubKeyCredParams": [{"type": "public-key", "alg": each} for each in ALGORITHMS],
            "timeout": int(LIFETIME * 1000),
            "excludeCredentials": [described(key) for key in keys],
            "authenticatorSelection": {
                "residentKey": "discouraged",  # it stands beside a password, so no room on the key has to be taken
                "requireResidentKey": False,
                "userVerification": self._us.user_verification,
            },
            "attestation": "none" if self._us.aaguids is None else "direct",
        }

    async def complete(
        self, identity: Identity, answer: str, *, label: str = "", place: Place = NOWHERE
    ) -> tuple[Proof, tuple[str, ...]]:
        """Bind the key in `answer` (`RegistrationResponseJSON`): a proof of it, and backup codes where there were none.

        Raises `UserError`: `ERR-MFA-SETUP` (nothing begun, over, another session's), `ERR-MFA-INVALID`,
        `ERR-MFA-KEY-REFUSED` (the operator takes no such keys), `ERR-MFA-KEY-KNOWN` (set up already, by whomever),
        `ERR-MFA-TOO-MANY`, `ERR-MFA-STEP-UP` when a first factor was bound in between.
        """
        tenant, subject = identity.tenant, identity.subject
        claimed = await self._ceremonies.claim(REGISTER, tenant, subject, identity.session_id)
        if claimed is None:
            self._enrolment.refused(identity, KIND, "setup", place)
            raise UserError("ERR-MFA-SETUP", say("This setup is no longer open. Start it again."), 410)
        challenge, kept = claimed
        try:
            key = registration.verify(credential.read(answer), self._us, challenge=challenge)
        except NotProven as error:
            self._enrolment.count(KIND, "failed")
            self._enrolment.refused(identity, KIND, error.why, place)
            if error.why in POLICY:
                raise UserError("ERR-MFA-KEY-REFUSED", say("Keys of this kind are not accepted here."), 403) from error
            raise UserError("ERR-MFA-INVALID", say("That key could not be set up. Please try again.")) from error

        async def bind(connection: AsyncConnection) -> str:
            return await self._insert(connection, tenant, subject, key, one_line(label))

        try:
            codes = await self._enrolment.bind(identity, KIND, bind, had_factors=kept["had_factors"], place=place)
        except IntegrityError as error:  # another user of the same key was faster
            self._enrolment.refused(identity, KIND, "known", place)
            raise _known() from error
        except UserError as error:
            if error.code == KNOWN:
                self._enrolment.refused(identity, KIND, "known", place)
            raise
        return Proof(KIND, self._clock.now(), "swk" if key.backup_eligible else "hwk"), codes

    async def _insert(self, connection: AsyncConnection, tenant: str, subject: str, key: Key, label: str) -> str:
        if len(await keys_of(connection, self._sealer, tenant, subject)) >= KEYS:
            raise UserError(
                "ERR-MFA-TOO-MANY", say("You have {count} security keys already. Remove one first.", count=KEYS), 409
            )
        same = exists().where(factors.c.tenant == tenant, factors.c.id == key.id)
        if await connection.scalar(select(same)):
            raise _known()
        now = self._clock.now()
        await connection.execute(
            insert(factors).values(
                tenant=tenant,
                id=key.id,
                subject=subject,
                kind=KIND,
                label=label,
                secret=self._sealer.seal(key.packed(), **place_of(tenant, key.id)),
                last_step=-1,
                refused_step=-1,
                failures=0,
                created_at=now,
                last_used_at=now,
            )
        )
        return key.id


def _known() -> UserError:
    return UserError(KNOWN, say("This key is set up already."), 409)
