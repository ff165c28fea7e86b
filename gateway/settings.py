"""`config.yaml` and the environment to frozen settings; every mistake at once, with its line.

Relative paths are relative to the folder the file is in, so that it means the same wherever the gateway is started.
Durations are seconds, sizes bytes, addresses `ipaddress` objects. What may hold a secret is a `Secret` and shows
itself as `***` only.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    SecretStr,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from gateway.core.errors import ConfigError, Problem
from gateway.policy import document, problems
from gateway.policy.schema import Name, Strict, Texts, Users
from gateway.policy.units import Duration, Percent, Size
from gateway.store.place import POSTGRESQL, Place, server
from gateway.store.redis_where import Where

if TYPE_CHECKING:
    from gateway.identity.session_store import Terms
    from gateway.mfa.demands import Demand

DEFAULT_FILE = "config.yaml"
FILE_VARIABLE = "SALLYPORT_CONFIG"
"""Environment variable that names another file."""

NONE = "none"
"""A store that is not there."""
MEMORY = "memory"

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]{1,15})?)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")
_PREFIX = re.compile(r"/(?:[A-Za-z0-9._~-]+/)+")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Secret(SecretStr):
    """Text nobody should read over a shoulder; `get_secret_value()` gives it."""

    def _display(self) -> str:
        return "***" if self.get_secret_value() else ""


def setting(default: Any, description: str, **bounds: Any) -> Any:
    """A field with its default as people write it, `1h`, so that the reference says it that way too."""
    return Field(default=default, description=description, **bounds)


def _here(value: Path, info: ValidationInfo) -> Path:
    """Relative to the folder of the config file."""
    folder = (info.context or {}).get("folder")
    return folder / value if folder is not None else value


PathField = Annotated[Path, AfterValidator(_here)]


def _not_inherited(value: Address) -> Address:
    if value.systemd or value.descriptor >= 0:
        raise ValueError("write host:port or unix:/path")
    return value


class _OrText:
    """In the JSON Schema: a mapping, or its short form."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core)]}


class _OrOne:
    """In the JSON Schema: a list, or the only item of one."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        many = handler(core)
        return {"anyOf": [*many["items"].get("anyOf", [many["items"]]), many]}


class _OrEverybody:
    """In the JSON Schema: a network as text, or `Everybody`."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(Everybody.__pydantic_core_schema__)]}


class Address(Strict):
    """Where to listen: one of a host and port, a Unix socket, sockets that somebody else has opened."""

    host: str = ""
    port: int = 0
    path: str = ""
    """Of the Unix socket."""
    descriptor: int = -1
    """Of a socket that is open already."""
    systemd: bool = False
    """All sockets that systemd passes on."""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        if self.systemd:
            return "systemd"
        if self.descriptor >= 0:
            return f"fd:{self.descriptor}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _socket_path(value: str) -> str:
    """The path in `unix:/path`. Raises ValueError."""
    path = value.removeprefix("unix:")
    if not path.startswith("/") or len(path) > 100:
        raise ValueError(
            "a Unix socket needs an absolute path of at most 100 characters, as in unix:/run/sallyport.sock"
        )
    return path


def _address(value: Any) -> Any:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("not an address to listen on; write host:port or unix:/path")
    if value.startswith("unix:"):
        return Address(path=_socket_path(value))
    if value == "systemd":
        return Address(systemd=True)
    if re.fullmatch("fd:[0-9]{1,4}", value):
        return Address(descriptor=int(value.removeprefix("fd:")))
    found = _HOST_PORT.fullmatch(value)
    if found is None or int(found.group(3)) > 65535:
        raise ValueError(f"`{value}` is not an address to listen on; write host:port or unix:/path")
    return Address(host=found.group(1) or found.group(2), port=int(found.group(3)))


AddressField = Annotated[Address, BeforeValidator(_address), WithJsonSchema({"type": "string"})]
AdminField = Annotated[
    Address,
    BeforeValidator(_address),
    AfterValidator(_not_inherited),
    WithJsonSchema({"type": "string", "title": "Address", "pattern": "^(unix:/|.+:[0-9]+$)"}),
]


class Pair(Strict):
    """A certificate and its key."""

    certificate: PathField = Field(description="PEM: the certificate, then those between it and a known authority.")
    key: PathField = Field(description="PEM, without a password; nobody else may read the file.")


