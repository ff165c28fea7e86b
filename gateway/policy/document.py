"""A YAML file as plain values that remember on which line they stand.

A policy is a security document, so it has one meaning or none. Built from the parser's events, not by a YAML
constructor: no tag can make an object, a key cannot be given twice, a file holds one document, and nothing expands
beyond what a person could have written. Read by libyaml: PyYAML's own parser differs from it in small things, and two
readings of one policy are one too many. Plain scalars follow the YAML 1.2 core schema, so that `18:00` is a time and
not the number 1080, and `no` is the country and not `false`.

Any scalar may take a value from the environment, `${NAME}` or `${NAME:-default}` (`$$` is a dollar sign), and, where
the caller allows it, from a file, `!file path`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gateway.core.errors import ConfigError, Problem

LARGEST = 8 * 1024 * 1024
"""Bytes a file may have."""
DEEPEST = 40
"""How far collections may nest."""
MOST_REPEATED = 100_000
"""How many values aliases may repeat in one file."""
LARGEST_INCLUDED = 64 * 1024
"""Bytes a file named by `!file` may have."""

_NUMBER = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{))")
_STRING_TAGS = ("!", "tag:yaml.org,2002:str")


class Table(dict[str, Any]):
    """A mapping; `lines` tells where each key stands."""

    __slots__ = ("line", "lines", "weight")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}
        self.weight = 1


class Row(list[Any]):
    """A sequence; `lines` tells where each item stands."""

    __slots__ = ("line", "lines", "weight")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: list[int] = []
        self.weight = 1


class Document:
    """What one file says."""

    def __init__(self, file: str, data: Any, line: int, problems: Sequence[Problem] = ()) -> None:
        self.file = file
        self.data = data
        self.line = line
        self.problems = tuple(problems)
        """What is wrong with it that did not keep the rest from being read; `problems.validate` refuses it."""

    def line_of(self, path: tuple[str | int, ...]) -> int:
        """The line of the value at `path`, or of the nearest thing around it that is there."""
        here, line = self.data, self.line
        for step in path:
            if isinstance(here, Table) and isinstance(step, str):
                if step in here:
                    here, line = here[step], here.lines[step]
            elif isinstance(here, Row) and isinstance(step, int) and step < len(here):
                here, line = here[step], here.lines[step]
        return line

    def problem(self, message: str, path: tuple[str | int, ...] = (), suggestion: str = "") -> Problem:
        """A problem with the value at `path`."""
        return Problem(message, self.file, self.line_of(path), suggestion)


def read(
    text: bytes, file: str, *, environ: Mapping[str, str], folder: Path | None = None, nulls: bool = True
) -> Document:
    """Read one file.

    `file` is its name in messages. `folder` is where `!file` looks; without one that tag is unknown. `nulls` False
    refuses a key without a value: a `step_up:` whose lines got lost must not read as no step-up.
    Raises `ConfigError` for what cannot be read at all; lesser problems wait in the document until it is validated,
    so that they are told together with the others.
    """
    problems: list[Problem] = []
    if len(text) > LARGEST:
        raise ConfigError([Problem(f"the file has {len(text)} bytes; at most {LARGEST} are read", file)])
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem("not UTF-8", file, line, "save the file as UTF-8")]) from None
    reader = _Reader(file, problems, environ, folder, nulls)
    try:
        return reader.read(decoded)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.problem, error.context) if part)
        problems.append(Problem(f"not YAML: {message}", file, mark.line + 1 if mark else 0))
    except yaml.YAMLError as error:
        at = getattr(error, "position", None)
        line = decoded.count("\n", 0, at) + 1 if isinstance(at, int) else 0
        problems.append(Problem(f"not YAML: {getattr(error, 'reason', 'unreadable')}", file, line))
    except _Stop:
        pass
    raise ConfigError(sorted(problems, key=lambda problem: problem.line))


class _Stop(Exception):  # noqa: N818 - carries nothing; the problem is in the list
    """What was found makes reading on pointless."""


class _Reader:
    """Turns one stream of parser events into values."""

    def __init__(
        self,
        file: str,
        problems: list[Problem],
        environ: Mapping[str, str],
        folder: Path | None,
        nulls: bool,
    ) -> None:
        self._file = file
        self._problems = problems
        self._environ = environ
        self._folder = folder
        self._nulls = nulls
        self._anchors: dict[str, Any] = {}
        self._repeated = 0
        self._events: Iterator[Any] = iter(())

    def read(self, text: str) -> Document:
        self._events = yaml.parse(text, Loader=yaml.CSafeLoader)
        next(self._events)  # the stream starts
        if isinstance(next(self._events), yaml.StreamEndEvent):
            self._stop(1, "the file is empty")
        event: Any = next(self._events)
        data, _ = self._value(event, 0)
        line = event.start_mark.line + 1
        next(self._events)  # the document ends
        further: Any = next(self._events)
        if not isinstance(further, yaml.StreamEndEvent):
            self._stop(further.start_mark.line + 1, "a second document", "keep one document in a file")
        return Document(self._file, data, line, self._problems)

    def _value(self, event: Any, depth: int) -> tuple[Any, int]:
        """The value that begins with `event`, and how many values it is when written out."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            return self._repeat(str(event.anchor), line)
        if depth > DEEPEST:
            self._stop(line, f"nested deeper than {DEEPEST}")
        if isinstance(event, yaml.ScalarEvent):
            value: Any = self._scalar(event, line)
            weight = 1
        elif isinstance(event, yaml.MappingStartEvent):
            self._no_tag(event, line)
            value = self._table(line, depth)
            weight = value.weight
        else:
            self._no_tag(event, line)
            value = self._row(line, depth)
            weight = value.weight
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value, weight

    def _table(self, line: int, depth: int) -> Table:
        table = Table(line)
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            at = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                self._stop(at, "a key must be a plain word")
            key = str(event.value)
            opening = next(self._events)
            value, weight = self._value(opening, depth + 1)
            table.weight += weight
            if key == "<<":
                self._tell(at, "merge keys (`<<`) are not read", "repeat the values, or use an alias for each")
            elif key in table:
                self._tell(at, f"`{key}` is given twice", f"the first is on line {table.lines[key]}")
            else:
                table[key] = value
                table.lines[key] = at
                if value is None and not self._nulls:
                    self._tell(at, f"`{key}` has no value", "give it one, or remove the key")
        return table

    def _row(self, line: int, depth: int) -> Row:
        row = Row(line)
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            value, weight = self._value(event, depth + 1)
            row.append(value)
            row.lines.append(event.start_mark.line + 1)
            row.weight += weight
        return row

    def _repeat(self, anchor: str, line: int) -> tuple[Any, int]:
        if anchor not in self._anchors:
            self._stop(line, f"the alias `*{anchor}` repeats nothing that is complete before it")
        value = self._anchors[anchor]
        weight: int = value.weight if isinstance(value, Table | Row) else 1
        self._repeated += weight
        if self._repeated > MOST_REPEATED:
            self._stop(line, f"aliases repeat more than {MOST_REPEATED} values")
        return value, weight

    def _scalar(self, event: Any, line: int) -> Any:
        if event.tag == "!file" and self._folder is not None:
            return self._included(self._filled(event.value, line), line)
        if event.tag is not None and event.tag not in _STRING_TAGS:
            self._tell(line, f"the tag `{event.tag}` is not known", "write a plain value")
            return event.value
        value = self._filled(event.value, line)
        # A value from the environment is text; whoever wants a number reads one from it.
        plain = not event.style and event.tag is None and value == event.value
        return _resolved(value) if plain else value

    def _filled(self, text: str, line: int) -> str:
        def value_of(found: re.Match[str]) -> str:
            dollar, name, default, open_only = found.groups()
            if dollar:
                return "$"
            if open_only:
                self._tell(line, "`${` without a name and a closing brace", "write ${NAME} or ${NAME:-default}, or $${")
                return ""
            value = self._environ.get(name)
            if value is None and default is None:
                self._tell(line, f"the environment has no {name}", f"set it, or write ${{{name}:-default}}")
            return value if value is not None else default or ""

        return _VARIABLE.sub(value_of, text) if "$" in text else text

    def _included(self, name: str, line: int) -> str:
        path = (self._folder or Path()) / name
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST_INCLUDED + 1)
            text = content.decode("utf-8")
        except OSError as error:
            self._tell(line, f"the file {path} cannot be read: {error.strerror or error}")
            return ""
        except UnicodeDecodeError:
            self._tell(line, f"the file {path} is not UTF-8")
            return ""
        if len(content) > LARGEST_INCLUDED:
            self._tell(line, f"the file {path} is larger than {LARGEST_INCLUDED} bytes")
            return ""
        return text.rstrip("\r\n")

    def _no_tag(self, event: Any, line: int) -> None:
        if event.tag is not None and event.tag != "!":
            self._tell(line, f"the tag `{event.tag}` is not known", "write a plain value")

    def _tell(self, line: int, message: str, suggestion: str = "") -> None:
        self._problems.append(Problem(message, self._file, line, suggestion))

    def _stop(self, line: int, message: str, suggestion: str = "") -> None:
        self._tell(line, message, suggestion)
        raise _Stop


def _resolved(text: str) -> Any:
    """A plain scalar's value in the YAML 1.2 core schema, without infinities."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= 40:
        if _NUMBER.fullmatch(text):
            # base 0 would refuse 010, which is ten here as in YAML 1.2
            return int(text, 16 if text.startswith("0x") else 8 if text.startswith("0o") else 10)
        if _FRACTION.fullmatch(text):
            return float(text)
    return text
