"""Everybody who can be known, and the pages they see: what a gateway has that keeps records.

A gateway that only carries requests imports nothing of this: no database, no web framework, no passwords.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.audit.preferences import Preferences
from gateway.core.contracts import Callback, Factor, KeyValue, Post
from gateway.core.cookies import Cookies
from gateway.core.errors import ConfigError, StoreAway
from gateway.crypto.keys import KeyRing
from gateway.identity.cookie import SessionCookie
from gateway.identity.device import DeviceCookie, KnownBrowser
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.identity.session_rows import SessionRows, revoke
from gateway.identity.sessions import Sessions
from gateway.identity.throttle import SignInThrottle
from gateway.mfa.backup_codes import BackupCodes
from gateway.mfa.demands import Demands
from gateway.mfa.enrolment import Enrolment
from gateway.mfa.factors import Factors
from gateway.mfa.interrupted import InterruptedRequests
from gateway.mfa.recovery import Recoveries
from gateway.mfa.reminders import Reminders
from gateway.mfa.sealed import demand_keys
from gateway.mfa.stepup import StepUps
from gateway.mfa.totp import Totp
from gateway.mfa.trusted_devices import TrustedDevices
from gateway.risk.score import Risk
from gateway.store.sql import Records
from gateway.store.sql_key_value import SqlKeyValue
from gateway.web.app import make_app, make_runner
from gateway.web.desk import Desk
from gateway.web.pages import ErrorPages

if TYPE_CHECKING:
    from gateway.audit.deliveries import Deliveries
    from gateway.audit.metrics import Metrics
    from gateway.audit.recorder import Recorder
    from gateway.core.clock import Clock
    from gateway.gate import Spend
    from gateway.identity.session_store import SessionStore
    from gateway.limits.standings import Standings
    from gateway.mfa.aside import Aside
    from gateway.mfa.codes.factor import SentCode
    from gateway.mfa.own_address import OwnAddress
    from gateway.mfa.recovery_letters import RecoveryLetters
    from gateway.mfa.webauthn.security_keys import Workshop
    from gateway.settings import Settings, WebAuthn
    from gateway.store.place import Place
    from gateway.store.redis import Redis

_log = logging.getLogger("sallyport")


async def open_records(settings: Settings, place: Place, clock: Clock) -> tuple[Records, KeyRing]:
    """Database and keys, which belong together: new keys would not open what old ones have sealed.

    Raises `ConfigError`.
    """
    records = await Records.find(place, clock=clock)
    try:
        sealed_by = None
        if records is not None:
            with records.patient():
                sealed_by = await records.sealed_by()
        keys = KeyRing.open(
            settings.keys,
            create=sealed_by is None,
            clock=clock,
            assertion_lifetime=settings.headers.assertion.lifetime,
        )
        if keys.created:
            _log.warning("made new keys in %s; back them up: what they seal is lost without them", settings.keys)
        if records is None:
            records = await Records.open(place, clock=clock)
        with records.patient():
            if sealed_by is None:
                await records.seal_with(keys.sealer.current)  # unless another replica was first, with its own keys
            await demand_keys(records, keys)
    except BaseException:
        if records is not None:
            await records.close()
        raise
    return records, keys


class People:
    """Users, sessions, factors, risk, and the front desk."""

    def __init__(
        self,
        settings: Settings,
        *,
        records: Records,
        keys: KeyRing,
        clock: Clock,
        recorder: Recorder,
        spend: Spend,
        standings: Standings,
        tries: KeyValue,
        metrics: Metrics,
        redis: Redis | None = None,
        post: Post | None = None,
        callbacks: Mapping[str, Callback] | None = None,
        deliveries: Deliveries | None = None,
        letters: RecoveryLetters | None = None,
        aside: Aside | None = None,
    ) -> None:
        """Sessions are kept in `redis`, where there is one; tries to sign in are counted in `tries`; `post` takes codes
        to people, where somebody carries them.

        Raises `ConfigError` for risk settings that are not fit.
        """
        self.records = records
        self.keys = keys
        self.post = post
        self.risk = Risk(
            records,
            clock,
            recorder,
            weights={str(name): weight for name, weight in settings.risk.weights.items()},
            geoip=settings.risk.geoip,
        )
        recorder.subscribe(self.risk.observe)
        self._passwords = Passwords()
        self.users = LocalUsers(records, self._passwords, clock, recorder)
        terms = settings.sessions.terms
        store: SessionStore = SessionRows(records, clock, terms)
        if redis is not None:
            from gateway.identity.session_keys import SessionKeys

            store = SessionKeys(redis, records, keys.sealer, terms)
        self.demands = Demands(records, clock, recorder, settings.mfa.demands)
        self.sessions = Sessions(store, records, clock, recorder, terms, dues=self.demands)
        self.session_cookie = SessionCookie(self.sessions, Cookies.over(settings.scheme))

        totp = Totp(records, keys.sealer, clock)
        backup_codes = BackupCodes(records, keys.mac, clock)
        kept = SqlKeyValue(records, clock)
        built: dict[str, Factor] = {"totp": totp, "backup_code": backup_codes}
        keys_of_people = None
        if settings.mfa.webauthn is not None:
            keys_of_people = _workshop(settings.mfa.webauthn, settings.origin, records, keys, kept, clock)
            built["webauthn"] = keys_of_people.factor
        sent = _sent_codes(settings, records, keys, clock, post)
        built |= {factor.name: factor for factor in sent}
        self.factors = Factors(records, {name: built[name] for name in settings.mfa.factors}, clock)
        self.enrolment = Enrolment(
            records,
            totp,
            backup_codes,
            self.factors,
            clock,
            recorder,
            end_all=self.sessions.end_all,
            issuer=settings.mfa.totp.issuer if settings.mfa.totp is not None else "",
            enrol_within=settings.mfa.enrol_within,
            required_groups=settings.mfa.required_groups,
            count=metrics.factor_setup,
            demands=self.demands,
            aside=aside,
        )
        addresses = {}
        if sent:
            from gateway.mfa.codes.binding import Addresses

            addresses = {
                factor.name: Addresses(factor, self.enrolment, self.factors.attempts, kept, clock, recorder)
                for factor in sent
            }
        self.trusted: TrustedDevices | None = None
        if (trusted := settings.mfa.trusted_devices) is not None:
            self.trusted = TrustedDevices(
                records,
                clock,
                recorder,
                self.sessions.end_in,
                lifetime=trusted.lifetime,
                most=trusted.most,
                count=metrics.trusted_device,
            )
        recovery = settings.mfa.recovery
        self.own_address: OwnAddress | None = None
        if recovery is not None and post is not None:
            self.own_address = _own_address(records, keys, clock, post, self.enrolment, self.factors, recorder)
        self.recoveries = Recoveries(
            records,
            clock,
            recorder,
            keys.mac,
            unbind=self.enrolment.unbind,
            revoke=revoke,
            letters=letters,
            by_email=recovery is not None,
            **({"delay": recovery.delay, "expires": recovery.expires} if recovery is not None else {}),
            administrators=settings.mfa.required_groups,
            count=metrics.recovery,
        )
        self.stepups = StepUps(records, kept, self.factors, clock, recorder, keys.mac, count=metrics.challenge)
        self.reminders: Reminders | None = None
        if settings.notify.email:
            self.reminders = Reminders(records, kept, clock, recorder, self.demands, by_email=recovery is not None)
        self.error_page = ErrorPages(settings.prefix, Cookies.over(settings.scheme).language, settings.pages.language)

        device = DeviceCookie(keys.mac, clock)
        self.interrupted = InterruptedRequests(
            kept, keys.sealer, clock, max_body=settings.interrupted.body, known=device.is_known
        )
        self.known_browser = KnownBrowser(device, Cookies.over(settings.scheme).device)
        self._desk = Desk(
            clock=clock,
            mac=keys.mac,
            device=device,
            ledger=recorder,
            spend=spend,
            standings=standings,
            users=self.users,
            sessions=self.sessions,
            throttle=SignInThrottle(tries),
            factors=self.factors,
            enrolment=self.enrolment,
            stepups=self.stepups,
            interrupted=self.interrupted,
            recoveries=self.recoveries,
            own_address=self.own_address,
            security_keys=keys_of_people.security_keys(self.enrolment) if keys_of_people else None,
            addresses=addresses,
            jwks=keys.signer.jwks,
            risk=self.risk.score,
            learn=self.risk.learn,
            trusted=self.trusted,
            callbacks=callbacks or {},
            deliveries=deliveries,
            preferences=Preferences(records, recorder) if settings.notify.email else None,
            language=settings.pages.language,
            prefix=settings.prefix,
        )
        self._private: Path | None = None
        self._runner: web.AppRunner | None = None

    async def open_desk(self) -> str:
        """Serve the front desk on a Unix socket that only we can connect to; its path."""
        self._private = Path(tempfile.mkdtemp(prefix="sallyport-"))  # 0700
        path = str(self._private / "desk.sock")
        self._runner = make_runner(make_app(self._desk))
        await self._runner.setup()
        await web.UnixSite(self._runner, path).start()
        return path

    async def close(self) -> None:
        """Close the desk, write what waits, let go of files; the database is still open then."""
        if self._runner is not None:
            await self._runner.cleanup()
        with contextlib.suppress(StoreAway):
            await self.sessions.close()
        self.risk.close()
        self._passwords.close()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)


def _sent_codes(settings: Settings, records: Records, keys: KeyRing, clock: Clock, post: Post | None) -> list[SentCode]:
    """The factors whose answers are sent first, as they are configured."""
    made: list[SentCode] = []
    if post is not None and settings.mfa.sms is not None:
        from gateway.mfa.sms import Sms

        made.append(Sms(records, keys.sealer, keys.mac, clock, post))
    if post is not None and settings.mfa.email is not None:
        from gateway.mfa.email import Email

        made.append(Email(records, keys.sealer, keys.mac, clock, post))
    return made


def _own_address(
    records: Records,
    keys: KeyRing,
    clock: Clock,
    post: Post,
    enrolment: Enrolment,
    factors: Factors,
    recorder: Recorder,
) -> OwnAddress:
    """Who has the addresses of accounts confirmed, where they are a way in."""
    from gateway.mfa.email import Email
    from gateway.mfa.own_address import OwnAddress

    email = Email(records, keys.sealer, keys.mac, clock, post)
    return OwnAddress(email, enrolment, factors.attempts, clock, recorder)


def _workshop(
    said: WebAuthn, origin: str, records: Records, keys: KeyRing, kept: SqlKeyValue, clock: Clock
) -> Workshop:
    """Security keys, as they are configured. Raises `ConfigError`."""
    try:
        import webauthn  # noqa: F401 - what follows needs it
    except ModuleNotFoundError as error:
        raise ConfigError(
            "mfa.webauthn needs a library that is not installed", "pip install 'sallyport[webauthn]'"
        ) from error
    from gateway.mfa.webauthn import roots
    from gateway.mfa.webauthn.relying_party import RelyingParty
    from gateway.mfa.webauthn.security_keys import Workshop

    us = RelyingParty(
        said.name,
        origin,
        said.user_verification,
        backup_eligible=said.backup_eligible == "allow",
        aaguids=frozenset(said.aaguids) if said.attestation == "listed" else None,
        roots=roots.read(said.roots) if said.roots is not None else (),
    )
    return Workshop(records, keys.sealer, keys.mac, kept, clock, us)
