"""Cases 73-75: what may stand in `next`."""

from __future__ import annotations

from urllib.parse import quote, unquote, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.return_to import LONGEST, is_safe, safe_path

REFUSED = [
    # case 74, as it stands
    "//evil",
    "/\\evil",
    "/%09/evil",
    "/\t\\evil",
    "https:evil",
    "https://good@evil",
    "https://good.evil",
    "https://evilgood",
    "javascript:alert(1)",
    "data:text/html,x",
    "/x\r\nSet-Cookie: a=b",
    "/x\nLocation: //evil",
    # case 75: no spelling of a host is ever taken
    "badexample.com",
    "http://example.com.evil/",
    "https://EXAMPLE.com",
    "https://example.com./",
    # the families of the public corpora
    "///evil",
    "////evil",
    "/////evil",
    "\\\\evil",
    "\\/evil",
    "/\\/evil",
    "\\evil",
    "//evil/%2f..",
    "//evil@good",
    "/%5cevil",
    "/%5c%5cevil",
    "/%2f/evil",
    "/%2f%2fevil",
    "/%252f%252fevil",
    "/%255cevil",
    "%2f%2fevil",
    "/%0d/evil",
    "/%0a/evil",
    "/%00/evil",
    "/%0d%0aSet-Cookie:x=y",
    "/%E5%98%8A%E5%98%8DSet-Cookie:x\u560a",
    "/.//evil",
    "/..//evil",
    "/./evil/../../evil",
    "/x/..//evil",
    "/;@evil/..",
    "/x//evil",
    "/http://evil",
    "/https://evil",
    "/https:%2f%2fevil",
    "http:evil",
    "http:/evil",
    "http:///evil",
    "HTTP://evil",
    "https:/\\evil",
    "https:\\\\evil",
    "ftp://evil",
    "//[::1]",
    "//0x7f000001",
    "//2130706433",
    "//①②⑦.0.0.1",
    "／／evil",
    "/／evil",
    "〱evil",
    "/\u2028evil",
    "/\u00a0/evil",
    "/ /evil",
    " //evil",
    "\t//evil",
    "\x00//evil",
    "/\x00/evil",
    "/\x0b/evil",
    "/\x7f",
    "javascript://%0aalert(1)",
    "java\nscript:x",
    "vbscript:x",
    "blob:x",
    "about:blank",
    "view-source:x",
    "mailto:a@b",
    "?next=//evil",
    "#//evil",
    "/x#//evil",
    ".",
    "..",
    "../evil",
    "./evil",
    "evil",
    "",
    "@evil",
    "/%2e%2e//evil",
    "/a/%2e%2e/%2e%2e//evil",
    "/..;/evil",
    "/x/..;x/evil",
]

PASSED = [
    "/",
    "/admin/",
    "/admin/users?x=1&y=a%20b",
    "/a/b.c;v=1",
    "/search?q=https://elsewhere.example/%2f%2f",
    "/caf%C3%A9",
    "/.sallyport/verify/3.abc-DEF_123?method=totp",
    "/100%25",
    "/my%20files/",
    "/~ann/it's(ok)!*",
    "/x?y=[1]&z={a|b}",
    "/@ann",
    "/a:b",
]


@pytest.mark.parametrize("value", REFUSED)
def test_what_could_lead_elsewhere_is_refused(value: str) -> None:
    assert not is_safe(value)
    assert safe_path(value) == "/"
    assert safe_path(value, "/.sallyport/account") == "/.sallyport/account"


@pytest.mark.parametrize("value", PASSED)
def test_a_path_here_passes_unchanged(value: str) -> None:
    assert is_safe(value)
    assert safe_path(value) == value


def test_nothing_given_is_the_default() -> None:
    assert safe_path(None) == "/"


def test_an_endless_target_is_refused() -> None:
    assert is_safe("/" + "a" * (LONGEST - 1))
    assert not is_safe("/" + "a" * LONGEST)


def test_layers_of_encoding_are_refused() -> None:
    value = "/x"
    for _ in range(9):
        value = "/" + quote(value, safe="").replace("%", "%25")
    assert not is_safe(value)


@given(st.text(max_size=60) | st.from_regex(r"[/\\%25.cf0@:;?#a\t]{1,24}", fullmatch=True))
def test_whatever_passes_stays_on_this_origin(value: str) -> None:
    """However often somebody decodes it and whatever they take for a slash."""
    if not is_safe(value):
        return
    for base in ("https://good.example/", "https://good.example/a/b"):
        there = urlsplit(urljoin(base, value))
        assert (there.scheme, there.netloc) == ("https", "good.example")
    path = value.partition("?")[0]
    for _ in range(8):
        assert not path.replace("\\", "/").startswith("//")
        assert not any(ord(letter) < 0x20 for letter in path)
        path = unquote(path)
