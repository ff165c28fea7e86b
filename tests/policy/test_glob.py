from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.glob import Glob, segments


def matches(pattern: str, path: str) -> bool:
    return Glob(pattern).match(segments(path))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/", "/"),
        ("/admin", "/admin"),
        ("/admin", "/admin/"),
        ("/admin/", "/admin"),
        ("/admin/**", "/admin"),
        ("/admin/**", "/admin/"),
        ("/admin/**", "/admin/a/b"),
        ("/**", "/"),
        ("/**", "/a/b"),
        ("/users/*", "/users/7"),
        ("/users/*", "/users/7/"),
        ("/users/*/keys", "/users/7/keys"),
        ("/a*", "/a"),
        ("/a*c", "/abc"),
        ("/a*b*c", "/axxbxxc"),
        ("/**/*.css", "/site.css"),
        ("/**/*.css", "/a/b/site.css"),
        ("/a/**/b", "/a/b"),
        ("/a/**/b", "/a/x/b/b"),
        ("/a/**/b/**/c", "/a/b/c"),
        ("/a/**/b/*/**/c", "/a/x/b/y/z/c"),
        ("/**/x/y/**", "/x/x/y"),
        ("/été/**", "/été/ça"),
    ],
)
def test_hits(pattern: str, path: str) -> None:
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/", "/a"),
        ("/healthz", "/healthz2"),  # case 44: a plain path is anchored at both ends
        ("/healthz", "/a/healthz"),
        ("/x/health", "/x/health/evil"),
        ("/admin/**", "/administrator"),
        ("/admin/**", "/x/admin"),
        ("/admin", "/Admin"),
        ("/users/*", "/users"),
        ("/users/*", "/users/"),
        ("/users/*", "/users/7/keys"),
        ("/a*c", "/ab"),
        ("/ab*ba", "/aba"),
        ("/a/**/b", "/a/b/c"),
        ("/**/*.css", "/a.css/b"),
        ("/a/**/b/**/c", "/a/c/b"),
        ("/*", "/"),
    ],
)
def test_misses(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


@pytest.mark.parametrize(
    "pattern",
    ["", "admin", "/a?b", "/a#b", "/a\\b", "/a%20b", "//a", "/a//b", "/a/../b", "/./a", "/a**", "/**a/b", "/a\x00"],
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Glob(pattern)


def reference(pattern: str) -> re.Pattern[str]:
    """The same as a regular expression, over a path without a slash at its end."""
    text = "".join(
        r"(?:/[^/]+)*" if part == "**" else "/(?=[^/])" + "[^/]*".join(map(re.escape, part.split("*")))
        for part in segments(pattern)
    )
    return re.compile(text + r"\Z")


part = st.text(alphabet="ab", min_size=1, max_size=3)
star_part = st.text(alphabet="ab*", min_size=1, max_size=4).filter(lambda text: "**" not in text)


@given(
    st.lists(st.one_of(star_part, st.just("**"), part), max_size=5).map(lambda parts: "/" + "/".join(parts)),
    st.lists(part, max_size=6).map(lambda parts: "/" + "/".join(parts)),
)
def test_agrees_with_a_regular_expression(pattern: str, path: str) -> None:
    assert matches(pattern, path) == bool(reference(pattern).match(path.rstrip("/")))


def test_time_is_bounded_for_patterns_that_ruin_a_backtracking_matcher() -> None:
    path = segments("/" + "a/" * 4000)
    before = time.perf_counter()
    assert not Glob("/**/a/**/a/**/a/**/a/**/b").match(path)
    assert not Glob("/" + "*a" * 15 + "*b").match(["a" * 8000])
    assert time.perf_counter() - before < 1.0


def test_covers_only_what_it_surely_does() -> None:
    assert Glob("/**").covers(Glob("/a/*"))
    assert Glob("/a/**").covers(Glob("/a/b/*.css"))
    assert Glob("/a").covers(Glob("/a"))
    assert not Glob("/a/**").covers(Glob("/b"))
    assert not Glob("/a/*").covers(Glob("/a/**"))
    assert not Glob("/a/**/x").covers(Glob("/a/b/x/y"))
