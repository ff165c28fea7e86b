"""`make bench`: `python -m bench [throughput|memory|judge|all]`; exit 1 when a bar is not met."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench import document
from bench.load import LoadError

KINDS = ("throughput", "memory", "judge")


def main() -> int:
    """Measure, print one table a kind and every bar; keep them where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="How fast and how large.")
    parser.add_argument("kind", nargs="?", choices=[*KINDS, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of throughput (default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each (default 5)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="subjects whose name has this in it"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    arguments = parser.parse_args()

    everything, met = {}, True
    for kind in KINDS if arguments.kind == "all" else (arguments.kind,):
        try:
            result = _measure(kind, arguments)
        except (LoadError, RuntimeError) as error:
            print(f"\n{kind}: {error}\n", file=sys.stderr)
            met = False
            continue
        bars = result.bars()
        met = met and all(bar.met for bar in bars)
        told = "\n".join([result.markdown(), "", *(f"- {bar}" for bar in bars)])
        print(f"\n{told}\n", flush=True)
        everything[kind] = result.data()
        if arguments.write:
            document.write(kind, told)
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=2) + "\n")
    return 0 if met else 1


def _measure(kind: str, arguments: argparse.Namespace) -> document.Told:
    if kind == "throughput":
        from bench import throughput

        return throughput.measure(arguments.rounds, arguments.seconds, arguments.only)
    if kind == "memory":
        from bench import memory

        return memory.measure()
    from bench import judge

    return judge.measure()


if __name__ == "__main__":
    raise SystemExit(main())
