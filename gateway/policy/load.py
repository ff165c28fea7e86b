"""Policy files to a book: all of it, or nothing and every reason why not.

A folder's files are read in name order; names that begin with a dot (Kubernetes' `..data`) and tests
(`*.test.yaml`) are not policy. While a folder is being written, two readings of it differ: it is read until two agree,
so that a book is never made of half an old and half a new policy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError

from gateway.core.clock import Clock, SystemClock
from gateway.core.errors import ConfigError, Problem
from gateway.policy import document, problems
from gateway.policy.book import Book
from gateway.policy.compile import Compiler, Surroundings
from gateway.policy.document import Document, Row, Table
from gateway.policy.examples import Judgement, Readings, judge
from gateway.policy.schema import PolicyText, RuleText, TestText

_TRIES = 5

Contents = tuple[tuple[Path, bytes], ...]
"""File and what was in it, in name order."""


def contents(path: Path) -> Contents:
    """The policy files at `path`, a folder or one file. Raises OSError."""
    files = sorted(file for file in path.iterdir() if _is_policy(file)) if path.is_dir() else [path]
    return tuple((file, file.read_bytes()) for file in files)


def digest(read: Contents) -> str:
    """A hash over names and contents, in hexadecimal."""
    total = hashlib.sha256()
    for file, text in read:
        for part in (file.name.encode("utf-8", "surrogateescape"), text):
            total.update(len(part).to_bytes(8, "big"))
            total.update(part)
    return total.hexdigest()


def load(
    path: Path,
    *,
    upstreams: Collection[str],
    factors: Collection[str],
    admin_groups: Collection[str],
    people: bool = True,
    counters: bool = True,
    together: bool = True,
    lifetimes: tuple[float, float] | None = None,
    trusted: float = 0.0,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    readings: Readings | None = None,
) -> Book:
    """The book of the policy at `path`, its examples judged. Raises `ConfigError` with every problem.

    `people` and `counters`: whether rules may ask who somebody is, and how often; `together`: whether replicas count
    together; `lifetimes`: how long sessions live, in seconds of rest and in seconds in all; `trusted`: how
    long a browser can be trusted, in seconds, 0.0 for never. `readings` gives the other
    paths a service might take a path for, so that examples meet what requests meet.
    """
    book, judgements = read(
        path,
        upstreams=upstreams,
        factors=factors,
        admin_groups=admin_groups,
        people=people,
        counters=counters,
        together=together,
        lifetimes=lifetimes,
        trusted=trusted,
        clock=clock,
        environ=environ,
        readings=readings,
    )
    wrong = [judgement.problem for judgement in judgements if judgement.problem is not None]
    if wrong:
        raise ConfigError(wrong)
    return book


def read(
    path: Path,
    *,
    upstreams: Collection[str],
    factors: Collection[str],
    admin_groups: Collection[str],
    people: bool = True,
    counters: bool = True,
    together: bool = True,
    lifetimes: tuple[float, float] | None = None,
    trusted: float = 0.0,
    clock: Clock | None = None,
    environ: Mapping[str, str] | None = None,
    readings: Readings | None = None,
) -> tuple[Book, list[Judgement]]:
    """The same, with how each example came out instead of an error where one is wrong."""
    clock = clock or SystemClock()
    environ = os.environ if environ is None else environ
    found = _settled(path)
    compiler = Compiler(Surroundings(upstreams, factors, admin_groups, people, counters, together, lifetimes, trusted))
    texts: list[tuple[Document, PolicyText]] = []
    for file, text in found:
        try:
            written = document.read(text, str(file), environ=environ, nulls=False)
        except ConfigError as error:
            compiler.problems += error.problems
            continue
        try:
            policy = problems.validate(PolicyText, written)
        except ConfigError as error:
            compiler.problems += error.problems
            compiler.add(_readable(written), written)  # its other mistakes are told in the same breath
            continue
        texts.append((written, policy))
        compiler.add(policy.rules, written)
    if not compiler.entries and not compiler.problems:
        message = "no rule in any policy file: everything would be refused"
        compiler.problems.append(Problem(message, str(path), suggestion="write one rule at least"))
    if compiler.problems:
        raise ConfigError(sorted(compiler.problems, key=lambda problem: (problem.file, problem.line)))
    book = Book(compiler.entries, digest=digest(found), clock=clock, warnings=tuple(compiler.warnings))
    now = clock.now()
    return book, [
        judge(
            example, book, factors, f"{written.file}:{written.line_of(('examples', position))}", now, readings=readings
        )
        for written, policy in texts
        for position, example in enumerate(policy.examples)
    ]


def read_test(file: Path, *, environ: Mapping[str, str] | None = None) -> tuple[TestText, Document]:
    """A policy test file. Raises `ConfigError` with every problem."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(f"cannot be read: {error.strerror or error}", str(file))]) from None
    written = document.read(text, str(file), environ=os.environ if environ is None else environ, nulls=False)
    return problems.validate(TestText, written), written


def _readable(written: Document) -> list[RuleText | None]:
    """The rules of a file with mistakes; None in place of each that has one."""
    rules = written.data.get("rules") if isinstance(written.data, Table) else None
    found: list[RuleText | None] = []
    for rule in rules if isinstance(rules, Row) else ():
        try:
            found.append(RuleText.model_validate(rule))
        except ValidationError:
            found.append(None)
    return found


def _is_policy(file: Path) -> bool:
    name = file.name
    return name.endswith((".yaml", ".yml")) and not name.startswith(".") and ".test." not in name and file.is_file()


def _settled(path: Path) -> Contents:
    try:
        before = contents(path)
        for _ in range(_TRIES):
            after = contents(path)
            if after == before:
                break
            before = after
        else:
            raise ConfigError(
                [Problem("the policy keeps changing while it is read", str(path), suggestion="try again")]
            )
    except OSError as error:
        name = str(error.filename or path)
        suggestion = "`policies` in config.yaml says where they are"
        raise ConfigError(
            [Problem(f"cannot be read: {error.strerror or error}", name, suggestion=suggestion)]
        ) from None
    if not before:
        raise ConfigError([Problem("no policy file (*.yaml) here", str(path), suggestion="add one")])
    return before
