"""What people are told beside changes to the security of their account is theirs to choose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from gateway.audit.notices import MORE, WORDS, Notices
from gateway.audit.preferences import Preferences
from gateway.audit.recorder import Recorder
from gateway.core.events import Event, Kind
from gateway.store.event_table import EventTable
from gateway.store.tables import outbox, users
from tests.web.conftest import Browser, House


async def quiet(house: House, name: str = "bob") -> bool:
    async with house.records.read() as connection:
        return bool(await connection.scalar(select(users.c.quiet).where(users.c.name == name)))


async def test_on_the_page(house: House, browser: Browser) -> None:
    await browser.sign_in()
    page = await browser.get("account")
    assert "You are also told of sign-ins from new browsers" in page.text
    done = await browser.post("account/notices", page.form("account/notices").fields)
    assert done.location.endswith("account?done=notices")
    assert await quiet(house)
    assert not await quiet(house, "ann")
    page = await browser.get("account")
    assert "You are told nothing else" in page.text
    await browser.post("account/notices", page.form("account/notices").fields)
    assert not await quiet(house)
    chosen = await house.told(Kind.NOTICES_CHOSEN)
    assert [event.detail for event in reversed(chosen)] == [{"more": False}, {"more": True}]
    assert chosen[0].user == "bob"
    assert chosen[0].address == "192.0.2.7"


async def test_by_the_api(house: House, browser: Browser) -> None:
    await browser.sign_in()
    assert (await browser.api("GET", "notices")).json == {"more": True}
    assert (await browser.api("POST", "notices", {"more": False})).json == {"more": False}
    assert (await browser.api("POST", "notices", {"more": False})).json == {"more": False}
    assert len(await house.told(Kind.NOTICES_CHOSEN)) == 1, "nothing was changed the second time"
    for odd in ({}, {"more": "no"}, {"more": 0}, {"more": False, "sign_in": True}):
        assert (await browser.api("POST", "notices", odd)).json["code"] == "ERR-BODY"


async def test_nobody_signed_in_chooses_nothing(house: House, visit: Callable[..., Browser]) -> None:
    assert (await visit().api("POST", "notices", {"more": False})).status == 401


@pytest.mark.parametrize("kind", sorted(WORDS))
async def test_changes_are_told_in_any_case(house: House, browser: Browser, kind: Kind) -> None:
    also = Notices(issuer="gate", account="https://gate.example/account")
    recorder = Recorder(EventTable(house.records, also), house.desk.clock)
    async with house.records.begin() as connection:
        await connection.execute(users.update().values(quiet=True, email="bob@example.com"))
    detail: dict[str, Any] = {"by": "root", "new_browser": True}
    await recorder.record(Event(kind, user="bob", detail=detail))
    async with house.records.read() as connection:
        rows = (await connection.scalars(select(outbox.c.kind))).all()
    assert list(rows) == ([] if kind in MORE else [kind])
    assert isinstance(house.desk.preferences, Preferences)
