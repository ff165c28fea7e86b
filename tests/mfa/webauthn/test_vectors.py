"""Test vectors of the specification (Web Authentication Level 3, section 16): made by others, read by our own code.

The rig's authenticator and the gateway could be wrong in the same way; these cannot.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from gateway.core.errors import NotProven
from gateway.mfa.webauthn import assertion, credential, registration
from gateway.mfa.webauthn.key import Key
from gateway.mfa.webauthn.relying_party import RelyingParty
from tests.rig.authenticator import b64

US = RelyingParty("Example", "https://example.org")

# 16.2, ES256 with no attestation
NONE = {
    "challenge": "00c30fb78531c464d2b6771dab8d7b603c01162f2fa486bea70f283ae556e130",
    "credential": "f91f391db4c9b2fde0ea70189cba3fb63f579ba6122b33ad94ff3ec330084be4",
    "clientDataJSON": (
        "7b2274797065223a22776562617574686e2e637265617465222c226368616c6c656e6765223a22414d4d507434557878475453746e6364"
        "7134313759447742466938767049612d7077386f4f755657345441222c226f726967696e223a2268747470733a2f2f6578616d706c652e"
        "6f7267222c2263726f73734f726967696e223a66616c73652c22657874726144617461223a22636c69656e74446174614a534f4e206d61"
        "7920626520657874656e6465642077697468206164646974696f6e616c206669656c647320696e20746865206675747572652c20737563"
        "6820617320746869733a20426b5165446a646354427258426941774a544c453551227d"
    ),
    "attestationObject": (
        "a363666d74646e6f6e656761747453746d74a068617574684461746158a4bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5"
        "e0f01452b2e4b559000000008446ccb9ab1db374750b2367ff6f3a1f0020f91f391db4c9b2fde0ea70189cba3fb63f579ba6122b33ad94"
        "ff3ec330084be4a5010203262001215820afefa16f97ca9b2d23eb86ccb64098d20db90856062eb249c33a9b672f26df61225820930a56"
        "b87a2fca66334b03458abf879717c12cc68ed73290af2e2664796b9220"
    ),
}
NONE_ANSWER = {
    "challenge": "39c0e7521417ba54d43e8dc95174f423dee9bf3cd804ff6d65c857c9abf4d408",
    "credential": NONE["credential"],
    "authenticatorData": "bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b51900000000",
    "clientDataJSON": (
        "7b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a224f63446e55685158756c5455506f334a555854"
        "3049393770767a7a59425039745a63685879617630314167222c226f726967696e223a2268747470733a2f2f6578616d706c652e6f7267"
        "222c2263726f73734f726967696e223a66616c73657d"
    ),
    "signature": (
        "3046022100f50a4e2e4409249c4a853ba361282f09841df4dd4547a13a87780218deffcd380221008480ac0f0b93538174f575bf11a1dd"
        "5d78c6e486013f937295ea13653e331e87"
    ),
}
# 16.3, ES256 with self attestation
SELF = {
    "challenge": "7869c2b772d4b58eba9378cf8f29e26cf935aa77df0da89fa99c0bdc0a76f7e5",
    "credential": "455ef34e2043a87db3d4afeb39bbcb6cc32df9347c789a865ecdca129cbef58c",
    "clientDataJSON": (
        "7b2274797065223a22776562617574686e2e637265617465222c226368616c6c656e6765223a2265476e4374334c55745936366b336a50"
        "6a796e6962506b31716e666644616966715a774c33417032392d55222c226f726967696e223a2268747470733a2f2f6578616d706c652e"
        "6f7267222c2263726f73734f726967696e223a66616c73652c22657874726144617461223a22636c69656e74446174614a534f4e206d61"
        "7920626520657874656e6465642077697468206164646974696f6e616c206669656c647320696e20746865206675747572652c20737563"
        "6820617320746869733a205539685458764b453255526b4d6e625f307859485667227d"
    ),
    "attestationObject": (
        "a363666d74667061636b65646761747453746d74a263616c672663736967584630440220067a20754ab925005dbf378097c92120031581"
        "c73228d1fb4f5b881bcd7da98302207fc7b147558c7c0eba3af18bd9d121fa3d3a26d17fe3f220272178f473b6006d6861757468446174"
        "6158a4bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b55d00000000df850e09db6afbdfab51697791506c"
        "fc0020455ef34e2043a87db3d4afeb39bbcb6cc32df9347c789a865ecdca129cbef58ca5010203262001215820eb151c8176b225cc6515"
        "59fecf07af450fd85802046656b34c18f6cf193843c5225820927b8aa427a2be1b8834d233a2d34f61f13bfd44119c325d5896e183fee4"
        "84f2"
    ),
}
# 16.4, "crossOrigin": true
CROSS = {
    "challenge": "3be5aacd03537142472340ab5969f240f1d87716e20b6807ac230655fa4b3b49",
    "credential": "6e1050c0d2ca2f07c755cb2c66a74c64fa43065c18f938354d9915db2bd5ce57",
    "clientDataJSON": (
        "7b2274797065223a22776562617574686e2e637265617465222c226368616c6c656e6765223a224f2d57717a514e5463554a4849304372"
        "57576e7951504859647862694332674872434d475666704c4f306b222c226f726967696e223a2268747470733a2f2f6578616d706c652e"
        "6f7267222c2263726f73734f726967696e223a747275652c22657874726144617461223a22636c69656e74446174614a534f4e206d6179"
        "20626520657874656e6465642077697468206164646974696f6e616c206669656c647320696e20746865206675747572652c2073756368"
        "20617320746869733a207a5a7175457444523944577170573574425754467567227d"
    ),
    "attestationObject": (
        "a363666d74646e6f6e656761747453746d74a068617574684461746158a4bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5"
        "e0f01452b2e4b54500000000883f4f6014f19c09d87aa38123be48d000206e1050c0d2ca2f07c755cb2c66a74c64fa43065c18f938354d"
        "9915db2bd5ce57a501020326200121582022200a473f90b11078851550d03b4e44a2279f8c4eca27b3153dedfe03e4e97d225820cbd0be"
        "95e746ad6f5a8191be11756e4c0420e72f65b466d39bc56b8b123a9c6e"
    ),
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


def test_section_16_2_is_set_up_and_answers() -> None:
    key = register(NONE)
    assert key.credential.hex() == NONE["credential"]
    assert key.aaguid == "8446ccb9-ab1d-b374-750b-2367ff6f3a1f"
    assert (key.count, key.backup_eligible, key.backed_up, key.attested) == (0, True, True, False)
    assert answer(NONE_ANSWER, key) == assertion.Answered(0, True, False)


def test_section_16_3_is_set_up_and_vouches_for_nothing() -> None:
    key = register(SELF)
    assert key.aaguid == "df850e09-db6a-fbdf-ab51-697791506cfc"
    assert (key.backup_eligible, key.backed_up, key.attested) == (True, True, False)
    listed = replace(US, aaguids=frozenset({key.aaguid}))
    with pytest.raises(NotProven, match="attestation"):  # it signs for itself: that is no maker's word
        register(SELF, listed)


def test_section_16_4_comes_from_a_frame_of_somebody_else() -> None:
    with pytest.raises(NotProven, match="cross_origin"):
        register(CROSS)


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
def test_any_bit_of_an_answer_counts(name: str) -> None:
    key = register(NONE)
    right = bytes.fromhex(NONE_ANSWER[name])
    for index in range(len(right)):
        wrong = right[:index] + bytes([right[index] ^ 1]) + right[index + 1 :]
        with pytest.raises(NotProven):
            answer(NONE_ANSWER, key, **{name: wrong.hex()})


def test_an_answer_to_another_key_is_none() -> None:
    other = replace(register(SELF), credential=register(NONE).credential)
    with pytest.raises(NotProven, match="signature"):
        answer(NONE_ANSWER, other)
