from __future__ import annotations

import pytest

from gateway.notify.short import ROOM, SAID, gsm, septets, short


@pytest.mark.parametrize("language", [*SAID, "xx"])
@pytest.mark.parametrize("host", ["gate.example.com", "localhost", "a" * 60 + "." + "b" * 60 + ".example", "x" * 253])
@pytest.mark.parametrize("code", ["271828", "27182818"])
def test_one_message_with_the_code_bound_to_our_domain(language: str, host: str, code: str) -> None:
    text = short({"host": host, "minutes": 10, "language": language}, code)
    assert code in text
    assert septets(text) <= ROOM
    assert gsm(text) == text, "in an alphabet of which 160 fit"
    if len(host) < 140:
        assert text.splitlines()[-1] == f"@{host} #{code}"


def test_it_says_how_long_and_to_tell_nobody() -> None:
    content = {"host": "gate.example.com", "minutes": 10}
    english, turkish = (short({**content, "language": language}, "271828") for language in ("en", "tr"))
    assert "10 minutes" in english
    assert "Tell nobody" in english
    assert "10 dakika" in turkish
    assert "Kimseye söylemeyin" in turkish


def test_letters_that_are_not_there() -> None:
    assert gsm("geçerlidir ışık ĞÜŞİÖÇ ğüşıöç") == "gecerlidir isik GÜSIÖÇ güsiöc"
    assert gsm("日本") == "??"
    assert septets("a€") == 3
