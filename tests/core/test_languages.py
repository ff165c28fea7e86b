"""Which language somebody wants."""

from __future__ import annotations

import pytest

from gateway.core.languages import LONGEST, accepted, chosen, wanted


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", ""),
        ("tr", "tr"),
        ("TR-tr", "tr"),
        ("tr-TR,tr;q=0.9,en-US;q=0.8,en;q=0.7", "tr"),
        ("en-GB, tr;q=0.9", "en"),
        ("en;q=0.2 , tr;q=0.3", "tr"),
        ("de, fr;q=0.9, tr;q=0.1", "tr"),
        ("tr;q=0, en;q=0.001", "en"),
        ("tr;q=0", ""),
        ("tr;q=0.000", ""),
        ("*", ""),
        ("de,*;q=0.5", ""),
        (",tr,,", "tr"),
        ("tr\t;\tq=1.000", "tr"),
        ("tr;Q=0.5,en;q=0.4", "tr"),
        ("trk", ""),
        ("tr,en", "tr"),
        # what breaks the grammar says nothing
        ("tr;q=1.001", ""),
        ("tr;q=2,en", ""),
        ("tr;q=-1", ""),
        ("tr;q=0.1234", ""),
        ("tr;q=.5", ""),
        ("tr;level=1", ""),
        ("tr en", ""),
        ("tr_TR", ""),
        ("türkçe", ""),
        ("tr\x00", ""),
        ("\u0131", ""),
        ("en;q=0.5;q=0.6", ""),
        ("tr-" + "a" * 9, ""),
        ("tr" + "," * LONGEST, ""),
        (",".join(["de"] * 33) + ",tr", ""),
        (",".join(["de"] * 31) + ",tr", "tr"),
    ],
)
def test_what_a_browser_asks_for(header: str, language: str) -> None:
    assert accepted(header) == language


def test_a_choice_comes_first_and_the_operator_last() -> None:
    assert wanted("tr", "en", "en") == "tr"
    assert wanted("de", "tr", "en") == "tr"
    assert wanted("", "de", "tr") == "tr"
    assert wanted("", "tr;;", "en") == "en"


@pytest.mark.parametrize(
    ("cookie", "language"),
    [
        (b"sallyport-language=tr", "tr"),
        (b"a=1; sallyport-language=tr; b=2", "tr"),
        (b"sallyport-language=tr; sallyport-language=en", ""),
        (b"sallyport-language=TR", ""),
        (b"sallyport-language=../tr", ""),
        (b"sallyport-language=\xff", ""),
        (b"x-sallyport-language=tr", ""),
        (b"", ""),
    ],
)
def test_a_choice_is_a_cookie_that_came_once(cookie: bytes, language: str) -> None:
    assert chosen(cookie, "sallyport-language") == language
