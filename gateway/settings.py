"""`config.yaml` and the environment to frozen settings; every mistake at once, with its line.

Relative paths are relative to the folder the file is in, so that it means the same wherever the gateway is started.
Durations are seconds, sizes bytes, addresses `ipaddress` objects. What may hold a secret is a `Secret` and shows
itself as `***` only.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, WithJsonSchema, model_validator

from gateway.core.errors import ConfigError, Problem
from gateway.policy import document, problems
from gateway.policy.schema import Name, Strict, Texts
from gateway.policy.units import Duration, Size

DEFAULT_FILE = "config.yaml"
FILE_VARIABLE = "SALLYPORT_CONFIG"
"""Environment variable that names another file."""

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
_PREFIX = re.compile(r"/(?:[A-Za-z0-9._~-]+/)+")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Secret(SecretStr):
    """Text nobody should read over a shoulder; `get_secret_value()` gives it."""

    def _display(self) -> str:
        return "***" if self.get_secret_value() else ""


def setting(default: Any, description: str, **bounds: Any) -> Any:
    """A field with its default as people write it, `1h`, so that the reference says it that way too."""
    return Field(default=default, description=description, **bounds)


class Listen(Strict):
    """Where to listen: a host and port, or a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""
    """Of the Unix socket; empty for a host and port."""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _listen(value: Any) -> Any:
    if isinstance(value, Listen):
        return value
    if isinstance(value, dict) and "tls" in value:
        raise ValueError(
            "TLS to clients is not there yet; put a TLS terminator in front and name it in trusted_proxies"
        )
    if not isinstance(value, str):
        raise ValueError("not an address to listen on; write host:port or unix:/path")
    if value.startswith("unix:"):
        path = value.removeprefix("unix:")
        if not path.startswith("/") or len(path) > 100:
            raise ValueError(
                "a Unix socket needs an absolute path of at most 100 characters, as in unix:/run/sallyport.sock"
            )
        return Listen(path=path)
    found = _HOST_PORT.fullmatch(value)
    if found is None or int(found.group(3)) > 65535:
        raise ValueError(f"`{value}` is not an address to listen on; write host:port or unix:/path")
    return Listen(host=found.group(1) or found.group(2), port=int(found.group(3)))


ListenField = Annotated[
    Listen,
    BeforeValidator(_listen),
    WithJsonSchema({"type": "string", "title": "Listen", "pattern": "^(unix:/|.+:[0-9]+$)"}),
]


