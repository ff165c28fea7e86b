"""Who gets a request, when a service is at several places."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.core.facts import Facts
from gateway.wire.balance import ConsistentHash, LeastOutstanding, RoundRobin
from tests.rig.gateway import request
from tests.rig.messages import Request
from tests.rig.upstream import Line, ok
from tests.wire.services_at import GET, several


def places(many: int) -> list[Any]:
    return [SimpleNamespace(name=f"http://10.0.0.{at}:80", weight=1.0, outstanding=0) for at in range(many)]


def asked(network: str = "192.0.2.1", cookie: bytes = b"", headers: Any = (), user: str = "") -> Any:
    facts = Facts(method="GET", host="h", path="/", network=network, cookie=cookie, headers=headers)
    identity = SimpleNamespace(user=user, session=SimpleNamespace(id=f"s-{user}")) if user else None
    return SimpleNamespace(facts=facts, verdict=SimpleNamespace(identity=identity))


def picked(balance: Any, many: int, exchange: Any = None) -> Counter[str]:
    return Counter(balance.pick(exchange or asked()).name for _ in range(many))


def test_round_robin_is_even_and_gives_a_newcomer_its_share() -> None:
    endpoints = places(3)
    balance = RoundRobin()
    balance.arrange(endpoints)
    assert set(picked(balance, 300).values()) == {100}
    endpoints[0].weight = 0.1
    balance.arrange(endpoints)
    assert [picked(balance, 210)[one.name] for one in endpoints] == [10, 100, 100]
    endpoints[0].weight = 0.5
    balance.arrange(endpoints)
    row = [balance.pick(asked()) for _ in range(25)]
    assert all(one is not other for one, other in pairwise(row) if one is endpoints[0])  # spread


@pytest.mark.parametrize("make", [RoundRobin, LeastOutstanding])
def test_who_has_failed_the_request_does_not_get_it_again(make: Any) -> None:
    endpoints = places(3)
    balance = make()
    balance.arrange(endpoints)
    for _ in range(9):
        assert balance.pick(asked(), (endpoints[0], endpoints[2])) is endpoints[1]
    assert balance.pick(asked(), endpoints) in endpoints  # rather than nobody


def test_least_outstanding_goes_where_least_is_to_do() -> None:
    endpoints = places(3)
    balance = LeastOutstanding()
    balance.arrange(endpoints)
    assert set(picked(balance, 300).values()) == {100}
    endpoints[0].outstanding, endpoints[1].outstanding, endpoints[2].outstanding = 5, 2, 4
    assert picked(balance, 10) == {endpoints[1].name: 10}
    endpoints[1].weight = 0.1  # three more would be thirty for one that has just returned
    assert picked(balance, 10) == {endpoints[2].name: 10}


def test_a_hash_spreads_keys_and_an_endpoint_less_moves_only_its_own() -> None:
    endpoints = places(5)
    balance = ConsistentHash("address", endpoints)
    keys = [asked(f"10.{n >> 8}.{n & 255}.1") for n in range(5_000)]
    before = [balance.pick(key) for key in keys]
    shares = Counter(one.name for one in before)
    assert min(shares.values()) > 700
    assert max(shares.values()) < 1_350
    assert [balance.pick(key) for key in keys] == before

    balance.arrange(endpoints[:2] + endpoints[3:])
    after = [balance.pick(key) for key in keys]
    assert endpoints[2] not in after
    assert all(now is then for now, then in zip(after, before, strict=True) if then is not endpoints[2])
    orphans = Counter(now.name for now, then in zip(after, before, strict=True) if then is endpoints[2])
    assert min(orphans.values()) > 0.1 * shares[endpoints[2].name]  # the others share them

    fewer = ConsistentHash("address", endpoints[:2] + endpoints[3:])  # also when it leaves the configuration
    assert [fewer.pick(key) for key in keys] == after


def test_a_hash_gives_keys_back_by_and_by_and_each_once() -> None:
    endpoints = places(4)
    balance = ConsistentHash("address", endpoints)
    keys = [asked(f"10.{n >> 8}.{n & 255}.1") for n in range(4_000)]
    whole = [balance.pick(key) for key in keys]
    its_own = sum(one is endpoints[0] for one in whole)
    back: set[int] = set()
    for weight in (0.1, 0.4, 0.7, 1.0):
        endpoints[0].weight = weight
        now = {at for at, key in enumerate(keys) if balance.pick(key) is endpoints[0]}
        assert back <= now
        assert abs(len(now) - weight * its_own) < 0.1 * its_own
        back = now


@pytest.mark.parametrize(
    ("by", "one", "same", "other"),
    [
        ("address", asked("10.0.0.1", b"a=1"), asked("10.0.0.1", b"a=2"), asked("10.0.0.2")),
        ("user", asked("10.0.0.1", user="ann"), asked("10.0.0.2", user="ann"), asked("10.0.0.1", user="bob")),
        ("session", asked("10.0.0.1", user="ann"), asked("10.0.0.2", user="ann"), asked("10.0.0.1", user="bob")),
        (
            "header:X-Tenant",
            asked("10.0.0.1", headers=[(b"X-Tenant", b"a")]),
            asked("10.0.0.2", headers=[(b"x-tenant", b"a")]),
            asked("10.0.0.1", headers=[(b"X-Tenant", b"b")]),
        ),
        ("cookie:sid", asked("10.0.0.1", b"x=y; sid=1"), asked("10.0.0.2", b"sid=1"), asked("10.0.0.1", b"sid=2")),
    ],
)
def test_what_a_hash_is_made_of(by: str, one: Any, same: Any, other: Any) -> None:
    balance = ConsistentHash(by, places(2))
    assert balance._key(one) == balance._key(same) != balance._key(other)
    if by != "address":
        assert balance._key(asked("10.0.0.9")) == b"10.0.0.9"  # nothing of the kind: the address


def test_a_hash_avoids_who_has_failed() -> None:
    endpoints = places(3)
    balance = ConsistentHash("address", endpoints)
    first = balance.pick(asked())
    second = balance.pick(asked(), (first,))
    assert second is not first
    assert balance.pick(asked(), (first, second)) not in (first, second)
    assert balance.pick(asked(), endpoints) in endpoints


# -- over sockets ------------------------------------------------------------------------------------------------------


async def test_requests_go_round(tmp_path: Path) -> None:
    async with several(tmp_path, 3) as service:
        assert await service.ask(12) == [200] * 12
        assert service.counts == [4, 4, 4]
        assert [len(place.lines) for place in service.places] == [1, 1, 1]  # each with a kept connection


async def test_the_busy_one_is_left_in_peace(tmp_path: Path) -> None:
    async with several(tmp_path, 2, balance="least_outstanding") as service:
        go_on = asyncio.Event()

        async def slow(_: Request, line: Line) -> None:
            await go_on.wait()
            await line.send(ok())

        service.places[0].script = slow
        service.places[1].script = slow
        waiting = asyncio.create_task(service.ask())
        await asyncio.wait(
            [asyncio.create_task(place.came()) for place in service.places], return_when=asyncio.FIRST_COMPLETED
        )
        busy = 0 if service.places[0].requests else 1
        service.places[1 - busy].clear()
        assert await service.ask(5) == [200] * 5
        assert service.counts[1 - busy] == 5
        go_on.set()
        assert await waiting == [200]
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if "came" in repr(task):
                task.cancel()


async def test_the_same_user_comes_to_the_same_place(tmp_path: Path) -> None:
    async with several(tmp_path, 4, balance="consistent_hash", hash="header:X-Tenant") as service:
        for tenant in range(12):
            service.forget()
            raw = request(b"GET", b"/public/x", b"X-Tenant: t%d\r\n" % tenant)
            assert await service.ask(3, raw) == [200] * 3
            assert sorted(service.counts) == [0, 0, 0, 3]


async def test_one_place_needs_no_choice(tmp_path: Path) -> None:
    async with several(tmp_path, 1) as service:
        assert service.upstream.take == service.endpoints[0].take
        assert await service.ask(2, GET) == [200, 200]
        assert len(service.places[0].lines) == 1
