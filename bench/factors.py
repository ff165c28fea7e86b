"""How long a second factor takes to be verified while others sign in.

People come through the REST API, each from an address of their own: a challenge, then the answer. What is measured is
the gateway's own time for the answer, from its first byte to the last of what is said, as the access log has it. Beside
them people sign in with their password at a fixed rate, whether or not the gateway keeps up: who is too many is told to
come back (`ERR-BUSY`), which is counted. All of them come at random times, as people do.

argon2id at the documented parameters costs what it costs, so how many sign-ins these cores make at all is measured
first. Gateway, database and whoever asks share the cores. An answer is several transactions, each of them on the disk
before the next begins, so the same is measured once more with the database in memory: the difference is the disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import secrets
import shutil
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import uvloop
from sqlalchemy import insert

from bench.bars import Bar
from bench.machine import BUILD, Process, described
from bench.options import Gateway, Options
from bench.sallyport import Sallyport
from bench.subjects import PASSWORD, LeftOutError
from gateway.core.clock import SystemClock
from gateway.core.identity import DEFAULT_TENANT, Proof
from gateway.crypto.keys import KeyRing
from gateway.identity.passwords import LANES, MEMORY_KIB, PASSES, Passwords
from gateway.identity.session_rows import SessionRows
from gateway.identity.session_store import Lifetimes, Opening, Terms
from gateway.mfa import otp
from gateway.mfa.backup_codes import BackupCodes
from gateway.mfa.sealed import place_of
from gateway.mfa.totp import Totp
from gateway.mfa.webauthn.key import Key
from gateway.store.sql import Records
from gateway.store.tables import factors, users

if TYPE_CHECKING:
    from tests.rig.authenticator import Authenticator

PEOPLE = 250
"""Who have factors; each has an app, a set of backup codes and a key."""
OTHERS = 5000
"""Who sign in beside them."""
SIGN_INS = 200
"""A second, that the promise speaks of."""
EACH = 4
"""Verifications of each factor a second."""
WARM = 2.0
API = "/.sallyport/api/v1/"
KINDS = ("totp", "backup_code", "webauthn")


@dataclass
class Person:
    """Somebody with three factors, signed in with the password."""

    number: int
    cookie: str
    secret: bytes = field(repr=False)
    codes: deque[str] = field(repr=False)
    key: Authenticator = field(repr=False)
    step: int = 0
    """The last of the app's that was used."""


@dataclass(frozen=True)
class Row:
    """One rate of sign-ins."""

    where: str
    """Where the database is: `disk`, `memory`."""
    offered: float
    signed_in: float
    """A second."""
    turned_away: float
    times: dict[str, tuple[float, float, int]]
    """By factor: p50 and p99 in milliseconds, and how many there were."""
    sign_in: tuple[float, float]
    """p50 and p99 of a sign-in that was let in, in milliseconds."""
    busy: float
    """Processor seconds of the gateway, a second."""
    lost: int
    """Verifications that were answered with something else than yes; there should be none."""


