"""Who is signed in: the rules of sessions, and those near at hand. Where they are kept is a `SessionStore`.

- The cookie holds a random token; only its SHA-256 is stored. A proof (signing in, stepping up) gives the session a new
  token and the next version; the old token is dead in the same step (OWASP ASVS 7.2.4).
- A request costs one `dict.get`: an `Identity` is built once for each (session, version) and kept near by its token.
  Whatever changes a user's sessions, here or in another process, makes this process forget what it keeps of them.
- Being served writes nothing. That a session was seen is noted in memory and written at most once a minute.
- A pause is what this process has not seen of a session. A longer one than a minute is looked up before it counts:
  another replica may have served them. The longest since the last proof is kept (`Session.rested`), for rules that ask.
- Stores that cannot be reached are forgiven for a few seconds (`Terms.grace`). After that nobody is known until they
  are back, because nobody could be told that a session was ended.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.clock import Clock
from gateway.core.contracts import Dues, Ledger, Stays
from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Event, Kind, Severity
from gateway.core.identity import Identity, Proof, Session
from gateway.core.words import say
from gateway.crypto.tokens import digest, new_id
from gateway.identity.session_store import MAX_AGENT, Found, Opening, Seen, SessionStore, Terms, Watcher
from gateway.identity.users import User
from gateway.store.near import Near
from gateway.store.sql import Records
from gateway.store.tables import users

KEPT_NEAR = 10_000
SHORT = 1.0
"""Seconds; a shorter pause is none."""
AT_ONCE = 500
"""Users asked about in one statement."""


class _Near:
    """A session at hand. Times are monotonic, in seconds."""

    __slots__ = (
        "digest",
        "expires_at",
        "generation",
        "identity",
        "idle",
        "patience",
        "seen_at",
        "touch_every",
        "written_at",
    )

    def __init__(self, found: Found, identity: Identity, now: float, terms: Terms) -> None:
        life = terms.of(identity.tenant)
        self.identity = identity
        self.digest = found.digest
        self.generation = found.generation
        self.seen_at = now
        self.written_at = now - found.pause
        self.expires_at = now + found.left
        self.idle = life.idle
        self.touch_every = life.touch_every
        self.patience = 0.0
        """The longest pause that changes nothing."""
        self.rest(0.0)

    def rest(self, pause: float) -> None:
        """Remember the longest pause."""
        session = self.identity.session
        if session is None:
            return
        rested = max(session.rested, pause)
        if pause >= SHORT and rested > session.rested:
            self.identity = replace(self.identity, session=replace(session, rested=rested))
        self.patience = min(self.touch_every, max(SHORT, rested))


class _Seen:
    """A session that was seen, not written yet. Times are monotonic."""

    __slots__ = ("at", "due_at", "expires_at", "rested", "subject", "tenant")

    def __init__(self, identity: Identity, at: float, expires_at: float, due_at: float) -> None:
        self.tenant = identity.tenant
        self.subject = identity.subject
        self.at = at
        self.expires_at = expires_at
        self.rested = identity.session.rested if identity.session is not None else 0.0
        self.due_at = due_at
        """When it is to be written."""


class Sessions:
    """Opens, finds, proves and ends sessions. Every async method raises `StoreAway` where a store does.

    `records` know the users whose sessions these are, wherever those are kept. `dues` are asked whenever a session is
    looked up, what its user has still to set up; left out: nothing.
    """

    def __init__(
        self,
        store: SessionStore,
        records: Records,
        clock: Clock,
        ledger: Ledger,
        terms: Terms,
        *,
        dues: Dues | None = None,
    ) -> None:
        self.terms = terms
        self._dues = dues
        self._store = store
        self._records = records
        self._ledger = ledger
        self._monotonic = clock.monotonic
        self._near: Near[str, _Near] = Near(KEPT_NEAR)
        self._tokens_of: dict[tuple[str, str], set[str]] = {}
        self._unknown: Near[str, None] = Near(KEPT_NEAR)
        self._touched: dict[bytes, _Seen] = {}
        """By the digest of the token; not written yet."""
        self._to_write: list[_Near] = []
        self._forgettings = 0
        self._forgotten: Near[tuple[str, str], int] = Near(KEPT_NEAR)
        """Of whom something near was forgotten, and which forgetting that was."""
        self._forgotten_all = 0
        self._foreign: int | None = None
        self._fresh_at = clock.monotonic()
        records.listen(self._forget)
        store.watch(Watcher(self._forget, self._forget_places, self._store_is_away))

    # --- the request path -------------------------------------------------------------------------------------------

    def near(self, token: str) -> Identity | None:
        """Who holds `token`, if that is known without asking a store; counts as being seen."""
        entry = self._near.get(token)
        if entry is None:
            return None
        now = self._monotonic()
        pause = now - entry.seen_at
        if now >= entry.expires_at:
            return None
        if pause > entry.patience:
            if pause > entry.touch_every:
                return None
            entry.rest(pause)
        if now - entry.written_at >= entry.touch_every:
            entry.written_at = now
            self._to_write.append(entry)
        entry.seen_at = now
        return entry.identity

    async def find(self, token: str) -> Identity | None:
        """Who holds `token`; None for one that is unknown, over, or of a user who is disabled."""
        if (identity := self.near(token)) is not None or token in self._unknown:
            return identity
        try:
            return await self.read(token)
        except StoreAway:
            if (identity := self._in_grace(token)) is not None:
                return identity
            raise

    async def read(self, token: str) -> Identity | None:
        """As `find`, but asks the store, whatever is near; nothing is forgiven when it is away."""
        before = self._forgettings
        found = await self._store.find(digest(token))
        self._drop(token)
        if found is None:
            self._unknown.keep(token, None)
            return None
        identity = await self._settled(self._alive(found))
        if identity is not None and not self._was_forgotten(identity, before):
            self._keep(token, found, identity)
            return self.near(token)
        return identity  # not kept where it may have been ended while it was read

    async def again(self, identity: Identity, *, fresh: bool = False) -> Identity | None:
        """The holder of a session that was known before, whatever its token is now; counts as being seen.

        None once it is over. With `fresh` the store is asked, whatever is near.
        """
        session = identity.session
        if session is None:
            return None
        for token in () if fresh else self._tokens_of.get((identity.tenant, identity.subject), ()):
            known = self._near.get(token)
            if known is None or known.identity.session is None or known.identity.session.id != session.id:
                continue
            if (near := self.near(token)) is not None:
                return near
        found = await self._store.again(identity.tenant, identity.subject, session.id)
        if found is None or (now := await self._settled(self._alive(found))) is None or now.session is None:
            return None
        if self._pause(found) >= self.terms.of(now.tenant).touch_every:
            at = self._monotonic()
            self._touched[found.digest] = _Seen(now, at, at + found.left, at)
        return now

    # --- changes ----------------------------------------------------------------------------------------------------

    async def open(
        self, user: User, proof: Proof, *, address: str, agent: str, replacing: str | None = None
    ) -> tuple[str, Identity]:
        """Begin a session for `user`, read when they showed `proof`; returns its token and their identity.

        The session of token `replacing`, whosever it was, ends with it. Raises `UserError`: ERR-SIGN-IN where the user
        was disabled or removed meanwhile, or given another password, ERR-SESSION-LIMIT where they have as many as they
        may.
        """
        new = Opening(user.tenant, user.subject, new_id(), proof, address, agent[:MAX_AGENT], user.generation)
        token, found, ended = await self._store.open(new, replacing=digest(replacing) if replacing else None)
        for gone in ended:
            await self._tell_ended(gone.tenant, gone.subject, gone.id, gone.why)
        return token, await self._owing(found.identity)

    async def open_in(
        self, connection: AsyncConnection, tenant: str, subject: str, proof: Proof, *, address: str, agent: str
    ) -> str:
        """Begin a session in the transaction in which everything of this user has just ended; its token.

        Raises as `open` does.
        """
        query = select(users.c.generation).where(users.c.tenant == tenant, users.c.subject == subject)
        generation = await connection.scalar(query)
        new = Opening(tenant, subject, new_id(), proof, address, agent[:MAX_AGENT], generation or 0)
        token, _, _ = await self._store.open(new, replacing=None, connection=connection)
        return token

    async def prove(self, token: str, proof: Proof) -> tuple[str, Identity]:
        """Add a proof to the session of `token`: a new token, the next version. Exactly one caller gets it.

        Raises `UserError` ERR-SESSION-ENDED where the session is over, or its token was already exchanged.
        """
        if await self.find(token) is None:
            raise _ended()
        exchanged = await self._store.prove(digest(token), proof)
        if exchanged is None:
            raise _ended()
        fresh, found = exchanged
        return fresh, await self._owing(found.identity)

    async def extend(self, token: str) -> Identity:
        """Begin the idle time anew, durably; the absolute end stays. Raises `UserError` ERR-SESSION-ENDED."""
        found = await self._store.find(digest(token))
        identity = await self._settled(self._alive(found)) if found is not None else None
        if found is None or identity is None or identity.session is None:
            raise _ended()
        session = identity.session
        seen = Seen(identity.tenant, identity.subject, found.digest, 0.0, found.left, session.rested)
        at = await self._store.extend(seen)
        if at is None:
            raise _ended()
        return replace(identity, session=replace(session, last_seen_at=at))

    async def end(self, tenant: str, subject: str, session_id: str, *, by: str = "") -> bool:
        """End one session of this user; False where they have no such session. `by`: who does it, if not they."""
        ended = await self._store.end(tenant, subject, session_id)
        if ended:
            await self._tell_ended(tenant, subject, session_id, "ended", by)
        return ended

    async def end_in(self, connection: AsyncConnection, tenant: str, subject: str, ids: Sequence[str]) -> Sequence[str]:
        """End these sessions of this user in the caller's transaction, which then bumps; those that were there.

        The caller tells, when it is committed.
        """
        return await self._store.end_in(connection, tenant, subject, ids)

    async def end_all(
        self, tenant: str, subject: str, *, but: str = "", by: str = "", first: Stays | None = None
    ) -> int:
        """End every session of this user, except the one with id `but`; returns how many.

        Where a shared store is away they are all over nevertheless, and 0 is returned. `by`: who does it, if not they.
        `first`: as `EndAll` says.
        """
        name = await self._name_of(tenant, subject)  # before: what raises afterwards would deny what is done
        count = await self._store.end_all(tenant, subject, but=but, first=first)
        if count != 0 or by:
            detail = ({"count": count} if count is not None else {}) | ({"by": by} if by else {})
            self._ledger.note(Event(Kind.SESSIONS_ENDED, Severity.NOTICE, tenant, name, but, detail=detail))
        return count or 0

    # --- looking ----------------------------------------------------------------------------------------------------

    async def list(self, tenant: str, subject: str) -> list[Session]:
        """Every live session of this user, the newest first."""
        for token in self._tokens_of.get((tenant, subject), ()):
            if (entry := self._near.get(token)) is not None:
                self._note_seen(entry)
        found = [self._alive(one) for one in await self._store.list(tenant, subject)]
        return [one.session for one in found if one is not None and one.session is not None]

    async def stats(self) -> dict[str, int]:
        """`sessions` alive, `users` who have one, `near` at hand in this process."""
        count, people = await self._store.count()
        return {"sessions": count, "users": people, "near": len(self._near)}

    # --- every second -----------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Notice what other processes changed, write what is due, remove what is over. Call it every second.

        After `Terms.grace` seconds of a store that is away, nothing near is believed any more. Raises `StoreAway` where
        that is the database; a shared store tells by itself.
        """
        try:
            foreign = await self._records.foreign()
            heard = await self._look_around(changed=foreign != self._foreign)
        except StoreAway:
            self._lose_patience()
            raise
        self._foreign = foreign
        if not heard:
            self._lose_patience()
            return
        self._fresh_at = self._monotonic()
        try:
            await self._write_touched()
        except StoreAway:
            if not self._store.shared:
                raise

    def _lose_patience(self) -> None:
        if self._monotonic() - self._fresh_at >= self.terms.grace:
            self._forget_all()

    async def _look_around(self, *, changed: bool) -> bool:
        """Forget what others have changed; whether all of it could be heard.

        `changed`: something in the database. The first time, too: it may have been before we began to watch.
        """
        try:
            await self._store.refresh()
        except StoreAway:
            if not self._store.shared:
                raise
            if changed:
                await self._forget_who_was_ended()
            return False
        if changed:
            self._forget_all()
        return True

    async def _forget_who_was_ended(self) -> None:
        """What is near cannot be read again now, but whose it is can be asked."""
        known = list(self._tokens_of)
        for begin in range(0, len(known), AT_ONCE):
            some = known[begin : begin + AT_ONCE]
            query = select(users.c.tenant, users.c.subject, users.c.generation).where(
                users.c.disabled.is_(False), users.c.subject.in_([subject for _, subject in some])
            )
            async with self._records.read() as connection:
                now = {(row.tenant, row.subject): row.generation for row in await connection.execute(query)}
            for who in some:
                entries = [self._near.get(token) for token in self._tokens_of.get(who, ())]
                if who not in now or any(entry is not None and entry.generation != now[who] for entry in entries):
                    self._forget(*who)

    async def close(self) -> None:
        """Write when every session was last seen, so that a restart keeps who was active."""
        for entry in self._near.values():
            self._note_seen(entry)
        await self._write_touched(everything=True)

    async def _write_touched(self, *, everything: bool = False) -> None:
        queued, self._to_write = self._to_write, []
        now = self._monotonic()
        for entry in queued:
            self._note_seen(entry, due=True)
        due = {of: seen for of, seen in self._touched.items() if everything or seen.due_at <= now}
        if not due:
            return
        await self._store.touch(
            [
                Seen(seen.tenant, seen.subject, of, now - seen.at, seen.expires_at - now, seen.rested)
                for of, seen in due.items()
            ]
        )
        for of, seen in due.items():
            if self._touched.get(of) is seen:
                del self._touched[of]

    # --- what is near -----------------------------------------------------------------------------------------------

    def _keep(self, token: str, found: Found, identity: Identity) -> None:
        entry = _Near(found, identity, self._monotonic(), self.terms)
        self._touched.pop(found.digest, None)  # the entry knows it now
        for gone in self._near.keep(token, entry):
            self._note_seen(gone)
        self._tokens_of.setdefault((identity.tenant, identity.subject), set()).add(token)
        self._unknown.pop(token, None)
        if len(self._tokens_of) > 2 * KEPT_NEAR:
            self._tokens_of = _by_subject(self._near)

    def _in_grace(self, token: str) -> Identity | None:
        """Who holds `token`, as far as is known near, while nobody can be asked."""
        entry = self._near.get(token)
        now = self._monotonic()
        if entry is None or now - self._fresh_at >= self.terms.grace or now >= entry.expires_at:
            return None
        pause = now - entry.seen_at
        if pause >= entry.idle:
            return None
        entry.rest(pause)
        entry.seen_at = now
        return entry.identity

    def _drop(self, token: str) -> None:
        if (entry := self._near.pop(token, None)) is not None:
            self._note_seen(entry)

    def _forget(self, tenant: str, subject: str) -> None:
        """Believe nothing near of this user any more; of nobody, where the subject is empty."""
        if not subject:
            self._forget_all()
            return
        self._forgettings += 1
        if self._forgotten.keep((tenant, subject), self._forgettings):
            self._forgotten_all = self._forgettings
        for token in self._tokens_of.pop((tenant, subject), ()):
            self._drop(token)

    def _forget_places(self, places: Collection[int]) -> None:
        place = self._store.place
        self._forget_these([token for token, entry in self._near.items() if place(entry.digest) in places])

    def _forget_all(self) -> None:
        self._forget_these(list(self._near))
        self._tokens_of.clear()

    def _forget_these(self, tokens: Iterable[str]) -> None:
        self._forgettings += 1
        self._forgotten_all = self._forgettings  # of whom nothing was near, something may just be coming
        for token in tokens:
            self._drop(token)
        self._unknown.clear()

    def _was_forgotten(self, identity: Identity, before: int) -> bool:
        """Since forgetting number `before`."""
        who = identity.tenant, identity.subject
        return max(self._forgotten_all, self._forgotten.get(who, 0)) > before

    def _store_is_away(self) -> None:
        if self.terms.grace <= 0:
            self._forget_all()

    def _note_seen(self, entry: _Near, *, due: bool = False) -> None:
        """Remember what is not written yet of an entry that may go; `due`: it is to be written now."""
        if due or entry.seen_at >= entry.written_at:  # equal: queued, perhaps
            due_at = entry.seen_at if due else entry.written_at + entry.touch_every
            if (before := self._touched.get(entry.digest)) is None or before.at <= entry.seen_at:
                self._touched[entry.digest] = _Seen(entry.identity, entry.seen_at, entry.expires_at, due_at)

    # --- time -------------------------------------------------------------------------------------------------------

    def _pause(self, found: Found) -> float:
        """Seconds since it was seen; from memory where that knows better than the store."""
        seen = self._touched.get(found.digest)
        return found.pause if seen is None else max(0.0, min(found.pause, self._monotonic() - seen.at))

    def _alive(self, found: Found) -> Identity | None:
        """Who it is now, with the pause that this is the end of; None for what is over or void."""
        identity, pause = found.identity, self._pause(found)
        session = identity.session
        if found.void or session is None or found.left <= 0 or pause >= self.terms.of(identity.tenant).idle:
            return None
        seen = self._touched.get(found.digest)
        rested = max(session.rested, pause if pause >= SHORT else 0.0, seen.rested if seen is not None else 0.0)
        if pause == found.pause and rested == session.rested:
            return identity
        last_seen_at = session.last_seen_at + found.pause - pause
        return replace(identity, session=replace(session, last_seen_at=last_seen_at, rested=rested))

    # --- what is owed -----------------------------------------------------------------------------------------------

    async def _owing(self, identity: Identity) -> Identity:
        """`identity`, and until when they have time to set up what they must have."""
        if self._dues is None or (enrol_by := await self._dues.enrol_by(identity)) == identity.enrol_by:
            return identity
        return replace(identity, enrol_by=enrol_by)

    async def _settled(self, identity: Identity | None) -> Identity | None:
        return None if identity is None else await self._owing(identity)

    # --- telling ----------------------------------------------------------------------------------------------------

    async def _name_of(self, tenant: str, subject: str) -> str:
        async with self._records.read() as connection:
            query = select(users.c.name).where(users.c.tenant == tenant, users.c.subject == subject)
            return (await connection.execute(query)).scalar() or ""

    async def _tell_ended(self, tenant: str, subject: str, session_id: str, why: str, by: str = "") -> None:
        name = await self._name_of(tenant, subject)
        detail = {"why": why} | ({"by": by} if by else {})
        self._ledger.note(Event(Kind.SESSION_ENDED, Severity.INFO, tenant, name, session_id, detail=detail))


def _ended() -> UserError:
    return UserError("ERR-SESSION-ENDED", say("This session is over; sign in again."), 401)


def _by_subject(near: Near[str, _Near]) -> dict[tuple[str, str], set[str]]:
    tokens: dict[tuple[str, str], set[str]] = {}
    for token, entry in near.items():
        tokens.setdefault((entry.identity.tenant, entry.identity.subject), set()).add(token)
    return tokens
