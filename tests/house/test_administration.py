"""`sallyport user` and `sallyport key` from another process, while the gateway carries traffic."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import jwt
import pytest
import pytest_asyncio

from tests.house.process import Home, Serving, home, until
from tests.house.visitor import Visitor, as_json, location
from tests.rig.awake import Awake
from tests.rig.client import RawClient
from tests.rig.gateway import PASSWORD
from tests.rig.upstream import RecordingUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANOTHER = "another sort of password 17"


class House(NamedTuple):
    home: Home
    serving: Serving
    service: RecordingUpstream

    def visitor(self) -> Visitor:
        return Visitor(self.home.port, origin=self.origin)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.home.port}"

    async def signed_in(self, name: str, password: str = PASSWORD) -> Visitor:
        visitor = self.visitor()
        assert location(await visitor.sign_in(name, password, "?next=/app/x")) == "/app/x"
        assert (await visitor.get("/app/x")).status == 200
        return visitor

    async def do(self, *arguments: str, password: str = "") -> str:
        stdin = f"{password}\n".encode() if password else None
        said = await self.home.call(*arguments, *(["--password-stdin"] if password else []), stdin=stdin)
        assert said.code == 0, said
        return said.out

    def events(self, kind: str) -> list[dict[str, Any]]:
        with contextlib.closing(sqlite3.connect(self.home.data / "sallyport.db")) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM events WHERE kind = ?", (kind,))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[House]:
    service = RecordingUpstream()
    await service.start()
    with home(service.port) as one:
        one.write_config(headers={"assertion": {"lifetime": "5s"}})
        async with one.serving() as serving:
            yield House(one, serving, service)
        assert serving.process.returncode == 0
        assert "Traceback" not in serving.err
    await service.stop()


@pytest.fixture
def house(running: House) -> House:
    running.service.clear()
    return running


async def dies(visitor: Visitor) -> float:
    """Wait until the session is over; how many seconds it took in which we could work."""
    awake = Awake()
    began = awake.now()

    async def is_over() -> bool:
        answer = await visitor.get("/app/x", Accept="application/json")
        assert answer.status in (200, 401)
        return answer.status == 401

    try:
        await until(is_over)
        return awake.now() - began
    finally:
        awake.end()


async def test_somebody_added_can_sign_in_at_once(house: House) -> None:
    assert (await house.visitor().sign_in("newcomer")).status == 401
    assert "added newcomer" in await house.do("user", "add", "Newcomer", "--groups", "staff", password=PASSWORD)
    await house.signed_in("newcomer")
    assert house.service.only.one("X-Forwarded-Groups") == b"staff"
    (listed,) = [one for one in json.loads(await house.do("user", "list", "--json")) if one["name"] == "newcomer"]
    assert (listed["groups"], listed["disabled"]) == (["staff"], False)
    assert len(house.events("user_added")) == 1


async def test_somebody_disabled_is_out_within_two_seconds(house: House) -> None:
    await house.do("user", "add", "bob", password=PASSWORD)
    await house.do("user", "add", "carl", password=PASSWORD)
    browsers = [await house.signed_in("bob") for _ in range(3)]
    other = await house.signed_in("carl")
    await house.do("user", "disable", "BOB")
    assert max(await asyncio.gather(*map(dies, browsers))) < 2.5
    assert (await other.get("/app/x")).status == 200, "nobody else notices"
    assert (await house.visitor().sign_in("bob")).status == 401
    asked = await browsers[0].get("/app/x")
    assert location(asked).startswith("/.sallyport/login")

    await house.do("user", "enable", "bob")
    for browser in browsers:
        assert (await browser.get("/app/x")).status == 303, "an old session does not come back"
    await house.signed_in("bob")
    assert [event["user"] for event in house.events("user_disabled")] == ["bob"]


async def test_a_new_password_ends_every_session(house: House) -> None:
    await house.do("user", "add", "dora", password=PASSWORD)
    browser = await house.signed_in("dora")
    said = await house.do("user", "passwd", "dora", password=ANOTHER)
    assert ANOTHER not in said
    assert await dies(browser) < 2.5
    assert (await house.visitor().sign_in("dora")).status == 401
    await house.signed_in("dora", ANOTHER)
    assert [event["user"] for event in house.events("password_changed")] == ["dora"]


async def test_a_weak_password_changes_nothing(house: House) -> None:
    await house.do("user", "add", "emma", password=PASSWORD)
    browser = await house.signed_in("emma")
    refused = await house.home.call("user", "passwd", "emma", "--password-stdin", stdin=b"password1\n")
    assert refused.code == 1
    assert "Traceback" not in refused.err
    assert (await browser.get("/app/x")).status == 200


# -- keys --------------------------------------------------------------------------------------------------------------


class Service:
    """Verifies what it is sent as a careful service does: keeps the key set, asks again for a key it does not know."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.keys: dict[str, jwt.PyJWK] = {}
        self.kids: list[str] = []
        self.surprises = 0
        """Assertions by a key that was not known when they came."""

    async def fetch(self) -> set[str]:
        async with await RawClient.connect(self.house.home.port) as client:
            await client.send(b"GET /.sallyport/jwks.json HTTP/1.1\r\nHost: a.test\r\n\r\n")
            found = jwt.PyJWKSet.from_dict(as_json(await client.response()))
        self.keys = {str(key.key_id): key for key in found.keys}
        return set(self.keys)

    async def verify(self, token: bytes) -> str:
        kid = str(jwt.get_unverified_header(token.decode())["kid"])
        if kid not in self.keys:
            self.surprises += 1
            await self.fetch()
        claims = jwt.decode(
            token.decode(), self.keys[kid], algorithms=["ES256"], audience="app", issuer=self.house.origin
        )
        assert claims["preferred_username"] == "frida"
        if self.kids[-1:] != [kid]:
            self.kids.append(kid)
        return kid


