"""A word to the addresses that codes of somebody go to, in the transaction that changes something about them.

Afterwards may be too late: a factor that is unbound has taken its address with it. So whoever unbinds one tells first.
By SMS it is one message without a link, by e-mail a letter; neither has anything secret in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.words import packed, say
from gateway.store.outbox_table import put
from gateway.store.own_address import is_confirmed
from gateway.store.tables import users

MAIL: Final = "email"
LIFETIME: Final = 86_400.0
"""Seconds that it is tried to be sent."""

Bound = Callable[[AsyncConnection, str, str, str], Awaitable[Sequence[tuple[str, str]]]]
"""`(channel, address)` of every factor of a user (tenant, subject), or of one; `mfa.codes.bound`."""


class Aside:
    """Tells them."""

    def __init__(self, bound: Bound, *, issuer: str, account: str, language: str = "en", mail: bool = True) -> None:
        """`issuer` signs; `account` is the URL of the account page, from the configuration alone; `language` is for
        people of whom none is known. `mail`: whether anybody carries e-mail.
        """
        self._mail = mail
        self._bound = bound
        self._issuer = issuer
        self._account = account
        self._language = language

    async def removed(
        self, connection: AsyncConnection, tenant: str, subject: str, *, at: float, factor_id: str = ""
    ) -> None:
        """A factor is about to go, or every one: tell the address that codes went to."""
        await self.tell(
            connection, tenant, subject, "factor_removed",
            title=say("Codes for your account do not come here any more"),
            said=say("This address was removed from your account: no codes to confirm that it is you are sent to it."),
            brief=say("Not you? Sign in and look at your account."),
            at=at, factor_id=factor_id,
        )  # fmt: skip

    async def moving(self, connection: AsyncConnection, tenant: str, subject: str, *, at: float) -> None:
        """The account is about to have another address: tell the one it has too."""
        await self.tell(
            connection, tenant, subject, "address_changed",
            title=say("The e-mail address of your account was changed"),
            said=say("Messages about your account go to another e-mail address from now on."),
            brief=say("Not your wish? Ask whoever looks after your account."), at=at, own=True,
        )  # fmt: skip

    async def tell(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        kind: str,
        *,
        title: str,
        said: str,
        brief: str,
        at: float,
        factor_id: str = "",
        own: bool = False,
    ) -> None:
        """`title`, `said` and what to do (`brief`), to all of them, or that of `factor_id`; not to the mailbox of the
        account, which is told otherwise, unless `own`.
        """
        found = await self._bound(connection, tenant, subject, factor_id)
        user = await recipient(connection, tenant, subject) if found or own else None
        if user is None:
            return
        found = [one for one in found if one[1].casefold() != user.email.casefold()]
        if own and self._mail and user.email:
            found = [(MAIL, user.email), *found]
        content = {
            "title": title,
            "name": user.display_name or user.name,
            "user": user.name,
            "said": said,
            "facts": [(say("Account"), user.name)],
            "advice": brief,
            "brief": brief,
            "link": self._account,
            "from_whom": self._issuer,
            "language": user.language or self._language,
        }
        for channel, address in found:
            await put(
                connection, tenant=tenant, subject=subject, channel=channel, target=address, kind=kind,
                content=packed(content), now=at, lifetime=LIFETIME,
            )  # fmt: skip


async def recipient(connection: AsyncConnection, tenant: str, subject: str) -> Row[Any] | None:
    """What a letter to somebody has to know of them: name, address, whether that is `confirmed`, what they are called,
    their language.
    """
    columns = (users.c.name, users.c.email, users.c.display_name, users.c.language, is_confirmed().label("confirmed"))
    query: Select[Any] = select(*columns).where(users.c.tenant == tenant, users.c.subject == subject)
    found: Row[Any] | None = (await connection.execute(query)).first()
    return found
