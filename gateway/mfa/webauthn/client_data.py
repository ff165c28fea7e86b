"""What the browser says it did: `clientDataJSON` (section 5.8.1), compared text against text.

The key has signed a hash of these bytes, so what stands here is what the browser wrote. Only a page of ours, in a
window of its own, can have asked: a frame within another site's page could make somebody touch their key for it.
"""

from __future__ import annotations

import hmac
import json
from typing import Any

from gateway.core.errors import NotProven
from gateway.core.strict_json import each_once
from gateway.mfa.webauthn.base64url import encode

SIZE = 4096
"""Bytes; browsers write some 150."""


def check(client_data: bytes, *, kind: str, challenge: bytes, origin: str) -> None:
    """Raises `NotProven` unless these bytes speak of `kind` (`webauthn.get` …), of `challenge` and of `origin`."""
    said = _read(client_data)
    if said.get("type") != kind:
        raise NotProven("type")
    given = said.get("challenge")
    if not isinstance(given, str) or not hmac.compare_digest(
        given.encode("utf-8", "replace"), encode(challenge).encode()
    ):
        raise NotProven("challenge")
    if said.get("origin") != origin:
        raise NotProven("origin")
    if said.get("crossOrigin", False) is not False or "topOrigin" in said:
        raise NotProven("cross_origin")


def _read(client_data: bytes) -> dict[str, Any]:
    if len(client_data) > SIZE:
        raise NotProven("malformed")
    try:
        said = json.loads(client_data.decode("utf-8-sig"), object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise NotProven("malformed") from error
    if not isinstance(said, dict):
        raise NotProven("malformed")
    return said
