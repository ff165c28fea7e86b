"""Messages on standard output, for trying it out. Whoever reads the output reads them all, so it is warned of."""

from __future__ import annotations

import sys
from typing import TextIO

from gateway.core.message import Message, Receipt


class ConsoleSender:
    """A `Sender` that shows what it is given."""

    def __init__(self, out: TextIO | None = None, *, channel: str = "email") -> None:
        self.name = "console" if channel == "email" else f"{channel}-console"
        self._out = out

    async def send(self, message: Message) -> Receipt:
        """As the contract says; it always works."""
        out = self._out or sys.stdout
        about = f": {message.subject}" if message.subject else ""
        print(f"--- to {message.to}{about}\n{message.text}\n---", file=out, flush=True)
        return Receipt()

    async def close(self) -> None:
        """Nothing to let go of."""
