"""E-mail over SMTP (RFC 5321), one connection for each message.

- Implicit TLS (RFC 8314) or STARTTLS; a server that offers none when it should is not spoken to, so nobody on the way
  can talk us out of it. Certificates are verified.
- Headers are made by `email`, which refuses line breaks; addresses are looked at once more before, so that none can be
  two, or end a command.
- Once the whole message has been handed over and no answer comes, nobody knows: `Undelivered.unsure`. It keeps its
  `Message-ID` when it is tried again.
- What servers say is not repeated, for it may hold the address: only their numbers are (RFC 5321, RFC 3463).
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from email.utils import format_datetime
from pathlib import Path
from typing import Literal

import aiosmtplib

from gateway.core.errors import ConfigError, Undelivered
from gateway.core.message import Message, Receipt

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")
_ADDRESS = re.compile(r"[^\s@<>()\[\]:;,\\\"\x00-\x20\x7f-\x9f]{1,64}@[^\s@<>()\\\",;\x00-\x20\x7f-\x9f]{1,255}")


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where it is, and who we are there."""

    host: str
    port: int = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    username: str = ""
    password: str = ""
    ca: Path | None = None
    timeout: float = 10.0
    """Seconds for each step."""

    def __repr__(self) -> str:
        return f"SmtpServer({self.host}:{self.port})"


class SmtpSender:
    """A `Sender` of e-mail. Raises `ConfigError` for authorities that cannot be read."""

    name = "smtp"

    def __init__(self, server: SmtpServer, *, sender: str, our_name: str) -> None:
        """`sender` is what the `From` header says; `our_name` is the host we call ourselves (EHLO, Message-ID)."""
        self._server = server
        self._from = one_address(sender)
        self._our_name = our_name
        self._tls: ssl.SSLContext | None = None
        if server.tls != "none":
            try:
                self._tls = ssl.create_default_context(cafile=server.ca)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"{server.ca}: no authorities can be read from it: {error}") from error
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2

    async def send(self, message: Message) -> Receipt:
        """As the contract says."""
        try:
            written = compose(message, self._from, self._our_name)
        except ValueError as error:
            raise Undelivered("the address or a header cannot be written", final=True) from error
        connection = aiosmtplib.SMTP(
            hostname=self._server.host,
            port=self._server.port,
            timeout=self._server.timeout,
            local_hostname=self._our_name,
            use_tls=self._server.tls == "tls",
            start_tls=self._server.tls == "starttls",
            tls_context=self._tls,
            username=self._server.username or None,
            password=self._server.password or None,
        )
        try:
            return await self._hand_over(connection, message.to, written)
        finally:
            connection.close()

    async def _hand_over(self, connection: aiosmtplib.SMTP, to: str, written: EmailMessage) -> Receipt:
        whole = False
        try:
            await connection.connect()
            beyond_ascii = not (to + self._from.addr_spec).isascii()
            if beyond_ascii:
                await connection.ehlo()
                if not connection.supports_extension("smtputf8"):
                    raise Undelivered("the server takes no addresses beyond ASCII", final=True)
            options = ["SMTPUTF8"] if beyond_ascii else []
            await connection.mail(self._from.addr_spec, options=options, encoding="utf-8")
            await connection.rcpt(to, encoding="utf-8")
            whole = True
            body = written.as_bytes(policy=WIRE.clone(utf8=beyond_ascii))
            answered = await connection.data(body)
        except aiosmtplib.SMTPResponseException as error:
            # A server that does not know us says 5xx too; that is no word about this message.
            final = error.code >= 500 and isinstance(error, _ABOUT_THE_MESSAGE)
            raise Undelivered(_numbers(error.code, error.message), final=final) from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise Undelivered(f"{type(error).__name__}{' after the message' if whole else ''}", unsure=whole) from None
        try:
            async with asyncio.timeout(1.0):
                await connection.quit()
        except (aiosmtplib.SMTPException, OSError, TimeoutError):
            pass  # it has the message
        found = _ENHANCED.search(answered.message)
        return Receipt(f"{answered.code}{' ' + found[0] if found else ''}")

    async def close(self) -> None:
        """No connection outlives its message."""


_ABOUT_THE_MESSAGE = (aiosmtplib.SMTPRecipientRefused, aiosmtplib.SMTPDataError)


def one_address(written: str) -> Address:
    """`Name <user@host>` or `user@host`. Raises ValueError for anything else, and for line breaks."""
    name, bracket, rest = written.rpartition("<")
    spec = rest.removesuffix(">").strip() if bracket else written.strip()
    closed = rest.rstrip().endswith(">") and not set(name) & set("<>@,") if bracket else True
    if not closed or not _ADDRESS.fullmatch(spec) or not written.isprintable():
        raise ValueError("not one e-mail address; write name@host, or Name <name@host>")
    user, _, host = spec.rpartition("@")
    return Address(name.strip().strip('"'), user, host)


def compose(message: Message, sender: Address, our_name: str) -> EmailMessage:
    """What goes over the wire. Raises ValueError for what would be more than one address, or end a header."""
    if not message.subject.isprintable():
        raise ValueError("a subject is one line")
    made = EmailMessage()
    made["From"] = sender
    made["To"] = one_address(message.to)
    made["Subject"] = message.subject
    made["Date"] = format_datetime(datetime.fromtimestamp(message.at, UTC))
    made["Message-ID"] = f"<{message.id}@{our_name}>"
    made["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's machine should answer
    made.set_content(message.text)
    made.add_alternative(message.html, subtype="html")
    return made


def _numbers(code: int, said: str) -> str:
    found = _ENHANCED.search(said)
    return f"the server answered {code}{' ' + found[0] if found else ''}"
