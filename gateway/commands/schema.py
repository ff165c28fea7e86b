"""`sallyport schema`: JSON Schemas for editors, and the references made from the same models."""

from __future__ import annotations

import argparse
from pathlib import Path

from gateway.commands.common import as_json


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `schema` to the command line."""
    parser = subparsers.add_parser(
        "schema",
        help="print JSON Schemas and references",
        description="Print the JSON Schema of a kind of file, or its reference in Markdown. An editor with a YAML "
        "language server finds the schema by the line `# yaml-language-server: $schema=FILE`.",
    )
    parser.add_argument("kind", nargs="?", choices=("config", "policy", "test"), help="which kind of file")
    parser.add_argument("--markdown", action="store_true", help="the reference instead of the schema")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write all of them under FOLDER")
    parser.set_defaults(misused=parser.error)


def run(args: argparse.Namespace) -> int:
    """Print or write; return 0."""
    from gateway.commands import reference

    if args.write is not None:
        for file in reference.write(args.write):
            print(file)
        return 0
    if args.kind is None:
        args.misused("say which: config, policy or test")
    if args.markdown and args.kind == "test":
        args.misused("the reference of policy files covers test files")
    print(reference.markdown_of(args.kind) if args.markdown else as_json(reference.schema_of(args.kind)))
    return 0
