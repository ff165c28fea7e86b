"""AWS Signature Version 4 of one request
(https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html), tested with the vectors AWS publishes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol
from urllib.parse import parse_qsl, quote, urlsplit

_SCHEME: Final = "AWS4-HMAC-SHA256"
_UNRESERVED: Final = "-_.~"


class Keys(Protocol):
    """Whoever has keys: `AwsKeys`, or `aws_role.AwsRole`."""

    @property
    def region(self) -> str:
        """Where they are used."""
        ...

    async def current(self) -> AwsKeys:
        """Those to sign with now. Raises `Undelivered` where there are none."""
        ...


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """Who we are at AWS, and where."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str
    service: str
    session_token: str = field(default="", repr=False)

    async def current(self) -> AwsKeys:
        """They stay as they are."""
        return self


def signed(
    keys: AwsKeys, method: str, url: str, headers: Mapping[str, str], body: bytes, now: float
) -> Mapping[str, str]:
    """`headers`, with `Host`, `X-Amz-Date` and `Authorization`; names in lower case. `now`: seconds since the epoch."""
    parts = urlsplit(url)
    at = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    all_of_them = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    all_of_them |= {"host": parts.netloc, "x-amz-date": at}
    if keys.session_token:
        all_of_them["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(all_of_them))
    query = sorted(
        (quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED))
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    canonical = "\n".join(
        (
            method,
            quote(parts.path or "/", safe="/" + _UNRESERVED),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{all_of_them[name]}" for name in sorted(all_of_them)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{at[:8]}/{keys.region}/{keys.service}/aws4_request"
    to_sign = "\n".join((_SCHEME, at, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    key = b"AWS4" + keys.secret_key.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    credential = f"Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**all_of_them, "authorization": f"{_SCHEME} {credential}"}
