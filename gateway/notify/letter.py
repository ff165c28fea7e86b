"""What a message says: a subject, a text and HTML, from `templates`, in the language of whoever gets it.

HTML is escaped, text is text.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.core.languages import ENGLISH, catalogue, spoken
from gateway.core.words import unpacked

if TYPE_CHECKING:
    from jinja2 import Environment


class Letter(NamedTuple):
    """One message, before it is addressed."""

    subject: str
    text: str
    html: str


def write(content: Mapping[str, Any], template: str = "notice") -> Letter:
    """The letter about `content`. A `notice`: `title`, `said`, `facts` (pairs), `advice`, `link`, `from_whom`, `name`;
    a `code`: `title`, `said`, `code`, `minutes`, `link` (empty: none), `advice`, `from_whom`. Both: `language`.

    What was said in it (`core.words.packed`) is put into that language. Raises `jinja2.UndefinedError` where something
    of these is missing.
    """
    language = content.get("language", ENGLISH)
    told = spoken(unpacked(content), language)
    html, text = (_templates(language).get_template(f"{template}.{kind}") for kind in ("html", "txt"))
    return Letter(" ".join(told["title"].split()), text.render(told), html.render(told))


@cache
def _templates(language: str) -> Environment:
    # Imported with the first letter: a gateway that writes none never pays for it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        extensions=["jinja2.ext.i18n"],
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    environment.policies["ext.i18n.trimmed"] = True
    words = catalogue(language)
    environment.install_gettext_callables(words.gettext, words.ngettext, newstyle=True)  # type: ignore[attr-defined]
    environment.globals["language"] = language
    return environment