async def test_keys_rotate_under_traffic_without_one_failure(house: House) -> None:
    await house.do("user", "add", "frida", password=PASSWORD)
    browser = await house.signed_in("frida")
    service = Service(house)
    (first,) = await service.fetch()
    stop = False
    verified = 0

    async def traffic() -> None:
        nonlocal verified
        while not stop:
            house.service.requests.clear()
            answer = await browser.get("/app/x")
            assert answer.status == 200
            await service.verify(house.service.requests[-1].one("Sallyport-Assertion"))
            verified += 1

    async def keeps_its_keys_fresh() -> None:
        while not stop:
            await service.fetch()
            await asyncio.sleep(0.3)

    working = [asyncio.create_task(traffic()), asyncio.create_task(keeps_its_keys_fresh())]
    try:
        rotated = json.loads(await house.do("key", "rotate", "--overlap", "4s", "--json"))
        second = rotated["kid"]
        assert second != first
        await until(lambda: second in service.keys or any(task.done() for task in working))
        assert set(service.keys) == {first, second}, "the next key is published while the old one signs"
        assert service.kids == [first]
        await until(lambda: second in service.kids or any(task.done() for task in working))
        assert service.surprises == 0, "nobody met a key that was not published before"

        third = json.loads(await house.do("key", "rotate", "--overlap", "0s", "--json"))["kid"]
        await until(lambda: third in service.kids or any(task.done() for task in working))
        assert set(service.keys) == {first, second, third}, "what was signed a moment ago can still be verified"
    finally:
        stop = True
        await asyncio.gather(*working)
    assert service.kids == [first, second, third]
    assert verified > 20

    keys = json.loads(await house.do("key", "list", "--json"))
    listed = {one["kid"]: one["status"] for one in keys if one["key"] == "signing"}
    assert set(listed) == {first, second, third}
    assert list(listed.values()).count("signing") == 1
    assert len(house.events("key_rotated")) >= 2


async def test_an_unfit_key_beside_the_good_ones_changes_nothing(house: House) -> None:
    """Somebody's hand in the key folder while we run: told in the log, and the keys of before go on."""
    await house.do("user", "add", "gina", password=PASSWORD)
    browser = await house.signed_in("gina")
    before = await Service(house).fetch()
    bad = house.home.data / "keys" / "signing-20300101T000000Z-00000000.pem"
    bad.write_text("no key at all\n")
    try:
        await house.serving.until("keys not read again")
        assert bad.name in house.serving.err
        assert (await browser.get("/app/x")).status == 200
        assert await Service(house).fetch() == before
    finally:
        bad.unlink()
