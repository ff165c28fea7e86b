from __future__ import annotations

import pytest

from gateway.core.errors import UserError
from gateway.notify.numbers import Numbers

MOBILE = "+905301234567"


@pytest.mark.parametrize(
    "text", [MOBILE, "+90 530 123 45 67", "0530 123 45 67", "(0530) 123-4567", "530 1234567", " +90-530-1234567"]
)
def test_one_spelling(text: str) -> None:
    assert Numbers(region="TR").canonical(text) == MOBILE


@pytest.mark.parametrize(
    "text",
    ["", "+", "ann", "0530 123 45 67 ext. 3", "+90530123456", "+999123456789", "1-800-FLOWERS", "+90530123456789",
     "1" * 99, "tel:+905301234567;ext=1", "+90\u0000530", "+905301234567,+905301234568",
     "+90 530 123 45 67 #3", "+1 650 25FLOWR", "+1 650 CALL NOW"],
)  # fmt: skip
def test_no_number(text: str) -> None:
    with pytest.raises(UserError, match="ERR-PHONE-INVALID"):
        Numbers(region="TR").canonical(text)


def test_without_a_region_the_country_has_to_be_said() -> None:
    with pytest.raises(UserError, match="ERR-PHONE-INVALID"):
        Numbers().canonical("0530 123 45 67")
    assert Numbers().canonical(MOBILE) == MOBILE


@pytest.mark.parametrize(
    ("number", "what"),
    [
        ("+19002123456", "premium rate"),
        ("+908881234567", "premium rate"),
        ("+447012345678", "personal number, a well-known fraud"),
        ("+18002345678", "toll-free"),
        ("+902121234567", "fixed line"),
        ("+442079460000", "fixed line"),
        ("+445612345678", "voice over IP"),
        ("+881612345678", "satellite"),
        ("+979123456789", "international premium rate"),
    ],
)
def test_never_written_to(number: str, what: str) -> None:
    with pytest.raises(UserError, match="ERR-PHONE-REFUSED"):
        Numbers(allow=[number]).canonical(number)


def test_prefixes() -> None:
    with pytest.raises(UserError, match="ERR-PHONE-REFUSED"):
        Numbers(deny=["+90530"]).canonical(MOBILE)
    with pytest.raises(UserError, match="ERR-PHONE-REFUSED"):
        Numbers(allow=["+44", "+1"]).canonical(MOBILE)
    with pytest.raises(UserError, match="ERR-PHONE-REFUSED"):
        Numbers(allow=["+90"], deny=["+9053"]).canonical(MOBILE)
    assert Numbers(allow=["+90"], deny=["+90531"]).canonical(MOBILE) == MOBILE
