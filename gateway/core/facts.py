"""One request as the gate sees it.

Everything here is canonical: the wire normalises once, the same spelling is matched, counted, logged and
forwarded. What a client may claim but nobody has checked is not here; headers are asked for by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.certificate import Certificate
from gateway.core.header_names import folded


class Facts:
    """A request's facts. Made once per request by the wire; nobody changes them afterwards."""

    __slots__ = (
        "address",
        "agent",
        "authorization",
        "certificate",
        "cookie",
        "headers",
        "host",
        "method",
        "network",
        "path",
        "port",
        "query",
        "readings",
        "request_id",
        "scheme",
        "target",
    )

    def __init__(
        self,
        *,
        method: str,
        host: str,
        path: str,
        scheme: str = "http",
        port: int = 0,
        query: str = "",
        target: bytes = b"",
        readings: tuple[tuple[str, str], ...] = (),
        address: str = "",
        network: str = "",
        agent: str = "",
        cookie: bytes = b"",
        authorization: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (),
        request_id: str = "",
        certificate: Certificate | None = None,
    ) -> None:
        self.method = method
        """Upper case token."""
        self.scheme = scheme
        """`http` or `https`, as the client sees it."""
        self.host = host
        """Lower case, without trailing dot or port."""
        self.port = port
        """The port the client addressed; 0 where it is the scheme's own."""
        self.path = path
        """Percent-decoded, dots resolved, slashes merged; always starts with `/`."""
        self.query = query
        """As sent, without `?`; never used to find a rule unless the rule names a query parameter."""
        self.target = target
        """Origin form, the bytes forwarded: the encoded twin of `path` and `query`."""
        self.readings = readings
        """Other `(method, path)` pairs a service might take this request for: case folded, `;parameters` cut …
        A reading can only add demands, never take one away."""
        self.address = address
        """Client address in canonical text, or `unknown`."""
        self.network = network
        """What the address counts as in limits: itself for IPv4, its /64 for IPv6."""
        self.agent = agent
        """`User-Agent`, decoded as latin-1, cut to 512 characters."""
        self.cookie = cookie
        """All `Cookie` lines joined with `; `, or empty."""
        self.authorization = authorization
        """`Authorization`; when it came twice, joined with a NUL so that no scheme matches."""
        self.headers = headers
        """Pairs as they came; ask with `header`."""
        self.request_id = request_id
        self.certificate = certificate
        """The client's, verified in the handshake; None where it showed none."""

    def header(self, name: bytes) -> list[bytes]:
        """Every value of header `name`, in order; also of `X_Name` or `x.name`, which services read as `X-Name`."""
        wanted = folded(name)
        return [value for key, value in self.headers if folded(key) == wanted]

    def __repr__(self) -> str:
        return f"<Facts {self.method} {self.host}{self.path} from {self.address}>"
