"""What the front desk needs from the rest of the house: one frozen value, made by `app`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from gateway.audit.deliveries import Deliveries
    from gateway.audit.preferences import Preferences
    from gateway.core.clock import Clock
    from gateway.core.contracts import Callback, Ledger
    from gateway.core.decision import Score
    from gateway.core.facts import Facts
    from gateway.core.identity import Identity
    from gateway.crypto.mac import Mac
    from gateway.gate import Spend
    from gateway.identity.device import DeviceCookie
    from gateway.identity.local import LocalUsers
    from gateway.identity.sessions import Sessions
    from gateway.identity.throttle import SignInThrottle
    from gateway.limits.standings import Standings
    from gateway.mfa.codes.binding import Addresses
    from gateway.mfa.enrolment import Enrolment
    from gateway.mfa.factors import Factors
    from gateway.mfa.interrupted import InterruptedRequests
    from gateway.mfa.own_address import OwnAddress
    from gateway.mfa.recovery import Recoveries
    from gateway.mfa.stepup import StepUps
    from gateway.mfa.trusted_devices import TrustedDevices
    from gateway.mfa.webauthn.security_keys import SecurityKeys


@dataclass(frozen=True, slots=True, eq=False)
class Desk:
    """The rooms behind the counter."""

    clock: Clock
    mac: Mac
    ledger: Ledger
    spend: Spend
    """Counts requests against limits."""
    standings: Standings
    """How limits stand, and having them begin anew."""
    users: LocalUsers
    sessions: Sessions
    throttle: SignInThrottle
    device: DeviceCookie
    factors: Factors
    enrolment: Enrolment
    stepups: StepUps
    interrupted: InterruptedRequests
    recoveries: Recoveries
    jwks: Callable[[], Mapping[str, Any]]
    """The published keys of assertions (RFC 7517)."""
    risk: Callable[[Facts, Identity], Awaitable[Score]]
    """How strange somebody's request is."""
    learn: Callable[[Facts, Identity], Awaitable[None]]
    """Told after every proof, so that the place it came from is less strange next time."""
    trusted: TrustedDevices | None = None
    """Browsers that people trust; None: none can be."""
    own_address: OwnAddress | None = None
    """Has the addresses of accounts confirmed; None where nothing rests on it."""
    security_keys: SecurityKeys | None = None
    """Where they are configured."""
    addresses: Mapping[str, Addresses] = field(default_factory=dict)
    """Who binds the addresses of each factor whose answer is sent first, by its name."""
    callbacks: Mapping[str, Callback] = field(default_factory=dict)
    """By sender: how what it tells is read."""
    preferences: Preferences | None = None
    """What people are told beside what they have to be; None where nobody is told anything."""
    deliveries: Deliveries | None = None
    """Keeps what senders tell; None where nobody sends anything."""
    language: str = "en"
    """For whoever asks for none of ours."""
    prefix: str = "/.sallyport/"
    """Path under which everything here lives; starts and ends with `/`."""


DESK = web.AppKey("desk", Desk)
