"""A request head, read once: facts for the gate, lines for the service, framing for the wire.

llhttp has already refused what is not HTTP; here goes what it lets through. Everything a service will see is made
from what stands here, never copied around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core.certificate import Certificate
from gateway.core.errors import SallyportError
from gateway.core.facts import Facts
from gateway.core.reasons import Reason
from gateway.wire import authority, headers, target
from gateway.wire.authority import Authority, BadAuthority
from gateway.wire.forwarded import TrustedProxies, network_of
from gateway.wire.headers import Pass
from gateway.wire.target import BadTarget, Target

if TYPE_CHECKING:
    from gateway.wire.forward_auth import Dialect, Original

Field = tuple[bytes, bytes]

METHODS = frozenset(
    "GET HEAD POST PUT PATCH DELETE OPTIONS PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT ACL BIND "
    "REBIND UNBIND LINK UNLINK MKACTIVITY CHECKOUT MERGE MKCALENDAR NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE QUERY".split()
)
"""Methods that are carried; CONNECT and TRACE never are (case 41)."""

_LARGEST = 2**53
_AGENT = 512
_REMEMBERED = 4096
_NO_FIELDS = frozenset((b"close", b"keep-alive", b"upgrade", b"te"))
"""What `Connection` usually lists, and no service sees anyway."""
_targets: dict[bytes, Target] = {}
_authorities: dict[tuple[bytes, str], Authority] = {}


class Rejected(SallyportError):  # noqa: N818 - the state is the name
    """Not one clear request; the connection cannot go on."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Declined(SallyportError):  # noqa: N818
    """A clear request that cannot be carried; the connection goes on."""

    def __init__(self, reason: Reason, retry_after: float = 0.0) -> None:
        """`retry_after`: seconds after which it may be worth another try; 0.0: nobody knows."""
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


class Caller:
    """What a request's header fields say, apart from method and target.

    On one connection they seldom change from one request to the next, so the last one is kept and taken again for
    equal fields: a lookup instead of reading them anew, and nothing that another client could reach.
    """

    __slots__ = (
        "_desk_scheme",
        "_passed",
        "address",
        "agent",
        "authority",
        "authorization",
        "block",
        "certificate",
        "chain",
        "cookie",
        "expects",
        "fields",
        "length",
        "network",
        "original",
        "scheme",
        "seen",
        "version",
    )

    def __init__(
        self,
        version: str,
        fields: list[Field],
        *,
        peer: str,
        trusted: bool,
        proxies: TrustedProxies,
        scheme: str,
        strip_cookies: Callable[[bytes], bytes],
        certificate: Certificate | None = None,
    ) -> None:
        """Read the fields. `peer`: canonical address of the other end; `trusted`: whether what it says of others is
        believed; `scheme`: what browsers see; `certificate`: the client's, verified.

        Raises `Rejected`.
        """
        if version not in ("1.1", "1.0"):
            raise Rejected(Reason.VERSION_NOT_SUPPORTED)
        lines: list[bytes] = []
        hosts: list[bytes] = []
        cookies: list[bytes] = []
        connection: list[bytes] = []
        agent = b""
        authorization: bytes | None = None
        self.version = version
        self.fields = fields
        self.original: tuple[Dialect, Original] | None = None
        """What a proxy that asks in this way asks about; None: not read yet, or no question."""
        self.length = 0
        """Body length; -1 for chunked."""
        self.expects = False
        """Whether the client waits for 100 (Continue)."""
        way = headers.way
        for field in fields:
            passes = way(field[0])
            if passes is Pass.ON:
                lines.append(b"%b: %b\r\n" % field)
            elif passes is Pass.READ:
                name, value = field[0].lower(), field[1]
                if name == b"host":
                    hosts.append(value)
                elif name == b"cookie":
                    cookies.append(value)
                elif name == b"user-agent":
                    agent = value
                    lines.append(b"User-Agent: %b\r\n" % value)
                elif name == b"authorization":
                    if authorization is not None:
                        raise Rejected(Reason.BAD_REQUEST)  # two credentials: which one is meant? (case 60)
                    authorization = value
                    lines.append(b"Authorization: %b\r\n" % value)
                elif name == b"connection":
                    connection.append(value)
                elif name == b"content-length":
                    if self.length:
                        raise Rejected(Reason.BAD_REQUEST)
                    self.length = int(value) if len(value) <= 20 else _LARGEST + 1
                elif name == b"transfer-encoding":
                    if self.length or value.lower() != b"chunked" or version == "1.0":
                        raise Rejected(Reason.BAD_REQUEST)
                    self.length = -1
                elif name == b"expect":
                    if value.lower() != b"100-continue":
                        raise Rejected(Reason.EXPECTATION_FAILED)
                    self.expects = version == "1.1"  # HTTP/1.0 cannot mean it (RFC 9110, section 10.1.1)
        self.authorization = authorization or b""
        if self.length > _LARGEST:
            raise Rejected(Reason.BODY_TOO_LARGE)
        self.seen = fields
        """Those a service sees too; what `Connection` names away must not choose the rule either."""
        if connection and (named := headers.nominated(connection) - _NO_FIELDS):
            lines = [line for line in lines if line.partition(b":")[0].lower() not in named]
            self.seen = [field for field in fields if field[0].lower() not in named]
        if len(hosts) != 1:
            raise Rejected(Reason.BAD_HOST)
        self.scheme = scheme
        self.authority = authority_of(hosts[0], scheme)
        self.address, self.chain = peer, peer.encode()
        if trusted:
            self.address, self.chain, self.scheme = proxies.told(peer, fields, scheme)
        self.certificate = certificate
        self.network = network_of(self.address)
        self.agent = agent[:_AGENT].decode("latin-1")
        self.cookie = cookies[0] if len(cookies) == 1 else b"; ".join(cookies)
        passed = b"".join(lines)
        host = self.authority.raw
        stripped = strip_cookies(self.cookie)
        self.block = b"Host: %b\r\n%b%bX-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n" % (
            host,
            passed,
            b"Cookie: %b\r\n" % stripped if stripped else b"",
            self.chain,
            self.scheme.encode(),
            host,
        )
        """Header lines for a service; framing, request id and identity are still to come."""
        self._passed = len(host) + 8, len(host) + 8 + len(passed)
        """Where in `block` the lines stand that pass as they came."""
        self._desk_scheme = scheme

    def desk_block(self) -> bytes:
        """Header lines for our own pages, with what the wire knows; believed on their private socket only."""
        start, end = self._passed
        return (
            b"Host: %b\r\n%b%bSallyport-Client-Address: %b\r\nSallyport-Client-Network: %b\r\n"
            b"Sallyport-Scheme: %b\r\nSallyport-Host: %b\r\n"
            % (
                self.authority.raw,
                self.block[start:end],
                b"Cookie: %b\r\n" % self.cookie if self.cookie else b"",
                self.address.encode(),
                self.network.encode(),
                self._desk_scheme.encode(),
                self.authority.raw,
            )
        )


