"""Codes on their way to people: rows of the outbox, which a gateway sends within a second.

The code is sealed, bound to its row, until it is sent or its time is over: who reads the database, or a backup of it,
reads none. So is the link that comes with it, which begins with the configured `public_url`, whatever host a browser
or a proxy has named. What is said around them is in clear, and says nothing that is secret. Whether too many were sent
to somebody is asked here, where they can be told; a code that waits for its turn would be of no use when it comes.

Where nothing is sent (it bounced, operators have named it) all of it is done as well, and the row given up in the
moment it is written: who asks with a stolen session learns nothing of the mailbox, by what they are told nor by how
long that takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.errors import Undelivered, UserError
from gateway.core.words import packed, say
from gateway.crypto.sealing import Sealer, Unsealable
from gateway.mfa.addressees import Addressees
from gateway.store.outbox_table import crowded, new_token, put
from gateway.store.suppressed_table import is_suppressed
from gateway.store.tables import users

KIND: Final = "code"
"""What the rows of all codes are."""

LATER: Final = 60.0
"""Seconds after which to try again where too many wait."""

IGNORE: Final = say("If you did not ask for it, you need not do anything. Tell it to nobody: we never ask for it.")
WORDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "verify": (
        say("Your code to confirm that it is you"),
        say("Somebody who signs in to your account has to confirm that it is you. This is the code:"),
        say(
            "If it was not you, somebody knows your password: change it. Tell this code to nobody: we never ask for it."
        ),
    ),
    "enrol": (
        say("Your code to confirm this address"),
        say("This address is being added to an account. This is the code that confirms that it is yours:"),
        IGNORE,
    ),
    "confirm": (
        say("Your code to confirm the address of your account"),
        say(
            "Somebody who is signed in to your account wants to confirm that you read what is sent here. This is the "
            "code:"
        ),
        say(
            "If it was not you, somebody else is signed in to your account: change your password. Tell this code to "
            "nobody: we never ask for it."
        ),
    ),
    "recover": (
        say("Your code to get back into your account"),
        say("Somebody has asked to get back into your account. This is the code:"),
        IGNORE,
    ),
}
"""By what it is about: the subject, what happened, what to do."""

Spelled = Callable[[str], str]
"""The one spelling of an address. Raises `UserError`."""


class Sealed(Protocol):
    """A row of the outbox; `notify.outbox.Parcel`."""

    @property
    def tenant(self) -> str:
        """Whose it is."""
        ...

    @property
    def token(self) -> str:
        """Its own."""
        ...

    @property
    def sealed(self) -> bytes | None:
        """The code, and the link that comes with it."""
        ...


class Posted:
    """A `Post`, over the outbox."""

    def __init__(
        self,
        sealer: Sealer,
        addressees: Addressees,
        clock: Clock,
        *,
        channels: Mapping[str, Spelled],
        host: str,
        site: str,
        most: tuple[int, int],
    ) -> None:
        """`channels`: those that somebody carries, and how an address of each is spelled. `host` is ours, as people
        know it, `site` the URL of our pages, `https://host/.sallyport/`, from the configuration alone. `most`: codes to
        one address, and to one person, within an hour.
        """
        self._sealer = sealer
        self._addressees = addressees
        self._clock = clock
        self._channels = channels
        self._host = host
        self._site = site
        self._most = most

    def address(self, channel: str, text: str) -> str:
        """As the contract says."""
        spelled = self._channels.get(channel)
        if spelled is None:
            raise _unreachable()
        return spelled(text)

    async def code(
        self,
        connection: AsyncConnection,
        *,
        tenant: str,
        subject: str,
        channel: str,
        to: str,
        code: str,
        about: str,
        language: str,
        expires_at: float,
        link: str = "",
    ) -> None:
        """As the contract says."""
        if channel not in self._channels:
            raise _unreachable()
        refused = _unreachable() if await is_suppressed(connection, tenant, channel, to) else None
        try:
            self._channels[channel](to)
        except UserError as error:  # operators may have named its prefix since it was bound
            refused = error
        title, said, advice = WORDS[about]
        now, token = self._clock.now(), new_token()
        whose = self._addressees.whose(channel, to)
        wait = await crowded(
            connection, tenant=tenant, subject=subject, whose=whose, kind=KIND, now=now, most=self._most
        )
        if wait > 0:
            raise UserError("ERR-THROTTLED", say("Too many codes were sent there."), 429, wait)
        user = await connection.scalar(select(users.c.name).where(users.c.tenant == tenant, users.c.subject == subject))
        content = {
            "title": title, "said": said, "advice": advice, "from_whom": self._host, "host": self._host,
            "minutes": max(1, round((expires_at - now) / 60)), "language": language, "user": user or "",
        }  # fmt: skip
        secret = f"{code} {self._site}verify/link?token={quote(link, safe='')}" if link else code
        sealed = self._sealer.seal(secret.encode(), **place_of(tenant, token))
        taken = await put(
            connection, tenant=tenant, subject=subject, channel=channel, target=to, kind=KIND,
            content=packed(content), now=now, lifetime=expires_at - now, token=token, sealed=sealed,
            whose=whose, kept=self._addressees.kept(tenant, token, channel, to), may=refused is None,
        )  # fmt: skip
        if refused is not None:
            raise refused
        if not taken:
            raise UserError("ERR-THROTTLED", say("Too many codes wait to be sent there."), 429, LATER)


def opened(sealer: Sealer, row: Sealed) -> str:
    """The code in `row`, and after a space the link that comes with it, where one does.

    Raises `Undelivered`: it was sealed with a key that is gone, or does not belong there.
    """
    try:
        return sealer.unseal(row.sealed or b"", **place_of(row.tenant, row.token)).decode()
    except Unsealable:
        raise Undelivered("what was sealed does not open", final=True) from None


def place_of(tenant: str, token: str) -> dict[str, str]:
    """Where a code is sealed."""
    return {"table": "outbox", "column": "sealed", "row": f"{tenant}/{token}"}


def _unreachable() -> UserError:
    return UserError("ERR-UNREACHABLE", say("No messages can be sent to this address."))
