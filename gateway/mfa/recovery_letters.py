"""What somebody is told while their account is being recovered: letters by e-mail, and a word to their telephones.

The links in these letters are secrets. They begin with the configured `public_url`, whatever host a browser or a proxy
has named, and lie sealed in the outbox until they are sent. The letter that tells of a recovery is written in the
transaction that begins it: there is none without the other.

A thief of a mailbox reads the letters, and lets nobody else read them. So every other address that codes go to is told
as well (`mfa.aside`), of the beginning, and of the end in the transaction that unbinds them: it is the last moment at
which they are known. What is told there has no link that does anything; whoever signs in and shows a second factor has
ended it by that.

For somebody without an address, or with one that takes nothing, the same is written and given up at once: whoever asks
does not learn which it is by how long it takes.

The link that gets in goes to no address but one that its user has confirmed, which `mfa.recovery` sees to. What stops
it, and says that it was asked for, goes to any: to stop it costs nothing, and whoever reads there may be who has to
hear of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.agents import recognised
from gateway.core.identity import NEVER
from gateway.core.words import Said, date, packed, say
from gateway.crypto.sealing import Sealer
from gateway.mfa.addressees import Addressees
from gateway.mfa.aside import Aside, recipient
from gateway.mfa.posted import place_of
from gateway.store.outbox_table import RESTED_ON, new_token, put
from gateway.store.tables import outbox

CHANNEL: Final = "email"
ASKED: Final = RESTED_ON


class RecoveryLetters:
    """The `Letters` of `mfa.recovery`, over the outbox."""

    def __init__(
        self,
        sealer: Sealer,
        addressees: Addressees,
        *,
        site: str,
        issuer: str,
        language: str = "en",
        mail: bool = True,
        aside: Aside | None = None,
    ) -> None:
        """`site` is the URL of our pages, `https://host/.sallyport/`, from the configuration alone; `issuer` signs.

        `language` is for people of whom none is known. `mail`: whether anybody carries e-mail; `aside` tells the
        other addresses.
        """
        self._mail = mail
        self._aside = aside
        self._language = language
        self._sealer = sealer
        self._addressees = addressees
        self._site = site
        self._issuer = issuer

    async def asked(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        token: str,
        *,
        at: float,
        due_at: float,
        until: float,
        address: str,
        agent: str,
    ) -> bool:
        """As the protocol says."""
        user = await recipient(connection, tenant, subject)
        if due_at and (user is None or not user.confirmed):
            said = say(
                "Somebody who knows your password says that all your second factors are lost. It was never confirmed "
                "that you read what is sent to this address, so no link that removes them will come."
            )
        elif due_at:
            said = say(
                "Somebody who knows your password says that all your second factors are lost. If nobody objects, we "
                "will write to you again on {when}, with a link that removes them.",
                when=_when(due_at),
            )
        else:
            said = say(
                "An administrator asked to remove all second factors from your account, because they are lost. Another "
                "administrator has to agree."
            )
        if due_at:
            advice = say("If this was not you, somebody knows your password. Stop it here, then change your password:")
            facts: list[tuple[str, str]] = [(say("Browser"), recognised(agent) or say("not known"))]
            facts += [(say("Address"), address)] if address else []
        else:
            advice = say("If you know nothing of this, stop it here, and tell whoever looks after your account:")
            facts = []
        title = say("Somebody asks to get back into your account")
        if self._aside is not None:
            await self._aside.tell(
                connection, tenant, subject, ASKED, title=title,
                said=say("It was asked for to remove all second factors from your account, because they are lost."),
                brief=say("Not you? Sign in and confirm that it is you: that stops it."), at=at,
            )  # fmt: skip
        return await self._put(
            connection, tenant, subject, user, ASKED, title, said, advice,
            [(say("When"), _when(at)), *facts], f"recover/cancel?token={quote(token, safe='')}", at, until,
        )  # fmt: skip

    async def told_at(self, connection: AsyncConnection, tenant: str, subject: str, at: float) -> float:
        """As the protocol says."""
        query = (
            select(outbox.c.state, outbox.c.settled_at, outbox.c.delivery)
            .where(
                outbox.c.tenant == tenant,
                outbox.c.subject == subject,
                outbox.c.channel == CHANNEL,
                outbox.c.kind == ASKED,
                outbox.c.created_at == at,
            )
            .order_by(outbox.c.id.desc())  # other mailboxes are told before: the last one is the letter
        )
        row = (await connection.execute(query)).first()
        sent = row is not None and row.state == "sent" and row.delivery != "undelivered"
        return float(row.settled_at) if row is not None and sent else NEVER

    async def ready(
        self, connection: AsyncConnection, tenant: str, subject: str, token: str, *, at: float, until: float
    ) -> bool:
        """As the protocol says."""
        user = await recipient(connection, tenant, subject)
        return await self._put(
            connection, tenant, subject, user, "recovery_ready", say("Get back into your account"),
            say(
                "It was asked for to remove all second factors from your account, and nobody has objected. The link "
                "below does that, once, and asks for your password; then you set up a new one."
            ),
            say(
                "If this was not you, do not use it: somebody knows your password. Use the link of our first letter to "
                "stop it, and change your password."
            ),
            [(say("Until"), _when(until))], f"recover/link?token={quote(token, safe='')}", at, until,
        )  # fmt: skip

    async def done(self, connection: AsyncConnection, tenant: str, subject: str, *, at: float) -> None:
        """As the protocol says."""
        if self._aside is not None:
            await self._aside.tell(
                connection, tenant, subject, "recovered",
                title=say("Your account was recovered, all second factors were removed"),
                said=say(
                    "All second factors were removed from your account, because they were lost, and you were signed "
                    "out everywhere. With your password you set up a new one."
                ),
                brief=say("Not you? Ask whoever looks after your account at once."), at=at,
            )  # fmt: skip

    async def _put(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        user: Row[Any] | None,
        kind: str,
        title: str,
        said: str,
        advice: str,
        facts: list[tuple[str, str]],
        path: str,
        at: float,
        until: float,
    ) -> bool:
        if not self._mail or user is None:
            return False
        content = {
            "title": title,
            "name": user.display_name or user.name,
            "user": user.name,
            "said": said,
            "facts": [(say("Account"), user.name), *facts],
            "advice": advice,
            "from_whom": self._issuer,
            "sealed": "link",
            "language": user.language or self._language,
        }
        known_as = new_token()
        return await put(
            connection,
            tenant=tenant,
            subject=subject,
            channel=CHANNEL,
            target=user.email,
            kind=kind,
            content=packed(content),
            now=at,
            lifetime=until - at,
            token=known_as,
            sealed=self._sealer.seal((self._site + path).encode(), **place_of(tenant, known_as)),
            kept=self._addressees.kept(tenant, known_as, CHANNEL, user.email),
            may=bool(user.email),
        )


def _when(at: float) -> Said:
    moment = datetime.fromtimestamp(at, UTC)
    return say("{date}, {time} UTC", date=date(moment), time=f"{moment:%H:%M}")
