"""`sallyport test`: ask the policy the questions of its test files, and show how each was answered."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.common import add_config, add_json, as_json

if TYPE_CHECKING:
    from gateway.policy.book import Book
    from gateway.policy.examples import Judgement
    from gateway.settings import Settings


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `test` to the command line."""
    parser = subparsers.add_parser(
        "test",
        help="run policy tests",
        description="Judge the examples in policy files, and those in test files (*.test.yaml). Without FILE: the "
        "policies of the configuration, and the test files beside them. Exit 1 when an answer is not the expected one.",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="policy files, folders or test files")
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Judge, show, and return 0 or 1."""
    from gateway import settings

    read = settings.load(args.config, os.environ)
    judgements: list[Judgement] = []
    for path in args.files or [read.policies]:
        judgements += _judged(path, read)
    wrong = sum(judgement.problem is not None for judgement in judgements)
    if args.json:
        print(as_json({"ok": not wrong, "examples": [_of(judgement) for judgement in judgements]}))
        return 1 if wrong else 0
    _show(judgements)
    print(f"\n{len(judgements)} examples, {wrong} wrong" if judgements else "no examples")
    return 1 if wrong else 0


def _judged(path: Path, settings: Settings) -> list[Judgement]:
    """How the examples at `path` come out. Raises `ConfigError`."""
    if path.is_file() and ".test." in path.name:
        return _of_test_file(path, settings)
    _, judgements = _read(path, settings)
    if path.is_dir():
        for file in sorted(path.glob("*.test.y*ml")):
            judgements += _of_test_file(file, settings)
    return judgements


def _of_test_file(file: Path, settings: Settings) -> list[Judgement]:
    from gateway.policy.examples import judge
    from gateway.policy.load import read_test
    from gateway.wire.target import readings

    text, written = read_test(file)
    book, _ = _read(file.parent / text.policy if text.policy is not None else settings.policies, settings)
    return [
        judge(
            example,
            book,
            settings.mfa.factors,
            f"{written.file}:{written.line_of(('examples', position))}",
            readings=readings,
        )
        for position, example in enumerate(text.examples)
    ]


def _read(path: Path, settings: Settings) -> tuple[Book, list[Judgement]]:
    from gateway.policy import load
    from gateway.wire.target import readings

    return load.read(
        path,
        upstreams=settings.upstreams,
        factors=settings.mfa.factors,
        admin_groups=settings.mfa.required_groups,
        trusted=settings.mfa.trusted,
        people=settings.store.keeps_records,
        counters=settings.store.counts,
        together=settings.store.counts_together,
        lifetimes=settings.sessions.lifetimes,
        readings=readings,
    )


def _show(judgements: list[Judgement]) -> None:
    rows = [
        (
            "ok" if judgement.problem is None else "WRONG",
            judgement.where,
            judgement.example.request,
            judgement.example.as_.user if judgement.example.as_ is not None else "-",
            judgement.example.expect,
            judgement.answer,
            judgement.rule or "-",
            ", ".join(judgement.reasons),
        )
        for judgement in judgements
    ]
    if not rows:
        return
    heads = ("", "where", "request", "as", "expected", "answer", "rule", "because")
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    # The table says what came out; what cannot be seen in it is said in words.
    for judgement in judgements:
        if judgement.problem is not None:
            print(judgement.problem)


def _of(judgement: Judgement) -> dict[str, Any]:
    return {
        "ok": judgement.problem is None,
        "where": judgement.where,
        "request": judgement.example.request,
        "expected": judgement.example.expect,
        "answer": judgement.answer,
        "rule": judgement.rule,
        "reasons": [reason.value for reason in judgement.reasons],
        "problem": judgement.problem.message if judgement.problem is not None else "",
    }
