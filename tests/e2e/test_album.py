"""Every template of ours is in a picture that somebody can look at; without a browser."""

from __future__ import annotations

from tests.e2e.album import PARTS, TEMPLATES, names, template_of


def test_every_template_is_in_a_picture() -> None:
    assert {template_of(name) for name in names()} == TEMPLATES - PARTS


def test_no_picture_covers_another() -> None:
    assert len(set(names())) == len(names()) > 50