class Tls(Strict):
    """TLS to clients. The files are watched: new ones count from the next handshake on."""

    certificate: PathField | None = setting(None, "PEM: the certificate, then those between it and a known authority.")
    key: PathField | None = setting(None, "PEM, without a password; nobody else may read the file.")
    certificates: tuple[Pair, ...] = setting(
        (), "Several, instead of `certificate` and `key`: the client's SNI chooses; the first where none fits."
    )
    client_certificates: Literal["none", "optional", "required"] = setting(
        "none", "Whether clients are asked for a certificate, and let in without one."
    )
    client_ca: PathField | None = setting(None, "PEM: authorities that sign clients' certificates.")
    minimum: Literal["1.2", "1.3"] = setting("1.2", "Lowest version of TLS; put it in quotes.")

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Every certificate with its key; the first is the default."""
        if self.certificate is not None and self.key is not None:
            return (Pair(certificate=self.certificate, key=self.key),)
        return self.certificates

    @model_validator(mode="after")
    def _whole(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("`certificate` and `key` go together")
        if (self.certificate is None) == (not self.certificates):
            raise ValueError("write either `certificate` and `key`, or a list of them as `certificates`")
        if (self.client_certificates == "none") != (self.client_ca is None):
            raise ValueError("`client_ca` goes with `client_certificates: optional` or `required`")
        return self


class Listen(Strict):
    """Where clients come in."""

    address: AddressField = Field(
        description="`host:port`, `[::1]:8080`, `unix:/path`; `fd:3` or `systemd` for sockets that are open already."
    )
    tls: Tls | None = setting(None, "TLS; left out: plain HTTP.")
    proxy_protocol: bool = setting(
        False, "Each connection begins with a PROXY header (version 1 or 2) of one of `trusted_proxies`."
    )
    mode: Annotated[str, Field(pattern="^0?[0-7]{3}$")] = setting("0660", "Permissions of a Unix socket, in quotes.")

    def __str__(self) -> str:
        return f"{self.address}{' with TLS' if self.tls is not None else ''}"


ListenField = Annotated[
    Listen, BeforeValidator(lambda value: {"address": value} if isinstance(value, str) else value), _OrText()
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


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _punycode(host: str) -> str:
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return "xn--…"


class Everybody(Strict):
    """A network that holds everybody, in words that nobody writes by mistake."""

    network: Network = Field(description="`0.0.0.0/0` or `::/0`.")
    i_trust_everybody: Literal[True] = Field(description="Whoever connects may choose their own address.")


def _trusted_proxy(value: Any) -> Any:
    if isinstance(value, dict):
        return Everybody.model_validate(value).network
    if isinstance(value, str) and value != "unix":
        try:
            network = ipaddress.ip_network(value)
        except ValueError as error:
            raise ValueError(f"`{value}` is not a network: {error}") from None
        if network.prefixlen == 0:
            raise ValueError(
                f"`{value}` would let everybody choose their own address; name the networks of your proxies, or write "
                f"{{network: {value}, i_trust_everybody: true}}"
            )
        return network
    if value != "unix":
        raise ValueError("not a network; write it as text, as in 10.0.0.0/8")
    return value


def _not_everybody_in_parts(proxies: tuple[TrustedProxy, ...]) -> tuple[TrustedProxy, ...]:
    for version in (ipaddress.IPv4Network, ipaddress.IPv6Network):
        named = [proxy for proxy in proxies if isinstance(proxy, version)]
        together = next(iter(ipaddress.collapse_addresses(named)), None)  # type: ignore[type-var]
        if together is not None and together.prefixlen == 0 and together not in named:
            raise ValueError(f"together these are `{together}`, which is everybody; name the networks of your proxies")
    return proxies


TrustedProxy = Network | Literal["unix"]
TrustedProxyField = Annotated[TrustedProxy, BeforeValidator(_trusted_proxy), _OrEverybody()]


def _prefix(value: str) -> str:
    if not _PREFIX.fullmatch(value) or "/./" in value or "/../" in value:
        raise ValueError("a prefix starts and ends with a slash and names one segment at least, as in /.sallyport/")
    return value


def _records_url(value: Secret, info: ValidationInfo) -> Secret:
    url = value.get_secret_value()
    scheme, colon, rest = url.partition(":")
    if scheme == "postgresql":
        return value  # taken apart once the rest is known
    if scheme != "sqlite" or not colon or not rest or "?" in rest:
        raise ValueError(
            "not a place for records; write sqlite:path, as in sqlite:data/sallyport.db, "
            "postgresql://user:password@host/database, or none"
        )
    return Secret(f"sqlite:{_here(Path(rest.removeprefix('//')), info)}")


def _access_log(value: str, info: ValidationInfo) -> str:
    return value if value in ("-", "") else str(_here(Path(value), info))


class UpstreamTimeouts(Strict):
    """How long to wait for a service."""

    connect: Duration = setting("5s", "For a connection, TLS included.", gt=0)
    response: Duration = setting("60s", "For the head of its answer.", gt=0)
    idle: Duration = setting("60s", "For each further piece of its answer.", gt=0)
    keep: Duration = setting("60s", "How long an unused connection is kept.")


class Endpoint(Strict):
    """One place a service is at."""

    url: str
    """As it is written, without a slash at the end."""
    host: str = ""
    """Host name or address, IPv6 without brackets; empty for a Unix socket."""
    port: int = 0
    path: str = ""
    """Of the Unix socket."""
    tls: bool = False

    def __str__(self) -> str:
        return self.url


def _endpoint(value: Any) -> Any:
    if isinstance(value, Endpoint):
        return value
    if not isinstance(value, str):
        raise ValueError("not a URL; write http://host:port")
    if value.startswith("unix:"):
        path = value.removeprefix("unix:")
        if not path.startswith("/") or len(path) > 100:
            raise ValueError("a Unix socket needs an absolute path of at most 100 characters, as in unix:/run/app.sock")
        return Endpoint(url=value, path=path)
    parts = _split(value)
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return Endpoint(url=value.rstrip("/"), host=parts.hostname or "", port=port, tls=tls)


def _each_once(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    seen = [endpoint.url for endpoint in endpoints]
    twice = next((url for url in seen if seen.count(url) > 1), None)
    if twice is not None:
        raise ValueError(f"`{twice}` is given twice")
    return endpoints


EndpointField = Annotated[
    Endpoint,
    BeforeValidator(_endpoint),
    WithJsonSchema({"type": "string", "title": "Endpoint", "pattern": "^(https?://|unix:/)"}),
]


def _status_range(value: Any) -> Any:
    if isinstance(value, tuple):
        return value
    found = re.fullmatch(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", str(value))
    if found is None or int(found[2] or found[1]) < int(found[1]):
        raise ValueError("not a status or a range of them; write 200 or 200-399")
    return int(found[1]), int(found[2] or found[1])


class Health(Strict):
    """Ask each endpoint how it is; one that does not answer well gets no requests."""

    path: Annotated[str, Field(pattern=r"^/[\x21-\x7e]*$", max_length=1024)] = setting("/healthz", "What to ask for.")
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:\[\]-]*$", max_length=255)] = setting(
        "", "`Host` to send; empty: that of the endpoint."
    )
    interval: Duration = setting("5s", "How often; a tenth earlier or later by chance.", ge=1)
    timeout: Duration = setting("2s", "How long an answer may take.", gt=0)
    healthy: int = setting(2, "Good answers in a row that bring an endpoint back.", ge=1, le=100)
    unhealthy: int = setting(3, "Failures in a row that take it out.", ge=1, le=100)
    expect: Annotated[
        tuple[int, int],
        BeforeValidator(_status_range),
        WithJsonSchema({"type": ["string", "integer"], "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"}),
    ] = setting("200-399", "Status of a good answer, or a range.")


class Ejection(Strict):
    """Leave an endpoint out for a while when its answers fail (several endpoints only)."""

    failures: int = setting(
        5, "Failures in a row: not reached, broken off, not in time, or answered 502, 503 or 504.", ge=1, le=1000
    )
    for_: Duration = setting("10s", "For how long.", alias="for", gt=0)
    at_most: Percent = setting("50%", "Share of the endpoints that may be out at once, rounded down.")
    return_over: Duration = setting("10s", "How long it takes until it has its whole share of requests again.")


Failure = Literal["connect", "reset", "502", "503", "504"]


class Retries(Strict):
    """Send a request again, at another endpoint if there is one, where that can do no harm."""

    attempts: int = setting(2, "Tries in all.", ge=1, le=10)
    budget: Percent = setting("20%", "Retries for each request, over time; ten are always in hand.")
    on: Annotated[
        tuple[Annotated[Failure, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)], ...],
        Field(min_length=1),
    ] = setting(("connect", "reset"), "After what: `connect`, `reset`, `502`, `503`, `504`.")


class Breaker(Strict):
    """Leave a service alone that fails too often: 503 at once."""

    failures: Percent = setting("50%", "Share of failures that opens it.", gt=0)
    of: int = setting(20, "Among so many last requests.", ge=1, le=10_000)
    open_for: Duration = setting("5s", "How long; then one request tries.", gt=0)


class Queue(Strict):
    """Requests that wait while every connection is taken; further ones get 503 with `Retry-After`."""

    length: int = setting(512, "How many.", ge=0, le=100_000)
    wait: Duration = setting("1s", "How long, looked at once a second.")


def _verified(value: Any) -> Any:
    if value is False:
        raise ValueError("write `verify: insecure` if anybody may pretend to be the service")
    return value


class UpstreamTls(Strict):
    """TLS to a service: whom to believe, and who we are. Files are read again when they change."""

    ca: PathField | None = setting(None, "Authorities to believe (PEM); left out: the system's.")
    certificate: PathField | None = setting(None, "Our own certificate (PEM, with its chain), for mutual TLS.")
    key: PathField | None = setting(None, "Its key (PEM, without a password); left out: in `certificate`.")
    server_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]*$", max_length=255)] = setting(
        "", "The name its certificate has to carry; empty: the host of the URL."
    )
    verify: Annotated[Literal[True, "insecure"], BeforeValidator(_verified)] = setting(
        True, "`insecure`: believe any certificate, and so anybody on the way."
    )

    @model_validator(mode="after")
    def _a_key_for_something(self) -> UpstreamTls:
        if self.key is not None and self.certificate is None:
            raise ValueError("a `key` without a `certificate`")
        return self


def _hash(value: str) -> str:
    if not re.fullmatch(r"address|user|session|(?:header|cookie):[A-Za-z0-9!#$%&'*+.^_`|~-]+", value):
        raise ValueError(f"`{value}` is nothing to tell by; use address, user, session, header:<name>, cookie:<name>")
    return value


class Upstream(Strict):
    """A service behind the gate."""

    url: EndpointField | None = setting(None, "Where it is: `http://host:port`, `https://…` or `unix:/path`.")
    endpoints: Annotated[tuple[EndpointField, ...], AfterValidator(_each_once)] = setting(
        (), "Where it is, if at several places; instead of `url`."
    )
    balance: Literal["round_robin", "least_outstanding", "consistent_hash"] = setting(
        "round_robin",
        "Who gets a request: one after the other, who has the fewest to answer, or the same for the same `hash`.",
    )
    hash: Annotated[str, AfterValidator(_hash)] = setting(
        "address",
        "For `consistent_hash`: `address`, `user`, `session`, `header:<name>` or `cookie:<name>`; the address where a "
        "request has none.",
    )
    health: Health | None = setting(None, "Ask how it is; left out: requests find out.")
    ejection: Ejection | None = setting({}, "Leave out an endpoint that fails; `null`: never.")
    retries: Retries | None = setting(
        None, "Send again what failed; left out: with several endpoints as below, with one never."
    )
    breaker: Breaker | None = setting(None, "Leave a service alone that fails; left out: never.")
    timeouts: UpstreamTimeouts = setting({}, "How long to wait for it.")
    connections: int = setting(512, "Connections it may have at once.", ge=1, le=65535)
    queue: Queue = setting({}, "Requests that wait for one.")
    resolve: Duration = setting("30s", "How often host names are resolved again.", ge=1)
    tls: UpstreamTls | None = setting(None, "TLS to it; left out: for https, as below.")

    @model_validator(mode="after")
    def _somewhere(self) -> Upstream:
        if self.url is not None and self.endpoints:
            raise ValueError("either `url` or `endpoints`")
        if not self.places:
            raise ValueError("no `url`; write http://host:port, or several as `endpoints`")
        if self.tls is not None and not any(place.tls for place in self.places):
            raise ValueError("`tls` belongs to an https:// URL")
        if "hash" in self.model_fields_set and self.balance != "consistent_hash":
            raise ValueError("`hash` belongs to `balance: consistent_hash`")
        return self

    @property
    def places(self) -> tuple[Endpoint, ...]:
        """Every endpoint; one at least."""
        return (self.url,) if self.url is not None else self.endpoints


def _redis(value: Secret) -> Secret:
    Where.parse(value.get_secret_value())  # raises ValueError
    return value


Deadline = Annotated[Duration, Field(ge=0.01, le=5)]


class SharedStore(Strict):
    """A Redis that all replicas share."""

    url: Annotated[Secret, AfterValidator(_redis), WithJsonSchema({"type": "string", "title": "Url"})] = Field(
        description="`redis://host:port/database`, `rediss://` with TLS, `unix:///path`, "
        "`redis+sentinel://one:26379,two:26379/name`, `redis+cluster://one:6379,two:6379`."
    )
    username: str = setting("", "Who we are there (ACL); left out: as in the URL.")
    password: Annotated[Secret | None, WithJsonSchema({"type": "string", "title": "Password"})] = setting(
        None, "Our password; left out: as in the URL."
    )
    sentinel_username: str = setting("", "Who we are to Sentinels that ask.")
    sentinel_password: Annotated[Secret | None, WithJsonSchema({"type": "string", "title": "Sentinel Password"})] = (
        setting(None, "Our password there; left out: they ask for none.")
    )
    ca: PathField | None = setting(None, "Authorities to believe (PEM); left out: the system's.")
    certificate: PathField | None = setting(None, "Our own certificate (PEM), for mutual TLS.")
    key: PathField | None = setting(None, "Its key (PEM, without a password); left out: in `certificate`.")
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] = setting(
        "sallyport:", "What every key there begins with; two gateways that share nothing need two."
    )
    deadline: Deadline = setting("50ms", "How long a request waits for an answer; then it is away.")

    @property
    def where(self) -> Where:
        """The server or servers, and who we are there."""
        where = Where.parse(self.url.get_secret_value())
        return replace(
            where,
            username=self.username or where.username,
            password=where.password if self.password is None else self.password.get_secret_value(),
            sentinel_username=self.sentinel_username,
            sentinel_password="" if self.sentinel_password is None else self.sentinel_password.get_secret_value(),
            ca=self.ca,
            certificate=self.certificate,
            key=self.key,
            prefix=self.prefix,
            deadline=self.deadline,
        )

    @model_validator(mode="after")
    def _tls(self) -> SharedStore:
        if not self.where.tls and (self.ca or self.certificate or self.key):
            raise ValueError("`ca`, `certificate` and `key` belong to a URL with TLS, as in rediss://")
        if self.key is not None and self.certificate is None:
            raise ValueError("a `key` without a `certificate`")
        if (self.sentinel_username or self.sentinel_password) and self.where.kind != "sentinel":
            raise ValueError("`sentinel_username` and `sentinel_password` belong to redis+sentinel://")
        if self.username and not self.where.password and self.password is None:
            raise ValueError("a `username` without a `password`")
        return self


def _shared(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) and value not in (MEMORY, NONE) else value


class Records(Strict):
    """The database of users, sessions, factors and events."""

    url: Annotated[Secret, AfterValidator(_records_url), WithJsonSchema({"type": "string", "title": "Url"})] = Field(
        description="`sqlite:path` or `postgresql://user:password@host:port/database`."
    )
    password: Annotated[Secret | None, WithJsonSchema({"type": "string", "title": "Password"})] = setting(
        None, "The password, where it is not in the URL."
    )
    ca: PathField | None = setting(
        None, "PEM: authorities that sign the server's certificate; with it TLS is used, and verifies."
    )
    certificate: PathField | None = setting(None, "PEM: our own, for a server that asks for one.")
    key: PathField | None = setting(None, "PEM, without a password: of `certificate`.")
    deadline: Deadline = setting("50ms", "PostgreSQL: how long a request waits for an answer; then it is away.")

    @model_validator(mode="after")
    def _whole(self) -> Records:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("`certificate` and `key` go together")
        place = self.place
        if place.scheme == POSTGRESQL:
            server(place)
        elif place.password or place.ca or place.certificate:
            raise ValueError("`sqlite:` is a file: it has no password and no TLS")
        return self

    @property
    def place(self) -> Place:
        """As the store wants to know it."""
        return Place(
            self.url.get_secret_value(),
            password=self.password.get_secret_value() if self.password is not None else "",
            ca=self.ca,
            certificate=self.certificate,
            key=self.key,
            deadline=self.deadline,
        )


def _records(value: Any) -> Any:
    if value == NONE:
        return None
    return {"url": value} if isinstance(value, str) else value


class Store(Strict):
    """Where things are kept."""

    records: Annotated[Records | None, BeforeValidator(_records), _OrText()] = setting(
        "sqlite:data/sallyport.db",
        "Users, sessions, factors, events: `sqlite:path`, `postgresql://user:password@host/database`, or a mapping; "
        "`none`: nobody is known, and events go to the log.",
    )
    shared: Annotated[
        Annotated[Literal["memory", "none"], Tag("word")] | Annotated[SharedStore, Tag("redis")],
        Discriminator(lambda value: "word" if isinstance(value, str) else "redis"),
        BeforeValidator(_shared),
        _OrText(),
    ] = setting(
        "memory",
        "Limits, sessions, tries to sign in: `memory`, this process alone, with sessions among the records; a Redis "
        "for all replicas together, as a URL or a mapping; `none`: rules have no limits.",
    )

    @model_validator(mode="after")
    def _counts_for_sign_in(self) -> Store:
        if self.records is not None and self.shared == NONE:
            raise ValueError("`shared: none` goes with `records: none`; sign-in counts its tries")
        return self

    @property
    def keeps_records(self) -> bool:
        """Whether anybody can be known."""
        return self.records is not None

    @property
    def redis(self) -> Where | None:
        """The Redis that replicas share; None where they share nothing."""
        return None if isinstance(self.shared, str) else self.shared.where

    @property
    def counts(self) -> bool:
        """Whether anything can be counted."""
        return self.shared != NONE

    @property
    def counts_together(self) -> bool:
        """Whether other replicas count in the same place."""
        return self.shared not in ("memory", NONE)


class Local(Strict):
    """Users of our own, with a password (argon2id)."""


class IdentitySources(Strict):
    """Who knows the users."""

    later: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("oidc", "ldap", "jwt", "introspection", "api_keys", "mtls", "passkeys"), "`local` users for now"
    )

    local: Local = setting({}, "Users of our own; made with `sallyport user add`.")


class TenantTimes(Strict):
    """How long somebody of one tenant stays signed in; what is left out is as for everybody."""

    idle: Duration | None = setting(None, "Ends when nothing was asked for so long.", gt=0)
    absolute: Duration | None = setting(None, "Ends so long after signing in, whatever happens.", gt=0)
    per_user: int | None = setting(None, "Sessions of one user at once.", ge=1, le=1000)


class SessionTimes(Strict):
    """How long somebody stays signed in."""

    idle: Duration = setting("1h", "Ends when nothing was asked for so long.", gt=0)
    absolute: Duration = setting("24h", "Ends so long after signing in, whatever happens.", gt=0)
    per_user: int = setting(5, "Sessions of one user at once.", ge=1, le=1000)
    when_full: Literal["end_oldest", "refuse"] = setting(
        "end_oldest", "What one more does: it ends the oldest, or signing in is refused."
    )
    grace: Duration = setting(
        "10s", "How long who is known stays so while a store is away and nobody hears of ended sessions; 0: not at all."
    )
    tenants: Mapping[Name, TenantTimes] = setting({}, "Tenant → lifetimes of its own, longer or shorter.")

    @model_validator(mode="after")
    def _in_order(self) -> SessionTimes:
        if self.idle > self.absolute:
            raise ValueError("`idle` is longer than `absolute`")
        for tenant, life in self.terms.tenants.items():
            if life.idle > life.absolute:
                raise ValueError(f"`tenants.{tenant}`: `idle` is longer than `absolute`")
        return self

    @property
    def lifetimes(self) -> tuple[float, float]:
        """Seconds of rest, and seconds in all, of the tenant that has the most."""
        every = [self.terms.default, *self.terms.tenants.values()]
        return max(life.idle for life in every), max(life.absolute for life in every)

    @property
    def terms(self) -> Terms:
        """As sessions want to know them."""
        from gateway.identity.session_store import Lifetimes, Terms

        default = Lifetimes(self.idle, self.absolute, self.per_user)
        tenants = {name: replace(default, **one.model_dump(exclude_none=True)) for name, one in self.tenants.items()}
        return Terms(default, tenants, refuse=self.when_full == "refuse", grace=self.grace)


class Totp(Strict):
    """Codes of an authenticator app (RFC 6238)."""

    issuer: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^:%]+$")] = setting(
        "Sallyport", "Name shown in the app."
    )


class BackupCodes(Strict):
    """Ten codes on paper, each good once."""


class TrustedDevices(Strict):
    """Browsers in which a second factor was shown, and need not be for a while."""

    lifetime: Duration = setting("30d", "How long after it was shown.", ge=60, le=90 * 86400)
    most: int = setting(10, "Browsers that one user can trust; one more, and the oldest is forgotten.", ge=1, le=100)


class Recovery(Strict):
    """A way back in by e-mail, for people who know their password and have lost every second factor."""

    channel: Literal["email"] = setting("email", "Where the link is sent: the address of the account.")
    delay: Duration = setting(
        "24h", "How long everybody has to object, before the link is sent.", ge=3600, le=30 * 86400
    )
    expires: Duration = setting("7d", "How long the link then counts.", ge=600, le=30 * 86400)


def _aaguid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError(f"`{value}` is not an AAGUID; write it as 2fc0579f-8113-47ea-b116-bb5a8db9202a") from None


class WebAuthn(Strict):
    """Security keys and passkeys (W3C Web Authentication)."""

    name: Annotated[str, Field(min_length=1, max_length=64)] = setting(
        "Sallyport", "What browsers call us when they ask for a key."
    )
    user_verification: Literal["required", "preferred", "discouraged"] = setting(
        "preferred",
        "Whether a key must know its user, by a PIN or a finger. Where a rule asks for aal3, or says "
        "`user_verification`, it is always required.",
    )
    attestation: Literal["none", "listed"] = setting(
        "none", "`listed`: only models in `aaguids` are taken, shown by certificates that lead to one in `roots`."
    )
    aaguids: tuple[Annotated[str, AfterValidator(_aaguid)], ...] = setting((), "Models that are taken.")
    roots: PathField | None = setting(None, "PEM: the certificates of their makers.")
    backup_eligible: Literal["allow", "refuse"] = setting(
        "allow", "Keys that can be copied to other devices, as synced passkeys are. They never reach aal3."
    )

    @model_validator(mode="after")
    def _fits(self) -> WebAuthn:
        listed = self.attestation == "listed"
        if listed and not (self.aaguids and self.roots):
            raise ValueError("`attestation: listed` needs `aaguids`, and `roots` that vouch for them")
        if not listed and (self.aaguids or self.roots):
            raise ValueError("`aaguids` and `roots` count with `attestation: listed` only")
        return self


class SmsCodes(Strict):
    """Codes in text messages. NIST SP 800-63B-4 calls them restricted: offer something better beside them."""


def _knowingly(value: Any) -> Any:
    if value is not True:
        raise ValueError("write `counts_as_second_factor: true`, or leave `mfa.email` out")
    return value


class EmailCodes(Strict):
    """Codes in e-mails. NIST SP 800-63B-4 does not count them: a mailbox opens with a password."""

    counts_as_second_factor: Annotated[Literal[True], BeforeValidator(_knowingly)] = Field(
        description="`true`: that is known, and they count here nevertheless. It has to be written."
    )


class Require(Strict):
    """Whoever fits everything that is named must have a second factor."""

    groups: Texts | None = setting(None, "Groups; being in one is enough.")
    tenants: Texts | None = setting(None, "Tenants; without tenants of your own everybody is in `default`.")
    users: Users | None = setting(None, "User names.")
    factors: Texts | None = setting(None, "Factors that will do; left out: any but backup codes.")
    grace: Duration = setting(
        "0s", "How long they have to set one up, from when they are first seen.", ge=0, le=365 * 86400
    )

    @model_validator(mode="after")
    def _somebody(self) -> Require:
        if self.groups is None and self.tenants is None and self.users is None:
            raise ValueError("this is about nobody; name `groups`, `tenants` or `users`")
        return self

    @property
    def demand(self) -> Demand:
        """As factors want to know it."""
        from gateway.mfa.demands import Demand

        return Demand(
            groups=frozenset(self.groups or ()),
            tenants=frozenset(self.tenants or ()),
            users=frozenset(self.users or ()),
            factors=frozenset(self.factors or ()),
            grace=self.grace,
        )


class Mfa(Strict):
    """Second factors."""

    later: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("push",), "`totp`, `webauthn`, `sms`, `email` and `backup_codes` for now"
    )

    totp: Totp | None = setting({}, "Codes of an authenticator app; `null`: not offered.")
    webauthn: WebAuthn | None = setting(None, "Security keys and passkeys; left out: not offered.")
    sms: SmsCodes | None = setting(None, "Codes in text messages, over `notify.sms`; left out: not offered.")
    email: EmailCodes | None = setting(None, "Codes in e-mails, over `notify.email`; left out: not offered.")
    backup_codes: BackupCodes | None = setting({}, "Ten codes on paper; `null`: not offered.")
    trusted_devices: TrustedDevices | None = setting(
        None, "Browsers that people may trust, instead of a second factor, for rules that allow it; left out: none."
    )
    recovery: Recovery | None = setting(
        None,
        "A way back in by e-mail, to an address they have confirmed, for people who have lost every second factor; "
        "left out: none. Needs `notify`.",
    )
    order: tuple[Literal["webauthn", "totp", "sms", "email", "backup_code"], ...] = setting(
        (),
        "Which factor to ask for first, for who has several, has chosen none and used none; those left out follow: "
        "`webauthn`, `totp`, `sms`, `email`. Backup codes come last always.",
    )
    enrol_within: Duration = setting("5m", "How fresh a proof must be to set up or remove a factor.", gt=0, le=300)
    required_groups: Texts | tuple[()] = setting(
        ("admins",),
        "Administrators: they must have a second factor, and rules that let only them in ask for aal2.",
    )

    require: tuple[Require, ...] = setting(
        (), "Who else must have a second factor, and how long they have to set it up."
    )

    @model_validator(mode="after")
    def _can_be_had(self) -> Mfa:
        devices = [name for name in self.factors if name != "backup_code"]
        if self.require and not devices:
            raise ValueError("`require` demands second factors, but none that could be set up is configured")
        for one in self.require:
            for name in one.factors or ():
                if name not in devices:
                    raise ValueError(f"`require` demands `{name}`, which cannot be set up; use {', '.join(devices)}")
        return self

    @property
    def demands(self) -> tuple[Demand, ...]:
        """Of everybody, administrators first. Where nothing could be set up nobody can be told to."""
        from gateway.mfa.demands import Demand

        if all(name == "backup_code" for name in self.factors):
            return ()
        administrators = (Demand(groups=frozenset(self.required_groups)),) if self.required_groups else ()
        return (*administrators, *(one.demand for one in self.require))

    @property
    def factors(self) -> tuple[str, ...]:
        """Configured second factors, as policies name them."""
        offered = {
            "webauthn": self.webauthn,
            "totp": self.totp,
            "sms": self.sms,
            "email": self.email,
            "backup_code": self.backup_codes,
        }
        ranked = dict.fromkeys((*self.order, *offered))
        return tuple(name for name in ranked if offered[name] is not None)

    @property
    def trusted(self) -> float:
        """How long a browser can be trusted, in seconds; 0.0: none can."""
        return self.trusted_devices.lifetime if self.trusted_devices is not None else 0.0


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


SecretText = Annotated[Secret, WithJsonSchema({"type": "string"})]


class Smtp(Strict):
    """A mail server that takes our messages."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,255}$")] = Field(description="Host name or address.")
    port: int = setting(587, "Port; usually 587 for `starttls`, 465 for `tls`.", ge=1, le=65535)
    tls: Literal["starttls", "tls", "none"] = setting("starttls", "How it is encrypted; certificates are verified.")
    username: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")] = setting("", "Who we are there; empty: not asked.")
    password: SecretText | None = setting(None, "Our password there.")
    ca: PathField | None = setting(None, "Authorities to believe (PEM); left out: the system's.")
    timeout: Duration = setting("10s", "For each step.", gt=0, le=30)

    @model_validator(mode="after")
    def _whole(self) -> Smtp:
        if bool(self.username) != (self.password is not None):
            raise ValueError("`username` and `password` go together")
        if self.tls == "none" and self.username and not _loopback(self.host):
            raise ValueError("without TLS everybody on the way reads the password; write `tls: starttls` or `tls: tls`")
        if self.tls == "none" and self.ca is not None:
            raise ValueError("`ca` belongs to `tls: starttls` or `tls: tls`")
        return self