def read(method: str, raw_target: bytes, caller: Caller, request_id: str) -> Facts:
    """The facts of a request. Raises `Rejected`."""
    if method not in METHODS:
        raise Rejected(Reason.METHOD_NOT_ALLOWED)
    where = caller.authority
    aim = _target(raw_target if raw_target.startswith(b"/") else _origin_form(raw_target, caller))
    return Facts(
        method=method,
        host=where.host,
        port=where.port,
        path=aim.path,
        scheme=caller.scheme,
        query=aim.query,
        target=aim.raw,
        readings=_readings(method, aim) if aim.readings or method == "POST" else (),
        address=caller.address,
        network=caller.network,
        agent=caller.agent,
        cookie=caller.cookie,
        authorization=caller.authorization,
        headers=caller.seen,
        request_id=request_id,
        certificate=caller.certificate,
    )


def _origin_form(raw: bytes, caller: Caller) -> bytes:
    """An absolute target in origin form; its authority must agree with `Host` (case 40)."""
    named, separator, rest = raw.partition(b"://")
    if not separator or named.lower() not in (b"http", b"https"):
        raise Rejected(Reason.BAD_TARGET)
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    if authority_of(rest[:cut], caller.scheme) != caller.authority:
        raise Rejected(Reason.BAD_TARGET)
    origin_form = rest[cut:]
    return origin_form if origin_form.startswith(b"/") else b"/" + origin_form


def authority_of(raw: bytes, scheme: str) -> Authority:
    """Host and port, remembered. Raises `Rejected`."""
    known = _authorities.get((raw, scheme))
    if known is None:
        try:
            known = authority.parse(raw, scheme)
        except BadAuthority:
            raise Rejected(Reason.BAD_HOST) from None
        if len(_authorities) >= _REMEMBERED:
            _authorities.clear()
        _authorities[raw, scheme] = known
    return known


def _target(raw: bytes) -> Target:
    known = _targets.get(raw)
    if known is None:
        try:
            known = target.normalise(raw)
        except BadTarget:
            raise Rejected(Reason.BAD_TARGET) from None
        if len(_targets) >= _REMEMBERED:
            _targets.clear()
        if len(raw) <= _AGENT:
            _targets[raw] = known
    return known


def _readings(method: str, aim: Target) -> tuple[tuple[str, str], ...]:
    others = target.overridden_methods(aim.query) if method == "POST" and aim.query else ()
    if not others:
        return tuple((method, path) for path in aim.readings) if aim.readings else ()
    return tuple((each, path) for path in (aim.path, *aim.readings) for each in (method, *others))
