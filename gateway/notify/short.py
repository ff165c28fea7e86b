"""A code, or a notice, by SMS, in one message of 160 characters.

Its last line is bound to our domain (`@host #code`, https://wicg.github.io/sms-one-time-codes/), so that a phone offers
the code on our pages and on nobody else's. For its sake what is said is left out where both do not fit: a phone shows
who it is from anyway.

Everything is written in the alphabet of GSM 03.38: one character beyond it, and 70 would be all there is room for. The
letters of Turkish that are not in it become those they are commonly written with.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from gateway.core.languages import ENGLISH, spoken
from gateway.core.words import unpacked

ROOM: Final = 160
"""Septets of one message."""
_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED: Final = frozenset("\f^{}\\[~]|€")
"""Each takes the room of two."""
_WRITTEN: Final = {"ı": "i", "ç": "c", "’": "'", "–": "-", "…": "..."}

SAID: Final[Mapping[str, str]] = {
    "en": "{code} is your code for {host}. It works once, for {minutes} minutes. Tell nobody.",
    "tr": "{host} kodunuz: {code}. Bir kez, {minutes} dakika geçerlidir. Kimseye söylemeyin.",
}


def short(content: Mapping[str, Any], code: str) -> str:
    """The text for `code`; `content`: `host`, `minutes`, `language`."""
    host = str(content["host"])
    said = SAID.get(str(content["language"]), SAID["en"]).format(code=code, host=host, minutes=content["minutes"])
    bound = f"@{host} #{code}"
    for text in (f"{said}\n\n{bound}", f"{code}\n\n{bound}", said, code):
        written = gsm(text)
        if septets(written) <= ROOM:
            return written
    raise ValueError("a code is never so long")


def told(content: Mapping[str, Any]) -> str:
    """The text of a notice; `content`: `title`, `from_whom`, `user`, `language`, and `brief`, what to do about it.

    No link: who gets a text message cannot tell ours from somebody else's. What does not fit is left out.
    """
    here = spoken(unpacked(content), content.get("language", ENGLISH))
    said = f"{here['from_whom']}: {here['title']} ({here['user']})."
    for text in (f"{said} {here.get('brief', '')}", said, str(here["title"])):
        written = gsm(text.strip())
        if septets(written) <= ROOM:
            return written
    return written[: ROOM // 2]


def gsm(text: str) -> str:
    """`text` in the alphabet of GSM 03.38; what has no likeness there is `?`."""
    return "".join(map(_spelled, text))


def septets(text: str) -> int:
    """How much of `ROOM` a text in that alphabet takes."""
    return sum(2 if character in _EXTENDED else 1 for character in text)


def _spelled(character: str) -> str:
    if character in _BASIC or character in _EXTENDED:
        return character
    if character in _WRITTEN:
        return _WRITTEN[character]
    plain = unicodedata.normalize("NFKD", character)[0]
    return plain if plain in _BASIC else "?"
