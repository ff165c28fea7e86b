"""What the records hold under the master keys, and what becomes of it when the key changes.

- Secrets of factors (`factors.secret`) are sealed anew, row by row.
- Backup codes are MACs, and nobody has the code; `backup_codes.digest` names its key. They are void after 90 days.
- Open setups and interrupted requests (`kept.value`) expire within ten minutes. A request is bound to a ticket that
  only its owner has, so nobody else could seal it anew.
- Codes and links that wait in the outbox (`outbox.sealed`) go when they are sent, or their time is over; the addresses
  of what was sent (`outbox.address`) with their rows, a week later.
- The links of recoveries (`recoveries.cancel`, `recoveries.link`) are MACs too, and name their key; they expire.
- Sessions in Redis, open forms and challenges expire with the session at the latest.
- Device cookies are not waited for: without the key such a browser is a stranger until its next sign-in.

*What lasts is sealed anew, what expires is waited for.* A row is written only where it still holds what was read, so
whoever else wrote it meanwhile keeps their word. Rows go a few at a time, no two of one person in one transaction: who
else changes factors changes those of one person, so nobody ever waits for us while we wait for them. Which rows are
left is read from their heads: there is no list of what was done that could be wrong after a kill.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, LargeBinary, String, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import ConfigError
from gateway.crypto.keys import KeyRing
from gateway.crypto.mac import PREFIX_SIZE
from gateway.crypto.masters import MasterStanding
from gateway.crypto.sealing import HEAD_SIZE, VERSION, Sealer, Unsealable, number_of
from gateway.mfa.backup_codes import BackupCodes
from gateway.store.outbox_table import KEPT as SENT_KEPT
from gateway.store.sql import Records
from gateway.store.tables import backup_codes, factors, kept, meta, outbox, recoveries

AT_ONCE = 256
"""Rows read at a time."""
BATCH = 16
"""Rows written in one transaction."""
REST = 0.1
"""Seconds to rest after a transaction at most; as long as it took, so that other writers find room."""
GRACE = 300.0
"""Seconds beyond the longest lifetime, for clocks that differ."""

_ANEW = (
    update(factors)
    .where(
        factors.c.tenant == bindparam("of_tenant"),
        factors.c.id == bindparam("of_id"),
        factors.c.secret == bindparam("was"),
    )
    .values(secret=bindparam("fresh"))
)


_LINKS = (recoveries.c.cancel, recoveries.c.link)


class Row(NamedTuple):
    """One row that was looked at."""

    tenant: str
    id: str
    opened: bool
    """False: it opens under none of our keys in its place, and stays as it is."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that an old master key is kept for."""

    what: str
    count: int
    """0 where it cannot be counted."""
    until: float
    """When it needs the key no more by itself, seconds since the epoch; 0.0: never."""


def place_of(tenant: str, factor_id: str) -> dict[str, str]:
    """Where the secret of a factor is sealed."""
    return {"table": "factors", "column": "secret", "row": f"{tenant}/{factor_id}"}


async def seals(records: Records) -> dict[bytes, int]:
    """How many secrets of factors are sealed, by the public name of the master key."""
    head = _head(factors.c.secret)
    query = select(head, func.count()).where(_sealed()).group_by(head)
    async with records.read(long=True) as connection:
        found = (await connection.execute(query)).all()
    return {bytes(name)[len(VERSION) :]: count for name, count in found}


async def demand_keys(records: Records, keys: KeyRing) -> None:
    """Keys and records belong together, or nothing goes on. Raises `ConfigError`."""
    sealed_by = await records.sealed_by()
    if sealed_by is not None and sealed_by not in keys.sealer.ids:
        raise ConfigError(
            f"the keys in {keys.folder} are not those that sealed {records.name}",
            "restore the key folder that belongs to this database",
        )
    for name, count in (await seals(records)).items():
        if number_of(name) not in keys.sealer.ids:
            raise ConfigError(
                f"{count} secrets in {records.name} are sealed with master key {name.hex()}, "
                f"which is not in {keys.folder}",
                "restore its file into the key folder",
            )


async def remember_key(records: Records, keys: KeyRing) -> None:
    """Note that the current master key seals here from now on: without it these records are not opened any more."""
    number = keys.sealer.current
    async with records.begin() as connection:
        noted = await connection.execute(update(meta).where(meta.c.name == "sealed_by").values(number=number))
        if not noted.rowcount:
            await connection.execute(insert(meta).values(name="sealed_by", number=number))


async def left(records: Records, sealer: Sealer) -> int:
    """How many secrets are not sealed under the current key."""
    query = select(func.count()).select_from(factors).where(_sealed(), _head(factors.c.secret) != sealer.head)
    async with records.read(long=True) as connection:
        return await connection.scalar(query) or 0


async def reseal(records: Records, sealer: Sealer) -> AsyncIterator[Row]:
    """Seal every secret anew that is not under the current key; yields each row that was looked at.

    It may be ended at any time and begun again. Raises `StoreAway`.
    """
    loop = asyncio.get_running_loop()
    after: ColumnElement[bool] | None = None
    while True:
        query = (
            select(factors.c.tenant, factors.c.id, factors.c.subject, factors.c.secret)
            .where(_sealed(), _head(factors.c.secret) != sealer.head)
            .order_by(factors.c.tenant, factors.c.id)
            .limit(AT_ONCE)
        )
        async with records.read(long=True) as connection:
            rows = (await connection.execute(query if after is None else query.where(after))).all()
        for some in _batches(rows):
            began = loop.time()
            for row in await _reseal(records, sealer, some):
                yield row
            await asyncio.sleep(min(loop.time() - began, REST))
        if len(rows) < AT_ONCE:
            return
        last = rows[-1]
        after = or_(factors.c.tenant > last.tenant, and_(factors.c.tenant == last.tenant, factors.c.id > last.id))


