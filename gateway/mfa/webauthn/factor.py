"""`webauthn` among the other factors.

- What was asked is kept by `ceremony`; an answer claims it, right or wrong.
- The key has to be one of the user's, in use, and one that the operator takes and that could reach what is asked.
- A counter that does not go up says that there may be a copy of the key (section 6.1.1). Such an answer is refused and
  told as an alarm. The key stays in use: authenticators count wrongly at times, and nobody is locked out by one.
- The counter is compared and written in one transaction: of two answers at once with the same counter, one counts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.asked import Asked
from gateway.core.clock import Clock
from gateway.core.errors import NotProven
from gateway.core.identity import Level, Proof
from gateway.crypto.sealing import Sealer
from gateway.mfa.attempts import LIFE
from gateway.mfa.sealed import place_of
from gateway.mfa.webauthn import assertion, credential
from gateway.mfa.webauthn.base64url import encode
from gateway.mfa.webauthn.ceremony import AUTHENTICATE, LIFETIME, Ceremonies
from gateway.mfa.webauthn.key import KIND, Key, handle_of, keys_of, of, unpacked
from gateway.mfa.webauthn.relying_party import RelyingParty
from gateway.store.sql import Records
from gateway.store.tables import factors


class WebAuthn:
    """Factor `webauthn`."""

    name = KIND

    def __init__(
        self, records: Records, sealer: Sealer, ceremonies: Ceremonies, us: RelyingParty, clock: Clock
    ) -> None:
        self._records = records
        self._sealer = sealer
        self._ceremonies = ceremonies
        self._us = us
        self._clock = clock

    async def offer(self, tenant: str, subject: str, level: Level = Level.AAL2) -> bool:
        """Whether this user has a key in use that could reach `level`."""
        async with self._records.read() as connection:
            return bool(await self._fitting(connection, tenant, subject, level, spent=0))

    async def ask(self, tenant: str, subject: str, asked: Asked) -> dict[str, Any]:
        """`PublicKeyCredentialRequestOptionsJSON` (section 5.1.8) for one answer to `asked`, within five minutes."""
        async with self._records.read() as connection:
            keys = await self._fitting(connection, tenant, subject, asked.level, spent=0)
        challenge = await self._ceremonies.open(AUTHENTICATE, tenant, subject, asked.session, asked.ticket)
        return {
            "challenge": encode(challenge),
            "timeout": int(LIFETIME * 1000),
            "rpId": self._us.id,
            "allowCredentials": [described(key) for key in keys],
            "userVerification": self._us.verification(asked),
        }

    async def check(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        answer: str,
        now: float,
        asked: Asked | None = None,
    ) -> Proof | None:
        """The proof for an answer (`AuthenticationResponseJSON`) to `asked`. Raises `NotProven`."""
        if asked is None:
            return None
        claimed = await self._ceremonies.claim(
            AUTHENTICATE, tenant, subject, asked.session, asked.ticket, connection=connection
        )
        if claimed is None:
            raise NotProven("challenge")
        sent = credential.read(answer)
        keys = await self._fitting(connection, tenant, subject, asked.level, spent=1)  # this try is counted already
        key = next((one for one in keys if one.credential == sent.credential), None)
        if key is None:
            raise NotProven("credential")
        answered = assertion.verify(
            sent,
            key,
            self._us,
            challenge=claimed[0],
            verified=self._us.verification(asked) == "required",
            handle=handle_of(tenant, subject),
        )
        if not await self._used(connection, tenant, subject, key.id, answered, now):
            raise NotProven("credential")
        return Proof(self.name, now, "swk" if key.backup_eligible else "hwk", answered.verified)

    async def hint(self, tenant: str, subject: str, answer: str, now: float) -> str:
        """Nothing that would help."""
        return ""

    async def _fitting(
        self, connection: AsyncConnection, tenant: str, subject: str, level: Level, *, spent: int
    ) -> list[Key]:
        keys = await keys_of(connection, self._sealer, tenant, subject, below=LIFE + spent)
        return [key for key in keys if self._us.reaches(key, level)]

    async def _used(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        factor_id: str,
        answered: assertion.Answered,
        now: float,
    ) -> bool:
        """Note the use; False where the key was removed meanwhile. Raises `NotProven` for a counter that stands still.

        Whoever seals the row anew meanwhile waits for us, and then finds that it is no longer what was read.
        """
        mine = {"of_tenant": tenant, "of_subject": subject, "of_id": factor_id}
        sealed = await connection.scalar(_SECRET, mine)
        if sealed is None:
            return False
        place = place_of(tenant, factor_id)
        kept = unpacked(self._sealer.unseal(sealed, **place))
        if (answered.count or kept.count) and answered.count <= kept.count:
            raise NotProven("sign_count", copied=factor_id)
        key = replace(kept, count=answered.count, backed_up=answered.backed_up)
        used = {"secret": self._sealer.seal(key.packed(), **place), "last_used_at": now}
        await connection.execute(_NOTE_USE, {**mine, **used})
        return True


# Built once: building a statement costs more than running it.
_TENANT: Any = bindparam("of_tenant")
_SUBJECT: Any = bindparam("of_subject")
_MINE = (of(_TENANT, _SUBJECT), factors.c.id == bindparam("of_id"))
_SECRET = select(factors.c.secret).where(*_MINE).with_for_update()
_NOTE_USE = (
    update(factors)
    .where(*_MINE)
    .values(secret=bindparam("secret", type_=factors.c.secret.type), last_used_at=bindparam("last_used_at"))
)


def described(key: Key) -> dict[str, Any]:
    """`PublicKeyCredentialDescriptorJSON` of `key`."""
    return {"type": "public-key", "id": encode(key.credential), "transports": list(key.transports)}
