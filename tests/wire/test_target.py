from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.policy.glob import segments
from gateway.wire.target import BadTarget, normalise, overridden_methods
from tests.wire.services import SERVICES, nginx


@pytest.mark.parametrize(
    ("raw", "path", "forwarded"),
    [
        (b"/", "/", b"/"),
        (b"/a/b", "/a/b", b"/a/b"),
        (b"/a/b/", "/a/b/", b"/a/b/"),
        (b"/a//b", "/a/b", b"/a/b"),
        (b"//a", "/a", b"/a"),
        (b"///", "/", b"/"),
        (b"/./a", "/a", b"/a"),
        (b"/a/.", "/a/", b"/a/"),
        (b"/a/..", "/", b"/"),
        (b"/a/b/..", "/a/", b"/a/"),
        (b"/a/../../b", "/b", b"/b"),
        (b"/..", "/", b"/"),
        (b"/public/../admin", "/admin", b"/admin"),
        (b"/public/%2e%2e/admin", "/admin", b"/admin"),
        (b"/public/.%2E/admin", "/admin", b"/admin"),
        (b"/public/%2e/admin", "/public/admin", b"/public/admin"),
        (b"/%61%64min", "/admin", b"/admin"),
        (b"/a%20b", "/a b", b"/a%20b"),
        (b"/%C3%A9", "/é", b"/%C3%A9"),
        (b"/%c3%a9", "/é", b"/%C3%A9"),
        (b"/caf\xc3\xa9", "/café", b"/caf%C3%A9"),
        (b"/a;b=c", "/a;b=c", b"/a;b=c"),
        (b"/...", "/...", b"/..."),
        (b"/a/..b/c..", "/a/..b/c..", b"/a/..b/c.."),
        (b"/100%25", "/100%", b"/100%25"),
        (b"/%2525", "/%25", b"/%2525"),
        (b"/@:!$&'()*+,=", "/@:!$&'()*+,=", b"/@:!$&'()*+,="),
    ],
)
def test_one_spelling(raw: bytes, path: str, forwarded: bytes) -> None:
    found = normalise(raw)
    assert (found.path, found.raw) == (path, forwarded)


@pytest.mark.parametrize("query", [b"", b"a=b", b"..%2f/..//;", b"?", b"x=/../%zz", b"%00", b"a\\b"])
def test_a_query_is_carried_as_it_came(query: bytes) -> None:
    found = normalise(b"/a/../b?" + query)
    assert (found.path, found.query, found.raw) == ("/b", query.decode("ascii"), b"/b?" + query)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"*",
        b"admin",
        b"?x",
        b"http:/x",
        b"http://x/y",
        b"/a#b",
        b"/a?b#c",
        b"/a\\b",
        b"/..\\a",
        b"/%2f",
        b"/%2F",
        b"/%5c",
        b"/%5Ca",
        b"/%252f",
        b"/%255c",
        b"/%25252f",
        b"/%25252525252f",
        b"/" + b"%25" * 400 + b"2f",
        b"/%00",
        b"/%0a",
        b"/%0d%0a",
        b"/%7f",
        b"/%1f",
        b"/%2500",
        b"/\x00",
        b"/\x1f",
        b"/\x7f",
        b"/%zz",
        b"/%",
        b"/%1",
        b"/a%",
        b"/%u002e",
        b"/%c0%ae",
        b"/%c0%af",
        b"/%e0%80%ae",
        b"/%ed%a0%80",
        b"/%ff",
        b"/\xff",
        b"/%252e%252e/a",
        b"/.%252e/a",
        b"/%252e",
        b"/..;/a",
        b"/.;/a",
        b"/..;x=y/a",
        b"/%2e%2e;/a",
        b"/..%3b/a",
        b"/..%253b/a",
        b"/..%20/a",
        b"/%20../a",
        b"/.%2520/a",
    ],
    ids=lambda raw: repr(raw)[:40],
)
def test_what_has_more_than_one_meaning_is_refused(raw: bytes) -> None:
    with pytest.raises(BadTarget):
        normalise(raw)


def test_a_query_is_ascii() -> None:
    assert normalise(b"/?\xc3\xa9").raw == b"/?%C3%A9"
    assert normalise(b"/a;b?\xff").query == "%FF"


@pytest.mark.parametrize("raw", [b"/a b", b"/a?b c", b"/a?\x00", b"/a?\r\n", b"/a?b\tc", b"/a\t", b"/a?\x7f"])
def test_no_blank_or_control_character_is_ever_forwarded(raw: bytes) -> None:
    """The parser in front refuses them too; a line made from a target must be safe whoever made the target."""
    try:
        forwarded = normalise(raw).raw
    except BadTarget:
        return
    assert not set(forwarded) & {*range(0x21), 0x7F}, forwarded


