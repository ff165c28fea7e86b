"""Many at once, over four replicas: what may happen once happens once, and what may happen so often no oftener, on
either database, with sessions in a Redis or among the records (attack cases 105, 106 and 110)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from gateway.core.clock import SystemClock
from gateway.mfa.attempts import RUN
from tests.house.visitor import Phone, Visitor, location
from tests.replicas.fault_table import patiently
from tests.replicas.several import Several, several
from tests.rig.gateway import PASSWORD
from tests.rig.messages import Response
from tests.rig.postgres import Server, needs_postgresql, started
from tests.rig.redis import a_server, needs_redis

pytestmark = [needs_redis, needs_postgresql, pytest.mark.asyncio(loop_scope="module")]

PER_USER = 3
POLICY = """\
rules:
  - name: admin
    match: {paths: [/admin/**]}
    access: {groups: [admins]}
    step_up: {level: aal2, factors: [totp, backup_code], max_age: 1s}
    upstream: app
  - {name: everything-else, access: authenticated, upstream: app}
"""
FULL = ("end_oldest", "refuse")
SAID = ("end_oldest", "end_oldest", "refuse", "refuse")
"""What each replica is configured to do with one session too many."""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Server]:
    yield from started()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["Redis and PostgreSQL", "SQLite alone"])
async def house(request: pytest.FixtureRequest, own_postgres: Server) -> AsyncIterator[Several]:
    """Four replicas, two of which refuse where the others end the oldest session. On SQLite, which is for one
    gateway, they share the file: what is kept there is as safe, only slower."""
    with a_server() as redis:
        shared = request.param == "Redis and PostgreSQL"
        url = own_postgres.url(own_postgres.database()) if shared else "sqlite:data/x.db"
        store: dict[str, object] = {"records": url, "shared": "memory"}
        if shared:  # what is tested is not how soon a store is given up
            store = {"records": {"url": url, "deadline": "2s"}, "shared": {"url": redis.url, "deadline": "2s"}}
        async with several(4, policy=POLICY, store=store, trusted_proxies=["127.0.0.1/32"]) as house:
            for full, replica in zip(SAID, house.replicas, strict=True):
                replica.write_config(sessions={"per_user": PER_USER, "when_full": full})
            await house.start()
            await house.add_users("bob")
            await house.add_users("ann", "amy", "ada", "abe", groups=["admins"])
            yield house
            for replica in house.replicas:
                assert await replica.stop() == 0, replica.said
            house.calm()


class Elsewhere(Visitor):
    """A browser at an address of its own, as the proxy before us tells it."""

    address = ""

    async def send(self, method: str, path: str, body: bytes = b"", **more: str) -> Response:
        return await super().send(method, path, body, **more, X_Forwarded_For=self.address)


async def known_device(house: Several, name: str) -> Visitor:
    """Somebody's browser, known to be theirs: strangers at the same address do not make it wait."""
    one = house.replicas[0].visitor()

    async def sign_in() -> Visitor:
        assert (await one.sign_in(name)).status == 303
        return one

    return await patiently(sign_in)


def copies(house: Several, of: Visitor, count: int, *, signed_in: bool) -> list[Elsewhere]:
    """The same browser, `count` times, at one replica after the other."""
    made = []
    for number in range(count):
        one = Elsewhere(house.replicas[number % 3].port, origin=of.origin)
        one.address = f"198.51.100.{number + 1}"
        one.cookies = {name: value for name, value in of.cookies.items() if signed_in or name != "sallyport"}
        made.append(one)
    return made


def went_on(answers: list[Response]) -> list[bool]:
    """Which of them sent somebody on to what they had asked for; who comes when the session has a new token has to sign
    in.
    """
    onward = []
    for answer in answers:
        onward.append(answer.status == 303 and location(answer) == "/admin/x")
        assert onward[-1] or answer.status != 303 or location(answer).startswith("/.sallyport/login?")
    return onward


async def alive(house: Several, cookies: list[str]) -> int:
    """How many of these sessions there are, as every replica says."""
    counts = []
    for replica in house.replicas:
        answers = await asyncio.gather(*(replica.ask("/app/x", cookie=f"sallyport={one}") for one in cookies))
        counts.append(sum(answer.status == 200 for answer in answers))
    assert len(set(counts)) == 1, counts
    return counts[0]


@pytest.mark.parametrize("full", FULL)
async def test_fifty_sign_ins_at_once_leave_no_more_sessions_than_somebody_may_have(house: Several, full: str) -> None:
    """Most are told to wait, for somebody who tries as often as this is guessing; of those who are let in at once,
    there are still more than may stay."""
    bob = await known_device(house, "bob")
    ports = [replica.port for replica, said in zip(house.replicas, SAID, strict=True) if said == full]
    browsers = copies(house, bob, 50, signed_in=False)
    for number, one in enumerate(browsers):
        one.port = ports[number % len(ports)]
    pages = await asyncio.gather(*(one.get("login") for one in browsers))
    answers = await asyncio.gather(
        *(one.fill(page, "login", username="bob", password=PASSWORD) for one, page in zip(browsers, pages, strict=True))
    )
    statuses = [answer.status for answer in answers]
    assert len(statuses) == 50
    assert set(statuses) <= {303, 403, 429, 503}, "503 where the machine stood still while somebody else wrote"
    assert statuses.count(503) < 50
    assert all(b"ERR-SESSION-LIMIT" in answer.body for answer in answers if answer.status == 403)
    assert statuses.count(303) >= (PER_USER if full == "end_oldest" else 0)
    cookies = [one.cookies["sallyport"] for one in (bob, *browsers) if "sallyport" in one.cookies]
    assert 1 <= await alive(house, cookies) <= PER_USER


async def enrolled(house: Several, name: str) -> tuple[Visitor, Phone, list[str]]:
    """Somebody with an authenticator app and backup codes, whose last proof is older than the rule allows."""
    one = await known_device(house, name)
    phone, codes = await one.enrol(SystemClock())
    phone.clock = Ahead()
    async with asyncio.timeout(10.0):
        while (await one.get("/admin/x")).status == 200:
            await asyncio.sleep(0.1)
    return one, phone, codes


async def asked(one: Visitor, method: str) -> Response:
    """The page of a challenge."""

    async def ask() -> Response:
        page = await one.get(location(await one.get("/admin/x")) + f"?method={method}")
        assert page.status == 200, page.body
        return page

    return await patiently(ask)


async def test_a_hundred_wrong_codes_at_once_are_few_that_are_looked_at(house: Several) -> None:
    ann, phone, _ = await enrolled(house, "ann")
    page = await asked(ann, "totp")
    answers = []
    for _ in range(4):
        guesses = copies(house, ann, 25, signed_in=True)
        answers += await asyncio.gather(*(one.fill(page, "verify/", code=phone.wrong) for one in guesses))
    statuses = [answer.status for answer in answers]
    assert set(statuses) <= {400, 429, 503}
    looked_at = sum(b"not right" in answer.body or answer.status == 400 for answer in answers)
    assert 1 <= looked_at <= RUN
    right = await ann.fill(page, "verify/", code=phone.code)
    assert right.status != 303, "who was shut out is shut out on every replica, with the right code too"


class Ahead(SystemClock):
    """A phone whose clock is half a minute fast: its codes are good, and the one that was used at enrolment is over."""

    @staticmethod
    def now() -> float:
        return time.time() + 30.0


async def test_a_code_of_the_app_counts_once_on_two_replicas_at_once(house: Several) -> None:
    amy, phone, _ = await enrolled(house, "amy")
    page = await asked(amy, "totp")
    two = copies(house, amy, 2, signed_in=True)
    code = phone.code
    answers = await asyncio.gather(*(one.fill(page, "verify/", code=code) for one in two))
    assert went_on(answers).count(True) == 1
    winner = two[went_on(answers).index(True)]
    winner.port = house.replicas[2].port
    assert (await winner.get("/app/x")).status == 200


async def test_a_backup_code_counts_once_in_twenty_tries_on_two_replicas(house: Several) -> None:
    ada, _, codes = await enrolled(house, "ada")
    pages = [await asked(ada, "backup_code") for _ in range(4)]
    tries = copies(house, ada, 30, signed_in=True)
    tries = [one for one in tries if one.port != house.replicas[2].port]
    answers = await asyncio.gather(
        *(one.fill(pages[number % 4], "verify/", code=codes[0]) for number, one in enumerate(tries))
    )
    assert len(answers) == 20
    assert went_on(answers).count(True) == 1


async def test_a_challenge_goes_on_at_another_replica(house: Several) -> None:
    abe, _, codes = await enrolled(house, "abe")
    page = await asked(abe, "backup_code")
    abe.port = house.replicas[1].port
    assert location(await abe.fill(page, "verify/", code=codes[0])) == "/admin/x"
    abe.port = house.replicas[2].port
    assert (await abe.get("/admin/x")).status == 200
