"""`make bench`: `python -m bench [all|throughput|openloop|…]`; exit 1 when a bar is not met."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

from bench import document
from bench.bars import Bar
from bench.load import LoadError
from bench.options import Gateway, Options, installed
from bench.subjects import LeftOutError

KINDS = (
    "throughput",
    "openloop",
    "forward_auth",
    "rules",
    "bodies",
    "memory",
    "connections",
    "overload",
    "judge",
    "limits",
    "shared",
    "kept",
    "factors",
)
"""Each is a module of this package with `measure(options)`."""


def main() -> int:
    """Measure, print one table a kind and every bar; keep them where asked."""
    arguments = _arguments()
    options = Options(
        arguments.rounds, arguments.seconds, tuple(arguments.only), tuple(arguments.gateway) or installed()
    )
    everything: dict[str, object] = {}
    bars: list[Bar] = []
    broken = []
    for kind in KINDS if arguments.kind == "all" else (arguments.kind,):
        try:
            result: document.Told = import_module(f"bench.{kind}").measure(options)
        except (LoadError, LeftOutError, RuntimeError) as error:
            print(f"\n{kind}: {error}\n", file=sys.stderr)
            broken.append(kind)
            continue
        told = "\n".join([result.markdown(), "", *(f"- {bar}" for bar in result.bars())])
        print(f"\n{told}\n", flush=True)
        bars += result.bars()
        everything[kind] = result.data() | {"bars": [document.bar(bar) for bar in result.bars()]}
        if arguments.write:
            document.write(kind, told)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=2) + "\n")
    print("\n".join(["All bars:", *(f"  {bar}" for bar in bars), *(f"  BROKEN  {kind}" for kind in broken)]))
    return 1 if broken or any(bar.verdict == "FAIL" for bar in bars) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="How fast and how large.")
    parser.add_argument("kind", nargs="?", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (throughput 5, others 3)")
    parser.add_argument("--seconds", type=int, help="whole seconds of each (throughput 5, others 3 or 2)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="subjects whose name has this in it"
    )
    parser.add_argument(
        "--gateway",
        action="append",
        default=[],
        type=Gateway.parse,
        metavar="[LABEL=]PYTHON",
        help="the interpreter that has the gateway; again for one more row; the bars are about the first",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    arguments = parser.parse_args()
    if any(number is not None and number < 1 for number in (arguments.rounds, arguments.seconds)):
        parser.error("rounds and seconds are at least 1")
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
