"""Everything of the room, on a real database in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert

from gateway.core.asked import Asked
from gateway.core.clock import ManualClock
from gateway.core.contracts import Factor
from gateway.core.errors import NotProven
from gateway.core.identity import DEFAULT_TENANT, Identity, Proof, Session, amr_of, level_of
from gateway.crypto.mac import Mac
from gateway.crypto.sealing import Sealer
from gateway.mfa import otp
from gateway.mfa.backup_codes import BackupCodes
from gateway.mfa.codes.binding import Addresses
from gateway.mfa.email import Email
from gateway.mfa.enrolment import Enrolment
from gateway.mfa.factors import Factors
from gateway.mfa.sms import Sms
from gateway.mfa.stepup import StepUps
from gateway.mfa.totp import Totp
from gateway.store.place import Place
from gateway.store.sql import Records
from gateway.store.sql_key_value import SqlKeyValue
from gateway.store.tables import users
from tests.rig.ledger import Remembered
from tests.rig.post import RecordingPost
from tests.rig.postgres import EITHER, either
from tests.rig.sessions import in_rows

MASTER = b"m" * 32
NOW = 1_700_000_010.0
"""Ten seconds into a step."""


class Room:
    """The whole room over one database; a second one over the same file is a second process."""

    def __init__(
        self,
        records: Records,
        clock: ManualClock,
        offered: tuple[str, ...] = ("totp", "backup_code"),
        post: RecordingPost | None = None,
    ) -> None:
        self.records = records
        self.clock = clock
        self.ledger = Remembered()
        self.counted: list[tuple[str, str]] = []
        self.setups: list[tuple[str, str]] = []
        self.sessions = in_rows(records, clock, self.ledger)
        self.kv = SqlKeyValue(records, clock)
        self.sealer = Sealer([MASTER])
        self.mac = Mac([MASTER])
        self.totp = Totp(records, self.sealer, clock)
        self.backup_codes = BackupCodes(records, self.mac, clock)
        self.post = post or RecordingPost()
        self.sms = Sms(records, self.sealer, self.mac, clock, self.post)
        self.email = Email(records, self.sealer, self.mac, clock, self.post)
        built: dict[str, Factor] = {
            "totp": self.totp, "sms": self.sms, "email": self.email, "backup_code": self.backup_codes,
        }  # fmt: skip
        self.factors = Factors(records, {name: built[name] for name in offered}, clock)
        self.stepups = StepUps(
            records, self.kv, self.factors, clock, self.ledger, self.mac,
            count=lambda *what: self.counted.append(what),
        )  # fmt: skip
        self.enrolment = Enrolment(
            records,
            self.totp,
            self.backup_codes,
            self.factors,
            clock,
            self.ledger,
            end_all=self.sessions.end_all,
            issuer="Sallyport",
            enrol_within=300.0,
            required_groups=["admins"],
            count=lambda *what: self.setups.append(what),
        )
        self.addresses = {
            factor.name: Addresses(factor, self.enrolment, self.factors.attempts, self.kv, clock, self.ledger)
            for factor in (self.sms, self.email)
        }

    async def judge(
        self, factor: Factor, tenant: str, subject: str, answer: str, asked: Asked | None = None
    ) -> Proof | None:
        """What `factor` itself says; nothing is counted."""
        async with self.records.begin(tenant, subject) as connection:
            with suppress(NotProven):
                return await factor.check(connection, tenant, subject, answer, self.clock.now(), asked)
            return None

    def code(self, secret: bytes, steps: int = 0) -> str:
        """What the device shows, `steps` from now."""
        return otp.code_at(secret, otp.step_at(self.clock.now()) + steps)

    def wrong(self, secret: bytes) -> str:
        """A code that no step near now has."""
        near = {self.code(secret, steps) for steps in range(-30, 31)}
        return next(f"{number:06}" for number in range(1_000_000) if f"{number:06}" not in near)

    async def bind(self, subject: str = "s-ann", label: str = "") -> bytes:
        """Give a user a device, with no code of the present used up; its secret."""
        secret = otp.new_secret()
        async with self.records.begin() as connection:
            await self.totp.bind(
                connection, DEFAULT_TENANT, subject, secret=secret, label=label, step=0, now=self.clock.now() - 3600
            )
        return secret

    async def give_codes(self, subject: str = "s-ann") -> tuple[str, ...]:
        async with self.records.begin() as connection:
            return await self.backup_codes.renew(connection, DEFAULT_TENANT, subject, self.clock.now())


def somebody(
    name: str = "ann",
    *,
    at: float = NOW,
    proofs: tuple[Proof, ...] | None = None,
    groups: frozenset[str] = frozenset(),
    session: str = "session-1",
    version: int = 1,
) -> Identity:
    """`name`, signed in at `at` with a password."""
    proofs = (Proof("password", at),) if proofs is None else proofs
    return Identity(
        DEFAULT_TENANT,
        f"s-{name}",
        name,
        groups=groups,
        session=Session(session, version, at, at + 86400, at, proofs, "192.0.2.1", "test"),
        level=level_of(proofs),
        amr=amr_of(proofs),
        auth_time=max((proof.at for proof in proofs), default=0.0),
    )


def proven(identity: Identity, *proofs: Proof) -> Identity:
    """`identity` after its session took `proofs`."""
    assert identity.session is not None
    together = (*identity.session.proofs, *proofs)
    session = replace(identity.session, proofs=together, version=identity.session.version + 1)
    return replace(identity, session=session, level=level_of(together), amr=amr_of(together))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture(params=EITHER)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """All of this room, on both databases."""
    return either(request, tmp_path)


@pytest.fixture
async def records(place: Place, clock: ManualClock) -> AsyncIterator[Records]:
    opened = await Records.open(place, clock=clock)
    await add_users(opened)
    yield opened
    await opened.close()


async def add_users(records: Records) -> None:
    async with records.begin() as connection:
        for name in ("ann", "bob"):
            await connection.execute(
                insert(users).values(
                    tenant=DEFAULT_TENANT,
                    subject=f"s-{name}",
                    name=name,
                    email="",
                    display_name="",
                    groups=[],
                    password="",
                    disabled=False,
                    created_at=0.0,
                )
            )


@pytest.fixture
def room(records: Records, clock: ManualClock) -> Room:
    return Room(records, clock)


@pytest.fixture
async def replica(place: Place, room: Room, clock: ManualClock) -> AsyncIterator[Room]:
    """Another process on the same database."""
    opened = await Records.open(place, clock=clock)
    yield Room(opened, clock)
    await opened.close()
