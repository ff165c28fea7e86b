from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pyotp
import pytest
from sqlalchemy import select

from gateway.core.clock import SystemClock
from gateway.core.identity import Proof
from gateway.crypto.keys import KeyRing
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.mfa.backup_codes import BackupCodes
from gateway.mfa.enrolment import Enrolment
from gateway.mfa.factors import Factors
from gateway.mfa.sealed import place_of
from gateway.mfa.totp import Totp
from gateway.store.sql import Records
from gateway.store.tables import factors, outbox, users
from tests.commands.kept import Sallyport
from tests.rig.ledger import Remembered
from tests.rig.sessions import in_rows

PASSWORD = "correct horse battery"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def sallyport(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sallyport:
    return Sallyport(tmp_path, capsys, monkeypatch)


def verifies(sallyport: Sallyport, name: str, password: str) -> bool:
    async def verify() -> bool:
        records = await Records.open(f"sqlite:{sallyport.folder}/data/sallyport.db", clock=SystemClock())
        passwords = Passwords()
        try:
            people = LocalUsers(records, passwords, SystemClock(), Remembered())
            return await people.verify(name, password) is not None
        finally:
            passwords.close()
            await records.close()

    return asyncio.run(verify())


def test_adding_with_a_password_from_standard_input(sallyport: Sallyport) -> None:
    said = sallyport("user", "add", "Ann", "--groups", "admins, staff", "--email", "ann@example.com",
                     "--name", "Ann Smith", "--password-stdin", stdin=PASSWORD + "\n")  # fmt: skip
    assert (said.code, said.out, said.err) == (0, "added ann, groups admins, staff\n", "")
    assert verifies(sallyport, "ann", PASSWORD)
    (listed,) = sallyport("user", "list", "--json").json
    assert {name: listed[name] for name in ("name", "email", "display_name", "groups", "disabled")} == {
        "name": "ann",
        "email": "ann@example.com",
        "display_name": "Ann Smith",
        "groups": ["admins", "staff"],
        "disabled": False,
    }
    assert sallyport.events() == [("user_added", "ann")]


def test_an_address_is_not_confirmed_but_where_the_operator_says_so(sallyport: Sallyport) -> None:
    sallyport(
        "user", "add", "ann", "--email", "ann@example.com", "--email-confirmed", "--password-stdin", stdin=PASSWORD
    )
    sallyport("user", "add", "bob", "--email", "bob@example.com", "--password-stdin", stdin=PASSWORD)
    sallyport("user", "add", "eve", "--password-stdin", stdin=PASSWORD)
    ann, bob, eve = sallyport("user", "list", "--json").json
    assert ann["email_confirmed_at"] == ann["created_at"]
    assert bob["email_confirmed_at"] is eve["email_confirmed_at"] is None
    shown = [sallyport("user", "show", name).out for name in ("ann", "bob", "eve")]
    assert re.search(r"^email +ann@example.com, confirmed 20\d\d-\d\d-\d\d", shown[0], re.MULTILINE)
    assert re.search(r"^email +bob@example.com, not confirmed$", shown[1], re.MULTILINE)
    assert re.search(r"^email +-$", shown[2], re.MULTILINE)
    said = sallyport("user", "add", "kim", "--email-confirmed", "--password-stdin", stdin=PASSWORD)
    assert (said.code, "give it with --email" in said.err) == (2, True)
    assert sallyport("user", "show", "kim").code == 1


def test_another_address_is_not_confirmed_but_where_the_operator_says_so(sallyport: Sallyport) -> None:
    def address() -> tuple[str, bool]:
        (ann,) = sallyport("user", "list", "--json").json
        return ann["email"], ann["email_confirmed_at"] is not None

    old, new = "ann@example.com", "ann@example.org"
    sallyport("user", "add", "ann", "--email", old, "--email-confirmed", "--password-stdin", stdin=PASSWORD)
    said = sallyport("user", "email", "ANN", new)
    assert (said.code, said.out) == (0, f"ann is written to at {new}, not confirmed\n")
    assert address() == (new, False)
    assert sallyport("user", "email", "ann", old).code == 0
    assert address() == (old, False), "it was, and is no more"
    assert sallyport("user", "email", "ann", old, "--confirmed").out.startswith(
        f"ann is written to at {old}, confirmed 2"
    )
    assert address() == (old, True)
    assert sallyport("user", "email", "ann", old).code == 0
    assert address() == (old, True), "nothing has changed"
    assert sallyport("user", "email", "ann", new, "--confirmed").code == 0
    assert address() == (new, True)
    assert sallyport("user", "email", "ann", "").out == "ann is written to nowhere\n"
    assert address() == ("", False)
    assert [kind for kind, _ in sallyport.events()] == [
        "user_added", "address_changed", "address_changed", "address_confirmed", "address_changed", "address_changed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("ann", "nonsense"), 1, "ERR-USER-EMAIL"),
        (("nobody", "ann@example.org"), 1, "ERR-USER-UNKNOWN"),
        (("ann", "", "--confirmed"), 2, "no address"),
    ],
)
def test_an_address_that_cannot_be(sallyport: Sallyport, arguments: tuple[str, ...], code: int, told: str) -> None:
    sallyport("user", "add", "ann", "--email", "ann@example.com", "--password-stdin", stdin=PASSWORD)
    said = sallyport("user", "email", *arguments)
    assert (said.code, told in said.err) == (code, True)
    assert sallyport("user", "list", "--json").json[0]["email"] == "ann@example.com"
    assert sallyport.events() == [("user_added", "ann")]


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_only_the_end_of_the_line_is_cut_off(sallyport: Sallyport, ending: str) -> None:
    sallyport("user", "add", "ann", "--password-stdin", stdin=f" {PASSWORD} {ending}")
    assert verifies(sallyport, "ann", f" {PASSWORD} ")
    assert not verifies(sallyport, "ann", PASSWORD)


