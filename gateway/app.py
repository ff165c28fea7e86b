"""The whole house, wired floor by floor; started and stopped.

Nothing here decides anything. What can be wrong with what the operator gave is found before the first socket is
opened, and told as a `ConfigError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from gateway import __version__
from gateway.audit.access_log import AccessLog
from gateway.audit.metrics import Metrics
from gateway.audit.recorder import Recorder
from gateway.catalog import ALGORITHMS
from gateway.core.clock import Clock, SystemClock
from gateway.core.contracts import Factor
from gateway.core.cookies import Cookies
from gateway.core.errors import ConfigError, SallyportError, StoreAway
from gateway.core.events import Event, Kind, Severity
from gateway.crypto.keys import KeyRing
from gateway.gate import Gate
from gateway.identity.cookie import SessionCookie
from gateway.identity.device import DeviceCookie
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.identity.sessions import Sessions
from gateway.identity.throttle import SignInThrottle
from gateway.limits.limiter import Limiter
from gateway.mfa.backup_codes import BackupCodes
from gateway.mfa.enrolment import Enrolment
from gateway.mfa.factors import Factors
from gateway.mfa.interrupted import InterruptedRequests
from gateway.mfa.stepup import StepUps
from gateway.mfa.totp import Totp
from gateway.policy import load as policy
from gateway.policy.book import Book
from gateway.policy.watch import Watch
from gateway.risk.score import Risk
from gateway.store.event_table import EventTable
from gateway.store.memory import MemoryKeyValue
from gateway.store.sql import Records
from gateway.store.sql_key_value import SqlKeyValue
from gateway.web.app import make_app, make_runner
from gateway.web.desk import Desk
from gateway.web.pages import error_page
from gateway.web.probes import Probes
from gateway.wire.bounds import Bounds
from gateway.wire.forwarded import TrustedProxies
from gateway.wire.identity_headers import IdentityHeaders
from gateway.wire.target import readings
from gateway.wire.upstream import Endpoint, Upstream
from gateway.wire.wire import Wire

if TYPE_CHECKING:
    from gateway.settings import Listen, Settings
    from gateway.settings import Upstream as UpstreamSettings

_log = logging.getLogger("sallyport")
TICK = 1.0
"""Seconds between two rounds of housekeeping."""
COUNT_EVERY = 15
"""Rounds between two counts of what the database holds, for the metrics."""


class App:
    """One gateway. `start` raises `ConfigError`; after it every attribute is set."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.ports: tuple[int, int] = (0, 0)
        """Where it listens: traffic, admin."""
        self.book: Book
        self.keys: KeyRing
        self.records: Records
        self.recorder: Recorder
        self.users: LocalUsers
        self.sessions: Sessions
        self.gate: Gate
        self.wire: Wire
        self.metrics: Metrics
        self.limiter: Limiter
        self.risk: Risk
        self._passwords: Passwords
        self._access_log: AccessLog
        self._runner: web.AppRunner | None = None
        self._probes: Probes | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._private: Path | None = None
        self._reload_problem = ""
        self._loaded_at = self.clock.now()
        self._store_up = True
        self._alive = 0
        self._enrolled: Mapping[str, float] = {}
        self._rounds = 0
        self._started = False

    # -- start -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open everything, in order; on failure close what was opened and raise."""
        try:
            await self._start()
        except BaseException:
            await self.stop(grace=0.0)
            raise

    async def _start(self) -> None:
        settings, clock = self.settings, self.clock
        self.book = self._load_book()  # changes nothing, so it comes first: a typing error in it leaves no keys behind
        await self._open_stores()
        self.recorder = Recorder(EventTable(self.records), clock)
        self.recorder.start()
        self._open_rooms()
        await self._open_doors()
        self._publish_metrics()
        self._tasks = [
            asyncio.create_task(self._keep_house(), name="housekeeping"),
            asyncio.create_task(Watch(settings.policies, self.reload_policies).run(), name="policy watch"),
        ]
        self.recorder.note(Event(Kind.STARTED, detail={"version": __version__, "rules": len(self.book.rules)}))
        self._started = True

    async def _open_stores(self) -> None:
        """Keys and database, which belong together: new keys would not open what old ones have sealed."""
        settings, clock = self.settings, self.clock
        url = settings.store.records.get_secret_value()
        sealed_by = None
        if Records.exists(url):
            self.records = await Records.open(url, clock=clock)
            sealed_by = await self.records.sealed_by()
        self.keys = KeyRing.open(
            settings.keys,
            create=sealed_by is None,
            clock=clock,
            assertion_lifetime=settings.headers.assertion.lifetime,
        )
        if self.keys.created:
            _log.warning("made new keys in %s; back them up: what they seal is lost without them", settings.keys)
        if not hasattr(self, "records"):
            self.records = await Records.open(url, clock=clock)
        if sealed_by is None:
            await self.records.seal_with(self.keys.sealer.current)
        elif sealed_by not in self.keys.sealer.ids:
            raise ConfigError(
                f"the keys in {settings.keys} are not those that sealed {url}",
                "restore the key folder that belongs to this database",
            )

    def _open_rooms(self) -> None:
        settings, clock, records, recorder = self.settings, self.clock, self.records, self.recorder
        self.metrics = Metrics(__version__)
        recorder.subscribe(self.metrics.event)
        self.limiter = Limiter(clock, ALGORITHMS)
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
        self.sessions = Sessions(
            records,
            clock,
            recorder,
            idle=settings.sessions.idle,
            absolute=settings.sessions.absolute,
            per_user=settings.sessions.per_user,
        )
        self._cookies = Cookies.over(settings.scheme)
        self.session_cookie = SessionCookie(self.sessions, self._cookies)

        totp = Totp(records, self.keys.sealer, clock)
        backup_codes = BackupCodes(records, self.keys.mac, clock)
        built: Mapping[str, Factor] = {"totp": totp, "backup_code": backup_codes}
        self.factors = Factors(records, {name: built[name] for name in settings.mfa.factors}, clock)
        self.enrolment = Enrolment(
            records,
            totp,
            backup_codes,
            self.factors,
            clock,
            recorder,
            issuer=settings.mfa.totp.issuer if settings.mfa.totp is not None else "",
            enrol_within=settings.mfa.enrol_within,
            required_groups=settings.mfa.required_groups,
        )
        kept = SqlKeyValue(records, clock)
        self.stepups = StepUps(kept, self.factors, clock, recorder, self.keys.mac, count=self.metrics.challenge)
        self.interrupted = InterruptedRequests(kept, self.keys.sealer, clock, max_body=settings.interrupted.body)
        self.gate = Gate(
            self.book,
            credentials=[self.session_cookie],
            spend=self.limiter.spend,
            risk=self.risk,
            ledger=recorder,
            clock=clock,
        )

    def _publish_metrics(self) -> None:
        """What is asked for when somebody scrapes."""
        read = self.metrics.read
        read("policy_reload_success", lambda: 0.0 if self._reload_problem else 1.0)
        read("policy_reload_timestamp_seconds", lambda: self._loaded_at)
        read("store_up", lambda: {"records": float(self._store_up)})
        read("sessions", lambda: float(self._alive))
        read("enrolments", lambda: self._enrolled)
        read("limit_counters", lambda: float(len(self.limiter)))
        read("events_dropped", lambda: float(self.recorder.dropped))
        read("access_log_dropped", lambda: float(self._access_log.dropped))

    async def _open_doors(self) -> None:
        settings = self.settings
        self._private = Path(tempfile.mkdtemp(prefix="sallyport-"))  # 0700: only we can connect to what is inside
        desk_socket = str(self._private / "desk.sock")
        self._runner = make_runner(make_app(self._desk()))
        await self._runner.setup()
        await web.UnixSite(self._runner, desk_socket).start()

        self._access_log = AccessLog(settings.log.access)
        self.wire = Wire(
            self.gate,
            upstreams={name: _upstream(name, each) for name, each in settings.upstreams.items()},
            desk=Upstream("sallyport", desk_socket),
            identity_headers=IdentityHeaders(
                self.keys.signer.sign,
                issuer=settings.public_url,
                style=settings.headers.style,
                lifetime=settings.headers.assertion.lifetime,
            ),
            stepups=self.stepups,
            interrupted=self.interrupted,
            strip_cookies=self.session_cookie.strip,
            error_page=partial(error_page, prefix=settings.prefix),
            access_log=self._access_log,
            metrics=self.metrics,
            ledger=self.recorder,
            clock=self.clock,
            cookies=self._cookies,
            proxies=TrustedProxies(settings.trusted_proxies),
            bounds=_bounds(settings),
            prefix=settings.prefix,
        )
        admin = await self._open_admin()
        bound = [await self.wire.listen(_endpoint(address)) for address in settings.listen]
        first = next((address[1] for address in bound if not isinstance(address, str)), 0)
        self.ports = first, admin

    def _desk(self) -> Desk:
        return Desk(
            clock=self.clock,
            mac=self.keys.mac,
            device=DeviceCookie(self.keys.mac, self.clock),
            ledger=self.recorder,
            limiter=self.limiter,
            users=self.users,
            sessions=self.sessions,
            throttle=SignInThrottle(MemoryKeyValue(self.clock), self.clock),
            factors=self.factors,
            enrolment=self.enrolment,
            stepups=self.stepups,
            interrupted=self.interrupted,
            jwks=self.keys.signer.jwks,
            risk=self.risk.score,
            learn=self.risk.learn,
            prefix=self.settings.prefix,
        )

    async def _open_admin(self) -> int:
        """The admin listener, where one is asked for; its port."""
        listen = self.settings.admin_listen
        if listen is None:
            return 0
        self._probes = Probes(self.metrics.render, self._readiness)
        return await self._probes.listen(_endpoint(listen))

    # -- while it runs ---------------------------------------------------------------------------------------------

    def _load_book(self) -> Book:
        settings = self.settings
        return policy.load(
            settings.policies,
            upstreams=settings.upstreams,
            factors=settings.mfa.factors,
            admin_groups=settings.mfa.required_groups,
            clock=self.clock,
            readings=readings,
        )

    async def reload_policies(self) -> None:
        """Read the policies again: all of them, or the last good ones stay."""
        try:
            book = await asyncio.to_thread(self._load_book)
        except ConfigError as error:
            self._reload_problem = str(error.problems[0])
            for problem in error.problems:
                _log.error("policies not reloaded: %s", problem)
            self.recorder.note(
                Event(Kind.POLICY_REJECTED, Severity.WARNING, detail={"problems": [str(p) for p in error.problems]})
            )
            return
        self._reload_problem = ""
        self.book = self.gate.book = book
        self._loaded_at = self.clock.now()
        self.wire.identity_headers.forget()
        _log.info("policies reloaded: %d rules, %s", len(book.rules), book.digest[:12])
        self.recorder.note(Event(Kind.POLICY_LOADED, detail={"rules": len(book.rules), "digest": book.digest}))

    async def _keep_house(self) -> None:
        """Once a second: what other processes changed, what has expired, what waits to be written."""
        while True:
            await asyncio.sleep(TICK)
            try:
                await self.sessions.refresh()
                if self._rounds % COUNT_EVERY == 0:
                    self._alive = (await self.sessions.stats())["sessions"]
                    self._enrolled = await self.factors.counts()
                self._rounds += 1
                self._store_up = True
            except StoreAway as away:
                if self._store_up:
                    _log.error("the store is away: %s", away)
                self._store_up = False
            except Exception:
                # It must not end the housekeeping; and until it is mended nobody tells us of sessions ended elsewhere.
                _log.exception("housekeeping failed")
                self._store_up = False
            try:
                self.limiter.sweep()
                self._access_log.flush()
                if self.keys.signer.refresh():
                    self.wire.identity_headers.forget()
                    _log.info("signing keys have changed, or another one signs now")
            except SallyportError as error:
                _log.error("housekeeping: %s", error)
            except Exception:
                _log.exception("housekeeping failed")

    def _readiness(self) -> tuple[bool, Mapping[str, str]]:
        """Ready while requests can be judged. A policy that was refused leaves us ready, with the last good one."""
        parts = {
            "store": "up" if self._store_up else "away",
            "policy": f"refused: {self._reload_problem}" if self._reload_problem else "loaded",
        }
        return self._store_up and not self.wire.draining, parts

    # -- stop ------------------------------------------------------------------------------------------------------

    async def stop(self, grace: float = 25.0, delay: float = 0.0, hurry: asyncio.Event | None = None) -> None:
        """Serve on for `delay` seconds though no longer ready, finish what is on its way within `grace` seconds in all,
        write what waits, close everything that is open. `hurry`, each time it is set, ends the present wait.
        """
        if hasattr(self, "wire"):
            await self.wire.stop(grace, delay, hurry)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._probes is not None:
            await self._probes.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if hasattr(self, "sessions"):
            with contextlib.suppress(StoreAway):
                await self.sessions.close()
        if hasattr(self, "recorder"):
            if self._started:
                self.recorder.note(Event(Kind.STOPPED))
            await self.recorder.close()
        if hasattr(self, "risk"):
            self.risk.close()
        if hasattr(self, "_passwords"):
            self._passwords.close()
        if hasattr(self, "_access_log"):
            self._access_log.close()
        if hasattr(self, "records"):
            await self.records.close()
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)


def _endpoint(listen: Listen) -> Endpoint:
    return listen.path or (listen.host, listen.port)


def _upstream(name: str, settings: UpstreamSettings) -> Upstream:
    return Upstream(
        name,
        (settings.host, settings.port),
        connect_time=settings.timeouts.connect,
        response_time=settings.timeouts.response,
        idle_time=settings.timeouts.response,
        keep=settings.timeouts.idle,
        connections=settings.connections,
    )


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        head=settings.request.head,
        target=settings.request.target,
        headers=settings.request.headers,
        body=settings.request.body,
        interrupted=settings.interrupted.body,
        head_time=settings.timeouts.head,
        body_time=settings.timeouts.body,
        idle_time=settings.timeouts.idle,
    )
