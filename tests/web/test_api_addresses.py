"""Addresses that nothing is sent to, looked at and released over the REST API and on the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.audit.deliveries import Deliveries
from gateway.core.clock import ManualClock
from gateway.core.events import Kind
from gateway.store.suppressed_table import Suppressed, suppress
from gateway.web.api.addresses import MOST
from tests.web.conftest import Browser, House, P
from tests.web.test_pages import Page

NUMBER = "+4915112345678"


@pytest.fixture
async def house(house: House, clock: ManualClock) -> House:
    """One that hears what becomes of messages; two addresses take none, and one of another tenant."""
    house.desk = replace(house.desk, deliveries=Deliveries(house.records, clock, house.ledger))
    now = clock.now()
    async with house.records.begin() as connection:
        await suppress(connection, "default", Suppressed("email", "ann@example.com", "bounced", now - 60))
        await suppress(connection, "default", Suppressed("sms", NUMBER, "complained", now))
        await suppress(connection, "other", Suppressed("email", "eve@example.com", "bounced", now))
    return house


@pytest.fixture
async def ann(visit: Callable[..., Browser], enrol: Callable[..., Any]) -> Browser:
    """An administrator with a second factor, freshly shown."""
    ann = visit()
    await ann.sign_in("ann")
    await enrol(ann)
    return ann


async def listed(browser: Browser) -> list[tuple[str, str, str]]:
    found = (await browser.api("GET", "addresses")).json["addresses"]
    return [(one["channel"], one["address"], one["why"]) for one in found]


async def test_an_administrator_sees_them(house: House, ann: Browser) -> None:
    answer = await ann.api("GET", "addresses")
    assert (answer.status, answer.json["more"]) == (200, False)
    newest, oldest = answer.json["addresses"]
    assert (newest["channel"], newest["address"], newest["why"]) == ("sms", NUMBER, "complained")
    assert (oldest["channel"], oldest["address"], oldest["why"]) == ("email", "ann@example.com", "bounced")
    assert oldest["at"] < newest["at"]


async def test_and_releases_one(house: House, ann: Browser) -> None:
    released = await ann.api("POST", "addresses/release", {"address": NUMBER, "channel": "sms"})
    assert (released.status, released.body) == (204, b"")
    assert await listed(ann) == [("email", "ann@example.com", "bounced")]
    assert (await ann.api("POST", "addresses/release", {"address": "ann@example.com"})).status == 204
    assert await listed(ann) == []
    last, first = await house.told(Kind.ADDRESS_RELEASED)
    assert (last.detail, first.detail) == ({"channel": "email", "by": "ann"}, {"channel": "sms", "by": "ann"})
    assert (last.address, last.request_id) == ("192.0.2.7", "01TESTREQUEST")
    assert "ann@example.com" not in str(last)


async def test_a_mailbox_is_shown_as_it_was_written_to_and_released_however_it_is_spelled(
    house: House, ann: Browser, clock: ManualClock
) -> None:
    async with house.records.begin() as connection:
        await suppress(connection, "default", Suppressed("email", "Eve@example.com", "complained", clock.now() + 1))
    assert (await listed(ann))[0] == ("email", "Eve@example.com", "complained")
    assert (await ann.api("POST", "addresses/release", {"address": "eve@Example.com"})).status == 204
    assert "Eve@example.com" not in [address for _, address, _ in await listed(ann)]


@pytest.mark.parametrize(
    "asked",
    [
        {"address": "bob@example.com"},
        {"address": "ann@example.com", "channel": "sms"},
        {"address": "eve@example.com"},
        {"address": "ann@example.com' OR 1=1 --"},
    ],
)
async def test_what_is_not_there(house: House, ann: Browser, asked: dict[str, str]) -> None:
    answer = await ann.api("POST", "addresses/release", asked)
    assert (answer.status, answer.json["code"]) == (404, "ERR-ADDRESS-UNKNOWN")
    assert len(await listed(ann)) == 2
    assert await house.told(Kind.ADDRESS_RELEASED) == []


@pytest.mark.parametrize("odd", [{}, {"address": ""}, {"address": "a" * 321}, {"address": "a@b.c", "channel": "fax"}])
async def test_what_cannot_be_asked(house: House, ann: Browser, odd: dict[str, str]) -> None:
    assert (await ann.api("POST", "addresses/release", odd)).json["code"] == "ERR-BODY"


async def test_nobody_else_may(house: House, browser: Browser, visit: Callable[..., Browser]) -> None:
    asked = {"address": "ann@example.com"}
    assert (await visit().api("GET", "addresses")).status == 401
    assert (await visit().api("POST", "addresses/release", asked)).status == 401
    await browser.sign_in("bob")
    for method, path, body in (("GET", "addresses", None), ("POST", "addresses/release", asked)):
        answer = await browser.api(method, path, body)
        assert (answer.status, answer.json["code"]) == (403, "ERR-FORBIDDEN")
        assert "example.com" not in answer.text


async def test_releasing_takes_a_fresh_proof(house: House, ann: Browser, clock: ManualClock) -> None:
    clock.advance(301)
    assert (await ann.api("GET", "addresses")).status == 200
    answer = await ann.api("POST", "addresses/release", {"address": "ann@example.com"})
    assert (answer.status, answer.json["code"]) == (401, "ERR-STEP-UP")
    assert len(await listed(ann)) == 2


async def test_the_newest_are_shown_where_there_are_many(house: House, ann: Browser, clock: ManualClock) -> None:
    async with house.records.begin() as connection:
        for number in range(MOST):
            one = Suppressed("email", f"u{number}@example.com", "bounced", clock.now() + 1 + number)
            await suppress(connection, "default", one)
    answer = await ann.api("GET", "addresses")
    assert (len(answer.json["addresses"]), answer.json["more"]) == (MOST, True)
    assert answer.json["addresses"][0]["address"] == f"u{MOST - 1}@example.com"


# -- on the page -------------------------------------------------------------------------------------------------------


async def test_on_the_page_too(house: House, ann: Browser) -> None:
    assert f'<a href="{P}addresses">' in (await ann.get("account")).text
    page = await ann.get("addresses")
    assert (page.text.index(NUMBER) < page.text.index("ann@example.com"), "eve@" in page.text) == (True, False)
    assert "its owner has complained" in page.text
    Page(page.text)
    (csrf,) = {one["value"] for one in Page(page.text).all("input") if one["name"] == "csrf"}
    fields = {"csrf": csrf, "channel": "sms", "address": NUMBER}
    done = await ann.post("addresses/release", fields)
    assert (done.status, done.location) == (303, f"{P}addresses?done=released")
    (told,) = await house.told(Kind.ADDRESS_RELEASED)
    assert told.detail == {"channel": "sms", "by": "ann"}
    page = await ann.get("addresses?done=released")
    assert ("sent there again" in page.text, NUMBER in page.text) == (True, False)
    for wrong in ({}, {"address": "eve@example.com", "channel": "email"}, {"channel": "email"}):
        again = await ann.post("addresses/release", {**fields, **wrong})
        assert (again.status, "Nothing keeps us from sending there." in again.text) == (404, True)
    assert await listed(ann) == [("email", "ann@example.com", "bounced")]


async def test_the_page_is_for_administrators(house: House, ann: Browser, browser: Browser, clock: ManualClock) -> None:
    page = await ann.get("addresses")
    (csrf,) = {one["value"] for one in Page(page.text).all("input") if one["name"] == "csrf"}
    fields = {"csrf": csrf, "channel": "sms", "address": NUMBER}
    await browser.sign_in("bob")
    assert f"{P}addresses" not in (await browser.get("account")).text
    assert (await browser.get("addresses")).status == 403
    assert (await browser.post("addresses/release", fields)).status == 403
    assert (await ann.post("addresses/release", {**fields, "csrf": "x"})).status == 403
    clock.advance(301)
    assert (await ann.post("addresses/release", fields)).location.startswith(f"{P}verify/")
    assert await house.told(Kind.ADDRESS_RELEASED) == []
