"""What the command line asks of every kind of measurement."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from bench.machine import ROOT


@dataclass(frozen=True)
class Gateway:
    """One installation of the gateway: the interpreter whose packages it is among, and what its row is called."""

    interpreter: str = sys.executable
    label: str = ""

    @property
    def name(self) -> str:
        return f"Sallyport {self.label}".strip()

    @classmethod
    def parse(cls, text: str) -> Gateway:
        """`LABEL=INTERPRETER`, or an interpreter alone."""
        label, separate, interpreter = text.partition("=")
        return cls(interpreter, label) if separate else cls(text)


def installed() -> tuple[Gateway, ...]:
    """What the image runs, and the same files as plain Python beside it; or only that, where nothing was compiled."""
    compiled = ROOT / "build" / "compiled" / "python"
    return (Gateway(str(compiled)), Gateway(label="as plain Python")) if compiled.exists() else (Gateway(),)


@dataclass(frozen=True)
class Options:
    """How long, and of what; what is None is for each measurement to say."""

    rounds: int | None = None
    seconds: int | None = None
    only: tuple[str, ...] = ()
    gateways: tuple[Gateway, ...] = field(default_factory=installed)
    """The bars are about the first; the others stand beside it."""

    def wants(self, name: str) -> bool:
        return not self.only or any(word.lower() in name.lower() for word in self.only)