def _hook_url(value: Secret) -> Secret:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or "@" in parts.netloc:
        raise ValueError("not a URL of a webhook; write https://host/path")
    if parts.scheme == "http" and not _loopback(parts.hostname):
        raise ValueError("messages would travel in clear; write https://")
    return value


def _hook_secret(value: Secret) -> Secret:
    try:
        key = base64.b64decode(value.get_secret_value().removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError("not a secret of a webhook; write whsec_ and 24 to 64 random bytes in base64")
    return value


class Webhook(Strict):
    """A URL that takes our messages as JSON, signed (Standard Webhooks)."""

    url: Annotated[Secret, AfterValidator(_hook_url), WithJsonSchema({"type": "string"})] = Field(
        description="`https://host/path`; `http://` only to this machine."
    )
    secret: Annotated[Secret, AfterValidator(_hook_secret), WithJsonSchema({"type": "string"})] = Field(
        description="What both sides know: `whsec_` and 24 to 64 random bytes in base64."
    )
    callbacks: bool = setting(False, "Let it tell what became of each message, signed with the same secret.")
    ca: PathField | None = setting(None, "Authorities to believe (PEM); left out: the system's.")
    timeout: Duration = setting("10s", "For one message.", gt=0, le=30)

    @property
    def key(self) -> bytes:
        """The secret's bytes."""
        return base64.b64decode(self.secret.get_secret_value().removeprefix("whsec_"))


class Console(Strict):
    """Standard output, for trying it out."""


def _api_url(value: str) -> str:
    if value:
        _hook_url(Secret(value))
    return value


ApiUrl = Annotated[str, AfterValidator(_api_url)]
From = Annotated[str, Field(pattern=r"^(\+[1-9][0-9]{2,14}|[A-Za-z0-9 ._-]{1,34})$")]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
Region = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[a-z]+)+-[0-9]{1,2}$")]


