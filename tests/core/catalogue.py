"""The catalogue of translations, made from the marks in the code: `python -m tests.core.catalogue`.

It brings `locale/tr/LC_MESSAGES/sallyport.po` up to date with what is said in `gateway/`, compiles it, and lists what
is not translated. Sentences that are gone go; nothing is guessed.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from gateway.core.languages import ENGLISH, LANGUAGES, LOCALE

ROOT = Path(__file__).resolve().parents[2]
METHODS = [("**.py", "python"), ("**.html", "jinja2"), ("**.txt", "jinja2")]
MARKS = {"say": None, "say_n": (1, 2), "_": None, "gettext": None, "ngettext": (1, 2)}
JINJA = {"trimmed": "true", "newstyle_gettext": "true", "trim_blocks": "true", "lstrip_blocks": "true"}
TRANSLATED = [language for language in LANGUAGES if language != ENGLISH]


def said() -> Catalog:
    """Everything that is said in the code."""
    catalogue = Catalog(project="Sallyport", copyright_holder="", msgid_bugs_address="", fuzzy=False)
    options = {"**.html": JINJA, "**.txt": JINJA}
    for file, _, text, comments, context in extract_from_dir(ROOT / "gateway", METHODS, options, MARKS):
        catalogue.add(text, None, [(f"gateway/{file}", 0)], auto_comments=comments, context=context)
    return catalogue


def path(language: str, kind: str) -> Path:
    """Of its file: `po` or `mo`."""
    return LOCALE / language / "LC_MESSAGES" / f"sallyport.{kind}"


def read(language: str) -> Catalog:
    with path(language, "po").open("rb") as file:
        return read_po(file, locale=language)


def compiled(catalogue: Catalog) -> bytes:
    out = io.BytesIO()
    write_mo(out, catalogue)
    return out.getvalue()


def untranslated(catalogue: Catalog) -> list[Message]:
    return [one for one in catalogue if one.id and (one.fuzzy or not all(_texts(one)))]


def _texts(message: Message) -> tuple[str, ...]:
    return (message.string,) if isinstance(message.string, str) else tuple(message.string or ("",))


def main() -> int:
    new = said()
    for language in TRANSLATED:
        catalogue = read(language)
        created = catalogue.creation_date
        catalogue.update(new, no_fuzzy_matching=True)
        catalogue.creation_date = created
        catalogue.obsolete.clear()
        with path(language, "po").open("wb") as file:
            write_po(file, catalogue, width=120, sort_output=True, include_lineno=False)
        path(language, "mo").write_bytes(compiled(catalogue))
        for one in untranslated(catalogue):
            print(f"{language}: {one.id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
