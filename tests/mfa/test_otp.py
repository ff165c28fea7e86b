from __future__ import annotations

import base64
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mfa import otp

RFC = b"12345678901234567890"


@pytest.mark.parametrize(
    ("counter", "code"),
    enumerate("755224 287082 359152 969429 338314 254676 287922 162583 399871 520489".split()),
)
def test_hotp_vectors_of_rfc_4226(counter: int, code: str) -> None:
    assert otp.code_at(RFC, counter) == code


@pytest.mark.parametrize(
    ("at", "eight"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_totp_vectors_of_rfc_6238(at: int, eight: str) -> None:
    assert otp.code_at(RFC, otp.step_at(at)) == eight[-6:]
    assert otp.step_at(at + 0.999) == otp.step_at(at)


def test_secrets_have_160_bits_and_differ() -> None:
    made = {otp.new_secret() for _ in range(50)}
    assert len(made) == 50
    assert {len(secret) for secret in made} == {20}


@pytest.mark.parametrize("off", range(-12, 13))
def test_only_the_step_and_its_neighbours_match(off: int) -> None:
    step = 50_000_000
    code = otp.code_at(RFC, step + off)
    matched = otp.matching_step(RFC, code, step, after=-1)
    assert matched == (step + off if abs(off) <= 1 else None)
    drifted = otp.drifted_step(RFC, code, step)
    assert drifted == (step + off if 2 <= abs(off) <= 10 else None)


def test_a_step_not_after_the_last_one_or_refused_does_not_match() -> None:
    step = 50_000_000
    code = otp.code_at(RFC, step)
    assert otp.matching_step(RFC, code, step, after=step - 1) == step
    assert otp.matching_step(RFC, code, step, after=step) is None
    assert otp.matching_step(RFC, code, step, after=step + 1) is None
    assert otp.matching_step(RFC, code, step, after=-1, refused=step) is None


def test_the_epoch_has_no_step_before_it() -> None:
    assert otp.matching_step(RFC, otp.code_at(RFC, 0), 0, after=-1) == 0
    assert otp.drifted_step(RFC, otp.code_at(RFC, 5), 0) == 5


@pytest.mark.parametrize("typed", ["287082", " 287 082 ", "287-082", "287\u00a0082", "\t287082\n"])
def test_digits_are_read_forgivingly(typed: str) -> None:
    assert otp.digits_of(typed) == "287082"


@pytest.mark.parametrize(
    "typed", ["", "28708", "2870822", "28708a", "٢٨٧٠٨٢", "²87082", "287082" * 1000, "-", "+87082"]
)
def test_what_cannot_be_a_code_is_nothing(typed: str) -> None:
    assert otp.digits_of(typed) == ""


@given(st.text())
def test_any_text_is_a_code_or_nothing(typed: str) -> None:
    read = otp.digits_of(typed)
    assert read == "" or (len(read) == 6 and set(read) <= set("0123456789"))


@given(st.text(max_size=60), st.text(max_size=60))
def test_an_otpauth_uri_says_what_it_was_given(issuer: str, account: str) -> None:
    issuer, account = (part.encode("utf-8", "ignore").decode() for part in (issuer, account))
    uri = otp.otpauth(RFC, issuer, account)
    parts = urlsplit(uri)
    said = parse_qs(parts.query, keep_blank_values=True)
    clean = [" ".join(part.replace(":", " ").split()) for part in (issuer, account)]
    assert (parts.scheme, parts.netloc, parts.fragment) == ("otpauth", "totp", "")
    assert unquote(parts.path) == "/" + (f"{clean[0]}:{clean[1]}" if clean[0] else clean[1])
    assert parts.path.count("/") == 1
    assert said.get("issuer", [""]) == [clean[0]]
    assert base64.b32decode(said["secret"][0]) == RFC
    assert (said["algorithm"], said["digits"], said["period"]) == (["SHA1"], ["6"], ["30"])


def test_minutes_for_people() -> None:
    assert [otp.about_minutes(steps) for steps in (2, -3, 4, 7, -10)] == [1, 2, 2, 4, 5]
