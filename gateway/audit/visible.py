r"""Text that strangers wrote, made fit to be kept: nothing in it moves a cursor, ends a line or turns writing around.

Whatever is not printable (C0 and C1 controls, DEL, line and paragraph separators, bidirectional and other format
characters, lone surrogates; Unicode categories "Other" and "Separator" but for the space) becomes its escape:
`\x1b`, `\u2028`. JSON alone would escape only what lies below U+0020, and a terminal obeys more than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

import orjson

LONGEST: Final = 512
"""Characters kept of one text."""
MOST: Final = 32
"""Entries kept of one list or mapping."""
DEEPEST: Final = 4
"""Levels kept of lists and mappings within each other."""


def visible(text: str, most: int = LONGEST) -> str:
    """`text`, at most `most` characters of it, with everything unprintable escaped. A cut is marked with `…`."""
    cut = text[:most]
    if not cut.isprintable():
        cut = "".join(char if char.isprintable() else _escape(ord(char)) for char in cut)
    return cut if len(text) <= most and len(cut) <= most else cut[: most - 1] + "…"


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible_json(detail: Mapping[str, Any], most: int) -> dict[str, Any]:
    """`detail` as plain JSON of at most `most` bytes, every text in it `visible`.

    What is no JSON is kept as text; what does not fit is kept as the beginning of its JSON, under `cut`.
    """
    kept = {visible(str(name), 64): _plain(value, DEEPEST) for name, value in list(detail.items())[:MOST]}
    dumped = orjson.dumps(kept)
    if len(dumped) <= most:
        return kept
    # A third: each character takes up to three bytes more when its quotes are quoted again.
    return {"cut": dumped[: max(0, most // 3)].decode("utf-8", "ignore")}


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, int):
        return int(value) if -(2**53) < value < 2**53 else visible(str(value)) if abs(value) < 10**100 else "huge"
    if isinstance(value, float):
        return float(value) if isfinite(value) else str(value)
    if isinstance(value, bytes):
        return visible(value[: LONGEST + 1].decode("latin-1"))
    if depth and isinstance(value, Mapping):
        return {visible(str(name), 64): _plain(each, depth - 1) for name, each in list(value.items())[:MOST]}
    if depth and isinstance(value, (list, tuple)):
        return [_plain(each, depth - 1) for each in value[:MOST]]
    if depth and isinstance(value, (set, frozenset)):
        return [_plain(each, depth - 1) for each in sorted(value, key=str)[:MOST]]
    return visible(str(value))
