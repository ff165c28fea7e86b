"""The data plane's house: listeners, connections, timers, and what every exchange needs at hand."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Collection, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.audit.access_log import AccessLog
from gateway.audit.metrics import Metrics
from gateway.audit.refusals import about
from gateway.core.clock import Clock
from gateway.core.contracts import Ledger
from gateway.core.cookies import Cookies
from gateway.core.decision import ANSWERS, Verdict
from gateway.core.events import Event, Kind, Severity
from gateway.core.facts import Facts
from gateway.core.reasons import Reason
from gateway.core.rule import Rule
from gateway.crypto.tokens import new_token
from gateway.gate import Gate
from gateway.wire.admission import Admission
from gateway.wire.answers import ErrorPages
from gateway.wire.bounds import Bounds
from gateway.wire.client import ClientConnection
from gateway.wire.drain import drain
from gateway.wire.exchange import Exchange
from gateway.wire.forwarded import TrustedProxies
from gateway.wire.identity_headers import IdentityHeaders
from gateway.wire.listener import Listener, Where, bind
from gateway.wire.request import Declined
from gateway.wire.streams import Streams
from gateway.wire.terms import Terms
from gateway.wire.upstream import Upstream

if TYPE_CHECKING:
    from gateway.core.identity import Identity
    from gateway.mfa.interrupted import InterruptedRequests
    from gateway.mfa.stepup import StepUps
    from gateway.wire.tls import ServerTls

_log = logging.getLogger(__name__)

SWEEP_EVERY = 1.0
"""Seconds between two looks at all deadlines: one timer for everything, none for a request."""

LAST = 1.0
"""Seconds for what is owed to those who were cut off when the time is up."""

AT_ONCE = 16
"""Clients whose time is up that are dealt with in one turn of the loop: some milliseconds."""


class Wire:
    """Everything between the sockets."""

    def __init__(
        self,
        gate: Gate,
        *,
        upstreams: Mapping[str, Upstream],
        desk: Upstream | None,
        identity_headers: IdentityHeaders,
        stepups: StepUps | None,
        interrupted: InterruptedRequests | None,
        strip_cookies: Callable[[bytes], bytes],
        error_page: ErrorPages | None,
        access_log: AccessLog,
        metrics: Metrics,
        ledger: Ledger,
        clock: Clock,
        cookies: Cookies,
        proxies: TrustedProxies,
        bounds: Bounds,
        prefix: str,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = clock.monotonic
        self.gate = gate
        self.desk = desk
        """Our own pages; without them nobody is sent anywhere, and their addresses are closed."""
        self.identity_headers = identity_headers
        self.stepups = stepups
        self.interrupted = interrupted
        self.strip_cookies = strip_cookies
        self.error_page = error_page
        self.access_log = access_log
        self.metrics = metrics
        self.ledger = ledger
        self.clock = clock
        self.cookies = cookies
        self.scheme = "https" if cookies.secure else "http"
        """What browsers see."""
        self.our_cookies = cookies.names
        self.desk_terms = Terms(frozenset(), personal=False)
        self.anybodys = Terms(self.our_cookies, personal=False)
        self.personal = Terms(self.our_cookies, personal=True)
        """What answers may say: of our own pages, for anybody, for somebody who is known."""
        self.resume_mark = f"{cookies.resume}=".encode()
        self.resumed_lines = f"Set-Cookie: {cookies.set(cookies.resume, '', 0)}\r\nCache-Control: no-store\r\n".encode()
        """Added to the answer to a resumed request: it answers a POST, though the browser came with a GET."""
        self.proxies = proxies
        self.bounds = bounds
        self.prefix = prefix
        self.auth = f"{prefix}auth".encode()
        """Where proxies ask."""
        self.draining = False
        self.overloaded = False
        """Whether requests are refused before any work."""
        self.admission = Admission(self)
        self._over: list[Exchange] = []
        self.clients: set[ClientConnection] = set()
        self.streams = Streams(self)
        self.deserted = asyncio.Event()
        """Set by the last client that leaves while draining."""
        self.upstreams = dict(upstreams)
        self.servers: list[Listener] = []
        """What listens."""
        self._sockets: list[Path] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._id_prefix = secrets.token_hex(8)
        self._id = 0
        self._resume = _in_cookies(cookies.resume)
        self._browser = _in_cookies(cookies.browser)
        self._session = _in_cookies(cookies.session)
        self._device = _in_cookies(cookies.device)

    # -- listening -------------------------------------------------------------------------------------------------

    async def listen(
        self,
        where: Where,
        *,
        tls: ServerTls | None = None,
        proxy_protocol: bool = False,
        mode: int = 0o660,
        share: bool = False,
    ) -> int:
        """Let clients come in by `where`; returns the port, 0 for a Unix socket.

        `proxy_protocol`: each connection begins with its header; `mode`: of a Unix socket; `share`: the address with
        other processes. Raises `ConfigError`.
        """
        listener = Listener(self, where, bind(where, mode=mode, share=share), tls=tls, proxy_protocol=proxy_protocol)
        self.servers.append(listener)
        if where.path and not listener.passed_on:
            self._sockets.append(Path(where.path))
        await listener.open()
        if self._timer is None:
            self._timer = self.loop.call_later(SWEEP_EVERY, self._tick)
            self.admission.start()
        return listener.port

    async def stop(self, grace: float = 25.0, delay: float = 0.0, hurry: asyncio.Event | None = None) -> None:
        """Say that we are going, serve everybody for `delay` seconds, then accept nothing more and let what is on its
        way finish; after `grace` seconds in all, cut the rest. Each time `hurry` is set, the present wait ends.
        """
        await drain(self, grace, delay, hurry or asyncio.Event())
        self.admission.stop()
        if self._timer is not None:
            self._timer.cancel()
        for upstream in (*self.upstreams.values(), self.desk):
            if upstream is not None:
                upstream.close()
        await _ended(self._tasks - self._owed)
        await asyncio.sleep(0)  # aborted transports tell their protocols on the next turn
        if self._owed:
            await asyncio.wait(self._owed, timeout=LAST)
        await _ended(set(self._tasks))
        self.settle()

    def leave_paths(self) -> None:
        """Take our Unix sockets' names away: nobody finds us by them any more."""
        for path in self._sockets:
            path.unlink(missing_ok=True)

    def _tick(self) -> None:
        self._timer = self.loop.call_later(SWEEP_EVERY, self._tick)
        self.sweep(self.now())

    def sweep(self, now: float) -> None:
        """End whatever is past its deadline at `now` (monotonic seconds)."""
        for listener in self.servers:
            listener.sweep(now)
        self._expire([client for client in self.clients if client.deadline < now], now)
        self.admission.sweep()
        self.streams.sweep(now)
        for upstream in self.upstreams.values():
            upstream.sweep(now, self.spawn)
        if self.desk is not None:
            self.desk.sweep(now, self.spawn)

    def _expire(self, late: list[ClientConnection], now: float) -> None:
        """A few in each turn of the loop: thousands that dribble their heads are late at the same time."""
        for client in late[-AT_ONCE:]:
            if client.deadline < now:
                client.expire()
        del late[-AT_ONCE:]
        if late:
            self.loop.call_soon(self._expire, late, now)

    # -- for exchanges ---------------------------------------------------------------------------------------------

    def next_id(self) -> str:
        """A request id: unguessable prefix of this process, then a count."""
        self._id += 1
        return f"{self._id_prefix}{self._id:08x}"

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Make a task that is not forgotten."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def owe(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Make a task that is brought to its end also where nobody waits for it any more, and when we stop."""
        task = self.spawn(work)
        self._owed.add(task)
        task.add_done_callback(self._owed.discard)
        return task

    def upstream_of(self, verdict: Verdict) -> Upstream:
        """The service a rule sends to. Raises `Declined`."""
        upstream = self.upstreams.get(verdict.rule.upstream) if verdict.rule is not None else None
        if upstream is None:
            raise Declined(Reason.UPSTREAM_UNREACHABLE)
        return upstream

    def told(self, facts: Facts, verdict: Verdict, rule: Rule) -> bytes:
        """Header lines that only we may say to a service: who asks, and what the rule adds.

        A CORS preflight is nobody's request, whoever's browser sends it (case 47).
        """
        lines = b""
        if verdict.identity is not None and not (
            facts.method == "OPTIONS" and facts.header(b"access-control-request-method")
        ):
            lines = self.identity_headers.lines(verdict, self.clock.now())
        for name, value in rule.headers:
            lines += b"%b: %b\r\n" % (name.encode(), value.encode())
        return lines

    def resume_ticket(self, cookie: bytes) -> str | None:
        """The ticket of the interrupted request that this browser is about to continue; one, or none."""
        found = self._resume.findall(cookie)
        return found[0].decode() if len(found) == 1 else None

    def browser_of(self, cookie: bytes) -> tuple[str, bool]:
        """The value of the browser cookie, and whether it was made just now."""
        found = self._browser.findall(cookie)
        return (found[0].decode(), False) if len(found) == 1 else (new_token(), True)

    async def owners_of(self, facts: Facts) -> tuple[str, list[str]]:
        """Who is signed in (empty: nobody), and who an interrupted request of this browser may belong to."""
        identity, _ = await self.gate.identify(facts)
        owners = [f"session:{identity.session.id}"] if identity is not None and identity.session is not None else []
        found = self._browser.findall(facts.cookie)
        if len(found) == 1:
            owners.append(f"browser:{found[0].decode()}")
        return identity.user if identity is not None else "", owners

    def whose(self, facts: Facts, identity: Identity | None) -> str:
        """Who sends this, as interrupted requests know it.

        A session that is over says that somebody was signed in until now, and the device cookie beside it who that
        was, without naming them. Whoever has signed out has no such session, and nobody knows.
        """
        if identity is not None:
            return f"user:{identity.user}"
        device = self._device.findall(facts.cookie)
        return f"device:{device[0].decode()}" if len(device) == 1 and self._session.search(facts.cookie) else ""

    # -- remembering -----------------------------------------------------------------------------------------------

    def rejected(
        self, exchange: Exchange, reason: Reason, *, method: str = "", target: bytes = b"", header: bytes = b""
    ) -> None:
        """A request that was not one clear request: an event, because somebody may be trying.

        `method` and `target` are those of the request, where it is not the one on the line; `header`: where it shows.
        """
        path = (target or exchange.raw_target).partition(b"?")[0][:256].decode("latin-1")
        detail = {"reason": reason.value, "target": path}
        if method:
            detail["method"] = method
        if header:
            detail["header"] = header.decode("latin-1")
        self._note(exchange, Kind.REQUEST_REJECTED, Severity.WARNING, detail)

    def turned_away(self, address: str, reason: Reason, **detail: str | bool) -> None:
        """A connection that never came to a request."""
        detail = {"reason": reason.value, **detail}
        self.ledger.note(Event(Kind.REQUEST_REJECTED, Severity.WARNING, address=address, detail=detail))

    def went_on(self, facts: Facts, verdict: Verdict) -> None:
        """An interrupted request goes to its service now: an event, because nobody sees it happen."""
        self.metrics.interrupted("resumed")
        self.ledger.note(about(facts, verdict, Kind.RESUMED))

    def did_not_go_on(self, facts: Facts, user: str, reason: str) -> None:
        """What somebody came back for is `not_theirs`, or `gone`: as if it had never been there."""
        self.ledger.note(
            Event(
                Kind.RESUME_REFUSED,
                Severity.NOTICE,
                user=user,
                address=facts.address,
                agent=facts.agent,
                request_id=facts.request_id,
                detail={"reason": reason},
            )
        )

    def faulted(self, exchange: Exchange, error: str) -> None:
        """Something of ours broke: the kind of error, but none of its words, for they may quote what somebody sent."""
        detail = {"reason": Reason.FAULT.value, "room": "wire", "error": error}
        self._note(exchange, Kind.FAULT, Severity.ALARM, detail)

    def _note(self, exchange: Exchange, kind: Kind, severity: Severity, detail: dict[str, str]) -> None:
        facts = exchange.facts
        self.ledger.note(
            Event(
                kind,
                severity,
                address=facts.address if facts is not None else exchange.client.peer,
                agent=facts.agent if facts is not None else "",
                request_id=exchange.request_id,
                detail={"method": exchange.method, **detail},
            )
        )

    def completed(self, exchange: Exchange, now: float) -> None:
        """An exchange is over, at `now`: counted and logged with all others of this turn of the loop.

        Together they cost half of what each costs in the midst of its own request, whose answer is out by then.
        """
        exchange.ended = now
        if not self._over:
            self.loop.call_soon(self.settle)
        self._over.append(exchange)

    def settle(self) -> None:
        """Count and log the exchanges that are over. Never raises."""
        over, self._over = self._over, []
        for exchange in over:
            self._settle(exchange)

    def _settle(self, exchange: Exchange) -> None:
        try:
            seconds = exchange.ended - exchange.started
            facts, verdict = exchange.facts, exchange.verdict
            upstream = exchange.upstream.name if exchange.upstream is not None else ""
            rule = answer = reason = ""
            identity = shadow = None
            risk = 0.0
            if verdict is not None:
                decision = verdict.decision
                answer, reason = ANSWERS[decision.__class__], decision.reasons[0]
                identity, shadow, risk = verdict.identity, verdict.shadow, verdict.risk.value
                if verdict.rule is not None:
                    rule = verdict.rule.name
            self.metrics.served(
                rule, exchange.method, exchange.status, seconds, upstream, exchange.upstream_seconds, verdict
            )
            if facts is not None:
                address, agent, host, path = facts.address, facts.agent, facts.host, facts.path
            else:
                address, agent, host = exchange.client.peer, "", ""
                path = exchange.raw_target.partition(b"?")[0].decode("latin-1")
            self.access_log.write(
                at=self.clock.now() - seconds,
                method=exchange.method,
                host=host,
                path=path,
                status=exchange.status,
                address=address,
                agent=agent,
                request_id=exchange.request_id,
                received=exchange.bytes_in,
                sent=exchange.bytes_out,
                seconds=seconds,
                rule=rule,
                answer=answer,
                reason=reason,
                risk=risk,
                identity=identity,
                upstream=upstream,
                upstream_seconds=exchange.upstream_seconds,
                shadow=shadow,
                forward_auth=exchange.forward_auth,
            )
        except Exception as error:
            _log.exception("request %s: not counted, or not logged", exchange.request_id)
            self.faulted(exchange, type(error).__name__)


async def _ended(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _in_cookies(name: str) -> re.Pattern[bytes]:
    """Finds the values of our cookie `name` in a `Cookie` header."""
    return re.compile(rb"(?:^|;\s*)" + re.escape(name.encode()) + rb"=([A-Za-z0-9._-]{16,128})(?=;|$)")
