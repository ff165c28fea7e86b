"""The master key is rotated while people enrol, prove and are interrupted; and the rotation is killed in the midst.

    make test     a short run        python -m tests.house.rekeying     the whole one, and what it counted

Everybody is strict: any answer but the expected one is a failure, and nothing is tried twice. At the end every secret
has to open under the new key alone, every form that was kept before has to go on, and the last backup code to count.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyotp
from sqlalchemy import insert

from gateway.core.clock import SystemClock
from gateway.crypto.keys import KeyRing
from gateway.crypto.masters import Master, load
from gateway.crypto.sealing import Sealer
from gateway.identity.passwords import Passwords
from gateway.mfa import sealed
from gateway.store.sql import Records
from gateway.store.tables import factors, users
from tests.house.process import Home, Process, Serving, home, until
from tests.house.visitor import OURS, Visitor, location
from tests.rig.argon2 import as_shipped
from tests.rig.gateway import PASSWORD
from tests.rig.messages import Response, Violation
from tests.rig.upstream import RecordingUpstream

OVERLAP = "2s"
SECRET = b"twenty bytes of them"

_addresses = (f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}" for number in itertools.count(1))


class Person(Visitor):
    """Somebody with a browser and an authenticator app. Each request comes from an address of its own, so that what
    is counted by address stays out of it."""

    def __init__(self, run: Rekeying, name: str) -> None:
        super().__init__(run.home.port, origin=f"http://127.0.0.1:{run.home.port}")
        self.run = run
        self.name = name
        self.codes: list[str] = []

    async def send(self, method: str, path: str, body: bytes = b"", **more: str) -> Response:
        answer = await super().send(method, path, body, X_Forwarded_For=next(_addresses), **more)
        self.run.count["requests"] += 1
        if answer.status >= 400:
            raise Violation(f"{self.name}: {method} {path}: {answer.status} {answer.body[:300]!r}")
        return answer

    async def call(self, path: str, value: Any = None) -> Any:
        """A POST of the API."""
        body = json.dumps(value or {}).encode()
        more = {"Content_Type": "application/json", "Accept": "application/json"}
        answer = await self.send("POST", f"{OURS}api/v1/{path}", body, **more)
        return json.loads(answer.body)

    async def is_interrupted(self) -> str:
        """A form, sent before signing in; where it may go on."""
        body = f"from={self.name}".encode()
        asked = await self.send("POST", "/app/pay", body, Content_Type="application/x-www-form-urlencoded")
        return location(
            await self.fill(await self.get(location(asked)), "login", username=self.name, password=PASSWORD)
        )

    async def goes_on(self, onward: str) -> None:
        """The form reaches the service, once and as it was."""
        assert location(await self.fill(await self.get(onward), "resume/")) == "/app/pay"
        await self.get("/app/pay")
        self.run.count["forms went on"] += 1

    async def binds(self) -> None:
        """One more authenticator app, and the first time backup codes."""
        setup = await self.call("mfa/setup/totp")
        code = pyotp.TOTP(setup["secret"]).at(int(time.time()))
        confirmed = await self.call(f"mfa/setup/{setup['id']}/verify", {"code": code, "label": "phone"})
        self.codes = confirmed["backup_codes"] or self.codes
        self.run.count["devices bound"] += 1

    async def proves(self) -> None:
        """A challenge, answered with a backup code."""
        asked = await self.call("mfa/challenge", {"factors": ["backup_code"]})
        answer = {"challenge": asked["challenge"], "factor": "backup_code", "code": self.codes.pop()}
        await self.call("mfa/verify", answer)
        self.run.count["backup codes used"] += 1

    async def renews(self) -> None:
        self.codes = (await self.call("mfa/backup-codes/regenerate"))["backup_codes"]
        self.run.count["backup codes made anew"] += 1


class Rekeying:
    """A run, and what it counted."""

    def __init__(self, house: Home, seed: int) -> None:
        self.home = house
        self.count: Counter[str] = Counter()
        self.failures: list[str] = []
        self.begun = asyncio.Event()
        """The first rotation may begin: everybody has a form that was kept under the old key."""
        self.over = asyncio.Event()
        self.seconds = 0.0
        self._random = random.Random(seed)
        self._ready = 0

    @property
    def url(self) -> str:
        return f"sqlite:{self.home.data / 'sallyport.db'}"

    async def prepare(self, people: int, rows: int) -> None:
        """People, and `rows` secrets that nobody uses, so that there is something to do."""
        clock = SystemClock()
        ring = KeyRing.open(self.home.data / "keys", create=True)
        records = await Records.open(self.url, clock=clock)
        await sealed.remember_key(records, ring)
        passwords = Passwords()
        with as_shipped():
            hashed = await passwords.hash(PASSWORD)
        passwords.close()
        person = {"tenant": "default", "email": "", "display_name": "", "groups": [], "disabled": False}
        async with records.begin() as connection:
            await connection.execute(
                insert(users),
                [
                    {**person, "subject": f"s{n}", "name": f"p{n}", "password": hashed, "created_at": 0.0}
                    for n in range(people + rows)
                ],
            )
            await connection.execute(
                insert(factors),
                [
                    {
                        "tenant": "default", "id": f"idle-{n}", "subject": f"s{people + n}",
                        "kind": "totp", "label": "",
                        "secret": ring.sealer.seal(SECRET, **sealed.place_of("default", f"idle-{n}")),
                        "last_step": 0, "refused_step": -1, "failures": 0, "created_at": 0.0, "last_used_at": None,
                    }
                    for n in range(rows)
                ],
            )  # fmt: skip
        await records.close()

    async def lives(self, name: str, people: int) -> None:
        """What one person does from before the first rotation until after the last."""
        try:
            me, late = Person(self, name), Person(self, name)
            onward, kept = await me.is_interrupted(), await late.is_interrupted()
            await me.binds()
            self._ready += 1
            if self._ready == people:
                self.begun.set()
            await me.goes_on(onward)
            bound = 1
            while not self.over.is_set():
                await me.proves()
                if bound < 5:
                    await me.binds()
                    bound += 1
                else:
                    await me.renews()
            await me.proves()
            await late.goes_on(kept)
        except Exception as error:
            self.failures.append(f"{name}: {type(error).__name__} {error}")
            self.count["failed"] += 1
            self.begun.set()

    async def rotate(self, kills: int) -> Master:
        """Rotate once, killed `kills` times with SIGKILL at points nobody chose; the new key."""
        await self.begun.wait()
        began = time.monotonic()
        before = {path.name for path in (self.home.data / "keys").glob("master-*")}
        rotation = await self._begin()
        await until(lambda: len(self._names()) > len(before), "no key was published")
        (name,) = self._names() - before
        new = load(self.home.data / "keys" / name)
        await self._kill(rotation)  # while it waits, if it has got that far
        whole = self._rows()
        for point in sorted(self._random.sample(range(1, whole * 4 // 5), kills)):
            rotation = await self._begin()
            while self._done(new) < point and rotation.returncode is None:
                await asyncio.sleep(0.01)
            await self._kill(rotation)
        said = await self.home.call("key", "rotate", "master", "--json")
        assert said.code == 0, said
        assert json.loads(said.out)["id"] == new.id.hex(), "the same rotation all the time"
        self.seconds = time.monotonic() - began
        return new

    async def _begin(self) -> Process:
        return await self.home.start("key", "rotate", "master", "--overlap", OVERLAP)

    async def _kill(self, rotation: Process) -> None:
        assert rotation.returncode is None, "it was over before it could be killed"
        rotation.kill()
        await rotation.communicate()
        self.count["kills"] += 1

    def _names(self) -> set[str]:
        return {path.name for path in (self.home.data / "keys").glob("master-*")}

    def _rows(self) -> int:
        return int(self._ask("SELECT count(*) FROM factors WHERE kind = 'totp'")[0][0])

    def _done(self, new: Master) -> int:
        head = (b"\x01" + new.id).hex()
        return int(self._ask(f"SELECT count(*) FROM factors WHERE substr(secret, 1, 9) = x'{head}'")[0][0])

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:"))) as database:
            return database.execute(query).fetchall()

    def events(self, new: Master) -> list[dict[str, Any]]:
        """What the ledger says of `new`, oldest first."""
        rows = self._ask("SELECT detail FROM events WHERE kind = 'key_rotated' ORDER BY id")
        return [detail for (text,) in rows if (detail := json.loads(text)).get("id") == new.id.hex()]

    def closed(self, new: Master) -> list[str]:
        """Ids of secrets that do not open under `new` alone, in their place."""
        sealer = Sealer([new.secret])
        found = []
        for factor, secret in self._ask("SELECT id, secret FROM factors WHERE kind = 'totp'"):
            try:
                plain = sealer.unseal(secret, **sealed.place_of("default", factor))
                good = len(plain) == 20 and (plain == SECRET or not factor.startswith("idle-"))
            except Exception:
                good = False
            if not good:
                found.append(factor)
            self.count["secrets that open"] += good
        return found


async def run(*, people: int, rows: int, kills: int, seed: int = 7) -> Rekeying:
    """Rotate under the load of `people`, with `rows` secrets more; what was counted."""
    service = RecordingUpstream()
    await service.start()
    try:
        with _house(service.port) as house:
            rekeying = Rekeying(house, seed)
            await rekeying.prepare(people, rows)
            async with house.serving() as gateway:
                lives = [asyncio.create_task(rekeying.lives(f"p{number}", people)) for number in range(people)]
                try:
                    new = await rekeying.rotate(kills)
                    await gateway.until("another one seals now", times=2)
                finally:
                    rekeying.over.set()
                    await asyncio.gather(*lives)
                rekeying.failures += [f"{factor} does not open" for factor in rekeying.closed(new)]
                rekeying.failures += _complaints(gateway)
            rekeying.count.update(_told(detail) for detail in rekeying.events(new))
            sent = Counter(one.body for one in service.requests if one.method == b"POST")
            expected = Counter({f"from=p{number}".encode(): 2 for number in range(people)})
            if sent != expected:
                rekeying.failures.append(f"forms: {sent - expected} too many, {expected - sent} missing")
            return rekeying
    finally:
        await service.stop()


@contextlib.contextmanager
def _house(upstream: int) -> Iterator[Home]:
    with home(upstream) as house:
        house.write("rules:\n  - {name: everything, access: authenticated, upstream: app}\n")
        house.write_config(trusted_proxies=["127.0.0.1/32"])
        yield house


def _told(detail: dict[str, Any]) -> str:
    if "seals_from" in detail:
        return "told: resumed" if detail["resumed"] else "told: published"
    return "told: sealed anew" if "sealed_anew" in detail else "told: seals now"


def _complaints(gateway: Serving) -> list[str]:
    return [line for line in gateway.err.splitlines() if " ERROR " in line or "Traceback" in line]


def main(runner: Callable[..., Rekeying] = asyncio.run) -> int:
    """The whole run."""
    parser = argparse.ArgumentParser(prog="python -m tests.house.rekeying", description=__doc__)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000, help="secrets that nobody uses")
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rekeying = runner(run(people=options.people, rows=options.rows, kills=options.kills, seed=options.seed))
    for name, count in sorted(rekeying.count.items()):
        print(f"{count:>9,}  {name}")
    print(f"{rekeying.seconds:>9.1f}  seconds from the first rotation to the end of the last")
    print("\n".join(rekeying.failures[:20]) or "        0  failed")
    return 1 if rekeying.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
