"""Who may bind or remove a factor, and how.

Whoever binds a factor owns the account from then on, so it takes more than an open session:

```text
the user has       allowed while                                          otherwise
no factor          the sign-in is at most `enrol_within` old              SIGN_IN_AGAIN
any factor         a second-factor proof is at most `enrol_within` old    STEP_UP
```

A factor that went out of use after too many wrong answers still counts as one: else a hundred wrong guesses would be
the way to bind one's own. Backup codes, or an administrator (`reset`), are the way back.

- What was allowed at the start of a setup stays allowed until its end, ten minutes at most: scanning a picture takes
  a while. Unless the user bound a first factor in between: then it was somebody else's turn.
- A setup waits sealed, for the session that began it. Its first right code binds the device, in one transaction, and is
  claimed with it.
- Whoever must have a factor (`demands`) keeps at least one that works, of a kind that will do, for each demand. The row
  goes only while another one stands, and that is one statement: two simultaneous removals cannot take both.
- Backup codes stand in for a device. With the last device they go too.

- What goes, and the sessions that may rest on it, go in one transaction: whoever had come in with a factor is not left
  inside because the process died between. The session that asked stays while it could be proven anew.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import ColumnElement, and_, delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import EndAll, Ledger, key
from gateway.core.errors import UserError
from gateway.core.events import NOWHERE, Event, Kind, Place, Severity
from gateway.core.identity import FIRST_FACTORS, NO_SECOND_FACTOR, Identity
from gateway.core.words import say, say_n, sentences
from gateway.crypto.sealing import Unsealable
from gateway.crypto.tokens import digest, new_token
from gateway.mfa import otp
from gateway.mfa.attempts import LIFE
from gateway.mfa.backup_codes import BackupCodes
from gateway.mfa.demands import NO_DEVICE, Demand, Demands
from gateway.mfa.factors import Enrolled, Factors
from gateway.mfa.totp import Totp, clock_hint
from gateway.store.sql import Records
from gateway.store.sql_key_value import SqlKeyValue, take
from gateway.store.tables import factors as rows

if TYPE_CHECKING:
    from gateway.mfa.aside import Aside

SETUP_LIFETIME = 600.0
"""Seconds from the picture to the first code."""
DEVICES = 5
"""Authenticator apps a user can bind; each makes a guess a little luckier."""
TURNED_OFF: Mapping[str, str] = {
    "totp": say("An authenticator app was turned off after too many wrong answers. Remove it and set it up anew."),
    "webauthn": say("A security key was turned off after too many wrong answers. Remove it and set it up anew."),
    "sms": say("A telephone number was turned off after too many wrong answers. Remove it and set it up anew."),
    "email": say("An e-mail address was turned off after too many wrong answers. Remove it and set it up anew."),
}
"""By factor: what to do about one that is out of use."""
SKEW = 60.0
"""Seconds that a proof may seem to lie in the future, after the clock was corrected."""


class Permit(StrEnum):
    """Whether somebody may change their factors now, or what they have to do first."""

    YES = "yes"
    SIGN_IN_AGAIN = "sign_in_again"
    STEP_UP = "step_up"


@dataclass(frozen=True, slots=True)
class Setup:
    """A device about to be bound. Shown once, to the one who asked; never logged."""

    id: str
    secret: str
    """Base32, for typing."""
    uri: str
    """`otpauth://…`, for the QR code."""

    def __repr__(self) -> str:
        return "<Setup>"


@dataclass(frozen=True, slots=True)
class Status:
    """A user's factors at a glance."""

    enrolled: tuple[Enrolled, ...]
    required: bool
    backup_codes_left: int
    backup_codes_expire_at: float
    """0.0 without any."""
    hint: str
    """A sentence about what to do, or empty."""


