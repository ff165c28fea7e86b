from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from argon2.low_level import Type, hash_secret

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway, UserError
from gateway.core.events import Kind
from gateway.identity import passwords as module
from gateway.identity.local import LocalUsers
from gateway.store.place import SQLITE, Place
from gateway.store.sql import Records
from tests.identity.conftest import PASSWORD
from tests.rig.behind import behind
from tests.rig.ledger import Remembered
from tests.rig.postgres import EITHER, either


@pytest.fixture(params=EITHER)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """All of this, on both databases."""
    return either(request, tmp_path)


async def test_adding_and_finding(people: LocalUsers, clock: ManualClock, ledger: Remembered) -> None:
    ann = await people.add(" ANN ", PASSWORD, email="ann@example.com", display_name="Ann", groups=["b", "a", "b"])
    assert (ann.name, ann.groups, ann.disabled, ann.created_at) == ("ann", {"a", "b"}, False, clock.now())
    assert await people.find("Ａｎｎ") == ann
    assert await people.get(ann.subject) == ann
    assert await people.find("bob") is None
    assert await people.find("not a name") is None
    assert await people.get("nobody") is None
    (event,) = ledger.events
    assert (event.kind, event.user, event.detail) == (Kind.USER_ADDED, "ann", {"groups": ["a", "b"]})


@pytest.mark.parametrize("what", ["add", "disable", "password", "address"])
async def test_what_nobody_could_be_told_of_has_not_happened(people: LocalUsers, ledger: Remembered, what: str) -> None:
    """A gateway is stopped between the change and its event: whose account it is would never hear of it."""
    await people.add("ann", PASSWORD)
    before, told = await people.all(), len(ledger.events)

    async def go_on() -> object:
        if what == "add":
            return await people.add("bob", PASSWORD)
        if what == "disable":
            return await people.disable("ann")
        if what == "password":
            return await people.set_password("ann", "another horse battery")
        return await people.set_email("ann", "ann@example.com")

    with ledger.stopped():
        await go_on()
    assert (await people.all(), len(ledger.events)) == (before, told)
    assert await people.verify("ann", PASSWORD) is not None
    await go_on()
    assert len(ledger.events) == told + 1


async def test_tenants_do_not_meet(people: LocalUsers) -> None:
    here = await people.add("ann", PASSWORD)
    there = await people.add("ann", "another horse battery", tenant="acme")
    assert here.subject != there.subject
    assert await people.all() == [here]
    assert await people.all("acme") == [there]
    assert await people.get(here.subject, "acme") is None
    assert await people.verify("ann", PASSWORD, "acme") is None
    assert await people.verify("ann", PASSWORD) == here


async def test_everybody_by_name(people: LocalUsers) -> None:
    for name in ("zoe", "ann", "Bob"):
        await people.add(name, PASSWORD)
    assert [user.name for user in await people.all()] == ["ann", "bob", "zoe"]


@pytest.mark.parametrize(
    ("name", "password", "details", "code"),
    [
        ("", PASSWORD, {}, "ERR-USER-NAME"),
        ("a b", PASSWORD, {}, "ERR-USER-NAME"),
        ("ann", "short", {}, "ERR-PASSWORD-WEAK"),
        ("ann", PASSWORD, {"email": "x"}, "ERR-USER-EMAIL"),
        ("ann", PASSWORD, {"groups": ["a,b"]}, "ERR-USER-GROUP"),
        ("ann", PASSWORD, {"display_name": "\n"}, "ERR-USER-DISPLAY-NAME"),
    ],
)
async def test_what_cannot_be_added(
    people: LocalUsers, name: str, password: str, details: dict[str, str], code: str
) -> None:
    with pytest.raises(UserError, match=code):
        await people.add(name, password, **details)  # type: ignore[arg-type]
    assert await people.all() == []


async def test_one_name_one_user_also_for_ten_at_once(people: LocalUsers, ledger: Remembered) -> None:
    answers = await asyncio.gather(*(people.add("ann", PASSWORD) for _ in range(10)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, UserError)]
    assert len(refused) == 9
    assert {(error.code, error.status) for error in refused} == {("ERR-USER-EXISTS", 409)}
    assert len(await people.all()) == 1
    assert ledger.kinds() == [Kind.USER_ADDED]


