"""Puts a table between its markers in docs/performance.md."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Protocol

from bench.bars import Bar
from bench.machine import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"


class Told(Protocol):
    """What every kind of measurement comes back with."""

    def markdown(self) -> str: ...

    def bars(self) -> list[Bar]: ...

    def data(self) -> dict[str, object]: ...


def bar(each: Bar) -> dict[str, object]:
    """For `--json`."""
    return asdict(each) | {"verdict": each.verdict}


def write(kind: str, text: str) -> None:
    """Replace what stands between `<!-- bench:kind -->` and `<!-- /bench:kind -->`."""
    begin, end = f"<!-- bench:{kind} -->", f"<!-- /bench:{kind} -->"
    before, found, rest = DOCUMENT.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise RuntimeError(f"{DOCUMENT} has no {begin} … {end}")
    lines = [piece for line in text.splitlines() for piece in ([line] if line.startswith("|") else _folded(line))]
    DOCUMENT.write_text("\n".join([before + begin, *lines, end + after]))


def _folded(line: str) -> list[str]:
    """A line of prose in lines that a terminal shows whole."""
    return textwrap.wrap(line, 118) or [line]
