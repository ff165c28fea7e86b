"""Test vectors of the specification (Web Authentication Level 3, section 16): made by others, read by our own code.

The rig's authenticator and the gateway could be wrong in the same way; these cannot. In `vectors.json` are all of them
but 16.12, Ed448, which we do not offer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from webauthn.helpers import parse_attestation_object

from gateway.core.errors import NotProven
from gateway.mfa.webauthn import assertion, credential, registration
from gateway.mfa.webauthn.key import Key
from gateway.mfa.webauthn.relying_party import RelyingParty
from tests.rig.authenticator import b64

US = RelyingParty("Example", "https://example.org")

_FILE = orjson.loads((Path(__file__).parent / "vectors.json").read_bytes())
VECTORS: dict[str, dict[str, dict[str, str]]] = _FILE["vectors"]
"""By section: what `register` and `answer` are, each member in hexadecimal."""
ROOT = x509.load_der_x509_certificate(bytes.fromhex(_FILE["root"])).public_bytes(Encoding.PEM)
"""16.1: who made the keys that say who made them."""

NONE, NONE_ANSWER = VECTORS["16.2"]["register"], VECTORS["16.2"]["answer"]
SELF = VECTORS["16.3"]["register"]
GOOD = {
    "16.2": ("8446ccb9-ab1d-b374-750b-2367ff6f3a1f", True, True, assertion.Answered(0, True, False)),
    "16.3": ("df850e09-db6a-fbdf-ab51-697791506cfc", True, True, assertion.Answered(0, False, False)),
    "16.6": ("8f3360c2-cd1b-0ac1-4ffe-0795c5d2638e", True, False, assertion.Answered(0, False, True)),
    "16.7": ("876ca4f5-2071-c3e9-b255-09ef2cdf7ed6", True, False, assertion.Answered(0, False, True)),
    "16.10": ("428f8878-298b-9862-a36a-d8c7527bfef2", True, True, assertion.Answered(0, True, False)),
    "16.11": ("d5aa3358-1e8c-a478-e20f-e713f5d32ff2", False, False, assertion.Answered(0, False, False)),
}
"""ES256 without attestation, attested by itself, with an id of 1023 bytes, attested by its maker; RS256; Ed25519. By
section: the model, whether it can be copied, whether it was, what its answer says."""
VOUCHED = ("16.7", "16.10", "16.11")
REFUSED = {
    "16.4": "cross_origin",
    "16.5": "cross_origin",
    "16.8": "algorithm",  # ES384
    "16.9": "algorithm",  # ES512
    "16.13": "statement",  # tpm: of no maker that there is
    "16.14": "statement",  # android-key: not made up as Android does
    "16.15": "statement",  # apple: not from Apple
    "16.16": "statement",  # fido-u2f: such keys have no model, and this one says one
}


def sent(vector: dict[str, str]) -> credential.Sent:
    """As a browser would send it."""
    raw = b64(bytes.fromhex(vector["credential"]))
    response = {
        name: b64(bytes.fromhex(value)) for name, value in vector.items() if name not in ("challenge", "credential")
    }
    return credential.read(
        orjson.dumps({"id": raw, "rawId": raw, "type": "public-key", "response": response}).decode()
    )  # fmt: skip


def register(vector: dict[str, str], us: RelyingParty = US, **other: str) -> Key:
    vector = {**vector, **other}
    return registration.verify(sent(vector), us, challenge=bytes.fromhex(vector["challenge"]))


def answer(vector: dict[str, str], key: Key, us: RelyingParty = US, **other: Any) -> assertion.Answered:
    vector = {**vector, **other}
    challenge = bytes.fromhex(vector["challenge"])
    return assertion.verify(sent(vector), key, us, challenge=challenge, verified=False, handle=b"")


def test_every_section_is_one_or_the_other() -> None:
    assert sorted([*GOOD, *REFUSED]) == sorted(VECTORS)


@pytest.mark.parametrize("section", GOOD)
def test_what_we_take_is_set_up_and_answers(section: str) -> None:
    model, can_be_copied, copied, said = GOOD[section]
    key = register(VECTORS[section]["register"])
    assert key.credential.hex() == VECTORS[section]["register"]["credential"]
    assert (key.aaguid, key.backup_eligible, key.backed_up) == (model, can_be_copied, copied)
    assert (key.count, key.attested) == (0, False)
    assert answer(VECTORS[section]["answer"], key) == said


@pytest.mark.parametrize("section", REFUSED)
def test_what_we_do_not_take_is_refused(section: str) -> None:
    with pytest.raises(NotProven) as refused:
        register(VECTORS[section]["register"])
    assert refused.value.why == REFUSED[section]


@pytest.mark.parametrize("section", VOUCHED)
def test_a_maker_vouches_for_a_model(section: str) -> None:
    model = GOOD[section][0]
    listed = replace(US, aaguids=frozenset({model}), roots=(ROOT,))
    assert register(VECTORS[section]["register"], listed).attested
    for other, why in (
        (replace(listed, roots=()), "attestation"),
        (replace(listed, roots=(_another_root(),)), "attestation"),
        (replace(listed, aaguids=frozenset({GOOD["16.2"][0]})), "aaguid"),
    ):
        with pytest.raises(NotProven) as refused:
            register(VECTORS[section]["register"], other)
        assert refused.value.why == why


@pytest.mark.parametrize("section", sorted({*VECTORS} - {*VOUCHED}))
def test_where_models_are_listed_nobody_else_vouches_for_one(section: str) -> None:
    """Not the key itself, and no platform: that it is genuine does not make the model beside it true."""
    vector = VECTORS[section]["register"]
    said = parse_attestation_object(bytes.fromhex(vector["attestationObject"])).auth_data.attested_credential_data
    assert said is not None
    listed = replace(US, aaguids=frozenset({str(UUID(bytes=said.aaguid))}), roots=(ROOT,))
    with pytest.raises(NotProven) as refused:
        register(vector, listed)
    assert refused.value.why == (
        "attestation" if REFUSED.get(section, "statement") == "statement" else REFUSED[section]
    )


@pytest.mark.parametrize(
    ("why", "us", "other"),
    [
        ("challenge", US, {"challenge": NONE_ANSWER["challenge"]}),
        ("origin", replace(US, origin="https://example.com"), {}),
        ("user_verification", replace(US, user_verification="required"), {}),
        ("backup_eligible", replace(US, backup_eligible=False), {}),
        ("credential_id", US, {"credential": SELF["credential"]}),
        ("type", US, {"clientDataJSON": NONE_ANSWER["clientDataJSON"]}),
    ],
)
def test_the_vector_in_a_wrong_place_is_none(why: str, us: RelyingParty, other: dict[str, str]) -> None:
    with pytest.raises(NotProven) as refused:
        register(NONE, us, **other)
    assert refused.value.why == why


@pytest.mark.parametrize("name", ["authenticatorData", "clientDataJSON", "signature"])
@pytest.mark.parametrize("section", ["16.2", "16.10", "16.11"])
def test_any_bit_of_an_answer_counts(section: str, name: str) -> None:
    key, vector = register(VECTORS[section]["register"]), VECTORS[section]["answer"]
    right = bytes.fromhex(vector[name])
    for index in range(len(right)):
        wrong = right[:index] + bytes([right[index] ^ 1]) + right[index + 1 :]
        with pytest.raises(NotProven):
            answer(vector, key, **{name: wrong.hex()})


def test_an_answer_to_another_key_is_none() -> None:
    other = replace(register(SELF), credential=register(NONE).credential)
    with pytest.raises(NotProven, match="signature"):
        answer(NONE_ANSWER, other)


def _another_root() -> bytes:
    """Of the same name, and with another key."""
    key, was = ec.generate_private_key(ec.SECP256R1()), x509.load_pem_x509_certificate(ROOT)
    begin, end = was.not_valid_before_utc, was.not_valid_after_utc
    made = x509.CertificateBuilder(
        was.subject, was.subject, key.public_key(), was.serial_number, begin, end, list(was.extensions)
    )
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)
