"""The keys of a machine's role at AWS, which do not last: asked for where AWS gives them out, again before they end.

Where, the environment says, as for AWS's own SDKs
(https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html):

    AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN     STS, for a token of Kubernetes (EKS, IRSA)
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI        ECS, at 169.254.170.2
    AWS_CONTAINER_CREDENTIALS_FULL_URI            EKS Pod Identity, or an agent of one's own; with a token, mostly of a
                                                  file (AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)
    none of them                                  EC2, by IMDSv2; version 1 is never spoken

Tokens are read from their files each time: they are replaced. They, and keys, go only where AWS documents that they do:
to this machine (`NEAR`), or by TLS to STS. Wherever a URL leads, no redirect is followed and no proxy asked. Whatever
does not come, or is not what it should be, is a message that waits; it is never told what was said.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import orjson

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, SallyportError, Undelivered
from gateway.notify.fetched import fetched
from gateway.notify.sigv4 import AwsKeys

EARLY: Final = 300.0
"""Seconds before their end that new ones are asked for; AWS has them by then."""
REST: Final = 30.0
"""Seconds between two questions, whatever the answer was."""
ECS: Final = "http://169.254.170.2"
IMDS: Final = "http://169.254.169.254"
NEAR: Final = ("127.0.0.0/8", "::1/128", "169.254.170.2/32", "169.254.170.23/32", "fd00:ec2::23/128")
"""Where keys of a container are given out."""
NEAR_MACHINE: Final = ("127.0.0.0/8", "::1/128", "169.254.169.254/32", "fd00:ec2::254/128")
"""Where those of a machine are."""
_WORD: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_LINES: Final = re.compile(r"[\w+=,.@-]{1,128}")

_log = logging.getLogger("sallyport.notify")


class _Nothing(SallyportError):  # noqa: N818 - it says what came
    """No keys came; `str()` says why, without a word of an answer."""


@dataclass(frozen=True, slots=True)
class Given:
    """Keys, and how long they last."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires_at: float
    """Seconds since the epoch."""


class AwsRole:
    """Who we are at AWS where nobody wrote down keys; stands in the place of `AwsKeys`."""

    def __init__(self, region: str, service: str, clock: Clock, environ: Mapping[str, str]) -> None:
        """Raises `ConfigError` where the environment leads somewhere that AWS does not document."""
        self.region = region
        self._service = service
        self._clock = clock
        self._ask = _source(environ, region)
        self._given: Given | None = None
        self._ask_at = float("-inf")
        self._asking = asyncio.Lock()

    async def current(self) -> AwsKeys:
        """Keys that last. Raises `Undelivered` where there are none."""
        if self._clock.now() >= self._ask_at:
            async with self._asking:
                if self._clock.now() >= self._ask_at:
                    await self._renew()
        given, now = self._given, self._clock.now()
        if given is None or given.expires_at <= now:
            raise Undelivered("no keys of a role")
        return AwsKeys(given.access_key, given.secret_key, self.region, self._service, given.session_token)

    async def _renew(self) -> None:
        try:
            self._given = await self._ask()
        except _Nothing as error:
            _log.error("no keys of this machine's role at AWS: %s", error)
            self._ask_at = self._clock.now() + REST
            return
        self._ask_at = max(self._given.expires_at - EARLY, self._clock.now() + REST)