class Twilio(Strict):
    """SMS by Twilio."""

    account: Word = Field(description="The account's SID, `AC…`.")
    token: SecretText | None = setting(None, "Its auth token; `callbacks` need it, for they are signed with it.")
    key: Annotated[str, Field(pattern=r"^(SK[0-9a-fA-F]{32})?$")] = setting(
        "", "SID of an API key, `SK…`, to send with instead: it can be taken back alone."
    )
    secret: SecretText | None = setting(None, "The secret of that key.")
    from_: From = Field(alias="from", description="A number, a name, or the SID of a messaging service, `MG…`.")
    callbacks: bool = setting(False, "Have it tell what became of each message; needs a `public_url` it can reach.")
    url: ApiUrl = setting("https://api.twilio.com", "Another endpoint, as of an edge or a region.")
    timeout: Duration = setting("10s", "For one message.", gt=0, le=30)

    @model_validator(mode="after")
    def _ways(self) -> Twilio:
        if bool(self.key) != (self.secret is not None):
            raise ValueError("`key` and `secret` go together")
        if self.token is None and not self.key:
            raise ValueError("write `token`, or `key` and `secret`")
        if self.token is None and self.callbacks:
            raise ValueError("`callbacks` are signed with the auth token: write `token` as well")
        return self


class Vonage(Strict):
    """SMS by Vonage (Messages API)."""

    key: Word = Field(description="The API's key.")
    secret: SecretText = Field(description="Its secret.")
    from_: From = Field(alias="from", description="A number or a name.")
    signature_secret: SecretText | None = setting(
        None, "The account's signature secret: have it tell what became of each message."
    )
    url: ApiUrl = setting("https://api.nexmo.com", "Another endpoint, as of a region.")
    timeout: Duration = setting("10s", "For one message.", gt=0, le=30)


