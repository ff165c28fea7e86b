"""Whoever must have a second factor and has none, at the gate: browsers, programs, proxies that ask, open sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
import pytest_asyncio
from sqlalchemy import delete

from gateway.core.decision import Allow, Refuse
from gateway.core.errors import StoreAway
from gateway.core.facts import Facts
from gateway.core.identity import NEVER, Identity
from gateway.core.reasons import Reason
from gateway.store.tables import factors
from tests.house.visitor import Visitor, location
from tests.rig.gateway import PASSWORD, Gateway, request, running
from tests.rig.messages import Response
from tests.wire.test_forward_auth import DIALECTS, meaning, question

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = 86_400.0
FIRST = b"/.sallyport/enrol-first"
NAVIGATES = b"Sec-Fetch-Mode: navigate\r\nAccept: text/html\r\n"
SOCKET = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://good.test\r\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = Path(tmp_path_factory.mktemp("enrol-first"))
    config = {
        "trusted_proxies": ["127.0.0.1/32"],
        "mfa": {"require": [{"groups": ["finance"], "grace": "14d"}]},
        "sessions": {"idle": "60d", "absolute": "90d"},
    }
    async with running(folder, config=config) as gateway:
        for name, groups in (("amy", ["admins"]), ("fay", ["finance"])):
            await gateway.app.users.add(name, PASSWORD, groups=groups)
        yield gateway


def refused(answer: Response) -> bool:
    """403 in the words for programs."""
    told = orjson.loads(answer.body)
    assert (answer.status, told["code"]) == (403, "ERR-MFA-ENROL"), answer.body
    assert (told["enrol"], told["challenge"]) == (FIRST.decode(), "/.sallyport/dialog")
    return True


async def test_a_browser_is_led_to_setting_one_up(gateway: Gateway) -> None:
    cookie = await gateway.cookie("amy")
    for method, target in ((b"GET", b"/x?a=1"), (b"HEAD", b"/x?a=1"), (b"GET", b"/admin/x")):
        answer = await gateway.ask(request(method, target, NAVIGATES, cookie=cookie), method.decode())
        assert answer.status == 303
        assert unquote(answer.one("Location").decode()) == f"{FIRST.decode()}?next={target.decode()}"
    assert (await gateway.ask(request(target=b"/public/x", head=NAVIGATES, cookie=cookie))).status == 200
    assert [one.target for one in gateway.upstream.requests] == [b"/public/x"]


async def test_what_no_factor_opens_names_no_way(gateway: Gateway) -> None:
    answer = await gateway.ask(request(target=b"/admin/x", cookie=await gateway.cookie("fay")))
    told = orjson.loads(answer.body)
    assert (answer.status, told["code"], {"challenge", "enrol"} & set(told)) == (403, "ERR-NOT-ALLOWED", set())


async def test_a_program_is_told_where(gateway: Gateway) -> None:
    cookie = await gateway.cookie("amy")
    for method, head in ((b"GET", b""), (b"POST", b"Content-Length: 0\r\n"), (b"DELETE", b""), (b"GET", SOCKET)):
        assert refused(await gateway.ask(request(method, b"/x", head, cookie=cookie), method.decode()))
    assert gateway.upstream.requests == []


async def test_who_may_not_enter_is_told_so_and_nothing_of_factors(gateway: Gateway) -> None:
    answer = await gateway.ask(
        request(target=b"/x", host=b"Host: nowhere.test\r\n", cookie=await gateway.cookie("amy"))
    )
    assert orjson.loads(answer.body)["code"] == "ERR-NO-RULE"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_proxy_that_asks_is_told_the_same(gateway: Gateway, dialect: str) -> None:
    cookie = await gateway.cookie("amy")
    answer = await gateway.ask(question(dialect, b"/x?a=1", head=NAVIGATES, cookie=cookie))
    assert meaning(dialect, answer) == 303
    where = answer.one("Sallyport-Location" if dialect == "nginx" else "Location")
    assert unquote(where.decode()) == "http://good.test/.sallyport/enrol-first?next=/x?a=1"
    answer = await gateway.ask(question(dialect, b"/x", cookie=cookie))
    assert meaning(dialect, answer) == 403
    if dialect != "nginx":
        assert refused(answer)
    assert not [name for name in answer.names if name.startswith("x-forwarded")]


async def test_a_form_goes_on_after_setting_one_up(gateway: Gateway) -> None:
    visitor = Visitor(gateway.port)
    await visitor.sign_in("amy")
    more = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Site": "same-origin"}
    sent = await visitor.send("POST", "/app/pay", b"sum=1", Content_Type="text/plain", **more)
    page = await visitor.get(location(sent))
    assert b"before you go on" in page.body
    assert gateway.upstream.requests == []
    ticket = location(sent).partition("resume=")[2]
    assert f"/.sallyport/enrol?next=/.sallyport/resume/{ticket}" in page.body.decode()
    assert location(await visitor.get(f"resume/{ticket}")).startswith(FIRST.decode())
    await visitor.enrol(gateway.clock)
    assert location(await visitor.fill(await visitor.get(f"resume/{ticket}"), "resume/")) == "/app/pay"
    assert (await visitor.get("/app/pay", Sec_Fetch_Mode="navigate")).status == 200
    assert [(one.method, one.body) for one in gateway.upstream.requests] == [(b"POST", b"sum=1")]
    await unbind(gateway, "amy")
    assert location(await visitor.get("/x")).startswith(FIRST.decode())


async def test_the_last_moment_of_the_time(gateway: Gateway) -> None:
    """An open session, warm all along: nothing is looked up, the moment is compared with."""
    cookie = await gateway.sign_in("fay")
    token = cookie.decode().partition("=")[2]
    found = await gateway.app.sessions.find(token)
    assert found is not None
    due = found.enrol_by
    assert due == gateway.clock.now() + 14 * DAY
    gateway.clock.jump(due - gateway.clock.now() - 0.5)
    assert (await gateway.ask(request(cookie=cookie, target=b"/x"))).status == 200
    gateway.clock.jump(0.5)
    assert refused(await gateway.ask(request(cookie=cookie, target=b"/x")))
    again = await gateway.sign_in("fay")
    assert refused(await gateway.ask(request(cookie=again, target=b"/x")))


async def test_an_administrators_word_is_obeyed_by_the_next_request(gateway: Gateway) -> None:
    cookie, demands = await gateway.cookie("bob"), gateway.app.people.demands
    assert (await gateway.ask(request(cookie=cookie, target=b"/x"))).status == 200
    bob = await gateway.app.users.find("bob")
    assert bob is not None
    now = gateway.clock.now()
    await demands.require(bob.tenant, bob.subject, user="bob", at=now + 60, by="eve")
    assert (await gateway.ask(request(cookie=cookie, target=b"/x"))).status == 200
    gateway.clock.jump(60)
    assert refused(await gateway.ask(request(cookie=cookie, target=b"/x")))
    await gateway.bind(bob.tenant, bob.subject)
    assert (await gateway.ask(request(cookie=cookie, target=b"/x"))).status == 200
    await unbind(gateway, "bob")
    assert refused(await gateway.ask(request(cookie=cookie, target=b"/x")))
    await demands.lift(bob.tenant, bob.subject, user="bob", by="eve")
    assert (await gateway.ask(request(cookie=cookie, target=b"/x"))).status == 200


async def test_what_cannot_be_looked_up_is_closed(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(identity: Identity, **_: Any) -> float:
        raise StoreAway("away")

    cookie = await gateway.cookie("carl")
    monkeypatch.setattr(gateway.app.people.demands, "enrol_by", away)
    assert (await gateway.ask(request(cookie=cookie, target=b"/x"))).status == 503
    monkeypatch.undo()
    assert (await gateway.ask(request(cookie=cookie, target=b"/x"))).status == 200


async def test_what_is_open_ends_when_the_time_is_over(gateway: Gateway) -> None:
    cookie, gate = await gateway.sign_in("carl"), gateway.app.gate
    facts = Facts(method="GET", host="good.test", path="/x", target=b"/x", address="127.0.0.1", cookie=cookie)
    verdict = await gate.judge(facts)
    assert isinstance(verdict.decision, Allow)
    assert isinstance(await gate.review(facts, verdict), Allow)
    carl = await gateway.app.users.find("carl")
    assert carl is not None
    assert carl.required_from == NEVER
    demands, now = gateway.app.people.demands, gateway.clock.now()
    await demands.require(carl.tenant, carl.subject, user="carl", at=now, by="eve")
    assert await gate.review(facts, verdict) == Refuse((Reason.MFA_ENROL,))


async def unbind(gateway: Gateway, name: str) -> None:
    """As if it had never been."""
    user = await gateway.app.users.find(name)
    assert user is not None
    async with gateway.app.records.begin(user.tenant, user.subject) as connection:
        await connection.execute(delete(factors).where(factors.c.subject == user.subject))
        await gateway.app.records.bump(connection, user.tenant, user.subject)