@dataclass(frozen=True)
class Verified:
    """All of it."""

    capacity: dict[str, float]
    """Sign-ins a second at most, by where the database is."""
    rows: tuple[Row, ...]
    seconds: float
    version: str

    def bars(self) -> list[Bar]:
        last = next(row for row in reversed(self.rows) if row.where == "disk")
        bars = [
            Bar(f"p99 of verifying {kind} beside {last.offered:g} sign-ins offered a second", p99, 10.0, " ms")
            for kind, (_, p99, _) in last.times.items()
        ]
        made = Bar("sign-ins a second on these cores", self.capacity["disk"], float(SIGN_INS), "/s", at_least=True)
        lost = Bar("verifications that got no answer, or another", float(sum(row.lost for row in self.rows)), 0.0, "")
        return [*bars, made, lost]

    def markdown(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        head = "| database | sign-ins a second: offered / made / turned away | "
        yield head + " | ".join(f"`{kind}`" for kind in KINDS) + " | a sign-in itself | cores used |"
        yield "| --- |" + " ---: |" * (len(KINDS) + 3)
        for row in self.rows:
            cells = [f"{row.times[kind][0]:.1f} / {row.times[kind][1]:.1f}" for kind in KINDS]
            own = f"{row.sign_in[0]:,.0f} / {row.sign_in[1]:,.0f}" if row.signed_in else "–"
            rates = f"{row.offered:,.0f} / {row.signed_in:,.0f} / {row.turned_away:,.0f}"
            yield f"| {row.where} | {rates} | {' | '.join(cells)} | {own} | {row.busy:.2f} |"
        yield ""
        most = " and ".join(f"{rate:,.0f} (database: {where})" for where, rate in self.capacity.items())
        yield (
            f"p50 / p99 of the gateway's own time, in ms. These cores make {most} sign-ins a second at most, with "
            f"argon2id at {MEMORY_KIB} KiB, {PASSES} passes, {LANES} lane. A verification costs "
            f"{self.rows[0].busy / EACH / len(KINDS) * 1000:.1f} ms of processor time, its challenge included."
        )
        few = min(count for row in self.rows for _, _, count in row.times.values())
        yield (
            f"{described()}; {self.version}; {self.seconds:g} s a row, {EACH} verifications of each factor a second, "
            f"{few} or more of each in a row."
        )

    def data(self) -> dict[str, object]:
        return asdict(self)


class Whole(Sallyport):
    """The gateway with every factor, behind a proxy that names its clients; on all cores."""

    def _settings(self, origin: str) -> str:
        text = super()._settings(origin).replace("backup_codes: {}}", "backup_codes: {}, webauthn: {}}")
        text = text.replace(f"sqlite:{self.folder}/sallyport.db", f"sqlite:{self.database}")
        return text.replace(
            f"public_url: http://127.0.0.1:{self.port}", f"public_url: http://localhost:{self.port}"
        ) + "trusted_proxies: [127.0.0.1/32]\nconnections: {per_address: 1000, wait: 60s}\n"  # fmt: skip

    def prepare(self, database: Path) -> list[Person]:
        """A fresh database in the folder `database`, with everybody in it."""
        self.folder = BUILD / "sallyport-factors"
        self.database = database / "sallyport-factors.db"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.forget()
        self.configure("http://127.0.0.1:1")
        return uvloop.run(self._people())

    def forget(self) -> None:
        for old in self.database.parent.glob(self.database.name + "*"):
            old.unlink()

    def start(self) -> Process:
        return Process(self.folder.name, self._run("run"), cores=self.core)

    @property
    def log(self) -> Path:
        return self.folder / "access.log"

    async def _people(self) -> list[Person]:
        try:
            import cbor2
            import webauthn  # noqa: F401 - the gateway needs it

            from tests.rig.authenticator import Authenticator
        except ModuleNotFoundError as error:
            raise LeftOutError(f"{error.name} is not here: pip install '.[webauthn]'") from error
        clock = SystemClock()
        records = await Records.open(f"sqlite:{self.database}", clock=clock)
        keys = KeyRing.open(self.folder / "keys", create=True, clock=clock)
        await records.seal_with(keys.sealer.current)
        passwords = Passwords()
        hashed = await passwords.hash(PASSWORD)
        passwords.close()
        names = [f"p{number}" for number in range(PEOPLE)] + [f"o{number}" for number in range(OTHERS)]
        now = clock.now()
        async with records.begin() as connection:
            await connection.execute(
                insert(users),
                [
                    {
                        "tenant": DEFAULT_TENANT, "subject": f"s-{name}", "name": name, "email": "",
                        "display_name": "", "groups": [], "password": hashed, "disabled": False, "created_at": now,
                    }
                    for name in names
                ],
            )  # fmt: skip
        totp, codes = Totp(records, keys.sealer, clock), BackupCodes(records, keys.mac, clock)
        store = SessionRows(records, clock, Terms(Lifetimes(3600.0, 86400.0, 5)))
        people = []
        for number in range(PEOPLE):
            subject, secret, key = f"s-p{number}", otp.new_secret(), Authenticator(count=None)
            async with records.begin(DEFAULT_TENANT, subject) as connection:
                await totp.bind(connection, DEFAULT_TENANT, subject, secret=secret, label="", step=0, now=now)
                paper = await codes.renew(connection, DEFAULT_TENANT, subject, now)
                kept = Key(key.credential, cbor2.dumps(key.public_key()), 0, False, False, "", False)
                await connection.execute(
                    insert(factors).values(
                        tenant=DEFAULT_TENANT, id=kept.id, subject=subject, kind="webauthn", label="", last_step=-1,
                        secret=keys.sealer.seal(kept.packed(), **place_of(DEFAULT_TENANT, kept.id)), refused_step=-1,
                        failures=0, created_at=now, last_used_at=now,
                    )
                )  # fmt: skip
            opening = Opening(
                DEFAULT_TENANT, subject, secrets.token_urlsafe(12), Proof("password", now), "10.0.0.1", "x", 0
            )
            token, _, _ = await store.open(opening, replacing=None)
            people.append(Person(number, f"sallyport={token}", secret, deque(paper), key))
        await records.close()
        return people


class LostError(Exception):
    """A verification was answered with something else than yes."""


class Crowd:
    """Whoever asks."""

    def __init__(self, port: int, people: list[Person]) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._host = f"localhost:{port}"
        self._origin = f"http://localhost:{port}"
        self._people = deque(people)
        self._forms: deque[tuple[str, str]] = deque()
        self._address = 0
        self.counted: Counter[str] = Counter()
        self.client: aiohttp.ClientSession

    async def ask(self, method: str, path: str, agent: str, cookie: str = "", **body: Any) -> tuple[int, Any, Any]:
        """From an address that nobody had before."""
        self._address += 1
        n = self._address
        headers = {
            "Host": self._host, "Origin": self._origin, "User-Agent": f"bench {agent}", "Cookie": cookie,
            "X-Forwarded-For": f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}",
        }  # fmt: skip
        async with self.client.request(
            method, self._url + path, headers=headers, allow_redirects=False, **body
        ) as answer:
            return answer.status, answer.headers, await answer.read()

    async def open_forms(self) -> None:
        """Sixty-four browsers that have the form before them."""
        for _ in range(64):
            _, headers, page = await self.ask("GET", "/.sallyport/login", "form")
            token = re.search(rb'name="csrf" value="([^"]+)"', page)
            cookie = headers["Set-Cookie"].partition(";")[0]
            self._forms.append((cookie, token[1].decode() if token else ""))

    async def sign_in(self, number: int) -> None:
        cookie, token = self._forms[number % len(self._forms)]
        fields = {"csrf": token, "username": f"o{number % OTHERS}", "password": PASSWORD}
        status, _, body = await self.ask("POST", "/.sallyport/login", "sign-in", cookie, data=fields)
        self.counted[str(status)] += 1
        if status not in (303, 429, 503):
            raise RuntimeError(f"a sign-in was answered with {status}: {body[:200]!r}")

    async def verify(self, kind: str, _: int) -> None:
        """One challenge, one right answer; nothing where nobody has an answer left."""
        person = self._ready(kind)
        if person is None:
            return
        try:
            await self._verify(person, kind)
        except LostError as lost:
            self.counted["lost"] += 1
            print(lost, flush=True)
        finally:
            self._people.append(person)

    def _ready(self, kind: str) -> Person | None:
        """Somebody who is not busy and has an answer; of an app's, this code and the next one count."""
        now = otp.step_at(time.time())
        for _ in range(len(self._people)):
            person = self._people.popleft()
            if kind == "webauthn" or (kind == "backup_code" and person.codes):
                return person
            if kind == "totp" and max(person.step + 1, now) <= now + 1:
                person.step = max(person.step + 1, now)
                return person
            self._people.append(person)
        return None

    async def _verify(self, person: Person, kind: str) -> None:
        asked = await self._call("mfa/challenge", "ask", person, {})
        if kind == "webauthn":
            put = await self._call("mfa/webauthn/authenticate/begin", "ask", person, {"challenge": asked["challenge"]})
            credential = person.key.answer(put["public_key"], origin=self._origin, user_handle=None)
            body = {"challenge": asked["challenge"], "credential": credential}
            await self._call("mfa/webauthn/authenticate/complete", kind, person, body)
            return
        code = person.codes.popleft() if kind == "backup_code" else otp.code_at(person.secret, person.step)
        await self._call("mfa/verify", kind, person, {"challenge": asked["challenge"], "factor": kind, "code": code})

    async def _call(self, path: str, agent: str, person: Person, body: object) -> Any:
        status, headers, said = await self.ask("POST", API + path, agent, person.cookie, json=body)
        if status not in (200, 201):
            raise LostError(f"{path} ({agent}) was answered with {status}: {said[:200]!r}")
        for line in headers.getall("Set-Cookie", []):
            if line.startswith("sallyport="):
                person.cookie = line.partition(";")[0]
        return json.loads(said)


