"""What a message says: a subject, a text and HTML, from `templates`. HTML is escaped, text is text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from jinja2 import Environment


class Letter(NamedTuple):
    """One message, before it is addressed."""

    subject: str
    text: str
    html: str


def write(content: Mapping[str, Any], template: str = "notice") -> Letter:
    """The letter about `content`. A `notice`: `title`, `said`, `facts` (pairs), `advice`, `link`, `from_whom`, `name`;
    a `code`: `title`, `said`, `code`, `minutes`, `advice`, `from_whom`.

    Raises `jinja2.UndefinedError` where something of these is missing.
    """
    html, text = (_templates().get_template(f"{template}.{kind}") for kind in ("html", "txt"))
    return Letter(" ".join(content["title"].split()), text.render(content), html.render(content))


@cache
def _templates() -> Environment:
    # Imported with the first letter: a gateway that writes none never pays for it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
