"""Where a person may be sent afterwards: a path on this very origin, and nothing else.

The value travels through URLs, so anybody can write it. It is not repaired but refused, because every repair is a
second parser that a browser or a backend may disagree with. What passes is

- origin form: it starts with exactly one `/`, so no scheme and no authority can be in it;
- visible ASCII without `\\`, which the WHATWG URL parser reads as `/`, and without `#`;
- the same under repeated percent-decoding: no decoding of its path has an empty segment, a dot segment, a backslash or
  a control character, so nobody downstream who decodes once more can be led to `//evil`.

The wire's canonical targets always pass. (The shapes refused are those of the public open-redirect corpora.)
"""

from __future__ import annotations

import re
from urllib.parse import unquote

LONGEST = 4096
"""Characters. A longer target is not worth a redirect that some proxy on the way may cut."""

_ORIGIN_FORM = re.compile(r"/[!-~]*", re.ASCII)
_TROUBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_DECODINGS = 5


def safe_path(value: str | None, default: str = "/") -> str:
    """`value` where it is a path on this origin, else `default`."""
    return value if value and is_safe(value) else default


def is_safe(value: str) -> bool:
    """Whether a `Location` of `value` stays on this origin, whoever reads it."""
    if len(value) > LONGEST or not _ORIGIN_FORM.fullmatch(value) or "\\" in value or "#" in value:
        return False
    path = value.partition("?")[0]
    for _ in range(_DECODINGS):
        if _TROUBLE.search(path) or not _plain_segments(path):
            return False
        decoded = unquote(path, errors="replace")
        if decoded == path:
            return True
        path = decoded
    return False


def _plain_segments(path: str) -> bool:
    segments = path.split("/")[1:]
    inner = segments[:-1]
    return "" not in inner and not any(segment.partition(";")[0] in (".", "..") for segment in segments)