class Aws(Strict):
    """Who we are at AWS."""

    region: Region = Field(description="As in `eu-central-1`.")
    access_key: Word | None = setting(None, "ID of an access key; left out, with the key: the role of this machine.")
    secret_key: SecretText | None = setting(None, "The key.")
    session_token: SecretText | None = setting(None, "For a key that does not last.")
    topic: Annotated[str, Field(pattern=r"^(arn:aws[a-z-]*:sns:[a-z0-9-]{6,32}:[0-9]{12}:[A-Za-z0-9_-]{1,256})?$")] = (
        setting("", "ARN of the topic that tells what became of each message; empty: it is not told.")
    )
    certificate: PathField | None = setting(None, "What the topic signs with (PEM); left out: fetched from Amazon.")
    url: ApiUrl = setting("", "Another endpoint than that of the region.")
    timeout: Duration = setting("10s", "For one message.", gt=0, le=30)

    @model_validator(mode="after")
    def _whole(self) -> Aws:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("`access_key` and `secret_key` go together; without both it is the role of this machine")
        if self.session_token is not None and self.access_key is None:
            raise ValueError("`session_token` belongs to an `access_key`")
        return self


class Sns(Aws):
    """SMS by Amazon SNS."""

    from_: Annotated[str, Field(pattern=r"^(|\+[1-9][0-9]{2,14}|[A-Za-z0-9 -]{1,11})$")] = setting(
        "", "A number of yours there, or a name; empty: theirs.", alias="from"
    )


