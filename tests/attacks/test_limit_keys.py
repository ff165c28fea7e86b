"""Case 117: whoever is counted stays who they are, however a request is spelled; in memory, and in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.limits.spelling import EVERYBODY, spell
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Response
from tests.rig.redis import a_server, needs_redis

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = """
rules:
  - name: address
    match: {hosts: [good.test], paths: [/address/**]}
    access: public
    limits: [{name: few, key: address, rate: 3/h}]
    upstream: app
  - name: route
    match: {hosts: [good.test], paths: [/route/**]}
    access: public
    limits: [{name: few, key: [route, address], rate: 3/h}]
    upstream: app
  - name: header
    match: {hosts: [good.test], paths: [/header/**]}
    access: public
    limits: [{name: few, key: "header:X-Api-Key", rate: 3/h}]
    upstream: app
  - name: user
    match: {hosts: [good.test], paths: [/user/**]}
    access: authenticated
    limits: [{name: few, key: user, rate: 3/h}]
    upstream: app
"""
PROXY = b"127.0.0.1"


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["memory", pytest.param("redis", marks=needs_redis)]
)
async def counting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("counting")
    if request.param == "memory":
        async with at(folder, "memory") as gateway:
            yield gateway
        return
    with a_server() as server:
        async with at(folder, server.url) as gateway:
            yield gateway


def at(folder: Path, shared: str) -> AbstractAsyncContextManager[Gateway]:
    """Trusted as a proxy, so that a test can say which address a request comes from."""
    store = {"records": f"sqlite:{folder / 'data' / 'rig.db'}", "shared": shared}
    return running(folder, policy=POLICY, config={"store": store, "trusted_proxies": ["127.0.0.1/32"]})


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(counting: Gateway) -> Gateway:
    """Nothing was counted yet."""
    for rule in ("address", "route", "header", "user"):
        await counting.app.standings.reset(rule, "", EVERYBODY)
    return counting


async def counted(gateway: Gateway, rule: str) -> list[str]:
    """Whose counters there are."""
    found, asked = await gateway.app.standings.status(rule, "", EVERYBODY, 100)
    assert asked
    return sorted(spell(each.key) for each in found)


async def one_bucket(gateway: Gateway, rule: str, spelled: Sequence[bytes]) -> list[Response]:
    """Each way to write a request is counted where the others are: three are let through, whichever they are."""
    answers = [await gateway.ask(each) for each in spelled]
    assert len(answers) > 3
    assert [answer.status for answer in answers] == [200] * 3 + [429] * (len(answers) - 3), [
        each.raw for each in answers
    ]
    assert all(answer.one("Retry-After") for answer in answers[3:])
    assert len(await counted(gateway, rule)) == 1
    return answers


def from_(address: bytes, target: bytes = b"/address/x", more: bytes = b"", **about: bytes) -> bytes:
    """A request that the proxy says is of `address`."""
    return request(target=target, head=b"X-Forwarded-For: " + address + b"\r\n" + more, **about)


async def test_addresses_inside_one_64_are_one_subscriber(gateway: Gateway) -> None:
    await one_bucket(
        gateway,
        "address",
        [from_(each) for each in (b"2001:db8::1", b"2001:DB8::2", b"2001:db8:0:0:ffff:ffff:ffff:ffff",
                                  b"2001:0db8:0000:0000::9", b"2001:db8::aaaa:7")],
    )  # fmt: skip
    assert await counted(gateway, "address") == ["address:2001:db8::/64"]
    assert (await gateway.ask(from_(b"2001:db8:0:1::1"))).status == 200


async def test_an_ipv4_address_has_one_spelling(gateway: Gateway) -> None:
    spelled = (b"192.0.2.7", b"::ffff:192.0.2.7", b"::ffff:c000:207", b" 192.0.2.7 ", b"192.0.2.7")
    await one_bucket(gateway, "address", [from_(each) for each in spelled])
    assert await counted(gateway, "address") == ["address:192.0.2.7"]


async def test_what_a_client_writes_into_forwarded_headers_is_not_believed(gateway: Gateway) -> None:
    """The proxy adds the true address at the right; all that stands left of it is the client's."""
    made_up = [b"198.51.100.%d, 192.0.2.7" % n for n in range(3)] + [b"10.0.0.1,,192.0.2.7", b"x, 192.0.2.7"]
    others = [b"Forwarded: for=198.51.100.9\r\n", b"X-Real-IP: 198.51.100.9\r\n", b"Client-IP: 198.51.100.9\r\n",
              b"True-Client-IP: 198.51.100.8\r\n", b"CF-Connecting-IP: 198.51.100.9\r\n"]  # fmt: skip
    spelled = [from_(each) for each in made_up] + [from_(b"192.0.2.7", more=each) for each in others]
    await one_bucket(gateway, "address", spelled)
    assert await counted(gateway, "address") == ["address:192.0.2.7"]


@pytest.mark.parametrize("rule", ["address", "route"])
async def test_a_path_or_a_host_in_another_spelling_is_no_other_bucket(gateway: Gateway, rule: str) -> None:
    base = b"/" + rule.encode()
    targets = [base + b"/x", base + b"/%78", base + b"/a/../x", base + b"/./x", base + b"/x?a=1", base + b"/x/",
               base + b"/x?b=2&a=1", b"http://good.test" + base + b"/x"]  # fmt: skip
    answers = [await gateway.ask(from_(b"192.0.2.7", each)) for each in targets]
    seen = [answer.status for answer in answers if answer.status not in (400, 403)]
    assert seen == [200] * 3 + [429] * (len(seen) - 3)
    assert len(seen) > 3
    hosts = [b"GOOD.test", b"good.test.", b"good.test:80", b"Good.Test.:80"]
    for host in hosts:
        answer = await gateway.ask(from_(b"192.0.2.7", targets[0], host=b"Host: " + host + b"\r\n"))
        assert answer.status in (429, 400), (host, answer.raw)
    assert len(await counted(gateway, rule)) == 1


async def test_methods_share_a_bucket(gateway: Gateway) -> None:
    await one_bucket(
        gateway,
        "address",
        [from_(b"192.0.2.7", method=each) for each in (b"GET", b"DELETE", b"OPTIONS", b"GET", b"PUT")],
    )


async def test_leaving_the_header_out_or_doubling_it_buys_nothing(gateway: Gateway) -> None:
    """Nobody's key is everybody's key: it counts by where it comes from."""
    spelled = [
        from_(b"192.0.2.7", b"/header/x", more)
        for more in (
            b"",
            b"X-Api-Key:\r\n",
            b"X-Api-Key: one\r\nX-Api-Key: two\r\n",
            b"X-Api-Key: three\r\nx-api-key: four\r\n",
            b"X-Api-Key:   \r\n",
            b"X-Api-Key: \r\nX-API-KEY: five\r\n",
        )
    ]
    await one_bucket(gateway, "header", spelled)
    assert await counted(gateway, "header") == ["address:192.0.2.7"]


async def test_a_header_has_one_bucket_wherever_it_comes_from_and_however_its_name_is_written(gateway: Gateway) -> None:
    spelled = [
        from_(address, b"/header/x", more)
        for address, more in (
            (b"192.0.2.7", b"X-Api-Key: k1\r\n"),
            (b"192.0.2.8", b"x-api-key: k1\r\n"),
            (b"192.0.2.9", b"X-API-KEY:k1\r\n"),
            (b"192.0.2.10", b"X-Api-Key:  k1 \r\n"),
            (b"192.0.2.11", b"X-Api-Key: k1\r\nX-Api-Key: k1\r\n"),
        )
    ]
    await one_bucket(gateway, "header", spelled)
    (only,) = await counted(gateway, "header")
    assert only.startswith("header:#")


async def test_a_person_has_one_bucket_from_every_browser_and_every_place(gateway: Gateway) -> None:
    cookies = [await gateway.sign_in("bob") for _ in range(4)]
    spelled = [
        from_(b"192.0.2.%d" % n, b"/user/x", cookie=cookie) for n, cookie in enumerate([*cookies, cookies[0]], 1)
    ]
    await one_bucket(gateway, "user", spelled)
    bob = await gateway.app.users.find("bob")
    assert bob is not None
    assert await counted(gateway, "user") == [f"user:{bob.subject}"]
