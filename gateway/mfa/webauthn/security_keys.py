"""Security keys and passkeys, put together, as the front desk wants them."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.clock import Clock
from gateway.crypto.mac import Mac
from gateway.crypto.sealing import Sealer
from gateway.mfa.enrolment import Enrolment
from gateway.mfa.webauthn.binding import Binding
from gateway.mfa.webauthn.ceremony import Ceremonies
from gateway.mfa.webauthn.factor import WebAuthn
from gateway.mfa.webauthn.relying_party import RelyingParty
from gateway.store.sql import Records
from gateway.store.sql_key_value import SqlKeyValue


@dataclass(frozen=True, slots=True)
class SecurityKeys:
    """Who asks, who judges, who sets up."""

    us: RelyingParty
    factor: WebAuthn
    binding: Binding


class Workshop:
    """Makes the factor first, which enrolment needs, and then what needs enrolment."""

    def __init__(
        self, records: Records, sealer: Sealer, mac: Mac, kv: SqlKeyValue, clock: Clock, us: RelyingParty
    ) -> None:
        self._records = records
        self._sealer = sealer
        self._ceremonies = Ceremonies(kv, clock, mac)
        self._clock = clock
        self._us = us
        self.factor = WebAuthn(records, sealer, self._ceremonies, us, clock)

    def security_keys(self, enrolment: Enrolment) -> SecurityKeys:
        """All of it."""
        binding = Binding(self._records, self._sealer, self._ceremonies, self._us, enrolment, self._clock)
        return SecurityKeys(self._us, self.factor, binding)