class Ses(Aws):
    """E-mail by Amazon SES."""

    configuration_set: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = setting(
        "", "Configuration set whose events tell of bounces."
    )


class SmsSender(Strict):
    """Who carries SMS: one of these."""

    twilio: Twilio | None = setting(None, "Twilio.")
    vonage: Vonage | None = setting(None, "Vonage.")
    sns: Sns | None = setting(None, "Amazon SNS.")
    webhook: Webhook | None = setting(None, "A program of yours, or of a provider.")
    console: Console | None = setting(None, "Standard output: whoever reads it reads every code.")

    @model_validator(mode="after")
    def _one(self) -> SmsSender:
        if sum(each is not None for each in (self.twilio, self.vonage, self.sns, self.webhook, self.console)) != 1:
            raise ValueError("write exactly one of `twilio`, `vonage`, `sns`, `webhook` and `console`")
        return self


Prefix = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{0,14}$")]


class Numbers(Strict):
    """Which phone numbers are written to. Only mobile ones are, in any case."""

    region: Annotated[str, Field(pattern=r"^([A-Z]{2})?$")] = setting(
        "", "Country of numbers without one, as in `TR`; empty: they have to begin with `+`."
    )
    deny: tuple[Prefix, ...] = setting((), "Prefixes that are not written to, as in `+1900`.")
    allow: tuple[Prefix, ...] = setting((), "The only prefixes that are written to; empty: all.")


