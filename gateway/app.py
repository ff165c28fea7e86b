"""The whole house, wired floor by floor; started and stopped.

Nothing here decides anything. What can be wrong with what the operator gave is found before the first socket is
opened, and told as a `ConfigError`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from gateway import __version__
from gateway.audit.access_log import AccessLog
from gateway.audit.event_log import EventLog
from gateway.audit.metrics import Metrics
from gateway.audit.recorder import Recorder
from gateway.catalog import ALGORITHMS
from gateway.core.clock import Clock, SystemClock
from gateway.core.contracts import Callback, KeyValue
from gateway.core.cookies import Cookies
from gateway.core.errors import ConfigError, SallyportError, StoreAway
from gateway.core.events import Event, Kind, Severity
from gateway.gate import Gate, Spend
from gateway.identity.strip import Strip
from gateway.limits.adapt import Shares
from gateway.limits.limiter import Limiter
from gateway.limits.standings import Standings
from gateway.policy import load as policy
from gateway.policy.book import Book
from gateway.policy.watch import Watch
from gateway.risk.calm import Calm
from gateway.services import make_upstream, publish
from gateway.store.memory import MemoryKeyValue
from gateway.web.own_limits import GUESSES, RULE
from gateway.web.probes import Probes
from gateway.wire.bounds import Bounds
from gateway.wire.forwarded import TrustedProxies
from gateway.wire.identity_headers import IdentityHeaders
from gateway.wire.listener import Where, inherited
from gateway.wire.target import readings
from gateway.wire.upstream import Place, Upstream
from gateway.wire.wire import Wire

if TYPE_CHECKING:
    from gateway.control import Control
    from gateway.core.rule import LimitSpec
    from gateway.crypto.keys import KeyRing
    from gateway.identity.local import LocalUsers
    from gateway.identity.sessions import Sessions
    from gateway.notify.outbox import Outbox
    from gateway.people import People
    from gateway.settings import Address, Listen, Settings
    from gateway.sharing import Sharing
    from gateway.store.line import Line
    from gateway.store.place import Place as Database
    from gateway.store.redis import Redis
    from gateway.store.redis_where import Where as RedisWhere
    from gateway.store.sql import Records
    from gateway.wire.tls import ServerTls

_log = logging.getLogger("sallyport")
TICK = 1.0
"""Seconds between two rounds of housekeeping."""
COUNT_EVERY = 15
"""Rounds between two counts of what the database holds, for the metrics."""


class App:
    """One gateway. `start` raises `ConfigError`; after it every attribute is set, those of `people` where records are
    kept."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.clock = clock or SystemClock()
        self.ports: tuple[int, int] = (0, 0)
        """Where it listens: traffic, admin."""
        self.book: Book
        self.recorder: Recorder
        self.redis: Redis | None = None
        """What replicas share; None where nothing is shared."""
        self.sharing: Sharing | None = None
        self.people: People | None = None
        """Who can be known; None where no records are kept: then requests are only carried."""
        self.keys: KeyRing
        self.records: Records
        self.users: LocalUsers
        self.sessions: Sessions
        self.gate: Gate
        self.wire: Wire
        self.metrics: Metrics
        self.limiter: Limiter
        self.standings: Standings
        self._access_log: AccessLog
        self._probes: Probes | None = None
        self._control: Control | None = None
        self._outbox: Outbox | None = None
        self._secure: dict[str, ServerTls] = {}
        """TLS of the listeners that have it, by their address."""
        self._tasks: list[asyncio.Task[None]] = []
        self._reload_problem = ""
        self._key_problem = ""
        self._loaded_at = self.clock.now()
        self._store_up = True
        self._alive = 0
        self._enrolled: Mapping[str, float] = {}
        self._people = 0
        self._able: Mapping[str, float] = {}
        self._demanded: Mapping[str, float] = {}
        self._trusted = 0
        self._rounds = 0
        self._started = False
        self._stopping: asyncio.Task[None] | None = None

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
        self.metrics = Metrics(__version__)
        self.limiter = Limiter(clock, ALGORITHMS)
        self.spend: Spend = self.limiter.spend
        self.standings = Standings(self._limits, self.limiter)
        if (where := settings.store.redis) is not None:
            self.sharing = await self._open_sharing(where)
            self.spend = self.sharing.counting.spend
            self.standings = self.sharing.standings(self._limits)
        if settings.store.records is not None:
            self.people = await self._open_people(settings.store.records.place)
        else:
            self.recorder = Recorder(EventLog(), clock)
        self.recorder.subscribe(self.metrics.event)
        self.recorder.start()
        self.gate = Gate(
            self.book,
            credentials=[self.people.session_cookie] if self.people is not None else [],
            spend=self.spend,
            risk=self.people.risk if self.people is not None else Calm(),
            shares=Shares(
                self.people.known_browser if self.people is not None else lambda facts, identity: False, self._latency
            ),
            ledger=self.recorder,
            clock=clock,
        )
        if self._outbox is not None:
            self._outbox.start()
        await self._open_doors()
        await self._open_control()
        self._publish_metrics()
        self._tasks = [
            asyncio.create_task(self._keep_house(), name="housekeeping"),
            asyncio.create_task(Watch(settings.policies, self.reload_policies).run(), name="policy watch"),
            *(
                asyncio.create_task(tls.watch(name).run(), name=f"certificates of {name}")
                for name, tls in self._secure.items()
            ),
        ]
        self.recorder.note(Event(Kind.STARTED, detail={"version": __version__, "rules": len(self.book.rules)}))
        self._started = True

    async def _open_sharing(self, where: RedisWhere) -> Sharing:
        """What replicas have in common, at `where`. Imported here: alone one needs none of it."""
        from gateway.sharing import Sharing
        from gateway.store.redis import Redis

        self.redis = await Redis.open(where, clock=self.clock)
        sharing = Sharing(self.redis, self.limiter, self.clock, self.metrics)
        await sharing.beat()  # how many there are has to be known before the first request: the store may be away next
        return sharing

    async def _open_people(self, place: Database) -> People:
        """Who can be known, from the database at `place`. Imported here: a gateway without records has none of it."""
        from gateway.people import People, open_records
        from gateway.store.event_table import EventTable

        self.records, self.keys = await open_records(self.settings, place, self.clock)
        notices, post, letters, aside = None, None, None, None
        if self.settings.notify.channels:
            from gateway.post import (
                make_aside,
                make_callbacks,
                make_deliveries,
                make_letters,
                make_notices,
                make_outbox,
                make_post,
            )

            notices = make_notices(self.settings, self.metrics.notification, sealer=self.keys.sealer)
            aside = make_aside(self.settings, self.keys)
            letters = make_letters(self.settings, self.keys, aside)
            post = make_post(self.settings, self.keys, self.clock)
        self.recorder = Recorder(EventTable(self.records, notices), self.clock)
        callbacks: Mapping[str, Callback] = {}
        deliveries = None
        if post is not None:
            callbacks = make_callbacks(self.settings, self.clock)
            deliveries = make_deliveries(self.records, self.keys, self.clock, self.recorder, self.metrics)
            self._outbox = make_outbox(self.settings, self.records, self.keys, self.clock, self.recorder, self.metrics)
        people = People(
            self.settings,
            records=self.records,
            keys=self.keys,
            clock=self.clock,
            recorder=self.recorder,
            spend=self.spend,
            standings=self.standings,
            tries=self._tries(),
            metrics=self.metrics,
            redis=self.redis,
            post=post,
            callbacks=callbacks,
            deliveries=deliveries,
            letters=letters,
            aside=aside,
        )
        self.users, self.sessions = people.users, people.sessions
        return people

    def _tries(self) -> KeyValue:
        """Where tries to sign in are counted."""
        if self.redis is None:
            return MemoryKeyValue(self.clock)
        from gateway.store.redis_key_value import RedisKeyValue

        return RedisKeyValue(self.redis)

    def _publish_metrics(self) -> None:
        """What is asked for when somebody scrapes."""
        read = self.metrics.read
        read("policy_reload_success", lambda: 0.0 if self._reload_problem else 1.0)
        read("policy_reload_timestamp_seconds", lambda: self._loaded_at)
        if self._secure:
            secure = self._secure
            read("certificate_reload_success", lambda: {name: float(not tls.problem) for name, tls in secure.items()})
            read(
                "certificate_expiry_timestamp_seconds",
                lambda: {(at, name): end for at, tls in secure.items() for name, end in tls.expiry.items()},
            )
        read("store_up", lambda: {name: float(up) for name, up in self._stores().items()})
        read("sessions", lambda: float(self._alive))
        read("enrolments", lambda: self._enrolled)
        read("users", lambda: float(self._people))
        read("users_able", lambda: self._able)
        read("mfa_required", lambda: self._demanded)
        read("trusted_devices", lambda: float(self._trusted))
        read("open_tunnels", lambda: float(len(self.wire.streams.tunnels)))
        if (sharing := self.sharing) is not None:
            read("limits_unasked", lambda: float(sharing.counting.shared.unasked))
            read("replicas", lambda: float(sharing.away.replicas))
        if (outbox := self._outbox) is not None:
            read("notifications_waiting", lambda: float(outbox.waiting))
        read("limit_counters", lambda: float(len(self.limiter)))
        read("events_dropped", lambda: float(self.recorder.dropped))
        read("connections", lambda: float(len(self.wire.clients)))
        read("connections_turned_away", lambda: float(self.wire.admission.turned_away))
        read("requests_in_flight", lambda: float(self.wire.admission.in_flight))
        read("requests_shed", lambda: float(self.wire.admission.shed))
        read("access_log_dropped", lambda: float(self._access_log.dropped))

    async def _open_doors(self) -> None:
        settings, people = self.settings, self.people
        self._access_log = AccessLog(settings.log.access)
        upstreams = {
            name: make_upstream(name, each, self.clock, self.recorder) for name, each in settings.upstreams.items()
        }
        publish(upstreams, self.metrics)
        self.wire = Wire(
            self.gate,
            upstreams=upstreams,
            desk=Upstream("sallyport", [Place("sallyport", await people.open_desk())], now=self.clock.monotonic)
            if people is not None
            else None,
            identity_headers=IdentityHeaders(
                people.keys.signer.sign if people is not None else _sign_nothing,
                issuer=settings.public_url,
                style=settings.headers.style,
                lifetime=settings.headers.assertion.lifetime,
            ),
            stepups=people.stepups if people is not None else None,
            interrupted=people.interrupted if people is not None else None,
            strip_cookies=Strip(),
            error_page=people.error_page if people is not None else None,
            access_log=self._access_log,
            metrics=self.metrics,
            ledger=self.recorder,
            clock=self.clock,
            cookies=Cookies.over(settings.scheme),
            proxies=_trusted_proxies(settings),
            bounds=_bounds(settings),
            prefix=settings.prefix,
        )
        for warning in settings.warnings:
            _log.warning(warning)
        admin = await self._open_admin()
        ports = [await self._listen(each) for each in settings.listen]
        self.ports = next(filter(None, ports), 0), admin

    async def _listen(self, listen: Listen) -> int:
        """Let clients in; the port."""
        port, tls = 0, open_tls(listen, self.clock)
        if tls is not None:
            self._secure[str(listen.address)] = tls
        for where in inherited() if listen.address.systemd else [_where(listen.address)]:
            port = await self.wire.listen(
                where,
                tls=tls,
                proxy_protocol=listen.proxy_protocol,
                mode=int(listen.mode, 8),
                share=self.settings.workers > 1,
            )
        return port

    async def _open_admin(self) -> int:
        """The admin listener, where one is asked for; its port."""
        listen = self.settings.admin_listen
        if listen is None:
            return 0
        self._probes = Probes(self.metrics.render, self._readiness)
        return await self._probes.listen(_endpoint(listen))

    async def _open_control(self) -> None:
        """Let the command line ask us. Where nobody said where, a folder that cannot be used is no reason to stop."""
        folder = self.settings.control_folder
        if folder is None:
            return
        from gateway.control import Control

        self._control = Control(folder, self.standings, self.recorder)
        try:
            await self._control.open()
        except ConfigError as error:
            if self.settings.control is not None:
                raise
            _log.warning("`sallyport limit` cannot ask this gateway: %s", error)

    # -- while it runs ---------------------------------------------------------------------------------------------

    def _load_book(self) -> Book:
        settings = self.settings
        return policy.load(
            settings.policies,
            upstreams=settings.upstreams,
            factors=settings.mfa.factors,
            admin_groups=settings.mfa.required_groups,
            trusted=settings.mfa.trusted,
            people=settings.store.keeps_records,
            counters=settings.store.counts,
            together=settings.store.counts_together,
            lifetimes=settings.sessions.lifetimes,
            clock=self.clock,
            readings=readings,
        )

    def _limits(self) -> list[tuple[str, LimitSpec]]:
        """Every limit there is now, each with its rule: those of the policy, and of our own pages."""
        own = [(RULE, limit) for limit in GUESSES] if self.settings.store.keeps_records else []
        return [*((rule.name, limit) for rule in self.book.rules for limit in rule.limits), *own]

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
            if self.people is not None:
                await self._look_at_store(self.people)
            if self.sharing is not None:
                await self.sharing.beat()
            try:
                self.limiter.sweep()
                self._access_log.flush()
                if self.people is not None:
                    self._look_at_keys(self.people.keys)
            except SallyportError as error:
                _log.error("housekeeping: %s", error)
            except Exception:
                _log.exception("housekeeping failed")

    async def _look_at_store(self, people: People) -> None:
        """What other processes changed there; counts for the metrics. Never raises."""
        try:
            await people.sessions.refresh()
            if self._rounds % COUNT_EVERY == 0:
                self._enrolled = await people.factors.counts()
                self._people, self._able = await people.factors.adoption()
                self._demanded = await people.demands.counts()
                if people.trusted is not None:
                    self._trusted = await people.trusted.count()
                await people.recoveries.turn()
                if people.reminders is not None:
                    await people.reminders.turn()
                await self._count_sessions(people)
            self._rounds += 1
            self._store_up = True
            if self.records.refuses:  # it can be read: that is enough for everybody who is known
                with contextlib.suppress(StoreAway):
                    await self.records.try_again()
        except StoreAway as away:
            if self._store_up:
                _log.error("the store is away: %s", away)
            self._store_up = False
        except Exception:
            # It must not end the housekeeping; and until it is mended nobody tells us of sessions ended elsewhere.
            _log.exception("looking at the store failed")
            self._store_up = False

    def _latency(self, upstream: str) -> float:
        service = self.wire.upstreams.get(upstream)
        return 0.0 if service is None else service.latency

    async def _count_sessions(self, people: People) -> None:
        try:
            self._alive = (await people.sessions.stats())["sessions"]
        except StoreAway:
            if self.redis is None:
                raise  # else it is the shared store, and its line has told

    def _stores(self) -> Mapping[str, bool]:
        """Each store there is, and whether it answers."""
        stores = {} if self.people is None else {"records": self._state_of_records() == "up"}
        return stores if self.redis is None else {**stores, "shared": self.redis.line.up}

    def _look_at_keys(self, keys: KeyRing) -> None:
        """What became of the key folder. A key that cannot be used is told once, and those known so far go on."""
        changes = keys.refresh()
        if changes.problem != self._key_problem:
            self._key_problem = changes.problem
            if changes.problem:
                _log.error("keys not read again: %s", changes.problem)
        if changes.master:
            current = keys.masters.current.id.hex()
            _log.info("master keys have changed, or another one seals now: %s", current)
            self.recorder.note(Event(Kind.KEY_ROTATED, Severity.NOTICE, detail={"key": "master", "id": current}))
        if changes.signing:
            self.wire.identity_headers.forget()
            _log.info("signing keys have changed, or another one signs now")
            self.recorder.note(
                Event(Kind.KEY_ROTATED, Severity.NOTICE, detail={"key": "signing", "kid": keys.signer.kid})
            )

    def _state_of_records(self) -> str:
        """How the records are, in a word or two."""
        if self.people is None:
            return "none"
        if not (self._store_up and self.records.line.up):
            return "away"
        return f"takes no changes: {self.records.refuses}" if self.records.refuses else "up"

    def _readiness(self) -> tuple[bool, Mapping[str, str]]:
        """Ready while requests can be judged. A policy that was refused leaves us ready, with the last good one.

        So does a shared store that is away: rules say what becomes of their limits then, and known sessions go on for
        a while. It is away for every replica, and to take them all out would end what still goes on.
        """
        parts = {
            "store": self._state_of_records(),
            **({} if self.redis is None else {"shared": _state(self.redis.line)}),
            "policy": f"refused: {self._reload_problem}" if self._reload_problem else "loaded",
        }
        if self._secure:
            problem = next(filter(None, (tls.problem for tls in self._secure.values())), "")
            parts["certificates"] = f"refused: {problem}" if problem else "loaded"
        return parts["store"] != "away" and not self.wire.draining, parts

    # -- stop ------------------------------------------------------------------------------------------------------

    async def stop(self, grace: float = 25.0, delay: float = 0.0, hurry: asyncio.Event | None = None) -> None:
        """Serve on for `delay` seconds though no longer ready, finish what is on its way within `grace` seconds in all,
        write what waits, close everything that is open. `hurry`, each time it is set, ends the present wait. It happens
        once: whoever asks for it again waits for the same end.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace, delay, hurry), name="stopping")
        await asyncio.shield(self._stopping)

    async def _stop(self, grace: float, delay: float, hurry: asyncio.Event | None) -> None:
        if hasattr(self, "wire"):
            await self.wire.stop(grace, delay, hurry)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._probes is not None:
            await self._probes.close()
        if self._control is not None:
            await self._control.close()
        if self.people is not None:
            await self.people.close()
        if self._outbox is not None:
            await self._outbox.close()
        if hasattr(self, "recorder"):
            if self._started:
                self.recorder.note(Event(Kind.STOPPED))
            await self.recorder.close()
        if hasattr(self, "_access_log"):
            self._access_log.close()
        if self.sharing is not None:
            await self.sharing.close()
        if self.redis is not None:
            await self.redis.close()
        if hasattr(self, "records"):
            await self.records.close()


def _state(line: Line) -> str:
    return "up" if line.up else f"away: {line.why}"


def _sign_nothing(_: Mapping[str, object]) -> NoReturn:
    raise RuntimeError("an assertion about somebody, where nobody is known")


def open_tls(listen: Listen, clock: Clock | None = None) -> ServerTls | None:
    """The TLS of a listener, where it has some. Raises `ConfigError` for certificates that cannot be used."""
    tls = listen.tls
    if tls is None:
        return None
    from gateway.wire.tls import Files, ServerTls  # brings cryptography

    return ServerTls(
        [Files(pair.certificate, pair.key) for pair in tls.pairs],
        clock=clock or SystemClock(),
        client_certificates=tls.client_certificates,
        client_ca=tls.client_ca,
        minimum=tls.minimum,
    )


def _where(address: Address) -> Where:
    return Where(address.host, address.port, address.path, address.descriptor)


def _trusted_proxies(settings: Settings) -> TrustedProxies:
    networks = [each for each in settings.trusted_proxies if each != "unix"]
    return TrustedProxies(networks, unix="unix" in settings.trusted_proxies, header=settings.forwarded_header)


def _endpoint(listen: Address) -> tuple[str, int] | str:
    return listen.path or (listen.host, listen.port)


def _room(settings: Settings) -> int:
    """Connections of clients that there are descriptors for, beside those to services and our own files."""
    import resource

    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = sum(each.connections for each in settings.upstreams.values()) + 256
    # One in ten may be on its way out while others are let in, and as many are being turned away.
    room = max(16, (most - others) * 10 // 12) if most != resource.RLIM_INFINITY else settings.connections.clients
    if room < settings.connections.clients:
        _log.warning(
            "only %d files may be open: %d clients at once, not connections.clients %d; raise the limit (ulimit -n)",
            most, room, settings.connections.clients,
        )  # fmt: skip
    return min(room, settings.connections.clients)


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
        stream=settings.timeouts.stream,
        message=settings.websocket.message,
        ping=settings.websocket.ping,
        clients=_room(settings),
        per_address=settings.connections.per_address,
        in_flight=settings.connections.in_flight,
        wait=settings.connections.wait,
    )
