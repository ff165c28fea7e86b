"""Forward-auth: a proxy carries the traffic and asks here, request by request, whether it may.

    client ──▶ nginx, Traefik, Caddy, Envoy ──▶ service
                      │   ▲
    may this one pass?│   │ 200 and who it is; or the way to sign in; or no
                      ▼   │
                   Sallyport

The question names the request it is about in headers, or for Envoy in its own request line; so nothing about it is
believed but from a trusted proxy. The request is then read by the same reader and judged by the same gate as one that
we carry ourselves. Four things are stricter, because it is not us who hands it on:

- a target with dot segments is refused, and one with empty segments is also judged as it stands: we cannot forward
  the normal form that was judged;
- a method override (`X-HTTP-Method-Override`) is one more reading of the request: we cannot drop it;
- a header counts also where `Connection` names it: we cannot take it away;
- a client that names itself (`X-Forwarded-User`, in any spelling a service could fold to that) is refused: we cannot
  take the header away, and a configuration may have forgotten to.

What proxies do with our answer differs. nginx knows 2xx, 401 and 403 and makes 500 of anything else, so it gets those,
and what we mean in `Sallyport-Status` and `Sallyport-Location`. Traefik reads `Location` relative to our own address,
so it is absolute. Envoy leaves a client's header in place where the answer has none, so it is told what to remove.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes

from gateway.core.decision import Allow, Refuse, SignIn, StepUp, Throttle, Verdict
from gateway.core.eager import aside
from gateway.core.errors import SallyportError
from gateway.core.facts import Facts
from gateway.core.header_names import folded
from gateway.core.reasons import Reason
from gateway.limits.headers import ratelimit_headers, ratelimit_lines
from gateway.wire import answers, headers, request, target
from gateway.wire.identity_headers import STYLES
from gateway.wire.origin import refuse_cross_site
from gateway.wire.request import Caller, Field, Rejected

if TYPE_CHECKING:
    from gateway.wire.exchange import Exchange

_log = logging.getLogger(__name__)


class Dialect(NamedTuple):
    """How a kind of proxy asks, and which answers it understands."""

    name: str
    """As in the path: `auth/<name>`."""
    needed: tuple[bytes, ...]
    """Headers without which its question is none, beside the one that names the client."""
    by_line: bool = False
    """Whether method and target of the request are those of the question."""
    three_answers: bool = False
    """Whether it understands 2xx, 401 and 403 only."""
    removes: bool = False
    """Whether it has to be told which headers of the client's to remove."""


_X = (b"x-forwarded-method", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-uri")

DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("", _X),
        Dialect("traefik", _X),
        Dialect("caddy", _X),
        Dialect("nginx", (b"x-original-method",), three_answers=True),
        Dialect("envoy", (b"x-forwarded-proto",), by_line=True, removes=True),
    )
}
"""By name; the one without is for any proxy that asks as Traefik and Caddy do."""

_CLIENTS = frozenset((b"x-forwarded-for", b"forwarded"))
_NAMING = frozenset((*_X, *_CLIENTS, b"x-original-method", b"x-original-url", b"x-original-uri"))
"""Headers that say something about the original request."""
_SCHEMES = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}
_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")
_IDENTITY = frozenset(folded(name) for names in STYLES.values() for name in names)
_IDENTITY_PREFIXES = ("sallyport-", "x-auth-request-")
_FIXED = {f"/{name}".rstrip("/").encode(): each for name, each in DIALECTS.items() if not each.by_line}
"""By what follows `auth`, where that is always the same."""


class Original(Caller):
    """Who sent the request that is asked about: what `Caller` has read, with the host and scheme the proxy names."""

    __slots__ = ("method", "opens_socket", "overrides", "target")

    def __init__(self, caller: Caller, scheme: str, authority: bytes, method: str, target: bytes) -> None:
        self.fields = caller.fields
        self.version = caller.version
        self.length = 0
        self.expects = False
        self.seen = caller.fields  # what `Connection` names may reach the service all the same
        self.certificate = None  # that of the connection is the proxy's
        self.address = caller.address
        self.network = caller.network
        self.agent = caller.agent
        self.cookie = caller.cookie
        self.authorization = caller.authorization
        self.scheme = scheme
        self.authority = request.authority_of(authority, scheme)
        self.method = method
        """Of the original request; empty where the question's own line says it."""
        self.target = target
        self.overrides = tuple(
            value.decode("latin-1").strip().upper() for name in _OVERRIDES for value in self._header(name)
        )
        """Methods that some framework might act on instead."""
        # Some proxies keep `Upgrade` to themselves; a page cannot set the key.
        self.opens_socket = bool(self._header("sec-websocket-key") or self._header("upgrade"))

    def _header(self, fold: str) -> list[bytes]:
        return [value for name, value in self.seen if folded(name) == fold]

    @property
    def origin(self) -> str:
        """`https://host[:port]`, as browsers see it."""
        return f"{self.scheme}://{self.authority.raw.decode()}"