class EmailSender(Strict):
    """Who carries e-mail: one of these."""

    smtp: Smtp | None = setting(None, "A mail server.")
    ses: Ses | None = setting(None, "Amazon SES.")
    webhook: Webhook | None = setting(None, "A program of yours, or of a provider.")
    console: Console | None = setting(None, "Standard output: whoever reads it reads every message.")

    @model_validator(mode="after")
    def _one(self) -> EmailSender:
        if sum(each is not None for each in (self.smtp, self.ses, self.webhook, self.console)) != 1:
            raise ValueError("write exactly one of `smtp`, `ses`, `webhook` and `console`")
        return self


def _from(value: str) -> str:
    if value and not re.fullmatch(
        r"(?:[^<>@\",\x00-\x1f\x7f]{1,64} )?<[^\s@<>,]{1,64}@[^\s@<>,]{1,190}>|[^\s@<>,]{1,64}@[^\s@<>,]{1,190}", value
    ):
        raise ValueError("not one e-mail address; write name@host, or Name <name@host>")
    return value


class Notify(Strict):
    """How people are reached. They are told what happened to their account."""

    from_: Annotated[str, AfterValidator(_from)] = setting(
        "", "Who messages are from: `name@host`, or `Name <name@host>`.", alias="from"
    )
    email: tuple[EmailSender, ...] = setting((), "Who carries e-mail, the preferred first; empty: nobody is told.")
    sms: tuple[SmsSender, ...] = setting((), "Who carries SMS, the preferred first, as by cost; empty: nobody.")
    numbers: Numbers = setting({}, "Which phone numbers are written to.")
    per_address: int = setting(20, "Messages of one kind to one address within an hour.", ge=1, le=1000)
    per_user: int = setting(40, "Messages of one kind to one user within an hour.", ge=1, le=1000)

    @model_validator(mode="after")
    def _from_somebody(self) -> Notify:
        if not self.from_ and any(each.smtp is not None or each.ses is not None for each in self.email):
            raise ValueError("`smtp` and `ses` need `from`, as in `from: Sallyport <noreply@example.com>`")
        return self

    @property
    def senders(self) -> list[tuple[str, int, EmailSender | SmsSender]]:
        """All of them, each with its channel and its place in the list."""
        return [("email", *each) for each in enumerate(self.email)] + [("sms", *each) for each in enumerate(self.sms)]

    @property
    def channels(self) -> frozenset[str]:
        """Those that somebody carries: `email`, `sms`."""
        return frozenset(channel for channel in ("email", "sms") if getattr(self, channel))


class Pages(Strict):
    """Our own pages."""

    language: Literal["en", "tr"] = setting(
        "en", "What people are spoken to in who have chosen no language, and whose browser asks for none of ours."
    )


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
    stream: Duration = setting("1h", "Silence of an event stream, or of a WebSocket without pings.", gt=0)


class WebSocket(Strict):
    """Open sockets."""

    message: Size = setting("16M", "Largest message of a client, above it 1009; 0: any size.")
    ping: Duration = setting(
        "30s",
        "Silence of a client before it is asked whether it is there; as long again, and it is gone. 0: not asked.",
    )


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

    body: Size = setting(
        "1M", "Largest body kept, files and all; a larger one is not, and the page says so.", le=16 * 1024**2
    )