@pytest.mark.parametrize(
    ("raw", "reading"),
    [
        (b"/Admin", "/admin"),
        (b"/admin;a=b", "/admin"),
        (b"/a;x/admin;y", "/a/admin"),
        (b"/admin.json", "/admin"),
        (b"/admin%20", "/admin"),
        (b"/admin.", "/admin"),
        (b"/admin%20.", "/admin"),
        (b"/ADMIN.CSS;x", "/admin"),
        (b"/Admin%20/x", "/admin/x"),
        (b"/admin/x.json", "/admin/x"),
        (b"/admin%3Bx", "/admin"),
        (b"/admin.json%20", "/admin"),
        (b"/%2561dmin", "/admin"),
        (b"/%2541dmin%2520", "/admin"),
        (b"/admin%20;x", "/admin"),
        (b"/admin;x.json", "/admin"),
    ],
)
def test_other_readings_are_told(raw: bytes, reading: str) -> None:
    assert reading in normalise(raw).readings


@pytest.mark.parametrize("raw", [b"/", b"/a/b", b"/a/../b", b"/%61?x=Y;z"])
def test_plain_paths_have_one_reading(raw: bytes) -> None:
    assert normalise(raw).readings == ()


@pytest.mark.parametrize(
    ("query", "methods"),
    [
        ("_method=DELETE", ("DELETE",)),
        ("_method=delete", ("DELETE",)),
        ("a=b&_method=PUT&c", ("PUT",)),
        ("_method=GET&_method=DELETE", ("GET", "DELETE")),
        ("_%6dethod=DELETE", ("DELETE",)),
        ("_method=%44ELETE", ("DELETE",)),
        ("a;_method=DELETE", ("DELETE",)),
        ("x_method=DELETE", ()),
        ("_methods=DELETE", ()),
        ("", ()),
    ],
)
def test_methods_named_in_the_query(query: str, methods: tuple[str, ...]) -> None:
    assert overridden_methods(query) == methods


PIECES = st.sampled_from(
    rb"/ / // . .. %2e %2E%2e ; ;a=b %2f %252f %5c \ %00 % admin ADMIN public a %61 %25 %2561 %20 ? # = &".split()
    + rb"%c3%a9 %ff %c0%ae %ef%bc%8f .css %3b %253b %zz ~ : @ + *".split()
    + [b" ", b"\xc3\xa9"]
)
TARGETS = st.one_of(st.lists(PIECES, max_size=14).map(lambda parts: b"/" + b"".join(parts)), st.binary(max_size=40))


@settings(max_examples=2000, deadline=None)
@given(TARGETS)
@example(b"/a/%2e%2e;x")
@example(b"/%2e/%2e%2e//.")
def test_normalising_twice_changes_nothing(raw: bytes) -> None:
    try:
        once = normalise(raw)
    except BadTarget:
        return
    assert normalise(once.raw) == once


@settings(max_examples=2000, deadline=None)
@given(TARGETS)
def test_what_is_matched_is_what_is_forwarded(raw: bytes) -> None:
    try:
        found = normalise(raw)
    except BadTarget:
        return
    assert nginx(found.raw.decode("ascii")) == found.path
    assert found.path.startswith("/")
    assert "//" not in found.path
    assert not set(found.path.split("/")) & {".", ".."}


def protected(path: str) -> bool:
    """A rule on `/admin/**`, as an operator means it."""
    return segments(path)[:1] == ["admin"]


def test_case_42_no_service_sees_what_the_gate_did_not_judge() -> None:
    """For 20,000 paths and eight kinds of service: who routes to `/admin` has been judged as `/admin`."""
    dice = random.Random(42)
    pieces = [b"/", b"/", b"/", b".", b"..", b"%2e", b"%2E", b"%252e", b";", b";x=1", b"%3b", b"%2f", b"%5c", b"\\"]
    pieces += [b"admin", b"admin", b"Admin", b"public", b"a", b"%61dmin", b"%2561dmin", b"%20", b".css", b".", b"%2e."]
    pieces += [b"%00", b"%09", b"%c0%af", b"%ef%bc%8f", b"?", b"#", b"..;", b"%zz", b"%"]
    accepted = reached = 0
    for _ in range(20_000):
        raw = b"/" + b"".join(dice.choices(pieces, k=dice.randint(1, 9)))
        try:
            found = normalise(raw)
        except BadTarget:
            continue
        accepted += 1
        judged = any(protected(path) for path in (found.path, *found.readings))
        for service in SERVICES:
            if protected(service(found.raw.decode("ascii"))):
                reached += 1
                assert judged, (raw, found, service.__name__)
    assert accepted > 4_000
    assert reached > 2_000
