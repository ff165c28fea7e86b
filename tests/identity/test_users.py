from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import UserError
from gateway.identity.users import canonical, check_details


@pytest.mark.parametrize(
    "typed",
    ["bob", "Bob", "BOB", "bob ", " bob", "\tbob\n", "ｂｏｂ", "ＢＯＢ", "b\u200bob", "\ufeffbob", "bo\u00adb",
     "bob\u2060",
     "\u202ebob", "b\u034fob", "bob\ufe0f", "𝐛𝐨𝐛", "ⓑⓞⓑ"],
)  # fmt: skip
def test_every_spelling_of_bob_is_bob(typed: str) -> None:
    """Case 102."""
    assert canonical(typed) == "bob"


@pytest.mark.parametrize(
    "typed",
    ["", " ", "\u200b", "bob\0", "\0", "b ob", "b\u00a0ob", "DOMAIN\\bob", "bob/x", "bob\nx", "bob\x1b[0m", "*)(uid=*",
     "<b>", "bob,eve", "bob;eve", "bob=eve", "a" * 65, "ﷺ" * 20,
     "x" * 1_000_000, "-bob", ".bob", "@bob", "\u0301bob",
     "bob\ud800"],
)  # fmt: skip
def test_what_cannot_be_a_name(typed: str) -> None:
    """Case 102: refused, so it is nobody and shares nobody's counters."""
    with pytest.raises(UserError, match="ERR-USER-NAME"):
        canonical(typed)


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("bob@realm", "bob@realm"),
        ("Ann.Smith-Jones_2+x", "ann.smith-jones_2+x"),
        ("O'Neil", "o'neil"),
        ("Straße", "strasse"),
        ("Ändi", "ändi"),
        ("A\u0308ndi", "ändi"),
        ("İpek", "i̇pek"),
        ("ǅemal", "džemal"),
        ("名前", "名前"),
    ],
)
def test_other_names(typed: str, spelled: str) -> None:
    assert canonical(typed) == unicodedata.normalize("NFKC", spelled)


@given(st.text(max_size=40))
def test_the_spelling_is_stable_and_bounded(typed: str) -> None:
    try:
        spelled = canonical(typed)
    except UserError:
        return
    assert canonical(spelled) == spelled
    assert canonical(f" {spelled.upper()} ") == canonical(spelled.upper())
    assert 1 <= len(spelled) <= 64
    assert spelled.isprintable()
    assert not set(spelled) & set(' \\/,;=<>"&%\0\r\n')


def test_details_that_travel_in_headers() -> None:
    check_details("ann@example.com", "Ann Ö. Smith", frozenset({"admins", "eu/billing:read", "a-b_c.d@e"}))
    check_details("", "", frozenset())
    for email in ("ann", "a@b@c", "a b@c", "ann@example.com\r\nX: y", "a,b@c", "a" * 65 + "@b", "@b", "a@"):
        with pytest.raises(UserError, match="ERR-USER-EMAIL"):
            check_details(email, "", frozenset())
    for name in ("a\nb", "a\0", "x" * 257, "\u202eevil"):
        with pytest.raises(UserError, match="ERR-USER-DISPLAY-NAME"):
            check_details("", name, frozenset())
    for group in ("", "a b", "a,b", "a\r\nb", "x" * 65, 'a"b', "a;b"):
        with pytest.raises(UserError, match="ERR-USER-GROUP"):
            check_details("", "", frozenset({group}))
