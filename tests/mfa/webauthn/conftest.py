"""The room with security keys in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.core.asked import Asked
from gateway.core.clock import ManualClock
from gateway.core.identity import DEFAULT_TENANT, Identity, Level, Proof
from gateway.core.rule import StepUpDemand
from gateway.mfa.enrolment import Enrolment
from gateway.mfa.factors import Factors
from gateway.mfa.stepup import StepUps
from gateway.mfa.webauthn.relying_party import RelyingParty
from gateway.mfa.webauthn.security_keys import Workshop
from gateway.store.place import Place
from gateway.store.sql import Records
from tests.mfa.conftest import Room, proven, somebody
from tests.rig.authenticator import ORIGIN, Authenticator
from tests.rig.postgres import EITHER, either

AAL2, AAL3 = StepUpDemand(Level.AAL2), StepUpDemand(Level.AAL3)
VERIFIED = StepUpDemand(Level.AAL2, frozenset({"webauthn"}), verified=True)


class KeyRoom(Room):
    """`Room`, with the factor `webauthn` before the others."""

    def __init__(self, records: Records, clock: ManualClock, us: RelyingParty | None = None) -> None:
        super().__init__(records, clock)
        workshop = Workshop(records, self.sealer, self.mac, self.kv, clock, us or RelyingParty("Sallyport", ORIGIN))
        self.webauthn = workshop.factor
        built = {
            "webauthn": self.webauthn, "totp": self.totp, "sms": self.sms, "email": self.email,
            "backup_code": self.backup_codes,
        }  # fmt: skip
        self.factors = Factors(records, built, clock)
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
            count=lambda *what: self.setups.append(what),
        )
        self.binding = workshop.security_keys(self.enrolment).binding

    async def set_up(
        self, authenticator: Authenticator | None = None, who: Identity | None = None, **wrong: Any
    ) -> Authenticator:
        """Bind a key to `who`, who is ann and may."""
        authenticator = authenticator or Authenticator()
        who = who or self.fresh("ann")
        if await self.factors.of(who.tenant, who.subject):
            who = proven(who, Proof("totp", self.clock.now()))
        options = await self.binding.begin(who)
        answer = authenticator.register(options, **wrong)
        await self.binding.complete(who, orjson.dumps(answer).decode(), label="blue")
        return authenticator

    def fresh(self, name: str, **more: Any) -> Identity:
        """Somebody who has just signed in."""
        return somebody(name, at=self.clock.now(), **more)

    async def question(self, who: Identity, demand: StepUpDemand = AAL2) -> tuple[str, dict[str, Any]]:
        """A challenge, and what the key is asked."""
        ticket = await self.stepups.begin(who, demand, return_to="/")
        return ticket, await self.ask(who, ticket, demand)

    async def ask(self, who: Identity, ticket: str, demand: StepUpDemand = AAL2) -> dict[str, Any]:
        assert who.session is not None
        asked = Asked(who.session.id, ticket, demand.level, demand.verified)
        return await self.webauthn.ask(DEFAULT_TENANT, who.subject, asked)

    async def give(self, who: Identity, ticket: str, answer: object) -> Proof:
        text = answer if isinstance(answer, str) else orjson.dumps(answer).decode()
        return await self.stepups.answer(ticket, who, "webauthn", text)


BOTH = pytest.mark.parametrize("place", EITHER, indirect=True)
Furnish = Callable[..., KeyRoom]


@pytest.fixture(params=["sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Most of it asks the database nothing new; what does runs over `BOTH`."""
    return either(request, tmp_path)


@pytest.fixture
def furnish(records: Records, clock: ManualClock) -> Furnish:
    """A room under other words of the operator's."""

    def make(**words: Any) -> KeyRoom:
        return KeyRoom(records, clock, RelyingParty("Sallyport", ORIGIN, **words))

    return make


@pytest.fixture
def room(records: Records, clock: ManualClock) -> KeyRoom:
    return KeyRoom(records, clock)
