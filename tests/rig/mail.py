"""A mail server, a real one, that can be told to misbehave."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class MailServer:
    """Takes messages into `box`, or answers what it was told to."""

    box: list[EmailMessage] = field(default_factory=list)
    to: list[str] = field(default_factory=list)
    rcpt: list[str] = field(default_factory=list)
    """Answers to the next recipients, instead of yes."""
    data: list[str] = field(default_factory=list)
    """The same for the next messages; `cut`: take it, and hang up without a word."""
    late: float = 0.0
    """Seconds before a message is answered."""
    user: str = ""
    password: str = ""
    port: int = 0
    connections: int = 0

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.rcpt:
            return self.rcpt.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        answer = self.data.pop(0) if self.data else "250 2.0.0 OK queued"
        if self.late:
            await asyncio.sleep(self.late)
        if answer.startswith("250") or answer == "cut":
            raw = cast(bytes, envelope.content)
            self.box.append(cast(EmailMessage, message_from_bytes(raw, policy=policy.default)))
            self.to += envelope.rcpt_tos
        if answer == "cut":
            cast(Any, server).transport.abort()
        return answer

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, how: str, given: Any) -> AuthResult:
        right = isinstance(given, LoginPassword) and (given.login, given.password) == (
            self.user.encode(),
            self.password.encode(),
        )
        return AuthResult(success=right, handled=False)  # else nobody is answered whose password is wrong


@asynccontextmanager
async def mail_server(
    *, starttls: ssl.SSLContext | None = None, tls: ssl.SSLContext | None = None, user: str = "", password: str = ""
) -> AsyncIterator[MailServer]:
    """On a port of its own; with `user` nobody else may send."""
    rig = MailServer(user=user, password=password)

    def protocol() -> SMTP:
        rig.connections += 1
        return SMTP(
            rig,
            hostname="mail.test",
            enable_SMTPUTF8=True,
            tls_context=starttls,
            require_starttls=starttls is not None,
            auth_required=bool(user),
            auth_require_tls=starttls is not None,
            authenticator=rig.authenticate if user else None,
            timeout=5,
        )

    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=tls)
    rig.port = server.sockets[0].getsockname()[1]
    try:
        yield rig
    finally:
        server.close()
