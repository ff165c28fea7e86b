from __future__ import annotations

import pytest

from gateway.mfa.codes.masked import masked_email, masked_number


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("+905321234512", "+90 *** ** 12"),
        ("+12025550143", "+1 *** ** 43"),
        ("+79161234567", "+7 *** ** 67"),
        ("+3725123456", "+372 *** ** 56"),
        ("+35312345678", "+353 *** ** 78"),
        ("+4915112345678901", "+49 *** ** 01"),
    ],
)
def test_a_number_shows_its_country_and_its_end(number: str, shown: str) -> None:
    assert masked_number(number) == shown


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ann@example.org", "a***@example.org"),
        ("a@example.org", "a***@example.org"),
        ("çağla@örnek.example", "ç***@örnek.example"),
        ('"a@b"@example.org', '"***@example.org'),
    ],
)
def test_an_address_shows_its_first_letter_and_its_host(address: str, shown: str) -> None:
    assert masked_email(address) == shown