class Unclear(SallyportError):  # noqa: N818 - the state is the name
    """The question does not name one request. `header`: where that shows."""

    def __init__(self, header: bytes, reason: Reason = Reason.ORIGINAL_UNCLEAR) -> None:
        super().__init__(reason)
        self.header = header
        self.reason = reason


def dialect_of(question: bytes) -> tuple[Dialect, bytes] | None:
    """The dialect of a target below `auth`, and what follows its name; None: nothing of ours.

    Taken from the bytes as they came: Envoy appends the client's own path, whose dot segments must not lead out of
    here and to some page that answers 200.
    """
    fixed = _FIXED.get(question)
    if fixed is not None:
        return fixed, b""
    if question.startswith(b"/envoy/"):
        return DIALECTS["envoy"], question[6:]
    fixed = _FIXED.get(question.partition(b"?")[0])
    return None if fixed is None else (fixed, b"")


async def answer(exchange: Exchange, dialect: Dialect, rest: bytes) -> None:
    """Judge the request that is asked about, and answer in `dialect`. Never raises."""
    wire = exchange.wire
    exchange.forward_auth = dialect.name or "auth"
    method, raw = exchange.method, rest
    try:
        caller = exchange.caller = exchange.client.caller_of(exchange)
        known = caller.original
        if known is not None and known[0] is dialect:
            original = known[1]
        else:
            if not exchange.client.trusted:
                raise Rejected(Reason.UNTRUSTED_PROXY)
            original = _read((*dialect.needed, wire.proxies.names), dialect.by_line, caller)
            caller.original = dialect, original
        if not dialect.by_line:
            method, raw = original.method, original.target
        if len(raw) > wire.bounds.target:
            raise Rejected(Reason.TARGET_TOO_LONG)
        facts = request.read(method, raw, original, exchange.request_id)
        if facts.target != raw or original.overrides:
            facts.readings = _more_readings(facts, raw, original.overrides)
        exchange.facts = facts
        if facts.path.startswith(wire.prefix):
            raise Rejected(Reason.NO_RULE)  # our pages are ours to serve: no service may get what is meant for them
        verdict = exchange.verdict = await wire.gate.judge(facts)
        if original.opens_socket and isinstance(verdict.decision, Allow):
            refuse_cross_site(facts, verdict, wire.ledger)
        if type(verdict.decision) is Allow:
            _allow(exchange, dialect, facts, verdict)
        else:
            await _say_no(_Reply(exchange, dialect), facts, verdict, original)
    except Rejected as rejected:
        if exchange.caller is None or rejected.reason is Reason.UNTRUSTED_PROXY:
            exchange.close = True  # where the question itself is none, or not to be answered
        wire.rejected(exchange, rejected.reason, method=method, target=raw)
        _Reply(exchange, dialect).refuse(rejected.reason)
    except Unclear as unclear:
        wire.rejected(exchange, unclear.reason, header=unclear.header)
        _Reply(exchange, dialect).refuse(unclear.reason)
    except Exception as error:
        _log.exception("request %s: a fault while answering a proxy", exchange.request_id)
        wire.faulted(exchange, type(error).__name__)
        _Reply(exchange, dialect).refuse(Reason.FAULT)
    exchange.method = method  # what is counted and logged, later in this turn, is the request that was judged


async def _say_no(reply: _Reply, facts: Facts, verdict: Verdict, original: Original) -> None:
    """Or not yet."""
    decision = verdict.decision
    if isinstance(decision, SignIn | StepUp):
        await _ask_for_proof(reply, facts, verdict, original, decision)
    elif isinstance(decision, Throttle):
        reply.refuse(decision.reasons[0], 429, ratelimit_headers(verdict.quotas))
    elif answers.owes_factor(decision):
        _ask_for_factor(reply, facts, original)
    elif isinstance(decision, Refuse):
        reply.refuse(decision.reasons[0], decision.status)


