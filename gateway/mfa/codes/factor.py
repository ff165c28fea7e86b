"""A factor whose answer is sent first: an address that is bound, a code to it, the code back.

An address is sealed in the row of the factor, and shown masked. A user may have several, and says which one to send to.
How often an answer may be tried is counted by `mfa.factors`, as for every factor; how often a code may be sent by
`sends`, in the transaction that keeps the code and puts the message into the outbox. Where the database is away nothing
of it has happened.

Where an address may not be written to any more (it bounced, it is on a list) whoever asks is told what everybody is
told: that a code is on its way. Who sits at a stolen session learns nothing about the mailbox by asking for codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, and_, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.asked import Asked
from gateway.core.clock import Clock
from gateway.core.errors import SallyportError, UserError
from gateway.core.identity import Level, Proof
from gateway.crypto.mac import Mac
from gateway.crypto.sealing import Sealer
from gateway.mfa import otp
from gateway.mfa.attempts import LIFE
from gateway.mfa.codes import code as codes
from gateway.mfa.codes import link as links
from gateway.mfa.codes import sends
from gateway.mfa.codes.code import Live, Question
from gateway.mfa.sealed import place_of
from gateway.store.sql import Records
from gateway.store.tables import factors

if TYPE_CHECKING:
    from gateway.core.contracts import Post

SWEEP_EVERY = 64
"""Codes between two looks for counters that count no more."""
VERIFY = "verify"
ENROL = "enrol"
"""What a code is about, as `Post.code` is told."""


@dataclass(frozen=True, slots=True)
class Target:
    """An address that a code can be sent to."""

    id: str
    """Of the factor."""
    masked: str
    last_used_at: float


@dataclass(frozen=True, slots=True)
class Sending:
    """What became of a wish to have a code sent."""

    id: str = ""
    """Of the factor; empty, with no `wait`: that address is not theirs, or out of use, and nothing was done."""
    masked: str = ""
    """Where it went."""
    wait: float = 0.0
    """Above 0.0: nothing was sent; seconds until it would be."""
    whose: str = ""
    """Whose limit that is: `user`, `address`, `post`."""
    again_in: float = 0.0
    """Seconds until another one may be asked for."""
    held_back: str = ""
    """Why nobody is written to although it looks like it, a code for operators; or empty."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with one question."""

    targets: tuple[Target, ...]
    """Where a code can be sent, the one used last first."""
    sent_to: str = ""
    """Masked; empty: no code for this question counts."""
    again_in: float = 0.0
    """Seconds until one may be asked for."""


UNSENT = Sending()


class TooSoon(SallyportError):  # noqa: N818
    """Nothing is sent now."""

    def __init__(self, wait: float, whose: str) -> None:
        """`wait` in seconds; `whose` limit it is: `user`, `address`, `post`."""
        super().__init__(whose)
        self.wait = wait
        self.whose = whose


