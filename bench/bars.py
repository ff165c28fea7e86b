"""The bars, and how a figure stands to one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A promise with a number in it."""

    what: str
    measured: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        verdict = "pass" if self.met else "FAIL"
        return f"{verdict}  {self.what}: {self.measured:,.4g}{self.unit} ({sign} {self.limit:g}{self.unit})"
