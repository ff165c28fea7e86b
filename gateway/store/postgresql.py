"""PostgreSQL: for several replicas, and wherever a database is looked after already.

- What is about one person takes turns. `write` holds an advisory lock on that person until it ends, so what is read in
  it cannot have changed when it is written, whichever replica reads and writes: as `BEGIN IMMEDIATE` does on SQLite,
  only that other people need not wait. Within a process those who want the same person queue up here, so that they do
  not use up the connections by waiting; between processes the lock is asked for again and again, each time with the
  same short deadline, because a lock that is waited for looks like a server that is gone.
- `READ COMMITTED`, said by us: each statement sees what was committed before it, hence all that the one who had the
  lock before has done. `read` has no transaction, which saves two round trips.
- Whoever asks has an answer within the line's 50 ms, or the database is away and nobody else waits. A transaction that
  has had its first answer may take a second, for its commit has to reach the disk (and a standby). One that takes
  longer than 50 ms has the database asked, on the connection that is kept apart, whether it is there at all.
- The pool is small and always full. A statement takes about a millisecond, so four connections carry more than one
  Python process can ask; and since a connection costs the server a process of its own, few of them leave room for many
  replicas. They are opened at the start and by the probe, never (but for single ones that broke) while somebody waits.
  They are used in turn, so that the poll of every second keeps all of them from being forgotten by a firewall.
- After the database was away nothing that was open before is believed: the pool is made anew. Of several hosts the one
  that takes writes is used; a server that has become a standby is away.
- A server that does not hear from us any more gives our locks back within ten seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from typing import Any
from weakref import WeakSet

import asyncpg
from asyncpg.exceptions import InternalClientError
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.core.errors import ConfigError, StoreAway
from gateway.store.database import cause, from_json, to_json
from gateway.store.line import Line
from gateway.store.place import Place, Server, server
from gateway.store.postgresql_frames import NONSENSE, Nonsense

OLDEST = 13
"""The oldest major version of PostgreSQL this is written for."""
POOL = 4
"""Connections that requests share; one more is kept apart, for whoever asks how the database is."""
CONNECT = 1.0
"""Seconds for a connection, when somebody waits for none."""
FAREWELL = 0.02
"""Seconds for a polite end of a connection."""
LAST = 1.0
"""Seconds for what is on its way when it is closed."""
COMMIT = 1.0
"""Seconds for a transaction after its first answer."""
LONG = 5.0
"""Seconds for a question about everybody; also how long anybody waits for their turn."""
PROBE_PATIENCE = 3.0
MAKING = 60.0
"""Seconds to wait for another process that makes or changes tables."""

TABLES_LOCK = 0x53616C6C79706F72
"""Advisory lock of whoever makes or changes tables."""

_SETTINGS = {
    "application_name": "sallyport",
    "statement_timeout": f"{int(LONG * 1000)}",  # what we have stopped waiting for does not go on for ever
    "lock_timeout": "500",  # less than a transaction may take: who waits in a circle must not look like a dead server
    "idle_in_transaction_session_timeout": "10000",
    "client_min_messages": "warning",
}
_ASK = text(
    "SELECT number FROM meta WHERE name = 'revision' AND NOT pg_is_in_recovery()"
    " AND current_setting('transaction_read_only') = 'off'"
)
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(:key)")
_BROKEN = (asyncpg.InterfaceError, InternalClientError, OSError, EOFError)
"""Unless it is a `ValueError` as well: then a value of ours was not fit to be sent."""
_GONE = ("08", "28", "3D", "57P", "53300", "25006", "XX")
"""SQLSTATEs, or how they begin, of a server that cannot be used: connection lost, no longer let in, no such database,
stopping or starting, no room for us, read-only, broken inside."""


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """One that is gone within moments, and at once where nobody is there to take leave of."""

    line: Line | None = None

    async def prepare(self, *given: Any, **named: Any) -> Any:
        """As its like has it. It may have to ask about types first, and believes what it is answered."""
        return await self._sensible(super().prepare(*given, **named))

    async def executemany(self, *given: Any, **named: Any) -> Any:
        """The same."""
        return await self._sensible(super().executemany(*given, **named))

    async def _sensible(self, answer: Awaitable[Any]) -> Any:
        return await (answer if self._protocol is None else self._protocol.sensible(answer))

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as its like has it
        """Take leave."""
        if self.line is not None and self.line.up:
            with contextlib.suppress(Exception):
                await super().close(timeout=FAREWELL)
        self.terminate()


class _Turn:
    """Those who want to write about the same person, in this process."""

    __slots__ = ("lock", "wanted")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class PostgreSQL:
    """A `Database` on a server. Made by `connect`."""

    errors = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, InternalClientError, OSError, EOFError)

    def __init__(self, place: Place, at: Server) -> None:
        self.at = at
        self.name = f"database {at}"
        self.refuses = ""
        self._tls = _tls(place, at)
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            isolation_level="READ COMMITTED",
            json_serializer=to_json,
            json_deserializer=from_json,
            hide_parameters=True,
            pool_size=POOL + 1,
            max_overflow=0,
            pool_timeout=CONNECT,
            pool_use_lifo=False,
        )
        self._reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._hosts = list(at.hosts)
        patience = PROBE_PATIENCE + CONNECT * (len(at.hosts) - 1)
        self.line = Line("records", self._probe, deadline=place.deadline, patience=patience)
        self._deadline = place.deadline
        self.line.listen(self._changed)
        self._slots = asyncio.Semaphore(POOL)
        self._apart = asyncio.Lock()
        self._turns: dict[tuple[str, str], _Turn] = {}
        self._open: WeakSet[asyncpg.Connection] = WeakSet()
        self._old: list[asyncpg.Connection] = []
        self._wondering: asyncio.Task[None] | None = None

    # --- asking -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def write(self, tenant: str, subject: str) -> AsyncIterator[AsyncConnection]:
        """A transaction that nobody else can have about this person; about nobody, where the subject is empty."""
        async with self._turn(tenant, subject), self._slots:
            self.line.check()
            with self._understood():
                async with self._lent(self.engine) as connection:
                    transaction = connection.begin()
                    await transaction.start()  # which says nothing to the server yet
                    try:
                        await self._lock(connection, tenant, subject)
                        wonder = asyncio.get_running_loop().call_later(self._deadline, self._wonder)
                        try:
                            async with self.line.bounded(COMMIT):
                                yield connection
                                await transaction.commit()
                        finally:
                            wonder.cancel()
                    except BaseException:
                        await self._undo(connection, transaction.is_active)
                        raise

    @asynccontextmanager
    async def read(self, *, long: bool = False, apart: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection that has answered within the deadline, and goes on to; `long`: may then take its time."""
        async with self._apart if apart else self._slots:
            self.line.check()
            with self._understood():
                async with self._lent(self._reading) as connection:
                    if long:
                        async with self.line.bounded():
                            await connection.exec_driver_sql("SELECT 1")
                    async with self.line.bounded(LONG if long else None):
                        yield connection

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that makes or changes tables."""
        async with self.engine.connect() as connection, connection.begin():
            await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MAKING:g}s'")
            await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": TABLES_LOCK})
            yield connection

    async def close(self) -> None:
        """Close every connection, once those who have one are done with it; shortly, and whoever has it then."""
        await self._quiet()
        await self.line.close()
        if self._wondering is not None:
            self._wondering.cancel()
            await asyncio.gather(self._wondering, return_exceptions=True)
        await self.engine.dispose()
        for connection in list(self._open):  # what is given back from now on is given to a pool that is gone
            if not connection.is_closed():
                connection.terminate()

    async def _quiet(self) -> None:
        """Wait until nobody has a connection. Who stands in line behind that is not kept there."""
        back = 0
        try:
            async with asyncio.timeout(LAST):
                while back < POOL:
                    await self._slots.acquire()
                    back += 1
        except TimeoutError:
            pass
        finally:
            for _ in range(back):
                self._slots.release()

    @asynccontextmanager
    async def _turn(self, tenant: str, subject: str) -> AsyncIterator[None]:
        """Wait until nobody in this process writes about this person."""
        if not subject:
            yield
            return
        turn = self._turns.setdefault((tenant, subject), _Turn())
        turn.wanted += 1
        try:
            try:
                async with asyncio.timeout(LONG):
                    await turn.lock.acquire()
            except TimeoutError:
                raise StoreAway("database: too many changes of one person at once") from None
            try:
                yield
            finally:
                turn.lock.release()
        finally:
            turn.wanted -= 1
            if not turn.wanted:
                del self._turns[tenant, subject]

    async def _lock(self, connection: AsyncConnection, tenant: str, subject: str) -> None:
        """The first answer, and the lock with it. Raises `StoreAway` where another process keeps it for long."""
        if not subject:
            async with self.line.bounded():
                await connection.exec_driver_sql("SELECT 1")
            return
        asked, wait, waited = {"key": _number_of(tenant, subject)}, 0.002, 0.0
        while True:
            async with self.line.bounded():
                if await connection.scalar(_TRY_LOCK, asked):
                    return
            if waited > LONG:
                raise StoreAway("database: another process is changing the same person")
            wait = min(wait * 1.5, 0.025)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - so that replicas do not ask in step
            waited += wait

    async def _undo(self, connection: AsyncConnection, active: bool) -> None:
        """Roll back, or be rid of the connection where that takes long: nothing of it must be left behind."""
        if not active or connection.invalidated:
            return
        try:
            async with asyncio.timeout(self._deadline):
                await connection.rollback()
        except Exception:
            await connection.invalidate()

    @asynccontextmanager
    async def _lent(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A connection out of the pool; not given back where the database was away meanwhile."""
        lost = self.line.lost
        lent = engine.connect()
        async with self.line.bounded():
            await lent.start()
        try:
            yield lent
        finally:
            await asyncio.shield(self._give_back(lent, self.line.lost != lost))

    async def _give_back(self, connection: AsyncConnection, doubtful: bool) -> None:
        with contextlib.suppress(*self.errors):
            if doubtful and not connection.closed and not connection.invalidated:
                await connection.invalidate()
            await connection.close()

    # --- whether it is there ----------------------------------------------------------------------------------------

    def _wonder(self) -> None:
        """A transaction takes its time: is anybody there?"""
        if self._wondering is None or self._wondering.done():
            self._wondering = asyncio.get_running_loop().create_task(self._ask(), name="is the database there")

    async def _ask(self) -> None:
        with contextlib.suppress(StoreAway):
            async with self.read(apart=True) as connection:
                await connection.execute(_ASK)

    def _changed(self, up: bool) -> None:
        self._old = [] if up else list(self._open)

    async def _probe(self) -> None:
        """Connect anew, ask, and fill the pool. Whoever still waits on what was open before is told that it is lost."""
        cutting = asyncio.get_running_loop().call_later(self._deadline, self._cut)
        try:
            await self.engine.dispose()
            async with self._reading.connect() as connection:
                async with asyncio.timeout(self._deadline):
                    if await connection.scalar(_ASK) is None:
                        raise StoreAway("it takes no changes")
                await self._fill(POOL)
        except Exception as error:
            raise StoreAway(str(cause(error)) or "no answer") from error
        finally:
            cutting.cancel()

    def _cut(self) -> None:
        for connection in self._old:
            connection.terminate()
        self._old = []

    async def fill(self) -> int:
        """Open every connection; the server's major version. Raises what the driver does."""
        async with self.engine.connect() as connection:  # the first alone: it may be told why there are none
            driver = (await connection.get_raw_connection()).driver_connection
            await self._fill(POOL)
            return int(driver.get_server_version().major) if driver is not None else 0

    async def _fill(self, more: int) -> None:
        asked = [self.engine.connect() for _ in range(more)]
        try:
            made = await asyncio.gather(*(each.start() for each in asked), return_exceptions=True)
        finally:  # also where it takes too long, and some are there
            for each in asked:
                if each.sync_connection is not None:
                    await each.close()
        for failed in made:
            if isinstance(failed, BaseException):
                raise failed

    async def _connect(self) -> asyncpg.Connection:
        """A connection to the one that takes writes: of several hosts, the last that did is asked first.

        Each has `CONNECT` seconds of its own. The driver would share them, and of two hosts the second would never be
        reached while the first is a machine without power, which does not even refuse.
        """
        failed: list[Exception] = []
        for host in list(self._hosts):
            try:
                connection = await self._connect_to(*host)
            except Exception as error:
                failed.append(error)
                continue
            self._hosts.sort(key=lambda one: one != host)
            return connection
        # Of one that answers there is more to be said than of one that does not.
        raise next((error for error in failed if not isinstance(error, OSError)), failed[0])

    async def _connect_to(self, host: str, port: int) -> asyncpg.Connection:
        at = self.at
        try:
            connection = await asyncpg.connect(
                host=host,
                port=port,
                user=at.user,
                password=at.password or None,
                database=at.database,
                ssl=self._tls,
                timeout=CONNECT,
                target_session_attrs="read-write",
                server_settings=_SETTINGS,
                connection_class=Connection,
            )
        except self.errors:
            raise
        except Exception as error:  # a greeting that lacks what the driver looks for in it
            raise Nonsense(NONSENSE) from error
        connection.line = self.line
        self._open.add(connection)
        return connection

    @contextmanager
    def _understood(self) -> Iterator[None]:
        began = self.line.lost
        try:
            yield
        except IntegrityError:
            raise
        except self.errors as error:
            said = cause(error)
            state = str(getattr(said, "sqlstate", None) or "")
            if state.startswith(_GONE) if state else isinstance(said, _BROKEN) and not isinstance(said, ValueError):
                self.line.failed(_words(said), began)
            elif state == "53100":
                self.refuses = _words(said)
            raise StoreAway(f"database: {_words(said)}") from error


