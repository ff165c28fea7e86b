"""Path patterns: `*` stands for anything within a segment, `**` for any number of whole segments, also none.

A pattern speaks about the whole path, from its beginning to its end, segment by segment; a slash at the end of the
path or the pattern changes nothing. Matching never backtracks further than the last star, so its time is bounded by
path length × pattern length whatever a client sends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f\\?#]")


def segments(path: str) -> list[str]:
    """The segments of a canonical path; `/` has none."""
    return [segment for segment in path.split("/") if segment]


class Glob:
    """One compiled pattern."""

    __slots__ = ("_chunks", "_depth", "_exact", "head", "literals", "text")

    def __init__(self, text: str) -> None:
        """Compile `text`. Raises ValueError with what is wrong."""
        _check(text)
        self.text = text
        parts = segments(text)
        self._depth = next((i for i, part in enumerate(parts) if "*" in part), len(parts))
        self.head = tuple(parts[: self._depth])
        """The literal segments it begins with; an index need not compare them again."""
        self.literals = tuple(part for part in parts[self._depth :] if "*" not in part)
        """The literal segments after that: a path without them is not meant."""
        chunks: list[list[_Segment]] = [[]]
        for part in parts[self._depth :]:
            if part == "**":
                chunks.append([])
            else:
                chunks[-1].append(_Segment(part))
        self._chunks = chunks
        self._exact = self._depth == len(parts)

    @property
    def everything(self) -> bool:
        """Whether no path is left out."""
        return not self.head and len(self._chunks) > 1 and not any(self._chunks)

    @property
    def subtree(self) -> bool:
        """Whether it is its head and all that is below, as `/a/**`."""
        return self._chunks == [[], []]

    def match(self, path: Sequence[str]) -> bool:
        """Whether the path with these segments is meant."""
        return tuple(path[: self._depth]) == self.head and self.match_rest(path)

    def match_rest(self, path: Sequence[str]) -> bool:
        """The same for a path that is known to begin with `head`."""
        at, end = self._depth, len(path)
        if self._exact:
            return at == end
        first, *between = self._chunks
        if not between:
            return end - at == len(first) and _here(first, path, at)
        last = between.pop()
        if end - at < len(first) + len(last) or not _here(first, path, at):
            return False
        at, end = at + len(first), end - len(last)
        if not _here(last, path, end):
            return False
        for chunk in between:
            while at + len(chunk) <= end and not _here(chunk, path, at):
                at += 1
            at += len(chunk)
            if at > end:
                return False
        return True

    def covers(self, other: Glob) -> bool:
        """Whether every path of `other` is surely one of this one; False where that takes thought."""
        if self.text == other.text:
            return True
        return self.subtree and other.head[: self._depth] == self.head

    def lower(self) -> Glob:
        """The same pattern for services that ignore letter case."""
        return Glob(self.text.lower())


class _Segment:
    """One segment of a pattern: literal pieces with stars between them."""

    __slots__ = ("_first", "_inner", "_last", "_least")

    def __init__(self, text: str) -> None:
        self._first, *rest = text.split("*")
        self._last = rest.pop() if rest else None
        self._inner = [piece for piece in rest if piece]
        self._least = len(self._first) + len(self._last or "")

    def match(self, segment: str) -> bool:
        if self._last is None:
            return segment == self._first
        if len(segment) < self._least or not segment.startswith(self._first) or not segment.endswith(self._last):
            return False
        at, end = len(self._first), len(segment) - len(self._last)
        for piece in self._inner:
            found = segment.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True


def _here(chunk: list[_Segment], path: Sequence[str], at: int) -> bool:
    return all(part.match(path[at + i]) for i, part in enumerate(chunk))


def _check(text: str) -> None:
    if not text.startswith("/"):
        raise ValueError(f"the path `{text}` does not start with a slash")
    if "?" in text or "#" in text:
        raise ValueError("a path pattern holds no query and no fragment; use `query` for parameters")
    if _CONTROL.search(text):
        raise ValueError("a path pattern holds no backslash and no control character")
    if "%" in text:
        raise ValueError("paths are matched percent-decoded; write the character itself")
    if "//" in text:
        raise ValueError("repeated slashes are merged before matching; write one")
    for part in segments(text):
        if part in (".", ".."):
            raise ValueError("dot segments are resolved before matching; write the final path")
        if "**" in part and part != "**":
            raise ValueError("`**` must be a whole segment, as in /a/**/b")