async def _ask_for_proof(
    reply: _Reply, facts: Facts, verdict: Verdict, original: Original, decision: SignIn | StepUp
) -> None:
    exchange = reply.exchange
    wire, identity = exchange.wire, verdict.identity
    if not answers.is_navigation(facts) or wire.desk is None:
        prefix = wire.prefix if wire.desk is not None else ""
        reply.send(*answers.unauthorized(decision, exchange.request_id, prefix))
        return
    back = _comes_back_to(facts, original)
    if isinstance(decision, SignIn):
        location = answers.login_location(wire.prefix, back, decision)
    elif identity is None or wire.stepups is None:
        raise RuntimeError("a step-up for nobody")
    else:
        await aside()
        ticket = await wire.stepups.begin(identity, decision.demand, return_to=back)
        location = f"{wire.prefix}verify/{ticket}"
    reply.send(*answers.see_other(original.origin + location))


def _ask_for_factor(reply: _Reply, facts: Facts, original: Original) -> None:
    exchange, wire = reply.exchange, reply.exchange.wire
    if not answers.is_navigation(facts) or wire.desk is None:
        reply.send(*answers.enrol_first(exchange.request_id, wire.prefix if wire.desk is not None else ""))
        return
    location = answers.enrol_location(wire.prefix, _comes_back_to(facts, original))
    reply.send(*answers.see_other(original.origin + location))


def _comes_back_to(facts: Facts, original: Original) -> str:
    """Where the browser goes on, with a GET: a body never comes here, so none can be kept."""
    if facts.method in ("GET", "HEAD"):
        return facts.target.decode("ascii")
    return answers.referred(facts, original.origin)


# -- the question ----------------------------------------------------------------------------------------------------


def _read(needed: tuple[bytes, ...], by_line: bool, caller: Caller) -> Original:
    """What the headers of the question say. Raises `Unclear`, and `Rejected` for a malformed host."""
    said = _said(caller.fields)
    for name in needed:
        if name not in said:
            raise Unclear(name)
    method = _agreed(said, b"x-original-method", b"x-forwarded-method")
    url = said.get(b"x-original-url")
    schemes, hosts, targets = [], [], []
    if url is not None:
        scheme, authority, path = _apart(url)
        schemes.append(scheme)
        hosts.append(authority)
        targets.append(path)
    elif not by_line and b"x-original-uri" not in said and b"x-forwarded-uri" not in said:
        raise Unclear(b"x-original-url")
    targets += [said[name] for name in (b"x-original-uri", b"x-forwarded-uri") if name in said]
    if b"x-forwarded-proto" in said:
        schemes.append(_scheme(said[b"x-forwarded-proto"]))
    if b"x-forwarded-host" in said:
        hosts.append(said[b"x-forwarded-host"])
    if by_line:
        hosts.append(caller.authority.raw)
        if targets or method:
            raise Unclear(b"x-forwarded-uri" if targets else b"x-forwarded-method")
    if not schemes or len(set(schemes)) > 1:
        raise Unclear(b"x-forwarded-proto")
    if not hosts or len({request.authority_of(host, schemes[0]) for host in hosts}) > 1:
        raise Unclear(b"x-forwarded-host")
    if len(set(targets)) > 1:
        raise Unclear(b"x-forwarded-uri")
    return Original(caller, schemes[0], hosts[0], method.decode("latin-1"), targets[0] if targets else b"")


def _said(fields: list[Field]) -> dict[bytes, bytes]:
    """What is said of the original request, each thing once.

    Raises `Unclear`, also for a client that says who it is.
    """
    said: dict[bytes, bytes] = {}
    for name, value in fields:
        if headers.way(name) is not headers.Pass.DROP:
            continue
        lower = name.lower()
        if lower in _NAMING:
            if lower in _CLIENTS:
                said[lower] = value  # a list, in as many lines as proxies like
            elif lower in said or not value:
                raise Unclear(lower)
            else:
                said[lower] = value
            continue
        fold = folded(name)
        if fold in _IDENTITY or fold.startswith(_IDENTITY_PREFIXES):
            raise Unclear(name[:64], Reason.IDENTITY_CLAIMED)
    return said


