"""A credential as a browser sends it: JSON (section 5.1, `toJSON`), every binary member in strict base64url."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.core.errors import NotProven
from gateway.core.strict_json import loads
from gateway.mfa.webauthn.base64url import decode

SIZE = 48 * 1024
"""Characters of JSON; a chain of certificates takes some 6,000."""
LONGEST_ID = 1023
"""Bytes (section 7.1, step 26)."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What came."""

    credential: bytes
    """The credential's id."""
    client_data: bytes
    response: Mapping[str, Any]
    value: Mapping[str, Any]
    """All of it, for the library."""

    def binary(self, name: str) -> bytes:
        """The binary member `name` of the response. Raises `NotProven`."""
        return _binary(self.response, name)


def read(text: str) -> Sent:
    """The credential in `text`. Raises `NotProven` for anything else."""
    if len(text) > SIZE:
        raise NotProven("malformed")
    try:
        value = loads(text)
    except ValueError as error:
        raise NotProven("malformed") from error
    if not isinstance(value, dict) or value.get("type") != "public-key" or value.get("id") != value.get("rawId"):
        raise NotProven("malformed")
    response = value.get("response")
    if not isinstance(response, dict):
        raise NotProven("malformed")
    credential = _binary(value, "id")
    if not 1 <= len(credential) <= LONGEST_ID:
        raise NotProven("credential_id")
    return Sent(credential, _binary(response, "clientDataJSON"), response, value)


def _binary(members: Mapping[str, Any], name: str) -> bytes:
    text = members.get(name)
    if not isinstance(text, str):
        raise NotProven("malformed")
    try:
        return decode(text)
    except ValueError as error:
        raise NotProven("malformed") from error
