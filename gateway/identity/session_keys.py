"""Sessions in a Redis that replicas share.

    {s5}:session:<digest>      14 digits last seen, 10 digits longest pause (ms); then the session, sealed
    {s5}:of:<tenant>/<subject> session id → digest, when it was opened, the user's generation then
    {s5}:alive  {s5}:users     when each session, each user's last one, is over: to be counted
    {s5}:revision              grows with every change

- Everything of a user is in one of sixteen slots, drawn from their name, and so on one node of a cluster. A token is
  drawn until its digest begins with the number of its slot, which costs 4 of its 256 bits: it says alone where to look.
- A session is sealed (`crypto.sealing`) and bound to its digest: who can write here can end sessions, or let one idle
  longer, but make nobody an identity.
- Redis says what time it is; expiry and pauses are its own, whatever the clocks of replicas say. A key lives as long as
  its session, and a little longer than the idle time, for what was seen but is not written yet.
- Each change is one script, which raises the revision of its slot and tells every replica whose sessions changed. A
  replica that missed that (pub/sub promises nothing) sees a revision it did not expect within a second, and forgets
  all it holds of the slot.
- Who somebody is, is not here: name, groups, whether they are disabled come from the records, and so does the
  generation. That is raised in the transaction that ends everything of a user; whatever carries another one is void,
  also where this store could not be reached to say so, has forgotten that it was told, or the records are older than
  the session: restored from a backup.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.contracts import Stays
from gateway.core.errors import StoreAway
from gateway.core.identity import Proof, Session
from gateway.crypto.sealing import Sealer
from gateway.crypto.tokens import digest as digest_of
from gateway.crypto.tokens import new_token
from gateway.identity.sealed_session import Kept, digest_in, opened, seal, text_of
from gateway.identity.session_rows import revoke
from gateway.identity.session_scripts import AGAIN, COUNT, END, END_ALL, FIND, LIST, OPEN, PROVE, TOUCH
from gateway.identity.session_store import (
    Ended,
    Found,
    Opening,
    Person,
    Seen,
    Terms,
    Watcher,
    gone,
    identity_of,
    person_of,
    proven,
    too_many,
)
from gateway.store.redis import Redis, Script
from gateway.store.redis_link import Word
from gateway.store.sql import Records
from gateway.store.tables import users

Words = list[Word]

_log = logging.getLogger("sallyport")

TOPIC = "sessions"
SLOTS = 16
AT_ONCE = 100
"""Sessions touched by one script: others wait while it runs."""


class SessionKeys:
    """A `SessionStore` in Redis."""

    shared = True

    def __init__(self, redis: Redis, records: Records, sealer: Sealer, terms: Terms) -> None:
        self._redis = redis
        self._records = records
        self._sealer = sealer
        self._terms = terms
        self._channel = redis.prefix + TOPIC
        self._me = secrets.token_urlsafe(12)
        """What other replicas hear of who it was."""
        self._revisions: dict[int, int] = {}
        """As far as everything was heard."""
        self._watcher: Watcher | None = None

    # --- changes ----------------------------------------------------------------------------------------------------

    async def open(
        self, new: Opening, *, replacing: bytes | None, connection: Any = None
    ) -> tuple[str, Found, Sequence[Ended]]:
        """As the contract says."""
        person, generation = (
            await self._person(new.tenant, new.subject)
            if connection is None
            else await _person(connection, new.tenant, new.subject)
        )
        if person is None or generation != new.generation:
            raise gone()
        before = await self._find(replacing) if replacing is not None else None
        life, slot = self._terms.of(new.tenant), self.slot(new.tenant, new.subject)
        token = _token_in(slot)
        digest = digest_of(token)
        now = await self._now(digest)
        session = Session(
            id=new.id,
            version=1,
            created_at=now,
            expires_at=now + life.absolute,
            last_seen_at=now,
            proofs=(new.proof,),
            address=new.address,
            agent=new.agent,
        )
        mine = before is not None and (before.tenant, before.subject) == (new.tenant, new.subject)
        answer = await self._change(
            OPEN,
            new.tenant,
            new.subject,
            [self._record(digest)],
            [
                seal(self._sealer, digest, new.tenant, new.subject, session, generation),
                text_of(digest),
                new.id,
                _ms(now),
                generation,
                life.per_user,
                int(self._terms.refuse),
                _ms(life.idle),
                _ms(life.absolute),
                _ms(life.lag + self._terms.grace),
                text_of(replacing) if mine and replacing is not None else "",
            ],
        )
        if answer is None:
            raise too_many(life.per_user)
        ended = [Ended(new.tenant, new.subject, id_.decode(), why.decode()) for id_, why in answer]
        if before is not None and not mine and await self.end(before.tenant, before.subject, before.session.id):
            ended.append(Ended(before.tenant, before.subject, before.session.id, "replaced"))
        identity = identity_of(new.tenant, new.subject, person, session)
        return token, Found(identity, digest, 0.0, life.absolute, generation), ended

    async def prove(self, digest: bytes, proof: Proof) -> tuple[str, Found] | None:
        """As the contract says."""
        kept = await self._find(digest)
        if kept is None:
            return None
        person, generation = await self._person(kept.tenant, kept.subject)
        if person is None or kept.generation != generation:
            return None
        token = _token_in(_slot_of(digest))
        fresh = digest_of(token)
        session = replace(
            kept.session,
            version=kept.session.version + 1,
            last_seen_at=kept.now,
            proofs=proven(kept.session.proofs, proof),
            rested=0.0,
        )
        life, left = self._terms.of(kept.tenant), kept.session.expires_at - kept.now
        swapped = await self._change(
            PROVE,
            kept.tenant,
            kept.subject,
            [self._record(digest), self._record(fresh)],
            [
                kept.sealed,
                seal(self._sealer, fresh, kept.tenant, kept.subject, session, kept.generation),
                text_of(digest),
                text_of(fresh),
                session.id,
                _ms(session.created_at),
                kept.generation,
                _ms(life.idle),
                _ms(left),
                _ms(life.lag + self._terms.grace),
            ],
        )
        if swapped is None:
            return None
        identity = identity_of(kept.tenant, kept.subject, person, self._shown(kept.tenant, session))
        return token, Found(identity, fresh, 0.0, left, kept.generation)

    async def extend(self, seen: Seen) -> float | None:
        """As the contract says."""
        now, there = await self._touch(_slot_of(seen.digest), [seen])
        return now if there else None

    async def touch(self, seen: Sequence[Seen]) -> None:
        """As the contract says."""
        slots: defaultdict[int, list[Seen]] = defaultdict(list)
        for one in seen:
            slots[_slot_of(one.digest)].append(one)
        for slot, all_of_it in slots.items():
            for begin in range(0, len(all_of_it), AT_ONCE):
                await self._touch(slot, all_of_it[begin : begin + AT_ONCE])

    async def end(self, tenant: str, subject: str, session_id: str) -> bool:
        """As the contract says."""
        return await self._change(END, tenant, subject, [], [session_id]) is not None

    async def end_in(self, connection: Any, tenant: str, subject: str, ids: Sequence[str]) -> Sequence[str]:
        """As the contract says."""
        return [one for one in ids if await self.end(tenant, subject, one)]

    async def end_all(self, tenant: str, subject: str, *, but: str, first: Stays | None = None) -> int | None:
        """As the contract says. The session that stays is sealed again with the new generation, unless it was void."""
        async with self._records.begin(tenant, subject) as connection:
            person, current = await _person(connection, tenant, subject)
            if first is not None and not await first(connection):
                but = ""
            _, generation = await revoke(connection, tenant, subject)
            await self._records.bump(connection, tenant, subject)
        try:
            before, after = b"", b""
            kept = await self._again(tenant, subject, but) if but else None
            if kept is not None and person is not None and kept.generation == current:
                before = kept.sealed
                after = seal(self._sealer, kept.digest, tenant, subject, kept.session, generation)
            ended = await self._change(END_ALL, tenant, subject, [], [but, before, after, generation])
        except StoreAway as away:
            _log.warning("every session of %s/%s is void, but the shared store was not told: %s", tenant, subject, away)
            return None
        return int(ended)

    # --- looking ----------------------------------------------------------------------------------------------------

    async def find(self, digest: bytes) -> Found | None:
        """As the contract says."""
        return await self._known(await self._find(digest))

    async def again(self, tenant: str, subject: str, session_id: str) -> Found | None:
        """As the contract says."""
        return await self._known(await self._again(tenant, subject, session_id))

    async def list(self, tenant: str, subject: str) -> Sequence[Found]:
        """As the contract says."""
        person, generation = await self._person(tenant, subject)
        slot = self.slot(tenant, subject)
        now, *rest = await self._redis.run(LIST, [self._index(slot, tenant, subject)], [self._record_prefix(slot)])
        pairs = zip(rest[::2], rest[1::2], strict=True)
        kept = [opened(self._sealer, digest_in(text), value, now) for text, value in pairs]
        mine = [one for one in kept if one is not None and (one.tenant, one.subject) == (tenant, subject)]
        found = [self._found(one, person, generation) for one in mine if person is not None]
        return sorted(found, key=lambda one: -_created(one))

    async def count(self) -> tuple[int, int]:
        """As the contract says."""
        answers = await _together(
            self._redis.run(COUNT, [self._key(slot, "alive"), self._key(slot, "users")], []) for slot in range(SLOTS)
        )
        return sum(sessions for sessions, _ in answers), sum(people for _, people in answers)

    # --- what others change -----------------------------------------------------------------------------------------

    def place(self, digest: bytes) -> int:
        """The slot."""
        return _slot_of(digest)

    def slot(self, tenant: str, subject: str) -> int:
        """Where everything of this user is."""
        return sha256(f"{tenant}/{subject}".encode("utf-8", "surrogatepass")).digest()[0] >> 4

    def watch(self, watcher: Watcher) -> None:
        """As the contract says."""
        self._watcher = watcher
        self._redis.listen(TOPIC, self._heard, self._revisions.clear)
        self._redis.line.listen(self._line_changed)

    async def refresh(self) -> None:
        """Read every revision, and have forgotten what is near of a slot where something was missed."""
        keys = [self._key(slot, "revision") for slot in range(SLOTS)]
        answers = await _together(self._redis.execute("GET", key) for key in keys)
        revisions = {slot: int(answer or 0) for slot, answer in enumerate(answers)}
        missed = {slot for slot, revision in revisions.items() if self._revisions.get(slot) != revision}
        self._revisions.update(revisions)
        if missed and self._watcher is not None:
            self._watcher.forget_places(missed)

    def _heard(self, message: bytes) -> None:
        try:
            slot, revision, by, who = message.decode("utf-8", "surrogatepass").split(" ", 3)
            tenant, _, subject = who.rpartition("/")
            if by != self._me:  # what was changed here is followed when it is answered
                self._changed(int(slot), int(revision), tenant, subject)
        except ValueError:
            _log.warning("a message about sessions makes no sense")

    def _changed(self, slot: int, revision: int, tenant: str, subject: str) -> None:
        if self._watcher is not None:
            self._watcher.forget(tenant, subject)
        if self._revisions.get(slot) == revision - 1:  # else some are missing, and `refresh` will find that out
            self._revisions[slot] = revision

    def _line_changed(self, up: bool) -> None:
        self._revisions.clear()  # what comes back may have forgotten what we have seen there
        if not up and self._watcher is not None:
            self._watcher.away()

    # --- keys -------------------------------------------------------------------------------------------------------

    def _key(self, slot: int, name: str) -> str:
        return f"{self._redis.prefix}{{s{slot}}}:{name}"

    def _record_prefix(self, slot: int) -> str:
        return self._key(slot, "session:")

    def _record(self, digest: bytes) -> str:
        return self._record_prefix(_slot_of(digest)) + text_of(digest)

    def _index(self, slot: int, tenant: str, subject: str) -> str:
        return self._key(slot, f"of:{tenant}/{subject}")

    async def _now(self, digest: bytes) -> float:
        now, _ = await self._redis.run(FIND, [self._record(digest)], [])
        return float(now) / 1000

    async def _change(
        self, script: Script, tenant: str, subject: str, keys: Sequence[str], args: Sequence[Word]
    ) -> Any:
        """Run it, and follow the change it made. None where it made none."""
        slot = self.slot(tenant, subject)
        who = f"{tenant}/{subject}"
        common = [
            self._index(slot, tenant, subject),
            self._key(slot, "alive"),
            self._key(slot, "users"),
            self._key(slot, "revision"),
        ]
        told: Words = [self._channel, f"{slot} ", f" {self._me} {who}", who, self._record_prefix(slot)]
        try:
            revision, answer = await self._redis.run(script, [*common, *keys], [*told, *args])
        except BaseException:
            if self._watcher is not None:  # whether it was done is not known now: forgetting is always safe
                self._watcher.forget(tenant, subject)
            raise
        if not revision:
            return None
        self._changed(slot, int(revision), tenant, subject)
        return answer

    async def _touch(self, slot: int, seen: Sequence[Seen]) -> tuple[float, int]:
        keys = [self._key(slot, "alive"), self._key(slot, "users"), *(self._record(one.digest) for one in seen)]
        args: Words = []
        for one in seen:
            life = self._terms.of(one.tenant)
            args += [_ms(one.ago), _ms(one.rested), _ms(life.idle), _ms(one.left), _ms(life.lag + self._terms.grace)]
            args += [text_of(one.digest), f"{one.tenant}/{one.subject}"]
        now, there = await self._redis.run(TOUCH, keys, args)
        return float(now) / 1000, int(there)

    # --- values -----------------------------------------------------------------------------------------------------

    async def _find(self, digest: bytes) -> Kept | None:
        now, value = await self._redis.run(FIND, [self._record(digest)], [])
        return opened(self._sealer, digest, value, now)

    async def _again(self, tenant: str, subject: str, session_id: str) -> Kept | None:
        slot = self.slot(tenant, subject)
        now, text, value = await self._redis.run(
            AGAIN, [self._index(slot, tenant, subject)], [self._record_prefix(slot), session_id]
        )
        kept = opened(self._sealer, digest_in(text), value, now) if text else None
        if kept is None or (kept.tenant, kept.subject, kept.session.id) != (tenant, subject, session_id):
            return None
        return kept

    async def _known(self, kept: Kept | None) -> Found | None:
        if kept is None:
            return None
        person, generation = await self._person(kept.tenant, kept.subject)
        return self._found(kept, person, generation)

    def _found(self, kept: Kept, person: Person | None, generation: int) -> Found:
        void = person is None or kept.generation != generation
        session = self._shown(kept.tenant, kept.session)
        return Found(
            identity_of(kept.tenant, kept.subject, person or Person("", "", "", frozenset()), session),
            kept.digest,
            pause=kept.now - session.last_seen_at,
            left=session.expires_at - kept.now,
            generation=kept.generation,
            void=void,
        )

    def _shown(self, tenant: str, session: Session) -> Session:
        """Also after the operator has made sessions shorter."""
        ends = session.created_at + self._terms.of(tenant).absolute
        return session if session.expires_at <= ends else replace(session, expires_at=ends)

    async def _person(self, tenant: str, subject: str) -> tuple[Person | None, int]:
        async with self._records.read() as connection:
            return await _person(connection, tenant, subject)


async def _person(connection: AsyncConnection, tenant: str, subject: str) -> tuple[Person | None, int]:
    """Who that is, if they may sign in, and their generation."""
    query = select(users).where(users.c.tenant == tenant, users.c.subject == subject)
    row = (await connection.execute(query)).first()
    if row is None or row.disabled:
        return None, 0
    return person_of(row), row.generation


async def _together(calls: Iterable[Awaitable[Any]]) -> Sequence[Any]:
    """All answers; raises when all have come and one of them is no answer."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def _slot_of(digest: bytes) -> int:
    return digest[0] >> 4


def _token_in(slot: int) -> str:
    """A token whose digest begins with the number of its slot."""
    while _slot_of(digest_of(token := new_token())) != slot:
        pass
    return token


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _created(found: Found) -> float:
    return found.identity.session.created_at if found.identity.session is not None else 0.0
