"""The vectors of AWS's test suite for Signature Version 4, and of its example for IAM."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.notify.sigv4 import AwsKeys, signed

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
AT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("name", "method", "url", "headers", "body", "signature"),
    [
        ("get-vanilla", "GET", "/", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("post-vanilla", "POST", "/", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (
            "get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1", {}, b"",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "post-x-www-form-urlencoded", "POST", "/", FORM, b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
)  # fmt: skip
def test_vectors(name: str, method: str, url: str, headers: dict[str, str], body: bytes, signature: str) -> None:
    keys = AwsKeys("AKIDEXAMPLE", SECRET, "us-east-1", "service")
    made = signed(keys, method, f"https://example.amazonaws.com{url}", headers, body, AT)
    names = "content-type;host;x-amz-date" if headers else "host;x-amz-date"
    assert made["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    assert (made["host"], made["x-amz-date"]) == ("example.amazonaws.com", "20150830T123600Z")


def test_the_example_for_iam() -> None:
    keys = AwsKeys("AKIDEXAMPLE", SECRET, "us-east-1", "iam")
    url = "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08"
    made = signed(keys, "GET", url, {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, b"", AT)
    assert made["authorization"].endswith("5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7")


def test_a_key_that_does_not_last() -> None:
    keys = AwsKeys("AKIDEXAMPLE", SECRET, "us-east-1", "service", "token")
    made = signed(keys, "POST", "https://example.amazonaws.com/", {}, b"", AT)
    assert made["x-amz-security-token"] == "token"
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in made["authorization"]
    assert SECRET not in repr(keys)
    assert "'token'" not in repr(keys)