def test_a_generated_password_is_shown_once_and_works(sallyport: Sallyport) -> None:
    said = sallyport("user", "add", "ann", "--generate")
    password = said.out.splitlines()[1].removeprefix("password: ")
    assert len(password) == 23
    assert verifies(sallyport, "ann", password)
    for path in (sallyport.folder / "data").rglob("*"):
        assert path.is_dir() or password.encode() not in path.read_bytes()


def test_a_password_is_never_an_argument(sallyport: Sallyport) -> None:
    for arguments in (["--password", PASSWORD], ["--password=" + PASSWORD], [PASSWORD]):
        said = sallyport("user", "add", "ann", *arguments)
        assert said.code == 2
        assert "Traceback" not in said.err
    assert sallyport("user", "list", "--json").json == []


def test_without_a_terminal_it_says_what_to_do(sallyport: Sallyport) -> None:
    said = sallyport("user", "add", "ann")
    assert (said.code, said.out) == (2, "")
    assert said.err == "there is no terminal to ask for a password (use --password-stdin or --generate)\n"


@pytest.mark.parametrize(("second", "code"), [(PASSWORD, 0), ("something else", 1)])
def test_it_asks_twice_and_echoes_nothing(sallyport: Sallyport, second: str, code: int) -> None:
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "gateway", "user", "add", "ann", "--config", str(sallyport.folder / "config.yaml")]
    process = subprocess.Popen(
        program, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=ROOT,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    shown = b""

    def until(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            shown += os.read(ours, 4096)

    until(b"Password: ")
    os.write(ours, PASSWORD.encode() + b"\n")
    until(b"Again: ")
    os.write(ours, second.encode() + b"\n")
    until(b"added ann" if code == 0 else b"not the same")
    assert process.wait(30) == code
    os.close(ours)
    assert PASSWORD.encode() not in shown
    assert second.encode() not in shown
    assert [user["name"] for user in sallyport("user", "list", "--json").json] == (["ann"] if code == 0 else [])


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (["a b"], PASSWORD, "ERR-USER-NAME"),
        (["ann"], "short", "ERR-PASSWORD-WEAK"),
        (["ann"], "", "ERR-PASSWORD-WEAK"),
        (["ann"], "ann", "ERR-PASSWORD-WEAK"),
        (["ann", "--email", "nonsense"], PASSWORD, "ERR-USER-EMAIL"),
        (["ann", "--groups", "a b"], PASSWORD, "ERR-USER-GROUP"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(sallyport: Sallyport, arguments: list[str], stdin: str, told: str) -> None:
    said = sallyport("user", "add", *arguments, "--password-stdin", stdin=stdin)
    assert said.code == 1
    assert said.err.startswith(f"sallyport: {told}: ")
    assert len(said.err.splitlines()) == 1
    assert sallyport.events() == []


def test_the_same_name_again_is_told(sallyport: Sallyport) -> None:
    sallyport("user", "add", "ann", "--password-stdin", stdin=PASSWORD)
    said = sallyport("user", "add", "ANN", "--password-stdin", stdin="another horse battery")
    assert (said.code, said.err) == (1, "sallyport: ERR-USER-EXISTS: There is a user ann already.\n")
    assert verifies(sallyport, "ann", PASSWORD)


def test_disabling_enabling_and_the_list(sallyport: Sallyport) -> None:
    sallyport("user", "add", "ann", "--groups", "b,a", "--email", "ann@example.com", "--generate")
    sallyport("user", "add", "bob", "--password-stdin", stdin=PASSWORD)
    said = sallyport("user", "disable", "BOB")
    assert (said.code, said.out) == (0, "disabled bob; every session of theirs is over\n")
    assert not verifies(sallyport, "bob", PASSWORD)
    assert sallyport("user", "list").out.splitlines() == [
        "NAME  STATUS    MFA  GROUPS  EMAIL",
        "ann   active    -    a,b     ann@example.com",
        "bob   disabled  -    -       -",
    ]
    assert sallyport("user", "enable", "bob").out == "enabled bob\n"
    assert verifies(sallyport, "bob", PASSWORD)
    assert [kind for kind, _ in sallyport.events()] == ["user_added", "user_added", "user_disabled", "user_enabled"]


def test_another_password(sallyport: Sallyport) -> None:
    sallyport("user", "add", "ann", "--password-stdin", stdin=PASSWORD)
    said = sallyport("user", "passwd", "ann", "--password-stdin", stdin="another horse battery")
    assert (said.code, said.out) == (0, "changed the password of ann; every session of theirs is over\n")
    assert verifies(sallyport, "ann", "another horse battery")
    assert not verifies(sallyport, "ann", PASSWORD)
    assert sallyport.events()[-1] == ("password_changed", "ann")


@pytest.mark.parametrize("arguments", [["disable"], ["enable"], ["passwd", "--generate"]])
def test_nobody_there(sallyport: Sallyport, arguments: list[str]) -> None:
    said = sallyport("user", arguments[0], "nobody", *arguments[1:])
    assert (said.code, said.out) == (1, "")
    assert said.err == "sallyport: ERR-USER-UNKNOWN: There is no user nobody.\n"


def test_a_running_gateway_sees_it_with_its_next_look(sallyport: Sallyport) -> None:
    """Case 81: disabled at the command line, out in the gateway."""
    sallyport("user", "add", "ann", "--password-stdin", stdin=PASSWORD)

    async def gateway() -> list[bool]:
        records = await Records.open(f"sqlite:{sallyport.folder}/data/sallyport.db", clock=SystemClock())
        passwords, ledger = Passwords(), Remembered()
        people = LocalUsers(records, passwords, SystemClock(), ledger)
        sessions = in_rows(records, SystemClock(), ledger)
        user = await people.find("ann")
        assert user is not None
        token, _ = await sessions.open(user, Proof("password", SystemClock().now()), address="", agent="")
        await sessions.refresh()
        await sessions.find(token)
        seen = [sessions.near(token) is not None]
        disabled = await asyncio.to_thread(sallyport, "user", "disable", "ann")
        assert disabled.code == 0
        await sessions.refresh()
        seen.append(await sessions.find(token) is not None)
        await sessions.close()
        passwords.close()
        await records.close()
        return seen

    assert asyncio.run(gateway()) == [True, False]


def test_an_unfit_database_is_told(sallyport: Sallyport) -> None:
    (sallyport.folder / "data").mkdir()
    (sallyport.folder / "data" / "sallyport.db").write_text("not a database at all, just text" * 100)
    said = sallyport("user", "list")
    assert said.code == 2
    assert "is not a database" in said.err
    assert "Traceback" not in said.err


def test_an_action_is_needed(sallyport: Sallyport) -> None:
    for arguments in ([], ["remove", "ann"]):
        assert sallyport("user", *arguments).code == 2


def test_resetting_unbinds_what_was_lost_and_ends_the_sessions(sallyport: Sallyport) -> None:
    sallyport("user", "add", "ann", "--password-stdin", stdin=PASSWORD + "\n")
    keys = KeyRing.open(sallyport.folder / "data" / "keys", create=True)

    async def bound() -> str:
        records = await Records.open(f"sqlite:{sallyport.folder}/data/sallyport.db", clock=SystemClock())
        clock, passwords, ledger = SystemClock(), Passwords(), Remembered()
        try:
            ann = await LocalUsers(records, passwords, clock, ledger).find("ann")
            assert ann is not None
            sessions = in_rows(records, clock, ledger)
            proof = Proof("password", clock.now())
            token, identity = await sessions.open(ann, proof, address="192.0.2.1", agent="x")
            totp, codes = Totp(records, keys.sealer, clock), BackupCodes(records, keys.mac, clock)
            factors = Factors(records, {"totp": totp, "backup_code": codes}, clock)
            enrolment = Enrolment(records, totp, codes, factors, clock, ledger, end_all=sessions.end_all, issuer="Test")
            setup = await enrolment.begin_totp(identity)
            await enrolment.confirm(identity, setup.id, pyotp.TOTP(setup.secret).now())
            assert await factors.usable(ann.tenant, ann.subject)
            return token
        finally:
            passwords.close()
            await records.close()

    async def left(token: str) -> tuple[tuple[str, ...], bool]:
        records = await Records.open(f"sqlite:{sallyport.folder}/data/sallyport.db", clock=SystemClock())
        clock, passwords = SystemClock(), Passwords()
        try:
            ann = await LocalUsers(records, passwords, clock, Remembered()).find("ann")
            assert ann is not None
            sessions = in_rows(records, clock, Remembered())
            totp, codes = Totp(records, keys.sealer, clock), BackupCodes(records, keys.mac, clock)
            usable = await Factors(records, {"totp": totp, "backup_code": codes}, clock).usable(ann.tenant, ann.subject)
            return usable, await sessions.find(token) is not None
        finally:
            passwords.close()
            await records.close()

    token = asyncio.run(bound())
    said = sallyport("user", "reset", "Ann")
    assert said.code == 0, said.err
    assert "unbound the second factors of ann" in said.out
    assert asyncio.run(left(token)) == ((), False)
    assert ("factor_removed", "ann") in sallyport.events()
    assert sallyport("user", "reset", "nobody").code == 1


def test_who_is_moved_or_reset_hears_of_it_on_their_telephone_and_by_mail(sallyport: Sallyport) -> None:
    """Whoever has talked an operator into it does not have that."""
    file = sallyport.folder / "config.yaml"
    console = "[{console: {}}]"
    notify = f"notify: {{from: Gate <gate@good.test>, email: {console}, sms: {console}}}\n"
    file.write_text(file.read_text() + notify)
    sallyport("user", "add", "ann", "--password-stdin", "--email", "ann@example.com", stdin=PASSWORD + "\n")
    keys = KeyRing.open(sallyport.folder / "data" / "keys", create=True)
    database = f"sqlite:{sallyport.folder}/data/sallyport.db"

    async def bind() -> None:
        records = await Records.open(database, clock=SystemClock())
        async with records.begin() as connection:
            (ann,) = (await connection.execute(select(users.c.tenant, users.c.subject))).all()
            secret = keys.sealer.seal(b"+905301234567", **place_of(ann.tenant, "n1"))
            await connection.execute(
                factors.insert().values(
                    tenant=ann.tenant, id="n1", subject=ann.subject, kind="sms", label="", secret=secret, last_step=-1,
                    refused_step=-1, failures=0, created_at=1.0,
                )
            )  # fmt: skip
        await records.close()

    async def told() -> list[tuple[str, str]]:
        records = await Records.open(database, clock=SystemClock())
        async with records.read() as connection:
            rows = (await connection.execute(select(outbox.c.target, outbox.c.kind).order_by(outbox.c.id))).all()
        await records.close()
        return [(row.target, row.kind) for row in rows]

    asyncio.run(bind())
    assert sallyport("user", "email", "ann", "ann@example.org").code == 0
    assert sallyport("user", "email", "ann", "ann@example.org").code == 0, "nothing changes, and nobody is told"
    found = [one for one in asyncio.run(told()) if one[1] == "address_changed"]
    assert [target for target, _ in found] == ["ann@example.com", "+905301234567", "ann@example.org"]
    assert sallyport("user", "reset", "ann").code == 0
    found = [one for one in asyncio.run(told()) if one[1] == "factor_removed"]
    assert found == [("+905301234567", "factor_removed"), ("ann@example.org", "factor_removed")]


def test_a_second_factor_is_demanded_and_taken_back(sallyport: Sallyport) -> None:
    for name, groups in (("ann", "admins"), ("bob", "")):
        sallyport("user", "add", name, "--password-stdin", "--groups", groups, stdin=PASSWORD)
    before = int(SystemClock().now())
    said = sallyport("user", "require-mfa", "BOB", "--grace", "7d")
    assert said.code == 0
    assert said.out.startswith("bob must have a second factor from 2")
    shown = sallyport("user", "show", "bob", "--json").json
    assert before + 7 * 86400 <= shown["enrol_by"] == shown["mfa_required_from"] <= before + 7 * 86400 + 60
    assert (shown["required"], shown["devices"]) == (True, [])
    assert [row.split()[2][:2] for row in sallyport("user", "list").out.splitlines()[1:]] == ["-", "20"]
    assert "required       yes, to be set up by 20" in sallyport("user", "show", "bob").out
    assert sallyport("user", "require-mfa", "bob").out == "bob must have a second factor from now on\n"
    said = sallyport("user", "require-mfa", "bob", "--lift")
    assert said.out == "bob need not have a second factor for an administrator's sake.\n"
    assert "required       no" in sallyport("user", "show", "bob").out
    assert "required       yes, overdue" in sallyport("user", "show", "ann").out
    assert "What the configuration demands of them stays." in sallyport("user", "require-mfa", "ann", "--lift").out
    assert sallyport.events()[-3:] == [
        ("mfa_required", "bob"), ("mfa_requirement_lifted", "bob"), ("mfa_requirement_lifted", "ann")
    ]  # fmt: skip


def test_a_demand_that_makes_no_sense(sallyport: Sallyport) -> None:
    sallyport("user", "add", "bob", "--password-stdin", stdin=PASSWORD)
    assert sallyport("user", "require-mfa", "eve").code == 1
    said = sallyport("user", "require-mfa", "bob", "--grace", "week")
    assert (said.code, "--grace: not a duration" in said.err) == (2, True)
    assert sallyport("user", "require-mfa", "bob", "--grace", "7d", "--lift").code == 2
    config = sallyport.folder / "config.yaml"
    config.write_text(config.read_text() + "mfa: {totp: null, backup_codes: null, required_groups: []}\n")
    said = sallyport("user", "require-mfa", "bob")
    assert (said.code, "no second factor could be set up" in said.err) == (2, True)
    assert sallyport("user", "show", "bob", "--json").json["required"] is False