def _split(url: str) -> SplitResult:
    """An http(s) URL with a host and nothing after it. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not a URL; write http://host:port")
    if "@" in parts.netloc:
        raise ValueError("a URL here holds no user name and no password")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("write scheme, host and port only")
    _ = parts.port  # raises ValueError when it is not a number of a port
    return parts


def _public_url(url: str) -> str:
    _split(url)
    return url.rstrip("/").lower()


def _upstream_url(url: str) -> str:
    if _split(url).scheme == "https":
        raise ValueError("TLS to a service is not there yet; write http://host:port")
    return url.rstrip("/")


def _network(value: Any) -> Any:
    if isinstance(value, str):
        try:
            network = ipaddress.ip_network(value)
        except ValueError as error:
            raise ValueError(f"`{value}` is not a network: {error}") from None
        if network.prefixlen == 0:
            raise ValueError(
                f"`{value}` would let everybody choose their own address; name the networks of your proxies"
            )
        return network
    return value


NetworkField = Annotated[Network, BeforeValidator(_network), WithJsonSchema({"type": "string", "title": "CIDR"})]


def _prefix(value: str) -> str:
    if not _PREFIX.fullmatch(value) or "/./" in value or "/../" in value:
        raise ValueError("a prefix starts and ends with a slash and names one segment at least, as in /.sallyport/")
    return value


def _here(value: Path, info: ValidationInfo) -> Path:
    """Relative to the folder of the config file."""
    folder = (info.context or {}).get("folder")
    return folder / value if folder is not None else value


PathField = Annotated[Path, AfterValidator(_here)]


def _records(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    scheme, colon, rest = value.partition(":")
    if scheme.startswith("postgresql"):
        raise ValueError("PostgreSQL is not there yet; write sqlite:path")
    if scheme != "sqlite" or not colon or not rest or "?" in rest:
        raise ValueError("not a place for records; write sqlite:path, as in sqlite:data/sallyport.db")
    path = _here(Path(rest.removeprefix("//")), info)
    return f"sqlite:{path}"


def _access_log(value: str, info: ValidationInfo) -> str:
    return value if value in ("-", "") else str(_here(Path(value), info))


class UpstreamTimeouts(Strict):
    """How long to wait for a service."""

    connect: Duration = setting("5s", "For a connection.")
    response: Duration = setting("60s", "For the head of its answer, and for each further piece of the body.")
    idle: Duration = setting("60s", "How long an unused connection is kept.")


class Upstream(Strict):
    """A service behind the gate."""

    later: ClassVar[Mapping[str, str]] = {
        "endpoints": "one `url` for now; put a load balancer behind it",
        "health": "the service is tried with each request for now",
        "tls": "plain http for now",
        "retries": "nothing is sent twice for now",
        "breaker": "remove it for now",
    }

    url: Annotated[str, AfterValidator(_upstream_url)] = Field(description="`http://host:port`.")
    timeouts: UpstreamTimeouts = setting({}, "How long to wait for it.")
    connections: int = setting(512, "Connections it may have at once; more requests get 503.", ge=1, le=65535)

    @property
    def host(self) -> str:
        """Host name or address, IPv6 without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port; 80 where the URL names none."""
        return urlsplit(self.url).port or 80


class Store(Strict):
    """Where things are kept."""

    records: Annotated[Secret, BeforeValidator(_records)] = setting(
        "sqlite:data/sallyport.db", "Users, sessions, factors, events: `sqlite:path`."
    )
    shared: Literal["memory"] = setting("memory", "Counters and challenges: `memory`, this process alone.")


class Local(Strict):
    """Users of our own, with a password (argon2id)."""


class IdentitySources(Strict):
    """Who knows the users."""

    later: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("oidc", "ldap", "jwt", "introspection", "api_keys", "mtls", "passkeys"), "`local` users for now"
    )

    local: Local = setting({}, "Users of our own; made with `sallyport user add`.")


class SessionTimes(Strict):
    """How long somebody stays signed in."""

    idle: Duration = setting("1h", "Ends when nothing was asked for so long.", gt=0)
    absolute: Duration = setting("24h", "Ends so long after signing in, whatever happens.", gt=0)
    per_user: int = setting(5, "Sessions of one user at once; a further one ends the oldest.", ge=1, le=1000)

    @model_validator(mode="after")
    def _in_order(self) -> SessionTimes:
        if self.idle > self.absolute:
            raise ValueError("`idle` is longer than `absolute`")
        return self


class Totp(Strict):
    """Codes of an authenticator app (RFC 6238)."""

    issuer: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^:%]+$")] = setting(
        "Sallyport", "Name shown in the app."
    )


class BackupCodes(Strict):
    """Ten codes on paper, each good once."""


class Mfa(Strict):
    """Second factors."""

    later: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("sms", "email", "webauthn", "trusted_devices", "push"), "`totp` and `backup_codes` for now"
    )

    totp: Totp | None = setting({}, "Codes of an authenticator app; `null`: not offered.")
    backup_codes: BackupCodes | None = setting({}, "Ten codes on paper; `null`: not offered.")
    enrol_within: Duration = setting("5m", "How fresh a sign-in must be to set up a first factor.")
    required_groups: Texts | tuple[()] = setting(
        ("admins",), "Administrators: rules that let only these groups in ask for aal2, whatever they say."
    )

    @property
    def factors(self) -> tuple[str, ...]:
        """Configured second factors, as policies name them."""
        offered = {"totp": self.totp, "backup_code": self.backup_codes}
        return tuple(name for name, settings in offered.items() if settings is not None)


class RiskSettings(Strict):
    """How strange a request is."""

    geoip: PathField | None = setting(None, "A MaxMind country database (mmdb); left out: no countries.")
    weights: Mapping[Literal["agent", "network", "country", "failures"], Annotated[float, Field(ge=0, le=1)]] = setting(
        {}, "Signal → its weight, 0.0 (off) … 1.0; signals left out keep their own."
    )


class Assertion(Strict):
    """The signed statement of who is asking, sent to the service as `Sallyport-Assertion`."""

    algorithm: Literal["ES256"] = setting("ES256", "JWS algorithm.")
    lifetime: Duration = setting("60s", "How long one is valid.", ge=5, le=3600)


class Headers(Strict):
    """What the service is told."""

    later: ClassVar[Mapping[str, str]] = {"signatures": "the signed assertion for now"}

    style: Literal["x-forwarded", "remote"] = setting(
        "x-forwarded",
        "`x-forwarded`: X-Forwarded-User, -Email, -Groups, -Preferred-Username; "
        "`remote`: Remote-User, -Email, -Groups, -Name.",
    )
    assertion: Assertion = setting({}, "The signed assertion.")


class RequestLimits(Strict):
    """How large a request may be."""

    head: Size = setting("32k", "Request line and headers together.", ge=1024, le=1024**2)
    target: Size = setting("8k", "Path and query.", ge=256, le=65536)
    headers: int = setting(100, "Number of headers.", ge=10, le=1000)
    body: Size = setting("0", "Body; 0: any size, since bodies are streamed.")


class Timeouts(Strict):
    """How long to wait for a client."""

    head: Duration = setting("10s", "For a whole request head.", gt=0)
    body: Duration = setting("30s", "For each further piece of a body, and for it to take ours.", gt=0)
    idle: Duration = setting("75s", "For the next request on a connection.", gt=0)


class Drain(Strict):
    """How the gateway stops: SIGTERM, and nothing is lost."""

    delay: Duration = setting(
        "0s", "How long to serve on while `/readyz` says 503 already: as long as balancers take to notice."
    )
    time: Duration = setting(
        "25s", "From SIGTERM to the end, `delay` included; what is not finished then is cut.", gt=0
    )

    @model_validator(mode="after")
    def _in_order(self) -> Drain:
        if self.delay >= self.time:
            raise ValueError("`delay` leaves no `time` to finish in")
        return self


class Connections(Strict):
    """How much may be going on at once."""

    clients: int = setting(
        10_000, "Connections of clients; above, idle ones are closed and new ones get 503.", ge=16, le=1_000_000
    )
    per_address: int = setting(
        0, "Of these, from one address that is no trusted proxy (IPv6: one /64); 0: no such limit.", ge=0, le=1_000_000
    )
    in_flight: int = setting(5_000, "Requests that are being answered; further ones get 503.", ge=16, le=1_000_000)
    wait: Duration = setting("1s", "When requests wait longer for their turn, further ones get 503.", ge=0.2, le=60)


class Log(Strict):
    """What is written down."""

    access: Annotated[str, AfterValidator(_access_log)] = setting(
        "-", "Access log, one JSON object a line: `-` standard output, a path, or empty for none."
    )


class Interrupted(Strict):
    """A request that had to wait for a sign-in or a step-up is kept sealed, and goes on afterwards."""

    body: Size = setting("64k", "Largest body kept; a larger one is not, and the page says so.", le=1024**2)


class Settings(Strict):
    """`config.yaml`."""

    later: ClassVar[Mapping[str, str]] = {"tenants": "one tenant for now"}

    listen: Annotated[
        tuple[ListenField, ...],
        BeforeValidator(lambda value: [value] if isinstance(value, str | dict) else value),
        Field(min_length=1),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
    ] = setting(("127.0.0.1:8080",), "Where clients come in: `host:port` or `unix:/path`; a list for several.")
    admin_listen: ListenField | None = setting(
        "127.0.0.1:9090", "`/metrics`, `/healthz`, `/readyz` and nothing else; `null`: nowhere."
    )
    public_url: Annotated[str, AfterValidator(_public_url)] = setting(
        "http://127.0.0.1:8080", "What browsers see; also the issuer of assertions."
    )
    trusted_proxies: tuple[NetworkField, ...] = setting(
        (), "Networks (CIDR) whose `X-Forwarded-*` is believed; empty: nobody's."
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = setting(
        "/.sallyport/", "Where our own pages and API are, on every host."
    )
    upstreams: dict[Name, Upstream] = Field(min_length=1, description="Name → a service behind the gate.")
    policies: PathField = setting(Path("policies/"), "A folder of policy files, or one file.")
    store: Store = setting({}, "Where things are kept.")
    keys: PathField = setting(Path("data/keys"), "Folder of our keys; made on first start.")
    identity: IdentitySources = setting({}, "Who knows the users.")
    sessions: SessionTimes = setting({}, "How long somebody stays signed in.")
    mfa: Mfa = setting({}, "Second factors.")
    risk: RiskSettings = setting({}, "How strange a request is.")
    headers: Headers = setting({}, "What the service is told.")
    request: RequestLimits = setting({}, "How large a request may be.")
    timeouts: Timeouts = setting({}, "How long to wait for a client.")
    interrupted: Interrupted = setting({}, "Requests kept while somebody proves who they are.")
    log: Log = setting({}, "What is written down.")
    drain: Drain = setting({}, "How the gateway stops.")
    connections: Connections = setting({}, "How much may be going on at once.")

    @property
    def scheme(self) -> str:
        """`http` or `https`, as browsers see us."""
        return urlsplit(self.public_url).scheme


def path_of(path: Path | None, environ: Mapping[str, str]) -> Path:
    """The configuration file: `path`, else the one `SALLYPORT_CONFIG` names, else `config.yaml` here."""
    return path if path is not None else Path(environ.get(FILE_VARIABLE) or DEFAULT_FILE)


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings in `path_of(path, environ)`. Raises `ConfigError` with every problem."""
    path = path_of(path, environ)
    try:
        text = path.read_bytes()
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        raise ConfigError([Problem(message, str(path), suggestion="--config names another file")]) from None
    written = document.read(text, str(path), environ=environ, folder=path.parent)
    return problems.validate(Settings, written, {"folder": path.parent})
