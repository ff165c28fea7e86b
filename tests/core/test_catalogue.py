"""Every language says everything, and nothing that is gone."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import pytest
from babel.messages.catalog import Message
from babel.messages.mofile import read_mo

from tests.core import catalogue
from tests.core.catalogue import TRANSLATED

HELP = "python -m tests.core.catalogue"
PLACES = re.compile(r"\{\w+\}|%\(\w+\)s|</?\w+[^>]*>")


def messages(language: str) -> Iterable[tuple[Message, list[str], list[str]]]:
    """Each message with its texts in English and in `language`."""
    for one in catalogue.read(language):
        if one.id:
            ids, strings = ([one.id], [one.string]) if isinstance(one.id, str) else (list(one.id), list(one.string))
            yield one, ids, strings


@pytest.mark.parametrize("language", TRANSLATED)
def test_nothing_is_untranslated_fuzzy_or_stale(language: str) -> None:
    kept = catalogue.read(language)
    assert catalogue.untranslated(kept) == [], f"translate: {HELP}"
    assert {one.id for one in kept if one.id} == {one.id for one in catalogue.said() if one.id}, f"out of date: {HELP}"
    assert not kept.obsolete


@pytest.mark.parametrize("language", TRANSLATED)
def test_what_is_compiled_is_what_is_written(language: str) -> None:
    kept = read_mo(io.BytesIO(catalogue.path(language, "mo").read_bytes()))
    new = read_mo(io.BytesIO(catalogue.compiled(catalogue.read(language))))
    # But for the head, which names the version that compiled it.
    assert [(one.id, one.string) for one in kept if one.id] == [(one.id, one.string) for one in new if one.id], HELP


@pytest.mark.parametrize("language", TRANSLATED)
def test_values_and_markup_are_kept(language: str) -> None:
    for one, ids, strings in messages(language):
        for string in strings:
            here = sorted(PLACES.findall(string))
            assert any(here == sorted(PLACES.findall(each)) for each in ids) or (
                len(ids) == 2 and here == sorted(PLACES.findall(ids[1]))
            ), one.id
            assert string.count("%") == len(re.findall(r"%\(|%%", string)) + string.count("%%"), one.id
            assert '"' not in PLACES.sub("", string), f"it may stand in an attribute: {one.id}"
            assert "<" not in PLACES.sub("", string), one.id
            assert string.strip() == string or any(each.strip() != each for each in ids), one.id


def test_turkish_speaks_to_people_politely_and_in_turkish_letters() -> None:
    texts = [string for _, _, strings in messages("tr") for string in strings]
    assert any("ı" in text for text in texts)
    assert any("İ" in text for text in texts)
    whole = " ".join(texts).lower()
    for word in ("senin", "sana ", "şifre", "login", "logout", "authenticator", "passkey", "email"):
        assert word not in whole.replace("microsoft authenticator", "").replace("google authenticator", ""), word
