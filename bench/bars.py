"""The bars, and how a figure stands to one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A promise with a number in it."""

    what: str
    measured: float | None
    """None: nothing here could measure it, and `why` says why."""
    limit: float
    unit: str
    at_least: bool = False
    why: str = ""

    @property
    def met(self) -> bool:
        if self.measured is None:
            return False
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "NOT MEASURED"
        return "pass" if self.met else "FAIL"

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        found = self.why if self.measured is None else f"{self.measured:,.4g}{self.unit}"
        return f"{self.verdict}  {self.what}: {found} ({sign} {self.limit:g}{self.unit})"