async def connect(place: Place) -> PostgreSQL:
    """The database at `place`. Raises `ConfigError` for whatever keeps it from being used."""
    try:
        at = server(place)
    except ValueError as error:
        raise ConfigError(f"store.records: {error}") from None
    database = PostgreSQL(place, at)
    try:
        check_version(await database.fill(), database.name)
    except BaseException as error:
        await database.close()
        if isinstance(error, Exception) and not isinstance(error, ConfigError):
            raise _unfit(database, error) from error
        raise
    return database


def check_version(major: int, name: str) -> None:
    """Raises `ConfigError` for a server this is not written for."""
    if major < OLDEST:
        raise ConfigError(f"{name}: the server is PostgreSQL {major}", f"Sallyport needs PostgreSQL {OLDEST} or newer")


def _unfit(database: PostgreSQL, error: Exception) -> ConfigError:
    """What to tell whom about a database that cannot be reached."""
    said, at = cause(error), database.at
    state = str(getattr(said, "sqlstate", None) or "")
    told = database.name
    if state in ("28P01", "28000"):
        return ConfigError(
            f"{told}: user {at.user} is not let in", "check user and password in store.records, and pg_hba.conf"
        )
    if state == "3D000":
        return ConfigError(f"{told} does not exist", f"createdb --owner={at.user} {at.database}")
    if state == "42501":
        return ConfigError(f"{told}: user {at.user} may not: {said}", f"GRANT CONNECT, CREATE ON … TO {at.user}")
    if isinstance(said, ssl.SSLError):
        return ConfigError(
            f"{told}: TLS failed: {getattr(said, 'verify_message', '') or said.reason or said}",
            "name the authority of its certificate as `ca`, and the host as the certificate does",
        )
    if isinstance(said, ConnectionError) and "rejected SSL" in str(said):
        return ConfigError(f"{told} speaks no TLS", "have the server do (ssl = on), or do without: ?sslmode=disable")
    if isinstance(said, asyncpg.TargetServerAttributeNotMatched):
        return ConfigError(f"{told} takes no changes", "name the primary, or all hosts of the cluster with commas")
    if isinstance(said, TimeoutError):
        return ConfigError(f"{told} does not answer", "check host and port in store.records, and firewalls")
    return ConfigError(f"{told} cannot be used: {_words(said)}", "check store.records, and that the server is running")


def _words(said: BaseException) -> str:
    if isinstance(said.__cause__, Nonsense):  # which ended the connection
        said = said.__cause__
    if isinstance(said, OSError) and said.strerror and not isinstance(said, ssl.SSLError):
        return said.strerror
    return (str(said) or type(said).__name__).splitlines()[0]


def _tls(place: Place, at: Server) -> ssl.SSLContext | bool:
    """Raises `ConfigError` for files that cannot be read."""
    if at.mode == "disable":
        return False
    try:
        context = ssl.create_default_context(cafile=place.ca)
        context.check_hostname = at.mode == "verify-full"
        if place.certificate is not None:
            context.load_cert_chain(place.certificate, place.key, password="")
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"store.records: the files of TLS cannot be read: {error.strerror or error}",
            "check `ca`, `certificate` and `key`: PEM, the key without a password",
        ) from error
    return context


def _number_of(tenant: str, subject: str) -> int:
    """The advisory lock of a person."""
    name = f"{tenant}\0{subject}".encode("utf-8", "surrogatepass")
    return int.from_bytes(sha256(b"sallyport person\0" + name).digest()[:8], "big", signed=True)
