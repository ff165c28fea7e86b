"""Signing in tells a stranger nothing about who has an account, and lets nobody guess for long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.identity import passwords
from tests.house.visitor import Visitor
from tests.rig.gateway import PASSWORD, Gateway, running
from tests.rig.messages import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRONG = "entirely the wrong password"
_numbers = count()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, argon2_as_shipped: None) -> AsyncIterator[Gateway]:
    """Behind a proxy of ours, so that a test can come from anywhere."""
    folder = Path(tmp_path_factory.mktemp("uniform"))
    async with running(folder, config={"trusted_proxies": ["127.0.0.1/32"]}) as gateway:
        for name in ("known", "blank", "owner", "waits"):
            await gateway.app.users.add(name, PASSWORD)
        await gateway.app.users.disable("blank")
        yield gateway


@pytest.fixture
def gateway(shared: Gateway) -> Gateway:
    shared.clock.advance(2 * 86400)  # nobody's tries are remembered
    return shared


def somewhere(gateway: Gateway, address: str = "") -> Visitor:
    """A new browser, at an address nobody had before."""
    number = next(_numbers)
    visitor = Visitor(gateway.port)
    visitor.more["X-Forwarded-For"] = address or f"198.18.{number // 250}.{number % 250 + 1}"
    return visitor


def shape(answer: Response) -> tuple[object, ...]:
    """All an onlooker can compare: status, header names in order, their values or lengths, the length of the body."""
    random = {b"x-request-id", b"set-cookie", b"date"}
    said = [(name, len(value) if name.lower() in random else value) for name, value in answer.headers]
    return answer.status, said, len(answer.body)


async def test_unknown_wrong_and_disabled_are_one_answer_after_the_same_work(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: list[str] = []
    matches = passwords._matches

    def counted(hashed: str, password: str) -> bool:
        work.append(hashed.rpartition("$")[0].rpartition("$")[0])
        return matches(hashed, password)

    monkeypatch.setattr(passwords, "_matches", counted)
    shapes, works, bodies = [], [], []
    for name in ("known", "blank", "nobdy", "NOBDY", "no dy", "-----"):
        work.clear()
        visitor = somewhere(gateway)
        answer = await visitor.sign_in(name, WRONG)
        shapes.append(shape(answer))
        works.append(list(work))
        bodies.append(answer.body.replace(name.encode(), b"*****"))
        assert "sallyport" not in visitor.cookies
    assert shapes[0][0] == 401
    assert shapes == [shapes[0]] * len(shapes)
    assert works == [works[0]] * len(works)
    assert len(works[0]) == 1
    assert "m=19456,t=2,p=1" in works[0][0]
    assert len({len(body) for body in bodies}) == 1


async def test_the_right_password_of_somebody_disabled_is_as_wrong_as_any(gateway: Gateway) -> None:
    right = await somewhere(gateway).sign_in("blank", PASSWORD)
    wrong = await somewhere(gateway).sign_in("known", WRONG)
    assert shape(right) == shape(wrong)


async def test_tries_at_somebody_and_at_nobody_are_throttled_alike(gateway: Gateway) -> None:
    """Each try from another address: only the account is counted."""
    seen = []
    for name in ("known", "nobdy", "blank"):
        answers = [await somewhere(gateway).sign_in(name, WRONG) for _ in range(10)]
        seen.append([shape(answer) for answer in answers])
        statuses = [answer.status for answer in answers]
        assert statuses == sorted(statuses)
        assert statuses[0] == 401
        assert statuses[-1] == 429, "within ten"
    assert seen == [seen[0]] * 3


async def test_tries_from_one_address_are_throttled_whoever_they_are_at(gateway: Gateway) -> None:
    statuses = [
        (await somewhere(gateway, "203.0.113.77").sign_in(f"name{number}", WRONG)).status for number in range(10)
    ]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert (await somewhere(gateway).sign_in("known", PASSWORD)).status == 303, "nobody elsewhere notices"


async def test_all_of_an_ipv6_network_is_one_address(gateway: Gateway) -> None:
    statuses = [
        (await somewhere(gateway, f"2001:db8:0:7::{number + 1:x}").sign_in(f"six{number}", WRONG)).status
        for number in range(10)
    ]
    assert statuses[-1] == 429


async def test_the_owner_is_never_locked_out_by_strangers(gateway: Gateway) -> None:
    browser = somewhere(gateway, "192.0.2.10")
    assert (await browser.sign_in("owner")).status == 303
    del browser.cookies["sallyport"]
    gateway.clock.advance(86400)

    for _ in range(12):
        last = await somewhere(gateway).sign_in("owner", WRONG)
    assert last.status == 429
    for number in range(12):  # and the owner's own address is burnt as well
        last = await somewhere(gateway, "192.0.2.10").sign_in(f"else{number}", WRONG)
    assert last.status == 429
    assert (await browser.sign_in("owner")).status == 303

    forged = somewhere(gateway)
    forged.cookies["sallyport-device"] = browser.cookies["sallyport-device"]
    for _ in range(12):
        last = await forged.sign_in("known", WRONG)
    assert last.status == 429, "the cookie is good for its owner's account alone"


async def test_waits_grow_and_end(gateway: Gateway) -> None:
    visitor = somewhere(gateway)
    waits: list[int] = []
    while len(waits) < 12:
        answer = await visitor.sign_in("waits", WRONG)
        if answer.status == 429:
            wait = int(answer.one("Retry-After"))
            if not waits or wait > waits[-1] or wait >= 890:
                waits.append(wait)
            again = await visitor.sign_in("waits", PASSWORD)
            assert again.status == 429, "asking again at once does not help, not even with the right password"
            gateway.clock.advance(wait + 1)
    assert waits[0] <= 5
    assert waits[:9] == sorted(waits[:9])
    assert 600 < max(waits) <= 901, "up to a quarter of an hour"
    answer = await visitor.sign_in("waits", PASSWORD)
    assert answer.status == 303, "whoever has waited may try, and no lock is for ever"


async def test_signed_in_or_not_a_page_that_is_not_there_looks_the_same(gateway: Gateway) -> None:
    """A ticket of somebody else, an old one and one nobody ever had: one answer."""
    visitor = somewhere(gateway)
    await visitor.sign_in("known")
    shapes = [
        shape(await visitor.get(f"verify/{ticket}")) for ticket in ("1-" + "A" * 43, "3-" + "b" * 43, "9-" + "_" * 43)
    ]
    assert shapes == [shapes[0]] * 3
    assert shapes[0][0] in (404, 410)
