from __future__ import annotations

import pytest

from gateway.wire.terms import kept_to_them
from tests.rig.gateway import Gateway, request
from tests.rig.messages import Response
from tests.rig.upstream import fixed, ok

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH = b"Cookie, Authorization"


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ([], b"private"),
        ([b"public, max-age=60"], b"max-age=60, private"),
        ([b"Public", b"S-MaxAge=60, max-age=5, immutable"], b"max-age=5, immutable, private"),
        ([b"max-age=60"], b"max-age=60, private"),
        ([b"no-cache"], b"no-cache, private"),
        ([b"private, max-age=60"], b"private, max-age=60"),
        ([b"no-store"], b"no-store"),
        ([b"NO-STORE, public"], b"NO-STORE, public"),
        ([b'private="x-a, x-b", max-age=60'], b"private"),
        ([b"private=x, must-understand, proxy-revalidate, , public"], b"private"),
    ],
)
async def test_nobody_else_keeps_it(said: list[bytes], meant: bytes) -> None:
    assert kept_to_them(said, []) == b"Cache-Control: %b\r\nVary: %b\r\n" % (meant, BOTH)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ([], BOTH),
        ([b"Accept-Encoding"], b"Accept-Encoding, " + BOTH),
        ([b"cookie", b"Accept"], b"cookie, Accept, Authorization"),
        ([b"*"], b"*"),
    ],
)
async def test_what_it_depends_on_is_said(said: list[bytes], meant: bytes) -> None:
    assert kept_to_them([b"no-store"], said) == b"Cache-Control: no-store\r\nVary: %b\r\n" % meant


async def ask(gateway: Gateway, target: bytes, cookie: bytes = b"", times: int = 1) -> Response:
    """The last of several answers on one connection."""
    async with await gateway.connect() as client:
        for _ in range(times):
            await client.send(request(target=target, cookie=cookie))
            answer = await client.response()
    return answer


@pytest.mark.parametrize("times", [1, 3], ids=["first", "remembered"])
async def test_case_121_what_is_for_somebody_is_kept_by_nobody_else(gateway: Gateway, times: int) -> None:
    """Also where the address looks like a style sheet, and the service says that everybody may."""
    gateway.upstream.script = fixed(ok(b"x", b"Cache-Control: public, s-maxage=600", b"Vary: Accept"))
    answer = await ask(gateway, b"/account.css", await gateway.cookie("bob"), times)
    assert answer.all("Cache-Control") == [b"private"]
    assert answer.all("Vary") == [b"Accept, " + BOTH]


@pytest.mark.parametrize("times", [1, 3], ids=["first", "remembered"])
async def test_what_is_for_anybody_may_be_kept(gateway: Gateway, times: int) -> None:
    gateway.upstream.script = fixed(ok(b"x", b"Cache-Control: public, max-age=600"))
    answer = await ask(gateway, b"/public/site.css", times=times)
    assert answer.all("Cache-Control") == [b"public, max-age=600"]
    assert not answer.all("Vary")


async def test_one_connection_to_a_service_carries_both(gateway: Gateway) -> None:
    """What is remembered of an answer for anybody is not told of the same answer for somebody, nor the reverse."""
    gateway.upstream.script = fixed(ok(b"x", b"Cache-Control: max-age=600"))
    cookie = await gateway.cookie("bob")
    async with await gateway.connect() as client:
        for cookies in (b"", b"", cookie, cookie, b"", cookie):
            await client.send(request(target=b"/public/site.css", cookie=cookies))
            said = (await client.response()).all("Cache-Control")
            assert said == [b"max-age=600, private" if cookies else b"max-age=600"]
