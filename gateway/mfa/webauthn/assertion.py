"""An answer: the steps of section 7.2 that follow once the key is known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from webauthn import verify_authentication_response
from webauthn.helpers import parse_authenticator_data

from gateway.core.errors import NotProven
from gateway.mfa.webauthn import client_data
from gateway.mfa.webauthn.base64url import decode
from gateway.mfa.webauthn.credential import Sent
from gateway.mfa.webauthn.key import Key
from gateway.mfa.webauthn.relying_party import RelyingParty


@dataclass(frozen=True, slots=True)
class Answered:
    """What the key has said of itself, signed."""

    count: int
    backed_up: bool
    verified: bool
    """Whether the device knew its user."""


def verify(sent: Sent, key: Key, us: RelyingParty, *, challenge: bytes, verified: bool, handle: bytes) -> Answered:
    """What `key` has answered to `challenge`. Raises `NotProven`.

    `verified`: whether the device had to know its user. `handle` is the user's. The counter is the caller's to compare,
    where it is written in the same step.
    """
    given = sent.response.get("userHandle")
    if given is not None:
        try:
            same = isinstance(given, str) and (given == "" or decode(given) == handle)
        except ValueError:
            same = False
        if not same:
            raise NotProven("user_handle")
    client_data.check(sent.client_data, kind="webauthn.get", challenge=challenge, origin=us.origin)
    try:
        data = parse_authenticator_data(sent.binary("authenticatorData"))
    except NotProven:
        raise
    except Exception as error:  # whatever hostile bytes make the parser raise
        raise NotProven("malformed") from error
    check_flags(data.rp_id_hash, us, present=data.flags.up, verified=data.flags.uv or not verified)
    if data.flags.bs and not data.flags.be:
        raise NotProven("backup_state")
    if data.flags.be != key.backup_eligible:
        raise NotProven("backup_eligible")
    try:
        verify_authentication_response(
            credential=dict(sent.value),
            expected_challenge=challenge,
            expected_rp_id=us.id,
            expected_origin=us.origin,
            credential_public_key=key.public_key,
            credential_current_sign_count=0,
            require_user_verification=verified,
        )
    except Exception as error:  # as above; what cannot be verified proves nothing
        raise NotProven("signature") from error
    return Answered(data.sign_count, data.flags.bs, data.flags.uv)


def check_flags(rp_id_hash: bytes, us: RelyingParty, *, present: bool, verified: bool) -> None:
    """Raises `NotProven` unless it is for us, somebody was there, and known where that is asked."""
    if rp_id_hash != hashlib.sha256(us.id.encode()).digest():
        raise NotProven("rp_id")
    if not present:
        raise NotProven("user_presence")
    if not verified:
        raise NotProven("user_verification")