def _agreed(said: dict[bytes, bytes], *names: bytes) -> bytes:
    """The one value that all of `names` have, or empty. Raises `Unclear`."""
    values = {said[name] for name in names if name in said}
    if len(values) > 1:
        raise Unclear(names[0])
    return values.pop() if values else b""


def _scheme(value: bytes) -> str:
    scheme = _SCHEMES.get(value.strip().lower())
    if scheme is None:
        raise Unclear(b"x-forwarded-proto")
    return scheme


def _apart(url: bytes) -> tuple[str, bytes, bytes]:
    """Scheme, authority and target of an absolute URL, uninterpreted. Raises `Unclear`."""
    scheme, mark, rest = url.partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if not mark or not slash or b"?" in authority:
        raise Unclear(b"x-original-url")
    return _scheme(scheme), authority, slash + path


def _more_readings(facts: Facts, raw: bytes, overrides: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The readings of a request whose target and headers the service gets as they came. Raises `Rejected`."""
    path = raw.partition(b"?")[0]
    segments = [unquote_to_bytes(segment) for segment in path.split(b"/")]
    if b"." in segments or b".." in segments or not raw.isascii():  # the latter never gets past our own parser either
        raise Rejected(Reason.BAD_TARGET)
    others: list[str] = []
    if b"" in segments[1:-1]:
        text = b"/".join(segments).decode("utf-8", "replace")
        others += (text, *target.readings(text))
    if b"%" in path:
        others.append(path.decode("latin-1"))
    read = (*facts.readings, *((facts.method, other) for other in others))
    if not overrides:
        return read
    paths = dict.fromkeys((facts.path, *(other for _, other in read)))
    return (*read, *((method, other) for method in overrides for other in paths))


# -- the answer ------------------------------------------------------------------------------------------------------


def _allow(exchange: Exchange, dialect: Dialect, facts: Facts, verdict: Verdict) -> None:
    """200, with what the service is to be told."""
    wire, rule = exchange.wire, verdict.rule
    if rule is None:
        raise RuntimeError("allowed without a rule")
    lines = wire.told(facts, verdict, rule)
    if dialect.removes:
        lines += _to_remove(lines)
    if verdict.quotas:
        lines += ratelimit_lines(verdict.quotas)
    exchange.reply_bare(200, lines)


class _Reply:
    """Any answer but 200, in the words of a dialect."""

    __slots__ = ("_dialect", "exchange")

    def __init__(self, exchange: Exchange, dialect: Dialect) -> None:
        self.exchange = exchange
        self._dialect = dialect

    def refuse(self, reason: Reason, status: int | None = None, more: list[answers.Header] | None = None) -> None:
        """No, for `reason`."""
        exchange = self.exchange
        page = None
        if not self._dialect.three_answers:
            page = answers.page_for(exchange.wire.error_page, exchange.facts)
        try:
            status, lines, body = answers.refusal(reason, exchange.request_id, page, status)
        except Exception:  # also a page that cannot be made is a refusal
            _log.exception("request %s: no page", exchange.request_id)
            status, lines, body = answers.refusal(reason, exchange.request_id, None, status)
        self.send(status, [*lines, *(more or ())], body)

    def send(self, status: int, lines: list[answers.Header], body: bytes) -> None:
        """An answer as anybody would get it, put so that the proxy understands it."""
        if not self._dialect.three_answers:
            self.exchange.reply(status, lines, body)
            return
        told = [b"Sallyport-Status: %d\r\n" % status]
        for name, value in lines:
            if name == b"Location":
                told.append(b"Sallyport-Location: %b\r\n" % value)
            elif name not in (b"Content-Type", b"Referrer-Policy", b"Cache-Control"):
                told.append(b"%b: %b\r\n" % (name, value))
        self.exchange.reply_bare(401 if status in (303, 401) else 403, b"".join(told), meaning=status)


@lru_cache(256)
def _to_remove(lines: bytes) -> bytes:
    """Envoy: what a client may have sent of ours, and the answer does not overwrite."""
    set_here = {folded(line.partition(b":")[0]) for line in lines.splitlines()}
    gone = sorted((_IDENTITY | {"sallyport-assertion", *_OVERRIDES}) - set_here)
    return b"x-envoy-auth-headers-to-remove: %b\r\n" % ",".join(gone).encode()
