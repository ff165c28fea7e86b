"""`sallyport check`: is the configuration, and are the policies, fit to run with? Every problem at once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.commands.common import add_config, add_json, as_json, of_problem
from gateway.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from gateway.policy.book import Book


class _Surroundings(NamedTuple):
    """What the policies need to know of the configuration."""

    policies: Path
    upstreams: Collection[str]
    factors: Collection[str]
    admin_groups: Collection[str]
    people: bool
    counters: bool
    together: bool = True
    lifetimes: tuple[float, float] | None = None
    trusted: float = 0.0


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `check` to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="check config and policies",
        description="Check the configuration and the policies, examples included. Every problem is told at once, "
        "with file, line and what to do. Exit 0: fit to run with. Exit 1: not.",
    )
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Check, tell, and return 0 or 1."""
    problems, warnings, book = _looked_at(args.config, os.environ)
    if args.json:
        report = {
            "ok": not problems,
            "problems": [of_problem(problem) for problem in problems],
            "warnings": [of_problem(problem) for problem in warnings],
            "rules": len(book.rules) if book is not None else 0,
        }
        print(as_json(report))
        return 1 if problems else 0
    for problem in problems:
        print(problem)
    for warning in warnings:
        print(f"{warning} [warning]")
    if problems:
        print(f"\n{len(problems)} problem{'s' if len(problems) > 1 else ''}")
        return 1
    print(f"good: {len(book.rules) if book is not None else 0} rules")
    return 0


def check(config: Path | None, environ: Mapping[str, str]) -> tuple[list[Problem], Book | None]:
    """Every problem of configuration and policies, and the book where there is none."""
    problems, _, book = _looked_at(config, environ)
    return problems, book


def _looked_at(
    config: Path | None, environ: Mapping[str, str]
) -> tuple[list[Problem], tuple[Problem, ...], Book | None]:
    """Problems, warnings, and the book where there is no problem."""
    from gateway import services, settings
    from gateway.app import open_tls
    from gateway.policy.load import load
    from gateway.wire.target import readings

    problems: list[Problem] = []
    warnings: tuple[Problem, ...] = ()
    around: _Surroundings | None
    try:
        read = settings.load(config, environ)
        warnings = read.warnings
        for listen in read.listen:
            try:
                open_tls(listen)
            except ConfigError as error:
                problems += error.problems
        for name, upstream in read.upstreams.items():
            try:
                services.open_tls(name, upstream)
            except ConfigError as error:
                problems += error.problems
        around = _Surroundings(
            read.policies,
            read.upstreams,
            read.mfa.factors,
            read.mfa.required_groups,
            read.store.keeps_records,
            read.store.counts,
            read.store.counts_together,
            read.sessions.lifetimes,
            read.mfa.trusted,
        )
    except ConfigError as error:
        problems += error.problems
        around = _as_far_as_readable(config, environ)
    book = None
    if around is not None:
        try:
            book = load(
                around.policies,
                upstreams=around.upstreams,
                factors=around.factors,
                admin_groups=around.admin_groups,
                people=around.people,
                counters=around.counters,
                together=around.together,
                lifetimes=around.lifetimes,
                trusted=around.trusted,
                environ=environ,
                readings=readings,
            )
        except ConfigError as error:
            problems += error.problems
    if book is not None:
        warnings += book.warnings
    return problems, warnings, None if problems else book


def _as_far_as_readable(config: Path | None, environ: Mapping[str, str]) -> _Surroundings | None:
    """The same from a configuration with mistakes, so that those of the policies are told with them."""
    from gateway import settings
    from gateway.policy import document

    path = settings.path_of(config, environ)
    try:
        data = document.read(path.read_bytes(), str(path), environ=environ, folder=path.parent).data
    except (OSError, ConfigError):
        return None
    data = _mapping(data)
    mfa, store = _mapping(data.get("mfa")), _mapping(data.get("store"))
    offered = {"totp": "totp", "backup_codes": "backup_code"}  # where nothing is said of them
    wanted = [name for name in ("webauthn", "sms", "email") if mfa.get(name) is not None]
    groups = mfa.get("required_groups", ["admins"])
    return _Surroundings(
        policies=path.parent / str(data.get("policies") or "policies"),
        upstreams=tuple(_mapping(data.get("upstreams"))),
        factors=[*wanted, *(name for key, name in offered.items() if mfa.get(key, {}) is not None)],
        admin_groups=[str(group) for group in groups] if isinstance(groups, list) else ["admins"],
        people=store.get("records") != settings.NONE,
        counters=store.get("shared") != settings.NONE,
        trusted=0.0 if mfa.get("trusted_devices") is None else 86400.0,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