async def test_the_right_password_in_any_spelling_of_the_name(people: LocalUsers) -> None:
    ann = await people.add("ann", PASSWORD)
    assert await people.verify("ann", PASSWORD) == ann
    assert await people.verify(" ANN", PASSWORD) == ann
    assert await people.verify("ann", PASSWORD + " ") is None
    assert await people.verify("ann", "") is None


async def test_unknown_wrong_and_disabled_are_the_same_work(
    people: LocalUsers, monkeypatch: pytest.MonkeyPatch, records: Records
) -> None:
    """Case 104: one look into the database and one comparison with the same parameters, whatever is wrong.

    Counting the work says more than a stopwatch on a shared machine; that one comparison takes the same time for
    every hash of these parameters is argon2's own property.
    """
    await people.add("ann", PASSWORD)
    await people.add("eve", PASSWORD)
    await people.disable("eve")
    compared: list[list[str]] = []
    asked: list[str] = []
    matches = module._matches
    monkeypatch.setattr(
        module, "_matches", lambda hashed, given: compared.append(hashed.split("$")[:4]) or matches(hashed, given)
    )
    read = records.read
    monkeypatch.setattr(records, "read", lambda: asked.append("read") or read())
    tries = [("ann", "wrong"), ("nobody", "wrong"), ("eve", "wrong"), ("eve", PASSWORD), ("no name", "x"), ("\0", "x")]
    for name, password in tries:
        assert await people.verify(name, password) is None
    assert len(asked) == len(tries)
    assert len(compared) == len(tries)
    assert len({tuple(work) for work in compared}) == 1


async def test_disabling_and_enabling(people: LocalUsers, ledger: Remembered) -> None:
    await people.add("ann", PASSWORD)
    assert (await people.disable("ANN")).disabled
    assert await people.verify("ann", PASSWORD) is None
    assert not (await people.enable("ann")).disabled
    assert await people.verify("ann", PASSWORD) is not None
    assert ledger.kinds() == [Kind.USER_ADDED, Kind.USER_DISABLED, Kind.USER_ENABLED]
    for act in (people.disable, people.enable):
        with pytest.raises(UserError, match="ERR-USER-UNKNOWN"):
            await act("nobody")


async def test_another_password(people: LocalUsers, ledger: Remembered) -> None:
    await people.add("ann", PASSWORD)
    with pytest.raises(UserError, match="ERR-PASSWORD-WEAK"):
        await people.set_password("ann", "short")
    assert await people.verify("ann", PASSWORD) is not None
    await people.set_password("ann", "another horse battery")
    assert await people.verify("ann", PASSWORD) is None
    assert await people.verify("ann", "another horse battery") is not None
    assert ledger.kinds() == [Kind.USER_ADDED, Kind.PASSWORD_CHANGED]
    assert PASSWORD not in repr(ledger.events)
    with pytest.raises(UserError, match="ERR-USER-UNKNOWN"):
        await people.set_password("nobody", "another horse battery")


async def test_an_outdated_hash_is_replaced_at_sign_in(people: LocalUsers, records: Records) -> None:
    await people.add("ann", PASSWORD)
    old = hash_secret(PASSWORD.encode(), b"somesalt", 1, 8192, 1, 32, Type.ID).decode()

    def stored(replacement: str = "") -> str:
        if replacement:
            behind(records.place, f"UPDATE users SET password = '{replacement}'")
        hashed: str = behind(records.place, "SELECT password FROM users")[0][0]
        return hashed

    stored(old)
    assert await people.verify("ann", "wrong") is None
    assert stored() == old
    assert await people.verify("ann", PASSWORD) is not None
    assert stored().startswith(f"$argon2id$v=19$m={module.MEMORY_KIB},t={module.PASSES},p=1$")
    assert await people.verify("ann", PASSWORD) is not None


async def test_a_store_that_is_away_is_not_a_wrong_password(people: LocalUsers, records: Records) -> None:
    """Case 83."""
    await people.add("ann", PASSWORD)
    if records.place.scheme == SQLITE:  # PostgreSQL takes no JSON that is none
        behind(records.place, "UPDATE users SET groups = 'nonsense'")
        with pytest.raises(StoreAway):
            await people.verify("ann", PASSWORD)
    behind(records.place, "ALTER TABLE users RENAME TO lost")
    with pytest.raises(StoreAway):
        await people.verify("ann", PASSWORD)
    with pytest.raises(StoreAway):
        await people.verify("nobody", PASSWORD)
