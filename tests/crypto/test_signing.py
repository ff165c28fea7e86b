from __future__ import annotations

from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers, derive_private_key

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError
from gateway.crypto.keys import KeyRing
from gateway.crypto.signing import GRACE, Signer, public_jwk, thumbprint

OVERLAP = 300.0
LIFETIME = 60.0


def number(text: str) -> int:
    return int.from_bytes(urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def read(assertion: str, jwks: dict[str, Any], now: float) -> dict[str, Any]:
    """As a service does it: by `kid`, ES256 only, and never past its end. Raises `jwt` errors."""
    keys = {key.key_id: key for key in jwt.PyJWKSet.from_dict(jwks).keys}
    header = jwt.get_unverified_header(assertion)
    if header["kid"] not in keys:
        raise jwt.InvalidKeyError(header["kid"])
    claims: dict[str, Any] = jwt.decode(
        assertion, keys[header["kid"]].key, algorithms=["ES256"], options={"verify_exp": False}
    )
    if claims["exp"] <= now:
        raise jwt.ExpiredSignatureError
    return claims


def sign(signer: Signer, clock: ManualClock) -> str:
    return signer.sign({"sub": "ann", "exp": clock.now() + LIFETIME})


def test_a_published_key_and_its_jwk() -> None:
    """RFC 7515, appendix A.3.1."""
    private = derive_private_key(number("jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"), SECP256R1())
    jwk = public_jwk(private.public_key().public_numbers())
    assert (jwk["x"], jwk["y"]) == (
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    )
    assert {name: jwk[name] for name in ("kty", "crv", "use", "alg")} == {
        "kty": "EC",
        "crv": "P-256",
        "use": "sig",
        "alg": "ES256",
    }
    assert "d" not in jwk


def test_a_published_thumbprint() -> None:
    """RFC 9449, sections 4.2 and 6.1."""
    numbers = EllipticCurvePublicNumbers(
        number("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs"),
        number("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"),
        SECP256R1(),
    )
    assert thumbprint(numbers) == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def test_an_assertion_is_read_with_the_published_keys(ring: KeyRing, clock: ManualClock) -> None:
    assertion = sign(ring.signer, clock)
    header = jwt.get_unverified_header(assertion)
    assert header == {"alg": "ES256", "typ": "JWT", "kid": ring.signer.jwks()["keys"][0]["kid"]}
    assert read(assertion, ring.signer.jwks(), clock.now())["sub"] == "ann"
    assert len(urlsafe_b64decode(assertion.split(".")[2] + "==")) == 64


def test_a_changed_assertion_is_not(ring: KeyRing, clock: ManualClock) -> None:
    head, claims, signature = sign(ring.signer, clock).split(".")
    other = claims[:-2] + ("A" if claims[-2] != "A" else "B") + claims[-1]
    with pytest.raises(jwt.PyJWTError):
        read(f"{head}.{other}.{signature}", ring.signer.jwks(), clock.now())


def test_claims_keep_their_text(ring: KeyRing, clock: ManualClock) -> None:
    claims = {"name": "Ännchen \u2028 名", "groups": ["a", "b"], "risk": 0.25, "exp": clock.now() + 60}
    assert read(ring.signer.sign(claims), ring.signer.jwks(), clock.now()) == claims


def test_rotation_never_fails_a_request(ring: KeyRing, clock: ManualClock, folder: Path) -> None:
    """Case 64. The service keeps a key set for as long as the overlap; the gateway looks every second."""
    gateway = Signer(folder, clock, LIFETIME)
    known, fetched_at = gateway.jwks(), clock.now()
    old = gateway.jwks()["keys"][0]["kid"]
    on_their_way: list[str] = []
    rotated_at = clock.now() + 50
    signed_by = set()
    published = []
    for second in range(1000):
        if clock.now() == rotated_at:
            ring.rotate_signing(OVERLAP)
        gateway.refresh()
        assertion = sign(gateway, clock)
        signed_by.add(jwt.get_unverified_header(assertion)["kid"])
        on_their_way.append(assertion)
        if clock.now() - fetched_at >= OVERLAP:
            known, fetched_at = gateway.jwks(), clock.now()
        assert read(assertion, known, clock.now())
        assert read(on_their_way[max(0, second - int(LIFETIME) + 1)], known, clock.now())
        published.append(old in {key["kid"] for key in gateway.jwks()["keys"]})
        clock.advance(1)
    assert len(signed_by) == 2
    assert published.index(False) == 50 + OVERLAP + LIFETIME + GRACE


def test_after_the_overlap_the_old_key_is_rejected_and_unknown_ones_always(ring: KeyRing, clock: ManualClock) -> None:
    """Case 64."""
    stolen = ring.signer.standings()[0].key
    ring.rotate_signing(OVERLAP)
    clock.advance(OVERLAP + LIFETIME + GRACE)
    claims = {"sub": "ann", "exp": clock.now() + 60}
    forged = jwt.encode(claims, stolen.private, algorithm="ES256", headers={"kid": stolen.kid})
    with pytest.raises(jwt.InvalidKeyError):
        read(forged, ring.signer.jwks(), clock.now())


def test_another_algorithm_is_rejected(ring: KeyRing, clock: ManualClock) -> None:
    """Case 64."""
    kid = ring.signer.jwks()["keys"][0]["kid"]
    public = ring.signer.jwks()["keys"][0]["x"]
    claims = {"sub": "ann", "exp": clock.now() + 60}
    for forged in (
        jwt.encode(claims, None, algorithm="none", headers={"kid": kid}),
        jwt.encode(claims, public, algorithm="HS256", headers={"kid": kid}),
    ):
        with pytest.raises(jwt.PyJWTError):
            read(forged, ring.signer.jwks(), clock.now())


def test_a_key_goes_through_its_life(ring: KeyRing, clock: ManualClock) -> None:
    first = ring.signer.standings()[0].key.kid
    start = clock.now()
    second = ring.rotate_signing(OVERLAP).kid

    def standing() -> dict[str, tuple[str, float]]:
        return {s.key.kid: (s.status, s.until - start if s.until else 0.0) for s in ring.signer.standings()}

    assert standing() == {first: ("signing", OVERLAP), second: ("next", OVERLAP)}
    clock.advance(OVERLAP)
    assert standing() == {first: ("published", OVERLAP + LIFETIME + GRACE), second: ("signing", 0.0)}
    clock.advance(LIFETIME + GRACE)
    assert standing() == {first: ("retired", 0.0), second: ("signing", 0.0)}
    assert [key["kid"] for key in ring.signer.jwks()["keys"]] == [second]


def test_without_overlap_the_new_key_signs_at_once(ring: KeyRing, clock: ManualClock) -> None:
    clock.advance(1.5)
    key = ring.rotate_signing(0.0)
    assert jwt.get_unverified_header(sign(ring.signer, clock))["kid"] == key.kid
    assert len(ring.signer.jwks()["keys"]) == 2


def test_a_clock_set_back_does_not_silence_it(ring: KeyRing, clock: ManualClock) -> None:
    clock.jump(-10 * 86400)
    assert read(sign(ring.signer, clock), ring.signer.jwks(), clock.now())


def test_refreshing_reads_only_what_changed(ring: KeyRing, folder: Path, clock: ManualClock) -> None:
    other = Signer(folder, clock, LIFETIME)
    assert other.refresh() is False
    ring.rotate_signing()
    assert other.refresh() is True
    assert other.refresh() is False
    assert other.jwks() == ring.signer.jwks()


def test_a_key_made_in_the_second_of_another_comes_after_it(ring: KeyRing, folder: Path, clock: ManualClock) -> None:
    """Whoever rotates twice in a hurry gets the newest key: never one of the two by chance."""
    for _ in range(8):
        newest = ring.rotate_signing(overlap=0.0)
        clock.advance(9)
        assert jwt.get_unverified_header(sign(ring.signer, clock))["kid"] == newest.kid
        clock.advance(-9)


def test_refreshing_tells_when_another_key_begins_to_sign(ring: KeyRing, folder: Path, clock: ManualClock) -> None:
    """Whoever keeps what was signed has to sign anew then, not when what they keep runs out."""
    other = Signer(folder, clock, LIFETIME)
    ring.rotate_signing(overlap=10.0)
    assert other.refresh() is True  # published
    clock.advance(5)
    assert other.refresh() is False
    clock.advance(6)
    sign(other, clock)  # somebody's assertion was signed with it already
    assert other.refresh() is True
    assert other.refresh() is False


def test_a_bad_new_key_is_told_and_the_known_ones_go_on(ring: KeyRing, folder: Path, clock: ManualClock) -> None:
    bad = folder / "signing-20261121T010300Z-1a2b3c4d.pem"
    bad.write_bytes(b"nonsense")
    bad.chmod(0o600)
    for _ in range(2):
        with pytest.raises(ConfigError, match="damaged"):
            ring.signer.refresh()
    assert read(sign(ring.signer, clock), ring.signer.jwks(), clock.now())
    bad.unlink()
    assert ring.signer.refresh() is False
