"""What several commands take and say."""

from __future__ import annotations

import argparse
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
