"""The fault table: what a store does, and what becomes of everybody meanwhile, measured on real gateways.

Each store has a gateway of its own that nothing else is wrong with. Its rows come one after the other: something is
begun, everybody asks, the fault begins, everybody asks for as long as it takes known sessions to be forgotten, it ends,
and they ask until all is as before. The tables of several stores are measured at the same time.

    make test     beside other tests              python -m tests.replicas.fault_table >/dev/null     as it was measured
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import uvloop

from gateway.core.clock import SystemClock
from tests.house.visitor import Visitor, location
from tests.replicas.several import Replica, Several, several
from tests.rig.awake import Awake
from tests.rig.faulty import FAULTS, Faulty, before
from tests.rig.gateway import PASSWORD
from tests.rig.messages import Response
from tests.rig.postgres import Server as PostgreSQL
from tests.rig.postgres import standby_of, started
from tests.rig.redis import Server as Redis
from tests.rig.redis import a_server

GRACE = 1.5
TICK = 1.0
"""Seconds between two looks at the stores, as in `app`: a grace may last that much longer, and begins that much
earlier than the fault."""
SETTLED = GRACE + TICK + 0.6
"""Seconds after which nobody is known any more."""
BACK_WITHIN = 5.0
HEARD_AGAIN = 1.6
"""Seconds after the end of a fault in which a gateway hears the others again. Then it forgets all it knew near, for it
may have missed something; if the next fault began before, nobody would be known."""
SHARE = 40

POLICY = f"""\
rules:
  - name: public
    match: {{paths: [/public]}}
    access: public
    upstream: app
  - name: refuse
    match: {{paths: [/refuse]}}
    access: public
    limits: [{{name: refusing, key: address, rate: 100000/h, when_away: refuse}}]
    upstream: app
  - name: local
    match: {{paths: [/local]}}
    access: public
    limits: [{{name: counting, key: address, rate: {SHARE}/h, when_away: local}}]
    upstream: app
  - name: allow
    match: {{paths: [/allow]}}
    access: public
    limits: [{{name: allowing, key: address, rate: 100000/h, when_away: allow}}]
    upstream: app
  - name: admin
    match: {{paths: [/admin/**]}}
    access: {{groups: [admins]}}
    step_up: {{level: aal2, factors: [totp, backup_code], max_age: 1s}}
    upstream: app
  - name: everything-else
    access: authenticated
    upstream: app
"""

T = TypeVar("T")
Effect = Literal["away", "takes no changes"]
Do = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One fault of one store."""

    store: str
    fault: str
    effect: Effect


@dataclass(frozen=True)
class Doing(Row):
    """How to begin it, and how to end it."""

    begin: Do
    end: Do


@dataclass(frozen=True)
class Ask:
    """One request during the fault: who asked for what, when it was sent after the fault began, what came of it."""

    kind: str
    at: float
    took: float
    status: int


@dataclass
class Measured:
    """What became of everybody in one row."""

    row: Row
    asks: list[Ask] = field(default_factory=list)
    unsure: float = 0.0
    """Seconds by which the grace may be over earlier than it says: for so long this machine stood still just before the
    fault, so that a look at the stores came late."""
    up: float = -1.0
    """The lowest `sallyport_store_up` of the store, and what readiness said then."""
    did: dict[str, float] = field(default_factory=dict)
    """What `sallyport_limits_away_total` gained, by what was done."""
    ready: tuple[int, dict[str, Any]] = (0, {})
    said: str = ""
    """What the gateway wrote from the beginning of the fault to its end."""
    back: float = -1.0
    """Seconds from its end until all was as before."""
    up_again: float = -1.0
    named: dict[str, int] = field(default_factory=dict)
    """Requests that reached the service for `/app/…` and `/admin/…` during the fault, by whose they were."""
    proofs: list[bool] = field(default_factory=list)
    """Whether the one backup code of this row was taken: during the fault, after it, and after it once more."""
    error: str = ""
    """What kept it from being measured."""

    def of(self, kind: str) -> list[Ask]:
        """What one kind of client got."""
        return [ask for ask in self.asks if ask.kind == kind]


class Laboratory:
    """One gateway, and the people before it."""

    def __init__(self, house: Several, rows: Sequence[Doing]) -> None:
        self.house = house
        self.gateway: Replica = house.replicas[0]
        self.rows = rows
        self.codes: Iterator[str] = iter(())
        self.bob: Visitor
        self.ann: Visitor
        self.carl: Visitor
        """Who tries to sign in during faults: of whoever changes something and does not get through with it, everything
        near is forgotten, and nobody who is known is to be confused with that."""
        self.known = ""
        self._healed = 0.0

    async def open(self) -> None:
        """Start it, and let people sign in."""
        await self.house.start()
        await self.house.add_users("bob", "carl")
        await self.house.add_users("ann", groups=["admins"])
        self.bob, self.ann, self.carl = [self.gateway.visitor() for _ in range(3)]
        for name, visitor in {"carl": self.carl, "bob": self.bob, "ann": self.ann}.items():
            await patiently(partial(self._signs_in, visitor, name))
        self.known = cookie_of(self.bob)
        _, codes = await patiently(lambda: self.ann.enrol(SystemClock()))
        self.codes = iter(codes)

    def lives(self) -> None:
        """Raises `RuntimeError` where the gateway does not: nothing can be measured any more."""
        if (code := self.gateway.process.returncode) is not None:
            raise RuntimeError(f"the gateway ended with {code}; it had said:\n{self.gateway.said}")

    async def _signs_in(self, visitor: Visitor, name: str) -> None:
        signed = await visitor.sign_in(name)
        assert signed.status == 303, signed.body

    async def measure(self, row: Doing) -> Measured:
        """One row."""
        measured = Measured(Row(row.store, row.fault, row.effect))
        try:
            await self._measure(row, measured)
        except BaseException as error:
            measured.error = "".join(traceback.format_exception(error))
            await asyncio.to_thread(row.end)
            if not isinstance(error, Exception):
                raise
        return measured

    async def _measure(self, row: Doing, measured: Measured) -> None:
        gateway, loop = self.gateway, asyncio.get_running_loop()
        while loop.time() < self._healed + HEARD_AGAIN:
            await gateway.ask("/app/x", cookie=self.known)
            await asyncio.sleep(0.1)
        cold = await patiently(self._unknown)
        late = self._browser(self.carl)
        form = await patiently(lambda: self._form(late))
        code = next(self.codes)
        awake = Awake()
        stood_still = awake.now() - loop.time()
        question = await patiently(self._question)
        await patiently(self._knows_bob)
        before, users, heard = await gateway.metrics(), dict(self.house.service.named), len(gateway.said)

        began = loop.time()
        beginning = asyncio.ensure_future(asyncio.to_thread(row.begin))

        async def ask(kind: str, what: Callable[[], Awaitable[Response]]) -> Response | None:
            at = loop.time()
            try:
                answer = await what()
            except (OSError, TimeoutError):
                measured.asks.append(Ask(kind, at - began, loop.time() - at, 0))
                return None
            measured.asks.append(Ask(kind, at - began, loop.time() - at, answer.status))
            return answer

        await beginning
        measured.unsure = stood_still - (awake.now() - loop.time())
        awake.end()
        began = loop.time()
        # The first who meets the fault is one of these.
        first = [
            asyncio.ensure_future(ask("sign-in", lambda: late.fill(form, "login", username="carl", password=PASSWORD))),
            asyncio.ensure_future(ask("code", lambda: self.ann.fill(question, "verify/", code=code))),
        ]
        at = 0.0
        while at < SETTLED + 0.3:  # the last round begins after that, however long the one before took
            at = loop.time() - began
            await asyncio.gather(
                ask("public", lambda: gateway.ask("/public")),
                ask("nobody", lambda: gateway.ask("/app/nobody")),
                ask("forged", lambda: gateway.ask("/app/forged", cookie=f"sallyport={'A' * 43}")),
                ask("cold", lambda: gateway.ask("/app/cold", cookie=cold)),
                ask("known", lambda: gateway.ask("/app/known", cookie=self.known)),
                ask("admin", lambda: gateway.ask("/admin/x", cookie=self.known)),
                *(ask(f"limit {did}", lambda did=did: gateway.ask(f"/{did}")) for did in ("refuse", "local", "allow")),  # type: ignore[misc]
            )
            up = (await gateway.metrics())[f'sallyport_store_up{{store="{store_of(row)}"}}']
            if up < measured.up or measured.up < 0:
                measured.up, measured.ready = up, await gateway.readiness()
            await asyncio.sleep(0.06)
        now = await gateway.metrics()
        for did in ("refuse", "local", "allow"):
            mine = {name for name in now if name.startswith("sallyport_limits_away_total") and f'did="{did}"' in name}
            measured.did[did] = sum(now[name] - before.get(name, 0.0) for name in mine)
        measured.named = {name: count - users.get(name, 0) for name, count in self.house.service.named.items()}
        await asyncio.to_thread(row.end)
        self._healed = healed = loop.time()
        _, proof = await asyncio.gather(*first)
        measured.proofs.append(proof is not None and proof.status == 303)
        while not await self._as_before(cold):
            if loop.time() - healed > 2 * BACK_WITHIN:
                raise TimeoutError("it does not come back")
            await asyncio.sleep(0.05)
        measured.back = loop.time() - healed
        measured.up_again = (await gateway.metrics())[f'sallyport_store_up{{store="{store_of(row)}"}}']
        measured.said = gateway.said[heard:]
        measured.proofs += [await patiently(lambda: self._proves(code)) for _ in range(2)]
        await patiently(lambda: self._unknown("carl"))  # people can sign in again

    async def _as_before(self, cold: str) -> bool:
        gateway = self.gateway
        answers = await asyncio.gather(
            *(gateway.ask("/app/x", cookie=cookie) for cookie in (self.known, cold)), gateway.ask("/refuse")
        )
        status, _ = await gateway.readiness()
        up = await gateway.metrics()
        return (
            all(answer.status == 200 for answer in answers)
            and status == 200
            and all(value == 1.0 for name, value in up.items() if name.startswith("sallyport_store_up"))
        )

    async def _knows_bob(self) -> None:
        answer = await self.gateway.ask("/app/x", cookie=self.known)
        assert answer.status == 200

    def _browser(self, of: Visitor) -> Visitor:
        """One that the gateway knows as theirs: not signed in."""
        one = self.gateway.visitor()
        one.cookies = {name: value for name, value in of.cookies.items() if name != "sallyport"}
        return one

    async def _unknown(self, name: str = "bob") -> str:
        """The cookie of a session that this gateway has not seen yet."""
        one = self._browser(self.carl if name == "carl" else self.bob)
        signed = await one.sign_in(name)
        assert signed.status == 303, signed.body
        return cookie_of(one)

    async def _form(self, visitor: Visitor) -> Response:
        answer = await visitor.get("login")
        assert answer.status == 200
        return answer

    async def _proves(self, code: str) -> bool:
        """Whether a code is taken; where nobody can say, it is asked again."""
        answer = await self.ann.fill(await self._question(), "verify/", code=code)
        assert answer.status != 503
        return answer.status == 303

    async def _question(self) -> Response:
        """The page that asks for a backup code, as soon as the last proof is old enough."""
        async with asyncio.timeout(5.0):
            while (answer := await self.ann.get("/admin/x")).status == 200:
                await asyncio.sleep(0.1)
        page = await self.ann.get(location(answer) + "?method=backup_code")
        assert page.status == 200
        return page


async def patiently(what: Callable[[], Awaitable[T]]) -> T:
    """Outside of faults: on a busy machine a store may be late all the same, and then nobody is asked for a moment."""
    for _ in range(10):
        with contextlib.suppress(AssertionError):
            return await what()
        await asyncio.sleep(0.3)
    return await what()


def cookie_of(visitor: Visitor) -> str:
    """As a program sends it."""
    return f"sallyport={visitor.cookies['sallyport']}"


def store_of(row: Row) -> str:
    """What metrics, logs and readiness call it."""
    return "shared" if row.store == "Redis" else "records"


# --- the stores -------------------------------------------------------------------------------------------------------


def through(store: str, proxy: Faulty) -> Iterator[Doing]:
    """The faults of the network."""
    for fault in FAULTS:
        yield Doing(store, fault, "away", lambda fault=fault: proxy.begin(fault), proxy.end)  # type: ignore[misc]


@contextlib.asynccontextmanager
async def redis() -> AsyncIterator[Laboratory]:
    """Sessions, limits and tries to sign in are on a Redis behind a proxy; the records on SQLite."""
    with a_server() as one, a_server() as other, before(one.port) as proxy:
        rows = [*through("Redis", proxy)]
        rows.append(
            Doing("Redis", "failover", "away", lambda: fail_over(one, other, proxy), lambda: promote(other, proxy))
        )
        # It leads to the other server from here on.
        rows.append(
            Doing("Redis", "read-only", "away",
                lambda: other.ask("REPLICAOF", "127.0.0.1", "1"), lambda: other.ask("REPLICAOF", "NO", "ONE"))
        )  # fmt: skip
        rows.append(
            Doing("Redis", "full", "away",
                lambda: other.ask("CONFIG", "SET", "maxmemory", "1mb"),
                lambda: other.ask("CONFIG", "SET", "maxmemory", "0"))
        )  # fmt: skip
        async with laboratory(rows, shared=f"redis://127.0.0.1:{proxy.port}", records="sqlite:data/x.db") as one_more:
            yield one_more


def fail_over(one: Redis, other: Redis, proxy: Faulty) -> None:
    """The master dies; its replica has all it had, and is told nothing yet."""
    other.ask("REPLICAOF", "127.0.0.1", str(one.port))
    deadline = time.monotonic() + 10.0
    while "master_link_status:up" not in other.ask("INFO", "replication"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    one.ask("WAIT", "1", "1000")
    one.kill()
    proxy.point(other.port)


def promote(other: Redis, proxy: Faulty) -> None:
    """The replica is the master now."""
    other.ask("REPLICAOF", "NO", "ONE")


@contextlib.asynccontextmanager
async def postgresql(server: PostgreSQL) -> AsyncIterator[Laboratory]:
    """Users, factors and events are on a PostgreSQL behind a proxy, with a standby beside it; the rest on a Redis that
    nothing is wrong with."""
    with contextlib.ExitStack() as ending:
        disk, copy = [Path(ending.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        small = ending.enter_context(small_disk(disk, "24m"))
        server.tablespace("small", disk)
        name = server.database(tablespace="small")
        standby = ending.enter_context(standby_of(server, {disk: copy}))
        shared = ending.enter_context(a_server())
        proxy = ending.enter_context(before(server.port))
        filler = disk / "filler"

        def fill() -> None:
            """What is written goes to a new page, and there is no room for one."""
            ours = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relowner = 'sallyport'::regrole"
            tables = server.execute(ours, name)
            for (table,) in tables:
                server.execute(f"ALTER TABLE {table} SET (fillfactor = 10)", name)
            fill_up(filler)

        def fail_over() -> None:
            """The primary dies; its standby has all it had, and is told nothing yet."""
            (at,) = server.execute("SELECT pg_current_wal_flush_lsn()::text")
            deadline = time.monotonic() + 10.0
            caught_up = f"SELECT pg_last_wal_replay_lsn() >= '{at[0]}'"
            while not standby.execute(caught_up)[0][0]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            server.stop_at_once()

        def read_only(yes: bool) -> None:
            standby.configure(default_transaction_read_only="on" if yes else "off")
            standby.reload()

        rows = [*through("PostgreSQL", proxy)]
        rows.append(Doing("PostgreSQL", "crash", "away", server.stop_at_once, server.start))
        if small:
            rows.append(Doing("PostgreSQL", "full", "takes no changes", fill, lambda: filler.unlink(missing_ok=True)))
        rows.append(Doing("PostgreSQL", "failover", "away", fail_over, standby.promote))
        # The other server is the primary from here on.
        rows.append(Doing("PostgreSQL", "read-only", "away", lambda: read_only(True), lambda: read_only(False)))
        url = server.url(name, port=proxy.port).replace("/" + name, f",127.0.0.1:{standby.port}/{name}")
        async with laboratory(rows, shared={"url": shared.url, "deadline": "2s"}, records=url) as one:
            yield one


@contextlib.asynccontextmanager
async def sqlite() -> AsyncIterator[Laboratory]:
    """Everything is in one file, and in the process."""
    async with laboratory([], shared="memory", records="sqlite:data/x.db") as one:
        data = one.house.house.data
        path, filler = data / "x.db", data / "filler"
        may_write = resource.getrlimit(resource.RLIMIT_FSIZE)
        blocker: list[sqlite3.Connection] = []
        kept: list[bytes] = []

        def lock() -> None:
            blocker.append(sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False))
            blocker[0].execute("BEGIN EXCLUSIVE")

        def unlock() -> None:
            while blocker:
                blocker.pop().close()

        def settle() -> None:
            """All that was written is in the file, and the log beside it takes no room."""
            with contextlib.closing(sqlite3.connect(path, timeout=5.0)) as database:
                assert database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

        def fill() -> None:
            settle()
            fill_up(filler)

        def forbid() -> None:
            """Each write fails as it does on a disk that has become read-only while its files are open."""
            resource.prlimit(one.gateway.process.pid, resource.RLIMIT_FSIZE, (0, may_write[1]))

        def permit() -> None:
            resource.prlimit(one.gateway.process.pid, resource.RLIMIT_FSIZE, may_write)

        def spoil() -> None:
            settle()
            kept.append(path.read_bytes())
            with path.open("r+b") as file:
                file.write(bytes([0xAA]) * len(kept[0]))

        def put_back() -> None:
            if kept:
                with path.open("r+b") as file:
                    file.write(kept.pop())

        one.rows = [
            Doing("SQLite", "locked", "takes no changes", lock, unlock),
            Doing("SQLite", "garbage", "away", spoil, put_back),
            Doing("SQLite", "read-only", "takes no changes", forbid, permit),
        ]
        data.mkdir(mode=0o700)
        with small_disk(data, "3m") as small:
            if small:
                one.rows.append(
                    Doing("SQLite", "full", "takes no changes", fill, lambda: filler.unlink(missing_ok=True))
                )
            yield one


def fill_up(path: Path) -> None:
    """Write `path` until there is no room on its disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """Have `folder` be a disk of its own, with little room; whether we may."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    small = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield small
    finally:
        if small:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.asynccontextmanager
async def laboratory(rows: Sequence[Doing], *, shared: str | dict[str, str], records: str) -> AsyncIterator[Laboratory]:
    """A gateway on these stores."""
    store = {"records": records, "shared": shared}
    async with several(1, policy=POLICY, store=store, sessions={"grace": f"{GRACE}s", "per_user": 100}) as house:
        one = Laboratory(house, rows)
        yield one


async def measured(store: str, where: contextlib.AbstractAsyncContextManager[Laboratory]) -> list[Measured]:
    """The whole table of one store. Where its laboratory broke, the last row is of no fault, and says of what."""
    table: list[Measured] = []
    try:
        async with where as one:
            await one.open()
            for row in one.rows:
                table.append(await one.measure(row))
                one.lives()
            assert await one.gateway.stop() == 0, one.gateway.said
            one.house.calm()
    except Exception as error:
        table.append(Measured(Row(store, "", "away"), error="".join(traceback.format_exception(error))))
    return table


def show(table: Sequence[Measured]) -> str:
    """As it was measured, to be read."""
    lines = []
    for one in table:
        if one.error:
            lines.append(f"{one.row.store} {one.row.fault}: {one.error}")
            continue
        kinds: dict[str, dict[int, int]] = {}
        for ask in one.asks:
            kinds.setdefault(ask.kind, {}).setdefault(ask.status, 0)
            kinds[ask.kind][ask.status] += 1
        last = max((ask.at for ask in one.of("known") if ask.status == 200), default=0.0)
        worst = max(one.asks, key=lambda ask: ask.took)
        lines.append(
            f"{one.row.store} {one.row.fault}: {kinds} known until {last:.1f} s, at most {worst.took * 1000:.0f} ms "
            f"({worst.kind}), up {one.up}, did {one.did}, ready {one.ready}, back after {one.back:.2f} s, "
            f"proofs {one.proofs}, named {one.named}, unsure by {one.unsure * 1000:.0f} ms"
        )
    return "\n".join(lines)


async def everything() -> list[Measured]:
    """All tables, measured at the same time."""
    servers = started()
    try:
        tables = await asyncio.gather(
            measured("Redis", redis()),
            measured("PostgreSQL", postgresql(next(servers))),
            measured("SQLite", sqlite()),
        )
    finally:
        servers.close()  # type: ignore[attr-defined]
    return [one for table in tables for one in table]


def main() -> int:
    """The tables on standard output, pickled; to be read, on standard error."""
    table = uvloop.run(everything())
    print(show(table), file=sys.stderr)
    sys.stdout.buffer.write(pickle.dumps(table))
    return 0


if __name__ == "__main__":
    from tests.replicas import fault_table  # what is pickled has to be of a module that others can import

    raise SystemExit(fault_table.main())
