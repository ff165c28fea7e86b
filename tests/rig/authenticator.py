"""A security key of our own, and the browser before it: they do what they are told, wrong things too.

Built on `cryptography` and `cbor2` alone, from the text of Web Authentication Level 3; it shares no code with what it
is used against.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

ORIGIN = "https://app.example.com"
RP_ID = "app.example.com"
UP, UV, BE, BS, AT, ED = 1, 4, 8, 16, 64, 128


def b64(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


class Authenticator:
    """One credential. `flags` are those it shows each time; `count` rises with each use where it is not None."""

    def __init__(
        self, *, flags: int = UP | UV, count: int | None = 0, alg: int = -7, aaguid: bytes = bytes(16), size: int = 32
    ) -> None:
        self.flags = flags
        self.count = count
        self.alg = alg
        self.aaguid = aaguid
        self.credential = secrets.token_bytes(size)
        self.user_handle = b""
        make: dict[int, Callable[[], Any]] = {
            -7: lambda: ec.generate_private_key(ec.SECP256R1()),
            -8: ed25519.Ed25519PrivateKey.generate,
            -257: lambda: rsa.generate_private_key(65537, 2048),
            -36: lambda: ec.generate_private_key(ec.SECP521R1()),
        }
        self._key: Any = make[alg]()

    def register(self, options: dict[str, Any], *, origin: str = ORIGIN, **wrong: Any) -> dict[str, Any]:
        """`RegistrationResponseJSON`. What is `wrong` takes the place of what is right, by name."""
        self.user_handle = _bytes(options["user"]["id"])
        client = self.client_data("webauthn.create", options, origin, wrong)
        credential = wrong.get("credential", self.credential)
        attested = (
            self.aaguid
            + len(credential).to_bytes(2, "big")
            + credential
            + wrong.get("public_key", cbor2.dumps(self.public_key()))
        )
        data = (
            self.data(options["rp"]["id"], wrong.get("attested", AT), wrong)
            + attested
            + wrong.get("trailing_data", b"")
        )
        fmt, statement = "none", {}
        if "said" in wrong:
            fmt, statement = wrong["said"]
        if attest := wrong.get("attest"):
            fmt, statement = attest(data + hashlib.sha256(client).digest())
        said = cbor2.dumps({"fmt": fmt, "attStmt": statement, "authData": data})
        if "object" in wrong:
            said = wrong["object"]
        if head := wrong.get("head"):  # in the place of the byte that says how many members follow
            said = head + said[1:]
        response = {
            "clientDataJSON": b64(client),
            "attestationObject": b64(said + wrong.get("trailing", b"")),
            "transports": ["usb", "carrier-pigeon"],
        }
        sent_id = wrong.get("sent_id", credential)
        return {"id": b64(sent_id), "rawId": b64(sent_id), "type": "public-key", "response": response}

    def answer(self, options: dict[str, Any], *, origin: str = ORIGIN, **wrong: Any) -> dict[str, Any]:
        """`AuthenticationResponseJSON`; likewise."""
        if self.count is not None and "count" not in wrong:
            self.count += 1
        client = self.client_data("webauthn.get", options, origin, wrong)
        data = self.data(options["rpId"], 0, wrong) + wrong.get("trailing", b"")
        signature = wrong.get("signature", self.sign(data + hashlib.sha256(client).digest()))
        if after := wrong.get("after"):  # what somebody makes of it once it is signed
            client, data = after(client, data)
        credential = wrong.get("credential", self.credential)
        response = {
            "clientDataJSON": b64(client),
            "authenticatorData": b64(data),
            "signature": b64(signature),
        }
        if (handle := wrong.get("user_handle", self.user_handle)) is not None:
            response["userHandle"] = b64(handle)
        return {"id": b64(credential), "rawId": b64(credential), "type": "public-key", "response": response}

    def client_data(self, kind: str, options: dict[str, Any], origin: str, wrong: dict[str, Any]) -> bytes:
        if "client_data" in wrong:
            return bytes(wrong["client_data"])
        said = {"type": kind, "challenge": options["challenge"], "origin": origin, "crossOrigin": False}
        said |= wrong.get("client", {})
        return json.dumps(said).encode()

    def data(self, rp_id: str, more: int, wrong: dict[str, Any]) -> bytes:
        flags = wrong.get("flags", self.flags) | more
        count: int = wrong.get("count", self.count or 0)
        return hashlib.sha256(wrong.get("rp_id", rp_id).encode()).digest() + bytes([flags]) + count.to_bytes(4, "big")

    def sign(self, data: bytes) -> bytes:
        if self.alg == -8:
            return bytes(self._key.sign(data))
        if self.alg == -257:
            return bytes(self._key.sign(data, padding.PKCS1v15(), hashes.SHA256()))
        return bytes(self._key.sign(data, ec.ECDSA(hashes.SHA256() if self.alg == -7 else hashes.SHA512())))

    def public_key(self) -> dict[int, Any]:
        """COSE_Key."""
        public = self._key.public_key()
        if self.alg == -8:
            return {1: 1, 3: -8, -1: 6, -2: public.public_bytes_raw()}
        numbers = public.public_numbers()
        if self.alg == -257:
            return {1: 3, 3: -257, -1: _whole(numbers.n), -2: _whole(numbers.e)}
        curve, size = (1, 32) if self.alg == -7 else (3, 66)
        return {1: 2, 3: self.alg, -1: curve, -2: numbers.x.to_bytes(size, "big"), -3: numbers.y.to_bytes(size, "big")}


def _bytes(text: str) -> bytes:
    from base64 import urlsafe_b64decode

    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _whole(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
