"""`sallyport recovery`: it shows what is open, what was, and no secret."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.core.clock import SystemClock
from gateway.core.identity import Identity
from gateway.crypto.mac import Mac
from gateway.crypto.sealing import Sealer
from gateway.identity.local import LocalUsers
from gateway.identity.passwords import Passwords
from gateway.identity.session_rows import revoke
from gateway.mfa.recovery import Recoveries
from gateway.mfa.recovery_states import Recovery
from gateway.mfa.totp import Totp
from gateway.store.sql import Records
from gateway.store.tables import recoveries as rows
from tests.commands.conftest import Run
from tests.rig.ledger import Remembered
from tests.rig.letters import Letters

PASSWORD = "correct horse battery staple"


@pytest.fixture
def begun(folder: Path) -> Recovery:
    """Root has asked for ann's recovery."""

    async def ask() -> Recovery:
        clock, ledger, passwords = SystemClock(), Remembered(), Passwords()
        records = await Records.open(f"sqlite:{folder}/data/sallyport.db", clock=clock)
        users = LocalUsers(records, passwords, clock, ledger)
        ann = await users.add("ann", PASSWORD)
        root = await users.add("root", PASSWORD, groups=["admins"])
        async with records.begin() as connection:
            await Totp(records, Sealer([b"m" * 32]), clock).bind(
                connection, ann.tenant, ann.subject, secret=b"x" * 20, label="", step=0, now=clock.now() - 60
            )

        async def unbind(*_: object) -> None:
            raise AssertionError

        recoveries = Recoveries(
            records, clock, ledger, Mac([b"m" * 32]), unbind=unbind, revoke=revoke, letters=Letters()
        )
        asked = await recoveries.ask_for(Identity(root.tenant, root.subject, root.name), ann.subject, "lost in a lake")
        async with records.read() as connection:
            Secret.kept = str(await connection.scalar(select(rows.c.cancel)))
        passwords.close()
        await records.close()
        return asked

    return asyncio.run(ask())


class Secret:
    """What is kept of the link."""

    kept = ""


def test_what_is_open(begun: Recovery, sallyport: Run) -> None:
    said = sallyport("recovery", "list")
    assert said.code == 0
    heads, row = said.out.splitlines()
    assert heads.split() == ["ID", "USER", "WAY", "STATE", "OUTCOME", "ASKED", "BY", "UNTIL"]
    assert row.split()[:5] == [begun.id, "ann", "administrators", "pending", "-"]
    assert row.split()[6] == "root"
    assert "lost in a lake" in sallyport("recovery", "show", begun.id).out


def test_for_scripts(begun: Recovery, sallyport: Run) -> None:
    listed = sallyport("recovery", "list", "--all", "--json")
    assert listed.code == 0, listed.err
    (one,) = json.loads(listed.out)
    assert (one["id"], one["asked_by"], one["reason"], one["settled_at"]) == (begun.id, "root", "lost in a lake", None)
    shown = sallyport("recovery", "show", begun.id, "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out) == one
    assert Secret.kept
    assert Secret.kept not in listed.out + shown.out


def test_one_that_is_not_there(begun: Recovery, sallyport: Run) -> None:
    said = sallyport("recovery", "show", "none")
    assert (said.code, said.out) == (1, "")
    assert "There is no recovery none." in said.err
