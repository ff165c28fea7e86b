"""A post that keeps what it was given, for who wants to read the codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import UserError

FIELDS = ("channel", "to", "code", "about", "language", "expires_at", "link")


@dataclass(frozen=True)
class Posted:
    """One code on its way."""

    channel: str
    to: str
    code: str
    about: str
    language: str
    expires_at: float
    link: str
    """Token of the link beside it; empty: none."""


@dataclass
class RecordingPost:
    """`core.contracts.Post`, into a list."""

    box: list[Posted] = field(default_factory=list)
    refuses: Exception | None = None
    """Raised instead of taking the next ones."""

    def address(self, channel: str, text: str) -> str:
        canonical = "".join(text.split()).lower()
        if channel == "sms" and not (canonical[:1] == "+" and canonical[1:].isdigit() and len(canonical) <= 16):
            raise UserError("ERR-PHONE-INVALID", "This is not a telephone number.")
        if channel == "email" and not (canonical.find("@") > 0 and len(canonical) <= 254):
            raise UserError("ERR-EMAIL-INVALID", "This is not an e-mail address.")
        return canonical

    async def code(self, connection: AsyncConnection, **said: Any) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.box.append(Posted(*(said[name] for name in FIELDS)))

    @property
    def last(self) -> str:
        """The newest code."""
        return self.box[-1].code