async def needs(records: Records, standing: MasterStanding, now: float, longest_session: float) -> list[Need]:
    """What the old key of `standing` is still needed for; empty: nothing.

    `longest_session`: seconds that a session lives at most, and with it what was made for it.
    """
    name, found = standing.key.id, []
    of_key = _head(kept.c.value) == VERSION + name
    codes = _codes_of(name, now)
    async with records.read(long=True) as connection:
        secrets = await connection.scalar(
            select(func.count()).select_from(factors).where(_head(factors.c.secret) == VERSION + name)
        )
        open_ones = (
            await connection.execute(
                select(func.count(), func.max(kept.c.expires_at)).where(of_key, kept.c.expires_at > now)
            )
        ).one()
        codes_to_send = (
            await connection.execute(
                select(func.count(), func.max(outbox.c.expires_at)).where(
                    _head(outbox.c.sealed) == VERSION + name, outbox.c.expires_at > now
                )
            )
        ).one()
        sent = (
            await connection.execute(
                select(func.count(), func.max(outbox.c.settled_at)).where(
                    _head(outbox.c.address) == VERSION + name, outbox.c.settled_at > now - SENT_KEPT
                )
            )
        ).one()
        unused = (
            await connection.execute(select(func.count(), func.max(backup_codes.c.expires_at)).where(codes))
        ).one()
        recovered = (
            await connection.execute(
                select(func.count(), func.max(recoveries.c.expires_at)).where(_recoveries_of(name, now))
            )
        ).one()
    if secrets:
        found.append(Need("secrets of factors", secrets, 0.0))
    if open_ones[0]:
        found.append(Need("setups and interrupted requests", open_ones[0], open_ones[1]))
    if codes_to_send[0]:
        found.append(Need("codes to be sent", codes_to_send[0], codes_to_send[1]))
    if sent[0]:
        found.append(Need("addresses of sent messages", sent[0], sent[1] + SENT_KEPT))
    if recovered[0]:
        found.append(Need("open recoveries", recovered[0], recovered[1]))
    if unused[0]:
        found.append(Need("backup codes", unused[0], unused[1]))
    over = standing.replaced_at + longest_session + GRACE
    if over > now:
        found.append(Need("sessions and open forms", 0, over))
    return found


async def void_codes(records: Records, codes: BackupCodes, name: bytes, now: float) -> int:
    """Void the backup codes made under the master key called `name`; of how many people."""
    query = select(backup_codes.c.tenant, backup_codes.c.subject).where(_codes_of(name, now)).distinct()
    async with records.read(long=True) as connection:
        people = (await connection.execute(query)).all()
    for one in people:
        async with records.begin(one.tenant, one.subject) as connection:
            if await _still(connection, one.tenant, one.subject, name, now):
                await codes.void(connection, one.tenant, one.subject)
                await records.bump(connection, one.tenant, one.subject)
    return len(people)


def _batches(rows: Sequence[Any]) -> Iterator[list[Any]]:
    """`rows` in their order, `BATCH` at most together and never two of one person."""
    batch: dict[tuple[str, str], Any] = {}
    for row in rows:
        if len(batch) == BATCH or (row.tenant, row.subject) in batch:
            yield list(batch.values())
            batch = {}
        batch[row.tenant, row.subject] = row
    if batch:
        yield list(batch.values())


async def _reseal(records: Records, sealer: Sealer, rows: Sequence[Any]) -> list[Row]:
    looked_at, writes = [], []
    for row in rows:
        place = place_of(row.tenant, row.id)
        try:
            fresh = sealer.seal(sealer.unseal(row.secret, **place), **place)
        except Unsealable:
            looked_at.append(Row(row.tenant, row.id, False))
            continue
        looked_at.append(Row(row.tenant, row.id, True))
        writes.append({"of_tenant": row.tenant, "of_id": row.id, "was": row.secret, "fresh": fresh})
    if writes:
        async with records.begin() as connection:
            await connection.execute(_ANEW, writes)
    return looked_at


async def _still(connection: AsyncConnection, tenant: str, subject: str, name: bytes, now: float) -> bool:
    """Whether they have such codes; not, where they have made new ones meanwhile."""
    mine = and_(backup_codes.c.tenant == tenant, backup_codes.c.subject == subject, _codes_of(name, now))
    return bool(await connection.scalar(select(func.count()).select_from(backup_codes).where(mine)))


def _sealed() -> ColumnElement[bool]:
    return func.length(factors.c.secret) > 0  # a set of backup codes has no secret


def _head(column: ColumnElement[bytes] | ColumnElement[bytes | None]) -> ColumnElement[bytes]:
    return func.substr(column, 1, HEAD_SIZE, type_=LargeBinary)


def _recoveries_of(name: bytes, now: float) -> ColumnElement[bool]:
    """Open recoveries whose links need the key called `name`."""
    made = [func.substr(column, 1, PREFIX_SIZE, type_=String) == f"{name.hex()}." for column in _LINKS]
    return and_(recoveries.c.settled_at.is_(None), recoveries.c.expires_at > now, or_(*made))


def _codes_of(name: bytes, now: float) -> ColumnElement[bool]:
    """Backup codes that count and need the key called `name`. Those that name none may have been made under any."""
    digest = backup_codes.c.digest
    return and_(
        backup_codes.c.used_at.is_(None),
        backup_codes.c.expires_at > now,
        or_(
            func.substr(digest, 1, PREFIX_SIZE, type_=String) == f"{name.hex()}.",
            func.length(digest) == 43,
        ),
    )