async def _at_rate(rate: float, seconds: float, work: Callable[[int], Awaitable[None]]) -> None:
    """Begin `work` at its times, whatever became of those before: at random, as people come (a Poisson process)."""
    if not rate:
        await asyncio.sleep(seconds)
        return
    count = round(rate * seconds)
    times = sorted(random.uniform(0.0, seconds) for _ in range(count))
    begin, tasks = time.monotonic(), []
    for number, at in enumerate(times):
        await asyncio.sleep(max(0.0, begin + at - time.monotonic()))
        tasks.append(asyncio.ensure_future(work(number)))
    await asyncio.gather(*tasks)


async def _capacity(crowd: Crowd, seconds: float) -> float:
    """Sign-ins a second with sixteen always waiting for one."""
    until = time.monotonic() + seconds
    done = 0

    async def one(number: int) -> None:
        nonlocal done
        while time.monotonic() < until:
            await crowd.sign_in(number)
            number, done = number + 16, done + 1

    await asyncio.gather(*map(one, range(16)))
    return done / seconds


async def _row(crowd: Crowd, process: Process, log: Path, where: str, rate: float, seconds: float) -> Row:
    """All of it at `rate`, after a few seconds that do not count."""

    async def together(seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_at_rate(rate, seconds, crowd.sign_in))
            for kind in KINDS:
                group.create_task(_at_rate(EACH, seconds, partial(crowd.verify, kind)))

    await together(WARM)
    await asyncio.sleep(1.5)  # the log is written once a second
    before = log.stat().st_size
    crowd.counted.clear()
    used, begun = process.cpu(), time.monotonic()
    await together(seconds)
    busy = (process.cpu() - used) / (time.monotonic() - begun)
    await asyncio.sleep(1.5)
    times: dict[str, list[float]] = {}
    with log.open("rb") as file:
        file.seek(before)
        for line in file:
            one = json.loads(line)
            if one["status"] in (200, 303):
                times.setdefault(one["agent"].removeprefix("bench "), []).append(one["duration_us"] / 1000)
    quantiles = {kind: _quantiles(times.get(kind, [])) for kind in (*KINDS, "sign-in")}
    return Row(
        where,
        rate,
        crowd.counted["303"] / seconds,
        (crowd.counted["503"] + crowd.counted["429"]) / seconds,
        {kind: (*quantiles[kind], len(times.get(kind, []))) for kind in KINDS},
        quantiles["sign-in"],
        busy,
        crowd.counted["lost"],
    )


