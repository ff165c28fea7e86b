"""Every template of ours is in a picture that somebody can look at, and says what people are told it says; without a
browser."""

from __future__ import annotations

import re
from pathlib import Path

from gateway import web
from tests.e2e.album import PARTS, TEMPLATES, names, template_of
from tests.e2e.house import ROOT


def test_every_template_is_in_a_picture() -> None:
    assert {template_of(name) for name in names()} == TEMPLATES - PARTS


def test_no_picture_covers_another() -> None:
    assert len(set(names())) == len(names()) > 50


def test_what_people_are_told_to_press_is_on_a_page() -> None:
    """What is bold in the page for users, and begins like a label, is written on one of ours, word for word."""
    ours = Path(web.__file__).parent
    written = " ".join(file.read_text() for file in (*ours.glob("*.py"), *ours.glob("pages/*.html")))
    bold = re.findall(r"\*\*([A-Z][^*]+)\*\*", (ROOT / "docs" / "users.md").read_text())
    labels = {" ".join(one.split()).removesuffix(" …") for one in bold if len(one.split()) < 8}
    assert len(labels) > 25
    assert {one for one in labels if one not in written} == set()
