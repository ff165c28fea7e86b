"""What several commands take and say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.core.errors import Problem


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config`, where the command reads the configuration."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration file (default: $SALLYPORT_CONFIG, else config.yaml)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`, where a script may read the answer."""
    parser.add_argument("--json", action="store_true", help="answer as JSON")


def as_json(value: Any) -> str:
    """Indented JSON."""
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def of_problem(problem: Problem) -> dict[str, Any]:
    """A problem as JSON."""
    return {
        "file": problem.file,
        "line": problem.line,
        "message": problem.message,
        "suggestion": problem.suggestion,
    }


def as_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the heads first, in columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def when(at: float) -> str:
    """Seconds since the epoch, for people: UTC, RFC 3339."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