class Enrolment:
    """Binds and removes factors."""

    def __init__(
        self,
        records: Records,
        totp: Totp,
        backup_codes: BackupCodes,
        factors: Factors,
        clock: Clock,
        ledger: Ledger,
        *,
        end_all: EndAll,
        issuer: str,
        enrol_within: float = 300.0,
        required_groups: Collection[str] = ("admins",),
        demands: Demands | None = None,
        count: Callable[[str, str], None] = lambda factor, outcome: None,
        aside: Aside | None = None,
    ) -> None:
        """`end_all` ends sessions; `issuer` is the name apps show; `enrol_within` in seconds.

        `required_groups`: administrators. `demands`: who must have a factor; left out: administrators. `count` is told
        `(factor, outcome)` of every setup: started, failed (a wrong first answer), completed. `aside` tells addresses
        that go with their factor.
        """
        self._aside = aside
        self._records = records
        self._totp = totp
        self._backup_codes = backup_codes
        self._factors = factors
        self._clock = clock
        self._ledger = ledger
        self._end_all = end_all
        self._issuer = issuer
        self._within = enrol_within
        self._administrators = frozenset(required_groups)
        self.demands = demands or Demands(records, clock, ledger, [Demand(groups=self._administrators)])
        self._setups = SqlKeyValue(records, clock)
        self.count = count

    def required(self, identity: Identity) -> bool:
        """Whether this user must have a factor, and cannot turn it off; from now on, or soon."""
        return bool(self.demands.on(identity))

    def administers(self, identity: Identity) -> bool:
        """Whether this user is an administrator."""
        return not self._administrators.isdisjoint(identity.groups)

    async def status(self, identity: Identity) -> Status:
        """What this user has, and what they should see to."""
        enrolled = await self._factors.of(identity.tenant, identity.subject)
        left = await self._backup_codes.left(identity.tenant, identity.subject)
        offered = self._backup_codes.name in self._factors.names
        hint = ""
        devices = [one for one in enrolled if one.kind != self._backup_codes.name]
        off = next((one for one in devices if one.disabled), None)
        if off is not None:
            hint = TURNED_OFF[off.kind]
        elif devices and left.few and offered:
            hint = (
                say_n(
                    "You have {count} backup code left. Make new ones.",
                    "You have {count} backup codes left. Make new ones.",
                    left.count,
                )
                if left.count
                else say("You have no backup codes left. Make new ones.")
            )
        return Status(tuple(enrolled), self.required(identity), left.count, left.expires_at, hint)

    async def backup_codes_left(self, identity: Identity) -> int:
        """How many backup codes still count."""
        return (await self._backup_codes.left(identity.tenant, identity.subject)).count

    async def may_change(self, identity: Identity) -> Permit:
        """Whether this user may bind or remove factors now; the table above."""
        return (await self._permit(identity))[0]

    async def begin_totp(self, identity: Identity) -> Setup:
        """A fresh secret for one more device, waiting for its first code.

        Raises `UserError`: `ERR-MFA-SIGN-IN-AGAIN` or `ERR-MFA-STEP-UP` (do that first), `ERR-MFA-TOO-MANY`, or
        `ERR-MFA-METHOD` where the operator offers no `totp`.
        """
        self._need(self._totp.name)
        had_factors = await self.demand(identity)
        async with self._records.read() as connection:
            await self._demand_room(connection, identity.tenant, identity.subject)
        secret, setup_id = otp.new_secret(), new_token()
        row = _place(identity, setup_id)
        waiting = {"secret": base64.b64encode(secret).decode(), "had_factors": had_factors}
        sealed = self._totp.sealer.seal(orjson.dumps(waiting), table="kept", column="value", row=row)
        await self._setups.put(row, sealed, SETUP_LIFETIME)
        self.count(self._totp.name, "started")
        return self._shown(identity, setup_id, secret)

    async def look(self, identity: Identity, setup_id: str) -> Setup:
        """The open setup once more, for a page that is shown again. Raises `UserError` `ERR-MFA-SETUP`."""
        row = _place(identity, setup_id)
        waiting = self._opened(await self._setups.get(row), row)
        return self._shown(identity, setup_id, base64.b64decode(waiting["secret"]))

    async def confirm(
        self, identity: Identity, setup_id: str, code: str, *, label: str = "", place: Place = NOWHERE
    ) -> tuple[str, ...]:
        """Bind the device with its first code. Fresh backup codes, shown this once, where there were none.

        Raises `UserError`: `ERR-MFA-SETUP` (unknown, over, used, another session's: all alike), `ERR-MFA-INVALID`,
        `ERR-MFA-THROTTLED`, `ERR-MFA-TOO-MANY` and `ERR-MFA-STEP-UP` when others were bound in between.
        """
        tenant, subject, row = identity.tenant, identity.subject, _place(identity, setup_id)
        try:
            waiting = self._opened(await self._setups.get(row), row)
        except UserError:
            self.refused(identity, self._totp.name, "setup", place)
            raise
        tried = await self._factors.attempts.admit(tenant, subject, "totp_setup")
        if tried.wait > 0:
            self.refused(identity, self._totp.name, "throttled", place)
            raise UserError("ERR-MFA-THROTTLED", say("Too many tries."), 429, tried.wait)
        now = self._clock.now()
        secret = base64.b64decode(waiting["secret"])
        try:
            step = _shown_step(secret, code, now)
        except UserError:
            self.count(self._totp.name, "failed")
            self.refused(identity, self._totp.name, "code", place)
            raise

        async def insert(connection: AsyncConnection) -> str:
            self._opened(await take(connection, row, now), row)  # of two right codes at once, one binds
            await self._demand_room(connection, tenant, subject)  # any number of setups may have been begun together
            await self._factors.attempts.succeeded(connection, tenant, subject, "totp_setup")
            return await self._totp.bind(
                connection, tenant, subject, secret=secret, label=one_line(label), step=step, now=now
            )

        return await self.bind(identity, self._totp.name, insert, had_factors=waiting["had_factors"], place=place)

    def refused(self, identity: Identity, factor: str, why: str, place: Place = NOWHERE) -> None:
        """Tell that a setup of `factor` went no further, in a word for operators; never waits."""
        self._ledger.note(
            place.event(Kind.FACTOR_REFUSED, Severity.NOTICE, who=identity, detail={"factor": factor, "why": why})
        )

    async def bind(
        self,
        identity: Identity,
        factor: str,
        insert: Callable[[AsyncConnection], Awaitable[str]],
        *,
        had_factors: bool,
        place: Place = NOWHERE,
    ) -> tuple[str, ...]:
        """Let `insert` write the row of a new factor, and tell. Fresh backup codes where there were none.

        `insert` answers with the id of the row, or raises, and nothing has happened. `had_factors` is what `demand`
        said at the beginning: raises `UserError` `ERR-MFA-STEP-UP` when a first factor was bound in between.
        """
        tenant, subject = identity.tenant, identity.subject
        left = (await self._backup_codes.left(tenant, subject)).count
        wanted = left == 0 and self._backup_codes.name in self._factors.names
        async with self._records.begin(tenant, subject) as connection:
            if not had_factors and await _has_factors(connection, identity):
                raise _not_yet(Permit.STEP_UP)
            factor_id = await insert(connection)
            codes = await self._backup_codes.renew(connection, tenant, subject, self._clock.now()) if wanted else ()
            events = [_event(Kind.FACTOR_ENROLLED, identity, {"factor": factor, "id": factor_id}, place)]
            if codes:
                events.append(_event(Kind.BACKUP_CODES_MADE, identity, {"count": len(codes)}, place))
            for event in events:
                await self._ledger.enter(connection, event)
            await self._records.bump(connection, tenant, subject)
        self.count(factor, "completed")
        for event in events:
            self._ledger.tell(event)
        return codes

    async def remove(self, identity: Identity, factor_id: str, place: Place = NOWHERE) -> bool:
        """Unbind one factor, and end the user's other sessions; this one too where no factor is left that works.

        Whether this session goes on. Raises `UserError`: `ERR-MFA-SIGN-IN-AGAIN`, `ERR-MFA-STEP-UP`, `ERR-MFA-UNKNOWN`
        (also for another user's), or `ERR-MFA-REQUIRED` for the last working device that will do of somebody who must
        have one.
        """
        await self.demand(identity)
        tenant, subject = identity.tenant, identity.subject
        mine = and_(rows.c.tenant == tenant, rows.c.subject == subject, rows.c.id == factor_id)

        async def unbind(connection: AsyncConnection) -> Event:
            kind = await connection.scalar(select(rows.c.kind).where(mine))
            if kind is None:
                raise UserError("ERR-MFA-UNKNOWN", say("You have no such method."), 404)
            if kind == self._backup_codes.name:
                await self._backup_codes.void(connection, tenant, subject)
            else:
                may_go: ColumnElement[bool] = mine
                for demand in self.demands.on(identity):
                    other = rows.alias()
                    will_do = other.c.kind.in_(demand.factors) if demand.factors else other.c.kind.not_in(NO_DEVICE)
                    may_go &= exists().where(
                        other.c.tenant == tenant,
                        other.c.subject == subject,
                        will_do,
                        other.c.id != factor_id,
                        other.c.failures < LIFE,
                    )
                if self._aside is not None:
                    at = self._clock.now()
                    await self._aside.removed(connection, tenant, subject, at=at, factor_id=factor_id)
                if (await connection.execute(delete(rows).where(may_go))).rowcount != 1:
                    raise _required()
                if not await self._count_devices(connection, tenant, subject):
                    await self._backup_codes.void(connection, tenant, subject)
            return _event(Kind.FACTOR_REMOVED, identity, {"factor": kind, "id": factor_id}, place)

        return await self._end_with(tenant, subject, unbind, but=identity.session_id)

    async def disable(self, identity: Identity, place: Place = NOWHERE) -> None:
        """Unbind everything, and end every session of the user, this one too.

        Raises `UserError`: `ERR-MFA-SIGN-IN-AGAIN`, `ERR-MFA-STEP-UP`, or `ERR-MFA-REQUIRED` for somebody who must
        have a factor.
        """
        if self.required(identity):
            raise _required()
        await self.demand(identity)
        removed = _event(Kind.FACTOR_REMOVED, identity, {"factor": "all"}, place)
        await self._unbind_all(identity.tenant, identity.subject, removed)

    async def reset(self, tenant: str, subject: str, *, user: str, by: str) -> None:
        """Unbind everything of somebody else, who is shut out, and end every session of theirs.

        `user` and `by` are the canonical names of whom it is done to and of who does it. Whoever signs in next binds
        the first factor: set a new password with it where the old one may be known.
        """
        detail = {"factor": "all", "by": by}
        removed = Event(Kind.FACTOR_REMOVED, Severity.WARNING, tenant=tenant, user=user, detail=detail)
        await self._unbind_all(tenant, subject, removed)

    async def regenerate_backup_codes(self, identity: Identity, place: Place = NOWHERE) -> tuple[str, ...]:
        """Ten fresh codes, shown this once; every older one is void.

        Raises `UserError`: `ERR-MFA-SIGN-IN-AGAIN`, `ERR-MFA-STEP-UP`, `ERR-MFA-NO-DEVICE` where there is nothing that
        they could stand in for, or `ERR-MFA-METHOD` where the operator offers none.
        """
        self._need(self._backup_codes.name)
        await self.demand(identity)
        async with self._records.begin(identity.tenant, identity.subject) as connection:
            if not await self._count_devices(connection, identity.tenant, identity.subject):
                raise UserError("ERR-MFA-NO-DEVICE", say("Set up another second factor first."), 409)
            codes = await self._backup_codes.renew(connection, identity.tenant, identity.subject, self._clock.now())
            made = _event(Kind.BACKUP_CODES_MADE, identity, {"count": len(codes)}, place)
            await self._ledger.enter(connection, made)
            await self._records.bump(connection, identity.tenant, identity.subject)
        self._ledger.tell(made)
        return codes

    def _need(self, factor: str) -> None:
        if factor not in self._factors.names:
            raise UserError("ERR-MFA-METHOD", say("This method is not in use here."), 400)

    async def _permit(self, identity: Identity) -> tuple[Permit, bool]:
        async with self._records.read() as connection:
            has_factors = await _has_factors(connection, identity)
        session = identity.session
        if session is None:
            return Permit.SIGN_IN_AGAIN, has_factors
        now = self._clock.now()
        fresh = {proof.factor for proof in session.proofs if -SKEW <= now - proof.at <= self._within}
        if has_factors:
            return (Permit.YES if fresh - NO_SECOND_FACTOR else Permit.STEP_UP), True
        return (Permit.YES if fresh & FIRST_FACTORS else Permit.SIGN_IN_AGAIN), False

    async def demand(self, identity: Identity) -> bool:
        """Whether the user has factors, once they may change them. Raises `UserError` while they may not."""
        permit, has_factors = await self._permit(identity)
        if permit is not Permit.YES:
            raise _not_yet(permit)
        return has_factors

    async def _count_devices(self, connection: AsyncConnection, tenant: str, subject: str) -> int:
        devices = and_(rows.c.tenant == tenant, rows.c.subject == subject, rows.c.kind != self._backup_codes.name)
        return await connection.scalar(select(func.count()).select_from(rows).where(devices)) or 0

    async def _demand_room(self, connection: AsyncConnection, tenant: str, subject: str) -> None:
        """Room for one more app. Raises `UserError` `ERR-MFA-TOO-MANY`."""
        apps = and_(rows.c.tenant == tenant, rows.c.subject == subject, rows.c.kind == self._totp.name)
        if (await connection.scalar(select(func.count()).select_from(rows).where(apps)) or 0) >= DEVICES:
            said = say("You have {count} authenticator apps already. Remove one first.", count=DEVICES)
            raise UserError("ERR-MFA-TOO-MANY", said, 409)

    async def _unbind_all(self, tenant: str, subject: str, removed: Event) -> None:
        async def unbind(connection: AsyncConnection) -> Event:
            if self._aside is not None:
                await self._aside.removed(connection, tenant, subject, at=self._clock.now())
            await self.unbind(connection, tenant, subject)
            return removed

        await self._end_with(tenant, subject, unbind, but="")

    async def _end_with(
        self, tenant: str, subject: str, unbind: Callable[[AsyncConnection], Awaitable[Event]], *, but: str
    ) -> bool:
        """`unbind`, keep the event of it, and end every session but the one with id `but`; whether that one stays."""
        stays, told = False, list[Event]()

        async def first(connection: AsyncConnection) -> bool:
            nonlocal stays
            told.append(await unbind(connection))
            await self._ledger.enter(connection, told[-1])
            stays = bool(but) and await self._any_left(connection, tenant, subject)
            return stays

        await self._end_all(tenant, subject, but=but, first=first)
        for event in told:
            self._ledger.tell(event)
        return stays

    async def _any_left(self, connection: AsyncConnection, tenant: str, subject: str) -> bool:
        """Whether they have something still that they could prove it with."""
        mine = and_(rows.c.tenant == tenant, rows.c.subject == subject, rows.c.failures < LIFE)
        device = exists().where(mine, rows.c.kind != self._backup_codes.name, rows.c.kind.in_(self._factors.names))
        if await connection.scalar(select(device)):
            return True
        left = await self._backup_codes.left_in(connection, tenant, subject)
        return left.count > 0 and self._backup_codes.name in self._factors.names

    async def unbind(self, connection: AsyncConnection, tenant: str, subject: str) -> None:
        """Unbind everything of somebody, in the caller's transaction, which then bumps."""
        await self._backup_codes.void(connection, tenant, subject)
        await connection.execute(delete(rows).where(rows.c.tenant == tenant, rows.c.subject == subject))

    def _shown(self, identity: Identity, setup_id: str, secret: bytes) -> Setup:
        return Setup(setup_id, otp.base32(secret), otp.otpauth(secret, self._issuer, identity.user))

    def _opened(self, sealed: bytes | None, row: str) -> dict[str, Any]:
        try:
            if sealed is not None:
                waiting: dict[str, Any] = orjson.loads(
                    self._totp.sealer.unseal(sealed, table="kept", column="value", row=row)
                )
                return waiting
        except Unsealable:
            pass  # damaged at rest; as good as gone
        raise UserError("ERR-MFA-SETUP", say("This setup is no longer open. Start it again."), 410)


