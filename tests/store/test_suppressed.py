"""Who wants nothing, or takes nothing, is left alone however the address is spelled."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert

from gateway.store.place import Place
from gateway.store.sql import Records
from gateway.store.suppressed_table import Suppressed, every, is_suppressed, release, suppress
from gateway.store.tables import suppressed
from tests.rig.postgres import EITHER, either

SPELLINGS = ("ann@x.example", "Ann@x.example", "ANN@X.EXAMPLE", "ann+news@x.example", "aNN+@x.example")
NUMBER = "+4915112345678"


@pytest.fixture(params=EITHER)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """All of this, on both databases."""
    return either(request, tmp_path)


async def told(records: Records, target: str, why: str, channel: str = "email") -> bool:
    async with records.begin() as connection:
        return await suppress(connection, "default", Suppressed(channel, target, why, 1.0))


async def kept_from(records: Records, target: str, tenant: str = "default", channel: str = "email") -> bool:
    async with records.read() as connection:
        return await is_suppressed(connection, tenant, channel, target)


async def released(records: Records, target: str) -> bool:
    async with records.begin() as connection:
        return await release(connection, "default", "email", target)


async def shown(records: Records) -> set[str]:
    return {one.target for one in await every(records, "default")}


@pytest.mark.parametrize("spelled", SPELLINGS)
async def test_who_complained_is_not_written_to_by_another_spelling(records: Records, spelled: str) -> None:
    assert await told(records, spelled, "complained")
    assert [await kept_from(records, one) for one in SPELLINGS] == [True] * len(SPELLINGS)
    assert not await told(records, "ann@X.example", "complained"), "it was so already"
    assert not await told(records, "ann+2@x.example", "bounced"), "it was so already"
    assert await shown(records) == {spelled}, "as it was written to"
    for other in ("anna@x.example", "ann@y.example", "x.example", "ann", ""):
        assert not await kept_from(records, other), other
    assert not await kept_from(records, spelled, tenant="other")
    assert not await kept_from(records, spelled, channel="sms")
    assert await released(records, "ANN+other@x.example")
    assert [await kept_from(records, one) for one in SPELLINGS] == [False] * len(SPELLINGS)
    assert not await released(records, spelled)


async def test_what_bounced_takes_nothing_in_capitals_either(records: Records) -> None:
    assert await told(records, "Ann@x.example", "bounced")
    assert [await kept_from(records, one) for one in SPELLINGS] == [True] * len(SPELLINGS)
    assert await released(records, "ann@x.example")
    assert await shown(records) == set()


async def test_nobody_silences_a_mailbox_by_a_name_it_does_not_have(records: Records) -> None:
    """A host that knows no `+` bounces `ann+nobody@`, which any stranger can have written to; `ann@` takes mail."""
    assert await told(records, "Ann+Nobody@x.example", "bounced")
    assert await kept_from(records, "ann+nobody@X.example")
    assert not await kept_from(records, "ann@x.example")
    assert not await kept_from(records, "ann+news@x.example")
    assert not await released(records, "ann@x.example"), "nothing keeps us from it"
    assert await told(records, "Ann+Nobody@x.example", "complained"), "its owner says more than its host"
    assert await kept_from(records, "ann@x.example")
    assert await shown(records) == {"Ann+Nobody@x.example"}
    assert await released(records, "ann@x.example")
    assert await shown(records) == set()


async def test_a_number_is_itself(records: Records) -> None:
    assert await told(records, NUMBER, "complained", "sms")
    assert await kept_from(records, NUMBER, channel="sms")
    assert not await kept_from(records, NUMBER + "9", channel="sms")
    assert not await kept_from(records, "", channel="sms")


async def test_rows_that_an_older_version_writes_meanwhile_count_alike(records: Records) -> None:
    """It knows no mailbox, and may have one in several spellings."""
    for target, why in (("Ann@x.example", "complained"), ("ann@x.example", "bounced"), ("bob+1@x.example", "bounced")):
        row = {"tenant": "default", "channel": "email", "target": target, "why": why, "at": 1.0}
        async with records.begin() as connection:
            await connection.execute(insert(suppressed).values(row))
    assert await kept_from(records, "ANN+1@x.example")
    assert not await told(records, "aNN@x.example", "complained")
    assert await kept_from(records, "BOB+1@x.example")
    assert not await kept_from(records, "bob@x.example")
    assert await released(records, "ANN@x.example")
    assert await shown(records) == {"bob+1@x.example"}
    assert not await kept_from(records, "ann@x.example")