class SentCode(ABC):
    """What `mfa.sms` and `mfa.email` have in common: everything but their names."""

    name: str
    """As in YAML; the channel of `Post` too."""
    linked: bool = False
    """Whether a code that answers a challenge comes with a link that does the same."""

    def __init__(self, records: Records, sealer: Sealer, mac: Mac, clock: Clock, post: Post) -> None:
        self.records = records
        self.sealer = sealer
        self.mac = mac
        self.clock = clock
        self.post = post
        self._sent = 0

    @abstractmethod
    def masked(self, address: str) -> str:
        """`address` as its owner recognises it, and nobody else can use it."""

    async def offer(self, tenant: str, subject: str, level: Level = Level.AAL2) -> bool:
        """Whether this user has an address that is in use. A code can be passed on, so it reaches aal2 at most."""
        if level > Level.AAL2:
            return False
        in_use = self._of(tenant, subject) & (factors.c.failures < LIFE)
        async with self.records.read() as connection:
            return bool(await connection.scalar(select(exists().where(in_use))))

    async def check(
        self,
        connection: AsyncConnection,
        tenant: str,
        subject: str,
        answer: str,
        now: float,
        asked: Asked | None = None,
    ) -> Proof | None:
        """The proof for the code that was sent last for `asked`, or for its link; both are used up."""
        if asked is None or not (otp.digits_of(answer) or (self.linked and links.is_secret(answer))):
            return None
        question = Question(tenant, subject, asked.session, self.name, asked.ticket)
        sent = await codes.live(connection, question, now)
        if sent is None or not self._is_right(question, sent, answer):
            return None
        in_use = self._of(tenant, subject) & (factors.c.id == sent.id) & (factors.c.failures <= LIFE)
        if not await codes.claim(connection, question, sent):
            return None
        used = await connection.execute(update(factors).where(in_use).values(last_used_at=now))  # counted already
        return Proof(self.name, now) if used.rowcount == 1 else None

    async def hint(self, tenant: str, subject: str, answer: str, now: float) -> str:
        """Nothing to say about a wrong code."""
        return ""

    async def is_linked(self, tenant: str, subject: str, asked: Asked, secret: str) -> bool:
        """Whether `secret` is that of the link sent last for `asked`. It is not used up."""
        question = Question(tenant, subject, asked.session, self.name, asked.ticket)
        async with self.records.read() as connection:
            sent = await codes.live(connection, question, self.clock.now())
        return sent is not None and codes.is_link(self.mac, question, sent, secret)

    async def standing(self, tenant: str, subject: str, asked: Asked) -> Standing:
        """Where a code can be sent for `asked`, whether one was, and when the next may be."""
        now = self.clock.now()
        question = Question(tenant, subject, asked.session, self.name, asked.ticket)
        async with self.records.read() as connection:
            sent = await codes.live(connection, question, now)
            again_in = await sends.again_in(connection, tenant, subject, self.name, now)
            bound = await self._bound(connection, tenant, subject)
        targets = tuple(Target(one, self.masked(address), used) for one, address, used, usable in bound if usable)
        to = next((one.masked for one in targets if sent is not None and one.id == sent.id), "")
        return Standing(tuple(sorted(targets, key=lambda one: -one.last_used_at)), to, again_in)

    async def addresses(self, tenant: str, subject: str) -> Mapping[str, str]:
        """Every address of this user, masked, by the id of its factor; those out of use too."""
        async with self.records.read() as connection:
            bound = await self._bound(connection, tenant, subject)
        return {factor_id: self.masked(address) for factor_id, address, _, _ in bound}

    async def send(self, tenant: str, subject: str, asked: Asked, to: str, language: str) -> Sending:
        """Send a code for `asked` to the factor `to`; empty: to the address used last. The one before is void.

        `UNSENT` where `to` is not an address in use of theirs. Raises `StoreAway`, and then nothing was done.
        """
        question = Question(tenant, subject, asked.session, self.name, asked.ticket)
        try:
            sending = await self._send(question, to, language)
        except TooSoon as soon:
            return Sending(to, wait=soon.wait, whose=soon.whose)
        await self._sweep()
        return sending

    async def _send(self, question: Question, to: str, language: str) -> Sending:
        tenant, subject = question.tenant, question.subject
        async with self.records.begin(tenant, subject) as connection:
            usable = [one for one in await self._bound(connection, tenant, subject) if one[3]]
            usable.sort(key=lambda one: -one[2])
            found = next((one for one in usable if to in ("", one[0])), None)
            if found is None:
                return UNSENT
            return await self.dispatch(
                connection, question, found[0], found[1], about=VERIFY, bound=True, language=language
            )

    async def dispatch(
        self,
        connection: AsyncConnection,
        question: Question,
        factor_id: str,
        address: str,
        *,
        about: str,
        bound: bool,
        language: str,
    ) -> Sending:
        """Count, draw, keep and post a code to `address`, in the transaction of `connection` about its user.

        `bound`: whether it is their own for certain, or about to be. Raises `TooSoon`, so that the transaction ends and
        nothing of it has happened.
        """
        tenant, subject, now = question.tenant, question.subject, self.clock.now()
        masked = self.masked(address)
        counted = await sends.count(
            connection,
            self.mac,
            tenant=tenant,
            subject=subject,
            factor=self.name,
            address=address,
            bound=bound,
            now=now,
        )
        if counted.wait > 0:
            raise TooSoon(counted.wait, counted.whose)
        drawn, held_back = codes.draw(), ""
        link = links.draw() if self.linked and about == VERIFY else ""
        expires_at = await codes.keep(connection, self.mac, question, factor_id, drawn, now, link=link)
        try:
            await self.post.code(
                connection,
                tenant=tenant,
                subject=subject,
                channel=self.name,
                to=address,
                code=drawn,
                about=about,
                language=language,
                expires_at=expires_at,
                link=links.joined(question.ticket, link) if link else "",
            )
        except UserError as error:
            if error.retry_after > 0:
                raise TooSoon(error.retry_after, "post") from error
            held_back = error.code
        again_in = await sends.again_in(connection, tenant, subject, self.name, now)
        return Sending(factor_id, masked, again_in=again_in, held_back=held_back)

    async def again_in(self, tenant: str, subject: str) -> float:
        """Seconds until this user may have another code."""
        async with self.records.read() as connection:
            return await sends.again_in(connection, tenant, subject, self.name, self.clock.now())

    async def addresses_in(self, connection: AsyncConnection, tenant: str, subject: str) -> Sequence[str]:
        """Every address of this user in clear, for comparing; those out of use too."""
        return [address for _, address, _, _ in await self._bound(connection, tenant, subject)]

    def _is_right(self, question: Question, sent: Live, answer: str) -> bool:
        digits = otp.digits_of(answer)
        if digits:
            return codes.is_right(self.mac, question, sent, digits)
        return codes.is_link(self.mac, question, sent, answer)

    async def _bound(
        self, connection: AsyncConnection, tenant: str, subject: str
    ) -> list[tuple[str, str, float, bool]]:
        """`(id, address, last used, whether in use)`, oldest first."""
        columns = (factors.c.id, factors.c.secret, factors.c.last_used_at, factors.c.failures)
        query = select(*columns).where(self._of(tenant, subject)).order_by(factors.c.created_at, factors.c.id)
        found = (await connection.execute(query)).all()
        return [
            (
                row.id,
                self.sealer.unseal(row.secret, **place_of(tenant, row.id)).decode(),
                row.last_used_at or 0.0,
                row.failures < LIFE,
            )
            for row in found
        ]

    async def _sweep(self) -> None:
        self._sent += 1
        if self._sent % SWEEP_EVERY:
            return
        async with self.records.begin() as connection:
            await sends.sweep(connection, self.clock.now())

    def _of(self, tenant: str, subject: str) -> ColumnElement[bool]:
        return and_(factors.c.tenant == tenant, factors.c.subject == subject, factors.c.kind == self.name)
