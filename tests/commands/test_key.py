from __future__ import annotations

import asyncio
import contextlib
import io
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from gateway.commands import key_master
from gateway.core.clock import SystemClock
from gateway.core.errors import StoreAway
from gateway.crypto.keys import KeyRing
from gateway.crypto.sealing import Sealer
from gateway.crypto.signing import Signer
from gateway.mfa import sealed
from gateway.mfa.backup_codes import BackupCodes
from gateway.mfa.totp import Totp
from gateway.store.sql import Records
from gateway.store.tables import users
from tests.commands.kept import Sallyport

SECRET = b"twenty bytes of them"


@pytest.fixture
def sallyport(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sallyport:
    return Sallyport(tmp_path, capsys, monkeypatch)


@pytest.fixture
def ring(sallyport: Sallyport) -> KeyRing:
    return KeyRing.open(sallyport.folder / "data" / "keys", create=True)


def test_before_the_first_start_it_says_what_to_do(sallyport: Sallyport) -> None:
    for action in ("list", "rotate", "retire"):
        said = sallyport("key", action)
        assert said.code == 2
        assert "does not exist (start the gateway once, it makes its keys)" in said.err


def test_listing(sallyport: Sallyport, ring: KeyRing) -> None:
    kid = ring.signer.jwks()["keys"][0]["kid"]
    header, line, empty, header_of_masters, master = sallyport("key", "list").out.splitlines()
    assert header.split() == ["SIGNING", "KEY", "STATUS", "SIGNS", "FROM", "UNTIL"]
    assert line.split()[:2] == [kid, "signing"]
    assert empty == ""
    assert header_of_masters.split() == ["MASTER", "KEY", "STATUS", "SEALS", "FROM", "NEEDED", "BY"]
    assert master.split()[:2] == [ring.masters.current.id.hex(), "current"]
    listed, sealing = sallyport("key", "list", "--json").json
    assert (listed["key"], listed["kid"], listed["status"], listed["until"]) == ("signing", kid, "signing", None)
    assert (sealing["key"], sealing["status"], sealing["needed_by"]) == ("master", "current", [])
    assert not (sallyport.folder / "data" / "sallyport.db").exists(), "listing makes nothing"


def test_rotating_publishes_now_and_signs_later(sallyport: Sallyport, ring: KeyRing) -> None:
    running = Signer(ring.folder, SystemClock(), 60.0)
    before = SystemClock().now()
    said = sallyport("key", "rotate", "--json")
    assert said.code == 0
    new = said.json
    assert new["status"] == "next"
    assert 300 <= new["signs_from"] - before <= 310
    assert running.refresh()
    assert new["kid"] in [key["kid"] for key in running.jwks()["keys"]]
    assert [standing.status for standing in running.standings()] == ["signing", "next"]
    assert sallyport.events() == [("key_rotated", "")]


def test_rotating_with_another_overlap(sallyport: Sallyport, ring: KeyRing) -> None:
    said = sallyport("key", "rotate", "--overlap", "1h")
    at = datetime.strptime(said.out.split()[-2], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    assert 3600 <= at - SystemClock().now() + 10 <= 3615


def test_rotating_at_once(sallyport: Sallyport, ring: KeyRing) -> None:
    for path in ring.folder.glob("signing-*"):  # as if it had been made a while ago
        path.rename(ring.folder / f"signing-20200101T000000Z-{path.name[-12:]}")
    new = sallyport("key", "rotate", "--overlap", "0s", "--json").json
    assert new["status"] == "signing"
    listed = sallyport("key", "list", "--json").json
    assert [key["status"] for key in listed if key["key"] == "signing"] == ["published", "signing"]


@pytest.mark.parametrize("overlap", ["5", "soon", "-5m", ""])
def test_an_overlap_that_is_none_changes_nothing(sallyport: Sallyport, ring: KeyRing, overlap: str) -> None:
    said = sallyport("key", "rotate", f"--overlap={overlap}")
    assert said.code == 2
    assert "--overlap: not a duration" in said.err
    assert len(list(ring.folder.glob("signing-*"))) == 1


def test_a_key_others_can_read_is_told(sallyport: Sallyport, ring: KeyRing) -> None:
    (path,) = ring.folder.glob("master-*")
    path.chmod(0o644)
    said = sallyport("key", "list")
    assert said.code == 2
    assert said.err == f"key file {path} can be read by others (chmod 600 {path})\n"


# -- master keys -------------------------------------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no gateway to be waited for."""
    monkeypatch.setattr(key_master, "SETTLED", 0.0)


def age(ring: KeyRing, stamp: str = "20200101T000000Z") -> None:
    """Have the master keys made a while ago."""
    for number, path in enumerate(sorted(ring.folder.glob("master-*"))):
        path.rename(ring.folder / f"master-{stamp[:-2]}{number}Z-{path.name[-12:]}")


class House:
    """A database with secrets in it, beside the command line."""

    def __init__(self, sallyport: Sallyport, ring: KeyRing) -> None:
        self.url = f"sqlite:{sallyport.folder / 'data' / 'sallyport.db'}"
        self.ring = ring
        self.sallyport = sallyport

    def fill(self, devices: int, *, codes: bool = False) -> None:
        asyncio.run(self._fill(devices, codes))

    async def _fill(self, devices: int, codes: bool) -> None:
        clock = SystemClock()
        records = await Records.open(self.url, clock=clock)
        await sealed.remember_key(records, self.ring)
        totp, backup = Totp(records, self.ring.sealer, clock), BackupCodes(records, self.ring.mac, clock)
        async with records.begin() as connection:
            await connection.execute(
                insert(users).values(
                    tenant="default", subject="s-ann", name="ann", email="", display_name="", groups=[],
                    password="", disabled=False, created_at=0.0,
                )
            )  # fmt: skip
            for _ in range(devices):
                await totp.bind(connection, "default", "s-ann", secret=SECRET, label="", step=0, now=0.0)
            if codes:
                await backup.renew(connection, "default", "s-ann", clock.now())
        await records.close()

    def opens(self) -> int:
        """How many devices open with the keys in the folder now."""
        ring = KeyRing.open(self.ring.folder, create=False)
        return sum(
            ring.sealer.unseal(secret, **sealed.place_of("default", name)) == SECRET for name, secret in self.rows()
        )

    def rows(self) -> list[tuple[str, bytes]]:
        with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:"))) as database:
            return database.execute("SELECT id, secret FROM factors WHERE kind = 'totp'").fetchall()

    def change(self, statement: str) -> None:
        with contextlib.closing(sqlite3.connect(self.url.removeprefix("sqlite:"))) as database, database:
            database.execute(statement)

    def masters(self) -> list[dict[str, Any]]:
        return [key for key in self.sallyport("key", "list", "--json").json if key["key"] == "master"]


@pytest.fixture
def house(sallyport: Sallyport, ring: KeyRing) -> House:
    age(ring)
    ring.refresh()
    return House(sallyport, ring)


@pytest.mark.usefixtures("at_once")
def test_rotating_the_master_key_seals_everything_anew(sallyport: Sallyport, house: House) -> None:
    house.fill(3, codes=True)
    before = dict(house.rows())
    said = sallyport("key", "rotate", "master", "--overlap", "0s", "--json")
    assert said.code == 0, said
    assert (said.json["status"], said.json["sealed_anew"], said.json["broken"]) == ("current", 3, 0)
    assert house.opens() == 3
    assert not set(before.values()) & set(dict(house.rows()).values())
    old, new = house.masters()
    assert (old["status"], new["status"], new["id"]) == ("old", "current", said.json["id"])
    assert [(need["what"], need["count"]) for need in old["needed_by"]] == [
        ("backup codes", 10),
        ("sessions and open forms", 0),
    ]
    assert 89 * 86_400 < old["may_go_from"] - SystemClock().now() < 91 * 86_400
    assert sallyport.events() == [("key_rotated", "")] * 2
    assert "10 backup codes, sessions and open forms; may go from 20" in sallyport("key", "list").out


@pytest.mark.usefixtures("at_once")
def test_a_rotation_that_was_broken_off_goes_on_and_a_whole_one_is_followed_by_another(
    sallyport: Sallyport, house: House
) -> None:
    house.fill(2)
    first = house.ring.masters.current.id.hex()
    second = house.ring.rotate_master(0).id.hex()  # published, and killed
    said = sallyport("key", "rotate", "master", "--overlap", "0s", "--json")
    assert f"going on with master key {second}" in said.err
    assert (said.json["id"], said.json["sealed_anew"]) == (second, 2)
    age(house.ring)
    third = sallyport("key", "rotate", "master", "--overlap", "0s", "--json").json["id"]
    assert len({first, second, third}) == 3
    assert house.opens() == 2


@pytest.mark.usefixtures("at_once")
def test_a_database_that_goes_away_is_told_with_what_to_do(
    sallyport: Sallyport, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.fill(2)
    whole = sealed.reseal

    async def cut_off(records: Records, sealer: Sealer) -> AsyncIterator[sealed.Row]:
        async for row in whole(records, sealer):
            yield row
            raise StoreAway("database: it is gone")

    monkeypatch.setattr(sealed, "reseal", cut_off)
    said = sallyport("key", "rotate", "master", "--overlap", "0s")
    assert said.code == 1
    assert said.err.endswith(
        "broken off; `sallyport key rotate master` goes on where it was\nsallyport: database: it is gone\n"
    )
    monkeypatch.setattr(sealed, "reseal", whole)
    said = sallyport("key", "rotate", "master", "--json")
    assert (said.code, said.json["sealed_anew"]) == (0, 1)
    assert house.opens() == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("at_once")
def test_on_a_terminal_it_shows_how_far_it_is(
    sallyport: Sallyport, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.fill(3)
    monkeypatch.setattr(key_master, "SHOW_EVERY", 0.0)
    monkeypatch.setattr("sys.stderr", screen := Terminal())
    assert sallyport("key", "rotate", "master", "--overlap", "0s").code == 0
    shown = screen.getvalue().split("\r")
    assert [line.partition(",")[0] for line in shown if "sealed anew" in line] == [
        f"{done} of 3 sealed anew" for done in (1, 2, 3)
    ]
    assert shown[-1] == "\033[K", "and takes it away"


def test_publishing_only_needs_no_database(sallyport: Sallyport, house: House) -> None:
    said = sallyport("key", "rotate", "master", "--publish-only", "--overlap", "1h")
    assert said.code == 0
    current, waiting = house.masters()
    assert (current["status"], waiting["status"]) == ("current", "next")
    assert 3590 < waiting["seals_from"] - SystemClock().now() < 3610
    assert waiting["file"] in said.out
    again = sallyport("key", "rotate", "master", "--publish-only", "--json")
    assert again.json["id"] == waiting["id"], "one at a time"
    assert not (sallyport.folder / "data" / "sallyport.db").exists()


@pytest.mark.usefixtures("at_once")
def test_a_secret_that_does_not_open_is_named_and_the_rest_goes_on(sallyport: Sallyport, house: House) -> None:
    house.fill(3)
    (broken, one), (_, two), _ = house.rows()
    house.change(f"UPDATE factors SET secret = x'{two.hex()}' WHERE id = '{broken}'")
    said = sallyport("key", "rotate", "master", "--overlap", "0s")
    assert said.code == 1
    assert f"factor {broken} of tenant default opens under no key, and stays as it is" in said.err
    assert "2 secrets sealed anew, 1 do not open" in said.out
    kept = sallyport("key", "retire", "--force")
    assert kept.code == 1
    assert "1 secrets of factors" in kept.out, "not even force throws a sealed secret away"
    assert house.masters()[0]["may_go_from"] is None
    house.change(f"UPDATE factors SET secret = x'{one.hex()}' WHERE id = '{broken}'")
    assert sallyport("key", "rotate", "master", "--overlap", "0s").code == 0
    assert house.opens() == 3


def test_keys_of_another_database_rotate_and_retire_nothing(sallyport: Sallyport, house: House) -> None:
    house.fill(1)
    for path in house.ring.folder.iterdir():
        path.unlink()
    KeyRing.open(house.ring.folder, create=True)
    before = house.rows(), sorted(house.ring.folder.iterdir())
    for arguments in (("rotate", "master"), ("retire", "--force")):
        said = sallyport("key", *arguments)
        assert said.code == 2
        assert "are not those that sealed" in said.err
    assert (house.rows(), sorted(house.ring.folder.iterdir())) == before


@pytest.mark.usefixtures("at_once")
def test_an_old_key_stays_while_it_is_needed_and_goes_when_it_is_not(sallyport: Sallyport, house: House) -> None:
    assert sallyport("key", "retire").out == "there is no old master key\n"
    house.fill(2, codes=True)
    old = house.ring.masters.current.id.hex()
    sallyport("key", "rotate", "master", "--overlap", "0s")
    said = sallyport("key", "retire")
    assert said.code == 1
    assert said.out.startswith(f"master key {old} stays: 10 backup codes, sessions and open forms; may go from ")
    house.change("UPDATE backup_codes SET used_at = 1.0")
    said = sallyport("key", "retire")
    assert said.code == 1
    assert "stays: sessions and open forms; may go from " in said.out
    age(house.ring)  # replaced a while ago
    said = sallyport("key", "retire", "--json")
    assert (said.code, said.json) == (0, {"retired": [old], "needed": []})
    assert house.opens() == 2
    assert [key["status"] for key in house.masters()] == ["current"]
    assert sallyport.events()[-1] == ("key_retired", "")


@pytest.mark.usefixtures("at_once")
def test_it_stays_as_long_as_the_longest_session_of_any_tenant(sallyport: Sallyport, house: House) -> None:
    config = sallyport.folder / "config.yaml"
    config.write_text(config.read_text() + "sessions: {tenants: {default: {absolute: 100h}}}\n")
    house.fill(1)
    sallyport("key", "rotate", "master", "--overlap", "0s")
    old, new = house.masters()
    assert old["may_go_from"] == new["seals_from"] + 100 * 3600 + sealed.GRACE


@pytest.mark.usefixtures("at_once")
def test_after_a_leak_a_key_goes_at_once_and_its_codes_are_void(sallyport: Sallyport, house: House) -> None:
    house.fill(2, codes=True)
    sallyport("key", "rotate", "master", "--overlap", "0s")
    said = sallyport("key", "retire", "--force")
    assert said.code == 0, said
    assert len(house.masters()) == 1
    assert house.opens() == 2
    with contextlib.closing(sqlite3.connect(house.url.removeprefix("sqlite:"))) as database:
        assert database.execute("SELECT count(*) FROM backup_codes").fetchone() == (0,)
        assert database.execute("SELECT kind, count(*) FROM factors GROUP BY kind").fetchall() == [("totp", 2)]


@pytest.mark.usefixtures("at_once")
def test_an_old_key_that_sealed_first_may_go_where_another_was_put_there_by_hand(
    sallyport: Sallyport, house: House
) -> None:
    """Nothing is sealed, nobody ran `rotate`: the records must not go on asking for the key that goes."""
    house.fill(0)
    house.ring.rotate_master(0)
    age(house.ring)
    assert sallyport("key", "retire").code == 0
    assert sallyport("key", "rotate", "master", "--overlap", "0s").code == 0
