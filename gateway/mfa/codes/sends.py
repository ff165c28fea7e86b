"""How often codes are sent: counted before anything is, in the transaction that puts the message into the outbox.

```text
whom            how often                                     why
one user        30 s apart, then 60 s, 2 min, 4 min;          a button is pressed again and again; each message costs
  (by factor)     5 in an hour
one address     10 in a day, whoever asks                     nobody is flooded, by however many accounts
                5 of them at most for who has not bound it    strangers cannot use up what its owner needs
```

Each factor has its own: who is flooded with text messages, or has used them up, can still have an e-mail, and every
other factor is as it was. A refusal counts nothing, so asking too early makes nobody wait longer.

Addresses are counted under a MAC of theirs. After a new master key they begin anew. An e-mail address is counted as
its mailbox (`core.mailbox`): whoever floods it would have any number of spellings.

The row of a user is written under the lock on that person, the row of an address is locked by itself: of several people
who send to one address at once each sees what the others have sent, on either database. Everybody locks in this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.mailbox import mailbox
from gateway.crypto.mac import Mac
from gateway.store.tables import code_sends as rows

GAP: Final = 30.0
"""Seconds after the first code until the next; each further one takes twice as long."""
HOUR: Final = 3600.0
HOURLY: Final = 5
"""Codes for one user in an hour, by factor."""
DAY: Final = 86_400.0
DAILY: Final = 10
"""Codes to one address in a day."""
STRANGERS: Final = 5
"""How many of these may be asked for by people who have not bound it."""
EVERYWHERE: Final = ""
"""In the place of a tenant: an address is one address, whoever of which tenant sends to it."""

Sent = tuple[float, bool]
"""When, and whether it was to an address that is bound."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What became of a wish to send."""

    wait: float = 0.0
    """0.0: send. Otherwise do not, and say to come back in so many seconds."""
    whose: str = ""
    """Whose limit it is: `user`, `address`; or empty."""


def user_waits(times: Sequence[float], now: float) -> float:
    """Seconds until a user who was sent codes at `times`, oldest first, may have the next."""
    recent = [min(at, now) for at in times if at > now - HOUR]
    if not recent:
        return 0.0
    wait = recent[-1] + GAP * 2.0 ** (len(recent) - 1) - now
    if len(recent) >= HOURLY:
        wait = max(wait, recent[-HOURLY] + HOUR - now)
    return max(0.0, wait)


def address_waits(sent: Sequence[Sent], now: float, *, bound: bool) -> float:
    """Seconds until an address that codes were `sent` to, oldest first, may get the next; `bound`: by who owns it."""
    recent = [(min(at, now), owned) for at, owned in sent if at > now - DAY]
    wait = recent[-DAILY][0] + DAY - now if len(recent) >= DAILY else 0.0
    strange = [at for at, owned in recent if not owned]
    if not bound and len(strange) >= STRANGERS:
        wait = max(wait, strange[-STRANGERS] + DAY - now)
    return max(0.0, wait)


async def count(
    connection: AsyncConnection,
    mac: Mac,
    *,
    tenant: str,
    subject: str,
    factor: str,
    address: str,
    bound: bool,
    now: float,
) -> Counted:
    """Count one code to `address` for this person, about whom `connection` is; or nothing, where that is too often."""
    whose = mac.token("code-address", factor, mailbox(address))
    mine, theirs = _user(tenant, subject, factor), (EVERYWHERE, f"to/{whose}")
    times = [float(at) for at, _ in await _read(connection, mine)]
    wait = user_waits(times, now)
    if wait > 0:
        return Counted(wait, "user")
    await _touch(connection, theirs, now)
    sent = [(float(at), bool(owned)) for at, owned in await _read(connection, theirs, lock=True)]
    wait = address_waits(sent, now, bound=bound)
    if wait > 0:
        return Counted(wait, "address")
    await _write(connection, mine, [*((at, True) for at in times if at > now - HOUR), (now, True)], now + HOUR)
    await _write(connection, theirs, [*(one for one in sent if one[0] > now - DAY), (now, bound)], now + DAY)
    return Counted()


async def again_in(connection: AsyncConnection, tenant: str, subject: str, factor: str, now: float) -> float:
    """Seconds until this user may have the next; their own limit only."""
    return user_waits([float(at) for at, _ in await _read(connection, _user(tenant, subject, factor))], now)


async def sweep(connection: AsyncConnection, now: float) -> None:
    """Remove what counts no more, and is not being looked at."""
    over = select(rows.c.whose).where(rows.c.expires_at <= now).limit(256).with_for_update(skip_locked=True)
    await connection.execute(delete(rows).where(rows.c.whose.in_(over), rows.c.expires_at <= now))


def _user(tenant: str, subject: str, factor: str) -> tuple[str, str]:
    return tenant, f"user/{factor}/{subject}"


async def _read(connection: AsyncConnection, whose: tuple[str, str], *, lock: bool = False) -> Sequence[Any]:
    query = select(rows.c.sent).where(rows.c.tenant == whose[0], rows.c.whose == whose[1])
    found: Sequence[Any] | None = await connection.scalar(query.with_for_update() if lock else query)
    return found or ()


async def _touch(connection: AsyncConnection, whose: tuple[str, str], now: float) -> None:
    """Have a row that can be locked. One that two make at once is made by the first; the second waits for it."""
    values = {"tenant": whose[0], "whose": whose[1], "sent": [], "expires_at": now + DAY}
    await connection.execute(_insert(connection).values(values).on_conflict_do_nothing())


async def _write(connection: AsyncConnection, whose: tuple[str, str], sent: Sequence[Sent], expires_at: float) -> None:
    values = {"sent": [list(one) for one in sent], "expires_at": expires_at}
    statement = _insert(connection).values(tenant=whose[0], whose=whose[1], **values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["tenant", "whose"], set_=values))


def _insert(connection: AsyncConnection) -> Any:
    """`INSERT` that may say `ON CONFLICT`: the two spell it alike, and SQLAlchemy keeps them apart."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(rows)
