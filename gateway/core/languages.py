"""The languages people are spoken to in: which somebody wants, and what was said in it.

Somebody wants, in this order, what they chose themselves (a cookie), what their browser says (`Accept-Language`, RFC
9110, section 12.5.4), what the operator says (`pages.language`). A header that breaks its grammar, or is longer than
any browser's, says nothing. What is told comes from the catalogue `locale/<language>/LC_MESSAGES/sallyport.mo`, read
once, by gettext's rules; what it does not hold stays English. Nobody is refused anything for their language.

Pages and messages both need this, so it stands on the ground; whoever only carries requests never loads it.
"""

from __future__ import annotations

import gettext
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from gateway.core.words import Said

LANGUAGES: Final[Mapping[str, str]] = {"en": "English", "tr": "Türkçe"}
"""By code (BCP 47): what each calls itself. English is what is written in the code."""
ENGLISH: Final = "en"

LOCALE: Final = Path(__file__).parent / "locale"
LONGEST: Final = 512
"""Bytes of `Accept-Language` that are looked at; browsers send about a hundred."""
MOST: Final = 32
"""Languages in it."""

_RANGE = re.compile(
    r"(?P<range>\*|[a-z]{1,8}(?:-[a-z0-9]{1,8})*)(?:[ \t]*;[ \t]*q=(?P<q>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?",
    re.ASCII | re.IGNORECASE,
)


def wanted(chosen: str, accept: str, default: str) -> str:
    """The language for somebody who chose `chosen` (or nothing) and whose browser sends `accept`."""
    return chosen if chosen in LANGUAGES else accepted(accept) or default


def accepted(accept: str) -> str:
    """The best of ours that `accept` names (RFC 4647, section 3.4: `tr-TR` is `tr`); empty: none."""
    if not accept or len(accept) > LONGEST:
        return ""
    parts = [part.strip(" \t") for part in accept.split(",")]
    found = [_RANGE.fullmatch(part) for part in parts if part]  # RFC 9110, section 5.6.1: empty ones are allowed
    if len(found) > MOST:
        return ""
    best, weight = "", 0.0
    for match in found:
        if match is None:
            return ""
        language = match["range"].partition("-")[0].lower()
        quality = float(match["q"] or 1)
        if language in LANGUAGES and quality > weight:
            best, weight = language, quality
    return best


def chosen(cookie: bytes, name: str) -> str:
    """The language in the cookie `name`; empty where there is none of ours, or more than one."""
    values = [value for crumb in cookie.split(b";") for key, _, value in (crumb.strip().partition(b"="),)
              if key == name.encode()]  # fmt: skip
    language = values[0].decode("latin-1") if len(values) == 1 else ""
    return language if language in LANGUAGES else ""


def spoken(value: Any, language: str) -> Any:
    """`value` with everything that was said in it (lists and mappings are looked into) in `language`."""
    if isinstance(value, Said):
        return _told(value, language)
    if isinstance(value, Mapping):
        return {name: spoken(one, language) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [spoken(one, language) for one in value]
    return value


def catalogue(language: str) -> gettext.NullTranslations:
    """Of `language`; of English, and of one that is not there, one that gives everything back."""
    return _catalogue(language if language in LANGUAGES else ENGLISH)


def _told(said: Said, language: str) -> str:
    words = catalogue(language)
    if not said.text:
        return ""  # which would be the catalogue's own head
    text = words.ngettext(said.text, said.many, said.values["count"]) if said.many else words.gettext(said.text)
    return text.format_map(spoken(said.values, language)) if said.values else text


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    file = LOCALE / language / "LC_MESSAGES" / "sallyport.mo"
    if language == ENGLISH or not file.is_file():
        return gettext.NullTranslations()
    with file.open("rb") as opened:
        return gettext.GNUTranslations(opened)
