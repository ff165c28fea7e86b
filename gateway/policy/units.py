"""Durations, sizes and rates as people write them, and the field types that read them."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, WithJsonSchema

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_DURATIONS = re.compile(rf"(?:{_DURATION.pattern})+")
_SIZE = re.compile(r"([0-9]{1,15})([kKmMgG]?)(?:i?[bB])?")
_PERCENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%")
_RATE = re.compile(r"([0-9]{1,9})/([0-9]{1,6})?(s|m|h|d)")


def duration(text: Any) -> float:
    """Seconds in `10m`, `1h30m`, `500ms`. Raises ValueError; a number without a unit is not a duration."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        if text == 0:
            return 0.0
        raise ValueError(f"{text} is not a duration; write {text}s, or minutes as {text}m")
    if not isinstance(text, str) or not _DURATIONS.fullmatch(text):
        raise ValueError("not a duration; write 30s, 10m, 1h30m or 7d")
    return sum(float(count) * _SECONDS[unit] for count, unit in _DURATION.findall(text))


def size(text: Any) -> int:
    """Bytes in `32k`, `8M`, `1G` (powers of 1024) or a plain number. Raises ValueError."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("not a size; write 512, 32k, 8M or 1G")
    return int(found.group(1)) * _BYTES[found.group(2).lower()]


def percent(text: Any) -> float:
    """The share in `20%`: 0.2. Raises ValueError."""
    found = _PERCENT.fullmatch(text) if isinstance(text, str) else None
    if found is None or float(found.group(1)) > 100:
        raise ValueError("not a share; write 20%")
    return float(found.group(1)) / 100


class Rate(NamedTuple):
    """`many` in every `window` seconds."""

    many: int
    window: float


def rate(text: Any) -> Rate:
    """`100/m`, `5/s`, `1000/h`, `10/30s`. Raises ValueError."""
    found = _RATE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("not a rate; write 5/s, 100/m, 1000/h or 10/30s")
    number, windows, unit = found.groups()
    read = Rate(int(number), int(windows or 1) * _SECONDS[unit])
    if read.many < 1 or read.window <= 0:
        raise ValueError("a rate lets at least one through in a time that is not zero")
    return read


Duration = Annotated[
    float,
    BeforeValidator(duration),
    WithJsonSchema({"type": "string", "title": "Duration", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"}),
]
"""Seconds, written `10m`."""

Size = Annotated[
    int,
    BeforeValidator(size),
    WithJsonSchema({"type": ["string", "integer"], "title": "Size", "pattern": r"^[0-9]+[kKmMgG]?(i?[bB])?$"}),
]
"""Bytes, written `32k`."""

Percent = Annotated[
    float,
    BeforeValidator(percent),
    WithJsonSchema({"type": "string", "title": "Percent", "pattern": r"^[0-9]{1,3}(\.[0-9]+)?%$"}),
]
"""A share from 0.0 to 1.0, written `20%`."""

RateField = Annotated[
    Rate,
    BeforeValidator(rate),
    WithJsonSchema({"type": "string", "title": "Rate", "pattern": r"^[0-9]+/[0-9]*(s|m|h|d)$"}),
]
"""A `Rate`, written `100/m`."""
