"""Sentences for people, which remember how they were made, so that they can be said again in another language.

    raise UserError("ERR-MFA-TOO-MANY", say("You have {count} security keys already.", count=10), 409)

What is said is English, and a `str` like any other: logs, tests, the command line and whoever knows of no language take
it as it is. Where it is shown to somebody (`web`, `notify`), `core.languages` says it in theirs. So a room that has
something to tell knows of no request, and nobody hands languages through rooms that have no use for them.

`say` and `say_n` are also the marks by which the catalogue is made: their first argument is written out where they are
called, in one whole sentence, for other languages put words in another order. Values are put in by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

_MARK: Final = "said"


class Said(str):
    """What was said, in English. Compared, hashed and written as that text; joined to other text it is text alone."""

    __slots__ = ("many", "text", "values")

    text: str
    """With `{names}` where values belong."""
    many: str
    """The same for any number but one; empty where nothing is counted."""
    values: Mapping[str, Any]
    """By name; some are `Said` themselves. `count` is what is counted."""

    def __new__(cls, text: str, many: str, values: Mapping[str, Any]) -> Said:
        """`text`, or `many` where `values["count"]` is not one, with the values put in."""
        written = many if many and values["count"] != 1 else text
        made = super().__new__(cls, written.format_map(values) if values else written)
        made.text, made.many, made.values = text, many, values
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies."""
        return Said, (self.text, self.many, dict(self.values))


def say(text: str, /, **values: object) -> Said:
    """`text` with `values`; marks it for the catalogue."""
    return Said(text, "", values)


def say_n(one: str, many: str, count: int, /, **values: object) -> Said:
    """`one` where `count` is one, else `many`; `{count}` is the number in both. Marks them for the catalogue."""
    return Said(one, many, {"count": count, **values})


def sentences(*parts: str) -> Said:
    """Several sentences one after the other; empty ones are left out."""
    there = [part for part in parts if part]
    return Said(" ".join(f"{{{number}}}" for number in map("_{}".format, range(len(there)))), "",
                {f"_{number}": part for number, part in enumerate(there)})  # fmt: skip


def date(at: datetime) -> Said:
    """`12 February 2027`."""
    return say("{day} {month} {year}", day=at.day, month=MONTHS[at.month - 1], year=at.year)


def date_and_time(at: datetime) -> Said:
    """`12 February 2027, 14:05 UTC`."""
    return say("{date}, {time} UTC", date=date(at), time=at.strftime("%H:%M"))


MONTHS: Final = (
    say("January"),
    say("February"),
    say("March"),
    say("April"),
    say("May"),
    say("June"),
    say("July"),
    say("August"),
    say("September"),
    say("October"),
    say("November"),
    say("December"),
)


def packed(value: Any) -> Any:
    """`value` as JSON can hold it, with what was said in it."""
    if isinstance(value, Said):
        return {_MARK: [value.text, value.many, packed(value.values)]}
    if isinstance(value, Mapping):
        return {name: packed(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [packed(one) for one in value]
    return value


def unpacked(value: Any) -> Any:
    """What was packed."""
    if isinstance(value, Mapping):
        if value.keys() == {_MARK}:
            text, many, values = value[_MARK]
            return Said(text, many, unpacked(values))
        return {name: unpacked(one) for name, one in value.items()}
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    return value
