"""Limits, looked at and reset over the REST API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.clock import ManualClock
from gateway.core.errors import StoreAway
from gateway.core.events import Kind, Severity
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.limits.standings import Standings
from tests.web.conftest import LIMITS, Browser, House

Enrol = Callable[..., Any]


@pytest.fixture
async def ann(visit: Callable[..., Browser], enrol: Enrol) -> Browser:
    """An administrator with a second factor, freshly shown."""
    ann = visit()
    await ann.sign_in("ann")
    await enrol(ann)
    return ann


async def bob_asks(house: House, times: int) -> None:
    """Bob comes so often, from one place and with one key to our API."""
    bob = await house.desk.users.find("bob")
    assert bob is not None
    limits = tuple(each for _, each in LIMITS)
    asked = Facts(
        method="GET", host="app.example.com", path="/", network="192.0.2.99", headers=[(b"X-Api-Key", b"s3cret-key")]
    )
    for _ in range(times):
        house.limiter.spend(limits, asked, Identity(bob.tenant, bob.subject, "bob"), "app")


async def test_an_administrator_sees_who_is_counted(house: House, ann: Browser) -> None:
    await bob_asks(house, 4)
    answer = await ann.api("GET", "limits?rule=app")
    assert answer.status == 200
    assert (answer.json["more"], answer.json["shared_away"]) == (False, False)
    by_name = {each["limit"]: each for each in answer.json["limits"]}
    user = by_name["per-user"]
    assert (user["rule"], user["key"], user["counted"], user["shadow"]) == ("app", "user:bob", "local", False)
    assert (user["allowed"], user["remaining"]) == (False, 0)
    assert 0 < user["retry_after"] <= 20 < user["reset"] <= 60
    assert (by_name["per-key"]["shadow"], by_name["per-key"]["allowed"]) == (True, False)
    assert by_name["per-key"]["key"].startswith("header:#")
    assert "s3cret-key" not in answer.text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?rule=app", ["per-key", "per-user"]),
        ("?limit=per-user", ["per-user"]),
        ("?rule=app&key=user:bob", ["per-user"]),
        ("?rule=app&key=user%3ABOB", ["per-user"]),
        ("?key=header:s3cret-key", ["per-key"]),
        ("?rule=app&key=user:ann", []),
        ("?rule=sallyport-pages&key=address:192.0.2.7", ["pages", "pages-proofs"]),
    ],
)
async def test_it_can_be_narrowed(house: House, ann: Browser, query: str, found: list[str]) -> None:
    await bob_asks(house, 1)
    answer = await ann.api("GET", f"limits{query}")
    assert sorted(each["limit"] for each in answer.json["limits"]) == found


@pytest.mark.parametrize(
    ("query", "status", "code", "words"),
    [
        ("?rule=ap", 404, "ERR-LIMIT-UNKNOWN", "did you mean app"),
        ("?rule=app&limit=per-usr", 404, "ERR-LIMIT-UNKNOWN", "did you mean per-user"),
        ("?key=bob", 400, "ERR-LIMIT-KEY", "user:NAME"),
    ],
)
async def test_what_there_is_not_is_said(ann: Browser, query: str, status: int, code: str, words: str) -> None:
    answer = await ann.api("GET", f"limits{query}")
    assert (answer.status, answer.json["code"]) == (status, code)
    assert words in answer.json["detail"]


async def test_a_reset_is_done_and_written_down(house: House, ann: Browser) -> None:
    await bob_asks(house, 5)
    body = {"rule": "app", "limit": "per-user", "key": "user:bob", "reason": "a script ran wild"}
    answer = await ann.api("POST", "limits/reset", body)
    assert (answer.status, answer.json) == (200, {"counters": 1})
    left = (await ann.api("GET", "limits?rule=app")).json["limits"]
    assert [each["limit"] for each in left] == ["per-key"]
    (event,) = await house.told(Kind.LIMIT_RESET)
    assert (event.severity, event.user, event.rule, event.address) == (Severity.NOTICE, "ann", "app", "192.0.2.7")
    assert event.detail == {
        "limit": "per-user", "who": "user:bob", "counters": 1, "reason": "a script ran wild",
        "by": "ann", "from": "api",
    }  # fmt: skip


async def test_a_key_that_is_a_secret_is_not_written_down(house: House, ann: Browser) -> None:
    await bob_asks(house, 1)
    body = {"rule": "app", "key": "header:s3cret-key", "reason": "x"}
    assert (await ann.api("POST", "limits/reset", body)).json == {"counters": 1}
    (event,) = await house.told(Kind.LIMIT_RESET)
    assert event.detail["who"].startswith("header:#")
    assert "s3cret-key" not in str(event)


@pytest.mark.parametrize(
    "body",
    [
        {"rule": "app", "reason": "x"},
        {"rule": "app", "key": "user:bob", "all": True, "reason": "x"},
        {"rule": "app", "all": True},
        {"rule": "app", "all": True, "reason": ""},
        {"rule": "app", "all": True, "reason": " \n"},
        {"rule": "app", "all": True, "reason": "x" * 501},
        {"all": True, "reason": "x"},
        {"rule": "", "all": True, "reason": "x"},
        {"rule": "app", "all": True, "reason": "x", "more": 1},
    ],
)
async def test_nothing_is_reset_without_saying_what_and_why(house: House, ann: Browser, body: dict[str, Any]) -> None:
    await bob_asks(house, 4)
    answer = await ann.api("POST", "limits/reset", body)
    assert (answer.status, answer.json["code"]) == (400, "ERR-BODY")
    assert len((await ann.api("GET", "limits?rule=app")).json["limits"]) == 2
    assert await house.told(Kind.LIMIT_RESET) == []


async def test_everybody_of_a_rule_begins_anew(house: House, ann: Browser) -> None:
    await bob_asks(house, 4)
    assert (await ann.api("POST", "limits/reset", {"rule": "app", "all": True, "reason": "x"})).json == {"counters": 2}
    assert (await ann.api("GET", "limits?rule=app")).json["limits"] == []


async def test_it_is_for_administrators_with_a_second_factor_and_a_reset_for_a_fresh_one(
    house: House, browser: Browser, visit: Callable[..., Browser], enrol: Enrol, clock: ManualClock
) -> None:
    """Case 122."""
    await bob_asks(house, 4)
    body = {"rule": "app", "all": True, "reason": "x"}
    await browser.sign_in("bob")
    await enrol(browser)
    for method, path, value in (("GET", "limits", None), ("POST", "limits/reset", body)):
        answer = await browser.api(method, path, value)
        assert (answer.status, answer.json["code"]) == (403, "ERR-FORBIDDEN")
    ann, unproven = visit(), visit()
    await ann.sign_in("ann")
    await enrol(ann)
    await unproven.sign_in("ann")
    for method, path, value in (("GET", "limits", None), ("POST", "limits/reset", body)):
        answer = await unproven.api(method, path, value)
        assert (answer.status, answer.json["code"], answer.json["acr_values"]) == (401, "ERR-STEP-UP", "aal2")
    clock.advance(301)
    assert (await ann.api("GET", "limits")).status == 200
    answer = await ann.api("POST", "limits/reset", body)
    assert (answer.status, answer.json["code"]) == (401, "ERR-STEP-UP")
    assert await house.told(Kind.LIMIT_RESET) == []


async def test_while_the_shared_store_is_away_what_is_here_is_shown_and_nothing_is_reset(
    house: House, ann: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away:
        async def status(self, *_: Any) -> list[Any]:
            raise StoreAway("shared: away")

        reset = status

    here = Standings(lambda: LIMITS, house.limiter, Away())  # type: ignore[arg-type]
    object.__setattr__(house.desk, "standings", here)
    await bob_asks(house, 1)
    answer = await ann.api("GET", "limits?rule=app")
    assert answer.json["shared_away"] is True
    assert len(answer.json["limits"]) == 2
    answer = await ann.api("POST", "limits/reset", {"rule": "app", "all": True, "reason": "x"})
    assert (answer.status, answer.json["code"]) == (503, "ERR-STORE-AWAY")
    assert len((await ann.api("GET", "limits?rule=app")).json["limits"]) == 2