class Settings(Strict):
    """`config.yaml`."""

    later: ClassVar[Mapping[str, str]] = {"tenants": "one tenant for now"}

    listen: Annotated[
        tuple[ListenField, ...],
        BeforeValidator(lambda value: [value] if isinstance(value, str | dict) else value),
        Field(min_length=1),
        _OrOne(),
    ] = setting(
        ("127.0.0.1:8080",),
        "Where clients come in: `host:port`, `unix:/path`, or a mapping for TLS and more; a list for several.",
    )
    admin_listen: AdminField | None = setting(
        "127.0.0.1:9090", "`/metrics`, `/healthz`, `/readyz` and nothing else; `null`: nowhere."
    )
    public_url: Annotated[str, AfterValidator(_public_url)] = setting(
        "http://127.0.0.1:8080", "What browsers see; also the issuer of assertions."
    )
    trusted_proxies: Annotated[tuple[TrustedProxyField, ...], AfterValidator(_not_everybody_in_parts)] = setting(
        (),
        "Networks (CIDR) whose word on their clients is believed: PROXY protocol and `forwarded_header`; `unix`: "
        "whoever connects to a Unix socket; empty: nobody's.",
    )
    forwarded_header: Literal["x-forwarded", "forwarded"] = setting(
        "x-forwarded",
        "What trusted proxies write: `x-forwarded` for X-Forwarded-For and -Proto, `forwarded` for Forwarded (RFC "
        "7239). The other is never read.",
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = setting(
        "/.sallyport/", "Where our own pages and API are, on every host."
    )
    upstreams: dict[Name, Upstream] = Field(min_length=1, description="Name → a service behind the gate.")
    policies: PathField = setting(Path("policies/"), "A folder of policy files, or one file.")
    store: Store = setting({}, "Where things are kept.")
    workers: int = setting(
        1, "Processes that share the listeners, one for each core; more than 1 needs stores to share.", ge=1, le=256
    )
    keys: PathField = setting(Path("data/keys"), "Folder of our keys; made on first start.")
    control: PathField | None = setting(
        None,
        "Folder of the sockets on which `sallyport limit` asks a gateway that runs; left out: `control` beside `keys`, "
        "where records are kept.",
    )
    identity: IdentitySources = setting({}, "Who knows the users.")
    sessions: SessionTimes = setting({}, "How long somebody stays signed in.")
    notify: Notify = setting({}, "How people are reached.")
    mfa: Mfa = setting({}, "Second factors.")
    pages: Pages = setting({}, "Our own pages.")
    risk: RiskSettings = setting({}, "How strange a request is.")
    headers: Headers = setting({}, "What the service is told.")
    request: RequestLimits = setting({}, "How large a request may be.")
    timeouts: Timeouts = setting({}, "How long to wait for a client.")
    websocket: WebSocket = setting({}, "Open sockets.")
    interrupted: Interrupted = setting({}, "Requests kept while somebody proves who they are.")
    log: Log = setting({}, "What is written down.")
    drain: Drain = setting({}, "How the gateway stops.")
    connections: Connections = setting({}, "How much may be going on at once.")

    @field_validator("workers")
    @classmethod
    def _shared_by_workers(cls, value: int, info: ValidationInfo) -> int:
        store, listen = info.data.get("store"), info.data.get("listen", ())
        if value > 1 and store is not None and store.shared == "memory":
            raise ValueError(
                f"{value} workers would each count by themselves, and let {value} times as much in, with "
                "`store.shared: memory`; write 1, or the URL of a Redis, or `store: {records: none, shared: none}` "
                "where nobody signs in and nothing is limited"
            )
        if value > 1 and any(each.address.port == 0 and each.address.host for each in listen):
            raise ValueError("workers cannot share port 0; write the number of a port in `listen`")
        return value

    @field_validator("identity", "sessions", "mfa", "notify", "risk", "interrupted", mode="before")
    @classmethod
    def _needs_records(cls, value: Any, info: ValidationInfo) -> Any:
        """Refused where no records are kept: settings about people whom nobody could know."""
        store = info.data.get("store")
        if store is not None and store.records is None and value != {}:
            raise ValueError("this is about people who sign in; remove it, or keep `store.records`")
        return value

    @field_validator("mfa")
    @classmethod
    def _letters_of_recovery(cls, value: Mfa, info: ValidationInfo) -> Mfa:
        notify = info.data.get("notify")
        if notify is not None and value.recovery is not None and not notify.email:
            raise ValueError("`mfa.recovery` sends letters; say in `notify.email` who carries them")
        return value

    @field_validator("mfa")
    @classmethod
    def _where_keys_work(cls, value: Mfa, info: ValidationInfo) -> Mfa:
        """Browsers bind a key to a name, and let only pages that nobody can forge on the way ask for it."""
        url = info.data.get("public_url")
        if value.webauthn is None or url is None:
            return value
        parts = urlsplit(url)
        host = parts.hostname or ""
        if host != "localhost" and not host.endswith(".localhost"):
            if _is_address(host):
                raise ValueError(
                    f"`webauthn` needs a `public_url` with a name, for browsers bind keys to names, not to `{host}`; "
                    "http://localhost will do on one's own machine"
                )
            if parts.scheme != "https":
                raise ValueError("`webauthn` needs a `public_url` that begins with https://, or browsers offer no keys")
            if not host.isascii():
                raise ValueError(f"`webauthn` needs the name in `public_url` as browsers write it: {_punycode(host)}")
        return value

    @field_validator("mfa")
    @classmethod
    def _carried(cls, value: Mfa, info: ValidationInfo) -> Mfa:
        """Codes that are sent need somebody who carries them."""
        notify = info.data.get("notify")
        for channel in ("sms", "email"):
            if notify is not None and getattr(value, channel) is not None and channel not in notify.channels:
                raise ValueError(f"nobody carries the codes of `{channel}`; name a sender in `notify.{channel}`")
        return value

    _warnings: tuple[Problem, ...] = PrivateAttr(())

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What is allowed, and still worth a second thought."""
        return self._warnings

    @property
    def control_folder(self) -> Path | None:
        """Where a gateway that runs can be asked, if anywhere."""
        if self.control is None and self.store.keeps_records:
            return self.keys.parent / "control"
        return self.control

    @property
    def scheme(self) -> str:
        """`http` or `https`, as browsers see us."""
        return urlsplit(self.public_url).scheme

    @property
    def origin(self) -> str:
        """`public_url` as browsers write it in `Origin`: without the port that goes without saying."""
        parts = urlsplit(self.public_url)
        usual = {"http": 80, "https": 443}[parts.scheme]
        return f"{parts.scheme}://{parts.netloc.removesuffix(f':{usual}').removesuffix(':')}"


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
    read = problems.validate(Settings, written, {"folder": path.parent})
    read._warnings = (
        tuple(
            written.problem(
                f"{proxy} is everybody: whoever connects can choose their own address",
                ("trusted_proxies", index),
                "name the networks of your proxies",
            )
            for index, proxy in enumerate(read.trusted_proxies)
            if proxy != "unix" and proxy.prefixlen == 0
        )
        + tuple(
            written.problem(
                f"the certificate of `{name}` is not verified: anybody on the way can pretend to be it",
                ("upstreams", name, "tls", "verify"),
                "name its authority as `ca`",
            )
            for name, upstream in read.upstreams.items()
            if upstream.tls is not None and upstream.tls.verify == "insecure"
        )
        + tuple(
            written.problem(
                "messages go to standard output: whoever reads it reads all of them",
                ("notify", channel, index),
                "use another sender outside of a trial",
            )
            for channel, index, sender in read.notify.senders
            if sender.console is not None
        )
        + tuple(
            written.problem(
                "messages travel in clear: anybody on the way can read and change them",
                ("notify", "email", index, "smtp"),
                "write tls: starttls",
            )
            for index, sender in enumerate(read.notify.email)
            if sender.smtp is not None and sender.smtp.tls == "none" and not _loopback(sender.smtp.host)
        )
        + tuple(
            written.problem(
                "records travel in clear: anybody on the way can read and change them",
                ("store", "records"),
                "name the authority of the server's certificate as `ca`, or write ?sslmode=verify-full",
            )
            for records in (read.store.records,)
            if records is not None and records.place.in_clear
        )
    )
    return read
