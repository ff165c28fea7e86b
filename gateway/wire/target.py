"""The request target, normalised once (RFC 3986, section 6.2.2).

The same normal form is matched, counted, logged and forwarded. What cannot have one meaning is refused:

- anything but origin form (absolute form is taken apart by the caller first);
- a raw backslash, `#`, blank or control character, invalid UTF-8, invalid percent-encoding;
- an encoded slash, backslash or control character, at any depth of encoding;
- a dot segment that hides: behind a second encoding (`%252e%252e`), a parameter (`..;`) or a blank (`..%20`).

Plain dot segments (`.`, `..`, `%2e%2e`) are resolved and repeated slashes are merged; a final slash stays.

Services differ in what else they fold: a second decoding, or none at all (Express), letter case (Express, IIS),
`;parameters` (Tomcat), a file extension (Rails), trailing blanks and dots (Windows). Each such *reading* of the path is
listed, and the gate lets no reading be weaker than its own rule: the literal path chooses the rule, a reading can only
add demands.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote, unquote_plus

_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})?")
_WELL_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NOT_PCHAR = re.compile(rb"[^A-Za-z0-9\-._~!$&'()*+,;=:@%]")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BLANK = re.compile(rb"[\x00-\x20\x7f]")
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_PLAIN = re.compile(rb"/(?:[a-z0-9_~-]+/)*(?:[a-z0-9_~-]+)?")
_SEPARATOR = re.compile("[&;]")
_DEEPEST = 5


class BadTarget(ValueError):  # noqa: N818 - the state is the name
    """The target has no single meaning."""


class Target(NamedTuple):
    """A normalised target."""

    path: str
    """Percent-decoded text; what rules match."""
    query: str
    """As sent, without the question mark; octets beyond ASCII percent-encoded."""
    raw: bytes
    """Origin form; what is forwarded."""
    readings: tuple[str, ...]
    """Other paths a service might take this one for."""


def normalise(raw: bytes) -> Target:
    """Normalise an origin-form target. Raises `BadTarget`."""
    if b"#" in raw:
        raise BadTarget("a fragment")
    path, mark, query = raw.partition(b"?")
    if mark:
        if _BLANK.search(query):
            raise BadTarget("a blank or control character in the query")
        query = _NOT_ASCII.sub(_percent, query)
        raw = path + mark + query
    if _PLAIN.fullmatch(path):
        return Target(path.decode("ascii"), query.decode("ascii"), raw, ())
    if not path.startswith(b"/"):
        raise BadTarget("not in origin form")
    if b"\\" in path:
        raise BadTarget("a backslash")

    texts: list[str] = []
    encoded: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        plain = _decode(segment)
        _refuse_hidden(plain)
        if plain == b"..":
            if texts:
                texts.pop()
                encoded.pop()
        elif plain not in (b"", b"."):
            try:
                texts.append(plain.decode("utf-8"))
            except UnicodeDecodeError:
                raise BadTarget("not UTF-8") from None
            encoded.append(_encode(segment))
    folder = bool(texts) and _decode(segments[-1]) in (b"", b".", b"..")
    text = "/" + "/".join(texts) + ("/" if folder else "")
    forwarded = b"/" + b"/".join(encoded) + (b"/" if folder else b"")
    others = readings(text)
    if b"%" in forwarded:
        sent = forwarded.decode("ascii")
        others += (sent, sent.lower())  # a router that decodes nothing: `/a%2Bb` is not `/a+b` for it
    return Target(text, query.decode("ascii"), forwarded + mark + query, others)


def readings(path: str) -> tuple[str, ...]:
    """Every other path that some service might read `path` as, without repetition."""
    found = [path]
    for read in (unquote, _without_parameters, _without_trailing, _without_extension, str.lower):
        for other in [read(known) for known in found]:
            if other not in found:
                found.append(other)
    return tuple(found[1:])


def overridden_methods(query: str) -> tuple[str, ...]:
    """The methods that frameworks with `_method` in the query might act on, in upper case."""
    pairs = [part.partition("=") for part in _SEPARATOR.split(query)]
    return tuple(unquote_plus(value).upper() for name, _, value in pairs if unquote_plus(name).lower() == "_method")


def _decode(segment: bytes) -> bytes:
    """Percent-decode one level. Raises `BadTarget` for a percent sign that encodes nothing."""
    if b"%" not in segment:
        return segment
    return _ENCODED.sub(_octet, segment)


def _octet(match: re.Match[bytes]) -> bytes:
    if not match.group(1):
        raise BadTarget("invalid percent-encoding")
    return bytes.fromhex(match.group(1).decode("ascii"))


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match.group()[0]


def _encode(segment: bytes) -> bytes:
    """A segment in its one spelling: unreserved characters plain, the rest as sent, hexadecimal in upper case."""
    segment = _NOT_PCHAR.sub(_percent, segment)
    if b"%" not in segment:
        return segment

    def spelled(match: re.Match[bytes]) -> bytes:
        octet = _octet(match)
        return octet if octet[0] in _UNRESERVED else b"%" + match.group(1).upper()

    return _ENCODED.sub(spelled, segment)


def _refuse_hidden(plain: bytes) -> None:
    """Refuse what only shows after decoding once more, or once a parameter or blank is cut."""
    for depth in range(_DEEPEST):
        if b"/" in plain or b"\\" in plain or _CONTROL.search(plain):
            raise BadTarget("an encoded separator or control character")
        bare = plain.partition(b";")[0].strip(b" ")
        if bare in (b".", b"..") and (bare != plain or depth):
            raise BadTarget("a hidden dot segment")
        # Leniently: a service that decodes twice may well step over a percent sign of its own.
        deeper = _WELL_ENCODED.sub(_octet, plain)
        if deeper == plain:
            return
        plain = deeper
    raise BadTarget("encoded too many times")


def _without_parameters(path: str) -> str:
    if ";" not in path:
        return path
    return "/".join(segment.partition(";")[0] for segment in path.split("/"))


def _without_trailing(path: str) -> str:
    if " " not in path and "." not in path:
        return path
    return "/".join(segment.rstrip(" .") for segment in path.split("/"))


def _without_extension(path: str) -> str:
    head, slash, last = path.rpartition("/")
    stem, dot, _ = last.rpartition(".")
    return head + slash + stem if dot and stem else path