def _source(environ: Mapping[str, str], region: str) -> Callable[[], Awaitable[Given]]:
    """How keys are asked for here."""
    said = environ.get
    if (token := said("AWS_WEB_IDENTITY_TOKEN_FILE", "")) and (role := said("AWS_ROLE_ARN", "")):
        name = said("AWS_ROLE_SESSION_NAME", "") or "sallyport"
        ends = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        url = said("AWS_ENDPOINT_URL_STS", "") or f"https://sts.{region}.{ends}"
        if urlsplit(url).scheme != "https":
            _demand_near(url, "AWS_ENDPOINT_URL_STS", NEAR)
        return lambda: _web_identity(url, role, name, Path(token))
    if path := said("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ""):
        if not path.startswith("/"):
            raise ConfigError("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is a path, which begins with /")
        return _container(ECS + path, environ)
    if url := said("AWS_CONTAINER_CREDENTIALS_FULL_URI", ""):
        _demand_near(url, "AWS_CONTAINER_CREDENTIALS_FULL_URI", NEAR)
        return _container(url, environ)
    machine = said("AWS_EC2_METADATA_SERVICE_ENDPOINT", "") or IMDS
    _demand_near(machine, "AWS_EC2_METADATA_SERVICE_ENDPOINT", NEAR_MACHINE)
    if said("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise ConfigError(
            "this machine has no role at AWS that could be used", "write `access_key` and `secret_key`, or give it one"
        )
    return lambda: _machine(machine.rstrip("/"))


def _demand_near(url: str, name: str, where: tuple[str, ...]) -> None:
    """Raises `ConfigError` for a URL that leads anywhere but to `where`."""
    parts = urlsplit(url)
    try:
        address = ipaddress.ip_address("127.0.0.1" if parts.hostname == "localhost" else parts.hostname or "")
        near = any(address in ipaddress.ip_network(one) for one in where) and parts.username is None
    except ValueError:
        near = False
    if not near or parts.scheme not in ("http", "https"):
        raise ConfigError(f"{name} leads somewhere else than to this machine", "keys are asked for nowhere else")


async def _web_identity(url: str, role: str, name: str, token: Path) -> Given:
    """`AssumeRoleWithWebIdentity` (https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html)."""
    form = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": role,
        "RoleSessionName": name,
        "WebIdentityToken": _read(token),
    }
    kind = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    body = (await _asked("POST", url, kind, urlencode(form).encode())).decode(errors="replace")
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    found = {each: re.search(rf"<{each}>\s*([^<\s]+)\s*</{each}>", body) for each in names}
    return _given({each: match[1] for each, match in found.items() if match is not None}, session="SessionToken")


def _container(url: str, environ: Mapping[str, str]) -> Callable[[], Awaitable[Given]]:
    """ECS, EKS Pod Identity (https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html)."""

    async def ask() -> Given:
        token = environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
        if file := environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", ""):
            token = _read(Path(file))
        if token and not _WORD.fullmatch(token):
            raise _Nothing("the token for them is not one word")
        return _given(_object(await _asked("GET", url, {"Authorization": token} if token else {})))

    return ask


async def _machine(base: str) -> Given:
    """IMDSv2 (https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html)."""
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    token = (await _asked("PUT", f"{base}/latest/api/token", ttl)).decode(errors="replace")
    if not _WORD.fullmatch(token):
        raise _Nothing("its metadata service gives no token")
    mine = {"X-aws-ec2-metadata-token": token}
    url = f"{base}/latest/meta-data/iam/security-credentials/"
    role = (await _asked("GET", url, mine)).decode(errors="replace").partition("\n")[0].strip()
    if not _LINES.fullmatch(role):
        raise _Nothing("it has no role")
    return _given(_object(await _asked("GET", url + role, mine)))


async def _asked(method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> bytes:
    """What is answered with 200. Raises `_Nothing`."""
    try:
        return await fetched(url, method=method, headers=headers, body=body)
    except OSError as error:
        raise _Nothing(str(error)) from None


def _read(file: Path) -> str:
    """The token in `file`. Raises `_Nothing`."""
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise _Nothing(f"its token cannot be read: {type(error).__name__}") from None


def _object(text: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {}


def _given(said: Mapping[str, Any], *, session: str = "Token") -> Given:
    """The keys in an answer. Raises `_Nothing` where one is missing, or is no word."""
    words = [str(said.get(name, "")) for name in ("AccessKeyId", "SecretAccessKey", session)]
    if not all(_WORD.fullmatch(word) for word in words):
        raise _Nothing("no keys were answered")
    try:
        ends = datetime.fromisoformat(str(said.get("Expiration", "")))
    except ValueError:
        raise _Nothing("keys were answered that do not say until when") from None
    if ends.tzinfo is None:
        raise _Nothing("keys were answered that do not say until when")
    return Given(words[0], words[1], words[2], ends.timestamp())