def _quantiles(values: list[float]) -> tuple[float, float]:
    ordered = sorted(values) or [float("nan")]
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def measure(options: Options) -> Verified:
    """One gateway; sign-ins alone, then verifications beside none, beside most of what it makes, beside too many."""
    seconds = options.seconds or 40.0  # of fewer answers the slowest one of a hundred would be the slowest one
    subject = Whole(set(os.sched_getaffinity(0)), options.gateways[0] if options.gateways else Gateway())
    capacity, rows = {}, []
    for where, folder in (("disk", BUILD), ("memory", Path("/dev/shm"))):
        people = subject.prepare(folder)
        with ExitStack() as stack:
            stack.callback(subject.forget)
            process = stack.enter_context(subject.start())
            process.wait_for(f"{subject.admin}/healthz")
            capacity[where], found = uvloop.run(_measure(subject, process, people, where, seconds))
            rows += found
    return Verified(capacity, tuple(rows), seconds, subject.version())


async def _measure(
    subject: Whole, process: Process, people: list[Person], where: str, seconds: float
) -> tuple[float, list[Row]]:
    crowd = Crowd(subject.port, people)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    ) as crowd.client:
        await crowd.open_forms()
        await _capacity(crowd, WARM)
        capacity = await _capacity(crowd, 4.0)
        print(f"{where}: {capacity:,.0f} sign-ins a second at most", flush=True)
        rows = []
        most = float(min(SIGN_INS, round(capacity * 0.7)))
        for rate in (0.0, most, float(SIGN_INS)) if where == "disk" else (most,):
            row = await _row(crowd, process, subject.log, where, rate, seconds)
            print(f"{rate:,.0f}/s: {row}", flush=True)
            rows.append(row)
        return capacity, rows