def _event(kind: Kind, identity: Identity, detail: dict[str, Any], place: Place) -> Event:
    return place.event(kind, Severity.NOTICE, who=identity, detail=detail)


async def _has_factors(connection: AsyncConnection, identity: Identity) -> bool:
    mine = exists().where(rows.c.tenant == identity.tenant, rows.c.subject == identity.subject)
    return bool(await connection.scalar(select(mine)))


def _shown_step(secret: bytes, code: str, now: float) -> int:
    digits, present = otp.digits_of(code), otp.step_at(now)
    step = otp.matching_step(secret, digits, present, after=-1) if digits else None
    if step is not None:
        return step
    drifted = otp.drifted_step(secret, digits, present) if digits else None
    hint = clock_hint(drifted - present) if drifted is not None else say("Wait for the next one and try again.")
    raise UserError("ERR-MFA-INVALID", sentences(say("That code is not right."), hint))


def _place(identity: Identity, setup_id: str) -> str:
    return key(identity.tenant, "totp-setup", identity.subject, identity.session_id, digest(setup_id).hex())


def _not_yet(permit: Permit) -> UserError:
    if permit is Permit.STEP_UP:
        return UserError("ERR-MFA-STEP-UP", say("Prove it with a method you have before you change any."), 403)
    return UserError("ERR-MFA-SIGN-IN-AGAIN", say("Sign in again before you change how you prove it."), 403)


def _required() -> UserError:
    return UserError("ERR-MFA-REQUIRED", say("Your account must have a second factor; set up another one first."), 403)


def one_line(label: str) -> str:
    """`label` as it is kept: printable, on one line, 64 characters at most."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in label[:256]).split())[:64]
