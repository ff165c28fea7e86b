"""What it takes to keep a lot: a million live counters and a hundred thousand sessions, in this process and in a Redis.

The Redis tells itself what it uses; of this process the resident memory is read. Counters and sessions are made by the
code that makes them for requests, each counter for an address of its own, each session by opening it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from secrets import token_hex

import uvloop
from sqlalchemy import insert

from bench.bars import Bar
from bench.machine import cores, described
from bench.options import Options
from bench.shared import ask, server, until_ready
from gateway.catalog import ALGORITHMS
from gateway.core.clock import SystemClock
from gateway.core.facts import Facts
from gateway.core.identity import Proof
from gateway.core.rule import LimitSpec
from gateway.crypto.keys import KeyRing
from gateway.identity.session_keys import SessionKeys
from gateway.identity.session_rows import SessionRows
from gateway.identity.session_store import Lifetimes, Opening, SessionStore, Terms
from gateway.limits.away import Away
from gateway.limits.limiter import CAPACITY, Limiter
from gateway.limits.scripts import script
from gateway.limits.shared import Shared
from gateway.store.redis import Redis, Script
from gateway.store.redis_where import Where
from gateway.store.sql import Records
from gateway.store.tables import users

COUNTERS = 1_000_000
SESSIONS = 100_000
EACH = 5
"""Sessions of one user."""
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36"
PATIENT = 10.0
"""Seconds that the Redis has for an answer."""
TOGETHER = 1000
"""Asked for at once."""


@dataclass(frozen=True)
class Kept:
    """Bytes."""

    counters: dict[str, tuple[float, float]]
    """Algorithm → for each counter: here, in the Redis."""
    session_in_redis: float
    session_in_rows: float
    """On disk, in the SQLite file."""
    live: int
    """Counters in the Redis at the end."""
    version: str

    def bars(self) -> list[Bar]:
        return []

    def markdown(self) -> str:
        lines = ["| what | in this process | in Redis |", "| --- | ---: | ---: |"]
        lines += [
            f"| one counter, `{name}` | {here:,.0f} bytes | {there:,.0f} bytes |"
            for name, (here, there) in self.counters.items()
        ]
        lines.append(f"| one session | – | {self.session_in_redis:,.0f} bytes |")
        lines.append(f"| one session in SQLite, on disk | {self.session_in_rows:,.0f} bytes | – |")
        lines += ["", f"{described()}; {self.version}; {self.live:,} counters live at once, {SESSIONS:,} sessions."]
        lines.append(f"This process keeps {CAPACITY:,} counters at most; a million of each were let in to be weighed.")
        return "\n".join(lines)

    def data(self) -> dict[str, object]:
        return asdict(self)


def measure(options: Options) -> Kept:
    """Fill both, and look."""
    _, others = cores()
    with ExitStack() as stack:
        process, url, version = server(others)
        stack.enter_context(process)
        folder = Path(tempfile.mkdtemp(prefix="bench-kept-"))
        stack.callback(shutil.rmtree, folder, True)
        until_ready(url)
        in_redis, in_rows = uvloop.run(_sessions(url, folder))
        ask(url, "FLUSHALL")
        here = {name: _in_a_process(name) for name in ALGORITHMS}
        counters = {name: (here[name], uvloop.run(_there(name, url))) for name in ALGORITHMS}
        live = int(ask(url, "DBSIZE"))
        return Kept(counters, in_redis, in_rows, live, version)


def _limit(algorithm: str) -> tuple[LimitSpec, ...]:
    return (LimitSpec("per-address", ("address",), algorithm, 100, 3600.0, 100),)


def _facts(number: int) -> Facts:
    return Facts(
        method="GET", host="h", path="/", network=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    )


def _in_a_process(algorithm: str) -> float:
    """In one that is new: what another one has given back would be used again."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_here, algorithm).result()


