"""A new key: the steps of section 7.1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from webauthn import verify_registration_response
from webauthn.helpers import parse_authenticator_data
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.decode_credential_public_key import decode_credential_public_key
from webauthn.helpers.decoded_public_key_to_cryptography import decoded_public_key_to_cryptography
from webauthn.helpers.structs import AttestationFormat

from gateway.core.errors import NotProven
from gateway.mfa.webauthn import attestation, client_data
from gateway.mfa.webauthn.assertion import check_flags
from gateway.mfa.webauthn.credential import LONGEST_ID, Sent
from gateway.mfa.webauthn.key import Key
from gateway.mfa.webauthn.relying_party import ALGORITHMS, RelyingParty

SHORTEST_RSA = 2048
"""Bits (NIST SP 800-131A)."""
TRANSPORTS = frozenset({"usb", "nfc", "ble", "smart-card", "hybrid", "internal"})


def verify(sent: Sent, us: RelyingParty, *, challenge: bytes) -> Key:
    """The key that answers `challenge`. Raises `NotProven`, also for a key that the operator does not take."""
    client_data.check(sent.client_data, kind="webauthn.create", challenge=challenge, origin=us.origin)
    said, data = _parsed(sent.binary("attestationObject"))
    check_flags(
        data.rp_id_hash,
        us,
        present=data.flags.up,
        verified=data.flags.uv or us.user_verification != "required",
    )
    if data.flags.bs and not data.flags.be:
        raise NotProven("backup_state")
    made = data.attested_credential_data
    if made is None or made.credential_id != sent.credential or not 1 <= len(made.credential_id) <= LONGEST_ID:
        raise NotProven("credential_id")
    if len(made.aaguid) != 16:
        raise NotProven("malformed")
    _check_key(made.credential_public_key)
    if data.flags.be and not us.backup_eligible:
        raise NotProven("backup_eligible")
    listed = us.aaguids is not None
    if listed and not us.roots:
        raise NotProven("attestation")  # to the library no root is as good as every root
    try:
        found = verify_registration_response(
            credential=dict(sent.value),
            expected_challenge=challenge,
            expected_rp_id=us.id,
            expected_origin=us.origin,
            require_user_verification=us.user_verification == "required",
            supported_pub_key_algs=[COSEAlgorithmIdentifier(each) for each in ALGORITHMS],
            pem_root_certs_bytes_by_fmt={AttestationFormat.PACKED: list(us.roots)} if listed else None,
        )
    except Exception as error:  # whatever hostile bytes make the library raise
        raise NotProven("attestation" if listed else "statement") from error
    if listed:
        attestation.check(said["fmt"], said["attStmt"].get("x5c"), found.aaguid)
        if found.aaguid not in (us.aaguids or ()):
            raise NotProven("aaguid")
    return Key(
        made.credential_id,
        made.credential_public_key,
        data.sign_count,
        data.flags.be,
        data.flags.bs,
        found.aaguid,
        attested=listed,
        transports=_transports(sent.response.get("transports")),
    )


def _parsed(attestation_object: bytes) -> tuple[dict[str, Any], Any]:
    """The attestation object and its authenticator data; nothing may follow either."""
    try:
        stream = BytesIO(attestation_object)
        said = cbor2.CBORDecoder(stream, allow_duplicate_keys=False).decode()
        if stream.tell() != len(attestation_object) or not isinstance(said["attStmt"], dict):
            raise NotProven("malformed")
        return said, parse_authenticator_data(said["authData"])
    except NotProven:
        raise
    except Exception as error:
        raise NotProven("malformed") from error


def _check_key(public_key: bytes) -> None:
    """Raises `NotProven` unless the key is of an algorithm that is offered, and of the kind and curve that belong to it
    (section 5.8.5). Nothing has been signed with it yet, so one that could never verify anything would be set up."""
    try:
        said = decode_credential_public_key(public_key)
        key = decoded_public_key_to_cryptography(said)
        fits = said.alg in ALGORITHMS and _KINDS[said.alg](key)
    except Exception as error:  # whatever a hostile key makes of it
        raise NotProven("algorithm") from error
    if not fits:
        raise NotProven("algorithm")


_KINDS: Mapping[int, Callable[[object], bool]] = {
    -7: lambda key: isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1),
    -8: lambda key: isinstance(key, Ed25519PublicKey),
    -257: lambda key: isinstance(key, RSAPublicKey) and key.key_size >= SHORTEST_RSA,
}


def _transports(given: Any) -> tuple[str, ...]:
    """Those we know; browsers are asked to keep the rest for themselves."""
    if not isinstance(given, list):
        return ()
    return tuple(sorted({each for each in given if isinstance(each, str)} & TRANSPORTS))