def _here(algorithm: str) -> float:
    limiter = Limiter(SystemClock(), ALGORITHMS, capacity=COUNTERS)
    limits = _limit(algorithm)
    gc.collect()
    before = _resident()
    for number in range(COUNTERS):
        limiter.spend(limits, _facts(number), None, "r")
    gc.collect()
    taken = (_resident() - before) / len(limiter)
    print(f"{algorithm}: {taken:,.0f} bytes here", flush=True)
    return taken


async def _there(algorithm: str, url: str) -> float:
    """A quarter of a million of each, so that a million live at once in the end."""
    clock = SystemClock()
    redis = await Redis.open(_where(url), clock=clock)
    spend = Script(script("spend", ALGORITHMS))
    away = Away(Limiter(clock, ALGORITHMS), lambda limit, did: None)
    shared = Shared(lambda keys, args: redis.run(spend, keys, args), clock, away, prefix=redis.prefix, clustered=False)
    limits, count = _limit(algorithm), COUNTERS // len(ALGORITHMS)
    before, keys = _used(url), int(ask(url, "DBSIZE"))
    for begin in range(0, count, TOGETHER):
        asked = [shared.spend(limits, _facts(number), None, algorithm) for number in range(begin, begin + TOGETHER)]
        for spent in asked:
            if isinstance(spent, Awaitable):
                spent = await spent
            if not spent[0].allowed or spent[0].how:
                raise RuntimeError("a counter could not be made")
    taken = (_used(url) - before) / count
    if int(ask(url, "DBSIZE")) - keys != count:
        raise RuntimeError("some counters have expired already, so that nothing is known of their weight")
    await shared.close()
    await redis.close()
    print(f"{algorithm}: {taken:,.0f} bytes in Redis", flush=True)
    return taken


async def _sessions(url: str, folder: Path) -> tuple[float, float]:
    clock = SystemClock()
    keys = KeyRing.open(folder / "keys", create=True, clock=clock)
    file = folder / "sessions.db"
    records = await Records.open(f"sqlite:{file}", clock=clock)
    subjects = [token_hex(16) for _ in range(SESSIONS // EACH)]
    async with records.begin() as connection:
        await connection.execute(
            insert(users),
            [
                {
                    "tenant": "default",
                    "subject": subject,
                    "name": f"user{number}",
                    "email": "",
                    "display_name": "",
                    "groups": [],
                    "password": "",
                    "disabled": False,
                    "created_at": clock.now(),
                }
                for number, subject in enumerate(subjects)
            ],
        )
    terms = Terms(Lifetimes(3600.0, 86400.0, EACH))
    redis = await Redis.open(_where(url), clock=clock)
    before = _used(url)
    store = SessionKeys(redis, records, keys.sealer, terms)
    await _open_all(store, subjects * EACH)
    in_redis = (_used(url) - before) / SESSIONS
    if (await store.count())[0] != SESSIONS:
        raise RuntimeError("some sessions are not there")
    await redis.close()
    print(f"one session: {in_redis:,.0f} bytes in Redis", flush=True)
    # Each is a transaction that is on the disk before it returns, so a tenth has to do; a row is as long as any other.
    few = SESSIONS // 10
    size = file.stat().st_size
    await _open_all(SessionRows(records, clock, terms), subjects[:few])
    await records.close()  # what is in the log goes into the file
    return in_redis, (file.stat().st_size - size) / few


async def _open_all(store: SessionStore, subjects: list[str]) -> None:
    proof = Proof("password", SystemClock().now())
    for begin in range(0, len(subjects), 50):
        await asyncio.gather(
            *[
                store.open(
                    Opening("default", subject, token_hex(8), proof, "192.0.2.1", AGENT, 0),
                    replacing=None,
                )
                for subject in subjects[begin : begin + 50]
            ]
        )


def _where(url: str) -> Where:
    """What is weighed here is not how soon the answer comes."""
    return replace(Where.parse(url), deadline=PATIENT)


def _used(url: str) -> int:
    found = re.search(r"used_memory:(\d+)", ask(url, "INFO", "memory"))
    return int(found[1]) if found else 0


def _resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{os.getpid()}/status").read_text())
    return int(found[1]) * 1024 if found else 0
